"""Folders as hospitals send them: each series is imported right, or refused with the reason."""

from __future__ import annotations

import csv
import datetime
import json
import random
import shutil
import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writer import Person, Series, ct_series, pet_series, rtstruct, save, segmentation
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.data import get_testdata_files
from pydicom.pixels.utils import compress
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from scipy import ndimage

from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.dicom import import_folder, read_sources
from ImmunoRadiomicsLib.dicom.choice import sharpness
from ImmunoRadiomicsLib.dicom.clinical import clinical_row, read_clinical
from ImmunoRadiomicsLib.dicom.contours import filled_polygon
from ImmunoRadiomicsLib.dicom.patient import timepoint_names
from ImmunoRadiomicsLib.errors import CancelledError, InputError
from ImmunoRadiomicsLib.images import read_segmentation, read_volume
from ImmunoRadiomicsLib.study import load_study

FIRST, SECOND = datetime.date(2024, 1, 10), datetime.date(2024, 3, 12)
SECRET_WORDS = ("musterfrau", "erika", "hosp-4711", "19500203")
ROUNDING_HU = 1.0


def hu(points: np.ndarray) -> np.ndarray:
    """A density that says where in the patient (LPS mm) a voxel is."""
    return -300 + points @ np.array([5.0, -3.0, 2.0])


def phantom(
    size: tuple[int, int, int] = (26, 22, 12),
    spacing: tuple[float, float, float] = (0.9, 0.8, 2.5),
    direction: np.ndarray | None = None,
    origin: tuple[float, float, float] = (-11.0, -9.0, -40.0),
) -> sitk.Image:
    image = sitk.Image(size, sitk.sitkInt16)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction.ravel().tolist())
    filled = sitk.GetImageFromArray(np.rint(hu(places(image))).astype(np.int16))
    filled.CopyInformation(image)
    return filled


def places(image: sitk.Image) -> np.ndarray:
    """Where each voxel (z, y, x) is."""
    z, y, x = np.indices(image.GetSize()[::-1])
    matrix = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    return np.stack([x, y, z], axis=-1) @ matrix.T + np.array(image.GetOrigin())


def assert_in_place(path: Path, image: sitk.Image | None = None, *, air: float | None = None) -> sitk.Image:
    """Every voxel holds the density of its place (where ``air`` is given, that or the air outside of the scan)."""
    found = read_volume(path)
    voxels = sitk.GetArrayFromImage(found).astype(float)
    wrong = np.abs(voxels - hu(places(found))) > (ROUNDING_HU if air is None else 2 * ROUNDING_HU)
    if air is not None:
        # Rounded twice; and half a voxel beyond the outermost centres repeats their values.
        wrong &= ndimage.binary_erosion(voxels != air)
        assert (voxels != air).mean() > 0.3
    assert not wrong.any()
    if image is not None:
        assert found.GetSize() == image.GetSize()
    return found


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "series.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def left_out(out: Path) -> str:
    return " | ".join(f"{row['reason']}; {row['notes']}" for row in rows(out) if row["use"] == "left out")


def two_dates(folder: Path, *, person: Person | None = None) -> tuple[Series, Series]:
    first = save(ct_series(phantom(), person=person, date=FIRST), folder / "one")
    return first, save(ct_series(phantom(), person=person, date=SECOND), folder / "two")


