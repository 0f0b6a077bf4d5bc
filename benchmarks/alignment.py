"""Accuracy, CPU time, calibration and failure detection of the alignment, on pairs of known truth and pairs that do not belong together.

Run from the checkout: ``python benchmarks/alignment.py [--patients N] [--image CT.nrrd ...] [--first SEED] > pairs.csv``. Pieces of a long run
(another ``--first`` each) are judged together by ``python benchmarks/alignment.py --judge pairs1.csv pairs2.csv ...``. With ``--landmarks FOLDER`` (baseline.mha,
followup.mha and their ``_landmarks_lps_mm.txt``) the engines of ``--engines`` run side by side, in both directions.

Virtual patients breathe and move by up to 40 mm and turn by up to 15 degrees, and their lesions grow or shrink by 0.4 to 3 times in volume.
Real images are warped by known smooth fields (up to 15 mm), turned by up to 15 degrees, shifted by up to 40 mm and given new noise. Bad pairs are made
from them: another patient, other axes, densities like those of MR, and results with a known error put in: shifted, turned, swirled or folded.
One alignment serves several results, which are then only measured: good ones that are nudged by less than half a voxel, bad ones, and
graded ones between the two that count for the expected error only.

The last lines say how large the errors are, how well ``quality.score`` tells good from bad (area under the ROC curve), and how near the expected
error comes to the true one: the median distance between found and known places inside the lungs, or anywhere in the body where there are none.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, stats

from ImmunoRadiomicsLib.alignment import Alignment, align, transform_points
from ImmunoRadiomicsLib.lesions.lungs import segment_anatomy
from ImmunoRadiomicsLib.simulation import random_scenario, simulate_patient

NODE_MM = 5.0
SIGMA_MM = 24.0
MOTION_MM = 40.0
TURN_DEGREES = 15.0
POINTS = 3000


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans with their anatomy, and baseline points (LPS mm) with the places in the follow-up where they truly are."""

    name: str
    scans: tuple[sitk.Image, sitk.Image]
    masks: tuple[sitk.Image, sitk.Image]
    here: np.ndarray
    there: np.ndarray

    @property
    def judged(self) -> np.ndarray:
        """Which points lie where the expected error holds: inside the lungs, or anywhere where there are none."""
        lungs = sitk.Cast((self.masks[0] == 2) | (self.masks[0] == 3), sitk.sitkUInt8)
        inside = np.array([lungs[lungs.TransformPhysicalPointToIndex(point)] > 0 for point in self.here.tolist()])
        return inside if inside.any() else ~inside


