"""What `respond` reads beside measurements: visit responses, sums of diameters, uptake; and its settings by name."""

from __future__ import annotations

import datetime
import random
from pathlib import Path

import pytest
from response_command import HEADER, command, read, write

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.response.engine import ResponseSettings
from ImmunoRadiomicsLib.response.growth_table import growth_of_sums, read_sums
from ImmunoRadiomicsLib.response.settings import setting_names, with_settings
from ImmunoRadiomicsLib.response.table import BEST_COLUMNS
from ImmunoRadiomicsLib.response.visit_table import read_visit_responses

CRITERIA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "criteria"


ORDER = ("CR", "PR", "SD", "NON-CR/NON-PD", "PD", "NE")


def unconfirmed(series: list[tuple[int, str]], least: int, missing: str) -> str:
    """The best response as the published derivation words it, written apart from the engine."""
    early = ("SD", "NON-CR/NON-PD")
    ranks = [ORDER.index("NE" if r in early and d < least else r) for d, r in series if r != "ND"]
    return ORDER[min(ranks)] if ranks else missing


def confirmed(
    series: list[tuple[int, str]], least: int, gap: int, max_ne: int, missing: str, *, accept_sd: bool
) -> str:
    found = [(9, missing)]
    for index, (day, letter) in enumerate(series):
        if letter in ("CR", "PR"):
            good = ("CR",) if letter == "CR" else ("CR", "PR")
            later = series[index + 1 :]
            ends = [n for n, (d, r) in enumerate(later) if r in good and d >= day + gap]
            window = later[: ends[0] + 1] if ends else []
            letters = [r for _, r in window]
            fits = bool(ends) and letters.count("NE") <= max_ne
            if letter == "CR" and fits and set(letters) <= {"CR", "NE"}:
                found.append((0, "CR"))
            crs, prs = ([d for d, r in window if r == word] for word in ("CR", "PR"))
            ordered = not crs or not prs or min(crs) > max(prs)
            quiet = set(letters) <= {"CR", "PR", "SD", "NE"} and letters.count("SD") <= int(accept_sd)
            if letter == "PR" and fits and ordered and quiet:
                found.append((1, "PR"))
        if letter in ("CR", "PR", "SD") and day >= least:
            found.append((2, "SD"))
        elif letter == "NON-CR/NON-PD" and day >= least:
            found.append((3, letter))
        elif letter == "PD":
            found.append((4, "PD"))
        elif letter == "ND":
            found.append((6, "ND"))
        else:
            found.append((5, "NE"))
    return min(found)[1]


SPELLINGS = {
    "CR": ("CR", "Complete response"), "PR": ("PR", "partial response"), "SD": ("SD", "Stable Disease"), "PD": ("PD", "Progressive disease"),
    "NON-CR/NON-PD": ("NON-CR/NON-PD", "Non-CR/Non-PD", "NN"), "NE": ("NE", "UE", "Not evaluable"), "ND": ("ND", "not done", ""),
}  # fmt: skip