def refusal(folder: Path, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        import_folder(folder, out)
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*"))
    return str(caught.value)


def test_a_patient_with_two_dates(tmp_path: Path) -> None:
    two_dates(tmp_path / "in")
    result = import_folder(tmp_path / "in", tmp_path / "out")
    study = load_study(tmp_path / "out" / "P001" / "study.yaml")
    assert [(item.name, item.date) for item in study.timepoints] == [("baseline", FIRST), ("followup-1", SECOND)]
    acquisition = study.baseline.acquisition
    assert acquisition is not None
    assert (acquisition.kvp, acquisition.kernel, acquisition.slice_thickness_mm) == (120, "B31f", 2.5)
    assert (acquisition.contrast, acquisition.manufacturer) == (True, "SIEMENS")
    for item in study.timepoints:
        assert_in_place(item.ct, phantom())
    assert result.warnings == ()
    assert [row["use"] for row in rows(tmp_path / "out")] == ["ct", "ct"]


def test_names_of_files_and_folders_mean_nothing(tmp_path: Path) -> None:
    names = list(range(12))
    random.Random(3).shuffle(names)
    for date, folder in ((FIRST, "a"), (SECOND, "b")):
        series = ct_series(phantom(), date=date)
        save(series, tmp_path / "in", lambda index, folder=folder: f"{names[index] % 4}/{folder}{names[index]}.jpg")
        for index, data in enumerate(series.datasets):
            data.InstanceNumber = names[index]
    import_folder(tmp_path / "in", tmp_path / "out")
    assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd", phantom())


@pytest.mark.slow
def test_two_thousand_files_in_two_hundred_folders(tmp_path: Path) -> None:
    image = phantom((8, 8, 1000), (2.0, 2.0, 0.1))
    for date in (FIRST, SECOND):
        save(
            ct_series(image, date=date), tmp_path / "in", lambda index, date=date: f"D{index % 200:03d}/{date}-{index}"
        )
    seen = []
    import_folder(tmp_path / "in", tmp_path / "out", progress=lambda fraction, message: seen.append(fraction))
    assert_in_place(tmp_path / "out/P001/ct_followup-1.nrrd", image)
    assert seen == sorted(seen)
    assert len(seen) > 100


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("signed", [False, True])
def test_transfer_syntaxes(tmp_path: Path, syntax: str, signed: bool) -> None:
    for date in (FIRST, SECOND):
        series = ct_series(phantom((48, 40, 4)), date=date, signed=signed, intercept=0 if signed else -1024)
        for index, data in enumerate(series.datasets):
            if syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
                compress(data, syntax, generate_instance_uid=False)
            else:
                data.file_meta.TransferSyntaxUID = syntax
            path = tmp_path / "in" / f"{date}-{index}"
            path.parent.mkdir(exist_ok=True)
            if syntax == ExplicitVRBigEndian:
                data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
            # A dataset without a past may be written in any byte order.
            fresh = Dataset(data)
            fresh.file_meta = data.file_meta
            fresh.save_as(path, enforce_file_format=True)
    import_folder(tmp_path / "in", tmp_path / "out")
    assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd", phantom((48, 40, 4)))


@pytest.mark.parametrize(
    "rows_of_direction",
    [((-1, 0, 0), (0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, -1, 0), (0, 0, -1)), ((-1, 0, 0), (0, -1, 0), (0, 0, 1))],
)
def test_feet_first_and_prone(tmp_path: Path, rows_of_direction: tuple[tuple[int, ...], ...]) -> None:
    direction = np.array(rows_of_direction, dtype=float).T
    for date in (FIRST, SECOND):
        save(ct_series(phantom(direction=direction), date=date), tmp_path / "in" / str(date))
    import_folder(tmp_path / "in", tmp_path / "out")
    assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd", phantom())


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("angle", [2.0, 30.0])
def test_a_tilted_gantry_is_straightened(tmp_path: Path, angle: float, sign: int) -> None:
    folder = tmp_path
    turn = np.deg2rad(sign * angle)
    for date in (FIRST, SECOND):
        image = phantom((26, 40, 14))
        series = ct_series(image, date=date)
        for index, data in enumerate(series.datasets):
            # The table moves along z while the planes lean.
            data.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(turn)), float(np.sin(turn))]
            data.GantryDetectorTilt = sign * angle
            down, across = np.indices((40, 26)).astype(float)
            steps = np.stack([across * 0.9, down * 0.8 * np.cos(turn), down * 0.8 * np.sin(turn)], axis=-1)
            where = np.array([-11.0, -9.0, -40.0 + 2.5 * index])
            data.ImagePositionPatient = where.tolist()
            data.PixelData = np.rint(hu(steps + where) + 1024).astype(np.uint16).tobytes()
        save(series, folder / "in" / str(date))
    result = import_folder(folder / "in", folder / "out")
    found = assert_in_place(folder / "out/P001/ct_baseline.nrrd", air=-1024)
    assert np.allclose(np.array(found.GetDirection()).reshape(3, 3), np.eye(3), atol=1e-6)
    assert found.GetSpacing()[2] == pytest.approx(2.5)
    assert f"tilted by {angle:.1f} degrees" in " ".join(result.warnings)
    sources = read_sources(folder / "out" / "P001")
    assert sources is not None
    assert all(item.resampled for item in sources.timepoints)


def test_missing_slices_are_refused(tmp_path: Path) -> None:
    series, _ = two_dates(tmp_path / "in")
    series.paths[4].unlink()
    series.paths[7].unlink()
    result = import_folder(tmp_path / "in", tmp_path / "out")
    assert "2 slices are missing (step 2.50 mm, after -32.5, -25.0 mm" in left_out(tmp_path / "out")
    assert any("no CT of 2024-01-10" in warning for warning in result.warnings)
    study_text = (tmp_path / "out/P001/study.yaml").read_text()
    assert "2024-03-12" in study_text
    assert "2024-01-10" not in study_text


def test_slices_missing_at_an_end_are_warned_of(tmp_path: Path) -> None:
    series, _ = two_dates(tmp_path / "in")
    for path in series.paths[:2]:
        path.unlink()
    result = import_folder(tmp_path / "in", tmp_path / "out")
    assert "numbered 3 to 12 and 10 are here: slices at the ends may be missing" in " ".join(result.warnings)


