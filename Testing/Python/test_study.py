"""study.yaml: what is read, and that every problem is said at once."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.study import (
    Acquisition,
    Clinical,
    LesionLink,
    LesionSpec,
    Study,
    Timepoint,
    Treatment,
    load_study,
    parse_study,
    save_study,
    study_warnings,
)

VALID = """\
patient: P001
tumour: NSCLC
treatment: {start: 2024-01-15, agents: [pembrolizumab], regimen: PD-1, line: 1}
clinical: {ecog: 0, ldh: 310, ldh_uln: 250, albumin_g_l: 36, neutrophils: 6.1, leukocytes: 8.0, lymphocytes: 1.2,
           prior_thoracic_rt: false, ild: false, smoking: former, ctdna_change: null, liver_metastases: true}
timepoints:
  - {name: prebaseline, date: 2023-11-20, ct: ct0.nrrd, segmentation: seg0.seg.nrrd}
  - {name: followup-1,  date: 2024-03-12, ct: ct2.nrrd, segmentation: null}
  - {name: baseline,    date: 2024-01-10, ct: ct1.nrrd, segmentation: seg1.seg.nrrd}
lesions:
  - {segment: L1, organ: lung, role: target}
  - {segment: N1, organ: lymph node, node: true}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ct0.nrrd", "ct1.nrrd", "ct2.nrrd", "seg0.seg.nrrd", "seg1.seg.nrrd"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def problems_of(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        load_study(write(folder, text))
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_reads_every_part(folder: Path) -> None:
    study = load_study(write(folder, VALID))
    assert [timepoint.name for timepoint in study.timepoints] == ["prebaseline", "baseline", "followup-1"]
    assert study.baseline.name == "baseline"
    assert [study.day(timepoint) for timepoint in study.timepoints] == [-51, 0, 62]
    assert study.treatment == Treatment(datetime.date(2024, 1, 15), ("pembrolizumab",), "PD-1", 1)
    assert study.clinical.ild is False
    assert study.clinical.honeycombing is None
    assert study.clinical.ecog == 0
    assert study.lesions[1] == LesionSpec("N1", "lymph node", None, True)
    assert study.timepoints[2].segmentation is None
    assert study.timepoints[0].ct == folder / "ct0.nrrd"


def test_what_is_saved_is_read_back(folder: Path) -> None:
    study = load_study(write(folder, VALID))
    save_study(study, folder / "again.yaml")
    assert load_study(folder / "again.yaml") == study
    assert str(folder) not in (folder / "again.yaml").read_text()


def test_every_problem_is_listed_at_once(folder: Path) -> None:
    text = VALID.replace("ct2.nrrd", "missing.nrrd").replace("tumour:", "tumor:").replace("ecog: 0", "ecog: 7")
    text = text.replace("2024-03-12", "2024-01-10").replace("albumin_g_l: 36", "albumin_g_l: 3.6")
    problems = "\n".join(problems_of(folder, text))
    for expected in ("missing.nrrd", "`tumour`", "ecog", "same date 2024-01-10", "multiply g/dL by 10"):
        assert expected in problems


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("patient: P001", "patient: ", "`patient` is missing"),
        ("  - {name: prebaseline, date: 2023-11-20", "  - {name: prebaseline, date: 2023-13-40", "is not a date"),
        ("timepoints:", "timepoints: [", "malformed"),
        ("smoking: former", "smoking: often", "one of never, former, current"),
        ("ild: false", "ild: perhaps", "true or false"),
        ("clinical: {", "clinical: {blood_type: A, ", "unknown key `blood_type`"),
        ("name: prebaseline", "name: ../evil", "file names"),
        ("date: 2024-03-12", "date: 2023-12-24", "before the baseline"),
        ("date: 2023-11-20", "date: 2024-02-20", "after the baseline"),
        ("segment: N1", "segment: L1", "listed twice"),
        ("tumour: NSCLC", "tumour: NSCLC\ntumour: SCLC", "stands twice"),
        ("neutrophils: 6.1", "neutrophils: 7.9", "exceed `leukocytes: 8`"),
        ("neutrophils: 6.1", "neutrophils: 6100", "per microlitre"),
        ("name: prebaseline", "name: baseline", "are named `baseline`"),
        ("name: prebaseline", "name: baseline_inverse", "would share file names"),
        ("name: prebaseline", "name: Baseline", "would share file names"),
        ("line: 1", "line: first", "a whole number"),
        ("date: 2024-03-12", "date: 2999-01-01", "in the future"),
        (", segmentation: null", ", segmentation: seg1.seg.nrrd, no_visible_lesions: true", "Keep one"),
    ],
)
def test_each_mistake_has_its_own_message(folder: Path, old: str, new: str, expected: str) -> None:
    assert old in VALID
    problems = problems_of(folder, VALID.replace(old, new, 1))
    assert len(problems) == 1
    assert expected in problems[0]
    assert "study.yaml" in problems[0]


