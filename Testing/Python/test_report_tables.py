import csv
import dataclasses
import math
from pathlib import Path

import pytest
from factories import DAYS, LESIONS, example_analysis
from hypothesis import given, settings
from hypothesis import strategies as st

from ImmunoRadiomicsLib.analysis import Features, StageResult
from ImmunoRadiomicsLib.report import write_stage_tables, write_tables

TABLES = {"lesions.csv", "features.csv", "delta.csv", "response.csv", "best.csv", "flags.csv"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def header(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()[0].split(",")


def number(cell: str) -> float | None:
    return None if cell == "" else float(cell)


def test_columns_are_the_contract(tmp_path):
    write_tables(example_analysis(), tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == TABLES
    flags = "patient,flag,status,probability,lower,upper,prior,level,bundle,bundle_version,applicability,reason"
    assert header(tmp_path / "flags.csv") == flags.split(",")
    response = "patient,day,sum_mm,baseline_mm,nadir_mm,target,non_target,new_lesion,recist,irecist,rule"
    assert header(tmp_path / "response.csv")[:11] == response.split(",")
    assert header(tmp_path / "best.csv") == ["patient", "bor", "confirmed_bor", "ibor", "progression_day"]
    features = "patient,timepoint,lesion,region,feature,value,reason"
    assert header(tmp_path / "features.csv") == features.split(",")
    delta = "patient,lesion,region,feature,earlier,later,days,absolute,relative,log_ratio,per_month"
    assert header(tmp_path / "delta.csv")[:11] == delta.split(",")


def test_lesions_come_back_exactly(tmp_path):
    analysis = example_analysis()
    write_tables(analysis, tmp_path)
    table = {(row["lesion"], row["timepoint"]): row for row in rows(tmp_path / "lesions.csv")}
    assert len(table) == len(LESIONS) * len(DAYS)
    for lesion in analysis.lesions:
        for seen in lesion.observations:
            row = table[lesion.id, seen.timepoint]
            for name in ("long_axis_mm", "short_axis_mm", "volume_ml", "mean_hu", "sd_hu", "confidence"):
                assert number(row[name]) == getattr(seen, name)
            assert (row["status"], row["event"], row["role"]) == (seen.status, seen.event, lesion.role)
            assert int(row["day"]) == DAYS[seen.timepoint]
            assert row["node"] == ("1" if lesion.node else "0")
            assert row["check"] == (seen.check or "")
            centre = tuple(number(row[f"{axis}_lps_mm"]) for axis in "xyz")
            assert centre == (seen.centroid_lps_mm or (None, None, None))
    grown = table["L1", "followup-1"]
    assert float(grown["long_axis_change_mm"]) == pytest.approx(46.1 - 38.4)
    assert float(grown["long_axis_change_percent"]) == pytest.approx(100 * (46.1 / 38.4 - 1))
    new = table["L5", "followup-2"]
    assert new["event"] == "new"
    assert float(new["long_axis_change_mm"]) == 14.3
    assert new["long_axis_change_percent"] == new["volume_change_percent"] == new["mean_change_hu"] == ""


def test_several_segments_share_a_cell(tmp_path):
    analysis = example_analysis()
    first = analysis.lesions[0]
    split = dataclasses.replace(first.observations[3], segments=("L1a", "L1b"), event="split")
    lesion = dataclasses.replace(first, observations=(*first.observations[:3], split))
    write_tables(dataclasses.replace(analysis, lesions=(lesion,)), tmp_path)
    assert [row["segments"] for row in rows(tmp_path / "lesions.csv")] == ["L1", "L1", "L1", "L1a;L1b"]


def test_features_and_deltas_come_back_exactly(tmp_path):
    analysis = example_analysis()
    write_tables(analysis, tmp_path)
    table = rows(tmp_path / "features.csv")
    assert len(table) == sum(max(len(item.values), 1) for item in analysis.features)
    values = {(row["timepoint"], row["lesion"], row["region"], row["feature"]): row["value"] for row in table}
    for item in analysis.features:
        for name, value in item.values.items():
            assert number(values[item.timepoint, item.lesion, item.region, name]) == value
    assert all((row["value"] == "") == (row["reason"] != "") for row in table)
    (unmeasured,) = [row for row in table if not row["feature"]]
    assert (unmeasured["region"], unmeasured["feature"], unmeasured["value"]) == ("border", "", "")
    deltas = rows(tmp_path / "delta.csv")
    assert len(deltas) == sum(max(len(item.values), 1) for item in analysis.deltas)
    for item in analysis.deltas:
        for name, triple in item.values.items():
            (row,) = [
                row
                for row in deltas
                if (row["lesion"], row["region"], row["feature"], row["later"])
                == (item.lesion, item.region, name, item.later)
            ]
            assert tuple(number(row[key]) for key in ("absolute", "relative", "per_month")) == triple
            assert int(row["days"]) == item.days


def test_response_and_flags_come_back_exactly(tmp_path):
    analysis = example_analysis()
    write_tables(analysis, tmp_path)
    for row, visit in zip(rows(tmp_path / "response.csv"), analysis.response.visits, strict=True):
        assert (int(row["day"]), float(row["sum_mm"]), float(row["nadir_mm"])) == (
            visit.day,
            visit.sum_mm,
            visit.nadir_mm,
        )
        assert (row["recist"], row["irecist"], row["rule"]) == (visit.recist, visit.irecist, visit.rule)
        assert row["confirmation"] == visit.confirmation
    (best,) = rows(tmp_path / "best.csv")
    assert best == {"patient": "P001", "bor": "SD", "confirmed_bor": "SD", "ibor": "iSD", "progression_day": ""}
    for row, flag in zip(rows(tmp_path / "flags.csv"), analysis.flags, strict=True):
        for name in ("probability", "lower", "upper", "prior"):
            assert number(row[name]) == getattr(flag, name)
        assert (row["flag"], row["status"], row["level"]) == (flag.flag, flag.status, flag.level)


numbers = st.floats(allow_nan=True, allow_infinity=False) | st.none()
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n,;\"'"), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(values=st.dictionaries(texts, numbers, min_size=1, max_size=6), lesion=texts)
def test_any_number_and_name_comes_back(tmp_path_factory, values, lesion):
    folder = tmp_path_factory.mktemp("tables")
    analysis = example_analysis(features=(Features("baseline", lesion, "core", 9, None, values),), deltas=())
    write_tables(analysis, folder)
    table = rows(folder / "features.csv")
    assert [row["feature"] for row in table] == list(values)
    assert {row["lesion"] for row in table} == {lesion}
    for row, value in zip(table, values.values(), strict=True):
        expected = None if value is None or math.isnan(value) else value
        assert number(row["value"]) == expected


def test_a_single_feature_that_is_missing_has_its_reason(tmp_path):
    values = {
        "log-sigma-9-0-mm-3D_glcm_Idm": None,
        "original_glcm_MCC": None,
        "original_glcm_Idm": 0.0,
        "suv_original_a": None,
    }
    write_tables(example_analysis(features=(Features("baseline", "L1", "core", 9, None, values),), deltas=()), tmp_path)
    reasons = {row["feature"]: row["reason"] for row in rows(tmp_path / "features.csv")}
    assert reasons["log-sigma-9-0-mm-3D_glcm_Idm"] == "the image is smaller than this filter"
    assert "too few voxels" in reasons["original_glcm_MCC"]
    assert reasons["original_glcm_Idm"] == ""
    assert "beside the CT" in reasons["suv_original_a"]


def test_numpy_numbers_are_written_as_plain_numbers(tmp_path):
    import numpy as np

    values = {"a": np.float64(0.1), "b": np.float32(0.5), "c": np.float64("nan")}
    write_tables(example_analysis(features=(Features("baseline", "L1", "core", 9, None, values),)), tmp_path)
    assert [row["value"] for row in rows(tmp_path / "features.csv")] == ["0.1", "0.5", ""]


def test_a_failure_leaves_the_older_table_and_nothing_else(tmp_path):
    write_tables(example_analysis(), tmp_path)
    before = (tmp_path / "features.csv").read_bytes()
    broken = example_analysis(features=(Features("baseline", "L1", "core", 9, None, {"a": 1.0, "b": "not a number"}),))
    with pytest.raises(TypeError):
        write_tables(broken, tmp_path)
    assert (tmp_path / "features.csv").read_bytes() == before
    assert {item.name for item in tmp_path.iterdir()} == TABLES


STAGES = {
    "align": set(),
    "lesions": {"lesions.csv"},
    "extract": {"lesions.csv", "features.csv", "delta.csv"},
    "respond": {"lesions.csv", "response.csv", "best.csv"},
    "flag": TABLES,
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_writes_the_tables_of_the_stages_that_ran(tmp_path, stage):
    analysis = example_analysis()
    found = StageResult(
        schema_version=analysis.schema_version,
        research_use_only=analysis.research_use_only,
        patient=analysis.patient,
        stage=stage,
        timepoints=analysis.timepoints,
        lesions=() if stage == "align" else analysis.lesions,
        features=analysis.features if stage in ("extract", "flag") else (),
        deltas=analysis.deltas if stage in ("extract", "flag") else (),
        response=analysis.response if stage in ("respond", "flag") else None,
        flags=analysis.flags if stage == "flag" else (),
    )
    write_stage_tables(found, tmp_path / "stage")
    written = set() if stage == "align" else {item.name for item in (tmp_path / "stage").iterdir()}
    assert written == STAGES[stage]
    write_tables(analysis, tmp_path / "whole")
    for name in written:
        assert (tmp_path / "stage" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