def test_uneven_slices_are_interpolated_and_wide_gaps_refused(tmp_path: Path) -> None:
    for date, factor in ((FIRST, 1.0), (SECOND, 3.0)):
        series = ct_series(phantom(), date=date)
        offsets = np.cumsum([0, 1.0, 1.0, 1.6, 1.2, 1.0, 1.4, 1.0, 2.1, 1.0, 1.3, 1.0])
        for data, offset in zip(series.datasets, offsets, strict=True):
            where = [-11.0, -9.0, -40.0 + factor * float(offset)]
            data.ImagePositionPatient = where
            down, across = np.indices((22, 26)).astype(float)
            steps = np.stack([across * 0.9, down * 0.8, np.zeros_like(down)], axis=-1)
            data.PixelData = np.rint(hu(steps + np.array(where)) + 1024).astype(np.uint16).tobytes()
        save(series, tmp_path / "in" / str(date))
    result = import_folder(tmp_path / "in", tmp_path / "out")
    assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd")
    assert "1.00 to 2.10 mm apart: resampled" in " ".join(result.warnings)
    assert "gaps of more than 5 mm are not filled" in left_out(tmp_path / "out")


def test_instances_that_are_there_twice(tmp_path: Path) -> None:
    series, _ = two_dates(tmp_path / "in")
    for path in series.paths[2:6]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    result = import_folder(tmp_path / "in", tmp_path / "out")
    assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd", phantom())
    assert "4 files repeat an instance" in " ".join(result.warnings)


def test_a_repeated_instance_with_other_pixels_is_refused(tmp_path: Path) -> None:
    series, _ = two_dates(tmp_path / "in")
    data = series.datasets[3]
    data.PixelData = bytes(len(data.PixelData))
    data.save_as(tmp_path / "in" / "other", enforce_file_format=True)
    import_folder(tmp_path / "in", tmp_path / "out")
    assert "that differ carry the same instance UID" in left_out(tmp_path / "out")


def test_places_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    series, _ = two_dates(tmp_path / "in")
    data = series.datasets[3]
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.save_as(tmp_path / "in" / "other", enforce_file_format=True)
    import_folder(tmp_path / "in", tmp_path / "out")
    assert "share places" in left_out(tmp_path / "out")


@pytest.mark.parametrize("offset_mm", [0.0, 0.7])
def test_two_acquisitions_in_one_series(tmp_path: Path, offset_mm: float) -> None:
    uid, frame = generate_uid(), generate_uid()
    for number in (1, 2):
        origin = (-11.0, -9.0, -40.0 + offset_mm * (number - 1))
        image = phantom(origin=origin)
        save(
            ct_series(image, series_uid=uid, study_uid=uid, frame_of_reference=frame, acquisition=number),
            tmp_path / "in" / str(number),
        )
    save(ct_series(phantom(), date=SECOND), tmp_path / "in" / "later")
    result = import_folder(tmp_path / "in", tmp_path / "out")
    found = assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd", phantom())
    assert found.GetSpacing()[2] == pytest.approx(2.5)
    assert "2 acquisitions, told apart by their acquisition number" in " ".join(result.warnings)
    parts = {
        row["series"].rpartition("#")[2]: row["use"] for row in rows(tmp_path / "out") if row["date"] == str(FIRST)
    }
    assert parts == {"1": "ct", "2": "left out"}
    import_folder(tmp_path / "in", tmp_path / "out", series=[f"{uid}#2"])
    again = read_volume(tmp_path / "out/P001/ct_baseline.nrrd")
    assert again.GetOrigin()[2] == pytest.approx(-40 + offset_mm)


def test_patients_are_not_mixed(tmp_path: Path) -> None:
    uid = generate_uid()
    for number, name in enumerate(("A1", "A2")):
        person = Person(id=name, name=f"Muster^{name}")
        for date in (FIRST, SECOND):
            save(
                ct_series(
                    phantom(origin=(0.0, 0.0, 10.0 * number)),
                    person=person,
                    date=date,
                    series_uid=f"{uid}.{date.month}",
                ),
                tmp_path / "in",
                lambda index, date=date, name=name: f"{index}{date}{name}",
            )
    result = import_folder(tmp_path / "in", tmp_path / "out")
    assert [patient.name for patient in result.patients] == ["P001", "P002"]
    for number, patient in enumerate(result.patients):
        assert assert_in_place(patient.study.parent / "ct_baseline.nrrd", phantom()).GetOrigin()[2] == 10.0 * number
    only = import_folder(tmp_path / "in", tmp_path / "only", patient="A2")
    assert [patient.name for patient in only.patients] == ["P002"]
    with pytest.raises(InputError, match="no such patient among the 2"):
        import_folder(tmp_path / "in", tmp_path / "none", patient="A3")