def test_800_random_sequences_of_responses_give_what_the_published_derivation_says(tmp_path):
    rng = random.Random(20)
    start = datetime.date(2020, 1, 1)
    for _ in range(8):
        least, gap, max_ne = rng.choice((0, 28, 42, 56)), rng.choice((14, 28, 56)), rng.choice((0, 1, 2))
        accept, as_ne, dated = (rng.random() < share for share in (0.3, 0.3, 0.5))
        patients: dict[str, list[tuple[int, str]]] = {}
        for number in range(100):
            day, series = 0, []
            for _ in range(rng.randrange(8)):
                day += rng.choice((7, 14, 21, 27, 28, 29, 42, 56))
                series.append((day, rng.choices(tuple(SPELLINGS), (3, 4, 4, 1, 1, 3, 1))[0]))
            patients[f"P{number}"] = series
        rows = [(p, day, rng.choice(SPELLINGS[r])) for p, series in patients.items() for day, r in series]
        rng.shuffle(rows)
        if dated:
            lines = ["USUBJID,ADT,TRTSDT,AVALC"]
            lines += [f"{p},{start + datetime.timedelta(day)},{start},{text}" for p, day, text in rows]
            lines += [f"{p},,{start}," for p, series in patients.items() if not series]
        else:
            lines = ["patient,day,response", *(f"{p},{day},{text}" for p, day, text in rows)]
            lines += [f"{p},," for p, series in patients.items() if not series]
        options = ["--min-sd-days", least, "--confirm-days", gap, "--max-ne", max_ne]
        options += ["--accept-sd"] * accept + ["--missing-as-ne"] * as_ne
        command(
            write(tmp_path, "\n".join(lines) + "\n"), "--criteria", "recist1.1", "--out", tmp_path / "o.csv", *options
        )
        given = {row["patient"]: (row["bor"], row["confirmed_bor"]) for row in read(tmp_path / "o.csv")}
        missing = "NE" if as_ne else "MISSING"
        for patient, series in patients.items():
            first = next((day for day, letter in series if letter == "PD"), 10**6)
            kept = [(day, letter) for day, letter in series if day <= first]
            assert given[patient] == (
                unconfirmed(kept, least, missing),
                confirmed(kept, least, gap, max_ne, missing, accept_sd=accept),
            ), (series, options)


def test_nothing_after_the_last_day_counts(tmp_path):
    table = write(
        tmp_path,
        "patient,date,reference_date,new_therapy_date,response\n"
        "A,2024-02-20,2024-01-01,2024-04-01,SD\nA,2024-04-01,2024-01-01,2024-04-01,PR\nA,2024-05-10,2024-01-01,2024-04-01,CR\n"
        "B,2024-02-20,2024-01-01,,SD\nB,2024-05-10,2024-01-01,,CR\n",
    )
    command(table, "--criteria", "recist1.1", "--out", tmp_path / "o.csv")
    assert [(row["bor"], row["confirmed_bor"]) for row in read(tmp_path / "o.csv")] == [("PR", "SD"), ("CR", "SD")]


def test_a_row_of_the_baseline_is_no_assessment_and_gives_the_reference(tmp_path):
    table = write(tmp_path, "patient,date,response\nA,2024-01-01,Baseline\nA,2024-02-20,SD\nA,2024-02-01,NED\n")
    patient = read_visit_responses(table).patients[0]
    assert [(item.day, item.response) for item in patient.recist] == [(31, "NE"), (50, "SD")]
    with pytest.raises(InputError, match="row 1: dates need a column reference_date") as caught:
        read_visit_responses(write(tmp_path, "patient,date,response\nA,2024-01-01,PR\nA,2024-02-20,SD\n"))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("criteria", "setting", "ibor", "progression"),
    [
        ("irecist", "isd_needs_min_days=no", "iSD", ""),
        ("irecist", "isd_needs_min_days=yes", "iUPD", ""),
        ("irecist", "unconfirmed_progression_counts=yes", "iSD", "90"),
        ("recist1.1", "isd_needs_min_days=no", "iSD", ""),
    ],
)
def test_the_choices_that_irecist_leaves(tmp_path, criteria, setting, ibor, progression):
    table = write(tmp_path, "patient,day,response\nA,30,iSD\nA,60,NE\nA,90,iUPD\nA,130,iUPD\nA,150,NE\n")
    command(table, "--criteria", criteria, "--setting", setting, "--out", tmp_path / "o.csv")
    assert read(tmp_path / "o.csv") == [
        dict(zip(BEST_COLUMNS, ("A", "PD", "PD", ibor, progression), strict=True)),
    ]


