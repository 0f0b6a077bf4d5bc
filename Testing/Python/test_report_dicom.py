"""Results as DICOM: what is written is valid, is read by others, and comes back as it was."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_writer import Series, ct_series, rtstruct, save, segmentation
from factories import DATES, DAYS, LESIONS, example_analysis, example_images
from pydicom.uid import generate_uid

from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.dicom import import_folder
from ImmunoRadiomicsLib.dicom.earlier import read_report
from ImmunoRadiomicsLib.dicom.headers import scan_folder
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.images import read_segmentation, read_volume, write_segmentation, write_volume
from ImmunoRadiomicsLib.lesions.geometry import Crop
from ImmunoRadiomicsLib.lesions.measurement import measure
from ImmunoRadiomicsLib.report.dicom import codes, export_dicom
from ImmunoRadiomicsLib.serialise import to_json
from ImmunoRadiomicsLib.study import Study, Timepoint, load_study, save_study

SPACING_MM = 5.0
PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def images():
    return example_images(spacing=SPACING_MM)


@pytest.fixture(scope="module")
def exported(images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result whose study came from NRRD, exported."""
    folder = tmp_path_factory.mktemp("nrrd")
    volumes, segmentations, _ = images
    for name in DAYS:
        write_volume(volumes[name], folder / f"ct_{name}.nrrd")
        write_segmentation(segmentations[name], folder / "result" / "segmentations" / f"{name}.seg.nrrd")
    times = tuple(
        Timepoint(name, datetime.date.fromisoformat(DATES[name]), folder / f"ct_{name}.nrrd") for name in DAYS
    )
    save_study(Study("P001", times), folder / "study.yaml")
    (folder / "result" / "analysis.json").write_text(json.dumps(to_json(example_analysis())))
    (folder / "result" / "report.pdf").write_bytes(PDF)
    arguments = ["export", str(folder / "result"), "--study", str(folder / "study.yaml")]
    assert main([*arguments, "--out", str(folder / "out")]) == 0
    return folder