def test_one_id_for_two_people_is_refused(tmp_path: Path) -> None:
    for number, birth in enumerate(("19500101", "19600101")):
        save(ct_series(phantom(), person=Person(birth_date=birth)), tmp_path / "in" / str(number))
    assert "several dates of birth" in refusal(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    series, _ = two_dates(tmp_path / "in")
    path = series.paths[5]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    import_folder(tmp_path / "in", tmp_path / "out")
    assert "cut short" in left_out(tmp_path / "out") or "slices are missing" in left_out(tmp_path / "out")
    assert not any(row["use"] == "ct" and row["date"] == str(FIRST) for row in rows(tmp_path / "out"))


def test_another_series_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    series, _ = two_dates(tmp_path / "in")
    save(ct_series(phantom((26, 22, 6), (0.9, 0.8, 5.0)), date=FIRST, number=3), tmp_path / "in" / "thick")
    series.paths[5].write_bytes(series.paths[5].read_bytes()[:-100])
    import_folder(tmp_path / "in", tmp_path / "out")
    assert assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd").GetSpacing()[2] == 5.0


def test_files_that_are_no_dicom_are_counted(tmp_path: Path) -> None:
    two_dates(tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("Frau Musterfrau")
    (tmp_path / "in" / "empty.dcm").touch()
    (tmp_path / "in" / "noise.dcm").write_bytes(np.random.default_rng(1).bytes(5000))
    (tmp_path / "in" / "prefix.dcm").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(2).bytes(500))
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in")
    import_folder(tmp_path / "in", tmp_path / "out")
    assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd", phantom())
    assert "not a DICOM file" in left_out(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"RescaleType": "US"}, "the values are US, not HU"),
        ({"RescaleSlope": None}, "no rescale slope"),
        ({"RescaleSlope": 0}, "the rescale slope is 0"),
        ({"RescaleIntercept": 0}, "they are not in HU"),
        ({"PixelSpacing": None}, "no pixel spacing"),
        ({"ImagePositionPatient": None}, "no position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no unit vectors at right angles"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"ImagePositionPatient": [0, 0, 0]}, "share places"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a capture of a screen"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "not CT"),
        ({"StudyDate": "", "SeriesDate": "", "AcquisitionDate": ""}, "no date"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "do not lie across the body"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour"),
        ({"Rows": None, "Columns": None, "PixelData": None}, "a header without an image"),
    ],
)
def test_what_is_no_ct_volume_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    series = ct_series(phantom())
    for index, data in enumerate(series.datasets):
        for name, value in changes.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)
        if reason.startswith("do not lie") or "do not lie" in reason:
            data.ImagePositionPatient = [0, 2.5 * index, 0]
    save(series, tmp_path / "in")
    assert reason in refusal(tmp_path / "in", tmp_path / "out")


def test_slices_shifted_against_each_other_are_refused(tmp_path: Path) -> None:
    series = ct_series(phantom())
    for index, data in enumerate(series.datasets):
        data.ImagePositionPatient = [-11.0 + 6.0 * (index >= 6), -9.0, -40.0 + 2.5 * index]
    save(series, tmp_path / "in")
    assert "shifted sideways" in refusal(tmp_path / "in", tmp_path / "out")


def test_the_diagnostic_series_of_a_day(tmp_path: Path) -> None:
    """Coverage comes first, then slices of at most 5 mm, a soft kernel, thin slices, contrast."""
    study, frame = generate_uid(), generate_uid()

    def write(name: str, image: sitk.Image, **options: object) -> str:
        series = ct_series(image, study_uid=study, frame_of_reference=frame, description=name, **options)
        return save(series, tmp_path / "in" / name).uid

    thin, thick = phantom((26, 22, 24), (0.9, 0.8, 1.25)), phantom((26, 22, 6), (0.9, 0.8, 5.0))
    wanted = write("wanted", thin, kernel="B31f", number=7)
    write("lung kernel", thin, kernel="B70f", number=3)
    write("thick", thick, kernel="B31f", number=2)
    write("native", thin, kernel="B31f", number=1, contrast="")
    write("part", phantom((26, 22, 20), (0.9, 0.8, 0.5)), number=4)
    save(ct_series(thin, date=SECOND, kernel="LUNG"), tmp_path / "in" / "later")
    import_folder(tmp_path / "in", tmp_path / "out")
    used = [row for row in rows(tmp_path / "out") if row["use"] == "ct"]
    assert used[0]["series"] == wanted
    assert used[0]["reason"] == "best by the rules of choice"
    said = {row["description"]: row["reason"] for row in rows(tmp_path / "out") if row["use"] == "left out"}
    assert "its kernel B70f is sharp" in said["lung kernel"]
    assert "5.00 mm apart" in said["thick"]
    assert "no contrast is stated" in said["native"]
    assert "it covers 10 mm of 30 mm" in said["part"]


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("B31f", "soft"), ("B70s", "sharp"), ("Br40d", "soft"), ("Bl57f", "sharp"), ("I30f\\3", "soft"), ("FC08", "soft"), ("FC51", "sharp"),
     ("STANDARD", "soft"), ("LUNG", "sharp"), ("BONEPLUS", "sharp"), ("B", "soft"), ("YA", "sharp"), ("", "not known"), ("X", "not known")],
)  # fmt: skip
def test_kernels(kernel: str, expected: str) -> None:
    assert sharpness(kernel) == expected


