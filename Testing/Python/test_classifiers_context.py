"""LORIS against cases worked out by hand from the published formulas, and the point scores at their cut-offs."""

from __future__ import annotations

from typing import Any

import pytest
from classifier_cases import case, lesion, study

from ImmunoRadiomicsLib.analysis import ContextScore
from ImmunoRadiomicsLib.classifiers import assess
from ImmunoRadiomicsLib.classifiers.context import LORIS_TYPES, cancer_type, loris_nsclc, loris_pan_cancer

# TMB, prior therapy, albumin g/dL, NLR, age, type -> LORIS, in decimal arithmetic by hand.
PAN_CANCER = [
    ((8, True, 3.6, 5, 64, "nsclc"), 0.358385),
    ((0, False, 4.0, 2, 50, "melanoma"), 0.558382),
    ((50, False, 4.5, 1.5, 70, "renal"), 0.953775),
    ((120, False, 4.5, 1.5, 70, "renal"), 0.953775),
    ((5, True, 2.5, 25, 85, "pancreatic"), 0.049243),
    ((5, True, 2.5, 80, 99, "pancreatic"), 0.049243),
    ((3.2, False, 4.1, 3.7, 58, "oesophageal"), 0.720882),
    ((14, True, 3.9, 6.2, 71, "bladder"), 0.368951),
    ((2, False, 3.3, 8, 45, "sclc"), 0.429194),
    ((6, False, 4.2, 3, 60, "mesothelioma"), 0.671492),
]
# TMB, PD-L1 %, prior therapy, albumin g/dL, NLR -> LORIS.
NSCLC = [
    ((8, 40, True, 3.6, 5), 0.448493),
    ((0, 0, False, 4.0, 2), 0.398840),
    ((50, 100, False, 4.5, 1.5), 0.931887),
    ((200, 100, False, 4.5, 1.5), 0.931887),
    ((3, 1, True, 2.8, 30), 0.221649),
    ((10, 90, False, 4.1, 4), 0.721184),
]


@pytest.mark.parametrize(("inputs", "expected"), PAN_CANCER)
def test_pan_cancer_loris(inputs: tuple[Any, ...], expected: float) -> None:
    tmb, before, albumin, nlr, age, kind = inputs
    found = loris_pan_cancer(
        tmb=tmb, prior_systemic_therapy=before, albumin_g_dl=albumin, nlr=nlr, age=age, cancer_type=kind
    )
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("inputs", "expected"), NSCLC)
def test_nsclc_loris(inputs: tuple[Any, ...], expected: float) -> None:
    tmb, pdl1, before, albumin, nlr = inputs
    found = loris_nsclc(tmb=tmb, pdl1_percent=pdl1, prior_systemic_therapy=before, albumin_g_dl=albumin, nlr=nlr)
    assert found == pytest.approx(expected, abs=1e-6)


def test_cancer_type_terms() -> None:
    assert LORIS_TYPES == {
        "bladder": -0.3323,
        "breast": -0.3323,
        "colorectal": -0.102,
        "endometrial": -0.0079,
        "oesophageal": 0.55,
        "gastric": 0.2306,
        "head and neck": 0.0678,
        "hepatobiliary": -0.1189,
        "melanoma": -0.0086,
        "mesothelioma": 0.1255,
        "nsclc": 0.0008,
        "ovarian": -0.052,
        "pancreatic": -1.1169,
        "renal": 0.5451,
        "sarcoma": 0.0542,
        "sclc": -0.0033,
    }


@pytest.mark.parametrize(
    ("tumour", "kind"),
    [
        ("NSCLC", "nsclc"),
        ("SCLC", "sclc"),
        ("non-small cell lung cancer", "nsclc"),
        ("small cell lung cancer", "sclc"),
        ("Melanoma, cutaneous", "melanoma"),
        ("urothelial carcinoma", "bladder"),
        ("Non small cell lung cancer", "nsclc"),
        ("muscle-invasive bladder cancer", "bladder"),
        ("clear-cell renal carcinoma", "renal"),
        ("osteosarcoma", "sarcoma"),
        # Neither is the organ whose name it holds.
        ("gallbladder cancer", None),
        ("adrenal carcinoma", None),
        ("thymoma", None),
        (None, None),
    ],
)
def test_cancer_type_of_what_people_write(tumour: str | None, kind: str | None) -> None:
    assert cancer_type(tumour) == kind


