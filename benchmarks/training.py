"""Measure training: against plain models in the same folds, under shuffled outcomes, every recipe from images to bundle, and time.

    python benchmarks/training.py real TABLE [TABLE ...] [--repeats 10]
    python benchmarks/training.py known TABLE [TABLE ...] [--repeats 2]
    python benchmarks/training.py shuffled [--recipe ID ...] [--draws 20] [--rows 200] [--columns 1000] [--cache DIR]
    python benchmarks/training.py recipes TRAINING.csv --out DIR [--recipe ID ...]
    python benchmarks/training.py time [--rows 1000] [--columns 1500] [--jobs 2]

`real` prints for each table the AUC of the default recipe, of LASSO-logistic regression and of a random forest, inside the same folds, and the
calibration slope of the default recipe; demanded are an AUC no more than 0.01 below both, and a slope from 0.7 to 1.3. `known` does the same with
labels that are made from the columns of the tables, straight, bent and in steps. `shuffled` prints the mean AUC where there is nothing to
find, demanded 0.47 to 0.53, for each model among the recipes: with pairs of rows inside folds, and with pairs over all folds. `recipes` trains every recipe on the table that `cohort` wrote, with labels of the
simulation, and made with a known signal from one of its columns. `time` prints seconds of wall and CPU of the nested 5x5; demanded are 600 on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

# A script's folder comes first on the path, where a neighbour would be taken for a package of the same name.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

from ImmunoRadiomicsLib.classifiers.trained import probability
from ImmunoRadiomicsLib.training import Effort, Recipe, Table, fit_columns, load_recipe, read_table, recipe_names, train
from ImmunoRadiomicsLib.training.metrics import auc, calibration_line
from ImmunoRadiomicsLib.training.nested import discrimination, nested_validation, one_thread_per_call
from ImmunoRadiomicsLib.training.recipes import MODALITY_PREFIX, FeatureGroup
from ImmunoRadiomicsLib.training.selection import imputed, usable_columns

LEAST_GAIN, SLOPES, CHANCE, MOST_SECONDS = -0.01, (0.7, 1.3), (0.47, 0.53), 600


def verdict(met: bool) -> str:
    return "pass" if met else "MISS"


def made_table(rows: int, columns: int, signal: int, seed: int, survival: bool = False) -> Table:
    """A table of correlated noise in which the first ``signal`` columns tell something."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, max(columns // 10, 1)))
    values = 0.7 * hidden[:, rng.integers(hidden.shape[1], size=columns)] + 0.7 * rng.normal(size=(rows, columns))
    score = values[:, :signal].sum(axis=1) / max(signal, 1) ** 0.5 if signal else np.zeros(rows)
    labels = (score + rng.normal(size=rows) > 0.5).astype(int)
    names = tuple(f"baseline.core.original_made_{index}" for index in range(columns))
    patients = tuple(f"P{index}" for index in range(rows))
    followed = rng.exponential(np.exp(-score)) + 0.01 if survival else None
    return Table("made", "", "label", patients, (), (), np.arange(rows), labels, followed, names, values, ())


