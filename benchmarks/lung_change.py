"""Measure how well new ground glass is told from another breath, on virtual patients whose truth is known.

    python benchmarks/lung_change.py --patients 60 --seed 3000 --cache build/lung_change

Every other patient (odd seeds) has 21 to 200 ml of new ground glass, in patches as the simulator draws them, in one focus or in
several; a third of them consolidation too. All breathe differently by up to 15 % of the lung volume, and have tumours
that grow, shrink, appear and vanish; some have emphysema, fibrosis or an effusion, slices of 5 mm, another dose or
another contrast at the follow-up. Lungs and alignment are those of the pipeline. Prints a row per patient, then, beside
what is demanded, sensitivity and specificity at 20 ml of new opacity and the error of the volume. Simulation, anatomy and
alignment cost about 20 CPU seconds a patient (small); ``--cache`` keeps them for as long as the code that made them stays
the same. The constants of ``lung_change`` were chosen on seeds below 3000 and, for consolidation, on seed 3013.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import ImmunoRadiomicsLib
from ImmunoRadiomicsLib.alignment import align
from ImmunoRadiomicsLib.analysis import LungChange
from ImmunoRadiomicsLib.classifiers.pneumonitis import NEW_OPACITY_ML
from ImmunoRadiomicsLib.errors import StageError
from ImmunoRadiomicsLib.images import LUNG_LABELS, RegionMask
from ImmunoRadiomicsLib.lesions import segment_anatomy
from ImmunoRadiomicsLib.lesions.geometry import Crop, dilate
from ImmunoRadiomicsLib.lesions.lung_change import lung_change
from ImmunoRadiomicsLib.simulation import (
    LesionPlan,
    Lungs,
    Motion,
    Scenario,
    TimepointPlan,
    VirtualTimepoint,
    random_motion,
    simulate_patient,
)

Form = Literal["patches", "one focus", "foci"]

LARGEST_BREATH = 0.15
# Measured: 30 mm of descent change the volume of these lungs by 10 %.
BREATH_PER_MM = 0.10 / 30.0
THRESHOLD_ML = 20.0
MARGIN_MM = 5.0
CONTRAST = (1.0, 0.25)


@dataclass(frozen=True)
class Conditions:
    """What one virtual patient is like; ``slices_mm``, ``contrast`` are those of the baseline and of the follow-up."""

    new_ground_glass_ml: float
    new_consolidation_ml: float
    form: Form
    rise_hu: float
    motion: Motion
    slices_mm: tuple[float, float]
    contrast: tuple[float, float]
    dose: float
    lungs: Lungs
    lesions: tuple[LesionPlan, ...]

    @classmethod
    def drawn(cls, seed: int, thin_mm: float) -> Conditions:
        """Draw the patient of a seed; ``thin_mm`` is the distance of the slices as they are simulated."""
        rng = np.random.default_rng([seed, 41])
        glass = math.exp(rng.uniform(math.log(21.0), math.log(200.0))) if seed % 2 else 0.0
        form: Form = ("patches", "one focus", "foci")[rng.integers(3)]
        solid = float(rng.uniform(5.0, 30.0)) if seed % 2 and form == "patches" and rng.random() < 0.5 else 0.0
        thick = (5.0, 5.0) if (draw := rng.random()) < 0.1 else (thin_mm, 5.0) if draw < 0.35 else (thin_mm, thin_mm)
        contrast = (CONTRAST if rng.random() < 0.5 else CONTRAST[::-1]) if rng.random() < 0.25 else (1.0, 1.0)
        diseased = rng.random() < 0.25
        lesions = [LesionPlan("lung", float(rng.uniform(12.0, 34.0)), "grow", float(rng.uniform(1.3, 2.5)))]
        lesions += [
            LesionPlan(("lung", "pleura")[rng.integers(2)], float(rng.uniform(12.0, 22.0)), fate)
            for fate in rng.choice(["stable", "shrink", "vanish", "new"], size=int(rng.integers(0, 4)))
        ]
        return cls(
            new_ground_glass_ml=glass,
            new_consolidation_ml=solid,
            form=form,
            rise_hu=float(rng.uniform(180.0, 330.0)),
            motion=random_motion(rng, breathing_mm=LARGEST_BREATH / BREATH_PER_MM),
            slices_mm=thick,
            contrast=contrast,
            dose=float(rng.uniform(0.5, 2.0)),
            lungs=Lungs(
                emphysema=float(rng.uniform(0.02, 0.15)) if rng.random() < 0.5 else 0.0,
                effusion_ml=(float(rng.uniform(50.0, 300.0)) if rng.random() < 0.5 else 0.0, 0.0),
                fibrosis=float(rng.uniform(0.1, 0.7)) if rng.random() < 0.5 else 0.0,
            )
            if diseased
            else Lungs(),
            lesions=tuple(lesions),
        )

    def words(self) -> str:
        """What is special about the patient, in a few words."""
        found: list[str] = [self.form] if self.new_ground_glass_ml else []
        if self.new_consolidation_ml:
            found.append("consolidation")
        if max(self.slices_mm) >= 5.0:
            found.append("slices {:g}/{:g} mm".format(*self.slices_mm))
        if self.contrast[0] != self.contrast[1]:
            found.append("contrast {:g}/{:g}".format(*self.contrast))
        found += [name for name in ("emphysema", "fibrosis") if getattr(self.lungs, name)]
        return ", ".join(found + ["effusion"] * (self.lungs.effusion_ml[0] > 0))


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans with lungs, tumours and alignment, and what is known of the follow-up."""

    cts: tuple[sitk.Image, sitk.Image]
    anatomies: tuple[sitk.Image, sitk.Image]
    tumours: tuple[np.ndarray, np.ndarray]
    transform: sitk.Transform | None
    verdict: Literal["good", "usable", "failed"]
    new_ml: float
    lung_volume_ratio: float


