"""Recipes: how a published system is rebuilt, as data.

A recipe says what is measured, where and when, which clinical columns belong to it, how columns are selected and what is fitted; what the
paper reported, and where the rebuilt system differs from it and why. It never holds weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError, MissingDependencyError
from ..resources import resource
from ..serialise import from_json, json_schema
from .learners import LEARNERS, Kind
from .model import Plan
from .selection import Method
from .table import Table, is_feature

RECIPE_VERSION = "1.0"
DEFAULT_RECIPE = "default"
SCHEMA_FILE = "recipe.schema.json"

Flag = Literal["pseudoprogression", "hyperprogression", "pneumonitis", "response", "survival", "biomarker"]
Modality = Literal["CT", "PET", "MRI", "fused PET-CT"]

# How the name of a feature begins when it was not read from the CT.
MODALITY_PREFIX: dict[Modality, str] = {"CT": "", "PET": "suv_", "MRI": "mr_", "fused PET-CT": "fused_"}

# The feature classes of pyradiomics and the families of the image biomarker standard that they belong to.
FAMILIES = {
    "shape": "morphology",
    "firstorder": "intensity-based statistics and intensity histogram",
    "glcm": "grey level co-occurrence",
    "glrlm": "grey level run length",
    "glszm": "grey level size zone",
    "gldm": "neighbouring grey level dependence",
    "ngtdm": "neighbourhood grey tone difference",
    "vessels": "none (course of the vessels around the lesion)",
}


@dataclass(frozen=True)
class Publication:
    """Where the system was described; ``reference`` is a DOI or the id of the row in the list of systems."""

    citation: str
    reference: str


@dataclass(frozen=True)
class ImageNeed:
    """An image that is needed at some time points."""

    modality: Modality
    timepoints: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class FeatureGroup:
    """Columns that are measured: every combination of time point, region and feature.

    ``timepoints`` are the first parts of column names (`baseline`, `followup-1`, `delta`), ``regions`` the second. ``families`` are keys of
    ``FAMILIES``, read from ``image_types`` (beginnings such as `original` or `wavelet`; `*` for all); ``names`` are single features, which may hold `*`.
    """

    timepoints: tuple[str, ...]
    regions: tuple[str, ...]
    families: tuple[str, ...] = ()
    image_types: tuple[str, ...] = ("*",)
    names: tuple[str, ...] = ()
    modality: Modality = "CT"
    required: bool = True

    @property
    def title(self) -> str:
        """The group in words."""
        what = ", ".join((*self.families, *self.names)) or "all features"
        return f"{self.modality} {' + '.join(self.regions)} at {' + '.join(self.timepoints)}: {what}"

    def matches(self, column: str) -> bool:
        """Say whether a column belongs to the group."""
        parts = column.split(".", 2)
        if len(parts) != 3 or parts[0] not in self.timepoints or parts[1] not in self.regions:
            return False
        prefix = next((item for item in MODALITY_PREFIX.values() if item and parts[2].startswith(item)), "")
        if prefix != MODALITY_PREFIX[self.modality]:
            return False
        name = parts[2].removeprefix(prefix)
        if any(fnmatchcase(name, pattern) for pattern in self.names):
            return True
        image, _, rest = name.partition("_")
        family = image if image == "vessels" else rest.partition("_")[0]
        if family not in self.families:
            return False
        return family == "vessels" or any(fnmatchcase(image, f"{item.rstrip('*')}*") for item in self.image_types)


@dataclass(frozen=True)
class Column:
    """A clinical column of study.yaml or one of the user's own."""

    name: str
    note: str
    required: bool = False


@dataclass(frozen=True)
class Selection:
    """How columns are chosen inside the folds: at most ``count``, after clusters with a rank correlation above ``redundancy`` are thinned."""

    method: Method
    count: int = 10
    redundancy: float = 0.9


@dataclass(frozen=True)
class Scheme:
    """How it is validated: outer and inner folds, and how often the outer folds are drawn anew."""

    outer_folds: int = 5
    inner_folds: int = 5
    repeats: int = 1