def test_a_problem_names_its_line(folder: Path) -> None:
    text = VALID.replace("ecog: 0", "ecog: 9")
    (problem,) = problems_of(folder, text)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "ecog" in line)
    assert f"line {line}:" in problem


def test_a_text_that_is_no_study() -> None:
    study, problems = parse_study(Path("/nowhere/study.yaml"))
    assert study is None
    assert "does not exist" in problems[0]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "42\n"])
def test_an_empty_or_foreign_yaml(folder: Path, text: str) -> None:
    assert "no mapping" in problems_of(folder, text)[0]


def test_code_in_yaml_is_not_run(folder: Path) -> None:
    assert problems_of(folder, "patient: !!python/object/apply:os.getcwd []\n")


def test_the_good_part_of_a_bad_study_is_still_there(folder: Path) -> None:
    study, problems = parse_study(write(folder, VALID.replace("date: 2024-03-12", "date: soon")))
    assert study is not None
    assert [timepoint.name for timepoint in study.timepoints] == ["prebaseline", "baseline"]
    assert len(problems) == 1


def timepoints(*days: int) -> tuple[Timepoint, ...]:
    start = datetime.date(2024, 1, 1)
    return tuple(Timepoint(f"t{day}", start + datetime.timedelta(day), Path("ct.nrrd")) for day in days)


def test_the_baseline_is_the_last_scan_before_treatment() -> None:
    treatment = Treatment(start=datetime.date(2024, 1, 20))
    assert Study("P", timepoints(0, 15, 60), treatment=treatment).baseline.name == "t15"
    assert Study("P", timepoints(0, 15, 60)).baseline.name == "t0"


def test_what_narrows_the_conclusions_is_said() -> None:
    late = Study("P", timepoints(0, 60), treatment=Treatment(start=datetime.date(2023, 12, 1)))
    assert any("after the start of treatment" in warning for warning in study_warnings(late))
    early = Study("P", timepoints(0, 60), treatment=Treatment(start=datetime.date(2024, 2, 20)))
    assert any("RECIST 1.1 asks" in warning for warning in study_warnings(early))
    assert any("growth before treatment" in warning for warning in study_warnings(early))


def test_unknown_is_not_no() -> None:
    assert Clinical().ild is None


@pytest.mark.parametrize("code", ["0123", "007", "1e5", "1.10", "12:30", "yes", "2024-01-05"])
def test_a_code_is_read_as_it_is_written(folder: Path, code: str) -> None:
    text = VALID.replace("patient: P001", f"patient: {code}").replace("segment: L1", f"segment: {code}")
    study = load_study(write(folder, text))
    assert (study.patient, study.lesions[0].segment) == (code, code)
    save_study(study, folder / "study.yaml")
    assert load_study(folder / "study.yaml") == study


def test_unusual_but_valid_yaml(folder: Path) -> None:
    plain = load_study(write(folder, VALID))
    quoted = VALID.replace("2023-11-20", '"2023-11-20"').replace("start: 2024-01-15", "start: 2024-01-15T00:00:00")
    (folder / "study.yaml").write_bytes(("\ufeff" + quoted.replace("\n", "\r\n")).encode())
    assert load_study(folder / "study.yaml") == plain
    merged = VALID.replace("- {name: prebaseline,", "- &scan {name: prebaseline,").replace(
        "{name: followup-1,  date: 2024-03-12, ct: ct2.nrrd,",
        "{<<: *scan, name: followup-1, date: 2024-03-12, ct: ct2.nrrd,",
    )
    assert load_study(write(folder, merged)) == plain


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("extra: &x [*x]", "an anchor holds itself"),
        ("extra: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("extra: a\x01b", "special characters"),
    ],
)
def test_yaml_that_cannot_be_a_study(folder: Path, addition: str, expected: str) -> None:
    assert expected in problems_of(folder, VALID + addition + "\n")[0]