def test_contours_on_the_series_that_they_were_drawn_on(tmp_path: Path) -> None:
    """SEG, RTSTRUCT: the same voxels; the series they were drawn on is used though another is thinner."""
    mask = np.zeros((12, 22, 26), dtype=bool)
    mask[3:7, 5:14, 6:19] = True
    mask[4, 8:10, 9:12] = False
    other = np.zeros_like(mask)
    other[8:11, 2:6, 2:9] = True
    uid = generate_uid()
    first, second = two_dates(tmp_path / "in")
    segmentation(
        first, {"T01": mask, "N1": other}, tracking={"T01": uid}, node=["N1"], organs={"T01": codes.SCT.Lung}
    ).save_as(tmp_path / "in" / "seg")
    rtstruct(second, {"T01": mask, "body": np.ones_like(mask)}, {"body": "EXTERNAL"}).save_as(
        tmp_path / "in" / "rt", enforce_file_format=True
    )
    finer = phantom((26, 22, 24), (0.9, 0.8, 1.25))
    save(
        ct_series(finer, date=FIRST, frame_of_reference=first.datasets[0].FrameOfReferenceUID),
        tmp_path / "in" / "finer",
    )
    import_folder(tmp_path / "in", tmp_path / "out")
    study = load_study(tmp_path / "out/P001/study.yaml")
    for item, expected in zip(study.timepoints, ({"T01": mask, "N1": other}, {"T01": mask}), strict=True):
        assert item.segmentation is not None
        found = read_segmentation(item.segmentation, read_volume(item.ct))
        assert {segment.name for segment in found.segments} == set(expected)
        for name, voxels in expected.items():
            assert np.array_equal(found.array(name), voxels)
    described = {spec.segment: spec for spec in study.lesions}
    assert described["T01"].organ == "lung"
    assert described["N1"].node is True
    assert "the type EXTERNAL" in " ".join(row["notes"] for row in rows(tmp_path / "out"))
    sources = read_sources(tmp_path / "out/P001")
    assert sources is not None
    assert [(item.lesion, item.uid) for item in sources.tracking] == [("T01", uid)]


def test_a_lesion_keeps_its_name_by_its_tracking_uid(tmp_path: Path) -> None:
    mask = np.zeros((12, 22, 26), dtype=bool)
    mask[3:7, 5:14, 6:19] = True
    uid = generate_uid()
    for series, name in zip(two_dates(tmp_path / "in"), ("T01", "Segment_1"), strict=True):
        segmentation(series, {name: mask}, tracking={name: uid}).save_as(tmp_path / "in" / name)
    import_folder(tmp_path / "in", tmp_path / "out")
    study = load_study(tmp_path / "out/P001/study.yaml")
    assert [(link.timepoint, link.segment, link.lesion) for link in study.links] == [("followup-1", "T01", "T01")]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 12)), min_size=3, max_size=9))
def test_polygons_are_filled_by_the_even_odd_rule(points: list[tuple[float, float]]) -> None:
    polygon = np.array(points) + 0.01234567
    rows_, columns = 9, 12
    expected = np.zeros((rows_, columns), dtype=bool)
    for y in range(rows_):
        for x in range(columns):
            crossings = 0
            for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
                    crossings += 1
            expected[y, x] = crossings % 2 == 1
    assert np.array_equal(filled_polygon(polygon, (rows_, columns)), expected)


def no_change(data: object, index: int) -> None:
    """Leave a slice as it is."""


def test_pet_to_suv(tmp_path: Path) -> None:
    two_dates(tmp_path / "in")
    activity = phantom((10, 8, 6), (4.0, 4.0, 5.0))
    activity = sitk.Cast(sitk.Abs(activity), sitk.sitkInt16)
    save(pet_series(activity), tmp_path / "in" / "pet")
    import_folder(tmp_path / "in", tmp_path / "out")
    study = load_study(tmp_path / "out/P001/study.yaml")
    assert study.baseline.pet is not None
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(study.baseline.pet)))
    # One hour is 3600 / 6586.2 half-lives.
    factor = 80_000 / (370e6 * 0.5 ** (3600 / 6586.2))
    assert np.allclose(found, sitk.GetArrayFromImage(activity) * factor, rtol=1e-6)


