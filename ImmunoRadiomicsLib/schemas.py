"""The JSON Schemas of the files that an analysis writes, made from the objects themselves.

``python -m ImmunoRadiomicsLib.schemas`` writes them to ``Resources/Schemas``; a test fails where that was forgotten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .analysis import Analysis, Provenance, StageResult
from .classifiers.bundles import bundle_schemas
from .resources import resource
from .serialise import json_schema
from .simulation.truth import truth_schema
from .training.assess import Assessment
from .training.recipes import recipe_schema
from .workspace import write_json

_FILES: dict[str, tuple[type, str, str]] = {
    "analysis.schema.json": (Analysis, "analysis.json", "Everything that was found out about one patient."),
    "stage.schema.json": (StageResult, "stage.json", "What is known after a stage that was run alone."),
    "validation.schema.json": (
        Assessment,
        "validation.json",
        "What a training run or an external validation found out.",
    ),
    "provenance.schema.json": (Provenance, "provenance.json", "What made the result, so that it can be made again."),
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return each schema under the name of its file."""
    results = {
        name: json_schema(kind, title=title, description=description)
        for name, (kind, title, description) in _FILES.items()
    }
    return {**results, **bundle_schemas(), **recipe_schema(), "truth.schema.json": truth_schema()}


def write_schemas(folder: Path) -> None:
    """Write every schema into a folder."""
    for name, schema in schemas().items():
        write_json(folder / name, schema)


if __name__ == "__main__":
    write_schemas(resource("Schemas"))
