"""A virtual patient from images to the three flags, through the terminal."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib import pipeline
from ImmunoRadiomicsLib.analysis import Analysis, FeatureDelta, Lesion, LesionObservation
from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.images import read_segmentation, read_volume
from ImmunoRadiomicsLib.lesions.names import is_organ
from ImmunoRadiomicsLib.radiomics import load_preset
from ImmunoRadiomicsLib.serialise import from_json, to_json
from ImmunoRadiomicsLib.study import LesionLink, LesionSpec, load_study

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "analysis.json",
    "lesions.csv",
    "features.csv",
    "delta.csv",
    "response.csv",
    "best.csv",
    "flags.csv",
    "report.html",
    "report.pdf",
    "scene.mrb",
    "provenance.json",
    "log.txt",
}
FOLDERS = {"transforms", "segmentations", "patient"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ImmunoRadiomicsLib", *map(str, arguments)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run(
        command("demo", "--size", "small", "--out", out, "--progress", "json"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (out.parent / "stderr.txt").write_text(done.stderr)
    assert done.stdout == ""
    return out


@pytest.fixture(scope="module")
def analysis(demo: Path) -> Analysis:
    return from_json(Analysis, json.loads((demo / "analysis.json").read_text()))


@pytest.fixture(scope="module")
def truth(demo: Path) -> dict:
    return json.loads((demo / "patient" / "truth" / "truth.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_file_is_there_and_nothing_else(demo: Path) -> None:
    names = {entry.name for entry in demo.iterdir()}
    assert names == FILES | FOLDERS
    assert os.listdir(demo.parent) == ["out"] or set(os.listdir(demo.parent)) == {"out", "stderr.txt"}


def test_every_json_follows_its_schema(demo: Path) -> None:
    schemas = ROOT / "Resources" / "Schemas"
    for path in (demo / "analysis.json", demo / "provenance.json", demo / "patient" / "truth" / "truth.json"):
        schema = json.loads((schemas / f"{path.stem}.schema.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text()))


def test_the_analysis_survives_its_file(demo: Path, analysis: Analysis) -> None:
    assert to_json(analysis) == json.loads((demo / "analysis.json").read_text())


def test_progress_is_one_json_object_per_line_and_never_goes_back(demo: Path) -> None:
    lines = (demo.parent / "stderr.txt").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    fractions = [event["fraction"] for event in events]
    assert len(events) > 20
    assert fractions[-1] == 1.0
    stages = list(dict.fromkeys(event["stage"] for event in events))
    assert [
        stage for stage in stages if stage in ("anatomy", "align", "lesions", "extract", "respond", "flag", "report")
    ] == [
        "anatomy",
        "align",
        "lesions",
        "extract",
        "respond",
        "flag",
        "report",
    ]
    rest = [line for line in lines if not line.startswith("{")]
    assert len(rest) == 4, rest


def test_lesions_are_those_of_the_truth(analysis: Analysis, truth: dict) -> None:
    """Every lesion is found with its event, its volume within 5 % and its longest diameter within a voxel."""
    for known in truth["lesions"]:
        for expected in known["observations"]:
            found = [
                (lesion, seen)
                for lesion in analysis.lesions
                if (seen := lesion.at(expected["timepoint"])) is not None
                and set(seen.segments) & set(expected["segments"])
            ]
            if not expected["segments"] or expected["merged_into"]:
                continue
            assert len(found) == 1, (known["id"], expected["timepoint"])
            lesion, seen = found[0]
            assert seen.event == expected["event"], (lesion.id, expected["timepoint"])
            spacing = next(item for item in analysis.timepoints if item.name == expected["timepoint"]).spacing_mm
            assert seen.volume_ml == pytest.approx(expected["volume_ml"], rel=0.05)
            assert seen.long_axis_mm == pytest.approx(expected["long_axis_mm"], abs=max(spacing[:2]))


def test_tables_say_what_the_analysis_says(demo: Path, analysis: Analysis) -> None:
    flags = rows(demo / "flags.csv")
    assert list(flags[0]) == (
        [
            "patient",
            "flag",
            "status",
            "probability",
            "lower",
            "upper",
            "prior",
            "level",
            "bundle",
            "bundle_version",
            "applicability",
            "reason",
        ]
    )
    assert [row["flag"] for row in flags] == ["pseudoprogression", "hyperprogression", "pneumonitis"]
    for row, flag in zip(flags, analysis.flags, strict=True):
        assert (row["probability"] == "") == (flag.probability is None)
        if flag.probability is not None:
            assert float(row["probability"]) == flag.probability
            assert flag.lower is not None
            assert flag.upper is not None
            assert flag.prior is not None
            assert 0 < flag.lower <= flag.probability <= flag.upper < 1
            assert 0 < flag.prior < 1
            assert flag.prior_source
        assert flag.reason
    features = rows(demo / "features.csv")
    assert len([row for row in features if row["feature"]]) == sum(len(item.values) for item in analysis.features)
    assert len(rows(demo / "lesions.csv")) == sum(len(lesion.observations) for lesion in analysis.lesions)
    visits = rows(demo / "response.csv")
    assert [row["recist"] for row in visits] == [visit.recist for visit in analysis.response.visits]
    assert list(visits[0])[:11] == (
        [
            "patient",
            "day",
            "sum_mm",
            "baseline_mm",
            "nadir_mm",
            "target",
            "non_target",
            "new_lesion",
            "recist",
            "irecist",
            "rule",
        ]
    )


def test_regions_are_exact_and_apart(demo: Path, analysis: Analysis) -> None:
    """Cores are the given contours; rings lie at their distance and touch no lesion."""
    from scipy import ndimage

    for timepoint in analysis.timepoints:
        ct = read_volume(demo / "patient" / f"ct_{timepoint.name}.nrrd")
        given = read_segmentation(demo / "patient" / f"seg_{timepoint.name}.seg.nrrd", ct)
        regions = read_segmentation(demo / "segmentations" / f"{timepoint.name}.regions.seg.nrrd", ct)
        union = np.zeros(ct.GetSize()[::-1], bool)
        for segment in given.segments:
            union |= given.array(segment.name)
        names = {segment.name for segment in regions.segments}
        for lesion in analysis.lesions:
            seen = lesion.at(timepoint.name)
            if seen is None or seen.status != "measured":
                continue
            core = np.zeros_like(union)
            for name in seen.segments:
                core |= given.array(name)
            np.testing.assert_array_equal(regions.array(f"{lesion.id}.core"), core)
            distance = ndimage.distance_transform_edt(~core, sampling=ct.GetSpacing()[::-1])
            for low, high in ((0, 5), (5, 10)):
                if f"{lesion.id}.ring-{low}-{high}mm" not in names:
                    continue
                ring = regions.array(f"{lesion.id}.ring-{low}-{high}mm")
                assert not (ring & union).any()
                assert distance[ring].min() > low
                assert distance[ring].max() <= high + 1e-6


def test_the_map_of_new_opacities_lies_where_the_patient_has_them(demo: Path, analysis: Analysis) -> None:
    (both,) = [item for item in analysis.lung_changes if item.part == "both"]
    assert both.map_file == f"segmentations/{both.timepoint}.opacities.seg.nrrd"
    ct = read_volume(demo / "patient" / f"ct_{both.timepoint}.nrrd")
    found = read_segmentation(demo / both.map_file, ct, may_be_empty=True)
    known = sitk.GetArrayFromImage(sitk.ReadImage(demo / "patient" / "truth" / f"opacities_{both.timepoint}.nrrd"))
    new = found.array("new ground-glass") | found.array("new consolidation")
    assert 2.0 * (new & (known > 0)).sum() / (new.sum() + (known > 0).sum()) > 0.7
    milliliter = float(np.prod(ct.GetSpacing())) / 1000.0
    assert new.sum() * milliliter == pytest.approx((known > 0).sum() * milliliter, rel=0.2)
    page = (demo / "report.html").read_text(encoding="utf-8")
    assert f"New lung opacities, {both.timepoint}" in page
    assert page.count("simulation-trained, not for patients") >= 3


def test_features_equal_a_plain_pyradiomics_run(demo: Path, analysis: Analysis) -> None:
    from radiomics import featureextractor, setVerbosity

    setVerbosity(50)
    extractor = featureextractor.RadiomicsFeatureExtractor(
        load_preset("ct-lesion").to_pyradiomics(), additionalInfo=False
    )
    timepoint = analysis.timepoints[-1].name
    ct = sitk.ReadImage(demo / "patient" / f"ct_{timepoint}.nrrd")
    regions = read_segmentation(demo / "segmentations" / f"{timepoint}.regions.seg.nrrd", ct)
    measured = [item for item in analysis.features if item.timepoint == timepoint and item.lesion and not item.reason]
    smallest = min((item for item in measured if item.region == "core"), key=lambda item: item.voxels)
    ring = min((item for item in measured if item.region != "core"), key=lambda item: item.voxels)
    for item in (smallest, ring):
        plain = extractor.execute(ct, regions.mask(f"{item.lesion}.{item.region}"))
        expected = {name: float(value) for name, value in plain.items() if not name.startswith("diagnostics")}
        assert set(item.values) == set(expected)
        for name, value in item.values.items():
            if value is None:
                assert math.isnan(expected[name])
            else:
                assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-300), name


def test_the_page_is_self_contained_and_the_log_has_no_patient(demo: Path, analysis: Analysis) -> None:
    page = (demo / "report.html").read_text()
    assert "esearch use only" in page
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']https?:", page)
    log = (demo / "log.txt").read_text()
    assert analysis.patient not in log
    assert str(demo.parent) not in log + (demo / "analysis.json").read_text() + (demo / "provenance.json").read_text()


@pytest.fixture(scope="module")
def again(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same patient analysed from its study.yaml, with the vessels too, after being killed at several moments."""
    out = tmp_path_factory.mktemp("again") / "out"
    study = demo / "patient" / "study.yaml"
    arguments = command("analyze", study, "--out", out, "--progress", "off", "--no-scene", "--vessels")
    for seconds in (0.3, 2.5, 6.0, 11.0):
        process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        finished = process.wait() == 0
        assert finished or not out.exists()
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.skipif(os.name == "nt", reason="processes are killed the POSIX way")
def test_a_killed_run_ends_as_an_undisturbed_one(demo: Path, again: Path) -> None:
    for name in ("lesions.csv", "features.csv", "delta.csv", "response.csv", "flags.csv"):
        kept = [row for row in rows(again / name) if row.get("region") != "vessels"]
        assert kept == rows(demo / name), name
    assert os.listdir(again.parent) == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="processes are killed the POSIX way")
