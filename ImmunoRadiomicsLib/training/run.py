"""Training and validation from a table to a folder: what ``immunoradiomics train`` and ``validate`` do."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from .. import SOURCE_VERSION
from ..classifiers.applicability import FAR_OUT_SHARE
from ..classifiers.bundles import (
    CARD_FILE,
    CARD_VERSION,
    EVIDENCE_FILE,
    Bundle,
    Card,
    Figure,
    InputSpec,
    Source,
    Training,
    Validation,
    load_bundle,
)
from ..classifiers.bundles import Performance as CardPerformance
from ..classifiers.distance import fit_joint_distance
from ..classifiers.trained import TRAINED_VERSION, TrainedMember, TrainedModel, types_of
from ..errors import InputError
from ..files import sha256_of
from ..progress import Progress, part, silent
from ..serialise import to_json
from ..workspace import PROVENANCE_FILE, Workspace, code_fingerprint, fingerprint, write_json
from .assess import (
    ASSESSMENT_VERSION,
    Assessment,
    CentreReport,
    against_reported,
    column_reports,
    compare_with_clinical,
    events_per_variable,
    performance,
    sample_size_note,
    slope_note,
    subgroup_reports,
)
from .checklists import checklists
from .harmonisation import harmonise as harmonise_rows
from .learners import LEARNERS, require_scikit_learn
from .metrics import CurvePoint
from .model import FittedModel
from .nested import (
    Keep,
    bootstrap_optimism,
    discrimination,
    fit_table,
    fold_seed,
    learning_curve,
    leave_one_centre_out,
    nested_validation,
    one_thread_per_call,
    permutation_test,
)
from .page import write_validation_page
from .recipes import (
    DEFAULT_RECIPE,
    Fit,
    Flag,
    Recipe,
    fit_columns,
    learner_titles,
    load_recipe,
    recipe_names,
    recipe_table,
)
from .table import CLINICAL_NAMES, LABEL_NAMES, LEAST_ICC, Table, read_header, read_table, without_unstable

VALIDATION_FILE = "validation.json"
CHECKLIST_FILE = "checklists.json"
REPORT_FILE = "report.html"
VALIDATED_FOLDER = "bundle"
_SKOPS_SCHEMA = "schema.json"
_PLACE_IN_MEMORY = re.compile(r'(?<="__id__": )\d+|(?<=")\d+(?=\.np[yz]")')

# Fewer patients of the smaller class, or fewer of them per variable of a model that selects its variables, and a figure is chance.
FEWEST_EVENTS = 10
FEWEST_EVENTS_PER_VARIABLE = 2.0
# Folds inside folds leave each fit with one of three; what is fitted to those without the event alone has enough with two to test.
_FEWEST_FITTED, _FEWEST_TESTED = 3, 2
# Up to this many cells the slower checks come with every run.
_SMALL_TABLE_CELLS = 30_000
_SMALL_TABLE_BOOTSTRAPS = 20
# Folds drawn anew tell most where rows are few, and cost most where the table is large: repeats are fewer above this many cells in all.
_CELLS_OF_ALL_REPEATS = 1_000_000
# A table of the same kind of patients has one of twenty rows farther out than 95 % of the training rows.
_MOST_UNUSUAL = 0.2


@dataclass(frozen=True)
class Effort:
    """How much is computed beside the nested cross-validation; None: by the size of the table."""

    repeats: int | None = None
    bootstraps: int | None = None
    permutations: int = 0
    learning_curve: bool | None = None

    def settled(self, recipe: Recipe, table: Table) -> Effort:
        """Return it with nothing left open."""
        small = table.values.size <= _SMALL_TABLE_CELLS
        most = max(1, _CELLS_OF_ALL_REPEATS // max(table.values.size, 1))
        return Effort(
            min(recipe.scheme.repeats, most) if self.repeats is None else self.repeats,
            (_SMALL_TABLE_BOOTSTRAPS if small else 0) if self.bootstraps is None else self.bootstraps,
            self.permutations,
            small if self.learning_curve is None else self.learning_curve,
        )


def train(
    table_path: Path,
    out: Path,
    *,
    recipe: str | Recipe = DEFAULT_RECIPE,
    label: str | None = None,
    exclude: Sequence[str] = (),
    harmonise: str | None = None,
    stability: Path | None = None,
    min_icc: float = LEAST_ICC,
    effort: Effort | None = None,
    seed: int = 0,
    jobs: int = 1,
    force: bool = False,
    progress: Progress = silent,
) -> Assessment:
    """Train a recipe on a table, validate it, and write the bundle with its card and report.

    ``out`` appears when everything is done. Finished folds of an interrupted run are taken up by the same call.

    Parameters
    ----------
    harmonise
        The column, such as `centre` or `scanner`, over which ComBat brings measured columns together, fitted inside the folds;
        without it, `centre` where the recipe asks for it.
    stability, min_icc
        A table of `feature` and `icc` (stability.csv of a cohort): measurements of a feature below the limit are left out.

    Raises
    ------
    InputError
        If the recipe or the table is wrong, or there are too few events and ``force`` is not set.
    MissingDependencyError
        If scikit-learn or skops is not installed.
    """
    require_scikit_learn()
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    batch = harmonise or ("centre" if chosen.harmonisation == "combat" else None)
    survival = chosen.task == "survival"
    whole = read_table(
        table_path, label=_label(chosen, table_path, label), survival=survival, exclude=exclude, batch=batch
    )
    steady, filtered = (whole, "") if stability is None else without_unstable(whole, stability, min_icc)
    chosen, other = _for_question(chosen, whole.label)
    try:
        table, notes = recipe_table(chosen, steady)
    except InputError as error:
        raise InputError([*error.problems, *([filtered] if filtered else [])]) from error
    events, variables, ratio = events_per_variable(chosen, table)
    notes = (*whole.notes, *other, *notes, sample_size_note(events, variables, ratio))
    if filtered:
        notes = (*notes, filtered)
    harmonised = "" if batch is None else _harmonise_note(table, batch)
    if harmonised:
        notes = (*notes, harmonised)
    _check_size(chosen, table_path, events, variables, ratio, force)
    effort = (effort or Effort()).settled(chosen, table)
    run = fingerprint(
        code_fingerprint(),
        table.sha256,
        to_json(chosen),
        to_json(effort),
        seed,
        label,
        tuple(exclude),
        table.columns,
        batch,
        filtered,
    )
    with Workspace(out) as workspace:
        workspace.check_inputs([table_path] if stability is None else [table_path, stability])
        if workspace.holds(run):
            return _kept_result(workspace.out)
        keep = _keeper(
            workspace.cache,
            fingerprint(code_fingerprint(), table.sha256, to_json(chosen), seed, label, table.columns, batch),
        )
        result, model = _assess(chosen, table, notes, effort, seed, jobs, keep, part(progress, 0.0, 0.95))
        result = replace(result, harmonisation=harmonised, stability_filter=filtered)
        progress(0.96, "write the bundle")
        _write_bundle(chosen, table, result, model, workspace.result, batch or "")
        lists = checklists(chosen, result)
        write_json(workspace.result / VALIDATION_FILE, to_json(result))
        write_json(workspace.result / CHECKLIST_FILE, to_json(lists))
        write_validation_page(chosen, result, lists, workspace.result / REPORT_FILE)
        load_bundle(workspace.result)
        _write_provenance(workspace, run, table, chosen.id, seed)
        workspace.publish()
    progress(1.0, "done")
    return result


def check_recipes(table_path: Path) -> tuple[Fit, ...]:
    """Say of each shipped recipe whether `train` would run it on a table, with how many columns, and what stands against it.

    Raises
    ------
    InputError
        If the table cannot be read.
    """
    header = read_header(table_path)
    tables: dict[tuple[str | None, bool], Table | InputError] = {}
    found = []
    for name in recipe_names():
        recipe = load_recipe(name)
        fit = fit_columns(recipe, header)
        label, survival = _label(recipe, table_path, None), recipe.task == "survival"
        if (label, survival) not in tables:
            try:
                tables[label, survival] = read_table(table_path, label=label, survival=survival)
            except InputError as error:
                tables[label, survival] = error
        whole = tables[label, survival]
        problems = list(fit.problems)
        if isinstance(whole, InputError):
            problems += whole.problems
        elif not problems:
            try:
                table, _ = recipe_table(recipe, whole)
                fit = replace(fit, columns=table.columns)
                _check_size(recipe, table_path, *events_per_variable(recipe, table), force=False)
            except InputError as error:
                problems += error.problems
        found.append(replace(fit, problems=tuple(problems)))
    return tuple(found)


def validate(
    bundle_path: Path,
    table_path: Path,
    out: Path,
    *,
    label: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Assessment:
    """Apply a trained bundle to a labelled table that it was not fitted to, and write the figures and the report.

    ``out/bundle`` is the same bundle with these figures on its card as the external validation, on which its weight in a flag depends;
    there is none where the table is the one that it was fitted to.

    Raises
    ------
    InputError
        If the bundle is damaged or not of a trained kind, or the table lacks a column that it reads.
    """
    require_scikit_learn()
    bundle = load_bundle(bundle_path)
    if bundle.predictor is None:
        raise InputError(
            f"{bundle_path}: a bundle of kind {bundle.card.kind} was not fitted to a table; give one that `train` wrote."
        )
    model = bundle.predictor.model
    survival = model.outcome == "log hazard"
    table = read_table(
        table_path,
        label=_label_there(table_path, label, model.label),
        survival=survival,
        needed=model.columns,
        batch=model.batch_column or None,
    )
    recipe = _recipe_of(model)
    table, notes = (
        (table, ())
        if model.unit == "lesion"
        else recipe_table(replace(recipe, features=(), columns=(), clinical=()), table)
    )
    table = table.take(model.columns)
    progress(0.1, "predict")
    with one_thread_per_call():
        log_odds = bundle.predictor.log_odds(table.values, table.harmonised_over)
    seen = table.values
    if model.correction is not None and table.batches:
        seen = model.correction(seen, table.batches)
    outside = np.mean((seen < np.array(model.lower)) | (seen > np.array(model.upper)), axis=0, where=~np.isnan(seen))
    far = [name for name, share in zip(model.columns, outside, strict=True) if share > 0.25]
    found = [*table.notes, *notes]
    if model.correction is not None:
        strange = sorted(set(table.batches) - set(model.correction.batches))
        if strange:
            found.append(
                f"Taken as they are, because the model was not fitted to their {model.batch_column}: {', '.join(strange[:5])}."
            )
    if far:
        found.append(
            f"More than a quarter of the rows lie outside the training range in {len(far)} columns, such as {', '.join(far[:5])}."
        )
    if model.distance is not None:
        shares = model.distance.share_farther_out(model.completed(table.values, table.harmonised_over))
        unusual = float(np.mean(shares < FAR_OUT_SHARE))
        if unusual > _MOST_UNUSUAL:
            found.append(
                f"{100 * unusual:.0f} % of the rows lie farther out, all columns together, than 95 % of the training rows: another kind of patient."
            )
    same = any(
        item.reference == f"sha256:{table.sha256}" for item in bundle.card.sources if item.id == "training-table"
    )
    if same:
        found.append(
            "This is the table that the bundle was fitted to: its figures are no external validation and do not go on the card."
        )
    strata = np.zeros((1, table.labels.size), dtype=int)
    with one_thread_per_call():
        figures = performance(log_odds[None, :], table, strata, seed=seed)
        subgroups = subgroup_reports(log_odds[None, :], table, strata, seed=seed)
    centres = tuple(
        CentreReport(name, int(rows.sum()), discrimination(log_odds[rows], table.rows(np.flatnonzero(rows))))
        for name in sorted(set(table.centres))
        if len(set(table.labels[rows := np.array(table.centres) == name].tolist())) == 2
    )
    _, variables, ratio = events_per_variable(recipe, table)
    result = Assessment(
        ASSESSMENT_VERSION, "external", model.recipe, table.source, table.sha256,
        f"The bundle {bundle.card.id} {bundle.card.version}, as it is, on rows that it was not fitted to.",
        int(np.unique(table.groups).size), table.labels.size, int(table.labels.sum()), variables, ratio,
        figures, (figures.discrimination.value,), None, None, None, (), (), centres,
        (), against_reported(recipe, figures), (*found, *filter(None, [slope_note(figures)])), subgroups,
    )  # fmt: skip
    with Workspace(out) as workspace:
        workspace.check_inputs([table_path, bundle_path])
        write_json(workspace.result / VALIDATION_FILE, to_json(result))
        write_validation_page(recipe, result, checklists(recipe, result), workspace.result / REPORT_FILE)
        if not same:
            _write_validated(bundle, table, result, workspace.result / VALIDATED_FOLDER)
        _write_provenance(workspace, fingerprint(table.sha256, to_json(bundle.card), seed), table, model.recipe, seed)
        workspace.publish()
    progress(1.0, "done")
    return result


def _write_validated(bundle: Bundle, table: Table, result: Assessment, folder: Path) -> None:
    """Write the bundle again, with its external validation and the table of that on the card."""
    folder.mkdir()
    for name in bundle.card.sha256:
        shutil.copyfile(bundle.folder / name, folder / name)
    used = Source("external-table", f"{table.source}, {result.patients} patients", f"sha256:{table.sha256}")
    kept = tuple(item for item in bundle.card.sources if item.id != used.id)
    measured = _on_card(result)
    validation = replace(bundle.card.validation, external=measured)
    write_json(folder / CARD_FILE, to_json(replace(bundle.card, sources=(*kept, used), validation=validation)))
    load_bundle(folder)


def _on_card(result: Assessment) -> CardPerformance:
    found, slope, squared = (
        result.performance.discrimination,
        result.performance.calibration_slope,
        result.performance.brier,
    )
    return CardPerformance(
        Figure(found.value, found.lower, found.upper),
        None if slope is None or not np.isfinite(slope.value) else slope.value,
        result.performance.calibration_intercept,
        None if squared is None else squared.value,
        result.scheme if result.performance.metric == "auc" else f"Harrell's C in place of the AUC. {result.scheme}",
    )


def _label(recipe: Recipe, path: Path, label: str | None) -> str | None:
    return None if recipe.task == "survival" else _label_there(path, label, recipe.label)


def _label_there(path: Path, label: str | None, usual: str) -> str | None:
    """Return the label that was asked for, else `label` where the table has it, else the usual name of the endpoint."""
    if label is not None:
        return label
    lower = {name.lower() for name in read_header(path)}
    return None if lower & set(LABEL_NAMES) or usual.lower() not in lower else usual


def _check_size(recipe: Recipe, path: Path, events: int, variables: int, ratio: float, force: bool) -> None:
    problems = []
    if events < FEWEST_EVENTS:
        problems.append(
            f"{path}: the smaller class has {events} patients; below {FEWEST_EVENTS}, no figure means anything."
        )
    if recipe.selection.method != "none" and ratio < FEWEST_EVENTS_PER_VARIABLE:
        problems.append(
            f"{path}: {events} patients in the smaller class for the {variables} variables of {recipe.id} are {ratio:.1f} per variable; at "
            f"least {FEWEST_EVENTS_PER_VARIABLE:g} are needed."
        )
    fewest = _FEWEST_TESTED if recipe.members == ("anomaly",) else _FEWEST_FITTED
    if events < fewest:
        raise InputError(
            f"{path}: the smaller class has {events} patients; folds of {recipe.id} inside folds need {fewest}. Gather more patients."
        )
    if problems and not force:
        raise InputError([*problems, "Gather more patients, or add --force to see what comes out nevertheless."])


def _harmonise_note(table: Table, batch: str) -> str:
    """Return in a sentence what ComBat does to the table; the model does it inside the folds, on fewer rows."""
    places = [index for index, name in enumerate(table.columns) if name in table.features]
    return f"Harmonised over `{batch}` inside the folds. {harmonise_rows(table.values[:, places], table.batches).note}"


def _keeper(folder: Path, key: str) -> Keep:
    """Keep each piece as a JSON file whose name holds what it was made from."""

    def keep(name: str, make: Callable[[], Any]) -> Any:
        path = folder / f"{key[:24]}-{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            value = json.loads(json.dumps(make()))
            write_json(path, value)
            return value

    return keep


def _assess(
    recipe: Recipe,
    table: Table,
    notes: Sequence[str],
    effort: Effort,
    seed: int,
    jobs: int,
    keep: Keep,
    progress: Progress,
) -> tuple[Assessment, FittedModel]:
    plan, outer = recipe.plan, recipe.scheme.outer_folds
    repeats = effort.repeats or 1
    options: dict[str, Any] = {"seed": seed, "jobs": jobs, "keep": keep}
    nested = nested_validation(
        plan, table, outer_folds=outer, repeats=repeats, **options, progress=part(progress, 0.0, 0.5)
    )
    progress(0.5, "fit the final model")
    with one_thread_per_call():
        model = fit_table(plan, table, fold_seed(seed, 9, 9), jobs)
        figures = performance(nested.log_odds, table, nested.fold_of_row, seed=seed)
        subgroups = subgroup_reports(nested.log_odds, table, nested.fold_of_row, seed=seed)
        comparison = compare_with_clinical(nested, table, seed=seed)
        importance = model.importance(table.values, table.harmonised_over)
    if comparison is not None and nested.clinical is not None and figures.decision:
        figures = replace(
            figures, decision=_decision_with_clinical(nested.average(), nested.clinical.mean(axis=0), table)
        )
    centres = leave_one_centre_out(plan, table, **options, progress=part(progress, 0.55, 0.65))
    optimism = None
    if effort.bootstraps:
        optimism = bootstrap_optimism(
            plan, table, model, effort.bootstraps, **options, progress=part(progress, 0.65, 0.8)
        )
    curve: tuple[tuple[int, float], ...] = ()
    if effort.learning_curve:
        curve = learning_curve(plan, table, outer_folds=outer, **options, progress=part(progress, 0.8, 0.87))
    p_value: float | None = None
    shuffled: tuple[float, ...] = ()
    if effort.permutations:
        first = discrimination(nested.log_odds[0], table, nested.fold_of_row[0])
        p_value, shuffled = permutation_test(
            plan, table, first, effort.permutations, outer_folds=outer, **options, progress=part(progress, 0.87, 1.0)
        )
    ratio = events_per_variable(recipe, table)[2]
    count = int(nested.fold_of_row.max()) + 1
    return Assessment(
        assessment_version=ASSESSMENT_VERSION,
        kind="internal",
        recipe=recipe.id,
        table=table.source,
        table_sha256=table.sha256,
        scheme=f"Nested cross-validation, {count} outer and up to {recipe.scheme.inner_folds} inner folds, {'once' if repeats == 1 else f'{repeats} times'}, all rows of a patient in one "
        f"fold; {'harmonisation, ' if table.batches else ''}cleaning, clustering, selection, scaling, settings and recalibration inside the folds; pairs compared, "
        "and the calibration slope measured, inside the folds; figures of repeats averaged.",
        patients=int(np.unique(table.groups).size),
        rows=int(table.labels.size),
        events=int(table.labels.sum()),
        candidates=len(table.columns),
        events_per_variable=ratio,
        performance=figures,
        repeats=tuple(
            discrimination(nested.log_odds[item], table, nested.fold_of_row[item]) for item in range(repeats)
        ),
        comparison=comparison,
        optimism=optimism,
        permutation_p=p_value,
        permutation_figures=shuffled,
        learning_curve=tuple(CurvePoint(float(size), value) for size, value in curve),
        centres=tuple(CentreReport(name, rows, value) for name, (rows, value) in centres.items()),
        columns=column_reports([table.columns[index] for index in model.columns], importance, nested),
        reported=against_reported(recipe, figures),
        notes=(*notes, *filter(None, [slope_note(figures)])),
        subgroups=subgroups,
    ), model


def _decision_with_clinical(model: np.ndarray, clinical: np.ndarray, table: Table) -> tuple[Any, ...]:
    from ..classifiers.trained import probability
    from .metrics import decision_curve

    return decision_curve(probability(model), table.labels, probability(clinical))


def _write_bundle(
    recipe: Recipe, table: Table, result: Assessment, model: FittedModel, folder: Path, batch: str
) -> None:
    """Write model.json, a skops file for each member that is no weighted sum, and the card that names them."""
    names = tuple(table.columns[index] for index in model.columns)
    members, files = [], []
    for number, item in enumerate(model.members):
        linear = isinstance(item.fitted, tuple)
        name = None if linear else f"member-{number}.skops"
        if name is not None:
            _write_estimator(item.fitted, folder / name)
            files.append(name)
        members.append(
            TrainedMember(
                item.kind,
                LEARNERS[item.kind].title,
                item.weight,
                item.intercept,
                item.slope,
                float(item.fitted[1]) if linear else 0.0,
                tuple(float(value) for value in item.fitted[0]) if linear else None,
                name,
            )
        )
    import sklearn

    scaling = model.scaling
    trained = TrainedModel(
        model_version=TRAINED_VERSION,
        recipe=recipe.id,
        recipe_version=recipe.version,
        outcome="log hazard" if recipe.task == "survival" else "probability",
        unit=recipe.unit,
        label=table.label,
        columns=names,
        medians=_floats(scaling.medians),
        lower=_floats(scaling.lower),
        upper=_floats(scaling.upper),
        means=_floats(scaling.means),
        deviations=_floats(scaling.deviations),
        members=tuple(members),
        intercept=model.intercept,
        slope=model.slope,
        scikit_learn=sklearn.__version__,
        batch_column=batch,
        correction=model.correction,
    )
    seen = trained.completed(table.values[:, model.columns], table.harmonised_over)
    trained = replace(trained, distance=fit_joint_distance(seen, table.groups))
    write_json(folder / EVIDENCE_FILE, to_json(trained))
    types = sorted({name for file in files for name in types_of(folder / file)})
    card = _card(
        recipe, table, result, names, model, types, {name: sha256_of(folder / name) for name in (EVIDENCE_FILE, *files)}
    )
    write_json(folder / CARD_FILE, to_json(card))


def _write_estimator(fitted: Any, path: Path) -> None:
    """Write a skops file that is the same for the same model: skops names its parts by their places in memory and dates them."""
    import skops.io

    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], str(len(numbers) + 1))

    with ZipFile(io.BytesIO(skops.io.dumps(fitted))) as made, ZipFile(path, "w", ZIP_DEFLATED, compresslevel=8) as kept:
        schema = _PLACE_IN_MEMORY.sub(number, made.read(_SKOPS_SCHEMA).decode())
        kept.writestr(ZipInfo(_SKOPS_SCHEMA), schema, ZIP_DEFLATED)
        for name in made.namelist():
            if name != _SKOPS_SCHEMA:
                place, _, kind = name.partition(".")
                kept.writestr(ZipInfo(f"{numbers.get(place, place)}.{kind}"), made.read(name), ZIP_DEFLATED)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(item) for item in values)


def _card(
    recipe: Recipe,
    table: Table,
    result: Assessment,
    names: tuple[str, ...],
    model: FittedModel,
    types: list[str],
    hashes: dict[str, str],
) -> Card:
    ranges = {
        name: (float(low), float(high))
        for name, low, high in zip(names, model.scaling.lower, model.scaling.upper, strict=True)
    }
    inputs = tuple(
        InputSpec(
            name, name.replace(".", ", "), "as extracted" if name not in CLINICAL_NAMES else "as in study.yaml", *ranges[name],
            True, "training-table",
        )
        for name in names
    )  # fmt: skip
    return Card(
        card_version=CARD_VERSION,
        id=f"{recipe.id}-trained",
        version=recipe.version,
        title=recipe.title,
        flag=recipe.flag,
        kind="linear" if all(isinstance(item.fitted, tuple) for item in model.members) else "sklearn",
        purpose=f"{recipe.endpoint}: {learner_titles(recipe)}, fitted to {table.source} after {recipe.publication.citation}",
        endpoint=f"`{table.label}`: {recipe.endpoint}",
        population=f"the patients of {table.source}; the publication: {recipe.population}",
        inputs=inputs,
        sources=(
            Source("training-table", f"{table.source}, {result.patients} patients", f"sha256:{table.sha256}"),
            Source("publication", recipe.publication.citation, recipe.publication.reference),
        ),
        training=Training(
            # Events are counted as rows are.
            result.rows if recipe.unit == "lesion" else result.patients,
            result.events,
            f"{result.rows} {f'lesions of {result.patients} patients' if recipe.unit == 'lesion' else 'rows'}, {result.candidates} candidate columns, "
            f"{len(names)} read",
            "training-table",
        ),
        validation=Validation(_on_card(result), None),
        reported=result.reported,
        limits=(
            "Research use only.",
            "Validated inside the table that it was fitted to; run `validate` on the table of another centre before believing it.",
            *result.notes,
            *recipe.differences,
        ),
        licence="that of the table it was fitted to",
        sha256=hashes,
        types=tuple(types),
        simulated=recipe.simulated,
    )


def _for_question(recipe: Recipe, label: str) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe as it answers the question that the label names, and in a sentence that it is another than the recipe's.

    A bundle of hyperprogression that said pseudoprogression on its card would be read in the wrong flag.
    """
    asked: Flag = next((item for item in get_args(Flag) if item == label.lower()), recipe.flag)
    if asked == recipe.flag:
        return recipe, ()
    if recipe.takes_everything:
        return replace(recipe, flag=asked), ()
    note = (
        f"The label `{label}` stands in place of `{recipe.label}` of the recipe {recipe.id}: the bundle answers {asked}, and the reported figure is "
        f"of another outcome unless the publication has this one too."
    )
    endpoint = f"{asked.capitalize()}, with what {recipe.id} reads"
    reported = replace(recipe.reported, metric="none", value=None)
    return replace(recipe, flag=asked, label=label, endpoint=endpoint, reported=reported), (note,)


def _write_provenance(workspace: Workspace, run: str, table: Table, recipe: str, seed: int) -> None:
    write_json(
        workspace.result / PROVENANCE_FILE,
        {
            "software": f"ImmunoRadiomics {SOURCE_VERSION}",
            "run_sha256": run,
            "table": table.source,
            "table_sha256": table.sha256,
            "recipe": recipe,
            "seed": seed,
            "files_sha256": Workspace.files_sha256(workspace.result),
        },
    )


def _kept_result(folder: Path) -> Assessment:
    from ..serialise import from_json

    result: Assessment = from_json(Assessment, json.loads((folder / VALIDATION_FILE).read_text(encoding="utf-8")))
    return result


def _recipe_of(model: TrainedModel) -> Recipe:
    """Return the recipe of a model; for a user's own, which is not at hand, the default one under its name."""
    try:
        return load_recipe(model.recipe)
    except InputError:
        return replace(load_recipe(DEFAULT_RECIPE), id=model.recipe, title=model.recipe, unit=model.unit)
