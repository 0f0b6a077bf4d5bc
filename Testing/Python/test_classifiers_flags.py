"""The three flags on patients whose answer is known, and patients on whom no plain answer may be given."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from classifier_cases import case, lesion, lung_change, lungs, response, study, timepoints, visit
from scipy.special import expit, logit

from ImmunoRadiomicsLib.analysis import AlignmentQuality, AlignmentRecord, Features, Flag, TimepointRecord
from ImmunoRadiomicsLib.classifiers import assess
from ImmunoRadiomicsLib.classifiers.pneumonitis import extent_class
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.study import Acquisition


def flags(**changes: Any) -> tuple[Flag, Flag, Flag]:
    facts = case(**changes)
    return assess(facts.pop("study"), **facts)[0]


def pseudo(**changes: Any) -> Flag:
    return flags(**changes)[0]


def hyper(**changes: Any) -> Flag:
    return flags(**changes)[1]


def pneumonitis(**changes: Any) -> Flag:
    return flags(**changes)[2]


def used(flag: Flag) -> dict[str, float]:
    return {item.name: item.log_odds for item in flag.evidence if item.use == "used"}


def test_order_and_completeness() -> None:
    answers = flags()
    assert [item.flag for item in answers] == ["pseudoprogression", "hyperprogression", "pneumonitis"]
    for item in answers:
        assert item.status == "assessed"
        assert item.applicability == "applicable", item.reason
        assert item.bundle == f"{item.flag}-evidence"
        assert item.bundle_version == "1.0.0"
        assert item.prior is not None
        assert item.probability is not None
        assert item.lower is not None
        assert item.upper is not None
        assert item.prior_lower is not None
        assert item.prior_upper is not None
        assert item.prior_lower <= item.prior <= item.prior_upper
        assert item.lower < item.probability < item.upper
        assert item.prior_source
        assert item.reason.endswith(".")
        assert item.counterfactuals
        assert all(piece.source for piece in item.evidence)
        total = logit(item.prior) + sum(piece.log_odds for piece in item.evidence)
        assert item.probability == pytest.approx(expit(total), abs=1e-9)
        assert all(piece.log_odds == 0 for piece in item.evidence if piece.use != "used")


def test_the_same_patient_and_seed_give_the_same_answer() -> None:
    assert flags() == flags()
    assert pseudo(seed=1).lower != pseudo(seed=2).lower
    assert pseudo(seed=1).probability == pseudo(seed=2).probability


# Pseudoprogression.


def test_more_growth_is_less_pseudoprogression() -> None:
    chances = [pseudo(lesions=(lesion("L1", (30.0, size)),)).probability for size in (36.0, 40.0, 45.0, 52.5, 80.0)]
    assert chances[:4] == sorted(chances[:4], reverse=True)
    assert len(set(chances[:4])) == 4
    # Beyond +75 % the data tell no difference.
    assert chances[3] == pytest.approx(chances[4])


def test_growth_counts_over_the_nadir_and_shrinkage_before_it() -> None:
    facts = {
        "study": study(visits=2),
        "timepoints": timepoints(2),
        "response": response(visit(recist="PR", irecist="iPR"), visit("followup-2")),
        "lesions": (lesion("L1", (60.0, 30.0, 42.0)),),
        "alignments": tuple(
            AlignmentRecord(name, "baseline", "greedy", AlignmentQuality("good", ()))
            for name in ("followup-1", "followup-2")
        ),
        "lung_changes": (lung_change(), dataclasses.replace(lung_change(), timepoint="followup-2")),
    }
    answer = pseudo(**facts)
    assert "30.0 to 42.0 mm (+40 %)" in answer.reason
    shrinkage = next(item for item in answer.evidence if item.name == "Shrinkage before the growth")
    assert shrinkage.value == "-50 % at the nadir"
    assert shrinkage.log_odds > 0
    days = next(item for item in answer.evidence if item.name == "Time since the start of treatment")
    assert days.value == "99 days since the start of treatment"


def test_melanoma_has_its_own_prior() -> None:
    assert pseudo().prior == 0.15
    answer = pseudo(study=study(tumour="melanoma"))
    assert answer.prior == 0.179
    assert "KEYNOTE-002" in answer.prior_source
    assert any("28 %" in item.value for item in answer.evidence)


def test_circulating_tumour_dna_moves_the_answer_and_is_doubted_outside_melanoma() -> None:
    favourable, unfavourable = (pseudo(study=study(ctdna_change=word)) for word in ("favourable", "unfavourable"))
    unknown = pseudo()
    assert favourable.probability > unknown.probability > unfavourable.probability
    assert favourable.applicability == "caution"
    assert pseudo(study=study(tumour="melanoma", ctdna_change="favourable")).applicability == "applicable"


def test_nothing_to_confirm_without_progression() -> None:
    answer = pseudo(response=response(visit(recist="SD", irecist="iSD")))
    assert (answer.status, answer.level, answer.probability, answer.prior) == (
        "not assessable",
        "not assessable",
        None,
        None,
    )
    assert "visit after the baseline shows progression" in answer.reason
    assert "there is no follow-up" in pseudo(response=response(), timepoints=timepoints(0)).reason.lower()
    unmeasured = pseudo(response=response(), timepoints=timepoints(1)).reason.lower()
    assert "no lesion was measured at a follow-up" in unmeasured
    unread = response(visit(recist="NE", irecist="NE", target="", non_target=""))
    assert "no lesion was measured at a follow-up" in pseudo(response=unread, timepoints=timepoints(1)).reason.lower()


def test_a_new_lesion_alone_leaves_the_prior() -> None:
    answer = pseudo(response=response(visit(target="SD", new_lesion="yes")))
    assert answer.status == "not assessable"
    assert answer.probability is None
    assert (answer.prior, answer.prior_lower, answer.prior_upper) == (0.15, 0.08, 0.26)
    assert "a new lesion alone" in answer.reason
    assert "15 % (8 % to 26 %)" in answer.reason


def test_a_new_lesion_beside_growth_is_a_doubt() -> None:
    answer = pseudo(response=response(visit(new_lesion="yes")))
    assert answer.status == "assessed"
    assert answer.applicability == "caution"
    assert "new lesion too" in answer.reason


def test_judged_non_target_progression_leaves_the_prior_and_measured_does_not() -> None:
    judged = visit(target="SD", non_target="PD")
    assert "judged and not measured" in pseudo(response=response(judged)).reason
    grown = (lesion("L1", (30.0, 31.0)), lesion("N2", (18.0, 30.0), role="non-target"))
    answer = pseudo(response=response(judged), lesions=grown)
    assert answer.status == "assessed"
    assert "N2 18.0 to 30.0 mm" in answer.reason
    assert "L1" not in answer.reason


def test_a_sum_that_progresses_by_small_growths_is_carried_by_all_that_grew() -> None:
    grown = (lesion("L1", (24.0, 28.5)), lesion("L2", (23.0, 27.8)), lesion("L3", (20.0, 19.0)))
    answer = pseudo(lesions=grown)
    assert answer.status == "assessed"
    assert "L1 24.0 to 28.5" in answer.reason
    assert "L2" in answer.reason
    assert "L3" not in answer.reason


def test_a_growing_non_target_lesion_does_not_silence_targets_that_progress_by_their_sum() -> None:
    grown = (
        lesion("L1", (24.0, 28.5)),
        lesion("L2", (23.0, 27.8)),
        lesion("N1", (18.0, 30.0), role="non-target"),
    )
    answer = pseudo(lesions=grown, response=response(visit(non_target="PD")))
    for name in ("L1 24.0 to 28.5", "L2 23.0 to 27.8", "N1 18.0 to 30.0"):
        assert name in answer.reason


def test_a_progression_before_the_treatment_is_none_on_it() -> None:
    answer = pseudo(study=study(start_day=70))
    assert (answer.status, answer.probability, answer.prior) == ("not assessable", None, 0.15)
    assert "day 62) was seen before the treatment began (day 70)" in answer.reason


def test_nodes_are_measured_by_their_short_axis() -> None:
    assert "N1 20.0 to 28.0 mm" in pseudo(lesions=(lesion("N1", (20.0, 28.0), node=True, organ="lymph node"),)).reason


@pytest.mark.parametrize(("label", "irecist"), [("yes", "iSD"), ("no", "iCPD")])
def test_after_a_later_scan_the_label_takes_the_place_of_the_prediction(label: str, irecist: str) -> None:
    recist = "SD" if irecist == "iSD" else "PD"
    answer = pseudo(
        study=study(visits=2),
        timepoints=timepoints(2),
        lesions=(lesion("L1", (30.0, 42.0, 31.0)),),
        response=response(visit(), visit("followup-2", recist=recist, irecist=irecist), label=label),
    )
    assert (answer.status, answer.level, answer.probability) == ("assessed", label, None)
    assert "this is the label, not a prediction" in answer.reason
    assert answer.prior == 0.15
    assert answer.definitions[0].answer == label


def test_a_second_progression_is_said_to_be_open() -> None:
    visits = (visit(), visit("followup-2", recist="SD", irecist="iSD"), visit("followup-3"))
    answer = pseudo(
        study=study(visits=3),
        timepoints=timepoints(3),
        lesions=(lesion("L1", (30.0, 42.0, 31.0, 60.0)),),
        response=response(*visits, label="yes"),
    )
    assert answer.level == "yes"
    assert "followup-3 progresses anew and is not confirmed yet" in answer.reason


def test_an_open_block_is_neither_predicted_nor_labelled() -> None:
    answer = pseudo(
        study=study(visits=2),
        timepoints=timepoints(2),
        lesions=(lesion("L1", (30.0, 42.0, 43.0)),),
        response=response(visit(), visit("followup-2"), label="not assessable"),
    )
    assert answer.status == "not assessable"
    assert "neither confirmed nor cancelled" in answer.reason


def test_a_later_scan_that_could_not_be_evaluated_changes_nothing() -> None:
    answer = pseudo(
        study=study(visits=2),
        timepoints=timepoints(2),
        lesions=(lesion("L1", (30.0, 42.0, None)),),
        response=response(visit(), visit("followup-2", recist="NE", irecist="NE")),
    )
    assert answer.status == "assessed"
    assert answer.probability is not None


# Hyperprogression.


def test_entered_facts_go_before_measured_ones() -> None:
    entered, measured = hyper(), hyper(study=study(metastatic_sites=None, liver_metastases=None))
    sites = {item.name: item for item in entered.evidence}["Metastatic sites"]
    assert sites.value == "3"
    sites = {item.name: item for item in measured.evidence}["Metastatic sites"]
    assert sites.value == "2 (adrenal gland, lung)"
    assert "at least this many" in sites.note
    burden = {item.name: item for item in measured.evidence}["Sum of target diameters"]
    assert burden.value == "50 mm"
    liver = {item.name: item for item in measured.evidence}["Liver metastases"]
    assert liver.use == "missing"
    assert "does not exclude" in liver.note


def test_a_segmented_liver_lesion_is_a_liver_metastasis() -> None:
    lesions = (lesion("L1", (30.0, 42.0)), lesion("H1", (20.0, 20.0), organ="liver", role="non-target"))
    answer = hyper(study=study(liver_metastases=None), lesions=lesions)
    liver = {item.name: item for item in answer.evidence}["Liver metastases"]
    assert (liver.use, liver.value) == ("used", "yes")
    assert liver.log_odds == pytest.approx(0.5 * 0.76 * math.log(3.173), abs=1e-9)


def test_paired_organs_and_lobes_are_one_site() -> None:
    organs = ("left lung", "right upper lobe of lung", "Left adrenal gland", "right adrenal gland", "bone")
    lesions = tuple(lesion(f"L{index}", (20.0, 20.0), organ=organ) for index, organ in enumerate(organs))
    sites = {item.name: item for item in hyper(study=study(metastatic_sites=None), lesions=lesions).evidence}
    assert sites["Metastatic sites"].value == "3 (adrenal gland, bone, lung)"


def test_the_counterfactual_is_the_answer_to_the_changed_patient() -> None:
    answer = hyper()
    normal = hyper(study=study(ldh=200.0))
    line = next(item for item in answer.counterfactuals if item.startswith("with LDH normal"))
    assert normal.probability is not None
    assert line == f"with LDH normal: {100 * normal.probability:.0f} %"


def test_the_surrogate_is_said_and_the_definitions_are_shown() -> None:
    answer = hyper()
    assert "death within 12 weeks, a surrogate for hyperprogression and not hyperprogression itself" in answer.reason
    assert answer.definitions == case()["response"].hyperprogression
    assert "of 1 published definitions, not met: 1" in answer.reason
    assert answer.level in ("unlikely", "indeterminate", "likely")


def test_a_met_definition_is_not_called_unlikely() -> None:
    met = dataclasses.replace(response(visit()).hyperprogression[0], answer="yes")
    answer = hyper(response=dataclasses.replace(response(visit()), hyperprogression=(met,)))
    assert hyper().level == "unlikely"
    assert answer.level == "indeterminate"
    assert answer.probability == hyper().probability
    assert "met: Matos 2020" in answer.reason


def test_definitions_are_as_good_as_the_first_evaluation() -> None:
    carried = (lesion("L1", (30.0, 42.0), source="propagated"),)
    assert "L1 at followup-1: the contour was carried over" in hyper(lesions=carried).reason
    failed = hyper(lesions=carried, alignments=alignment("failed"))
    # The baseline risk does not rest on the follow-up.
    assert (failed.status, failed.applicability) == ("assessed", "caution")
    assert "the alignment of followup-1 is failed" in failed.reason
    open_ = dataclasses.replace(response(visit()).hyperprogression[0], answer="not assessable")
    unread = hyper(
        alignments=alignment("failed"), response=dataclasses.replace(response(visit()), hyperprogression=(open_,))
    )
    assert unread.applicability == "applicable"


def test_a_liver_lesion_against_the_entry_is_a_doubt() -> None:
    lesions = (lesion("L1", (30.0, 42.0)), lesion("H1", (20.0, 20.0), organ="liver"))
    answer = hyper(lesions=lesions)
    assert answer.applicability == "caution"
    assert "H1 lies in the liver" in answer.reason


def test_rmh_is_shown_and_not_added() -> None:
    (rmh,) = [item for item in hyper().evidence if "RMH" in item.name]
    assert (rmh.use, rmh.value, rmh.log_odds) == ("grouped", "2 of 3 points", 0.0)


def test_texture_is_context_without_weight() -> None:
    values: dict[str, float | None] = {
        "original_firstorder_10Percentile": -35.5,
        "original_firstorder_Energy": 1.2e7,
        "original_firstorder_Entropy": 3.9,
    }
    features = (
        Features("baseline", "L2", "core", 900, None, {**values, "original_firstorder_10Percentile": 9.0}),
        Features("baseline", "L1", "core", 2000, None, values),
        Features("followup-1", "L1", "core", 4000, None, {"original_firstorder_10Percentile": 7.0}),
    )
    with_texture, without = hyper(features=features), hyper()
    (texture,) = [item for item in with_texture.evidence if item.name == "Texture of the largest lesion"]
    assert texture.value.startswith("L1: 10th percentile -35.5 (+1.42 per standard deviation), energy 1.2e+07 (-0.94")
    assert (texture.use, texture.log_odds) == ("context", 0.0)
    assert with_texture.probability == without.probability


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tumour": "melanoma"}, "not on melanoma"),
        ({"tumour": None}, "the tumour is not entered"),
        ({"line": 1}, "first line"),
        ({"ecog": 2}, "the risk is higher"),
        ({"metastatic_sites": 14}, "outside 1 to 8"),
    ],
)
def test_a_patient_outside_the_trial_is_a_doubt(changes: dict[str, Any], words: str) -> None:
    answer = hyper(study=study(**changes))
    assert answer.applicability == "caution"
    assert words in answer.reason


def test_an_unusual_combination_is_a_doubt() -> None:
    # Each value is inside its range; together they are rare: eight sites and hardly any burden.
    answer = hyper(
        study=study(metastatic_sites=8),
        lesions=(lesion("L1", (11.0, 16.0)),),
        response=response(visit(baseline_mm=11.0)),
    )
    assert answer.applicability == "caution"
    assert "together are unusual" in answer.reason


def test_hardly_anything_known_is_mostly_the_prior_and_said_so() -> None:
    nothing = study(ecog=None, ldh=None, metastatic_sites=None, liver_metastases=None)
    answer = hyper(study=nothing, lesions=(), response=response())
    assert answer.probability == pytest.approx(answer.prior)
    assert answer.applicability == "caution"
    assert "mostly the prior" in answer.reason
    assert "not known: ECOG performance status" in answer.reason
    known = hyper()
    assert (answer.upper - answer.lower) > (known.upper - known.lower) * 0.9


# Pneumonitis.


def test_setting_chooses_the_prior() -> None:
    assert pneumonitis().prior == 0.16
    assert pneumonitis(study=study(setting="trial")).prior == 0.0279
    mixed = pneumonitis(study=study(setting=None))
    assert 0.0279 < mixed.prior < 0.16
    assert mixed.applicability == "caution"
    assert "setting (trial or real-world) is not entered" in mixed.reason


@pytest.mark.parametrize(
    ("agents", "regimen", "pd1", "combination"),
    [
        (("nivolumab",), None, "PD-1", 0.0),
        ((), "anti-PD-1", "PD-1", 0.0),
        ((), "PD-L1", "PD-L1", 0.0),
        (("atezolizumab",), None, "PD-L1", 0.0),
        (("nivolumab", "ipilimumab"), None, "PD-1", 1.0),
        ((), "PD-1 + CTLA-4", "PD-1", 1.0),
        (("pembrolizumab", "carboplatin"), None, "PD-1", 0.0),
        (("nivolumab",), "nivolumab + ipilimumab", "PD-1", 1.0),
        ((), "Ipilimumab/nivolumab", "PD-1", 1.0),
    ],
)
def test_regimen_and_agents_are_understood(agents: Any, regimen: str | None, pd1: str, combination: float) -> None:
    answer = pneumonitis(study=study(agents=agents, regimen=regimen))
    found = {item.name: item for item in answer.evidence}
    assert found["PD-1 rather than PD-L1 inhibitor"].value == pd1
    assert (found["CTLA-4 inhibitor added to PD-1"].log_odds > 0) == bool(combination)


def test_an_unknown_regimen_is_missing_and_a_doubt() -> None:
    answer = pneumonitis(study=study(agents=(), regimen=None))
    assert {item.name: item.use for item in answer.evidence}["CTLA-4 inhibitor added to PD-1"] == "missing"
    assert "regimen and agents are not entered" in answer.reason


@pytest.mark.parametrize("regimen", ["PD-(L)1 inhibitor", "anti-PD(L)1"])
def test_one_of_pd1_and_pdl1_is_neither_for_sure(regimen: str) -> None:
    name = "PD-1 rather than PD-L1 inhibitor"
    assert {item.name: item.use for item in pneumonitis(study=study(agents=(), regimen=regimen)).evidence}[
        name
    ] == "missing"
    told = pneumonitis(study=study(agents=("atezolizumab",), regimen=regimen))
    assert {item.name: item.value for item in told.evidence}[name] == "PD-L1"


def test_ctla4_beside_pdl1_is_not_called_absent() -> None:
    answer = pneumonitis(study=study(agents=("durvalumab", "tremelimumab"), regimen=None))
    assert {item.name: item.use for item in answer.evidence}["CTLA-4 inhibitor added to PD-1"] == "missing"
    assert answer.applicability == "caution"
    assert "beside one of PD-L1 is not counted" in answer.reason


def test_squamous_is_not_non_squamous() -> None:
    name = "Squamous histology"
    assert used(pneumonitis(study=study(histology="squamous cell carcinoma")))[name] > 0
    assert used(pneumonitis(study=study(histology="non-squamous")))[name] == 0
    assert used(pneumonitis(study=study(histology="NSCLC, nonsquamous")))[name] == 0


def test_emphysema_is_read_from_the_lungs() -> None:
    clean, holes = pneumonitis(), pneumonitis(lungs=(lungs(laa950_percent=3.19),))
    assert logit(holes.probability) - logit(clean.probability) == pytest.approx(0.76 * 3 * math.log(1.227), abs=1e-6)


def test_a_zone_must_be_dense_and_filled_to_count_as_abnormal() -> None:
    def zone(opacity_ml: float, haa: float) -> Flag:
        third = lungs("right-lower", volume_ml=800.0, ground_glass_ml=opacity_ml, consolidation_ml=0.0, haa_percent=haa)
        return pneumonitis(lungs=(lungs(), third))

    name = "Interstitial lung abnormality"
    assert used(zone(100.0, 25.0))[name] > 0
    assert used(zone(100.0, 12.0))[name] == 0
    assert used(zone(30.0, 25.0))[name] == 0
    assert "needs a reader" in zone(100.0, 25.0).reason
    # What a person has read goes before the measurement.
    third = lungs("right-lower", volume_ml=800.0, ground_glass_ml=100.0, haa_percent=25.0)
    read = pneumonitis(study=study(interstitial_lung_abnormality=False), lungs=(lungs(), third))
    assert used(read)[name] == 0


def test_new_opacity_is_given_in_ml_and_extent_and_never_as_a_grade() -> None:
    thirds = (
        lung_change(60.0, 0.0, part="right-lower"),
        lung_change(20.0, 5.0, part="left-lower"),
        lung_change(0.0, 0.0, part="left-upper"),
    )
    found, clean = pneumonitis(lung_changes=(lung_change(80.0, 5.0), *thirds)), pneumonitis()
    (definition,) = found.definitions
    assert definition.answer == "yes"
    assert "80 ml of ground glass and 5 ml of consolidation, 1.8 % of the lungs (extent below 25 %)" in found.reason
    assert "mostly right lower (60 ml) and left lower (25 ml)" in found.reason
    assert "grade 1" not in found.reason.lower()
    assert found.level == "indeterminate"
    assert found.probability == clean.probability
    assert clean.definitions[0].answer == "no"
    assert clean.level == "unlikely"


def test_a_change_that_cannot_be_assessed_is_withheld_with_the_reason() -> None:
    change = lung_change(assessable=False, reason="the lungs hold 31 % less air", new_ground_glass_ml=None)
    answer = pneumonitis(lung_changes=(change,))
    assert answer.definitions[0].answer == "not assessable"
    assert "withheld: the lungs hold 31 % less air" in answer.reason
    assert answer.applicability == "caution"
    assert "could not be compared" in pneumonitis(lung_changes=()).reason


def test_a_comparison_of_lungs_is_as_good_as_their_alignment() -> None:
    answer = pneumonitis(alignments=alignment("usable", "the lungs overlap by 0.91 only"))
    assert answer.applicability == "caution"
    assert "the alignment of followup-1 is usable (the lungs overlap by 0.91 only)" in answer.reason


@pytest.mark.parametrize(
    ("share", "word"), [(0.5, "below 25"), (24.99, "below 25"), (25.0, "25-50"), (50.0, "25-50"), (50.01, "above 50")]
)
def test_extent_classes(share: float, word: str) -> None:
    assert word in extent_class(share)


# Applicability: nobody far outside gets a plain answer.

FAR_OUTSIDE: dict[str, dict[str, Any]] = {
    "child-sized lungs": {"lungs": (lungs(volume_ml=1100.0),)},
    "a child": {"study": study(age=9.0)},
    "10 mm slices": {"timepoints": timepoints(slice_mm=10.0)},
    "MRI in the place of CT": {"lungs": (lungs(mean_hu=210.0, volume_ml=3900.0),)},
    "MRI without lungs": {"lungs": (), "lung_changes": ()},
}


@pytest.mark.parametrize("what", FAR_OUTSIDE)
def test_far_outside_is_never_applicable(what: str) -> None:
    for answer in flags(**FAR_OUTSIDE[what]):
        assert answer.applicability != "applicable", answer.flag
        assert len(answer.reason) > 40


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        ({"agents": (), "regimen": None}, "regimen and agents are not entered"),
        ({"agents": ("docetaxel",), "regimen": "chemotherapy"}, "docetaxel is no inhibitor of PD-1"),
    ],
)
def test_a_treatment_that_is_not_known_to_be_immunotherapy_is_a_doubt(treatment: dict[str, Any], words: str) -> None:
    for answer in flags(study=study(**treatment)):
        assert answer.applicability == "caution"
        assert words in answer.reason


def test_a_follow_up_that_is_no_ct_in_hu_is_a_doubt_for_all() -> None:
    followup = dataclasses.replace(lungs(mean_hu=240.0), timepoint="followup-1")
    for answer in flags(lungs=(lungs(), followup)):
        assert answer.applicability == "caution"
        assert "the lungs of followup-1 have a mean of 240 HU" in answer.reason


def acquired(before: Acquisition, after: Acquisition) -> tuple[TimepointRecord, ...]:
    return tuple(
        dataclasses.replace(record, acquisition=made)
        for record, made in zip(timepoints(), (before, after), strict=True)
    )


def test_another_scanner_setting_at_the_follow_up_is_a_doubt_about_densities() -> None:
    before = Acquisition(kvp=120.0, kernel="B30f", contrast=True, slice_thickness_mm=1.25)
    assert "shifts densities" not in pneumonitis(timepoints=acquired(before, before)).reason
    after = dataclasses.replace(before, kvp=100.0, kernel="B70f", contrast=False)
    answer = pneumonitis(timepoints=acquired(before, after))
    assert answer.applicability == "caution"
    for words in ("tube voltage (100 kV, before: 120 kV)", "kernel (B70f, before: B30f)", "(not given, before: given)"):
        assert words in answer.reason
    assert "shifts densities" not in pneumonitis(timepoints=acquired(before, Acquisition())).reason


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Acquisition(kvp=80.0, kernel="B30f"), "was made at 80 kV"),
        (Acquisition(kvp=120.0, kernel="B70f"), "the sharp kernel B70f"),
        (Acquisition(kernel="LUNG"), "the sharp kernel LUNG"),
    ],
)
def test_a_scanner_setting_that_densities_were_not_studied_with_is_a_doubt(made: Acquisition, words: str) -> None:
    """Both scans are alike, so that nothing but the card speaks against them."""
    answer = pneumonitis(timepoints=acquired(made, made))
    assert answer.applicability == "caution"
    assert words in answer.reason
    usual = Acquisition(kvp=120.0, kernel="Br40d")
    assert pneumonitis(timepoints=acquired(usual, usual)).applicability == "applicable"


def test_a_nominal_thickness_counts_where_slices_overlap() -> None:
    thick = Acquisition(slice_thickness_mm=7.5)
    for answer in flags(timepoints=acquired(thick, thick)):
        assert answer.applicability != "applicable"
        assert "slices of 7.5 mm" in answer.reason


@pytest.mark.parametrize("what", ["a child", "MRI in the place of CT"])
def test_no_probability_is_given_where_the_evidence_cannot_hold(what: str) -> None:
    for answer in flags(**FAR_OUTSIDE[what]):
        assert (answer.status, answer.probability, answer.level) == ("not assessable", None, "not assessable")
        assert (answer.lower, answer.upper) == (None, None)
        assert answer.applicability == "not assessable"


def alignment(verdict: Any, *reasons: str) -> tuple[AlignmentRecord, ...]:
    return (AlignmentRecord("followup-1", "baseline", "greedy", AlignmentQuality(verdict, reasons)),)


def test_alignment_quality_is_a_doubt_and_a_failure_under_propagated_contours_an_end() -> None:
    answer = pseudo(alignments=alignment("usable", "the lungs overlap by 0.91 only"))
    assert answer.applicability == "caution"
    assert "0.91" in answer.reason
    assert pseudo(alignments=alignment("failed")).status == "assessed"
    carried = (lesion("L1", (30.0, 42.0), source="propagated"),)
    assert pseudo(alignments=alignment("failed"), lesions=carried).status == "not assessable"
    assert pseudo(alignments=alignment("good"), lesions=carried).applicability == "caution"
    assert pseudo(alignments=()).applicability == "caution"


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ({"check": "split from a conglomerate"}, "split from a conglomerate"),
        ({"voxels": 12}, "only 12 voxels"),
        ({"mean_hu": 900.0}, "which no tumour has"),
        ({"volume_ml": 400.0}, "do not belong to one compact lesion"),
    ],
)
def test_an_implausible_contour_is_a_doubt(observation: dict[str, Any], words: str) -> None:
    answer = pseudo(lesions=(lesion("L1", (30.0, 42.0), **observation),))
    assert answer.applicability == "caution"
    assert words in answer.reason


def test_the_shipped_arm_is_shown_without_weight_and_named_for_what_it_is() -> None:
    for answer in flags():
        arm = [item for item in answer.evidence if item.name.startswith("Radiomics arm")]
        assert len(arm) == 1, answer.flag
        assert (arm[0].use, arm[0].log_odds) == ("context", 0.0)
        assert "simulation-trained, not for patients" in f"{arm[0].name} {arm[0].note}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("albumin_g_l", 3.6), ("ldh", -5.0), ("ldh", math.nan), ("neutrophils", math.inf), ("pdl1_percent", -1.0)],
)
def test_what_no_patient_has_is_refused_also_from_python(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"clinical.{name} is {value:g}"):
        assess(**case(study=study(**{name: value})))


def test_growth_that_no_lesion_of_the_trials_had_is_said() -> None:
    """+2900 % is a contour of something else, whatever the growth is cut at in the regression."""
    (flag, _, _), _ = assess(**case(lesions=(lesion("L1", (10.0, 300.0)),)))
    assert flag.applicability == "caution"
    assert "L1 grew more than any lesion of the fitting data (10.0 to 300.0 mm (+2900 %))" in flag.reason


def test_a_measure_that_is_no_number_counts_as_missing() -> None:
    (_, _, absent), _ = assess(**case(lungs=()))
    (_, _, flag), _ = assess(**case(lungs=(lungs(laa950_percent=math.nan),)))
    assert flag.probability == absent.probability
    item = next(item for item in flag.evidence if "mphysema" in item.name)
    assert (item.use, item.log_odds) == ("missing", 0.0)
