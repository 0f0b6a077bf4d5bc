"""Measure alignment, correspondence and measurement against virtual patients whose truth is known.

    python benchmarks/accuracy.py --patients 10 --size small

Prints one row per follow-up and a summary: error of the alignment inside the lungs in mm (median and 95th percentile over points), F1 of
the links between lesions and the share of right events, and the largest errors of volume (%) and longest axial diameter (voxels)
among the lesions whose contours are given.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

# A script's folder comes first on the path, where a neighbour would be taken for the package radiomics.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

from ImmunoRadiomicsLib.alignment import read_transform, transform_points
from ImmunoRadiomicsLib.analysis import Lesion, StageResult
from ImmunoRadiomicsLib.order import Settings
from ImmunoRadiomicsLib.pipeline import run_stage
from ImmunoRadiomicsLib.simulation import random_scenario, simulate_patient, write_patient

POINTS = 4000


@dataclass(frozen=True)
class Score:
    """What came out for one patient."""

    errors_mm: np.ndarray
    links_found: int
    links_wrong: int
    links_missed: int
    events_right: int
    events: int
    volume_errors_percent: list[float]
    diameter_errors_voxels: list[float]


def alignment_errors(folder: Path, out: Path, timepoint: str, seed: int) -> np.ndarray:
    """Distance in mm between found and known follow-up positions of points inside the baseline's lungs."""
    lungs = sitk.ReadImage(str(folder / "truth" / "lungs_baseline.nrrd"))
    known = sitk.ReadImage(str(folder / "truth" / f"displacement_{timepoint}.nrrd"))
    inside = np.argwhere(sitk.GetArrayViewFromImage(lungs) > 0)
    chosen = inside[np.random.default_rng(seed).choice(len(inside), min(POINTS, len(inside)), replace=False)][:, ::-1]
    matrix = np.asarray(lungs.GetDirection()).reshape(3, 3) * lungs.GetSpacing()
    points = chosen @ matrix.T + lungs.GetOrigin()
    index = np.array([known.TransformPhysicalPointToContinuousIndex(point.tolist()) for point in points])
    vectors = sitk.GetArrayViewFromImage(known)
    truth = points + np.stack(
        [ndimage.map_coordinates(vectors[..., axis], index.T[::-1], order=1, mode="nearest") for axis in range(3)],
        axis=1,
    )
    found = transform_points(points, read_transform(out / "transforms" / f"{timepoint}.h5"))
    return np.linalg.norm(found - truth, axis=1)


def links(lesions: list[tuple[str, dict[str, tuple[str, ...]]]]) -> set[tuple[str, str, str, str]]:
    """All pairs (time point, segment, time point, segment) that belong to one lesion at two time points."""
    pairs = set()
    for _, seen in lesions:
        names = list(seen)
        for first, one in enumerate(names):
            for other in names[first + 1 :]:
                pairs |= {(one, a, other, b) for a in seen[one] for b in seen[other]}
    return pairs


def score(folder: Path, result: StageResult, out: Path, seed: int) -> Score:
    """Compare one patient with its truth."""
    truth = json.loads((folder / "truth" / "truth.json").read_text())
    spacing = {item.name: item.spacing_mm for item in result.timepoints}
    errors = [
        alignment_errors(folder, out, item["name"], seed) for item in truth["timepoints"] if item["name"] != "baseline"
    ]
    known = [
        (item["id"], {seen["timepoint"]: tuple(seen["segments"]) for seen in item["observations"]})
        for item in truth["lesions"]
    ]
    found = [(item.id, {seen.timepoint: seen.segments for seen in item.observations}) for item in result.lesions]
    known_links, found_links = links(known), links(found)
    right = events = 0
    volumes, diameters = [], []
    for item in truth["lesions"]:
        match = _same(item, result.lesions)
        for expected in item["observations"]:
            events += 1
            seen = match.at(expected["timepoint"]) if match is not None else None
            right += seen is not None and seen.event == expected["event"]
            if seen is None or not expected["volume_ml"] or seen.volume_ml is None or seen.long_axis_mm is None:
                continue
            volumes.append(100 * abs(seen.volume_ml / expected["volume_ml"] - 1))
            voxel = max(spacing[expected["timepoint"]][:2])
            diameters.append(abs(seen.long_axis_mm - expected["long_axis_mm"]) / voxel)
    return Score(
        np.concatenate(errors),
        len(known_links & found_links),
        len(found_links - known_links),
        len(known_links - found_links),
        right,
        events,
        volumes,
        diameters,
    )


def _same(known: dict, lesions: tuple[Lesion, ...]) -> Lesion | None:
    """The lesion that has the known one's segments where it is first seen."""
    for expected in known["observations"]:
        if expected["segments"]:
            for lesion in lesions:
                seen = lesion.at(expected["timepoint"])
                if seen is not None and set(seen.segments) == set(expected["segments"]):
                    return lesion
            return None
    return None


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first patient")
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--lesions", type=int, default=7, help="at most")
    parser.add_argument("--propagate", action="store_true", help="give no contours for follow-ups")
    options = parser.parse_args()
    scores = []
    for seed in range(options.seed, options.seed + options.patients):
        with tempfile.TemporaryDirectory() as temporary:
            folder, out = Path(temporary) / "patient", Path(temporary) / "out"
            scenario = random_scenario(np.random.default_rng(seed), lesions=(2, options.lesions))
            write_patient(simulate_patient(seed, size=options.size, scenario=scenario), folder)
            started = time.process_time()
            result = run_stage(folder / "study.yaml", out, "lesions", settings=Settings())
            item = score(folder, result, out, seed)
            scores.append(item)
            verdicts = ",".join(record.quality.verdict for record in result.alignments)
            print(
                f"seed {seed:3d}  median {np.median(item.errors_mm):.2f} p95 {np.percentile(item.errors_mm, 95):.2f} mm ({verdicts})  "
                f"links {item.links_found} +{item.links_wrong} -{item.links_missed}  events {item.events_right}/{item.events}  "
                f"volume {max(item.volume_errors_percent, default=0):.1f} %  diameter {max(item.diameter_errors_voxels, default=0):.2f} voxels  "
                f"{time.process_time() - started:.0f} s CPU",
                flush=True,
            )
    found = sum(item.links_found for item in scores)
    wrong = sum(item.links_wrong for item in scores)
    missed = sum(item.links_missed for item in scores)
    medians = [float(np.median(item.errors_mm)) for item in scores]
    print(
        f"{len(scores)} patients: median error {np.median(medians):.2f} mm (worst {max(medians):.2f}); "
        f"F1 of links {2 * found / max(2 * found + wrong + missed, 1):.3f}; "
        f"events {sum(item.events_right for item in scores)}/{sum(item.events for item in scores)}; "
        f"largest volume error {max(max(item.volume_errors_percent, default=0) for item in scores):.2f} %; "
        f"largest diameter error {max(max(item.diameter_errors_voxels, default=0) for item in scores):.2f} voxels"
    )


if __name__ == "__main__":
    main()