def scores(**changes: Any) -> dict[str, ContextScore]:
    facts = case(study=study(**changes))
    return {item.id: item for item in assess(facts.pop("study"), **facts)[1]}


def test_scores_of_a_patient() -> None:
    found = scores(albumin_g_l=36.0, neutrophils=6.0, lymphocytes=1.2, age=64.0)
    assert found["loris-pan-cancer"].value == pytest.approx(0.358385, abs=1e-6)
    assert found["loris-nsclc"].value == pytest.approx(0.448493, abs=1e-6)
    assert "response" in found["loris-nsclc"].reading
    assert all(item.source for item in found.values())
    assert all("not read again" in found[name].source for name in ("rmh", "grim", "lipi"))


@pytest.mark.parametrize(
    ("changes", "rmh", "grim", "lipi"),
    [
        ({"albumin_g_l": 35.0, "ldh": 250.0, "metastatic_sites": 2}, 0, 0, 1),
        ({"albumin_g_l": 34.9, "ldh": 250.0, "metastatic_sites": 2}, 1, 1, 1),
        ({"albumin_g_l": 35.0, "ldh": 250.1, "metastatic_sites": 2}, 1, 1, 2),
        ({"albumin_g_l": 35.0, "ldh": 250.0, "metastatic_sites": 3}, 1, 0, 1),
        ({"albumin_g_l": 30.0, "ldh": 400.0, "metastatic_sites": 5, "lymphocytes": 0.9}, 3, 3, 2),
        # 6.0 / 1.0 is not above 6; 6.0 / (8.0 - 6.0) is not above 3.
        ({"albumin_g_l": 36.0, "ldh": 200.0, "metastatic_sites": 1, "neutrophils": 6.0, "lymphocytes": 1.0}, 0, 0, 0),
    ],
)
def test_point_scores_at_their_cut_offs(changes: dict[str, Any], rmh: int, grim: int, lipi: int) -> None:
    found = scores(**changes)
    assert (found["rmh"].value, found["grim"].value, found["lipi"].value) == (rmh, grim, lipi)


def test_missing_inputs_are_named() -> None:
    found = scores(tmb=None, ldh_uln=None, leukocytes=None, age=None)
    assert found["loris-pan-cancer"].value is None
    assert found["loris-pan-cancer"].reason == "not known: tumour mutational burden, age"
    assert found["loris-nsclc"].reason == "not known: tumour mutational burden"
    assert found["rmh"].reason == "not known: LDH with its upper limit"
    assert found["lipi"].reason == "not known: LDH with its upper limit, leukocytes and neutrophils"
    assert {item.reading for item in found.values()} == {"not assessable"}


def test_cells_that_cannot_be_are_not_called_missing() -> None:
    found = scores(leukocytes=5.0, neutrophils=6.1)
    assert found["lipi"].reason == "not known: leukocytes that outnumber the neutrophils"
    assert found["lipi"].value is None


def test_loris_for_nsclc_is_shown_for_nsclc_only() -> None:
    assert "loris-nsclc" not in scores(tumour="melanoma")
    assert scores(tumour="thymoma")["loris-pan-cancer"].reason == "not known: a tumour that the score knows"
    assert "loris-nsclc" in scores(tumour="lung adenocarcinoma")


def test_sites_are_counted_when_not_entered() -> None:
    facts = case(
        study=study(metastatic_sites=None, albumin_g_l=40.0, ldh=200.0),
        lesions=tuple(lesion(organ, (20.0, 20.0), organ=organ) for organ in ("lung", "liver", "bone")),
    )
    found = {item.id: item for item in assess(facts.pop("study"), **facts)[1]}
    assert found["rmh"].value == 1


def test_few_segmented_organs_do_not_mean_few_sites() -> None:
    facts = case(study=study(metastatic_sites=None, albumin_g_l=30.0, ldh=200.0))
    found = {item.id: item for item in assess(facts.pop("study"), **facts)[1]}
    assert (found["rmh"].value, found["rmh"].reading) == (1, "at least 1 of 3 points")
    assert "there may be more" in found["rmh"].reason
    assert scores(metastatic_sites=2, albumin_g_l=30.0, ldh=200.0)["rmh"].reading == "below 2 of 3 points"