def points_of(mask: sitk.Image, seed: int) -> np.ndarray:
    """Places inside the body, half of them inside the lungs where there are lungs."""
    labels = sitk.GetArrayViewFromImage(mask)
    rng = np.random.default_rng(seed)
    regions = [region for region in (labels > 0, np.isin(labels, (2, 3))) if region.any()]
    chosen = np.concatenate([rng.choice(np.argwhere(region), POINTS // len(regions)) for region in regions])
    return np.array([mask.TransformIndexToPhysicalPoint(index[::-1].tolist()) for index in chosen])


def within(points: np.ndarray, image: sitk.Image) -> np.ndarray:
    places = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()])
    return np.asarray(((places >= 0) & (places <= np.array(image.GetSize()) - 1)).all(axis=1))


def simulated(seed: int, cache: Path | None = None) -> Pair:
    """A virtual patient and his follow-up; kept in the folder ``cache`` where one is given, and read from there the next time."""
    name = f"simulated {seed}"
    if cache is not None and (points := cache / f"{seed}.npz").exists():
        scans, masks = (
            tuple(sitk.ReadImage(str(cache / f"{seed}_{kind}{side}.nrrd")) for side in (0, 1)) for kind in ("ct", "m")
        )
        known = np.load(points)
        return Pair(name, scans, masks, known["here"], known["there"])  # type: ignore[arg-type]
    pair = _simulated(name, seed)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        for kind, images in (("ct", pair.scans), ("m", pair.masks)):
            for side, image in enumerate(images):
                sitk.WriteImage(image, str(cache / f"{seed}_{kind}{side}.nrrd"))
        np.savez(cache / f"{seed}.npz", here=pair.here, there=pair.there)
    return pair


def _simulated(name: str, seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    scenario = random_scenario(
        rng, lesions=(2, 7), event_share=0.0, prebaseline=False, motion_mm=MOTION_MM, rotation_degrees=TURN_DEGREES
    )
    grown = tuple(replace(lesion, factor=float(rng.uniform(0.4, 3.0))) for lesion in scenario.lesions)
    patient = simulate_patient(seed, size="small", scenario=replace(scenario, lesions=grown))
    first, second = patient.at("baseline"), patient.at("followup-1")
    here = points_of(first.anatomy, seed)
    there = second.deformation.forward(here[:, ::-1])[:, ::-1]
    seen = within(there, second.ct)
    masks = segment_anatomy(first.ct).image, segment_anatomy(second.ct).image
    return Pair(name, (first.ct, second.ct), masks, here[seen], there[seen])


def warped(image: sitk.Image, seed: int) -> Pair:
    """An image and its follow-up by a known change, which maps points of the follow-up to points of the image."""
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
    rigid = sitk.VersorRigid3DTransform(
        axis.tolist(),
        np.radians(rng.uniform(0.0, TURN_DEGREES)),
        (way * rng.uniform(0.0, MOTION_MM)).tolist(),
        centre,
    )
    change = sitk.CompositeTransform([sitk.DisplacementFieldTransform(field), rigid])
    values = sitk.GetArrayFromImage(sitk.Resample(image, image, change, sitk.sitkLinear, -1024.0)).astype(np.float32)
    values += rng.normal(0.0, 15.0, values.shape).astype(np.float32)
    followup = sitk.GetImageFromArray(values)
    followup.CopyInformation(image)
    masks = segment_anatomy(image).image, segment_anatomy(followup).image
    there = points_of(masks[1], seed)
    here = transform_points(there, change)
    seen = within(here, image)
    return Pair(f"warped {seed}", (image, followup), masks, here[seen], there[seen])


def flipped(image: sitk.Image, axes: tuple[int, ...]) -> sitk.Image:
    result = sitk.Flip(image, [item in axes for item in range(3)])
    result.CopyInformation(image)
    return result


def smooth_field(pair: Pair, median_mm: float, width_mm: float, rng: np.random.Generator) -> sitk.Transform:
    """A random smooth displacement whose median length over the points of a pair is known."""
    low, high = pair.here.min(axis=0) - 60.0, pair.here.max(axis=0) + 60.0
    node = 8.0
    size = np.ceil((high - low) / node).astype(int) + 1
    parts = [ndimage.gaussian_filter(rng.standard_normal(size[::-1]), width_mm / node) for _ in "xyz"]
    vectors = np.stack(parts, axis=-1)
    for _ in range(2):
        field = sitk.GetImageFromArray(vectors, isVector=True)
        field.SetSpacing([node] * 3)
        field.SetOrigin(low.tolist())
        transform = sitk.DisplacementFieldTransform(field)
        vectors *= median_mm / np.median(np.linalg.norm(transform_points(pair.here, transform) - pair.here, axis=1))
    return transform


def altered(pair: Pair, found: Alignment, rng: np.random.Generator) -> list[tuple[str, str, sitk.Transform]]:
    """The transform of a good alignment with known errors put in, as (kind, name, transform); kinds are good, bad and graded."""
    centre = pair.here.mean(axis=0)
    radius = float(np.median(np.linalg.norm(pair.here - centre, axis=1)))

    def shift(length_mm: float) -> sitk.Transform:
        way = rng.standard_normal(3)
        return sitk.TranslationTransform(3, (way * length_mm / np.linalg.norm(way)).tolist())

    def turn(length_mm: float) -> sitk.Transform:
        axis = rng.standard_normal(3)
        angle = min(0.5, length_mm / radius)
        return sitk.VersorRigid3DTransform(
            (axis / np.linalg.norm(axis)).tolist(), angle, (0.0, 0.0, 0.0), centre.tolist()
        )

    low, high = pair.here.min(axis=0), pair.here.max(axis=0)
    wave = sitk.GetImageFromArray(np.moveaxis(25.0 * np.sin(np.indices((24, 24, 24)) * 1.8), 0, -1), isVector=True)
    wave.SetOrigin(low.tolist())
    wave.SetSpacing(((high - low) / 23.0).tolist())
    errors = [
        ("good", "nudged", smooth_field(pair, rng.uniform(0.1, 0.4), rng.uniform(25.0, 50.0), rng)) for _ in range(3)
    ]
    errors += [
        ("good", "nudged by a shift", shift(rng.uniform(0.1, 0.4))),
        ("bad", "shifted", shift(rng.uniform(10.0, 30.0))),
        ("bad", "turned", turn(rng.uniform(10.0, 30.0))),
        ("bad", "swirled", smooth_field(pair, rng.uniform(10.0, 20.0), 50.0, rng)),
        ("bad", "folded", sitk.DisplacementFieldTransform(wave)),
        ("graded", "shifted a little", shift(float(np.exp(rng.uniform(np.log(0.5), np.log(8.0)))))),
        (
            "graded",
            "swirled a little",
            smooth_field(pair, float(np.exp(rng.uniform(np.log(0.5), np.log(8.0)))), 40.0, rng),
        ),
    ]
    return [(kind, name, sitk.CompositeTransform([found.transform, error])) for kind, name, error in errors]


def area_under_curve(good: list[float], bad: list[float]) -> float:
    """The chance that a good pair scores higher than a bad one; ties count half."""
    ranks = stats.rankdata(np.concatenate([good, bad]))[: len(good)]
    return float((ranks.sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def cpu_seconds() -> float:
    """The processor time of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


COLUMNS = (
    "pair",
    "kind",
    "aligned",
    "median_mm",
    "p95_mm",
    "judged_mm",
    "expected_mm",
    "remaining_mm",
    "voxel_mm",
    "correlation",
    "lung_correlation",
    "there_and_back_mm",
    "score",
    "verdict",
    "cpu_s",
    "reasons",
)


def verdict(met: bool | np.bool) -> str:
    return "met" if met else "MISSED"


def summarise(rows: list[dict[str, str]]) -> None:
    """Print what the rows say, beside what is asked for."""
    aligned = [row for row in rows if row["kind"] == "good" and row["aligned"] == "1"]
    medians = [float(row["median_mm"]) for row in aligned]
    tails = [float(row["p95_mm"]) for row in aligned]
    cpu = [float(row["cpu_s"]) for row in aligned]
    print(
        f"# {len(aligned)} alignments: median error {np.median(medians):.2f} mm (largest {max(medians):.2f}; asked 1.0: {verdict(np.median(medians) <= 1.0)}), "
        f"95th percentile {np.median(tails):.2f} mm (largest {max(tails):.2f}; asked 3: {verdict(np.median(tails) <= 3.0)})"
    )
    print(f"# CPU s: median {np.median(cpu):.1f}, largest {max(cpu):.1f}")
    good, bad = ([float(row["score"] or 0.0) for row in rows if row["kind"] == kind] for kind in ("good", "bad"))
    if bad:
        area = area_under_curve(good, bad)
        print(
            f"# area under the curve of the score: {area:.4f} ({len(good)} good, {len(bad)} bad; asked 0.99: {verdict(area >= 0.99)})"
        )
        missed = sum(row["kind"] == "bad" and row["verdict"] != "failed" for row in rows)
        refused = sum(row["kind"] == "good" and row["verdict"] == "failed" for row in rows)
        print(f"# bad pairs not recognised: {missed}; good pairs refused: {refused}")
    pairs = [
        (float(row["judged_mm"]), float(row["expected_mm"]))
        for row in rows
        if row["judged_mm"] and row["expected_mm"] and 0.1 <= float(row["judged_mm"]) <= 20.0
    ]
    if pairs:
        true, expected = np.array(pairs).T
        near = np.abs(np.log(true / expected)) <= np.log(1.5)
        print(
            f"# expected error within a factor of 1.5 of the true one: {100 * near.mean():.0f} % of {near.size} results with errors of 0.1 to 20 mm "
            f"(asked 90: {verdict(near.mean() >= 0.9)}); median ratio {np.median(true / expected):.2f}"
        )
        for low, high in ((0.1, 0.5), (0.5, 2.0), (2.0, 8.0), (8.0, 20.0)):
            within = near[(true >= low) & (true < high)]
            if within.size:
                print(f"#   true error {low:g} to {high:g} mm: {100 * within.mean():.0f} % of {within.size}")


def side_by_side(folder: Path, engines: list[str]) -> None:
    """Print how far landmarks end from their places with each engine, in both directions."""
    names = ("baseline", "followup")
    scans = [sitk.ReadImage(str(folder / f"{name}.mha")) for name in names]
    marks = [np.loadtxt(folder / f"{name}_landmarks_lps_mm.txt", skiprows=2) for name in names]
    for first, second in ((0, 1), (1, 0)):
        for engine in engines:
            begin = cpu_seconds()
            found = align(scans[first], scans[second], engine=engine)
            cpu = cpu_seconds() - begin
            errors = np.linalg.norm(transform_points(marks[first], found.transform) - marks[second], axis=1)
            quality = found.quality
            expected = "-" if quality.expected_error_mm is None else f"{quality.expected_error_mm:.2f}"
            print(
                f"# {names[second]} to {names[first]}, {engine}: median {np.median(errors):.3f} mm, mean {errors.mean():.2f}, "
                f"p95 {np.percentile(errors, 95):.2f}; expected {expected}; CPU {cpu:.1f} s; folding {quality.folding_fraction:.1g}; {quality.verdict}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--cache", type=Path, help="folder that keeps the simulated pairs for another run")
    parser.add_argument("--warps", type=int, default=3, help="follow-ups made of every image")
    parser.add_argument("--judge", nargs="+", type=Path, help="tables of earlier runs, to be judged together")
    parser.add_argument("--landmarks", type=Path, help="folder of a pair with landmarks")
    parser.add_argument("--engines", nargs="+", default=["auto", "greedy"])
    options = parser.parse_args()
    if options.judge:
        kept = [line for path in options.judge for line in path.read_text().splitlines() if not line.startswith("#")]
        summarise([row for row in csv.DictReader(kept) if row["pair"] != "pair"])
        return
    if options.landmarks:
        side_by_side(options.landmarks, options.engines)
        return
    table = csv.DictWriter(sys.stdout, COLUMNS)
    table.writeheader()
    rows: list[dict[str, str]] = []

    def run(name: str, pair: Pair, kind: str, *, known: bool = True, **how: object) -> Alignment:
        begin = cpu_seconds()
        found = align(*pair.scans, fixed_mask=pair.masks[0], moving_mask=pair.masks[1], **how)  # type: ignore[arg-type]
        cpu = cpu_seconds() - begin
        quality = found.quality
        errors = np.linalg.norm(transform_points(pair.here, found.transform) - pair.there, axis=1)
        figures = {
            "median_mm": np.median(errors) if known else None,
            "p95_mm": np.percentile(errors, 95) if known else None,
            "judged_mm": np.median(errors[pair.judged]) if known else None,
            "expected_mm": quality.expected_error_mm,
            "remaining_mm": found.measured.remaining_mm,
            "voxel_mm": float(np.prod(found.measured.grid.spacing)) ** (1 / 3),
            "correlation": quality.correlation,
            "lung_correlation": quality.lung_correlation,
            "there_and_back_mm": quality.inverse_consistency_median_mm,
            "score": quality.score,
            "cpu_s": cpu,
        }
        row = {"pair": name, "kind": kind, "aligned": str(int("engine" not in how)), "verdict": quality.verdict}
        row |= {key: "" if value is None else f"{value:.4f}" for key, value in figures.items()}
        row["reasons"] = "; ".join(quality.reasons)
        rows.append(row)
        table.writerow(row)
        sys.stdout.flush()
        return found

    images = [sitk.ReadImage(path, sitk.sitkFloat32) for path in options.image]
    makers: list[Callable[[], Pair]] = [
        partial(simulated, seed, options.cache) for seed in range(options.first, options.first + options.patients)
    ]
    makers += [
        partial(warped, image, 1000 * number + turn + options.first)
        for number, image in enumerate(images)
        for turn in range(options.warps)
    ]
    last: Pair | None = None
    for number, make in enumerate(makers, start=options.first):
        pair = make()
        found = run(pair.name, pair, "good")
        for kind, error, transform in altered(pair, found, np.random.default_rng(number)):
            # The folded result has an error of its own at every place, and no typical one.
            run(f"{pair.name} {error}", pair, kind, known=error != "folded", engine="user", initial=transform)
        wrong = number % 4
        if wrong == 0 and last is not None:
            other = replace(pair, scans=(pair.scans[0], last.scans[1]), masks=(pair.masks[0], last.masks[1]))
            run(f"{pair.name} with {last.name}", other, "bad", known=False)
        elif wrong in (1, 2):
            axes = ((0,), (2,), (0, 2), (1, 2))[number // 2 % 4]
            turned = flipped(pair.scans[1], axes), flipped(pair.masks[1], axes)
            other = replace(pair, scans=(pair.scans[0], turned[0]), masks=(pair.masks[0], turned[1]))
            run(f"{pair.name} flipped", other, "bad", known=False)
        else:
            like_mr = sitk.Clamp(sitk.Cast(pair.scans[1], sitk.sitkFloat32) + 1024.0, sitk.sitkFloat32, 0.0, 2000.0)
            wrong_scans = replace(pair, scans=(pair.scans[0], like_mr))
            run(f"{pair.name} like MR", wrong_scans, "bad", known=False, engine="rigid")
        last = pair
    summarise(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"# peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
