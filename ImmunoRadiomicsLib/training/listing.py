"""The recipes in words: a list for the terminal and the table of the documentation.

``python -m ImmunoRadiomicsLib.training.listing`` writes ``Docs/RECIPES.md``; a test fails where that was forgotten.
"""

from __future__ import annotations

from pathlib import Path

from ..files import write_text
from ..resources import PACKAGE
from .recipes import FAMILIES, Recipe, learner_titles, load_recipe, recipe_names

_INTRODUCTION = """# Recipes

Every published system that this project rebuilds. A recipe is a data file (`Resources/Recipes/ID.yaml`): `immunoradiomics train TABLE --recipe ID --out BUNDLE`
fits it to your own table, validates it by nested cross-validation, and writes a bundle with its card, report and checklists. No recipe holds weights. Reported
figures are what the publication or the review printed: a target to compare with, never a figure of ours.

`cohort` writes the table (`training.csv`). Where a time point has `pet` (as SUV) or `mr` in study.yaml, the features of lesions are read there too; with
`--narrow-ring` also those of the 2 mm around a lesion. With `--vessels` it traces the vessels around lesions in the lung, and with `--perturbations N` it writes
`stability.csv`. `train --stability stability.csv --min-icc 0.75` leaves out features whose readings in perturbed contours do not agree. `train --harmonise
centre` (or `scanner`, or any column) brings the measurements together by ComBat, fitted to the rows of each fold alone; `validate` applies what was fitted
to rows of the same scanners and takes others as they are.

How figures are computed: the AUC compares pairs of rows inside an outer fold; the calibration slope is that of the logistic regression of the outcome on the
predicted log-odds with an intercept for each outer fold; both in each repeat, then averaged over the repeats. Where a table holds no signal, the slope is one of
noise over noise and its interval is wide: read the interval. Intervals come from drawing patients. Small tables are repeated most: as often as the recipe says, and fewer times above a
million cells in all.

What a table may look like: CSV in UTF-8 (plain or gzip; commas, or semicolons or tabs with decimal commas) or Parquet, a row for each patient or lesion, with `patient`,
a label of 0 and 1 (also yes and no, true and false), and numbers. One class, a single patient of a class, text among numbers, infinite values and those beyond 1e100, times that
are not above 0, survival without an event, two columns of one name, and a column of two values that tells the label of every row where it is known are refused
with the place and the remedy. Left out and said: rows without a label, columns with more than half of their cells empty, constant columns, copies of a column, a
running number of the rows, columns without a name. Taken and said: a single column with an AUC (for survival Harrell's C) of 0.95 or more (was it known before
the outcome?), patients with several rows or the same measurements under two codes (always in one fold; where a recipe is about patients, the row of the largest
lesion stands for each, or without volumes the first), a column `fold` (not used). Other empty cells take the
median of the fitting rows. Texts and known outcomes are no predictors. Fewer than 10 patients
of the smaller class, or fewer than 2 for each variable of a recipe that selects, are refused unless `--force` is given, and fewer than 3 always (2 for `colen2018`).
Where `--label` names another of the questions (`pseudoprogression`, `hyperprogression`, `pneumonitis`, `response`) than the recipe's own, the bundle answers that one.

This page is written by `python -m ImmunoRadiomicsLib.training.listing`.

| Recipe | Endpoint (label) | Images | Model | Measured by us, and what stays yours | Reported |
|---|---|---|---|---|---|
"""


def needs(recipe: Recipe) -> tuple[str, ...]:
    """Return what a recipe needs and what it can use, a line each."""
    lines = [f"{'needs' if group.required else 'can use'}: {group.title}" for group in recipe.features]
    lines += [
        f"{'needs' if column.required else 'can use'}: {column.name} ({column.note})"
        for column in (*recipe.clinical, *recipe.columns)
    ]
    return tuple(lines) or ("uses: every column of the table",)


def outcome(recipe: Recipe) -> str:
    """Return in words the columns that tell the outcome."""
    columns = "time and event" if recipe.task == "survival" else f"{recipe.label} (0 and 1; also label or target)"
    return f"outcome: {columns}, a row for each {recipe.unit}"


def images(recipe: Recipe) -> str:
    """Return the images of a recipe in words."""
    return (
        "; ".join(
            f"{item.modality} at {' + '.join(item.timepoints)}{', ' + item.note if item.note else ''}"
            for item in recipe.images
        )
        or "any"
    )


def recipes_page() -> str:
    """Return the documentation of the shipped recipes as Markdown."""
    recipes = [load_recipe(name) for name in recipe_names()]
    rows = "".join(
        f"| `{item.id}` | {item.endpoint} (`{item.label}`, per {item.unit}) | {images(item)} | {learner_titles(item)}; selection: {item.selection.method} "
        f"| {item.measured} | {item.reported.text} |\n"
        for item in recipes
    )
    families = "".join(f"| {name} | {standard} |\n" for name, standard in FAMILIES.items())
    details = "".join(
        f"\n## {item.id}\n\n{item.title}. {item.publication.citation}. Population: {item.population}.\n\n"
        + "".join(f"- {line}\n" for line in needs(item))
        + "".join(f"- differs: {line}\n" for line in item.differences)
        for item in recipes
    )
    return (
        f"{_INTRODUCTION}{rows}\nFeature families by the image biomarker standard:\n\n| Class of pyradiomics | Family |\n|---|---|\n{families}\n"
        "Features that were not read from the CT begin with `suv_` (PET), `mr_` (MRI) or `fused_` (fused PET-CT). Columns of your own named in the same way, "
        "such as `baseline.core.collage_Entropy`, count as features of the recipe `default`. Gradient entropy (CoLlAGe) is not computed here: its package "
        "collageradiomics has had no release since September 2022.\n" + details
    )


if __name__ == "__main__":
    write_text(Path(PACKAGE).parent / "Docs" / "RECIPES.md", recipes_page())
