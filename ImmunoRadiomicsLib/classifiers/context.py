"""Published scores shown beside the flags: they speak of response or survival and answer none of the three questions."""

from __future__ import annotations

import math

from ..analysis import ContextScore
from .case import Case

LORIS_SOURCE = "Chang 2024, Nature Cancer (LORIS)"
# Pan-cancer LORIS: the term of each cancer type.
LORIS_TYPES: dict[str, float] = {
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
# What people write for these types, hyphens as blanks, longest first so that `nsclc` is found before `sclc`. A blank in front
# asks for the beginning of a word: the gallbladder is no bladder, and the adrenal gland no kidney.
_TYPE_WORDS: tuple[tuple[str, str], ...] = (
    ("non small cell", "nsclc"),
    ("nsclc", "nsclc"),
    ("small cell lung", "sclc"),
    ("sclc", "sclc"),
    ("mesothelioma", "mesothelioma"),
    ("melanoma", "melanoma"),
    (" bladder", "bladder"),
    ("urothelial", "bladder"),
    ("breast", "breast"),
    ("colorectal", "colorectal"),
    ("endometrial", "endometrial"),
    ("oesophageal", "oesophageal"),
    ("esophageal", "oesophageal"),
    ("gastric", "gastric"),
    ("head and neck", "head and neck"),
    ("hnscc", "head and neck"),
    ("hepatobiliary", "hepatobiliary"),
    ("hepatocellular", "hepatobiliary"),
    ("ovarian", "ovarian"),
    ("pancreatic", "pancreatic"),
    (" renal", "renal"),
    ("sarcoma", "sarcoma"),
)
ALBUMIN_LIMIT_G_L = 35.0
RMH_SITES = 2
GRIM_NLR = 6.0
LIPI_DNLR = 3.0
NOT_REREAD = "cut-offs known, not read again in the publication"


def loris_pan_cancer(
    *, tmb: float, prior_systemic_therapy: bool, albumin_g_dl: float, nlr: float, age: float, cancer_type: str
) -> float:
    """Return the pan-cancer LORIS, the probability of response (0 to 1).

    Units: TMB in mutations/Mb (capped at 50), albumin in g/dL, neutrophil-lymphocyte ratio capped at 25, age in
    years capped at 85. ``cancer_type`` is a key of ``LORIS_TYPES``; KeyError otherwise. Source: Chang 2024, Nature Cancer.
    """
    score = (
        0.0371 * min(tmb, 50.0)
        - 0.8775 * prior_systemic_therapy
        + 0.5382 * albumin_g_dl
        - 0.033 * min(nlr, 25.0)
        + 0.0049 * min(age, 85.0)
        + LORIS_TYPES[cancer_type]
        - 2.0886
    )
    return 1 / (1 + math.exp(-score))


def loris_nsclc(
    *, tmb: float, pdl1_percent: float, prior_systemic_therapy: bool, albumin_g_dl: float, nlr: float
) -> float:
    """Return the LORIS for non-small-cell lung cancer (0 to 1); units as in ``loris_pan_cancer``, PD-L1 in %."""
    score = (
        0.0353 * min(tmb, 50.0)
        + 0.0111 * pdl1_percent
        - 0.375 * prior_systemic_therapy
        + 0.2924 * albumin_g_dl
        - 0.0103 * min(nlr, 25.0)
        - 1.5593
    )
    return 1 / (1 + math.exp(-score))


def rmh_points(albumin_g_l: float | None, ldh_high: float | None, sites: float | None) -> int | None:
    """Return the Royal Marsden score (0 to 3): albumin < 35 g/L, LDH above its limit, more than 2 sites; None if one is missing."""
    if albumin_g_l is None or ldh_high is None or sites is None:
        return None
    return int(albumin_g_l < ALBUMIN_LIMIT_G_L) + int(ldh_high > 0) + int(sites > RMH_SITES)


def cancer_type(tumour: str | None) -> str | None:
    """Return the LORIS cancer type of a tumour as people write it; None where it is not one of them."""
    text = f" {(tumour or '').lower().replace('-', ' ')}"
    return next((kind for word, kind in _TYPE_WORDS if word in text), None)


def context_scores(case: Case, sites: float | None) -> tuple[ContextScore, ...]:
    """Return LORIS (pan-cancer, and for NSCLC where the tumour is one), RMH, GRIm and LIPI; a missing input is named."""
    scores = [_loris_pan_cancer(case)]
    if case.nsclc:
        scores.append(_loris_nsclc(case))
    return (*scores, _rmh(case, sites), _grim(case), _lipi(case))


def _loris_pan_cancer(case: Case) -> ContextScore:
    clinical = case.study.clinical
    title, identifier = "LORIS, all cancers", "loris-pan-cancer"
    kind = "nsclc" if case.nsclc else cancer_type(case.study.tumour)
    nlr = _ratio(clinical.neutrophils, clinical.lymphocytes)
    lacking = _lacking(
        ("tumour mutational burden", clinical.tmb),
        ("prior systemic therapy", clinical.prior_systemic_therapy),
        ("albumin", clinical.albumin_g_l),
        ("neutrophils and lymphocytes", nlr),
        ("age", clinical.age),
        ("a tumour that the score knows", kind),
    )
    if (
        clinical.tmb is None
        or clinical.prior_systemic_therapy is None
        or clinical.albumin_g_l is None
        or nlr is None
        or clinical.age is None
        or kind is None
    ):
        return _unavailable(identifier, title, lacking, LORIS_SOURCE)
    value = loris_pan_cancer(
        tmb=clinical.tmb,
        prior_systemic_therapy=clinical.prior_systemic_therapy,
        albumin_g_dl=clinical.albumin_g_l / 10,
        nlr=nlr,
        age=clinical.age,
        cancer_type=kind,
    )
    reading = f"{100 * value:.0f} % probability of response"
    return ContextScore(
        identifier, title, value, reading, "speaks of response, not of any of the three questions", LORIS_SOURCE
    )


def _loris_nsclc(case: Case) -> ContextScore:
    clinical = case.study.clinical
    title, identifier = "LORIS, non-small-cell lung cancer", "loris-nsclc"
    nlr = _ratio(clinical.neutrophils, clinical.lymphocytes)
    lacking = _lacking(
        ("tumour mutational burden", clinical.tmb),
        ("PD-L1", clinical.pdl1_percent),
        ("prior systemic therapy", clinical.prior_systemic_therapy),
        ("albumin", clinical.albumin_g_l),
        ("neutrophils and lymphocytes", nlr),
    )
    if (
        clinical.tmb is None
        or clinical.pdl1_percent is None
        or clinical.prior_systemic_therapy is None
        or clinical.albumin_g_l is None
        or nlr is None
    ):
        return _unavailable(identifier, title, lacking, LORIS_SOURCE)
    value = loris_nsclc(
        tmb=clinical.tmb,
        pdl1_percent=clinical.pdl1_percent,
        prior_systemic_therapy=clinical.prior_systemic_therapy,
        albumin_g_dl=clinical.albumin_g_l / 10,
        nlr=nlr,
    )
    reading = f"{100 * value:.0f} % probability of response"
    return ContextScore(
        identifier, title, value, reading, "speaks of response, not of any of the three questions", LORIS_SOURCE
    )


def _rmh(case: Case, sites: float | None) -> ContextScore:
    clinical = case.study.clinical
    high = _ldh_high(case)
    points = rmh_points(clinical.albumin_g_l, high, sites)
    lacking = _lacking(
        ("albumin", clinical.albumin_g_l), ("LDH with its upper limit", high), ("metastatic sites", sites)
    )
    source = f"Royal Marsden Hospital score ({NOT_REREAD})"
    if points is None:
        return _unavailable("rmh", "RMH score", lacking, source)
    reading = "2 or more of 3 points" if points >= 2 else "below 2 of 3 points"
    reason = "albumin < 35 g/L, LDH above the limit, more than 2 sites"
    if clinical.metastatic_sites is None and sites is not None and sites <= RMH_SITES:
        reading = f"at least {points} of 3 points"
        reason += "; sites are counted from the segmented lesions, and there may be more"
    return ContextScore("rmh", "RMH score", float(points), reading, reason, source)


def _grim(case: Case) -> ContextScore:
    clinical = case.study.clinical
    high, nlr = _ldh_high(case), _ratio(clinical.neutrophils, clinical.lymphocytes)
    source = f"Gustave Roussy immune score ({NOT_REREAD})"
    if clinical.albumin_g_l is None or high is None or nlr is None:
        lacking = _lacking(
            ("albumin", clinical.albumin_g_l), ("LDH with its upper limit", high), ("neutrophils and lymphocytes", nlr)
        )
        return _unavailable("grim", "GRIm score", lacking, source)
    points = int(clinical.albumin_g_l < ALBUMIN_LIMIT_G_L) + int(high > 0) + int(nlr > GRIM_NLR)
    reason = "albumin < 35 g/L, LDH above the limit, neutrophil-lymphocyte ratio > 6"
    return ContextScore("grim", "GRIm score", float(points), f"{points} of 3 points", reason, source)


def _lipi(case: Case) -> ContextScore:
    clinical = case.study.clinical
    high = _ldh_high(case)
    others = None
    if clinical.leukocytes is not None and clinical.neutrophils is not None:
        others = clinical.leukocytes - clinical.neutrophils
    ratio = _ratio(clinical.neutrophils, others)
    source = f"Lung immune prognostic index ({NOT_REREAD})"
    if high is None or ratio is None:
        counted = clinical.leukocytes is not None and clinical.neutrophils is not None
        cells = "leukocytes that outnumber the neutrophils" if counted else "leukocytes and neutrophils"
        lacking = _lacking(("LDH with its upper limit", high), (cells, ratio))
        return _unavailable("lipi", "LIPI", lacking, source)
    points = int(ratio > LIPI_DNLR) + int(high > 0)
    reading = ("good", "intermediate", "poor")[points]
    reason = "neutrophils / (leukocytes - neutrophils) > 3, LDH above the limit"
    return ContextScore("lipi", "LIPI", float(points), f"{points} of 2 points, {reading}", reason, source)


def _ldh_high(case: Case) -> float | None:
    clinical = case.study.clinical
    if clinical.ldh is None or clinical.ldh_uln is None:
        return None
    return float(clinical.ldh > clinical.ldh_uln)


def _ratio(upper: float | None, lower: float | None) -> float | None:
    if upper is None or lower is None or lower <= 0:
        return None
    return upper / lower


def _lacking(*items: tuple[str, object]) -> tuple[str, ...]:
    return tuple(name for name, value in items if value is None)


def _unavailable(identifier: str, title: str, lacking: tuple[str, ...], source: str) -> ContextScore:
    return ContextScore(identifier, title, None, "not assessable", f"not known: {', '.join(lacking)}", source)
