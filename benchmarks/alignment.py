"""Accuracy, CPU time and calibration of the alignment on pairs of known truth and on pairs that do not belong together.

Run from the checkout: ``python benchmarks/alignment.py IMAGE [IMAGE ...] [--seeds N] > pairs.csv``. Every image is warped by known smooth
fields (up to 15 mm), turned by up to 12 degrees, shifted by up to 35 mm and given new noise (good pairs); flipped, and paired with the next
image (bad pairs). The last lines refit the factor of ``quality.expected_error_mm`` and say how well the verdict separates.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ImmunoRadiomicsLib.alignment import Alignment, align, transform_points

NODE_MM = 5.0
SIGMA_MM = 24.0


def known_change(image: sitk.Image, seed: int, turn_degrees: float, shift_mm: float) -> sitk.Transform:
    """A map from points of the follow-up to points of the baseline."""
    rng = np.random.default_rng(seed)
    size = [int(np.ceil(n * s / NODE_MM)) + 1 for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    parts = [
        ndimage.gaussian_filter(rng.standard_normal(size[::-1]), SIGMA_MM / NODE_MM, mode="reflect") for _ in "xyz"
    ]
    vectors = np.stack(parts, axis=-1)
    vectors *= 15.0 / np.linalg.norm(vectors, axis=-1).max()
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.SetSpacing([NODE_MM] * 3)
    field.SetOrigin(image.GetOrigin())
    field.SetDirection(image.GetDirection())
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    axis, way = (vector / np.linalg.norm(vector) for vector in rng.standard_normal((2, 3)))
    rigid = sitk.VersorRigid3DTransform(axis.tolist(), np.radians(turn_degrees), (way * shift_mm).tolist(), centre)
    return sitk.CompositeTransform([sitk.DisplacementFieldTransform(field), rigid])


def followup_of(image: sitk.Image, change: sitk.Transform, seed: int) -> sitk.Image:
    values = sitk.GetArrayFromImage(sitk.Resample(image, image, change, sitk.sitkLinear, -1024.0))
    values += np.random.default_rng(seed).normal(0.0, 15.0, values.shape)
    result = sitk.GetImageFromArray(values.astype(np.float32))
    result.CopyInformation(image)
    return result


def median_error_mm(image: sitk.Image, followup: sitk.Image, change: sitk.Transform, found: Alignment) -> float:
    body = np.argwhere(sitk.GetArrayViewFromImage(followup) > -900.0)
    chosen = body[np.random.default_rng(0).choice(len(body), 3000)][:, ::-1]
    there = np.array([followup.TransformIndexToPhysicalPoint(index.tolist()) for index in chosen])
    here = transform_points(there, change)
    places = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in here.tolist()])
    seen = ((places >= 1) & (places <= np.array(image.GetSize()) - 2)).all(axis=1)
    return float(np.median(np.linalg.norm(transform_points(here, found.transform) - there, axis=1)[seen]))


def flipped(image: sitk.Image, axis: int) -> sitk.Image:
    result = sitk.Flip(image, [item == axis for item in range(3)])
    result.CopyInformation(image)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    images = [sitk.ReadImage(path, sitk.sitkFloat32) for path in options.images]
    table = csv.writer(sys.stdout)
    table.writerow(["pair", "good", "error_mm", "expected_mm", "correlation", "there_and_back_mm", "verdict", "cpu_s"])
    ratios, verdicts = [], []

    def run(name: str, fixed: sitk.Image, moving: sitk.Image, change: sitk.Transform | None) -> None:
        begin = time.process_time()
        found = align(fixed, moving)
        cpu = time.process_time() - begin
        quality = found.quality
        error = None if change is None else median_error_mm(fixed, moving, change, found)
        if error is not None and quality.expected_error_mm is not None:
            ratios.append(error / quality.expected_error_mm)
        verdicts.append((change is not None, quality.verdict))
        figures = (error, quality.expected_error_mm, quality.correlation, quality.inverse_consistency_median_mm)
        shown = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        table.writerow([name, int(change is not None), *shown, quality.verdict, f"{cpu:.1f}"])
        sys.stdout.flush()

    for number, image in enumerate(images):
        for seed in range(options.seeds):
            change = known_change(image, 100 * number + seed, 12.0 * (seed % 2), 35.0 * (seed % 2))
            followup = followup_of(image, change, seed)
            run(f"{number} warped {seed}", image, followup, change)
            run(f"{number} flipped {seed % 3}", image, flipped(followup, seed % 3), None)
        if len(images) > 1:
            run(f"{number} with the next", image, images[(number + 1) % len(images)], None)
    ratio = np.array(ratios)
    best = float(np.exp(np.median(np.log(ratio))))
    within = float((np.abs(np.log(ratio)) <= np.log(1.5)).mean())
    print(f"# factor to multiply the expected error by: {best:.2f}; within 1.5 as it is: {100 * within:.0f} %")
    missed = sum(not good and verdict != "failed" for good, verdict in verdicts)
    refused = sum(good and verdict == "failed" for good, verdict in verdicts)
    print(f"# bad pairs not recognised: {missed}; good pairs refused: {refused}; of {len(verdicts)}")


if __name__ == "__main__":
    main()