def philips(data: object, index: int) -> None:
    data.Units, data.Manufacturer = "CNTS", "Philips"  # type: ignore[attr-defined]
    block = data.private_block(0x7053, "Philips PET Private Group", create=True)  # type: ignore[attr-defined]
    block.add_new(0x00, "DS", "0.00025")


def changed(name: str, value: object):
    def edit(data, index: int) -> None:
        target = (
            data.RadiopharmaceuticalInformationSequence[0] if name.startswith("Radio") and name != "Radio" else data
        )
        if value is None:
            delattr(target, name)
        else:
            setattr(target, name, value)

    return edit


@pytest.mark.parametrize(
    ("edit", "factor", "reason"),
    [
        (philips, 0.00025, ""),
        (changed("DecayCorrection", "ADMIN"), 80_000 / 370e6, ""),
        (changed("Units", "GML"), 1.0, ""),
        (changed("RadiopharmaceuticalStartTime", "233000"), None, "cannot be"),
        (changed("PatientWeight", None), None, "weight is not given"),
        (changed("DecayCorrection", "NONE"), None, "decay correction is NONE"),
        (changed("CorrectedImage", ["DECY"]), None, "not corrected for attenuation"),
        (changed("RadionuclideTotalDose", 370), None, "cannot be in Bq"),
        (changed("RadiopharmaceuticalStartTime", None), None, "time of the injection is not given"),
        (changed("RadionuclideHalfLife", None), None, "half-life"),
        (changed("Units", "PROPCPS"), None, "PROPCPS"),
        (changed("Units", "CNTS"), None, "factors of Philips"),
    ],
)
def test_what_suv_needs(tmp_path: Path, edit, factor: float | None, reason: str) -> None:
    two_dates(tmp_path / "in")
    activity = sitk.Cast(sitk.Abs(phantom((6, 5, 4), (4.0, 4.0, 5.0))), sitk.sitkInt16)
    save(pet_series(activity, edit=edit), tmp_path / "in" / "pet")
    import_folder(tmp_path / "in", tmp_path / "out")
    path = tmp_path / "out/P001/pet_baseline.nrrd"
    if factor is None:
        assert not path.exists()
        assert reason in left_out(tmp_path / "out")
    else:
        assert np.allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), sitk.GetArrayFromImage(activity) * factor)


def test_nothing_names_the_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    person = Person()
    for date, name in ((FIRST, "one"), (SECOND, "two")):
        series = ct_series(phantom(), person=person, date=date, description=f"Thorax Musterfrau {name}")
        save(series, tmp_path / "Musterfrau_Erika" / name)
    key = tmp_path / "keys" / "key.json"
    arguments = [
        "import",
        str(tmp_path / "Musterfrau_Erika"),
        "--out",
        str(tmp_path / "out"),
        "--pseudonymise",
        str(key),
    ]
    assert main(arguments) == 0
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    said = capsys.readouterr().err.lower() + caplog.text.lower()
    for path in written:
        said += str(path.relative_to(tmp_path / "out")).lower() + path.read_bytes()[:20000].decode("latin1").lower()
    for word in SECRET_WORDS:
        assert word not in said
    original = series.datasets[0].SeriesInstanceUID
    assert original not in said
    content = json.loads(key.read_text())
    assert content["patients"]["P001"]["patient_id"] == person.id
    assert key.stat().st_mode & 0o077 == 0
    # The same key gives the same pseudonym and the same UIDs, whoever else is in the folder.
    save(ct_series(phantom(), person=Person(id="AAA", name="A^B")), tmp_path / "more")
    save(ct_series(phantom(), person=person, date=SECOND), tmp_path / "more" / "x")
    again = import_folder(tmp_path / "more", tmp_path / "again", key_file=key)
    assert [patient.name for patient in again.patients] == ["P002", "P001"]
    with pytest.raises(InputError, match="give away"):
        import_folder(tmp_path / "more", tmp_path / "k", key_file=tmp_path / "k" / "key.json")


def test_burnt_in_text_is_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for date in (FIRST, SECOND):
        voxels = rng.normal(-400, 60, (12, 60, 60)).astype(np.int16)
        if date == FIRST:
            voxels[:, 2:8, 3:30:2] = 900
        save(ct_series(sitk.GetImageFromArray(voxels), date=date), tmp_path / "in" / str(date))
    result = import_folder(tmp_path / "in", tmp_path / "out")
    assert len(result.warnings) == 1
    assert "baseline: something is burnt into every slice" in result.warnings[0]