def plain_models(table: Table, folds: np.ndarray) -> dict[str, float]:
    """Return the AUC of plain models in given folds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    models = {
        "LASSO": LogisticRegression(l1_ratio=1.0, solver="liblinear", random_state=0),
        "forest": RandomForestClassifier(500, random_state=0),
    }
    found: dict[str, float] = {}
    for name, model in models.items():
        values = []
        for fold in folds:
            scores = np.zeros(table.labels.size)
            for number in np.unique(fold):
                seen = fold != number
                fitted = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), model).fit(
                    table.values[seen], table.labels[seen]
                )
                scores[~seen] = fitted.predict_proba(table.values[~seen])[:, 1]
            values.append(auc(scores, table.labels, fold))
        found[name] = float(np.mean(values))
    return found


def compare(name: str, table: Table, repeats: int, jobs: int) -> tuple[bool, bool]:
    """Print one comparison and return whether the demands on the AUC and on the slope are met."""
    nested = nested_validation(load_recipe("default").plan, table, outer_folds=5, repeats=repeats, jobs=jobs)
    rows = list(zip(nested.log_odds, nested.fold_of_row, strict=True))
    own = float(np.mean([auc(scores, table.labels, fold) for scores, fold in rows]))
    slope = float(np.mean([calibration_line(probability(scores), table.labels, fold)[1] for scores, fold in rows]))
    pooled = float(np.mean([calibration_line(probability(scores), table.labels)[1] for scores, _ in rows]))
    with one_thread_per_call(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = plain_models(table, nested.fold_of_row)
    said = ", ".join(f"{model} {value:.3f}" for model, value in others.items())
    gain = own - max(others.values())
    good, right = gain >= LEAST_GAIN, SLOPES[0] <= slope <= SLOPES[1]
    print(
        f"{name} {table.values.shape}: default {own:.3f}, {said}; {gain:+.3f} to the better ({verdict(good)}); slope {slope:.2f} "
        f"({verdict(right)}), {pooled:.2f} with one intercept for all folds",
        flush=True,
    )
    return good, right


def real(options: argparse.Namespace) -> None:
    """Compare on given tables."""
    for path in options.tables:
        compare(path.name, read_table(path), options.repeats, options.jobs)


def known(options: argparse.Namespace) -> None:
    """Compare on labels that are made from the columns of given tables."""
    met = [
        compare(f"{path.name} {kind}", table, options.repeats, options.jobs)
        for number, path in enumerate(options.tables)
        for kind, table in _with_known_labels(read_table(path), number)
    ]
    print(f"AUC met in {sum(good for good, _ in met)}, slope in {sum(right for _, right in met)} of {len(met)}")


def _with_known_labels(table: Table, seed: int) -> Iterator[tuple[str, Table]]:
    kept = usable_columns(table.values)
    values = imputed(table.values[:, kept])
    scaled = (values - np.median(values, axis=0)) / np.maximum(values.std(axis=0), 1e-12)
    scaled = np.clip(scaled, -4, 4)
    for number, (kind, share) in enumerate((("straight", 0.4), ("dense", 0.5), ("bent", 0.4), ("steps", 0.25))):
        rng = np.random.default_rng([seed, number])
        chosen = scaled[:, rng.choice(scaled.shape[1], 4, replace=False)]
        if kind == "straight":
            score = chosen @ rng.normal(size=4)
        elif kind == "dense":
            score = np.linalg.svd(scaled, full_matrices=False)[0][:, :12] @ rng.normal(size=12)
        elif kind == "bent":
            score = np.abs(chosen[:, 0]) - np.abs(chosen[:, 1]) + chosen[:, 2] * chosen[:, 3]
        else:
            score = (chosen > 0) @ rng.normal(size=4)
        noisy = 1.5 * (score - score.mean()) / score.std() + rng.logistic(size=score.size)
        labels = (noisy > np.quantile(noisy, 1 - share)).astype(int)
        columns = tuple(table.columns[index] for index in kept)
        yield kind, replace(table, columns=columns, values=table.values[:, kept], labels=labels)


def models_of_recipes() -> dict[str, list[str]]:
    """Return under the name of one recipe all that fit the same model with the same selection."""
    alike: dict[object, list[str]] = {}
    for name in recipe_names():
        plan = load_recipe(name).plan
        limit = plan.count if plan.selection != "none" else None
        # On noise without copies, how far copies are thinned makes no difference.
        alike.setdefault((plan.members, plan.selection, limit), []).append(name)
    return {names[0]: names for names in alike.values()}


def shuffled(options: argparse.Namespace) -> None:
    """Measure what is found where there is nothing; draws are kept, so that an interrupted measurement goes on."""
    models = models_of_recipes()
    for name in options.recipe or models:
        recipe = load_recipe(name)
        survival = recipe.task == "survival"
        found = []
        for draw in range(options.draws):
            kept = options.cache / f"{name}-{options.rows}x{options.columns}-{draw}.json" if options.cache else None
            if kept is None or not kept.exists():
                table = made_table(options.rows, options.columns, 0, draw, survival)
                nested = nested_validation(recipe.plan, table, outer_folds=5, repeats=1, seed=draw, jobs=options.jobs)
                scores = nested.log_odds[0]
                value = [discrimination(scores, table, nested.fold_of_row[0]), discrimination(scores, table)]
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps(value))
            else:
                value = json.loads(kept.read_text())
            found.append(value)
        mean, pooled = (float(item) for item in np.mean(found, axis=0))
        met = CHANCE[0] <= min(mean, pooled) and max(mean, pooled) <= CHANCE[1]
        print(
            f"{name} ({'+'.join(recipe.members)}, {recipe.selection.method}): {mean:.3f} over {len(found)} draws, deviation "
            f"{np.std(found, axis=0)[0]:.3f}, {pooled:.3f} over all folds at once ({verdict(met)}); the same model: "
            f"{', '.join(models.get(name, [name]))}",
            flush=True,
        )


def _columns_of(group: FeatureGroup) -> list[str]:
    """Return columns that a group matches, for a table that has none of it."""
    names = list(group.names)
    for family in group.families:
        names += ["vessels_TortuosityMean"] if family == "vessels" else [f"original_{family}_{item}" for item in "AB"]
    return [
        f"{timepoint}.{region}.{MODALITY_PREFIX[group.modality]}{name.replace('*', 'A')}"
        for timepoint in group.timepoints
        for region in group.regions
        for name in names
    ]


def _recipe_table(
    recipe: Recipe, header: list[str], rows: list[list[str]], path: Path, simulated: bool
) -> tuple[int, int]:
    """Write the table of one recipe, measured columns as they are, others drawn, and return how many of each.

    The label is that of the simulation, or made from the first of the columns so that a perfect model reaches an AUC of about 0.85.
    """
    rng = np.random.default_rng(0)
    place = {name: index for index, name in enumerate(header)}
    used = [name for name in fit_columns(recipe, header).columns if name.count(".") >= 2]
    drawn = [
        name
        for group in recipe.features
        if group.required and not any(group.matches(item) for item in header)
        for name in _columns_of(group)
    ]
    drawn += [item.name for item in (*recipe.clinical, *recipe.columns) if item.name not in header]
    drawn = list(dict.fromkeys(drawn))
    numbers = rng.normal(size=(len(rows), len(drawn)))
    patients = [row[place["patient"]] for row in rows]
    _, group = np.unique(patients, return_inverse=True)
    signal = numbers[:, 0] if drawn else None
    if used:
        values = np.array([[float(row[place[name]] or "nan") for name in used] for row in rows])
        good = usable_columns(values)
        column = imputed(values[:, good[:1]])[:, 0] if good.size else None
        signal = signal if column is None else np.argsort(np.argsort(column)) / len(column) * 3.5 - 1.75
    if signal is None:
        raise SystemExit(f"{recipe.id}: there is nothing to make a label from.")
    # All rows of a patient share an outcome, which hangs on the first of them.
    first = np.array([np.flatnonzero(group == number)[0] for number in range(group.max() + 1)])
    score = 2.0 * signal[first]
    if recipe.task == "survival":
        moment = rng.exponential(np.exp(-score)) + 0.01
        outcome = {"time": moment[group], "event": (rng.random(first.size) < 0.8).astype(int)[group]}
    elif simulated:
        outcome = {recipe.label: np.array([int(row[place[recipe.label]]) for row in rows])}
    else:
        outcome = {recipe.label: (score + rng.logistic(size=score.size) > 0).astype(int)[group]}
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "lesion", *outcome, *used, *drawn])
        for index, row in enumerate(rows):
            cells = [f"{value[index]:.6g}" for value in outcome.values()]
            measured = [row[place[name]] for name in used]
            writer.writerow(
                [patients[index], row[place["lesion"]], *cells, *measured, *(f"{x:.6g}" for x in numbers[index])]
            )
    return len(used), len(drawn)


def recipes(options: argparse.Namespace) -> None:
    """Train every recipe on the table of a cohort, end to end, and print a row for each."""
    with options.table.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        header, rows = next(reader), list(reader)
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        "| Recipe | Columns measured + drawn | Known signal: rows (events), here | Label of the simulation | Reported |"
    )
    print("|---|---|---|---|---|")
    for name in options.recipe or recipe_names():
        recipe = load_recipe(name)
        if recipe.takes_everything:
            recipe = replace(recipe, label="hyperprogression", features=load_recipe("gi_response").features)
        cells, columns = [], (0, 0)
        for simulated in (False, True):
            if simulated and (recipe.task == "survival" or recipe.label not in header):
                cells.append("has none of it")
                continue
            path = options.out / f"{name}-{'simulated' if simulated else 'known'}.csv"
            columns = _recipe_table(recipe, header, rows, path, simulated)
            result = train(
                path,
                path.with_suffix(""),
                recipe=recipe,
                effort=Effort(repeats=1, bootstraps=0, learning_curve=False),
                jobs=options.jobs,
                force=True,
            )
            found = result.performance.discrimination
            figure = f"{result.performance.metric} {found.value:.2f} ({found.lower:.2f} to {found.upper:.2f})"
            cells.append(f"{result.rows} ({result.events}), {figure}")
        print(f"| `{name}` | {columns[0]} + {columns[1]} | {' | '.join(cells)} | {recipe.reported.text} |", flush=True)


def timed(options: argparse.Namespace) -> None:
    """Measure a large table."""
    table = made_table(options.rows, options.columns, 5, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    nested = nested_validation(load_recipe("default").plan, table, outer_folds=5, repeats=1, jobs=options.jobs)
    seconds, spent = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"AUC {auc(nested.log_odds[0], table.labels, nested.fold_of_row[0]):.3f}; {seconds:.0f} s, CPU {spent:.0f} s, on two free cores at most {spent:.0f} s "
        f"({verdict(spent <= MOST_SECONDS)})"
    )


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("real", real), ("known", known), ("shuffled", shuffled), ("recipes", recipes), ("time", timed)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--jobs", type=int, default=2)
        if name in ("real", "known"):
            command.add_argument("tables", type=Path, nargs="+")
            command.add_argument(
                "--repeats", type=int, default=load_recipe("default").scheme.repeats if name == "real" else 2
            )
        if name in ("shuffled", "time"):
            command.add_argument("--rows", type=int, default=1000 if name == "time" else 200)
            command.add_argument("--columns", type=int, default=1500 if name == "time" else 1000)
        if name in ("shuffled", "recipes"):
            command.add_argument("--recipe", nargs="+", help="these recipes only")
        if name == "shuffled":
            command.add_argument("--draws", type=int, default=20)
            command.add_argument("--cache", type=Path, help="keep each draw here")
        if name == "recipes":
            command.add_argument("table", type=Path)
            command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
