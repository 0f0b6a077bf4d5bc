"""Tables in and out: tolerant in spelling, strict in meaning, atomic, and the same answers as the functions."""

from __future__ import annotations

import csv
import datetime
import json
import time
from pathlib import Path

import pytest
from response_command import HEADER, command, read, write

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.response import read_measurements
from ImmunoRadiomicsLib.response.recist import (
    BestResponseSettings,
    DatedResponse,
    best_response,
    confirmed_best_response,
)
from ImmunoRadiomicsLib.response.table import BEST_COLUMNS, RESPONSE_COLUMNS, respond_table

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


ONE_PATIENT = (
    HEADER
    + "A,0,T1,target,lung,0,50,40,measured\n"
    + "A,0,T2,target,lymph node,1,30,22,measured\n"
    + "A,0,N1,non-target,liver,0,,,present\n"
    + "A,56,T1,target,lung,0,66,40,measured\n"
    + "A,56,T2,target,lymph node,1,30,22,measured\n"
    + "A,56,N1,non-target,liver,0,,,present\n"
    + "A,91,T1,target,lung,0,30,20,measured\n"
    + "A,91,T2,target,lymph node,1,30,9,measured\n"
    + "A,91,N1,non-target,liver,0,,,present\n"
)


def test_the_tables_of_one_patient(tmp_path):
    table = write(tmp_path, ONE_PATIENT)
    out = tmp_path / "out" / "response.csv"
    assert command(table, "--criteria", "irecist", "--out", out, "--narrative", tmp_path / "words.txt") == 0
    rows = read(out)
    assert tuple(rows[0]) == RESPONSE_COLUMNS
    assert [(row["day"], row["sum_mm"], row["target"], row["recist"], row["irecist"]) for row in rows] == [
        ("56", "88.0", "PD", "PD", "iUPD"),
        ("91", "39.0", "PR", "PR", "iPR"),
    ]
    assert rows[0]["baseline_mm"] == rows[0]["nadir_mm"] == "72.0"
    assert "+22 % and +16 mm" in rows[0]["rule"]
    assert "from day 84 to day 112" in rows[0]["rule"]
    assert "Probability that the true change of the targets is one of: progression 5" in rows[0]["rule"]
    best = read(out.with_name("best.csv"))
    assert tuple(best[0]) == BEST_COLUMNS
    assert best == [{"patient": "A", "bor": "PD", "confirmed_bor": "PD", "ibor": "iPR", "progression_day": ""}]
    assert (
        (tmp_path / "words.txt")
        .read_text()
        .startswith("A: Sum of diameters 39 mm; -46 % and -33 mm against baseline (72 mm)")
    )
    assert sorted(item.name for item in out.parent.iterdir()) == ["best.csv", "response.csv"]
    assert command(table, "--criteria", "RECIST 1.1", "--out", out) == 0
    assert read(out.with_name("best.csv"))[0]["progression_day"] == "56"