def test_vessels_are_traced_where_asked_for(demo: Path, again: Path, analysis: Analysis) -> None:
    found = [row for row in rows(again / "features.csv") if row["region"] == "vessels"]
    assert {row["lesion"] for row in found} == {item.id for item in analysis.lesions if item.organ == "lung"}
    assert {row["timepoint"] for row in found} == {item.name for item in analysis.timepoints}
    assert any(row["feature"] == "vessels_TortuosityMean" and row["value"] for row in found)
    assert not [row for row in rows(demo / "features.csv") if row["region"] == "vessels"]
    assert [row for row in rows(again / "delta.csv") if row["feature"] == "vessels_Volume" and row["absolute"]]


@pytest.mark.skipif(os.name == "nt", reason="processes are interrupted the POSIX way")
def test_an_interrupted_run_says_so_and_shows_no_result(demo: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("analyze", demo / "patient" / "study.yaml", "--out", tmp_path / "out", "--progress", "json"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"align"' in line:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait() == 3
    assert "Interrupted" in rest
    assert not (tmp_path / "out").exists()


def test_provenance_holds_every_setting_of_the_features(demo: Path, tmp_path: Path) -> None:
    record = json.loads((demo / "provenance.json").read_text())
    assert {"lesions", "lungs"} <= set(record["presets"])
    for name, setting in (("lesions", "preset"), ("lungs", "lung_preset")):
        file = tmp_path / f"{name}.json"
        file.write_text(record["presets"][name])
        assert load_preset(file).sha256 == load_preset(record["settings"][setting]).sha256


def test_one_stage_alone(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(demo / "patient" / "study.yaml")
    choice = ["--setting", "stable_new_lesion=keep"]
    code = main(["respond", study, "--out", str(tmp_path / "out"), "--progress", "off", *choice])
    assert code == 0, capsys.readouterr().err
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {
        "stage.json",
        "lesions.csv",
        "response.csv",
        "best.csv",
        "provenance.json",
        "log.txt",
        "transforms",
        "segmentations",
    }
    schema = json.loads((ROOT / "Resources" / "Schemas" / "stage.schema.json").read_text())
    jsonschema.validate(json.loads((tmp_path / "out" / "stage.json").read_text()), schema)
    assert (tmp_path / "out" / "lesions.csv").read_text() == (demo / "lesions.csv").read_text()
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["settings"]["criteria"] == choice[1]


def test_an_unknown_choice_of_the_criteria_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["analyze", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--setting", "stcky_pr=no"]
    assert main(arguments) == 2
    assert "stcky_pr" in capsys.readouterr().err


def test_a_second_run_computes_nothing(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["align", str(demo / "patient" / "study.yaml"), "--out", str(tmp_path / "out"), "--progress", "off"]
    cache = ["--cache", str(tmp_path / "cache")]
    assert main([*arguments, *cache]) == 0
    first = (tmp_path / "out" / "provenance.json").read_text()
    monkeypatch.setattr(pipeline, "read_inputs", None)
    assert main([*arguments, *cache]) == 0
    assert (tmp_path / "out" / "provenance.json").read_text() == first
    assert sorted(os.listdir(tmp_path)) == ["cache", "out"]
    monkeypatch.undo()
    # A result that somebody has changed is made anew, from the finished steps.
    (tmp_path / "out" / "log.txt").unlink()
    assert main([*arguments, *cache]) == 0
    stages = json.loads((tmp_path / "out" / "provenance.json").read_text())["stages"]
    assert [(stage["name"], stage["reused"]) for stage in stages] == [("anatomy", True), ("align", True)]
    capsys.readouterr()


def test_a_users_transform_links_and_ignored_segments_are_honoured(demo: Path, tmp_path: Path) -> None:
    patient = demo / "patient"
    study = load_study(patient / "study.yaml")
    last = study.timepoints[-1]
    drawn = [
        segment.name for segment in read_segmentation(last.segmentation, read_volume(last.ct)).segments if segment.name
    ]
    before = json.loads((demo / "analysis.json").read_text())
    followed = next(
        item for item in before["lesions"] if item["observations"][-1]["event"] == "present" and item["id"] in drawn
    )
    own = replace(last, transform=demo / "transforms" / f"{last.name}.h5")
    organs = [name for name in drawn if is_organ(name)]
    ignored = next(name for name in drawn if name not in (followed["id"], *organs))
    changed = replace(
        study,
        timepoints=(study.baseline, own),
        lesions=(
            *(spec for spec in study.lesions if spec.segment != ignored),
            LesionSpec(ignored, ignore=True),
        ),
        links=(LesionLink(last.name, followed["observations"][-1]["segments"][0], None),),
    )
    result = pipeline.run_stage(changed, tmp_path / "out", "lesions")
    (record,) = result.alignments
    assert (record.engine, record.quality.verdict) == ("user", "good")
    assert ignored not in {name for lesion in result.lesions for seen in lesion.observations for name in seen.segments}
    (apart,) = (
        lesion
        for lesion in result.lesions
        if followed["observations"][-1]["segments"][0] in lesion.observations[-1].segments
    )
    assert apart.observations[-1].event == "new"


@pytest.mark.parametrize(
    ("correlation", "shift_mm", "said"),
    [
        (None, None, "could not be judged"),
        (0.93, 0.0, None),
        (0.31, 0.0, "local correlation 0.31"),
        (0.73, 7.6, "better when moved by 8 mm"),
    ],
)
def test_the_change_of_a_badly_aligned_lesion_is_flagged(
    analysis: Analysis, correlation: float | None, shift_mm: float | None, said: str | None
) -> None:
    delta = next(item for item in analysis.deltas if item.lesion and item.values and item.later != analysis.baseline)
    assert all(item.caution is None for item in analysis.deltas)
    lesion = next(item for item in analysis.lesions if item.id == delta.lesion)
    seen = tuple(
        replace(item, local_alignment=correlation, local_shift_mm=shift_mm) if item.timepoint == delta.later else item
        for item in lesion.observations
    )
    caution = pipeline._caution(delta, [replace(lesion, observations=seen)], analysis.baseline)
    if said is None:
        assert caution is None
    else:
        assert caution.startswith(f"{delta.later}: ")
        assert said in caution


@pytest.mark.parametrize("name", ["models", "presets"])
def test_what_is_there_is_listed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) >= 3
    assert main([name]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 6


def test_changes_are_flagged_where_scans_do_not_lie_well_and_withheld_where_an_alignment_failed():
    seen = [
        LesionObservation("baseline", "measured", "baseline"),
        LesionObservation("followup-1", "measured", "present", local_alignment=0.31),
        LesionObservation("followup-2", "measured", "present", local_alignment=0.84, local_shift_mm=0.0),
        LesionObservation("followup-3", "measured", "present"),
        LesionObservation("followup-4", "measured", "present"),
    ]
    lesion = Lesion("L1", "lung", "given", "target", "given", False, tuple(seen))
    run = SimpleNamespace(
        study=SimpleNamespace(baseline=SimpleNamespace(name="baseline")),
        lesions=(lesion,),
        transforms={"followup-1": None, "followup-2": None, "followup-4": None},
    )

    def change(earlier: str, later: str, of: str | None = "L1") -> FeatureDelta:
        made = FeatureDelta(of, "core", earlier, later, 60, None, {"mean": (1.0, None, None)}, {"mean": 0.1})
        return pipeline._Run._withheld(run, made)

    poor = change("baseline", "followup-1")
    assert poor.caution.startswith("followup-1: this scan does not lie well")
    unjudged = change("baseline", "followup-4")
    assert unjudged.caution.startswith("followup-4: it could not be judged")
    assert unjudged.values
    assert poor.values
    assert "0.31" in change("followup-1", "followup-2").caution
    assert change("baseline", "followup-2").caution is None
    assert change("baseline", "followup-1", None).caution is None
    for failed in (change("baseline", "followup-3"), change("followup-2", "followup-3", None)):
        assert not failed.values
        assert not failed.log_ratios
        assert failed.reason == "followup-3 could not be aligned with the baseline"