def test_an_unconfirmed_progression_that_was_cancelled_never_counts(tmp_path):
    rows = [("T1", 0, 50), ("T1", 60, 70), ("T1", 110, 40)]
    table = write(tmp_path, HEADER + "".join(f"A,{day},{lesion},target,lung,0,{mm},,\n" for lesion, day, mm in rows))
    for size, expected in ((40, ""), (72, "60")):
        table = write(
            tmp_path,
            HEADER + f"A,0,T1,target,lung,0,50,,\nA,60,T1,target,lung,0,70,,\nA,110,T1,target,lung,0,{size},,\n",
        )
        command(table, "--setting", "unconfirmed_progression_counts=yes", "--out", tmp_path / "o.csv")
        assert read(tmp_path / "best.csv")[0]["progression_day"] == expected


def test_settings_by_name_change_the_answer_and_wrong_ones_are_all_named(tmp_path):
    table = write(
        tmp_path,
        HEADER + "A,0,T1,target,lung,0,20,,\nA,60,T1,target,lung,0,0,,\nA,110,T1,target,lung,0,4,,\n",
    )
    for setting, expected in (("reappearance_is_pd=yes", "PD"), ("reappearance-is-pd=no", "PR")):
        command(table, "--criteria", "recist1.1", "--setting", setting, "--out", tmp_path / "o.csv")
        assert [row["recist"] for row in read(tmp_path / "o.csv")] == ["CR", expected]
    changed = with_settings(
        ResponseSettings(), ["further_growth_mm=4", "confirmation_reference=lowest", "max_ne=2", "sticky_pr=no"]
    )
    assert (changed.irecist.further_growth_mm, changed.irecist.confirmation_reference) == (4.0, "lowest")
    assert (changed.best.max_ne, changed.irecist.recist.sticky_pr) == (2, False)
    assert {"tolerance_days", "stable_new_lesion", "early_as_table_3", "zero_nadir_pd"} <= set(setting_names())
    with pytest.raises(InputError) as caught:
        with_settings(
            ResponseSettings(), ["sticky=no", "sticky_pr=perhaps", "max_ne=-1", "stable_new_lesion=x", "max_ne"]
        )
    assert len(caught.value.problems) == 4


MISSPELT = {
    "patient,day,lesion,role,organ,node,long_mm,statsu\nA,0,T1,target,lung,0,20,\nA,0,N1,non-target,lung,0,,present\n": "column 'statsu'",
    "patient,day,lesion,role,organ,node,longg_mm,status\nA,0,T1,target,lung,0,20,\nA,60,T1,target,lung,0,22,\n": "column 'longg_mm'",
    "patient,day,lesion,role,organ,node,width,status\nA,0,T1,target,lung,0,20,\nA,60,T1,target,lung,0,22,\n": "no column long_mm",
    "patient,day,response,ireicst\nA,40,PR,iPR\nA,80,PR,iPR\n": "column 'ireicst'",
    "patient,day,lesion,rolle,long_mm\nA,0,T1,target,20\nA,60,T1,target,20\n": "no column role",
}  # fmt: skip


@pytest.mark.parametrize("text", MISSPELT)
def test_a_misspelt_column_is_one_problem(tmp_path, text):
    with pytest.raises(InputError) as caught:
        command(write(tmp_path, text), "--out", tmp_path / "o.csv")
    assert len(caught.value.problems) == 1
    assert f"row 1: {MISSPELT[text]}" in caught.value.problems[0]
    assert not (tmp_path / "o.csv").exists()


def test_too_many_targets_are_named_with_their_rows(tmp_path, capsys):
    rows = [
        ("T1", "left lung"),
        ("T2", "right upper lobe of lung"),
        ("T3", "lung"),
        ("T4", "liver"),
        ("T5", "kidney"),
        ("T6", "bone"),
    ]
    lines = [f"A,{day},{lesion},target,{organ},0,20,,\n" for day in (0, 56) for lesion, organ in rows]
    table = write(tmp_path, HEADER + "".join(lines))
    assert command(table, "--out", tmp_path / "o.csv", "--warnings", tmp_path / "w.txt") == 0
    said = capsys.readouterr().err.splitlines()
    assert (
        said[0]
        == f"{table}: rows 2, 3, 4, 5, 6, 7: A has 6 target lesions; RECIST 1.1 takes 5 at most. All are in the sum."
    )
    assert said[1].startswith(f"{table}: rows 2, 3, 4: A has 3 target lesions in lung (T1, T2, T3); RECIST 1.1 takes 2")
    assert (tmp_path / "w.txt").read_text().splitlines() == said
    assert read(tmp_path / "o.csv")[0]["sum_mm"] == "120.0"


