"""How long the panel keeps the interface waiting around a run on scans of 512x512x300 voxels, over the stand-ins of the tests.

Measures how long the event loop is kept each time, while nodes are written for the engine and while its result is loaded; the
engine itself, a process of its own, is replaced by a copy of a prepared result. Prints the longest times in milliseconds, and how much
of each was processor time of the interface's thread: on a machine that does other work, the rest is waiting.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "ImmunoRadiomics"), str(ROOT / "Testing" / "Python")]

from factories import example_analysis

from ImmunoRadiomicsLib.alignment import write_transform
from ImmunoRadiomicsLib.images import segmentation_from_arrays, write_segmentation, write_volume
from ImmunoRadiomicsLib.serialise import to_json
from ImmunoRadiomicsLib.study import Study, Timepoint, save_study
from ImmunoRadiomicsLib.workspace import write_json

SPACING_MM = (0.75, 0.75, 1.25)
NAMES = ("baseline", "followup-1")


def scan(shape: tuple[int, int, int]) -> sitk.Image:
    """Return noise with the range of a chest CT."""
    values = np.random.default_rng(1).integers(-1000, 400, shape, dtype=np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING_MM)
    return image


def contours(image: sitk.Image, names: list[str]) -> list[tuple[str, np.ndarray]]:
    """Return lesions as cubes, and two lungs of a realistic share of the volume."""
    shape = image.GetSize()[::-1]
    masks = []
    for number, name in enumerate(names):
        mask = np.zeros(shape, bool)
        at = 20 + 12 * number
        mask[at : at + 10, at : at + 20, at : at + 20] = True
        masks.append((name, mask))
    for name, start in (("right lung", 0.12), ("left lung", 0.56)):
        mask = np.zeros(shape, bool)
        z, y, x = shape
        mask[z // 6 : 5 * z // 6, y // 4 : 3 * y // 4, int(start * x) : int((start + 0.3) * x)] = True
        masks.append((name, mask))
    return masks


def prepare(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write a study, and beside it what the engine would write for it."""
    analysis = example_analysis()
    kept = tuple(
        dataclasses.replace(item, observations=tuple(seen for seen in item.observations if seen.timepoint in NAMES))
        for item in analysis.lesions
    )
    record = next(item for item in analysis.alignments if item.timepoint == NAMES[1])
    analysis = dataclasses.replace(
        analysis,
        timepoints=tuple(item for item in analysis.timepoints if item.name in NAMES),
        lesions=kept,
        alignments=(dataclasses.replace(record, transform_file="transforms/followup-1.h5"),),
        # As many radiomics as a patient of eight lesions has: twelve megabytes of text.
        features=analysis.features * 60,
    )
    image = scan(shape)
    grid = sitk.Image(
        [int(n * s / 3) + 1 for n, s in zip(image.GetSize(), SPACING_MM, strict=True)], sitk.sitkVectorFloat64
    )
    grid.SetSpacing((3.0, 3.0, 3.0))
    moved = sitk.CompositeTransform([sitk.AffineTransform(3), sitk.DisplacementFieldTransform(grid)])
    (folder / "out" / "transforms").mkdir(parents=True)
    write_transform(moved, folder / "out" / "transforms" / "followup-1.h5")
    drawn = segmentation_from_arrays(contours(image, [item.id for item in kept]), image)
    timepoints = []
    for item in analysis.timepoints:
        ct, segmentation = folder / f"{item.name}.nrrd", folder / "out" / "segmentations" / f"{item.name}.seg.nrrd"
        write_volume(image, ct, compress=False)
        segmentation.parent.mkdir(exist_ok=True)
        write_segmentation(drawn, segmentation)
        timepoints.append(Timepoint(item.name, datetime.date.fromisoformat(item.date), ct, segmentation))
    save_study(Study("P001", tuple(timepoints)), folder / "study.yaml")
    write_json(folder / "out" / "analysis.json", to_json(analysis))
    (folder / "out" / "report.html").write_text("<p>report</p>", encoding="utf-8")


def measure(folder: Path) -> None:
    """Run the panel on the prepared study and print the longest pauses."""
    import slicer_stand_in

    slicer = slicer_stand_in.install()
    slicer_stand_in.new_scene(slicer)
    from panel_patient import give_result, new_panel
    from PySide6.QtWidgets import QApplication

    panel = new_panel(slicer)
    give_result(panel, folder)

    def live(label: str) -> None:
        pauses, phase = [], ""
        wall, cpu = time.perf_counter(), time.thread_time()
        while panel.work is not None:
            phase = "after the engine" if panel.work.run is not None else phase
            QApplication.processEvents()
            pauses.append((time.perf_counter() - wall, time.thread_time() - cpu, phase or "before the engine"))
            time.sleep(0.001)
            wall, cpu = time.perf_counter(), time.thread_time()
        longest = sorted(pauses, reverse=True)[:4]
        shown = [
            f"{1000 * first:.0f} ms, {1000 * own:.0f} of them its own work ({where})" for first, own, where in longest
        ]
        print(f"{label}: " + "; ".join(shown), flush=True)

    panel.begin(load(panel, folder / "study.yaml"))
    live("loading the study")
    QApplication.processEvents()
    started = time.perf_counter()
    panel.ui.runButton.click()
    print(f"click on Run: {1000 * (time.perf_counter() - started):.0f} ms")
    live("run")
    started = time.perf_counter()
    panel.ui.ldhEdit.text = "310"
    print(f"a key in the form: {1000 * (time.perf_counter() - started):.0f} ms")
    panel.ui.ldhEdit.text = ""
    panel.ui.checkerboardButton.click()
    live("checkerboard")
    print(f"messages: {panel.ui.runMessage.text} {panel.ui.resultsSection.text} {slicer_stand_in.slot_errors}")
    panel.cleanup()


def load(panel: object, path: Path):
    """Return the work that opens a study in the panel."""
    parameters = yield from panel.logic.studyWork(path)  # type: ignore[attr-defined]
    panel.showLater(parameters)  # type: ignore[attr-defined]


def main() -> None:
    """Prepare a study and measure on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("Z", "Y", "X"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), tuple(options.shape))
        measure(Path(name))


if __name__ == "__main__":
    main()
