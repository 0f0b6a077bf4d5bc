"""Measure training: against plain models in the same folds, under shuffled outcomes, and how long a large table takes.

    python benchmarks/training.py real TABLE [TABLE ...] [--repeats 3]
    python benchmarks/training.py shuffled [--recipe default] [--draws 20] [--rows 200] [--columns 1000]
    python benchmarks/training.py time [--rows 1000] [--columns 1500] [--jobs 2]

`real` prints for each table the AUC of the default recipe, of LASSO-logistic regression and of a random forest, inside the same folds, and the
calibration slope of the default recipe. `shuffled` prints the mean AUC where there is nothing to find. `time` prints seconds of wall and CPU of the nested 5x5.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

# A script's folder comes first on the path, where a neighbour would be taken for a package of the same name.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

from ImmunoRadiomicsLib.classifiers.trained import probability
from ImmunoRadiomicsLib.training import Table, load_recipe, read_table
from ImmunoRadiomicsLib.training.metrics import auc, calibration_line
from ImmunoRadiomicsLib.training.nested import nested_validation, one_thread_per_call


def made_table(rows: int, columns: int, signal: int, seed: int) -> Table:
    """A table of correlated noise in which the first ``signal`` columns tell something."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, max(columns // 10, 1)))
    values = 0.7 * hidden[:, rng.integers(hidden.shape[1], size=columns)] + 0.7 * rng.normal(size=(rows, columns))
    score = values[:, :signal].sum(axis=1) / max(signal, 1) ** 0.5 if signal else np.zeros(rows)
    labels = (score + rng.normal(size=rows) > 0.5).astype(int)
    names = tuple(f"baseline.core.original_made_{index}" for index in range(columns))
    patients = tuple(f"P{index}" for index in range(rows))
    return Table("made", "", "label", patients, (), (), np.arange(rows), labels, None, names, values, ())


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


def real(options: argparse.Namespace) -> None:
    """Compare on given tables."""
    recipe = load_recipe("default")
    for path in options.tables:
        table = read_table(path)
        nested = nested_validation(recipe.plan, table, outer_folds=5, repeats=options.repeats, jobs=options.jobs)
        repeats = range(options.repeats)
        own = np.mean([auc(nested.log_odds[item], table.labels, nested.fold_of_row[item]) for item in repeats])
        slopes = [calibration_line(probability(nested.log_odds[item]), table.labels)[1] for item in repeats]
        with one_thread_per_call(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            others = plain_models(table, nested.fold_of_row)
        said = ", ".join(f"{name} {value:.3f}" for name, value in others.items())
        print(f"{path.name} {table.values.shape}: default {own:.3f}, {said}; slope {np.mean(slopes):.2f}", flush=True)


def shuffled(options: argparse.Namespace) -> None:
    """Measure what is found where there is nothing."""
    recipe = load_recipe(options.recipe)
    found = []
    for draw in range(options.draws):
        table = made_table(options.rows, options.columns, 0, draw)
        nested = nested_validation(recipe.plan, table, outer_folds=5, repeats=1, seed=draw, jobs=options.jobs)
        found.append(auc(nested.log_odds[0], table.labels, nested.fold_of_row[0]))
        print(f"{draw}: {found[-1]:.3f}, mean {np.mean(found):.3f}", flush=True)


def timed(options: argparse.Namespace) -> None:
    """Measure a large table."""
    table = made_table(options.rows, options.columns, 5, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    nested = nested_validation(load_recipe("default").plan, table, outer_folds=5, repeats=1, jobs=options.jobs)
    print(
        f"AUC {auc(nested.log_odds[0], table.labels, nested.fold_of_row[0]):.3f}; {time.perf_counter() - wall:.0f} s, CPU {time.process_time() - cpu:.0f} s"
    )


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("real", real), ("shuffled", shuffled), ("time", timed)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--jobs", type=int, default=2)
        if name == "real":
            command.add_argument("tables", type=Path, nargs="+")
            command.add_argument("--repeats", type=int, default=3)
        else:
            command.add_argument("--rows", type=int, default=1000 if name == "time" else 200)
            command.add_argument("--columns", type=int, default=1500 if name == "time" else 1000)
        if name == "shuffled":
            command.add_argument("--recipe", default="default")
            command.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