def test_a_few_lines_of_aliases_do_not_fill_the_memory(folder: Path) -> None:
    levels = "".join(
        f"{key}: &{key} [{', '.join([f'*{below}'] * 10)}]\n"
        for below, key in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    )
    problems = problems_of(folder, VALID.replace("tumour: NSCLC\n", "") + "a: &a [x]\n" + levels + "tumour: *m\n")
    assert len(problems) == 14
    assert max(map(len, problems)) < 1000


def test_an_impossible_date_does_not_hide_the_other_problems(folder: Path) -> None:
    problems = problems_of(folder, VALID.replace("2024-03-12", "2024-02-31").replace("ecog: 0", "ecog: 9"))
    assert any("2024-02-31" in problem and "is not a date" in problem for problem in problems)
    assert any("ECOG" in problem for problem in problems)


@pytest.mark.parametrize("digits", [400, 5000])
def test_numbers_beyond_every_type(folder: Path, digits: int) -> None:
    for key in ("ecog: 0", "ldh: 310"):
        name = key.split(":")[0]
        (problem,) = problems_of(folder, VALID.replace(key, f"{name}: {'9' * digits}"))
        assert name in problem
        assert len(problem) < 500


def test_names_longer_than_a_file_name_may_be(folder: Path) -> None:
    problems = problems_of(folder, VALID.replace("followup-1", "f" * 300).replace("ct0.nrrd", "c" * 300))
    assert any("at most 64" in problem for problem in problems)
    assert any("does not exist" in problem for problem in problems)


def test_the_baseline_is_known_in_any_case(folder: Path) -> None:
    text = VALID.replace("name: baseline", "name: Baseline").replace("start: 2024-01-15, ", "")
    assert load_study(write(folder, text)).baseline.name == "Baseline"


def test_transforms_links_and_acquisition_survive_the_file(folder: Path) -> None:
    (folder / "own.h5").touch()
    text = VALID.replace(
        "date: 2024-03-12, ct: ct2.nrrd",
        "date: 2024-03-12, ct: ct2.nrrd, transform: own.h5, acquisition: {kvp: 120, kernel: B30f, contrast: true}",
    )
    text += "links:\n  - {timepoint: followup-1, segment: X, lesion: L1}\n  - {timepoint: followup-1, segment: Y}\n"
    study = load_study(write(folder, text.replace("lesions:\n", "lesions:\n  - {segment: Z, ignore: true}\n")))
    last = study.timepoints[-1]
    assert last.transform == folder / "own.h5"
    assert last.acquisition == Acquisition(kvp=120.0, kernel="B30f", contrast=True)
    assert study.links == (LesionLink("followup-1", "X", "L1"), LesionLink("followup-1", "Y"))
    assert study.lesions[0] == LesionSpec("Z", ignore=True)
    save_study(study, folder / "again.yaml")
    assert load_study(folder / "again.yaml") == study


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ct: ct2.nrrd", "ct: ct2.nrrd, transform: ct1.nrrd, start_transform: ct1.nrrd", "Keep one"),
        ("tumour: NSCLC", "tumour: NSCLC\nlinks: [{segment: X}]", "link 1 has no `timepoint`"),
        ("tumour: NSCLC", "tumour: NSCLC\nlinks: x", "`links` must be a list of mappings"),
        (
            "tumour: NSCLC",
            "tumour: NSCLC\nlinks: [{timepoint: baseline, segment: X}, {timepoint: baseline, segment: X}]",
            "link 2 stands twice",
        ),
    ],
)
def test_wrong_transforms_and_links(folder: Path, old: str, new: str, expected: str) -> None:
    assert any(expected in problem for problem in problems_of(folder, VALID.replace(old, new)))
