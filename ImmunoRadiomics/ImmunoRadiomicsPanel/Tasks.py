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