@dataclass(frozen=True)
class Reported:
    """What the paper or the review printed; ``value`` is None where the project knows no figure. A target, never a figure of ours."""

    metric: Literal["auc", "c-index", "accuracy", "none"]
    value: float | None
    text: str


@dataclass(frozen=True)
class Recipe:
    """One published system; ``simulated``: for tables of simulated patients, so that what is fitted is not for others."""

    recipe_version: str
    id: str
    version: str
    title: str
    flag: Flag
    endpoint: str
    label: str
    task: Literal["binary", "survival"]
    unit: Literal["patient", "lesion"]
    population: str
    publication: Publication
    images: tuple[ImageNeed, ...]
    features: tuple[FeatureGroup, ...]
    clinical: tuple[Column, ...]
    columns: tuple[Column, ...]
    harmonisation: Literal["none", "combat"]
    selection: Selection
    members: tuple[Kind, ...]
    scheme: Scheme
    reported: Reported
    differences: tuple[str, ...]
    measured: str
    simulated: bool = False

    @property
    def plan(self) -> Plan:
        """What is fitted in each fold."""
        return Plan(
            self.members,
            self.selection.method,
            self.selection.count,
            self.selection.redundancy,
            self.scheme.inner_folds,
        )

    @property
    def takes_everything(self) -> bool:
        """Whether the recipe reads every column that is there, because it names none."""
        return not self.features and not self.columns


@dataclass(frozen=True)
class Fit:
    """Whether a table can run a recipe: the columns that would be used, and what stands against it."""

    recipe: str
    columns: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def recipe_schema() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of a recipe under the name of its file; entries with a default may be left out."""
    schema = json_schema(Recipe, title="recipe", description="How a published system is rebuilt, as data.")
    optional = {
        "ImageNeed": ["note"],
        "FeatureGroup": ["families", "image_types", "names", "modality", "required"],
        "Column": ["required"],
        "Selection": ["count", "redundancy"],
        "Scheme": ["outer_folds", "inner_folds", "repeats"],
        "Recipe": ["simulated"],
    }
    for name, entries in optional.items():
        needed = schema["$defs"][name]["required"]
        schema["$defs"][name]["required"] = [item for item in needed if item not in entries]
    return {SCHEMA_FILE: schema}


def recipe_names() -> tuple[str, ...]:
    """Return the ids of the shipped recipes."""
    return tuple(sorted(path.stem for path in resource("Recipes").glob("*.yaml")))


@lru_cache(maxsize=64)
def load_recipe(name: str | Path) -> Recipe:
    """Load a shipped recipe by its id, or a user's own from a YAML file.

    Raises
    ------
    InputError
        If there is none of that name, or it does not have the form of Resources/Schemas/recipe.schema.json.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError("Recipes need the package PyYAML; pip install PyYAML.") from error
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        if str(name) not in recipe_names():
            raise InputError(
                f"{name}: there is no such recipe. There are: {', '.join(recipe_names())}; or give a YAML file."
            )
        path = resource("Recipes", f"{name}.yaml")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no valid YAML ({' '.join(str(error).split())}).") from error
    if isinstance(data, dict) and data.get("recipe_version") != RECIPE_VERSION:
        raise InputError(
            f"{path}: recipe_version is {data.get('recipe_version')!r}; this software reads {RECIPE_VERSION!r}."
        )
    recipe: Recipe = from_json(Recipe, data, str(path))
    if problems := [f"{path}: {text}" for text in _problems(recipe)]:
        raise InputError(problems)
    return recipe


def _problems(recipe: Recipe) -> list[str]:
    found = []
    if not recipe.members:
        found.append("members names no model.")
    if (recipe.task == "survival") != ("cox" in recipe.members) or (
        "cox" in recipe.members and len(recipe.members) > 1
    ):
        found.append("a survival recipe has the one member cox, and no other recipe has it.")
    if recipe.task == "survival" and recipe.selection.method in ("lasso", "stability"):
        found.append(f"the selection {recipe.selection.method} is for a label of 0 and 1; take univariate or mrmr.")
    for group in recipe.features:
        if unknown := sorted(set(group.families) - set(FAMILIES)):
            found.append(f"{', '.join(unknown)} is no feature family. There are: {', '.join(FAMILIES)}.")
        if not group.families and not group.names:
            found.append(f"the feature group {group.title} names no feature.")
    if not 0 < recipe.selection.redundancy <= 1 or recipe.selection.count < 1:
        found.append("redundancy lies above 0 and at most at 1, count is 1 or more.")
    if min(recipe.scheme.outer_folds, recipe.scheme.inner_folds) < 2 or recipe.scheme.repeats < 1:
        found.append("two folds and one repeat are the least.")
    return found