@pytest.mark.parametrize("cell", [">50", ">1", "-", "#5", "[1", "*", "@1", "'1'"])
def test_a_clinical_value_that_is_none_is_told_as_it_was_written(cell: str) -> None:
    _, problems = clinical_row({"patient": "A", "pdl1_percent": cell})
    assert problems == [f"`pdl1_percent: {cell}` in `clinical` is not a number."]


def test_a_clinical_table_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("\ufeffpatient;albumin_g_l;agents\n1,2;38,7;a\n", encoding="utf-8")
    (row,) = read_clinical(tmp_path / "c.csv").values()
    assert (row.patient, row.clinical.albumin_g_l, row.treatment.agents) == ("1,2", 38.7, ("a",))


def test_whole_numbers_and_truths_as_programs_write_them() -> None:
    cells = {"patient": "A", "ecog": "1.0", "ild": "0.0", "liver_metastases": "1", "ldh": "210.5", "age": "null"}
    row, problems = clinical_row(cells)
    assert problems == []
    found = row.clinical
    assert (found.ecog, found.ild, found.liver_metastases, found.ldh, found.age) == (1, False, True, 210.5, None)


def test_clinical_data_and_names_of_time_points(tmp_path: Path) -> None:
    two_dates(tmp_path / "in")
    table = tmp_path / "clinical.csv"
    table.write_text(
        "patient,treatment_start,agents,ldh,ild,tumour\nHOSP-4711,2024-03-20,pembrolizumab; ipilimumab,310,0,NSCLC\nelse,,,,,\n"
    )
    result = import_folder(tmp_path / "in", tmp_path / "out", clinical=table)
    study = load_study(tmp_path / "out/P001/study.yaml")
    assert [item.name for item in study.timepoints] == ["prebaseline", "baseline"]
    assert study.treatment.agents == ("pembrolizumab", "ipilimumab")
    assert (study.clinical.ldh, study.clinical.ild, study.tumour) == (310, False, "NSCLC")
    assert "1 of 2 patients of the clinical table" in " ".join(result.warnings)
    table.write_text("patient,ldh,colour\nHOSP-4711,5,red\n")
    with pytest.raises(InputError, match="`colour` is not known"):
        import_folder(tmp_path / "in", tmp_path / "bad", clinical=table)
    table.write_text("patient,ldh\nHOSP-4711,5\n")
    with pytest.raises(InputError, match="outside 20 to 30000"):
        import_folder(tmp_path / "in", tmp_path / "bad", clinical=table)
    assert not (tmp_path / "bad").exists()


def test_dates_get_names() -> None:
    dates = [datetime.date(2024, month, 1) for month in range(1, 6)]
    assert list(timepoint_names(dates, None).values()) == ["baseline", *(f"followup-{n}" for n in range(1, 5))]
    named = timepoint_names(dates, datetime.date(2024, 3, 5))
    assert [named[date] for date in dates] == ["prebaseline-1", "prebaseline-2", "baseline", "followup-1", "followup-2"]
    assert timepoint_names(dates, datetime.date(2023, 1, 1))[dates[0]] == "baseline"