def test_every_time_point_has_its_objects(exported: Path) -> None:
    out = exported / "out"
    assert {path.name for path in out.iterdir()} == set(DAYS)
    for name in DAYS:
        assert (out / name / "sr.dcm").exists()
        seg = pydicom.dcmread(out / name / "seg.dcm")
        report = pydicom.dcmread(out / name / "sr.dcm")
        ct = pydicom.dcmread(out / name / "ct" / "0001.dcm")
        assert seg.StudyInstanceUID == report.StudyInstanceUID == ct.StudyInstanceUID
        assert seg.FrameOfReferenceUID == ct.FrameOfReferenceUID
        assert seg.PatientID == report.PatientID == ct.PatientID == "P001"
        assert list(ct.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    last = pydicom.dcmread(out / "followup-2" / "report.dcm")
    assert last.EncapsulatedDocument[: last.EncapsulatedDocumentLength] == PDF
    assert list(out.glob("*/report.dcm")) == [out / "followup-2" / "report.dcm"]


def test_segments_are_coded_and_tracked_over_time(exported: Path) -> None:
    found: dict[str, set[str]] = {}
    for name in DAYS:
        for item in pydicom.dcmread(exported / "out" / name / "seg.dcm").SegmentSequence:
            found.setdefault(item.SegmentLabel, set()).add(item.TrackingUID)
            assert item.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
            node = LESIONS[item.SegmentLabel][2]
            assert item.SegmentedPropertyTypeCodeSequence[0].CodeValue == ("30746006" if node else "4147007")
            site = item.AnatomicRegionSequence[0].CodeValue
            assert site == {"L": "39607008", "N": "59441001", "H": "10200004"}[item.SegmentLabel[0]]
    assert set(found) == set(LESIONS)
    assert all(len(uids) == 1 for uids in found.values())
    assert len(set.union(*found.values())) == len(LESIONS)


def test_reports_hold_the_measurements(exported: Path) -> None:
    analysis = example_analysis()
    for picture in scan_folder(exported / "out").objects:
        if picture.modality != "SR":
            continue
        groups = {group.tracking_id: group for group in read_report(picture)}
        name = next(name for name, date in DATES.items() if date == groups["L1"].date.isoformat())
        for lesion in analysis.lesions:
            seen = lesion.at(name)
            group = groups[lesion.id]
            assert seen is not None
            assert group.long_mm == pytest.approx(seen.long_axis_mm)
            assert group.short_mm == pytest.approx(seen.short_axis_mm)
            assert group.volume_ml == pytest.approx(seen.volume_ml, abs=1e-6)
            assert group.role == (lesion.role if lesion.role in ("target", "non-target") else None)
            assert group.node is lesion.node
            assert len(group.segments) == (seen.status == "measured")


def test_the_response_is_coded(exported: Path) -> None:
    report = pydicom.dcmread(exported / "out" / "followup-2" / "sr.dcm")
    pairs = [
        (item.ConceptNameCodeSequence[0].CodeValue, item.ConceptCodeSequence[0].CodeValue)
        for item in walk(report)
        if item.ValueType == "CODE"
    ]
    for expected in (
        ("112021", "126081"),
        ("112048", "112044"),
        ("112048", "112046"),
        ("RECIST11", "PD"),
        ("IRECIST", "IUPD"),
    ):
        assert expected in pairs
    scheme = report.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == codes.PRIVATE_SCHEME
    assert len(codes.PRIVATE_SCHEME) <= 16
    sums = [
        item for item in walk(report) if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "SUM"
    ]
    assert float(sums[0].MeasuredValueSequence[0].NumericValue) == pytest.approx(
        example_analysis().response.visits[1].sum_mm
    )


def walk(item: pydicom.Dataset):
    for child in item.get("ContentSequence") or []:
        yield child
        yield from walk(child)


def test_another_program_reads_the_segments(exported: Path, images, tmp_path: Path) -> None:
    if not (TOOLS / "segimage2itkimage").exists():
        pytest.skip("dcmqi is not installed")
    source = exported / "out" / "baseline" / "seg.dcm"
    command = [
        TOOLS / "segimage2itkimage",
        "--inputDICOM",
        source,
        "--outputDirectory",
        tmp_path,
        "--outputType",
        "nrrd",
    ]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    described = json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"]
    labels = {item[0]["SegmentLabel"]: item[0]["labelID"] for item in described}
    volumes, segmentations, _ = images
    for label, number in labels.items():
        found = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        whole = sitk.Resample(found, volumes["baseline"], sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        assert np.array_equal(sitk.GetArrayFromImage(whole) > 0, segmentations["baseline"].array(label))


def test_another_program_reads_the_report(exported: Path, tmp_path: Path) -> None:
    if not (TOOLS / "tid1500reader").exists():
        pytest.skip("dcmqi is not installed")
    out = tmp_path / "report.json"
    command = [
        TOOLS / "tid1500reader",
        "--inputDICOM",
        exported / "out" / "followup-1" / "sr.dcm",
        "--outputMetadata",
        out,
    ]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    groups = {item["TrackingIdentifier"]: item for item in json.loads(out.read_text())["Measurements"]}
    for lesion in example_analysis().lesions:
        seen = lesion.at("followup-1")
        if seen is None or seen.status != "measured":
            continue
        values = {
            item["quantity"]["CodeMeaning"]: float(item["value"]) for item in groups[lesion.id]["measurementItems"]
        }
        assert values["Long axis"] == pytest.approx(seen.long_axis_mm)


def test_a_validator_finds_no_error(exported: Path) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy (package dicom3tools) is not installed")
    for path in (exported / "out").rglob("*.dcm"):
        if path.parent.name == "ct" and path.name != "0001.dcm":
            continue
        said = subprocess.run([validator, str(path)], capture_output=True, check=False, text=True).stderr
        assert "Error" not in said, f"{path.name}: {said}"


def test_the_same_result_gives_the_same_objects(exported: Path, tmp_path: Path) -> None:
    study = load_study(exported / "study.yaml")
    again = export_dicom(example_analysis(), study, exported / "result", tmp_path / "out")
    for path in again.files:
        first = pydicom.dcmread(exported / "out" / path.relative_to(tmp_path / "out"))
        assert pydicom.dcmread(path).SOPInstanceUID == first.SOPInstanceUID
    with pytest.raises(InputError, match="not imported from DICOM"):
        export_dicom(example_analysis(), study, exported / "result", tmp_path / "other", dicom=tmp_path)
    assert not (tmp_path / "other").exists()


def written(images, folder: Path) -> dict[str, Series]:
    """The example patient as a hospital sends it: CT with SEG at two time points, with RTSTRUCT at the two others."""
    volumes, segmentations, _ = images
    uids: dict[str, str] = {}
    series = {}
    for index, name in enumerate(DAYS):
        date = datetime.date.fromisoformat(DATES[name])
        clipped = sitk.Clamp(volumes[name], sitk.sitkInt16, -1024, 3000)
        series[name] = save(ct_series(clipped, date=date), folder / f"{index}")
        masks = {item.name: segmentations[name].array(item.name) for item in segmentations[name].segments}
        if index % 2:
            tracking = {key: uids.setdefault(key, generate_uid()) for key in masks}
            segmentation(series[name], masks, tracking=tracking).save_as(folder / f"seg{index}")
        else:
            rtstruct(series[name], masks).save_as(folder / f"rt{index}", enforce_file_format=True)
    return series


def measured(study: Study) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Long axis, short axis and volume of every segment of a study, by the measurement of the engine."""
    found = {}
    for item in study.timepoints:
        assert item.segmentation is not None
        volume = read_volume(item.ct)
        seen = read_segmentation(item.segmentation, volume)
        for segment in seen.segments:
            size = measure(Crop(seen.array(segment.name)), volume)
            assert size is not None
            found[segment.name, item.name] = (size.long_axis_mm, size.short_axis_mm, size.volume_ml)
    return found


@pytest.mark.parametrize("way", ["sources", "derived", "pseudonymised"])
def test_round_trip(images, tmp_path: Path, way: str) -> None:
    """DICOM to study, to a result, to DICOM and back: the same lesions, diameters within 0.1 mm, volumes within 1 %."""
    written(images, tmp_path / "in")
    with_sources = way != "derived"
    key = tmp_path / "key.json" if way == "pseudonymised" else None
    import_folder(tmp_path / "in", tmp_path / "first", key_file=key)
    folder = tmp_path / "first" / "P001"
    names = dict(zip((item.name for item in load_study(folder / "study.yaml").timepoints), DAYS, strict=True))
    first = measured(load_study(folder / "study.yaml"))
    analysis = renamed(first, names)
    for item in load_study(folder / "study.yaml").timepoints:
        target = tmp_path / "result" / "segmentations" / f"{item.name}.seg.nrrd"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(item.segmentation, target)
    result = export_dicom(
        analysis,
        load_study(folder / "study.yaml"),
        tmp_path / "result",
        tmp_path / "out",
        dicom=tmp_path / "in" if with_sources else None,
        key_file=key,
    )
    assert any("derived CT" in note for note in result.notes) is not with_sources
    assert any("no longer pseudonymised" in note for note in result.notes) is (way == "pseudonymised")
    back = tmp_path / "back"
    shutil.copytree(tmp_path / "out", back)
    if with_sources:
        for index in range(len(DAYS)):
            shutil.copytree(tmp_path / "in" / str(index), back / str(index))
    import_folder(back, tmp_path / "second")
    again = load_study(tmp_path / "second" / "P001" / "study.yaml")
    second = measured(again)
    assert set(second) == set(first)
    for key, (long_mm, short_mm, volume_ml) in first.items():
        assert second[key][0] == pytest.approx(long_mm, abs=0.1)
        assert second[key][1] == pytest.approx(short_mm, abs=0.1)
        assert second[key][2] == pytest.approx(volume_ml, rel=0.01)
    linked = {(link.segment, link.lesion) for link in again.links}
    assert linked == {(name, name) for name in LESIONS if name != "L5"}
    roles = {item.segment: item.role for item in again.lesions}
    assert roles == {
        name: role if role in ("target", "non-target") else None for name, (_, role, *_) in LESIONS.items()
    }
    table = (tmp_path / "second" / "P001" / "measurements.csv").read_text()
    assert f"P001,{DATES['baseline']},L1,target,lung,0," in table


def renamed(sizes: dict[tuple[str, str], tuple[float, float, float]], names: dict[str, str]):
    """The example result with the names of time points and the sizes of the import."""
    analysis = example_analysis()
    new = {old: name for name, old in names.items()}
    lesions = []
    for lesion in analysis.lesions:
        observations = []
        for seen in lesion.observations:
            name = new[seen.timepoint]
            changes = {"timepoint": name}
            if (lesion.id, name) in sizes:
                changes |= dict(
                    zip(("long_axis_mm", "short_axis_mm", "volume_ml"), sizes[lesion.id, name], strict=True)
                )
            observations.append(dataclasses.replace(seen, **changes))
        lesions.append(dataclasses.replace(lesion, observations=tuple(observations)))
    return dataclasses.replace(
        analysis,
        baseline=new["baseline"],
        lesions=tuple(lesions),
        timepoints=tuple(dataclasses.replace(item, name=new[item.name]) for item in analysis.timepoints),
        response=dataclasses.replace(
            analysis.response,
            visits=tuple(dataclasses.replace(item, timepoint=new[item.timepoint]) for item in analysis.response.visits),
        ),
    )