@pytest.mark.skipif(not CRITERIA.is_dir(), reason=f"no reference vectors at {CRITERIA}")
def test_the_reference_table_of_growth_through_the_command(tmp_path):
    source = CRITERIA / "growth_formula_reference.csv"
    command(source, "--criteria", "growth", "--out", tmp_path / "g.csv")
    expected, given = read(source), read(tmp_path / "g.csv")
    assert [row["patient"] for row in given] == [row["case"] for row in expected]
    for row, found in zip(expected, given, strict=True):
        for column, name, scale in (
            ("TGR_ref", "tgr_reference_percent_per_month", 1.0),
            ("TGR_exp", "tgr_experimental_percent_per_month", 1.0),
            ("delta_TGR", "tgr_difference_percent_per_month", 1.0),
            ("TGK_ref_mm_per_day", "tgk_reference_mm_per_month", 30.4375),
            ("TGK_exp_mm_per_day", "tgk_experimental_mm_per_month", 30.4375),
        ):
            assert bool(row[column]) == bool(found[name]), (row["case"], column)
            if row[column]:
                assert float(found[name]) == pytest.approx(float(row[column]) * scale, abs=2e-5), (row["case"], column)
    short = next(row for row in given if row["patient"] == "very short interval")
    assert short["warnings"].startswith("Only 7 days before the baseline")


def test_sums_with_dates_as_the_author_of_the_growth_rate_writes_them(tmp_path):
    table = write(
        tmp_path,
        "RECIST_BASELINE\tRECIST_BEFORE\tRECIST_EVAL1\tSCANDATE_BASELINE\tSCANDATE_BEFORE\tSCANDATE_EVAL1\tpd\n"
        "100\t80\t125\t03/25/2010\t01/30/2010\t05/20/2010\t\n60\t70\t0\t03/05/2010\t02/25/2010\t05/02/2010\tno\n"
        "60\t\t66\t03/05/2010\t\t05/02/2010\tyes\n",
        "author.txt",
    )
    first, second, third = read_sums(table)
    months = 54 * 12 / 365.25
    assert first.kinetics.tgr_reference_percent_per_month == pytest.approx(100 * ((100 / 80) ** (3 / months) - 1))
    assert {item.id: item.answer for item in first.hyperprogression}["champiat2017"] == "no"
    assert second.kinetics.tgr_experimental_percent_per_month == -100
    assert second.kinetics.tgr_ratio is None
    assert {item.id: item.answer for item in third.hyperprogression}["champiat2017"] == "not assessable"
    assert third.patient == "row 4"
    assert growth_of_sums(100, 110, 140, 40, 42).kinetics.tgk_ratio == pytest.approx((30 / 42) / (10 / 40))
    bad = "case,pre_sum_mm,baseline_sum_mm,eval1_sum_mm,ref_days,exp_days\na,50,0,60,30,30\nb,50,-5,60,30,30\nc,50,50,60,-3,30\nd,50,5o,60,3,30\n"
    with pytest.raises(InputError) as caught:
        read_sums(write(tmp_path, bad))
    assert [problem.split("row ")[1][0] for problem in caught.value.problems] == ["2", "3", "4", "5"]
    with pytest.raises(InputError, match="row 2: date '05/02/2010' is not understood"):
        read_sums(
            write(tmp_path, "baseline_sum_mm,eval1_sum_mm,baseline_date,eval1_date\n60,66,03/05/2010,05/02/2010\n")
        )


