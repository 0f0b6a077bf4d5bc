"""A result as FHIR R4B: a bundle with one DiagnosticReport, the measurements of lesions and visits, and the three flags as risk assessments.

Codes are those of the structured report (``dicom.codes``). Everything is `preliminary`: no one has signed it, and it is for research.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis import Analysis, Flag, Lesion, LesionObservation, Visit
from ..errors import MissingDependencyError
from ..files import write_text
from .dicom.codes import (
    PRIVATE_SCHEME,
    category_code,
    code,
    derived_uuid,
    finding_code,
    irecist_code,
    organ_code,
    private,
    recist_code,
    status_code,
)

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    PRIVATE_SCHEME: f"urn:uuid:{derived_uuid('code system')}",
}
_UCUM = "http://unitsofmeasure.org"
_LOINC = "http://loinc.org"
_SIZES = (
    ("long_axis_mm", ("103339001", "SCT", "Long axis"), "mm"),
    ("short_axis_mm", ("103340004", "SCT", "Short axis"), "mm"),
    ("volume_ml", ("118565006", "SCT", "Volume"), "mL"),
)


def write_fhir(analysis: Analysis, path: Path) -> None:
    """Write the bundle of one patient as JSON, checked by the models of FHIR; the file is either whole or absent.

    The patient is named by the code that the study has, and by nothing else.

    Raises
    ------
    MissingDependencyError
        If fhir.resources or pydicom, which holds the codes, is not installed.
    """
    try:
        import pydicom  # noqa: F401
        from fhir.resources.R4B.bundle import Bundle
    except ImportError as error:
        raise MissingDependencyError(
            "FHIR export needs fhir.resources and pydicom. Install them: pip install 'immunoradiomics[fhir]'"
        ) from error
    bundle = Bundle.model_validate(
        {
            "resourceType": "Bundle",
            "type": "collection",
            "timestamp": analysis.provenance.created,
            "entry": [
                {"fullUrl": f"urn:uuid:{place}", "resource": resource} for place, resource in _resources(analysis)
            ],
        }
    )
    write_text(path, bundle.model_dump_json(indent=1) + "\n")


def _resources(analysis: Analysis) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every resource with the UUID that it always has: the patient, the measurements, the report, the flags."""
    patient = _place(analysis, "patient")
    yield patient, {"resourceType": "Patient", "identifier": [{"value": analysis.patient}]}
    subject = {"reference": f"urn:uuid:{patient}"}
    dates = {item.name: item.date for item in analysis.timepoints}
    measured: list[str] = []
    for lesion in analysis.lesions:
        for seen in lesion.observations:
            place = _place(analysis, "lesion", lesion.id, seen.timepoint)
            measured.append(place)
            yield place, _observation(_of_lesion(lesion, seen), subject, dates[seen.timepoint])
    for visit in analysis.response.visits:
        place = _place(analysis, "visit", visit.timepoint)
        measured.append(place)
        yield place, _observation(_of_visit(visit), subject, dates.get(visit.timepoint))
    report = _place(analysis, "report")
    yield (
        report,
        {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "category": [_term("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
            "code": _term(_LOINC, "18748-4", "Diagnostic imaging study"),
            "subject": subject,
            "effectiveDateTime": analysis.timepoints[-1].date,
            "issued": analysis.provenance.created,
            "result": [{"reference": f"urn:uuid:{place}"} for place in measured],
            "conclusion": f"{analysis.research_use_only} {analysis.response.narrative}".strip(),
        },
    )
    for flag in analysis.flags:
        yield _place(analysis, "flag", flag.flag), _risk(analysis, flag, subject, report)


def _place(analysis: Analysis, *words: str) -> str:
    return derived_uuid("fhir", analysis.patient, analysis.provenance.run_sha256, *words)


def _observation(content: dict[str, Any], subject: dict[str, str], date: str | None) -> dict[str, Any]:
    start = {"resourceType": "Observation", "status": "preliminary", "subject": subject}
    return {**start, **({"effectiveDateTime": date} if date else {}), **content}


def _of_lesion(lesion: Lesion, seen: LesionObservation) -> dict[str, Any]:
    """Return one lesion at one time point: sizes as components, and what it is in the response criteria."""
    organ = organ_code(lesion.organ)
    parts = [
        {"code": _coded(code(*name)), "valueQuantity": _quantity(value, unit)}
        for attribute, name, unit in _SIZES
        if (value := getattr(seen, attribute)) is not None
    ]
    parts.append(
        {
            "code": _coded(private("STATUS", "Status of a lesion")),
            "valueCodeableConcept": _coded(status_code(seen.status)),
        }
    )
    if lesion.role in ("target", "non-target", "new-target", "new-non-target"):
        category = {"text": "Category in the response criteria"}
        parts.append({"code": category, "valueCodeableConcept": _coded(category_code(lesion.role))})
    return {
        "identifier": [{"value": lesion.id}],
        "code": _coded(finding_code(node=lesion.node)),
        "bodySite": _coded(organ) if organ else {"text": lesion.organ},
        "component": parts,
    }


def _of_visit(visit: Visit) -> dict[str, Any]:
    """Return the response at one visit, with the sum of diameters that it rests on."""
    parts: list[dict[str, Any]] = []
    if visit.sum_mm is not None:
        parts.append(
            {
                "code": _coded(private("SUM", "Sum of target diameters")),
                "valueQuantity": _quantity(visit.sum_mm, "mm"),
            }
        )
    for name, meaning, word, found in (
        ("RECIST11", "Overall response by RECIST 1.1", visit.recist, recist_code(visit.recist)),
        ("IRECIST", "Overall response by iRECIST", visit.irecist, irecist_code(visit.irecist)),
    ):
        value = _coded(found) if found else {"text": word or "not assessed"}
        parts.append({"code": _coded(private(name, meaning)), "valueCodeableConcept": value})
    return {
        "code": {"text": "Response to treatment"},
        "component": parts,
        **({"note": [{"text": visit.rule}]} if visit.rule else {}),
    }


def _risk(analysis: Analysis, flag: Flag, subject: dict[str, str], report: str) -> dict[str, Any]:
    """Return one of the three answers; without a probability where it is not assessable."""
    interval = (
        f" Central 90 % of the probability: {flag.lower:.3f} to {flag.upper:.3f}."
        if flag.lower is not None and flag.upper is not None
        else ""
    )
    prediction: dict[str, Any] = {
        "outcome": {"text": flag.flag},
        "qualitativeRisk": {"text": flag.level},
        "rationale": f"{flag.reason}{interval}".strip(),
    }
    if flag.probability is not None:
        prediction["probabilityDecimal"] = flag.probability
    notes = (analysis.research_use_only, flag.question, f"Applicability: {flag.applicability}.")
    return {
        "resourceType": "RiskAssessment",
        "status": "preliminary",
        "subject": subject,
        "occurrenceDateTime": analysis.timepoints[-1].date,
        "method": {"text": f"{flag.bundle} {flag.bundle_version}"},
        "basis": [{"reference": f"urn:uuid:{report}"}],
        "prediction": [prediction],
        "note": [{"text": text} for text in notes],
    }


def _term(system: str, value: str, meaning: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": value, "display": meaning}], "text": meaning}


def _coded(found: Code) -> dict[str, Any]:
    return _term(_SYSTEMS[found.scheme_designator], found.value, found.meaning)


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": _UCUM, "code": unit}
