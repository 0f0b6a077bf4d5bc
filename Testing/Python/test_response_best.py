"""Best and confirmed best responses against the reference vectors, and the tables of RECIST 1.1 in full."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
from pathlib import Path

import pytest

from ImmunoRadiomicsLib.response.irecist import best_irecist, confirmed_progression_day, duration_of_response
from ImmunoRadiomicsLib.response.measurements import tenths
from ImmunoRadiomicsLib.response.recist import (
    BestResponse,
    BestResponseSettings,
    DatedResponse,
    best_response,
    clinical_benefit,
    confirmed_best_response,
    first_response,
    is_partial_response,
    is_progression,
    overall_response,
    progression_day,
    until_progression,
)

CRITERIA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "criteria"
needs_vectors = pytest.mark.skipif(not CRITERIA.is_dir(), reason=f"no reference vectors at {CRITERIA}")


def rows(name: str) -> list[dict[str, str]]:
    if not CRITERIA.is_dir():
        return []
    with (CRITERIA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def load(name: str) -> dict:
    return json.loads((CRITERIA / name).read_text()) if CRITERIA.is_dir() else {}


def day(text: str, reference: str) -> int:
    return (datetime.date.fromisoformat(text) - datetime.date.fromisoformat(reference)).days


CASES = load("admiralonco_unit_tests.json").get("cases", [])


@needs_vectors
def test_there_are_128_cases():
    assert len(CASES) == 128


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_reference_case(case):
    reference = case.get("reference_date") or "2016-01-01"
    parameters = case["params"]
    if case["function"] == "filter_pd":
        series = [
            DatedResponse(day(item["ADT"], reference), item["AVALC"])
            for item in case["input"]
            if item["PARAMCD"] == "OVR"
        ]
        kept = [(item.day, item.response) for item in until_progression(series)]
        assert kept == [(day(item["ADT"], reference), item["AVALC"]) for item in case["expected_rows_kept"]]
        return
    series = [
        DatedResponse(day(item["date"], reference), item["response"] if item["response"] not in (None, "NA") else "ND")
        for item in case["input"]
    ]
    # The cases name the last day that counts; it need not be that of a PD in the series.
    if case["pd_date_used"]:
        series = until_progression(series, day(case["pd_date_used"], reference))
    settings = BestResponseSettings(
        min_sd_days=parameters.get("ref_start_window", 0),
        confirm_days=parameters.get("ref_confirm", 28),
        max_ne=parameters.get("max_nr_ne", 1),
        accept_sd=parameters.get("accept_sd", False),
        missing_as_ne=parameters.get("missing_as_ne", False),
        drop_after_pd=False,
    )
    function = case["function"]
    if function == "derive_param_bor":
        result = best_response(series, settings)
    elif function == "derive_param_confirmed_bor":
        result = confirmed_best_response(series, settings)
    elif function == "derive_param_confirmed_resp":
        result = first_response(series, confirmed=True, settings=settings)
    elif function == "derive_param_response":
        result = first_response(series, confirmed=False, settings=settings)
    else:
        benefits = parameters.get("clinben_vals", ["CR", "PR", "SD", "NON-CR/NON-PD"])
        result = clinical_benefit(series, settings, benefits=benefits)
    expected = case["expected"]
    assert result == BestResponse(expected["value"], day(expected["date"], reference) if expected["date"] else None)


@needs_vectors
def test_table_1_row_by_row():
    table = rows("recist11_table1_target.csv")
    assert len(table) == 39
    for row in table:
        assert overall_response(row["target"], row["nontarget"], row["new_lesion"] == "Y") == row["overall"], row


@needs_vectors
def test_table_2_row_by_row():
    for row in rows("recist11_table2_nontarget_only.csv"):
        assert overall_response(None, row["nontarget"], row["new_lesion"] == "Y") == row["overall"], row


def test_every_combination_of_table_1_and_2():
    rank = {"CR": 0, "PR": 1, "SD": 2, "NON-CR/NON-PD": 2, "NE": 3, "PD": 4}
    targets = ("CR", "PR", "SD", "PD", "NE", None)
    others = ("CR", "NON-CR/NON-PD", "PD", "NE", None)
    seen = set()
    for target, other, new in itertools.product(targets, others, (False, True)):
        overall = overall_response(target, other, new)
        seen.add((target, other, new))
        if new or target == "PD" or other == "PD":
            assert overall == "PD"
        elif target is None:
            assert overall == (other or "NE")
        elif target == "CR":
            assert overall == ("CR" if other in ("CR", None) else "PR")
        else:
            assert overall == target
        # Never better than its worst part.
        assert rank[overall] >= max(
            rank[target] if target else 0, rank["PR"] if target and other in ("NON-CR/NON-PD", "NE") else 0
        )
    assert len(seen) == 60


@needs_vectors
def test_table_3_confirmed_best_response():
    for row in rows("recist11_table3_confirmed_bor.csv"):
        # The second assessment is 30 days after the first; what differs is whether stable disease has lasted long enough.
        first = 50 if row["min_sd_duration_met"] == "1" else 20
        series = [DatedResponse(first, row["first"]), DatedResponse(first + 30, row["subsequent"])]
        minimum = 42 if row["min_sd_duration_met"] == "1" else 60
        settings = BestResponseSettings(min_sd_days=minimum, early_as_table_3=True)
        assert confirmed_best_response(series, settings).response in row["bor"].split("|"), row


def test_a_response_that_is_lost_early_is_not_evaluable_by_default():
    series = [DatedResponse(20, "CR"), DatedResponse(30, "SD")]
    assert confirmed_best_response(series).response == "NE"
    assert confirmed_best_response(series, BestResponseSettings(early_as_table_3=True)).response == "PD"


@needs_vectors
def test_target_thresholds_at_the_boundary():
    for case in load("irecist_recisttracker_unit_tests.json")["recist11_target_thresholds"]:
        now, baseline = tenths(case["current"]), tenths(case["baseline"])
        nadir = tenths(case.get("nadir") or case["baseline"])
        letter = "PD" if is_progression(now, nadir) else "PR" if is_partial_response(now, baseline) else "SD"
        expected = case["target"]
        assert letter != expected[4:] if expected.startswith("not ") else letter == expected, case


def test_tenths_do_not_inherit_binary_error():
    assert tenths(9.8) == 98
    assert tenths(8.2) - tenths(3.2) == 50
    assert tenths(0.1 + 0.2) == 3
    assert tenths(2.25) == 23
    assert tenths(23.4567) == 235


@needs_vectors
def test_table_3_of_irecist_in_all_511_expansions():
    count = 0
    for row in rows("irecist_table3_ibor.csv"):
        for letters in itertools.product(*(row[f"tp{index}"].split("|") for index in range(1, 6))):
            assert best_irecist(list(letters)) == row["iBOR"], (row["example"], letters)
            count += 1
    assert count == 511


def test_progression_dates_back_to_the_block_that_was_confirmed():
    assert (
        confirmed_progression_day([(30, "iUPD"), (60, "iSD"), (90, "iUPD"), (120, "NE"), (150, "iUPD"), (180, "iCPD")])
        == 90
    )
    assert confirmed_progression_day([(30, "iUPD"), (60, "iPR"), (90, "iUPD")]) is None
    assert confirmed_progression_day([(30, "iCPD")]) == 30
    assert duration_of_response([(30, "iPR"), (60, "iUPD"), (95, "iCPD")]) == 30
    assert duration_of_response([(30, "iUPD"), (60, "iCPD"), (95, "iCPD")]) is None


def test_confirmation_is_sought_at_the_first_later_visit_that_can_give_it():
    # The visit on day 30 is the first PR at least 28 days later; the two NE before it are too many, later visits do not help.
    series = [DatedResponse(d, r) for d, r in ((0, "PR"), (10, "NE"), (20, "NE"), (30, "PR"), (70, "PR"))]
    assert confirmed_best_response(series).response == "PR"
    assert confirmed_best_response(series).day == 30
    assert first_response(series, confirmed=True).day == 30


@pytest.mark.parametrize(("interval", "expected"), [(27, "SD"), (28, "PR")])
def test_a_confirmation_needs_28_days(interval, expected):
    series = [DatedResponse(60, "PR"), DatedResponse(60 + interval, "PR")]
    assert confirmed_best_response(series).response == expected


def test_assessments_after_the_first_progression_do_not_count():
    series = [DatedResponse(50, "SD"), DatedResponse(90, "PD"), DatedResponse(120, "CR")]
    assert best_response(series).response == "SD"
    assert best_response(series, BestResponseSettings(drop_after_pd=False)).response == "CR"
    assert progression_day(series) == 90


def test_early_stable_disease_before_progression_is_progression():
    assert best_response([DatedResponse(30, "SD"), DatedResponse(60, "PD")]).response == "PD"
    assert best_response([DatedResponse(30, "SD")]).response == "NE"
    assert best_response([]).response == "MISSING"
