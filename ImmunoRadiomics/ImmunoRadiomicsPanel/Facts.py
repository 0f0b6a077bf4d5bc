"""The clinical form: which field is which fact of the engine, in which unit, and what is wrong with a value."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from ImmunoRadiomicsLib.study import Clinical

    from .ParameterNode import ImmunoRadiomicsParameterNode

# Fields of the engine's clinical facts by the parameter that holds them: whole numbers, numbers, texts, choices.
WHOLE_NUMBERS = {"ecog": "ecog", "metastatic_sites": "metastaticSites"}
NUMBERS = {
    "age": "age",
    "ldh": "ldh",
    "ldh_uln": "ldhUpperLimit",
    "albumin_g_l": "albumin",
    "neutrophils": "neutrophils",
    "leukocytes": "leukocytes",
    "lymphocytes": "lymphocytes",
    "tmb": "tumorMutationalBurden",
    "pdl1_percent": "pdl1",
}
ANSWERS = {
    "liver_metastases": "liverMetastases",
    "prior_thoracic_rt": "priorThoracicRadiotherapy",
    "prior_radiation_pneumonitis": "priorRadiationPneumonitis",
    "ild": "interstitialLungDisease",
    "interstitial_lung_abnormality": "interstitialLungAbnormality",
    "honeycombing": "honeycombing",
    "ground_glass_attenuation": "groundGlassAttenuation",
    "respiratory_disease": "respiratoryDisease",
    "prior_systemic_therapy": "priorSystemicTherapy",
    "symptoms_worse": "symptomsWorse",
}
CHOICES = {"sex": "sex", "smoking": "smoking", "ctdna_change": "ctdnaChange", "setting": "setting"}


def unitText(field: str) -> str:
    """Return the unit of a number of the form in words, with the usual mistake where there is one."""
    texts = {
        "ecog": _("ECOG performance status"),
        "metastatic_sites": _("number of organs"),
        "age": _("years"),
        "ldh": _("U/L"),
        "ldh_uln": _("U/L"),
        "albumin_g_l": _("g/L; multiply g/dL by 10"),
        "neutrophils": _("10^9/L; divide cells per microliter by 1000"),
        "leukocytes": _("10^9/L; divide cells per microliter by 1000"),
        "lymphocytes": _("10^9/L; divide cells per microliter by 1000"),
        "tmb": _("mutations per megabase"),
        "pdl1_percent": _("%"),
    }
    return texts[field]


def factProblems(parameters: ImmunoRadiomicsParameterNode) -> dict[str, str]:
    """Return what is wrong with the numbers of the form, by the name of the parameter."""
    from ImmunoRadiomicsLib.study import clinical_limits

    limits = clinical_limits()
    problems: dict[str, str] = {}
    values: dict[str, float] = {}
    for field, name in (WHOLE_NUMBERS | NUMBERS).items():
        text = getattr(parameters, name).strip()
        value = whole(text) if field in WHOLE_NUMBERS else number(text)
        if not text:
            continue
        if value is None:
            form = _("{value}: give a whole number, or leave it empty.")
            if field in NUMBERS:
                form = _("{value}: give a number, or leave it empty.")
            problems[name] = form.format(value=text)
            continue
        low, high, _unit = limits[field]
        if low <= value <= high:
            values[field] = value
        else:
            problems[name] = _("{value} is outside {low} to {high} ({unit}).").format(
                value=text, low=f"{low:g}", high=f"{high:g}", unit=unitText(field)
            )
    parts = sum(values.get(field, 0.0) for field in ("neutrophils", "lymphocytes"))
    # Differential and total are rounded apart from each other.
    if "leukocytes" in values and parts > values["leukocytes"] * 1.01:
        problems[NUMBERS["leukocytes"]] = _("Neutrophils and lymphocytes together exceed the leukocytes.")
    return problems


def clinicalFacts(parameters: ImmunoRadiomicsParameterNode) -> Clinical:
    """Return the form as the engine's clinical facts."""
    from ImmunoRadiomicsLib.study import Clinical

    facts: dict[str, Any] = {field: whole(getattr(parameters, name)) for field, name in WHOLE_NUMBERS.items()}
    facts |= {field: number(getattr(parameters, name)) for field, name in NUMBERS.items()}
    answers = {"": None, "yes": True, "no": False}
    facts |= {field: answers[getattr(parameters, name).value] for field, name in ANSWERS.items()}
    facts |= {field: getattr(parameters, name).value or None for field, name in CHOICES.items()}
    facts["histology"] = parameters.histology.strip() or None
    return Clinical(**facts)


def writeFacts(parameters: ImmunoRadiomicsParameterNode, clinical: Clinical) -> None:
    """Fill the form from the engine's clinical facts."""
    for field, name in (WHOLE_NUMBERS | NUMBERS).items():
        value = getattr(clinical, field)
        setattr(parameters, name, "" if value is None else f"{value:g}")
    for field, name in (ANSWERS | CHOICES).items():
        value = getattr(clinical, field)
        word = {None: "", True: "yes", False: "no"}.get(value, value)
        setattr(parameters, name, type(getattr(parameters, name))(word))
    parameters.histology = clinical.histology or ""


def date(text: str) -> datetime.date | None:
    """Return a date (YYYY-MM-DD), None where the text is none."""
    try:
        return datetime.date.fromisoformat(text.strip())
    except ValueError:
        return None


def whole(text: str) -> int | None:
    """Return a whole number, None where the text is none."""
    try:
        return int(text.strip())
    except ValueError:
        return None


def number(text: str) -> float | None:
    """Return a finite number, None where the text is none."""
    try:
        value = float(text.strip())
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
