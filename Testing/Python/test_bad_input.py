"""Wrong input: one message for each problem, exit code 2, and no output folder left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib import pipeline
from ImmunoRadiomicsLib.analysis import Lesion, LesionObservation
from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.inputs import read_inputs
from ImmunoRadiomicsLib.order import Order
from ImmunoRadiomicsLib.progress import silent
from ImmunoRadiomicsLib.study import load_study

SHAPE = (10, 24, 30)
STUDY = """\
patient: P001
timepoints:
  - {name: baseline, date: 2024-01-10, ct: ct1.nrrd, segmentation: seg1.nrrd}
  - {name: followup-1, date: 2024-03-12, ct: ct2.nrrd, segmentation: seg2.nrrd}
lesions:
  - {segment: L1, organ: lung, role: target}
"""


def image(values: np.ndarray) -> sitk.Image:
    result = sitk.GetImageFromArray(values)
    if result.GetDimension() == 3:
        result.SetSpacing((0.8, 0.8, 2.5))
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(-400, 100, SHAPE).astype(np.int16)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 5:10, 5:10] = 1
    for number in (1, 2):
        sitk.WriteImage(image(values), tmp_path / f"ct{number}.nrrd")
        sitk.WriteImage(image(mask), tmp_path / f"seg{number}.nrrd")
    sitk.WriteTransform(sitk.Euler3DTransform(), tmp_path / "identity.tfm")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "study.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def replace_image(name: str, change: Callable[[sitk.Image], sitk.Image]) -> Callable[[Path], None]:
    return lambda folder: sitk.WriteImage(change(sitk.ReadImage(folder / name)), folder / name)


def with_nan(volume: sitk.Image) -> sitk.Image:
    values = sitk.GetArrayFromImage(volume).astype(np.float32)
    values[2, 3, 4] = np.nan
    return image(values)


def without_spacing(folder: Path) -> None:
    values = sitk.GetArrayFromImage(sitk.ReadImage(folder / "ct2.nrrd"))
    sizes = " ".join(map(str, values.shape[::-1]))
    header = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: raw\n\n"
    (folder / "ct2.nrrd").write_bytes(header.encode() + values.astype("<i2").tobytes())


def detach(folder: Path) -> Path:
    """Put a header and a file of voxels in the place of a CT and return the latter."""
    sitk.WriteImage(sitk.ReadImage(str(folder / "ct2.nrrd")), str(folder / "ct2.mhd"))
    edit("ct2.nrrd", "ct2.mhd")(folder)
    return folder / "ct2.raw"


MISTAKES = {
    "a missing image": (lambda folder: (folder / "ct2.nrrd").unlink(), "ct2.nrrd"),
    "a missing segmentation": (lambda folder: (folder / "seg2.nrrd").unlink(), "seg2.nrrd"),
    "a mask on another grid": (replace_image("seg2.nrrd", lambda mask: sitk.Expand(mask, [2, 2, 1])), "another grid"),
    "an empty mask": (replace_image("seg1.nrrd", lambda mask: mask * 0), "is empty"),
    "an empty mask at the follow-up": (replace_image("seg2.nrrd", lambda mask: mask * 0), "no_visible_lesions"),
    "two time points on one date": (edit("2024-03-12", "2024-01-10"), "same date"),
    "a follow-up before the baseline": (edit("2024-03-12", "2023-12-01"), "before the baseline"),
    "an image with NaN": (replace_image("ct1.nrrd", with_nan), "not a number"),
    "an image of two dimensions": (replace_image("ct1.nrrd", lambda volume: volume[:, :, 0]), "two-dimensional"),
    "a lesion that no segmentation has": (edit("segment: L1", "segment: L7"), "`L7` is in no segmentation"),
    "a header without its voxels": (lambda folder: detach(folder).unlink(), "the voxels are not"),
    "a malformed YAML": (edit("patient: P001", "patient: [P001"), "malformed"),
    "an unknown key": (edit("patient: P001", "patient: P001\nanatomy: chest"), "unknown key `anatomy`"),
    "an image without spacing": (without_spacing, "no voxel spacing"),
    "a CT that is not in HU": (replace_image("ct1.nrrd", lambda volume: volume + 1024), "not in HU"),
    "one time point only": (
        edit("  - {name: followup-1, date: 2024-03-12, ct: ct2.nrrd, segmentation: seg2.nrrd}\n", ""),
        "at least two",
    ),
    "a transform that is none": (
        edit("segmentation: seg2.nrrd", "segmentation: seg2.nrrd, transform: ct2.nrrd"),
        "not a transform that ITK can read",
    ),
    "a transform that does not exist": (
        edit("segmentation: seg2.nrrd", "segmentation: seg2.nrrd, start_transform: t.h5"),
        "t.h5",
    ),
    "a transform of the baseline": (
        edit("segmentation: seg1.nrrd", "segmentation: seg1.nrrd, start_transform: identity.tfm"),
        "Give it to the follow-up",
    ),
    "a link of a segment that is not there": (
        edit("patient: P001", "patient: P001\nlinks: [{timepoint: followup-1, segment: L9, lesion: L1}]"),
        "the segment `L9` of `followup-1`",
    ),
    "a link at a time point that is not there": (
        edit("patient: P001", "patient: P001\nlinks: [{timepoint: followup-2, segment: L1, lesion: null}]"),
        "the time point `followup-2`",
    ),
    "a tube voltage in volt": (
        edit("segmentation: seg2.nrrd", "segmentation: seg2.nrrd, acquisition: {kvp: 120000}"),
        "given in kV",
    ),
    "a study that does not exist": (lambda folder: (folder / "study.yaml").unlink(), "study.yaml"),
}


def messages(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    before = sorted(os.listdir(folder))
    code = main(["analyze", str(folder / "study.yaml"), "--out", str(folder / "out"), "--progress", "off", *options])
    assert code == 2
    assert sorted(os.listdir(folder)) == before
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_is_one_message(folder: Path, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    spoil, expected = MISTAKES[mistake]
    spoil(folder)
    said = messages(folder, capsys)
    # A mask is read on the grid of its image, so a spoilt image may spoil its mask too: only the image is said.
    assert len(said) == 1, said
    assert expected in said[0]


def test_all_problems_are_said_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mistake in (
        "an unknown key",
        "two time points on one date",
        "a CT that is not in HU",
        "an empty mask at the follow-up",
    ):
        MISTAKES[mistake][0](folder)
    said = "\n".join(messages(folder, capsys))
    for expected in ("unknown key", "same date", "not in HU", "is empty"):
        assert expected in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--preset", "no-such-preset"), "no-such-preset"),
        (("--engine", "magic"), "magic"),
    ],
)
def test_a_wrong_option(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], expected: str
) -> None:
    said = messages(folder, capsys, *options)
    assert len(said) == 1
    assert expected in said[0]


def test_a_follow_up_with_contours_but_a_baseline_without(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit("ct: ct1.nrrd, segmentation: seg1.nrrd", "ct: ct1.nrrd")(folder)
    (said,) = messages(folder, capsys)
    assert "every lesion would count as new" in said


def test_an_output_folder_with_other_files_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.docx").touch()
    (said,) = messages(folder, capsys)
    assert "holds other files" in said
    assert os.listdir(folder / "out") == ["thesis.docx"]


def test_the_inputs_are_not_replaced_by_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "analysis.json").touch()
    before = sorted(os.listdir(folder))
    assert main(["analyze", str(folder / "study.yaml"), "--out", str(folder), "--progress", "off"]) == 2
    assert "Choose another folder" in capsys.readouterr().err
    assert sorted(os.listdir(folder)) == before


def test_a_study_from_python_with_a_missing_file(folder: Path) -> None:
    study = load_study(folder / "study.yaml")
    (folder / "ct2.nrrd").unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_inputs(study)


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "--patients", "1", "--seed", "-1", "--out", "x"],
        ["demo", "--patient-seed", "-1", "--out", "x"],
        ["analyze", "study.yaml", "--seed", "-1", "--out", "x"],
    ],
)
def test_a_seed_below_zero_is_refused_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "0 or more" in capsys.readouterr().err


def test_one_scan_under_two_dates_is_said(folder: Path) -> None:
    def said() -> list[str]:
        run = pipeline._Run.of(Order.of(folder / "study.yaml", folder / "out", None, None, "all"), silent)
        return [warning for warning in run.warnings if "same CT" in warning]

    assert said() == ["followup-1 is the same CT as baseline: check the paths in study.yaml."]
    replace_image("ct2.nrrd", lambda volume: volume + 1)(folder)
    assert said() == []


def seen(timepoint: str, status: str, size: float | None) -> LesionObservation:
    return LesionObservation(timepoint, status, "present", long_axis_mm=size, short_axis_mm=size, volume_ml=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "aligned", "status", "size", "expected"),
    [
        (None, True, "measured", 10.0, ("no", "PR", "iPR")),
        (None, True, "absent", 0.0, ("no", "CR", "iCR")),
        (", segmentation: seg2.nrrd", True, "absent", 0.0, ("not evaluated", "NE", "NE")),
        (", segmentation: seg2.nrrd", True, "measured", 10.0, ("not evaluated", "PR", "iPR")),
        (None, False, "not evaluated", None, ("not evaluated", "NE", "NE")),
    ],
)
def test_new_lesions_are_denied_only_where_a_reader_looked(
    folder: Path, change: str | None, aligned: bool, status: str, size: float | None, expected: tuple[str, str, str]
) -> None:
    if change:
        edit(change, "")(folder)
    run = pipeline._Run.of(Order.of(folder / "study.yaml", folder / "out", None, None, "all"), silent)
    observations = (seen("baseline", "measured", 30.0), seen("followup-1", status, size))
    run.lesions = (Lesion("L1", "lung", "given", "target", "", False, observations),)
    run.transforms = {"followup-1": sitk.Transform()} if aligned else {}
    (visit,) = run._respond().visits
    assert (visit.new_lesion, visit.recist, visit.irecist) == expected


def test_a_follow_up_without_any_lesion_is_a_visit_that_is_not_evaluable(folder: Path) -> None:
    run = pipeline._Run.of(Order.of(folder / "study.yaml", folder / "out", None, None, "all"), silent)
    found = run._respond()
    assert [(item.timepoint, item.recist, item.irecist) for item in found.visits] == [("followup-1", "NE", "NE")]
    assert (found.best_recist, found.best_recist_confirmed, found.best_irecist) == ("NE", "NE", "NE")