def fit_columns(recipe: Recipe, header: Sequence[str]) -> Fit:
    """Say which columns of a table a recipe would use, and what it misses."""
    lower = {name.lower(): name for name in header}
    used: list[str] = []
    problems: list[str] = []
    notes: list[str] = []
    for group in recipe.features:
        matching = [name for name in header if group.matches(name)]
        used += matching
        if not matching:
            example = f"{group.timepoints[0]}.{group.regions[0]}.{MODALITY_PREFIX[group.modality]}..."
            (problems if group.required else notes).append(f"no column for {group.title} (such as `{example}`)")
    for column in (*recipe.clinical, *recipe.columns):
        name = lower.get(column.name.lower())
        if name is not None:
            used.append(name)
        else:
            (problems if column.required else notes).append(f"no column `{column.name}` ({column.note})")
    if recipe.takes_everything:
        used = [name for name in header if is_feature(name)] or list(header)
    return Fit(recipe.id, tuple(dict.fromkeys(used)), tuple(problems), tuple(notes))


def recipe_table(recipe: Recipe, table: Table) -> tuple[Table, tuple[str, ...]]:
    """Return the columns of a table that a recipe reads, in one row per patient where the recipe is about patients; and what was done.

    Raises
    ------
    InputError
        If a required column is missing.
    """
    notes: list[str] = []
    if recipe.takes_everything:
        used = (*table.features, *table.clinical)
        own = [name for name in table.columns if name not in used]
        if own:
            notes.append(f"Columns of your own that the recipe does not name were not used: {', '.join(own[:8])}.")
    else:
        fit = fit_columns(recipe, table.columns)
        if fit.problems:
            raise InputError(
                [f"{table.source}: the recipe {recipe.id} cannot run: {problem}." for problem in fit.problems]
            )
        used = fit.columns
        notes += [f"Without it: {note}." for note in fit.notes]
    table = table.take(tuple(dict.fromkeys(used)))
    return (table, tuple(notes)) if recipe.unit == "lesion" else _one_row_per_patient(table, notes)


def _one_row_per_patient(table: Table, notes: list[str]) -> tuple[Table, tuple[str, ...]]:
    """Keep the row of each patient's largest lesion; without volumes, the first row."""
    if len(set(table.patients)) == len(table.patients):
        return table, tuple(notes)
    volume = next(
        (name for name in table.columns if name.endswith("shape_MeshVolume") and name.startswith("baseline.core.")),
        None,
    )
    size = (
        np.zeros(len(table.patients)) if volume is None else np.nan_to_num(table.values[:, table.columns.index(volume)])
    )
    labels: dict[str, set[int]] = {}
    best: dict[str, int] = {}
    for row, patient in enumerate(table.patients):
        labels.setdefault(patient, set()).add(int(table.labels[row]))
        if patient not in best or size[row] > size[best[patient]]:
            best[patient] = row
    if unclear := [name for name, found in labels.items() if len(found) > 1]:
        raise InputError(
            f"{table.source}: {len(unclear)} patients have lesions with different labels ({', '.join(unclear[:5])}), and the recipe is "
            "about patients. Give each patient one label, or take a recipe about lesions."
        )
    notes.append(
        f"{len(table.patients)} rows of {len(best)} patients: "
        + ("the row of the largest lesion" if volume else "the first row, there being no volume,")
        + " stands for the patient."
    )
    return table.rows(np.array(sorted(best.values()))), tuple(notes)


def learner_titles(recipe: Recipe) -> str:
    """Return the models of a recipe in words."""
    return " + ".join(LEARNERS[kind].title for kind in recipe.members)