def simulated(seed: int, size: Literal["small", "full"], conditions: Conditions) -> tuple[VirtualTimepoint, ...]:
    """Return baseline and follow-up, each from a patient with the contrast of that scan."""
    painted = conditions.form != "patches"
    scans = {}
    for contrast in dict.fromkeys(conditions.contrast):
        scenario = Scenario(
            timepoints=(
                TimepointPlan("baseline", datetime.date(2024, 1, 10)),
                TimepointPlan(
                    "followup-1",
                    datetime.date(2024, 3, 12),
                    conditions.motion,
                    ground_glass_ml=0.0 if painted else conditions.new_ground_glass_ml,
                    consolidation_ml=conditions.new_consolidation_ml,
                    dose=conditions.dose,
                ),
            ),
            lesions=conditions.lesions,
            course="mixed",
            lungs=conditions.lungs,
            contrast=contrast,
        )
        scans[contrast] = simulate_patient(seed, size=size, scenario=scenario)
    names = ("baseline", "followup-1")
    return tuple(scans[contrast].at(name) for contrast, name in zip(conditions.contrast, names, strict=True))


def with_foci(scan: VirtualTimepoint, conditions: Conditions, seed: int) -> tuple[sitk.Image, float]:
    """Return the CT with ground glass in one ball or in several, of uneven edge, and its volume in ml."""
    rng = np.random.default_rng([seed, 42])
    hu = sitk.GetArrayFromImage(scan.ct).astype(np.float32)
    spacing = np.asarray(scan.ct.GetSpacing()[::-1])
    lungs = np.isin(sitk.GetArrayViewFromImage(scan.anatomy), LUNG_LABELS)
    free = lungs & ~tumours(scan.segments, scan.ct, margin_mm=0.0)
    count = 1 if conditions.form == "one focus" else int(rng.integers(3, 7))
    places = np.argwhere(free & (ndimage.distance_transform_edt(free, sampling=spacing) > 6.0))
    rough = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 6.0 / spacing)
    rough *= 3.0 / rough.std()
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in hu.shape), indexing="ij", sparse=False), axis=-1)
    nearest = np.full(hu.shape, np.inf, dtype=np.float32)
    for place in places[rng.choice(len(places), count, replace=False)]:
        nearest = np.minimum(nearest, np.linalg.norm((grid - place) * spacing, axis=-1).astype(np.float32))
    height = np.where(free, nearest + rough, np.inf)
    cell_ml = float(np.prod(spacing)) / 1000.0
    reach = float(np.partition(height[free], n := round(conditions.new_ground_glass_ml / cell_ml))[n])
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 1.5) * np.float32(120.0)
    share = np.clip((reach - height) / 3.0 + 0.5, 0.0, 1.0) * free
    hu += share * (conditions.rise_hu + grain) * np.clip((-250.0 - hu) / 300.0, 0.0, 1.0)
    painted = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    painted.CopyInformation(scan.ct)
    return painted, float((height < reach).sum()) * cell_ml


