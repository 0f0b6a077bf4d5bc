"""A real CT as baseline, and a follow-up made from it by a known field and a known growth of the tumour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from warping import KnownChange, like

from ImmunoRadiomicsLib import alignment
from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.images import read_volume

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SARCOMA = SHARED / "images" / "soft_tissue_sarcoma_petct"

STUDY = """\
patient: P001
tumour: sarcoma
timepoints:
  - {name: baseline, date: 2024-01-10, ct: ct1.nrrd, segmentation: seg1.nrrd}
  - {name: followup-1, date: 2024-03-12, ct: ct2.nrrd, segmentation: SEGMENTATION}
"""


def make_patient(folder: Path, ct: sitk.Image, mask: sitk.Image, *, growth: float, seed: int) -> KnownChange:
    """Write both time points; the follow-up has noise of its own."""
    inside = sitk.GetArrayFromImage(mask) > 0
    centre = np.asarray(ct.TransformContinuousIndexToPhysicalPoint(np.argwhere(inside).mean(axis=0)[::-1].tolist()))
    radius = (3 * inside.sum() * np.prod(ct.GetSpacing()) / (4 * np.pi)) ** (1 / 3)
    change = KnownChange.over(ct, centre, radius, amplitude_mm=15, growth=growth, seed=seed)
    noise = np.random.default_rng(seed).normal(0, 8, inside.shape)
    followup = np.clip(np.round(change.followup(ct, 1) + noise), -1024, 3071).astype(np.int16)
    grown = change.followup(like(inside.astype(np.float32), ct), 1) > 0.5
    sitk.WriteImage(sitk.Cast(ct, sitk.sitkInt16), folder / "ct1.nrrd")
    sitk.WriteImage(like(inside.astype(np.uint8), ct), folder / "seg1.nrrd")
    sitk.WriteImage(like(followup, ct), folder / "ct2.nrrd")
    sitk.WriteImage(like(grown.astype(np.uint8), ct), folder / "seg2.nrrd")
    return change


def errors_mm(folder: Path, change: KnownChange, ct: sitk.Image) -> np.ndarray:
    """Distance between found and known positions, inside the body and where the follow-up still shows it."""
    transform = alignment.read_transform(folder / "out" / "transforms" / "followup-1.h5")
    rng = np.random.default_rng(0)
    body = np.argwhere(sitk.GetArrayFromImage(ct) > -900)
    indices = body[rng.choice(len(body), 3000)][:, ::-1]
    points = np.array([ct.TransformIndexToPhysicalPoint(index.tolist()) for index in indices])
    known = change.to_followup(points)
    places = np.array([ct.TransformPhysicalPointToContinuousIndex(point.tolist()) for point in known])
    seen = ((places >= 0) & (places <= np.array(ct.GetSize()) - 1)).all(axis=1)
    assert seen.mean() > 0.8
    return np.linalg.norm(alignment.transform_points(points, transform) - known, axis=1)[seen]


def lesion_volumes(folder: Path) -> list[float]:
    import csv

    with (folder / "out" / "lesions.csv").open(newline="") as stream:
        return [float(row["volume_ml"]) for row in csv.DictReader(stream) if row["lesion"] == "L1"]


def check(folder: Path, ct: sitk.Image, mask: sitk.Image, *, growth: float, seed: int) -> None:
    change = make_patient(folder, ct, mask, growth=growth, seed=seed)
    (folder / "study.yaml").write_text(STUDY.replace("SEGMENTATION", "seg2.nrrd"))
    assert main(["lesions", str(folder / "study.yaml"), "--out", str(folder / "out"), "--progress", "off"]) == 0
    errors = errors_mm(folder, change, ct)
    assert np.median(errors) <= max(ct.GetSpacing()[:2])
    before, after = lesion_volumes(folder)
    truth = [int(sitk.GetArrayFromImage(sitk.ReadImage(folder / f"seg{number}.nrrd")).sum()) for number in (1, 2)]
    assert after / before == pytest.approx(truth[1] / truth[0], rel=0.05)


@pytest.mark.parametrize(("growth", "seed"), [(1.2, 1), (0.85, 2)])
@pytest.mark.skipif(not SARCOMA.exists(), reason="../shared/data is not there")
def test_sarcoma(tmp_path: Path, growth: float, seed: int) -> None:
    ct = read_volume(SARCOMA / "STS_019_CT_image.nii.gz")
    check(tmp_path, ct, sitk.ReadImage(SARCOMA / "STS_019_CT_mask.nii.gz"), growth=growth, seed=seed)


@pytest.mark.slow
def test_lung_nodule(tmp_path: Path, pyradiomics_data: Path) -> None:
    ct = read_volume(pyradiomics_data / "lung1_image.nrrd")
    check(tmp_path, ct, sitk.ReadImage(pyradiomics_data / "lung1_label.nrrd"), growth=1.25, seed=3)