def test_measurements_give_the_same_growth_as_their_sums(tmp_path):
    sizes = {-40: (30, 20), 0: (36, 21), 42: (50, 33)}
    lines = [f"A,{day},T{n},target,organ {n},0,{mm},,\n" for day, both in sizes.items() for n, mm in enumerate(both)]
    command(write(tmp_path, HEADER + "".join(lines)), "--criteria", "growth", "--out", tmp_path / "g.csv")
    sums = "patient,pre_sum_mm,baseline_sum_mm,eval1_sum_mm,ref_days,exp_days\nA,50,57,83,40,42\n"
    command(write(tmp_path, sums, "sums.csv"), "--out", tmp_path / "s.csv")
    by_lesion, by_sum = read(tmp_path / "g.csv")[0], read(tmp_path / "s.csv")[0]
    rates = [name for name in by_sum if name.startswith("tg") or name == "doubling_time_days"]
    assert len(rates) == 8
    assert all(float(by_lesion[name]) == pytest.approx(float(by_sum[name]), rel=1e-9) for name in rates)
    assert by_sum["champiat2017"] == by_lesion["champiat2017"] == "yes"


def test_pecrit_reads_uptake_and_recist(tmp_path):
    table = write(
        tmp_path,
        "patient,day,lesion,sul_peak,recist\nA,0,T1,8,\nA,25,T1,9.24,SD\nB,0,T1,8,\nB,25,T1,9.25,SD\nC,0,T1,8,\nC,25,T1,4,PD\n"
        "D,0,T1,8,\nD,25,T1,20,PR\nE,0,T1,8,\nE,25,T1,9,\n",
    )
    command(table, "--criteria", "pecrit", "--out", tmp_path / "o.csv")
    expected = ["no benefit", "benefit", "no benefit", "benefit", "NE"]
    assert [row["response"] for row in read(tmp_path / "o.csv")] == expected
    assert [row["best"] for row in read(tmp_path / "best.csv")] == expected
    with pytest.raises(InputError, match="row 3: RECIST response 'XX' is not known"):
        command(
            write(tmp_path, "patient,day,lesion,sul_peak,recist\nA,0,T1,8,\nA,25,T1,9,XX\n"),
            "--criteria",
            "pecrit",
            "--out",
            tmp_path / "o.csv",
        )


def test_a_date_without_a_day_is_the_middle_of_its_month_and_said(tmp_path, capsys):
    table = write(
        tmp_path,
        "patient,date,lesion,role,size_mm\nA,2024-01-02,T1,target,20\nA,2024-02,T1,target,22\nA,2024-03-06,T1,target,10\n",
    )
    command(table, "--criteria", "recist1.1", "--out", tmp_path / "o.csv")
    assert [(row["day"], row["recist"]) for row in read(tmp_path / "o.csv")] == [("44", "SD"), ("64", "PR")]
    assert "date 2024-02 has no day: it is taken for the 2024-02-15." in capsys.readouterr().err
    visits = write(tmp_path, "patient,date,reference_date,response\nA,2024-02,2024-01-02,SD\n")
    command(visits, "--criteria", "recist1.1", "--out", tmp_path / "o.csv")
    assert read(tmp_path / "o.csv")[0]["bor"] == "SD"
    assert "date 2024-02 has no day" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("A,56,T1,target,lung,0,50,40,\nA,112,T1,target,lung,0,50,40,\n", "row 2: no baseline: the first visit of A is on day 56"),
        ("A,0,T1,target,lung,0,50,40,\nA,56,T1,target,lung,0,50,5,40,0,measured\n", "row 3: has 11 cells, the header has 9"),
        ("A,0,T1,target,lung,0,50,40,\nA,56,,target,lung,0,50,40,\n", "row 3: the lesion is missing"),
    ],
)  # fmt: skip
def test_a_table_without_baseline_or_with_shifted_cells_is_refused(tmp_path, rows, message):
    with pytest.raises(InputError) as caught:
        command(write(tmp_path, HEADER + rows), "--out", tmp_path / "o.csv")
    assert len(caught.value.problems) == 1
    assert message in caught.value.problems[0]
