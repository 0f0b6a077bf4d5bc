"""The bundle of FHIR resources: valid by the models of FHIR, linked up, and saying what the result says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import example_analysis

from ImmunoRadiomicsLib.errors import MissingDependencyError
from ImmunoRadiomicsLib.report.fhir import write_fhir

bundles = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, dict[str, Any]]:
    write_fhir(example_analysis(), tmp_path / "fhir.json")
    text = (tmp_path / "fhir.json").read_text(encoding="utf-8")
    bundles.Bundle.model_validate_json(text)
    content = json.loads(text)
    assert content["type"] == "collection"
    return {item["fullUrl"]: item["resource"] for item in content["entry"]}


def of_kind(entries: dict[str, dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in entries.values() if item["resourceType"] == kind]


def references(content: Any) -> list[str]:
    if isinstance(content, dict):
        own = [content["reference"]] if "reference" in content else []
        return own + [name for item in content.values() for name in references(item)]
    return [name for item in content for name in references(item)] if isinstance(content, list) else []


def test_every_reference_leads_to_an_entry(entries: dict[str, dict[str, Any]]) -> None:
    (report,) = of_kind(entries, "DiagnosticReport")
    named = [name for item in entries.values() for name in references(item)]
    assert set(named) <= set(entries)
    assert {item["reference"] for item in report["result"]} == {
        name for name, item in entries.items() if item["resourceType"] == "Observation"
    }
    assert report["status"] == "preliminary"
    assert example_analysis().research_use_only in report["conclusion"]
    assert example_analysis().response.narrative in report["conclusion"]


def test_lesions_have_their_sizes_and_visits_their_response(entries: dict[str, dict[str, Any]]) -> None:
    analysis = example_analysis()
    dates = {item.name: item.date for item in analysis.timepoints}
    found = {
        (item["identifier"][0]["value"], item["effectiveDateTime"]): item
        for item in of_kind(entries, "Observation")
        if "identifier" in item
    }
    assert len(found) == sum(len(lesion.observations) for lesion in analysis.lesions)
    for lesion in analysis.lesions:
        for seen in lesion.observations:
            parts = {
                part["code"]["text"]: part["valueQuantity"]
                for part in found[lesion.id, dates[seen.timepoint]]["component"]
                if "valueQuantity" in part
            }
            sizes = {"Long axis": seen.long_axis_mm, "Short axis": seen.short_axis_mm, "Volume": seen.volume_ml}
            assert {name: float(part["value"]) for name, part in parts.items()} == {
                name: pytest.approx(size) for name, size in sizes.items() if size is not None
            }
            assert all(part["code"] == ("mL" if name == "Volume" else "mm") for name, part in parts.items())
    visits = [item for item in of_kind(entries, "Observation") if "identifier" not in item]
    said = [
        {
            part["code"]["coding"][0]["code"]: part["valueCodeableConcept"]["coding"][0]["code"]
            for part in item["component"]
            if "valueCodeableConcept" in part
        }
        for item in visits
    ]
    assert [item["RECIST11"] for item in said] == [
        {"NON-CR/NON-PD": "NCRNPD"}.get(visit.recist, visit.recist) for visit in analysis.response.visits
    ]
    assert [item["IRECIST"] for item in said] == [visit.irecist.upper() for visit in analysis.response.visits]


def test_flags_are_risks_with_interval_and_limits(entries: dict[str, dict[str, Any]]) -> None:
    for flag, risk in zip(example_analysis().flags, of_kind(entries, "RiskAssessment"), strict=True):
        (prediction,) = risk["prediction"]
        assert prediction["outcome"]["text"] == flag.flag
        assert prediction["qualitativeRisk"]["text"] == flag.level
        if flag.probability is None:
            assert "probabilityDecimal" not in prediction
        else:
            assert float(prediction["probabilityDecimal"]) == pytest.approx(flag.probability)
            assert f"{flag.lower:.3f} to {flag.upper:.3f}" in prediction["rationale"]
        assert any("Research use only" in note["text"] for note in risk["note"])


def test_the_same_result_gives_the_same_bundle_and_another_patient_other_ids(tmp_path: Path) -> None:
    for name, analysis in (
        ("a", example_analysis()),
        ("b", example_analysis()),
        ("c", replace(example_analysis(), patient="another")),
    ):
        write_fhir(analysis, tmp_path / f"{name}.json")
    first, again, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc")
    assert first == again
    assert {item["fullUrl"] for item in first["entry"]}.isdisjoint(item["fullUrl"] for item in other["entry"])


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fhir.resources.R4B.bundle", None)
    with pytest.raises(MissingDependencyError, match=r"fhir\.resources"):
        write_fhir(example_analysis(), tmp_path / "fhir.json")
    assert not (tmp_path / "fhir.json").exists()