def test_a_stopped_import_goes_on_and_leaves_no_half_folder(tmp_path: Path) -> None:
    for name in ("A1", "A2"):
        two_dates(tmp_path / "in" / name, person=Person(id=name))

    def stop(fraction: float, message: str) -> None:
        if fraction > 0.7:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        import_folder(tmp_path / "in", tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()
    done = tmp_path / ".out.partial" / "P001" / "ct_baseline.nrrd"
    written = done.stat().st_mtime_ns
    result = import_folder(tmp_path / "in", tmp_path / "out")
    assert len(result.patients) == 2
    assert (tmp_path / "out/P001/ct_baseline.nrrd").stat().st_mtime_ns == written
    assert not (tmp_path / ".out.partial").exists()


def test_folders_that_are_not_written_to(tmp_path: Path) -> None:
    two_dates(tmp_path / "in")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").touch()
    for out in ("used", "in", "in/one/out"):
        with pytest.raises(InputError):
            import_folder(tmp_path / "in", tmp_path / out)
    with pytest.raises(InputError, match="no folder"):
        import_folder(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="no such CT or PET series"):
        import_folder(tmp_path / "in", tmp_path / "out", series=["1.2.3"])


def test_what_ships_with_pydicom_is_imported_or_refused_with_a_reason(tmp_path: Path) -> None:
    """CT_small and its like are single slices; everything else is no CT or damaged. Each gets a line, nothing raises."""
    folder = tmp_path / "in"
    files = [Path(name) for name in get_testdata_files() if Path(name).is_file()]
    for index, path in enumerate(files):
        target = folder / f"{index}"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    two_dates(folder / "good")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = import_folder(folder, tmp_path / "out")
    good = next(item for item in result.patients if (item.study.parent / "ct_followup-1.nrrd").exists())
    assert_in_place(good.study.parent / "ct_baseline.nrrd", phantom())
    assert all(row.reason for row in result.rows)
    counted = sum(row.images for row in result.rows)
    assert counted >= len(files)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert "no CT series could be imported" in refusal(tmp_path / "in", tmp_path / "out")
    assert main(["import", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2


def test_enhanced_multi_frame_ct(tmp_path: Path) -> None:
    for date in (FIRST, SECOND):
        series = ct_series(phantom(), date=date)
        random.Random(1).shuffle(series.datasets)
        enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
            legacy_datasets=series.datasets,
            series_instance_uid=generate_uid(),
            series_number=9,
            sop_instance_uid=generate_uid(),
            instance_number=1,
        )
        (tmp_path / "in").mkdir(exist_ok=True)
        enhanced.save_as(tmp_path / "in" / str(date))
    import_folder(tmp_path / "in", tmp_path / "out")
    assert_in_place(tmp_path / "out/P001/ct_baseline.nrrd", phantom())
    study = load_study(tmp_path / "out/P001/study.yaml")
    assert study.baseline.acquisition is not None
    assert study.baseline.acquisition.slice_thickness_mm == 2.5


def test_a_segmentation_is_carried_to_the_series_that_was_asked_for(tmp_path: Path) -> None:
    first, _ = two_dates(tmp_path / "in")
    mask = np.zeros((12, 22, 26), dtype=bool)
    mask[3:7, 5:14, 6:19] = True
    segmentation(first, {"T01": mask}).save_as(tmp_path / "in" / "seg")
    finer = phantom((26, 22, 24), (0.9, 0.8, 1.25))
    data = first.datasets[0]
    other = save(
        ct_series(finer, date=FIRST, frame_of_reference=data.FrameOfReferenceUID, study_uid=data.StudyInstanceUID),
        tmp_path / "in" / "finer",
    )
    import_folder(tmp_path / "in", tmp_path / "out", series=[other.uid])
    baseline = load_study(tmp_path / "out/P001/study.yaml").baseline
    assert baseline.segmentation is not None
    found = read_segmentation(baseline.segmentation, read_volume(baseline.ct)).array("T01")
    # Slices of 2.5 mm lie on every second one of 1.25 mm; between two of them the nearest counts.
    assert found[6:13:2].sum() == mask.sum()
    assert found.sum() * 1.25 == pytest.approx(mask.sum() * 2.5, rel=0.13)
    assert "chosen by --series" in [row["reason"] for row in rows(tmp_path / "out")]


@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_other_kinds_of_segmentations(tmp_path: Path, kind: str) -> None:
    first, _ = two_dates(tmp_path / "in")
    mask = np.zeros((12, 22, 26), dtype=bool)
    mask[3:7, 5:14, 6:19] = True
    segmentation(first, {"T01": mask}, kind=kind).save_as(tmp_path / "in" / "seg")
    import_folder(tmp_path / "in", tmp_path / "out")
    baseline = load_study(tmp_path / "out/P001/study.yaml").baseline
    assert baseline.segmentation is not None
    assert np.array_equal(read_segmentation(baseline.segmentation, read_volume(baseline.ct)).array("T01"), mask)


def test_contours_on_every_second_slice_are_joined(tmp_path: Path) -> None:
    first, _ = two_dates(tmp_path / "in")
    mask = np.zeros((12, 22, 26), dtype=bool)
    mask[2:9:2, 5:14, 6:19] = True
    rtstruct(first, {"T01": mask}).save_as(tmp_path / "in" / "rt", enforce_file_format=True)
    import_folder(tmp_path / "in", tmp_path / "out")
    baseline = load_study(tmp_path / "out/P001/study.yaml").baseline
    assert baseline.segmentation is not None
    found = read_segmentation(baseline.segmentation, read_volume(baseline.ct)).array("T01")
    assert np.array_equal(found[2:9], np.broadcast_to(mask[2], (7, 22, 26)))
    assert not found[[0, 1, 9, 10, 11]].any()


def test_organs_are_no_lesions(tmp_path: Path) -> None:
    first, _ = two_dates(tmp_path / "in")
    mask = np.zeros((12, 22, 26), dtype=bool)
    mask[3:7, 5:14, 6:19] = True
    kinds = {"Heart": "ORGAN", "lung_left": "ORGAN", "T01": "GTV"}
    rtstruct(first, dict.fromkeys(kinds, mask), kinds).save_as(tmp_path / "in" / "rt", enforce_file_format=True)
    import_folder(tmp_path / "in", tmp_path / "out")
    study = load_study(tmp_path / "out/P001/study.yaml")
    assert {item.segment: item.ignore for item in study.lesions} == {"Heart": True, "T01": False}
