"""iRECIST as a state machine: reference vectors, answers of the EORTC, and properties over all short sequences."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ImmunoRadiomicsLib.response.course import Course, CourseVisit, NewLesion, Size, build_course
from ImmunoRadiomicsLib.response.irecist import (
    IrecistSettings,
    IrecistState,
    IrecistVisit,
    assess,
    best_irecist,
    confirmed_progression_day,
    step,
)
from ImmunoRadiomicsLib.response.measurements import Measurement, tenths
from ImmunoRadiomicsLib.response.recist import RecistSettings, overall_response, start_of
from ImmunoRadiomicsLib.response.recist import assess as assess_recist

CRITERIA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "criteria"
needs_vectors = pytest.mark.skipif(not CRITERIA.is_dir(), reason=f"no reference vectors at {CRITERIA}")


def load(name: str) -> dict:
    return json.loads((CRITERIA / name).read_text()) if CRITERIA.is_dir() else {}


def course(
    targets: list[float | None],
    *,
    days: list[int] | None = None,
    non_target: list[str] | None = None,
    new_targets: dict[str, list[float | None]] | None = None,
    new_non_targets: dict[str, list[str | None]] | None = None,
    symptoms: dict[int, bool] | None = None,
    node: bool = False,
) -> Course:
    """A patient with one target; None is not evaluated, `targets[0]` is the baseline, lists of new lesions start at visit 1."""
    days = days or [56 * index for index in range(len(targets))]
    items = []
    for day, size in zip(days, targets, strict=True):
        status = "not evaluated" if size is None else "absent" if size == 0 else "measured"
        items.append(Measurement("P", day, "T1", "target", "liver", node, size, size, status))
    if non_target is not None:
        items.append(Measurement("P", 0, "N1", "non-target", "lung", status="present"))
        items += [
            Measurement("P", day, "N1", "non-target", "lung", status=state)
            for day, state in zip(days[1:], non_target, strict=True)
        ]
    for lesion, sizes in (new_targets or {}).items():
        items += [
            Measurement(
                "P", day, lesion, "new-target", "lung", False, size, size, "absent" if size == 0 else "measured"
            )
            for day, size in zip(days[1:], sizes, strict=True)
            if size is not None
        ]
    for lesion, states in (new_non_targets or {}).items():
        items += [
            Measurement("P", day, lesion, "new-non-target", "bone", status=state)
            for day, state in zip(days[1:], states, strict=True)
            if state is not None
        ]
    return build_course(items, symptoms_worse=symptoms)


def letters(patient: Course, settings: IrecistSettings | None = None) -> list[str]:
    return [visit.letter for visit in assess(patient, settings)]


TRACKER = load("irecist_recisttracker_unit_tests.json").get("irecist", [])


@pytest.mark.parametrize("case", TRACKER, ids=lambda case: case["id"])
def test_tracker_case(case):
    start = datetime.date.fromisoformat(case["baseline_date"])
    points = case["timepoints"]
    days = [0] + [(datetime.date.fromisoformat(point["date"]) - start).days for point in points]
    new = [point["new_target_mm"] for point in points]
    patient = course(
        [case["baseline_target_sum_mm"], *(point["target_sum_mm"] for point in points)],
        days=days,
        new_targets={"L1": new} if any(size is not None for size in new) else None,
    )
    visits = assess(patient)
    for visit, expected in zip(visits, case["expected_irecist"], strict=True):
        if expected is None:
            assert visit.letter != "iCR"
            continue
        assert visit.letter == expected.split()[0]
        assert visit.used == ("ignored" not in expected)
    if "nadir_at_last" in case:
        assert visits[-1].target.nadir == tenths(case["nadir_at_last"])
    if "late_window_warning" in case:
        assert bool(visits[-1].warnings) == case["late_window_warning"]
    if "expected_recist_last" in case:
        assert assess_recist(patient)[-1].overall == case["expected_recist_last"]


@needs_vectors
def test_all_tracker_cases_are_there():
    assert len(TRACKER) == 13


EORTC = {case["id"]: case for case in load("eortc_faq_vectors.json").get("vectors", [])}


@needs_vectors
def test_a_partial_response_stays_one_until_progression():
    case = EORTC["eortc-pr-sticky"]
    patient = course([float(size) for size in case["target_sum_mm"]], non_target=["present"] * 5)
    assert [visit.overall for visit in assess_recist(patient)] == case["expected_recist"][1:]
    assert letters(patient) == case["expected_irecist"][1:]
    loose = [visit.overall for visit in assess_recist(patient, RecistSettings(sticky_pr=False))]
    assert loose == ["PR", "PR", "SD", "SD", "SD"]


@needs_vectors
def test_the_eortc_example_of_165_63_65():
    case = EORTC["eortc-165-63-65"]
    patient = course([float(size) for size in case["target_sum_mm"]], days=[7 * week for week in case["weeks"]])
    assert [visit.overall for visit in assess_recist(patient)] == case["expected_recist"][1:]


@needs_vectors
def test_a_stable_new_lesion_neither_confirms_nor_resets_until_it_grows():
    expected = EORTC["eortc-nl-stable-then-growth"]["expected_irecist"]
    assert letters(course([50.0] * 5, new_targets={"L1": [12, 12, 12, 17]})) == expected
    assert (
        letters(course([50.0] * 5, new_non_targets={"L1": ["present", "present", "present", "progressed"]})) == expected
    )


@needs_vectors
def test_growth_of_new_targets_adds_up():
    case = EORTC["eortc-nl-additive"]
    assert letters(course([50.0] * 4, new_targets={"L1": case["nlt_sum_mm"]})) == case["expected_irecist"]


@needs_vectors
def test_non_target_progression_is_confirmed_by_any_further_growth():
    # NC no change, UNE unequivocal, NCLA no change and INCLA increase since the last assessment.
    words = {"NC": "present", "UNE": "progressed", "NCLA": "progressed", "INCLA": "further progressed"}
    for name in ("eortc-nt-unequivocal-stable", "eortc-nt-unequivocal-further"):
        case = EORTC[name]
        found = letters(course([50.0] * 4, non_target=[words[word] for word in case["nontarget"]]))
        assert found[1:] == case["expected_irecist_driven_by_nt"][1:]
        assert found[0] == "iSD"


@needs_vectors
def test_scenarios_b_d_and_f():
    scenario_b = course([100.0, 90.0, 60.0], new_targets={"L1": [12, 12]})
    assert letters(scenario_b) == EORTC["eortc-scenario-B"]["expected_irecist_tail"]
    scenario_d = course([100.0, 100.0, 125.0, 60.0])
    assert letters(scenario_d)[-2:] == EORTC["eortc-scenario-D"]["expected_irecist_tail"]
    scenario_f = course([100.0, 60.0, 60.0, 60.0], new_targets={"L1": [None, 12, 12]})
    assert letters(scenario_f) == EORTC["eortc-scenario-F"]["expected_irecist_tail"]


@needs_vectors
def test_after_a_reset_an_old_new_lesion_progresses_only_by_its_own_rules():
    assert "eortc-after-reset-new-iupd" in EORTC
    base = [100.0, 100.0, 80.0, 80.0]
    assert letters(course(base, new_targets={"L1": [20, 20, 20]})) == ["iUPD", "iSD", "iSD"]
    assert letters(course(base, new_targets={"L1": [20, 20, 24.9]})) == ["iUPD", "iSD", "iSD"]
    assert letters(course(base, new_targets={"L1": [25, 25, 30]})) == ["iUPD", "iSD", "iUPD"]
    assert letters(course(base, new_targets={"L1": [20, 20, 20], "L2": [None, None, 12]})) == ["iUPD", "iSD", "iUPD"]
    assert letters(course(base, new_non_targets={"L1": ["present", "present", "progressed"]})) == [
        "iUPD",
        "iSD",
        "iUPD",
    ]


@needs_vectors
def test_an_early_scan_confirms_only_with_symptoms_and_an_additional_new_lesion():
    rules = EORTC["eortc-early-scan"]["rules"]
    chosen = IrecistSettings()
    assert (chosen.confirm_min_days, chosen.confirm_max_days) == (rules["min_days"], rules["max_days"])
    days = [0, 56, 70, 112]
    sizes: list[float | None] = [50, 50, 50, 50]
    more = {"L1": [12, 12, 12], "L2": [None, 12, 12]}
    assert letters(course(sizes, days=days, new_targets=more, symptoms={70: True})) == ["iUPD", "iCPD", "iCPD"]
    assert letters(course(sizes, days=days, new_targets=more)) == ["iUPD", "iUPD", "iCPD"]
    growth = {"L1": [12, 30, 12]}
    assert letters(course(sizes, days=days, new_targets=growth, symptoms={70: True})) == ["iUPD", "iUPD", "iUPD"]


@pytest.mark.parametrize(
    ("tolerance", "interval", "letter"), [(0, 27, "iUPD"), (0, 28, "iCPD"), (2, 26, "iCPD"), (2, 25, "iUPD")]
)
def test_the_tolerance_of_the_protocol(tolerance, interval, letter):
    patient = course([50.0, 70.0, 80.0], days=[0, 56, 56 + interval])
    assert letters(patient, IrecistSettings(tolerance_days=tolerance)) == ["iUPD", letter]


@needs_vectors
def test_reappearance_is_progression_only_after_an_overall_complete_response():
    assert "eortc-reappearance" in EORTC
    assert [visit.overall for visit in assess_recist(course([20.0, 0, 3]))] == ["CR", "PD"]
    with_non_target = course([20.0, 0, 3], non_target=["present", "present"])
    assert [visit.overall for visit in assess_recist(with_non_target)] == ["PR", "PR"]
    assert [visit.overall for visit in assess_recist(course([20.0, 0, 5], non_target=["present", "present"]))] == [
        "PR",
        "PD",
    ]
    node = course([20.0, 8, 9.9, 10], node=True)
    assert [visit.overall for visit in assess_recist(node)] == ["CR", "CR", "PD"]


@needs_vectors
def test_too_small_to_measure_is_5_mm_unless_it_was_measured():
    assert "eortc-too-small" in EORTC
    assert Measurement("P", 56, "T", "target", status="too small").size_tenths == 50
    assert Measurement("P", 56, "T", "target", long_mm=3.4, status="too small").size_tenths == 34
    assert Measurement("P", 56, "T", "target", node=True, long_mm=9, short_mm=4.0, status="too small").size_tenths == 40


STEP = {  # how a visit shows each response of the table: target size against a baseline of 100 mm, non-target status
    "iCR": 0.0, "iPR": 50.0, "iSD": 90.0, "iUPD": 130.0,
}  # fmt: skip
NON_TARGET = {"iCR": "absent", "NON-iCR/NON-iUPD": "present", "iUPD": "progressed"}


@needs_vectors
def test_table_2_row_by_row():
    with (CRITERIA / "irecist_table2_timepoint.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 10
    checked = 0
    for row in table[:4]:
        sizes = [100.0, *([STEP[row["target"].split(" ")[0]]] * 2)]
        non_target = NON_TARGET[row["nontarget"].split(" ")[0]]
        # Without an earlier iUPD, and after one that was driven by the targets.
        assert letters(course(sizes[:2], non_target=[non_target])) == [row["no_previous_iUPD"]]
        after = course([100.0, 130.0, sizes[1]], non_target=["present", non_target])
        assert letters(after) == ["iUPD", row["previous_iUPD_default"]]
        checked += 1
    assert checked == 4

    # iUPD in targets and non-targets, unchanged, with a new lesion: stays iUPD, and confirmed where the new lesion grows.
    for grown, expected in ((12, "iUPD"), (17, "iCPD")):
        patient = course(
            [100.0, 130.0, 130.0], non_target=["progressed", "progressed"], new_targets={"L1": [12, grown]}
        )
        assert letters(patient) == ["iUPD", expected]
    # Non-target iUPD with targets in SD, PR and CR.
    for size in (90.0, 50.0, 0.0):
        for state, expected in (("progressed", "iUPD"), ("further progressed", "iCPD")):
            assert letters(course([100.0, size, size], non_target=["progressed", state])) == ["iUPD", expected]
    # Target iUPD, non-targets CR or neither: +5 mm confirms, 4.9 mm does not.
    for other in ("absent", "present"):
        for size, expected in ((130.0, "iUPD"), (134.9, "iUPD"), (135.0, "iCPD")):
            assert letters(course([100.0, 130.0, size], non_target=[other, other])) == ["iUPD", expected]
    # Both iUPD without and with new lesions: growth of either confirms.
    for new in (None, {"L1": [12.0, 12.0]}):
        for size, state, expected in (
            (130.0, "progressed", "iUPD"), (135.0, "progressed", "iCPD"), (130.0, "further progressed", "iCPD"),
        ):  # fmt: skip
            patient = course([100.0, 130.0, size], non_target=["progressed", state], new_targets=new)
            assert letters(patient) == ["iUPD", expected]
    # Only a new lesion: it grows, another one comes, or nothing changes.
    for new, expected in (
        ({"L1": [12.0, 12.0]}, "iUPD"), ({"L1": [12.0, 17.0]}, "iCPD"), ({"L1": [12.0, 12.0], "L2": [None, 12.0]}, "iCPD"),
    ):  # fmt: skip
        assert letters(course([100.0, 100.0, 100.0], non_target=["present"] * 2, new_targets=new)) == ["iUPD", expected]


def test_an_unchanged_new_lesion_is_a_setting():
    same = course([100.0, 100.0, 100.0], new_targets={"L1": [12, 12]})
    less = course([100.0, 100.0, 99.0], new_targets={"L1": [12, 12]})
    for choice, expected in (("smaller sum", ("iUPD", "iSD")), ("keep", ("iUPD", "iUPD")), ("reset", ("iSD", "iSD"))):
        chosen = IrecistSettings(stable_new_lesion=choice)
        assert (letters(same, chosen)[-1], letters(less, chosen)[-1]) == expected


def test_the_sum_of_new_targets_grows_from_its_own_nadir_when_another_joins():
    # L1 of 20 mm; L2 of 20 mm joins at visit 3 after the reset: their nadir is 40 mm, so 48 mm are +20 % and 44 mm are not.
    for last, expected in ((28, "iUPD"), (27, "iSD")):
        patient = course(
            [100.0, 100.0, 90.0, 90.0, 80.0, 80.0],
            new_targets={"L1": [20, 20, 20, 20, 20], "L2": [None, None, 20, 20, last]},
        )
        assert letters(patient) == ["iUPD", "iSD", "iUPD", "iSD", expected]


@pytest.mark.parametrize(("short_mm", "expected"), [(9.9, "CR"), (10.0, "NON-CR/NON-PD")])
def test_a_non_target_node_below_10_mm_is_normal(short_mm, expected):
    items = [Measurement("P", 0, "N1", "non-target", "lymph node", True, 20, 12, "present")]
    items.append(Measurement("P", 56, "N1", "non-target", "lymph node", True, 20, short_mm, "present"))
    assert assess_recist(build_course(items))[0].overall == expected


def test_progression_of_another_category_confirms():
    assert letters(course([100.0, 130.0, 130.0], non_target=["present", "progressed"])) == ["iUPD", "iCPD"]
    assert letters(course([100.0, 100.0, 125.0], non_target=["progressed", "progressed"])) == ["iUPD", "iCPD"]
    assert letters(course([100.0, 130.0, 130.0], new_targets={"L1": [None, 12]})) == ["iUPD", "iCPD"]


def test_a_new_lesion_of_a_scan_that_was_too_early_counts_only_if_it_is_still_there():
    def patient(last: float) -> Course:
        return course([100.0, 130.0, 130.0, 130.0], days=[0, 56, 70, 98], new_targets={"L1": [None, 12, last]})

    assert letters(patient(12)) == ["iUPD", "iUPD", "iCPD"]
    assert letters(patient(0)) == ["iUPD", "iUPD", "iUPD"]
    assert letters(patient(0), IrecistSettings(vanished_new_lesion_confirms=True)) == ["iUPD", "iUPD", "iCPD"]


def test_another_non_target_that_progresses_is_further_growth():
    items = [Measurement("P", day, "T1", "target", "liver", False, 50, 40) for day in (0, 56, 112)]
    for day, states in (
        (0, ("present", "present")),
        (56, ("progressed", "present")),
        (112, ("progressed", "progressed")),
    ):
        items += [Measurement("P", day, f"N{index}", "non-target", status=state) for index, state in enumerate(states)]
    assert letters(build_course(items)) == ["iUPD", "iCPD"]
    assert letters(build_course(items), IrecistSettings(other_non_target_confirms=False)) == ["iUPD", "iUPD"]


def test_a_new_lesion_stays_progression_for_recist_unless_set_otherwise():
    patient = course([100.0, 100.0, 100.0], new_targets={"L1": [12, 0]})
    assert [visit.overall for visit in assess_recist(patient)] == ["PD", "PD"]
    loose = assess_recist(patient, RecistSettings(new_lesion_persists=False))
    assert [(visit.overall, visit.new_lesion) for visit in loose] == [("PD", "yes"), ("SD", "no")]


def test_the_choices_of_recist_are_settings():
    sticky = course([100.0, 60.0, 80.0, 75.0])
    assert [visit.overall for visit in assess_recist(sticky)] == ["PR", "PD", "PD"]
    back = course([100.0, 60.0, 80.0, 71.0])
    assert [visit.overall for visit in assess_recist(back)] == ["PR", "PD", "SD"]
    assert [visit.overall for visit in assess_recist(back, RecistSettings(sticky_after_pd=True))] == ["PR", "PD", "PR"]
    from_zero = course([20.0, 0, 6], non_target=["present", "present"])
    assert [visit.overall for visit in assess_recist(from_zero, RecistSettings(zero_nadir_pd=False))] == ["PR", "PR"]


def test_growth_counts_from_the_first_unconfirmed_scan():
    assert letters(course([100.0, 130.0, 134.0, 135.0])) == ["iUPD", "iUPD", "iCPD"]
    dip = course([100.0, 130.0, 126.0, 132.0])
    assert letters(dip) == ["iUPD", "iUPD", "iUPD"]
    assert letters(dip, IrecistSettings(confirmation_reference="lowest")) == ["iUPD", "iUPD", "iCPD"]


def test_a_missing_target_does_not_confirm_but_a_certain_growth_does():
    items = [
        Measurement("P", day, lesion, "target", "liver", False, size, size, "measured" if size else "not evaluated")
        for day, sizes in ((0, (50, 40)), (56, (70, 50)), (112, (80, None)), (168, (70, 56)))
        for lesion, size in zip(("T1", "T2"), sizes, strict=True)
    ]
    assert letters(build_course(items)) == ["iUPD", "NE", "iCPD"]
    certain = [replace(item, long_mm=126.0) if (item.day, item.lesion) == (112, "T1") else item for item in items]
    assert letters(build_course(certain)) == ["iUPD", "iCPD", "iCPD"]


def test_a_lesion_missing_at_the_anchor_is_not_taken_for_growth():
    items = [
        Measurement("P", day, lesion, "target", "liver", False, size, size, "measured" if size else "not evaluated")
        for day, sizes in ((0, (50, 10)), (56, (80, None)), (112, (80, 10)), (168, (85, 10)))
        for lesion, size in zip(("T1", "T2"), sizes, strict=True)
    ]
    assert letters(build_course(items)) == ["iUPD", "iUPD", "iCPD"]


def test_an_equivocal_new_lesion_dates_back_to_its_first_sight():
    def patient(first: str) -> list[Measurement]:
        items = [Measurement("P", day, "T1", "target", "liver", False, 50, 40) for day in (0, 56, 112)]
        items.append(Measurement("P", 56, "L1", "new-non-target", "bone", status="equivocal"))
        items.append(Measurement("P", 112, "L1", "new-non-target", "bone", status=first))
        return items

    confirmed = assess_recist(build_course(patient("present")))
    assert [visit.overall for visit in confirmed] == ["PD", "PD"]
    forward = assess_recist(build_course(patient("present"), backdate_equivocal=False))
    assert [(visit.overall, visit.new_lesion) for visit in forward] == [("SD", "equivocal"), ("PD", "yes")]
    open_question = assess_recist(build_course(patient("absent")))
    assert [(visit.overall, visit.new_lesion) for visit in open_question] == [("SD", "equivocal"), ("SD", "no")]


def test_the_pending_state_says_what_would_confirm_it_and_when():
    visit = assess(course([72.0, 88.0], days=[0, 56]))[0]
    assert visit.rule.startswith("first progression, to be confirmed: target PD: sum 88 mm is +22 % and +16 mm")
    assert "from day 84 to day 112" in visit.confirmation
    assert "target sum of 93 mm or more" in visit.confirmation


# One visit of the alphabet: target size, non-target status, whether a further new lesion comes, what older ones do.
LETTER = st.tuples(
    st.sampled_from([0, 30, 69, 85, 100, 119, 126, 132, 160, None]),
    st.sampled_from(["absent", "present", "progressed", "further progressed", "not evaluated"]),
    st.sampled_from([None, None, "target", "non-target"]),
    st.sampled_from(["same", "grow", "gone", "not evaluated"]),
    st.sampled_from([14, 27, 28, 42, 56, 63]),
    st.booleans(),
)
SEQUENCE = st.lists(LETTER, min_size=1, max_size=5)


def build(sequence) -> Course:
    visits = []
    day = 0
    new: list[NewLesion] = []
    for size, state, more, older, interval, symptoms in sequence:
        day += interval
        updated = []
        for lesion in new:
            if lesion.target:
                now = {"same": lesion.tenths, "grow": (lesion.tenths or 0) + 60, "gone": 0, "not evaluated": None}[
                    older
                ]
                updated.append(replace(lesion, tenths=now, state="not evaluated" if now is None else "measured"))
            else:
                word = {"same": "present", "grow": "progressed", "gone": "absent", "not evaluated": older}[older]
                updated.append(replace(lesion, state=word))
        new = updated
        if more:
            target = more == "target"
            new = [
                *new,
                NewLesion(
                    f"L{len(new) + 1}",
                    "lung",
                    day,
                    target,
                    False,
                    120 if target else None,
                    "measured" if target else "present",
                ),
            ]
        visits.append(
            CourseVisit(
                day,
                (Size("T1", False, None if size is None else 10 * size),),
                (("N1", state),),
                tuple(new),
                symptoms_worse=symptoms,
            )
        )
    return Course("P", (Size("T1", False, 1000),), tuple(visits), True)


LEGAL = {"iCR", "iPR", "iSD", "iUPD", "iCPD", "NE"}
SETTINGS = st.builds(
    IrecistSettings,
    tolerance_days=st.sampled_from([0, 2]),
    stable_new_lesion=st.sampled_from(["smaller sum", "keep", "reset"]),
    missing_new_lesion_is_ne=st.booleans(),
    ne_in_nadir=st.booleans(),
    confirmation_reference=st.sampled_from(["anchor", "lowest"]),
)


@settings(max_examples=600, deadline=None)
@given(SEQUENCE, SETTINGS)
def test_every_sequence_obeys_the_rules_of_the_machine(sequence, chosen):
    patient = build(sequence)
    visits = assess(patient, chosen)
    found = [visit.letter for visit in visits]
    assert set(found) <= LEGAL
    # Never out of iCPD, and never into it without an iUPD that waits.
    if "iCPD" in found:
        first = found.index("iCPD")
        assert set(found[first:]) == {"iCPD"}
        before = [letter for letter in found[:first] if letter != "NE"]
        assert before
        assert before[-1] == "iUPD"
    # iUPD starts with a cause; a pending one says what confirms it; a reset has no cause left.
    pending: IrecistVisit | None = None
    for previous, visit in itertools.pairwise([None, *visits]):
        assert visit is not None
        if visit.letter == "iUPD":
            assert visit.confirmation
            assert visit.anchor is not None
            if previous is None or previous.anchor is None:
                assert visit.causes
                assert visit.anchor.day == visit.day
                pending = visit
            else:
                assert pending is not None
                assert visit.anchor.day == pending.day
        if visit.letter in ("iCR", "iPR", "iSD"):
            assert not visit.causes
            assert visit.anchor is None
        assert visit.rule
    # The best response before iCPD is never worse than any response before it.
    best = best_irecist(found)
    responses = [letter for letter in found if letter in ("iCR", "iPR", "iSD")]
    if responses:
        assert best == min(responses, key=["iCR", "iPR", "iSD"].index)
    day = confirmed_progression_day([(visit.day, visit.letter) for visit in visits])
    assert (day is None) == ("iCPD" not in found)
    if day is not None:
        assert day <= visits[found.index("iCPD")].day
        assert next(visit for visit in visits if visit.day == day).letter == "iUPD"


SEVERITY = {"iCR": 0, "iPR": 1, "iSD": 2, "NE": 2, "iUPD": 3, "iCPD": 4}


@settings(max_examples=400, deadline=None)
@given(SEQUENCE, st.integers(1, 60))
def test_a_larger_tumour_at_the_last_visit_is_never_better(sequence, more):
    size, *rest = sequence[-1]
    if size is None:
        size = 100
    small = [*sequence[:-1], (size, *rest)]
    large = [*sequence[:-1], (size + more, *rest)]
    assert SEVERITY[letters(build(large))[-1]] >= SEVERITY[letters(build(small))[-1]]


@settings(max_examples=300, deadline=None)
@given(SEQUENCE)
def test_an_early_scan_leaves_no_trace(sequence):
    patient = build([(*letter[:5], False) for letter in sequence])
    visits = assess(patient)
    kept = [found for found, judged in zip(patient.visits, visits, strict=True) if judged.used]
    without = assess(replace(patient, visits=tuple(kept)))
    assert [visit.letter for visit in without] == [visit.letter for visit in visits if visit.used]


@settings(max_examples=300, deadline=None)
@given(SEQUENCE)
def test_without_progression_both_criteria_say_the_same(sequence):
    patient = build(sequence)
    pairs = zip(assess(patient), assess_recist(patient), strict=True)
    for immune, plain in pairs:
        if immune.letter == "iUPD":
            assert plain.overall == "PD"
            break
        if immune.letter == "NE":
            break
        assert immune.letter == f"i{plain.overall}"


def test_every_sequence_of_up_to_five_visits_ends_in_a_legal_state():
    # Response, stability, progression, further growth, non-target progression, a new lesion, growth of it, not evaluated.
    alphabet = [
        (50, "present", None, "same"),
        (100, "present", None, "same"),
        (130, "present", None, "same"),
        (136, "present", None, "grow"),
        (100, "progressed", None, "same"),
        (100, "further progressed", None, "same"),
        (100, "present", "target", "same"),
        (None, "present", None, "same"),
    ]
    legal_next = {
        "none": {"iCR", "iPR", "iSD", "iUPD", "NE"},
        "pending": {"iCR", "iPR", "iSD", "iUPD", "iCPD", "NE"},
        "confirmed": {"iCPD"},
    }
    count = 0
    todo = [(IrecistState("none", start_of(build([]))), ())]
    while todo:
        state, sequence = todo.pop()
        for letter in alphabet:
            longer = (*sequence, (*letter, 42, False))
            visit, after = step(state, build(longer).visits[-1])
            assert visit.letter in legal_next[state.state]
            assert (after.state == "confirmed") == (visit.letter == "iCPD")
            assert (after.state == "pending") == (after.anchor is not None)
            if visit.letter == "iUPD":
                assert after.state == "pending"
            elif visit.letter in ("iCR", "iPR", "iSD"):
                assert after.state == "none"
            count += 1
            if len(longer) < 5:
                todo.append((after, longer))
    assert count == 8 + 8**2 + 8**3 + 8**4 + 8**5


def test_the_overall_response_agrees_with_the_letters_of_a_visit():
    for size, state in itertools.product((0, 50, 100, 130), ("absent", "present", "progressed")):
        patient = build([(size, state, None, "same", 56, False)])
        visit = assess_recist(patient)[0]
        assert visit.overall == overall_response(visit.target.letter, visit.non_target, False)
