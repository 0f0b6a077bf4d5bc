"""Work of the panel that needs a process of its own: ``python -m ImmunoRadiomicsPanel.Tasks TASK ...``.

Progress goes to stderr as the engine's does, one JSON object per line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ImmunoRadiomicsLib.display import display
from ImmunoRadiomicsLib.errors import ImmunoRadiomicsError


def lungs(volume: Path, target: Path) -> None:
    """Segment the lungs of a CT and write them as a segmentation with one segment per lung."""
    import SimpleITK as sitk

    from ImmunoRadiomicsLib.images import Anatomy, read_volume, segmentation_from_arrays, write_segmentation
    from ImmunoRadiomicsLib.lesions import segment_anatomy

    ct = read_volume(volume)
    values = sitk.GetArrayFromImage(segment_anatomy(ct, progress=display("json")).image)
    masks = [("right lung", values == Anatomy.RIGHT_LUNG), ("left lung", values == Anatomy.LEFT_LUNG)]
    write_segmentation(segmentation_from_arrays(masks, ct), target)


def lesion(volume: Path, target: Path, place: tuple[float, float, float], name: str) -> None:
    """Segment the lesion around a place (LPS, mm) of a CT; write it as a segmentation, and beside it why a person should look."""
    from ImmunoRadiomicsLib.images import read_volume, segmentation_from_arrays, write_segmentation
    from ImmunoRadiomicsLib.lesions.seed import segment_from_seed

    ct = read_volume(volume)
    found = segment_from_seed(ct, place, progress=display("json"))
    mask = found.mask.paste(ct.GetSize()[::-1])
    write_segmentation(segmentation_from_arrays([(name, mask)], ct), target)
    target.with_suffix(".txt").write_text(found.check or "", encoding="utf-8")


def checkerboard(baseline: Path, timepoint: Path, transform: Path, target: Path, square_mm: float) -> None:
    """Lay a time point on the baseline and write both in squares by turns, on the grid of the baseline."""
    import numpy as np
    import SimpleITK as sitk

    from ImmunoRadiomicsLib.alignment import read_transform, resample
    from ImmunoRadiomicsLib.images import read_volume, write_volume

    progress = display("json")
    fixed, moving = read_volume(baseline), read_volume(timepoint)
    progress(0.3, "Laying the time point on the baseline")
    moved = resample(moving, fixed, read_transform(transform))
    progress(0.8, "Drawing squares")
    values = sitk.GetArrayFromImage(fixed)
    counts = [
        (np.arange(size) * spacing // square_mm).astype(int)
        for size, spacing in zip(values.shape, fixed.GetSpacing()[::-1], strict=True)
    ]
    z, y, x = np.ix_(*counts)
    other = (x + y + z) % 2 == 1
    values[other] = sitk.GetArrayViewFromImage(moved)[other]
    board = sitk.GetImageFromArray(values)
    board.CopyInformation(fixed)
    write_volume(board, target, compress=False)


def patient(folder: Path, seed: int, size: str) -> None:
    """Make a virtual patient and write it as a study."""
    from ImmunoRadiomicsLib import simulation
    from ImmunoRadiomicsLib.progress import part

    progress = display("json")
    made = simulation.simulate_patient(
        seed, size=size, scenario=simulation.demo_scenario(), progress=part(progress, 0.0, 0.8)
    )
    simulation.write_patient(made, folder, progress=part(progress, 0.8, 1.0))


def main() -> int:
    """Run one task and return the exit code: 0 done, else that of the engine's exception."""
    parser = argparse.ArgumentParser(prog="ImmunoRadiomicsPanel.Tasks")
    tasks = parser.add_subparsers(required=True)
    lungTask = tasks.add_parser("lungs")
    lungTask.add_argument("volume", type=Path)
    lungTask.add_argument("target", type=Path)
    lungTask.set_defaults(run=lambda options: lungs(options.volume, options.target))
    lesionTask = tasks.add_parser("lesion")
    lesionTask.add_argument("volume", type=Path)
    lesionTask.add_argument("target", type=Path)
    lesionTask.add_argument("--place", type=float, nargs=3, required=True)
    lesionTask.add_argument("--name", required=True)
    lesionTask.set_defaults(run=lambda options: lesion(options.volume, options.target, options.place, options.name))
    boardTask = tasks.add_parser("checkerboard")
    for name in ("baseline", "timepoint", "transform", "target"):
        boardTask.add_argument(name, type=Path)
    boardTask.add_argument("--square-mm", type=float, default=32.0)
    boardTask.set_defaults(
        run=lambda options: checkerboard(
            options.baseline, options.timepoint, options.transform, options.target, options.square_mm
        )
    )
    patientTask = tasks.add_parser("patient")
    patientTask.add_argument("folder", type=Path)
    patientTask.add_argument("--seed", type=int, default=7)
    patientTask.add_argument("--size", choices=("small", "full"), default="small")
    patientTask.set_defaults(run=lambda options: patient(options.folder, options.seed, options.size))
    options = parser.parse_args()
    try:
        options.run(options)
    except ImmunoRadiomicsError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