def thicker(ct: sitk.Image, slices_mm: float) -> sitk.Image:
    """Return a CT whose slices are the means of as many as make up ``slices_mm``."""
    many = round(slices_mm / ct.GetSpacing()[2])
    return ct if many < 2 else sitk.Cast(sitk.BinShrink(ct, [1, 1, many]), sitk.sitkInt16)


def tumours(segments: tuple[tuple[str, RegionMask], ...], ct: sitk.Image, margin_mm: float = MARGIN_MM) -> np.ndarray:
    """The tumours of a scan with a margin, as the pipeline leaves them out."""
    mask = np.zeros(ct.GetSize()[::-1], dtype=bool)
    for _, region in segments:
        crop = Crop(region.voxels, region.offset_zyx)
        mask[crop.box] |= crop.voxels
    return dilate(mask, margin_mm, ct.GetSpacing()[::-1]) if margin_mm else mask


def prepared(seed: int, size: Literal["small", "full"], cache: Path | None) -> tuple[Conditions, Pair]:
    """Simulate, find the lungs and align; or read what an earlier run kept."""
    conditions = Conditions.drawn(seed, 2.5 if size == "small" else 1.25)
    folder = cache / f"{size}-{seed}-{_code()}" if cache else None
    if folder and (folder / "pair.json").is_file():
        return conditions, _read(folder)
    scans = simulated(seed, size, conditions)
    after, new_ml = scans[1].ct, 0.0
    if scans[1].opacities is not None:
        cells = np.count_nonzero(sitk.GetArrayViewFromImage(scans[1].opacities))
        new_ml = cells * float(np.prod(after.GetSpacing())) / 1000.0
    elif conditions.new_ground_glass_ml:
        after, new_ml = with_foci(scans[1], conditions, seed)
    cts = tuple(thicker(ct, mm) for ct, mm in zip((scans[0].ct, after), conditions.slices_mm, strict=True))
    masks = []
    for scan, ct in zip(scans, cts, strict=True):
        mask = sitk.GetImageFromArray(tumours(scan.segments, scan.ct).astype(np.uint8))
        mask.CopyInformation(scan.ct)
        masks.append(sitk.GetArrayFromImage(sitk.Resample(mask, ct, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0)
    anatomies = tuple(segment_anatomy(ct).image for ct in cts)
    found = align(cts[0], cts[1], fixed_mask=anatomies[0], moving_mask=anatomies[1])
    volumes = [float(np.isin(sitk.GetArrayViewFromImage(scan.anatomy), LUNG_LABELS).sum()) for scan in scans]
    pair = Pair(
        (cts[0], cts[1]),
        (anatomies[0], anatomies[1]),
        (masks[0], masks[1]),
        found.transform,
        found.quality.verdict,
        new_ml,
        volumes[1] / volumes[0],
    )
    if folder:
        _write(folder, pair)
    return conditions, pair


def measured(pair: Pair) -> LungChange:
    """What the stage says of both lungs."""
    return lung_change(
        pair.cts[0],
        pair.anatomies[0],
        pair.cts[1],
        pair.anatomies[1],
        pair.transform,
        pair.verdict,
        timepoint="followup-1",
        baseline_exclude=pair.tumours[0],
        followup_exclude=pair.tumours[1],
    ).changes[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=3000)
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    hits: dict[bool, list[bool]] = {True: [], False: []}
    errors = []
    withheld = 0
    print("seed  lungs  known_ml  found_ml  CPU s  what is special")
    for seed in range(options.seed, options.seed + options.patients):
        start = time.process_time()
        try:
            conditions, pair = prepared(seed, options.size, options.cache)
        except StageError as error:
            print(f"{seed:4d}  no such patient: {error}")
            continue
        change = measured(pair)
        seconds = time.process_time() - start
        row = f"{seed:4d}  {pair.lung_volume_ratio:5.2f}  {pair.new_ml:8.1f}"
        if change.new_ground_glass_ml is None or change.new_consolidation_ml is None:
            withheld += 1
            print(f"{row}  withheld: {change.reason}  {conditions.words()}", flush=True)
            continue
        found = change.new_ground_glass_ml + change.new_consolidation_ml
        known = pair.new_ml >= THRESHOLD_ML
        hits[known].append((found >= NEW_OPACITY_ML) == known)
        if known:
            errors.append(100.0 * (found / pair.new_ml - 1.0))
        print(f"{row}  {found:8.1f}  {seconds:5.1f}  {conditions.words()}", flush=True)
    for name, known in (("sensitivity", True), ("specificity", False)):
        share = sum(hits[known]) / max(len(hits[known]), 1)
        print(
            f"{name}: {sum(hits[known])} of {len(hits[known])}, demanded 0.95: {'met' if share >= 0.95 else 'missed'}"
        )
    print(f"withheld: {withheld}")
    if errors:
        size = np.abs(errors)
        within = int((size <= 20.0).sum())
        print(
            f"volume error: median {np.median(errors):+.0f} %, median size {np.median(size):.0f} %, worst {max(size):.0f} %; "
            f"within 20 %: {within} of {len(errors)}"
        )


def _code() -> str:
    """Return a name for the code that the kept files depend on."""
    folder = Path(ImmunoRadiomicsLib.__file__).parent
    files = [*folder.glob("alignment/*.py"), *folder.glob("simulation/*.py"), folder / "lesions" / "lungs.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:8]


def _write(folder: Path, pair: Pair) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        sitk.WriteImage(pair.cts[index], str(folder / f"ct{index}.nrrd"), True)
        sitk.WriteImage(pair.anatomies[index], str(folder / f"anatomy{index}.nrrd"), True)
        mask = sitk.GetImageFromArray(pair.tumours[index].astype(np.uint8))
        sitk.WriteImage(mask, str(folder / f"tumours{index}.nrrd"), True)
    if pair.transform is not None:
        sitk.WriteTransform(pair.transform, str(folder / "transform.h5"))
    known = {"verdict": pair.verdict, "new_ml": pair.new_ml, "lung_volume_ratio": pair.lung_volume_ratio}
    (folder / "pair.json").write_text(json.dumps(known), encoding="utf-8")


def _read(folder: Path) -> Pair:
    known = json.loads((folder / "pair.json").read_text(encoding="utf-8"))

    def both(name: str) -> tuple[sitk.Image, sitk.Image]:
        return sitk.ReadImage(str(folder / f"{name}0.nrrd")), sitk.ReadImage(str(folder / f"{name}1.nrrd"))

    masks = [sitk.GetArrayFromImage(item) > 0 for item in both("tumours")]
    carried = folder / "transform.h5"
    transform = sitk.ReadTransform(str(carried)) if carried.is_file() else None
    return Pair(both("ct"), both("anatomy"), (masks[0], masks[1]), transform, **known)


if __name__ == "__main__":
    main()
