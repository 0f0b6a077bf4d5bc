"""Measure how well new ground glass is told from another breath, on virtual patients whose truth is known.

    python benchmarks/lung_change.py --patients 16 --size small

Every other patient has 20 to 150 ml of new ground glass; all breathe differently by up to 15 % of the lung volume, and
have tumours. Lungs and alignment are those of the pipeline. Prints a row per patient, then sensitivity and specificity
at 20 ml of new opacity and the error of the volume where there is any.
"""

from __future__ import annotations

import argparse
import datetime
import time

import numpy as np
import SimpleITK as sitk

from ImmunoRadiomicsLib.alignment import align
from ImmunoRadiomicsLib.analysis import LungChange
from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.lesions import segment_anatomy
from ImmunoRadiomicsLib.lesions.geometry import Crop, dilate
from ImmunoRadiomicsLib.lesions.lung_change import lung_change
from ImmunoRadiomicsLib.simulation import (
    LesionPlan,
    Scenario,
    TimepointPlan,
    VirtualPatient,
    random_motion,
    simulate_patient,
)

BREATHING_MM = 30.0
THRESHOLD_ML = 20.0
MARGIN_MM = 5.0


def virtual_patient(seed: int, size: str, new_ml: float) -> VirtualPatient:
    """A patient with two tumours and ``new_ml`` of ground glass at the follow-up."""
    rng = np.random.default_rng([seed, 40])
    motion = random_motion(rng, breathing_mm=BREATHING_MM)
    scenario = Scenario(
        timepoints=(
            TimepointPlan("baseline", datetime.date(2024, 1, 10)),
            TimepointPlan("followup-1", datetime.date(2024, 3, 12), motion, ground_glass_ml=new_ml),
        ),
        lesions=(LesionPlan("lung", 24.0, "grow", 1.8), LesionPlan("lung", 14.0, "stable", 1.0)),
        course="mixed",
    )
    return simulate_patient(seed, size="full" if size == "full" else "small", scenario=scenario)


def tumours(segments: tuple[tuple[str, RegionMask], ...], ct: sitk.Image) -> np.ndarray:
    """The tumours of a scan with a margin, as the pipeline leaves them out."""
    mask = np.zeros(ct.GetSize()[::-1], dtype=bool)
    for _, region in segments:
        crop = Crop(region.voxels, region.offset_zyx)
        mask[crop.box] |= crop.voxels
    return dilate(mask, MARGIN_MM, ct.GetSpacing()[::-1])


def measured(patient: VirtualPatient) -> LungChange:
    """What the stage says of both lungs."""
    first, second = (patient.at(name) for name in ("baseline", "followup-1"))
    anatomies = [segment_anatomy(item.ct).image for item in (first, second)]
    found = align(first.ct, second.ct, fixed_mask=anatomies[0], moving_mask=anatomies[1])
    return lung_change(
        first.ct,
        anatomies[0],
        second.ct,
        anatomies[1],
        found.transform,
        found.quality.verdict,
        timepoint="followup-1",
        baseline_exclude=tumours(first.segments, first.ct),
        followup_exclude=tumours(second.segments, second.ct),
    )[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=("small", "full"), default="small")
    options = parser.parse_args()
    hits: dict[bool, list[bool]] = {True: [], False: []}
    errors = []
    print("seed  lungs  known_ml  found_ml  CPU s")
    for seed in range(options.seed, options.seed + options.patients):
        wish = float(np.random.default_rng([seed, 41]).uniform(20.0, 150.0)) if seed % 2 else 0.0
        patient = virtual_patient(seed, options.size, wish)
        truth = patient.truth.timepoints[-1]
        start = time.process_time()
        change = measured(patient)
        seconds = time.process_time() - start
        if change.new_ground_glass_ml is None or change.new_consolidation_ml is None:
            print(f"{seed:4d}  {truth.lung_volume_ratio:5.2f}  {truth.new_opacity_ml:8.1f}  withheld: {change.reason}")
            continue
        found = change.new_ground_glass_ml + change.new_consolidation_ml
        hits[wish > 0].append((found >= THRESHOLD_ML) == (truth.new_opacity_ml >= THRESHOLD_ML))
        if wish > 0:
            errors.append(100.0 * (found / truth.new_opacity_ml - 1.0))
        print(
            f"{seed:4d}  {truth.lung_volume_ratio:5.2f}  {truth.new_opacity_ml:8.1f}  {found:8.1f}  {seconds:5.1f}",
            flush=True,
        )
    for name, known in (("sensitivity", True), ("specificity", False)):
        print(f"{name}: {sum(hits[known])} of {len(hits[known])}")
    if errors:
        size = np.abs(errors)
        print(
            f"volume error: median {np.median(errors):+.0f} %, median size {np.median(size):.0f} %, worst {max(size):.0f} %"
        )


if __name__ == "__main__":
    main()