SPELLINGS = {
    "semicolons, decimal comma, cm, dates and synonyms": (
        "Subject;Scan date;Lesion ID;Type;Site;Lymph node;Long axis (cm);Short axis (cm);State\n"
        "A;10.01.2024;T1;Target lesion;Lung;no;5,0;4,0;\n"
        "A;10.01.2024;T2;T;lymph node;;3,0;2,2;\n"
        "A;10.01.2024;N1;NT;Liver;n;;;Present\n"
        "A;2024-03-06;T1;TARGET;Lung;no;6,6;4,0;\n"
        "A;2024-03-06;T2;tl;lymph node;;3,0;2,2;\n"
        "A;2024-03-06;N1;non target;Liver;n;;;NC\n"
        "A;10-Apr-2024;T1;target;Lung;no;3,0;2,0;\n"
        "A;10-Apr-2024;T2;target;lymph node;;3,0;0,9;\n"
        "A;10-Apr-2024;N1;nontarget;Liver;n;;;stable\n"
    ),
    "one size column with its unit in the cell": (
        "\ufeffUSUBJID\tADY\tTULNKID\trole\torgan\tnode\tdiameter\tstatus\n"
        "A\t0\tT1\tTARGET\tlung\t0\t50 mm\t\n"
        "A\t0\tT2\tTARGET\tlymph node\t1\t22\t\n"
        "A\t0\tN1\tNON-TARGET\tliver\t0\t\tPRESENT\n"
        "A\t56.0\tT1\tTARGET\tlung\t0\t66 mm\t\n"
        "A\t56\tT2\tTARGET\tlymph node\t1\t22\t\n"
        "A\t56\tN1\tNON-TARGET\tliver\t0\t\tPRESENT\n"
        "A\t91\tT1\tTARGET\tlung\t0\t30 mm\t\n"
        "A\t91\tT2\tTARGET\tlymph node\t1\t9\t\n"
        "A\t91\tN1\tNON-TARGET\tliver\t0\t\tPRESENT\n"
    ),
    "a unit column, each lesion in its own unit": (
        "patient,day,lesion,role,organ,node,long,short,unit,status\n"
        "A,0,T1,target,lung,0,5.0,4.0,cm,measured\n"
        "A,0,T2,target,lymph node,1,30,22,mm,measured\n"
        "A,0,N1,non-target,liver,0,,,,present\n"
        "A,56,T1,target,lung,0,6.6,4.0,cm,measured\n"
        "A,56,T2,target,lymph node,1,30,22,mm,measured\n"
        "A,56,N1,non-target,liver,0,,,,present\n"
        "A,91,T1,target,lung,0,3.0,2.0,cm,measured\n"
        "A,91,T2,target,lymph node,1,30,9,mm,measured\n"
        "A,91,N1,non-target,liver,0,,,,present\n"
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spelling_is_free(tmp_path, name):
    respond_table(write(tmp_path, ONE_PATIENT), "irecist", tmp_path / "plain.csv")
    respond_table(write(tmp_path, SPELLINGS[name], "other.csv"), "irecist", tmp_path / "spelled.csv")
    assert read(tmp_path / "spelled.csv") == read(tmp_path / "plain.csv")


BASE = HEADER + "A,0,T1,target,lung,0,50,40,measured\n"
BAD = {
    "unknown role": (BASE + "A,56,T1,traget,lung,0,50,40,measured\n", "row 3: lesion role 'traget' is not known"),
    "unknown status": (BASE + "A,56,T1,target,lung,0,50,40,fine\n", "row 3: status 'fine' is not known"),
    "duplicate visit": (BASE + "A,0,T1,target,lung,0,51,40,measured\n", "row 3: duplicate visit"),
    "negative size": (BASE + "A,56,T1,target,lung,0,-5,,measured\n", "row 3: size -5 is negative"),
    "target without baseline": (BASE + "A,56,T2,target,lung,0,20,15,measured\n", "row 3: target without baseline"),
    "visit before baseline": (BASE + "A,-30,T1,target,lung,0,40,30,measured\n", "row 3: visit before baseline"),
    "role changes": (BASE + "A,56,T1,non-target,lung,0,,,present\n", "row 3: lesion T1 of A is non-target here"),
    "new at baseline": (BASE + "A,0,L1,new-target,lung,0,20,15,measured\n", "row 3: lesion L1 of A is new but seen at"),
    "absent with a size": (BASE + "A,56,T1,target,lung,0,20,15,absent\n", "row 3: lesion T1 of A is absent but has"),
    "measured without a size": (BASE + "A,56,T1,target,lung,0,,,measured\n", "row 3: lesion T1 of A is measured but"),
    "not a number": (BASE + "A,56,T1,target,lung,0,5o,40,measured\n", "row 3: size '5o' is not a number"),
    "a metre": (BASE + "A,56,T1,target,lung,0,1200,40,measured\n", "row 3: size 1200 is 1.2 m long. Check its unit."),
    "overflow": (BASE + "A,56,T1,target,lung,0,1e400,40,measured\n", "row 3: size 1e400"),
    "half a day": (BASE + "A,56.5,T1,target,lung,0,50,40,measured\n", "row 3: day '56.5' is not a whole number"),
    "an impossible day": (BASE + "A,1e9,T1,target,lung,0,50,40,measured\n", "row 3: day '1e9' is not a whole number"),
    "ambiguous date": ("patient,date,lesion,role,long_mm\nA,02/03/2024,T1,target,50\n", "row 2: date '02/03/2024'"),
    "no visit": ("patient,day,lesion,role,long_mm\nA,0,T1,target,50\nA,,T1,target,50\n", "row 3: neither day nor date"),
    "unit of the cell against the column": (BASE + "A,56,T1,target,lung,0,5.2 cm,40,measured\n", "row 3: size '5.2 cm' is written in cm"),
    "units mixed in a lesion": (
        "patient,day,lesion,role,organ,node,long,unit\nA,0,T1,target,lung,0,5,cm\nA,56,T1,target,lung,0,52,mm\n",
        "units mixed: lesion T1 of A is in mm (row 3) and in cm (row 2)",
    ),
    "units mixed in cells": (
        "patient,day,lesion,role,size\nA,0,T1,target,50 mm\nA,56,T1,target,5.2 cm\n",
        "units mixed: lesion T1 of A",
    ),
    "no column": ("patient,day,lesion,long_mm\nA,0,T1,50\n", "row 1: no column role"),
    "empty": ("patient,day\n", "the table is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_its_row_and_nothing_is_written(tmp_path, name):
    text, message = BAD[name]
    table = write(tmp_path, text)
    out = tmp_path / "new folder" / "response.csv"
    with pytest.raises(InputError) as caught:
        command(table, "--out", out)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert not out.parent.exists()


def test_all_problems_are_listed_at_once(tmp_path):
    table = write(
        tmp_path,
        BASE
        + "A,56,T1,target,lung,0,-5,,measured\n"
        + "A,-9,T1,target,lung,0,40,30,measured\n"
        + "B,0,T1,traget,lung,0,40,30,measured\n"
        + "C,20,T9,target,lung,0,40,30,measured\n"
        + "C,20,T9,target,lung,0,40,30,measured\n",
    )
    with pytest.raises(InputError) as caught:
        read_measurements(table)
    rows = [problem.split("row ")[1].split(":")[0] for problem in caught.value.problems]
    assert rows == ["3", "4", "5", "7"]


def test_missing_file_and_unknown_criteria(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        respond_table(tmp_path / "none.csv", "irecist", tmp_path / "out.csv")
    with pytest.raises(InputError, match="criteria 'recist2' are not known"):
        respond_table(write(tmp_path, ONE_PATIENT), "recist2", tmp_path / "out.csv")
    with pytest.raises(InputError, match=r"best\.csv is the name of"):
        respond_table(write(tmp_path, ONE_PATIENT), "irecist", tmp_path / "best.csv")


def test_the_baseline_is_found(tmp_path):
    rows = "A,{},T1,target,lung,0,{},40,measured\n"
    from_treatment = write(tmp_path, HEADER + rows.format(-12, 50) + rows.format(44, 66))
    patient = read_measurements(from_treatment).patients[0]
    assert [item.day for item in patient.measurements] == [0, 56]
    assert (patient.day_offset, patient.treatment_start_day) == (-12, 12)
    respond_table(from_treatment, "irecist", tmp_path / "out.csv")
    assert [row["day"] for row in read(tmp_path / "out.csv")] == ["44"]
    named = write(
        tmp_path,
        "patient,date,timepoint,lesion,role,long_mm\n"
        "A,2023-11-20,prebaseline,T1,target,40\nA,2024-01-10,baseline,T1,target,50\nA,2024-03-12,followup-1,T1,target,66\n",
    )
    assert [item.day for item in read_measurements(named).patients[0].measurements] == [-51, 0, 62]


def test_baseline_imaging_may_take_several_days_before_treatment(tmp_path):
    table = write(
        tmp_path,
        HEADER
        + "A,-9,T1,target,lung,0,50,40,\nA,-4,N1,non-target,bone,0,,,present\nA,-12,T2,target,liver,0,30,20,\n"
        + "A,40,T1,target,lung,0,50,40,\nA,40,T2,target,liver,0,30,20,\nA,40,N1,non-target,bone,0,,,present\n",
    )
    respond_table(table, "recist1.1", tmp_path / "out.csv")
    assert [(row["day"], row["baseline_mm"], row["recist"]) for row in read(tmp_path / "out.csv")] == [
        ("40", "80.0", "SD")
    ]
    dated = write(
        tmp_path,
        "patient,date,treatment_start,lesion,role,long_mm\nA,2024-01-03,2024-01-12,T1,target,50\nA,2023-11-20,2024-01-12,T1,target,40\n"
        "A,2024-03-01,2024-01-12,T1,target,80\n",
    )
    with pytest.raises(InputError, match="row 3: visit before baseline"):
        read_measurements(dated)
    patient = read_measurements(dated, prebaseline=True).patients[0]
    assert [item.day for item in patient.measurements] == [-44, 0, 58]
    assert patient.treatment_start_day == 9
    stale = write(
        tmp_path,
        HEADER + "A,-2,T1,target,lung,0,50,40,\nA,-40,T2,target,liver,0,30,20,\nA,40,T1,target,lung,0,50,40,\n",
    )
    with pytest.raises(InputError, match="row 3: visit before baseline"):
        read_measurements(stale)


def test_scans_before_the_baseline_count_for_growth_only(tmp_path):
    table = write(tmp_path, BASE + "A,-30,T1,target,lung,0,45,30,measured\nA,42,T1,target,lung,0,75,60,measured\n")
    assert command(table, "--out", tmp_path / "out.csv", "--prebaseline", "--growth", tmp_path / "growth.csv") == 0
    assert [row["nadir_mm"] for row in read(tmp_path / "out.csv")] == ["50.0"]
    growth = read(tmp_path / "growth.csv")[0]
    assert float(growth["tgr_reference_percent_per_month"]) == pytest.approx(
        100 * ((50 / 45) ** (3 * 365.25 / 12 / 30) - 1), rel=1e-5
    )
    assert growth["champiat2017"] == "yes"


def test_fragments_of_a_split_target_add_up_and_a_merged_one_is_gone(tmp_path):
    table = write(
        tmp_path,
        HEADER
        + "A,0,T1,target,lung,0,50,40,measured\nA,0,T2,target,lung,0,20,15,measured\n"
        + "A,56,T1,target,lung,0,30,20,measured\nA,56,T1.1,target,lung,0,12,10,measured\nA,56,T2,target,lung,0,20,15,measured\n"
        + "A,112,T1,target,lung,0,60,20,measured\nA,112,T2,target,lung,0,,,merged\n",
    )
    respond_table(table, "recist1.1", tmp_path / "out.csv")
    assert [row["sum_mm"] for row in read(tmp_path / "out.csv")] == ["62.0", "60.0"]


def test_a_table_with_one_diameter_takes_it_for_the_short_axis_of_a_node(tmp_path):
    table = write(
        tmp_path,
        "patient,day,lesion,role,organ,node,long_mm\nA,0,T1,target,lymph node,1,22\nA,56,T1,target,lymph node,1,9\n",
    )
    result = respond_table(table, "recist1.1", tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")[0]["recist"] == "CR"
    assert result.notes == ("The table has no short axes: the diameter of a lymph node is taken to be its short axis.",)
    mixed = write(tmp_path, HEADER + "A,0,T1,target,lymph node,1,22,18,\nA,56,T1,target,lymph node,1,9,,\n")
    with pytest.raises(InputError, match="its short axis is missing"):
        read_measurements(mixed)


def test_a_size_without_a_unit_is_taken_for_millimetres_and_said(tmp_path):
    plain = read_measurements(write(tmp_path, "patient,day,lesion,role,longest diameter\nA,0,T1,target,22\n"))
    assert plain.notes == ("A size column names no unit: sizes without one are taken to be millimetres.",)
    assert plain.patients[0].measurements[0].long_mm == 22
    assert read_measurements(write(tmp_path, BASE)).notes == ()


def test_words_in_a_size_column(tmp_path):
    table = write(
        tmp_path,
        "patient,day,lesion,role,size_mm\nA,0,T1,target,20\nA,56,T1,target,TOO SMALL TO MEASURE\nA,112,T1,target,NOT EVALUABLE\n"
        "A,168,T1,target,0\n",
    )
    respond_table(table, "recist1.1", tmp_path / "out.csv")
    assert [(row["sum_mm"], row["recist"]) for row in read(tmp_path / "out.csv")] == [
        ("5.0", "PR"),
        ("", "NE"),
        ("0.0", "CR"),
    ]


def test_a_missing_target_whose_measured_part_alone_progresses(tmp_path):
    def table(size: float) -> Path:
        return write(
            tmp_path,
            HEADER
            + "A,0,T1,target,lung,0,30,20,\nA,0,T2,target,liver,0,61,50,\n"
            + f"A,42,T1,target,lung,0,,,not done\nA,42,T2,target,liver,0,{size},50,\n",
        )

    for size, expected in ((110, "PD"), (109.2, "PD"), (109.1, "NE"), (107.9, "NE")):
        respond_table(table(size), "recist1.1", tmp_path / "out.csv")
        assert read(tmp_path / "out.csv")[0]["recist"] == expected


def test_visit_responses_give_the_best_responses(tmp_path):
    table = write(
        tmp_path,
        "patient,day,response\nA,42,PR\nA,84,CR\nA,126,CR\nB,42,iSD\nB,84,iUPD\nB,126,iCPD\nC,30,Stable disease\nD,50,Non-CR/Non-PD\n",
    )
    assert command(table, "--criteria", "recist1.1", "--out", tmp_path / "best of all.csv") == 0
    rows = {row["patient"]: row for row in read(tmp_path / "best of all.csv")}
    assert tuple(rows["A"]) == BEST_COLUMNS
    assert [rows[name]["bor"] for name in "ABCD"] == ["CR", "SD", "NE", "NON-CR/NON-PD"]
    assert rows["A"]["confirmed_bor"] == "CR"
    assert (rows["B"]["ibor"], rows["B"]["progression_day"]) == ("iSD", "84")
    assert not (tmp_path / "best.csv").exists()
    with pytest.raises(InputError, match="row 3: response 'XX' is not known"):
        respond_table(write(tmp_path, "patient,day,response\nA,42,PR\nA,84,XX\n"), "recist1.1", tmp_path / "out.csv")
    with pytest.raises(InputError, match="row 3: duplicate visit"):
        respond_table(write(tmp_path, "patient,day,response\nA,42,PR\nA,42,PR\n"), "recist1.1", tmp_path / "out.csv")


def test_our_own_table_of_responses_can_be_read_again(tmp_path):
    respond_table(write(tmp_path, ONE_PATIENT), "irecist", tmp_path / "response.csv")
    respond_table(tmp_path / "response.csv", "irecist", tmp_path / "again.csv")
    assert read(tmp_path / "again.csv") == read(tmp_path / "best.csv")


def test_the_options_of_the_command_reach_the_rules(tmp_path):
    table = write(tmp_path, "patient,day,response\nA,42,PR\nA,60,NE\nA,63,NE\nA,77,PR\n")
    for options, expected in (((), "SD"), (("--max-ne", "2"), "PR"), (("--min-sd-days", "100", "--max-ne", "0"), "NE")):
        command(table, "--out", tmp_path / "out.csv", *options)
        assert read(tmp_path / "out.csv")[0]["confirmed_bor"] == expected
    with pytest.raises(InputError, match="--max-ne -1"):
        command(table, "--out", tmp_path / "out.csv", "--max-ne", "-1")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no reference vectors at {SHARED}")
def test_the_reference_sequences_through_the_command(tmp_path):
    """The cases with the default options, except the window of 28 days, give the same through a table of visit responses."""
    cases = [
        case
        for case in json.loads((SHARED / "criteria" / "admiralonco_unit_tests.json").read_text())["cases"]
        if case["function"] in ("derive_param_bor", "derive_param_confirmed_bor")
        and case["input"]
        and "accept_sd" not in case["params"]
        and (
            case["pd_date_used"] is None
            or any(i["response"] == "PD" and i["date"] == case["pd_date_used"] for i in case["input"])
        )
    ]
    assert len(cases) == 49
    lines = ["patient,day,response"]
    for case in cases:
        start = datetime.date.fromisoformat(case["reference_date"])
        lines += [
            f"{case['id']},{(datetime.date.fromisoformat(item['date']) - start).days},{item['response']}"
            for item in case["input"]
        ]
    table = write(tmp_path, "\n".join(lines) + "\n")
    # Where a case names no day of progression, visits after a PD count as well.
    for options, chosen in (
        ((), [case for case in cases if case["pd_date_used"]]),
        (("--keep-after-pd",), [case for case in cases if not case["pd_date_used"]]),
    ):
        command(table, "--criteria", "recist1.1", "--out", tmp_path / "out.csv", "--min-sd-days", "28", *options)
        rows = {row["patient"]: row for row in read(tmp_path / "out.csv")}
        assert chosen
        for case in chosen:
            column = "bor" if case["function"] == "derive_param_bor" else "confirmed_bor"
            assert rows[case["id"]][column] == case["expected"]["value"], case["id"]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no trial data at {SHARED}")
def test_1472_real_series(tmp_path):
    """Every series of five trials is judged without failure and in time, through the table and through the function."""
    series: dict[str, list[dict[str, str]]] = {}
    with (SHARED / "trials" / "laleh2022_single_target_lesion.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            series.setdefault(f"{row['arm']}/{row['patient_id']}", []).append(row)
    assert len(series) == 1472
    undated = [row for rows in series.values() for row in rows if not row["day"]]
    assert len(undated) == 1
    lines = ["patient,day,lesion,role,long_mm,status"]
    lines += [
        f"{patient},{row['day']},T1,target,{row['mm']},{row['state']}"
        for patient, rows in series.items()
        for row in rows
        if row["day"]
    ]
    used = time.process_time()
    command(
        write(tmp_path, "\n".join(lines) + "\n"), "--out", tmp_path / "out.csv", "--growth", tmp_path / "growth.csv"
    )
    assert time.process_time() - used < 5
    judged = read(tmp_path / "out.csv")
    assert len(read(tmp_path / "best.csv")) == len(read(tmp_path / "growth.csv")) == 1472
    assert {row["irecist"] for row in judged} == {"iCR", "iPR", "iSD", "iUPD", "iCPD", "NE"}
    # Nothing is lost: a row for every visit after the baseline, and NE exactly where there is no size.
    after = sum(sum(bool(row["day"]) for row in rows) - 1 for rows in series.values())
    assert len(judged) == after
    days = {patient: {float(row["day"]): row for row in rows if row["day"]} for patient, rows in series.items()}
    for row in judged:
        raw = days[row["patient"]][float(row["day"])]
        assert (row["sum_mm"] == "") == (raw["state"] in ("NOT EVALUABLE", "") and not raw["mm"])
        if raw["state"] == "TOO SMALL TO MEASURE":
            assert row["sum_mm"] == "5.0"
    first = {row["patient"] for row in judged if row["recist"] == "PD"}
    assert len(first) > 500


def test_other_criteria_add_a_column(tmp_path):
    table = write(tmp_path, ONE_PATIENT)
    respond_table(table, "irRC", tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert [(row["irrc"], row["recist"]) for row in rows] == [("irSD", "PD"), ("irPR", "PR")]
    assert rows[0]["rule"].startswith("burden 3300 mm², baseline 2660")
    assert read(tmp_path / "best.csv")[0]["irrc"] == "irSD"
    for name in ("irrecist", "irrecist-bohnsack", "imrecist", "volumetric"):
        respond_table(table, name, tmp_path / "out.csv")
        assert len(read(tmp_path / "out.csv")) == 2


UPTAKE = (
    "patient,day,lesion,sul_peak,new,diameter_mm\n"
    "A,0,T1,8.0,0,30\nA,0,T2,5.0,0,20\nA,56,T1,10.4,0,30\nA,70,T1,12,0,30\nA,98,T1,12,0,30\n"
    "B,0,T1,8.0,0,30\nB,56,T1,5.6,0,30\nB,112,,,,\n"
)


def test_metabolic_criteria_read_a_table_of_uptake(tmp_path):
    table = write(tmp_path, UPTAKE, "pet.csv")
    for name, expected, best in (
        ("percist", ["PMD", "PMD", "PMD", "PMR", "CMR"], [("PMD", "56"), ("CMR", "")]),
        ("iPERCIST", ["UPMD", "UPMD", "CPMD", "PMR", "CMR"], [("CPMD", "56"), ("CMR", "")]),
        ("imPERCIST5", ["SMD", "SMD", "SMD", "PMR", "CMR"], [("SMD", ""), ("CMR", "")]),
        ("percimt", ["PMR", "PMR", "PMR", "SMD", "CMR"], [("PMR", ""), ("CMR", "")]),
    ):
        respond_table(table, name, tmp_path / "out.csv")
        assert [row["response"] for row in read(tmp_path / "out.csv")] == expected, name
        assert [(row["best"], row["progression_day"]) for row in read(tmp_path / "best.csv")] == best, name
    with pytest.raises(InputError) as caught:
        respond_table(
            write(tmp_path, UPTAKE + "B,112,T9,-3,0,\nB,112,T8,,0,\n", "bad.csv"), "percist", tmp_path / "out.csv"
        )
    assert [text.split("row ")[1][:2] for text in caught.value.problems] == ["10", "11"]


def test_best_responses_do_not_depend_on_the_order_of_rows():
    series = [DatedResponse(42, "PR"), DatedResponse(84, "CR"), DatedResponse(120, "CR")]
    assert best_response(series[::-1]) == best_response(series)
    chosen = BestResponseSettings(max_ne=0)
    assert confirmed_best_response(series[::-1], chosen) == confirmed_best_response(series, chosen)
