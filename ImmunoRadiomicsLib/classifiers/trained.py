"""Models that were fitted to a table: columns of numbers in, a probability (or a log hazard) out.

``model.json`` holds how columns are completed and scaled, linear members with their coefficients, and the recalibration. Members that
are no weighted sum lie beside it as skops files: these hold no code, and only types that the card names and that are on
``KNOWN_TYPES`` are built from them.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError, MissingDependencyError
from .distance import JointDistance

TRAINED_VERSION = "1.2"

# A probability nearer to 0 or 1 than this says more than a few hundred patients can.
SMALLEST_PROBABILITY = 1e-3

# A skops file is unpacked into memory as a whole; forests of hundreds of trees hold a tenth of this.
LARGEST_UNPACKED_BYTES = 1_000_000_000

# What members are made of. A card can name fewer of these, never others.
KNOWN_TYPES = frozenset(
    {
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._gb_losses.BinomialDeviance",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.ensemble._iforest.IsolationForest",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn.preprocessing._label.LabelEncoder",
        "sklearn.svm._classes.SVC",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.ExtraTreeRegressor",
        "sklearn.tree._tree.Tree",
        "numpy.dtype",
        "numpy.random._pickle.__randomstate_ctor",
    }
)


@dataclass(frozen=True)
class BatchCorrection:
    """What brings batches (scanners, centres) together: a value of a batch becomes ``shift + factor * value``.

    ``factors`` and ``shifts`` are (batches, columns). Rows of a batch that is not named stay as they are.
    """

    batches: tuple[str, ...]
    factors: tuple[tuple[float, ...], ...]
    shifts: tuple[tuple[float, ...], ...]

    def __call__(self, values: np.ndarray, batch: Sequence[str] | np.ndarray) -> np.ndarray:
        """Return rows (rows, columns) without the mark of their batch; NaN stays NaN."""
        result = np.array(values, dtype=float)
        names = np.array([str(item) for item in batch], dtype=object)
        for name, factor, shift in zip(self.batches, self.factors, self.shifts, strict=True):
            rows = names == name
            result[rows] = result[rows] * np.array(factor) + np.array(shift)
        return result

    def among(self, places: Sequence[int] | np.ndarray, count: int) -> BatchCorrection:
        """Return it for ``count`` columns, of which these are at ``places``; the others stay as they are."""
        factors, shifts = np.ones((len(self.batches), count)), np.zeros((len(self.batches), count))
        if self.batches:
            factors[:, places], shifts[:, places] = self.factors, self.shifts
        return BatchCorrection(self.batches, tuple(map(tuple, factors.tolist())), tuple(map(tuple, shifts.tolist())))

    def take(self, columns: Sequence[int] | np.ndarray) -> BatchCorrection:
        """Return the correction of these columns."""
        return BatchCorrection(
            self.batches,
            tuple(tuple(row[item] for item in columns) for row in self.factors),
            tuple(tuple(row[item] for item in columns) for row in self.shifts),
        )


@dataclass(frozen=True)
class TrainedMember:
    """One member; its part is ``weight * (intercept + slope * score)``.

    The score of a linear member is ``offset`` plus the scaled columns weighted by ``coefficients``; another member is read from ``file``.
    """

    kind: str
    title: str
    weight: float
    intercept: float
    slope: float
    offset: float
    coefficients: tuple[float, ...] | None
    file: str | None


@dataclass(frozen=True)
class TrainedModel:
    """The content of ``model.json`` of a trained bundle.

    A column of a batch that ``correction`` names is brought to the others first; ``batch_column`` says what the batch is, such as `centre`. Then it
    is completed with its median, cut at ``lower`` and ``upper``, less its mean, over its deviation. The result is
    ``intercept + slope * (sum of the members' parts)``: log-odds, or the log of the hazard relative to the average patient.
    ``distance`` is the joint distribution of the completed columns among the training rows; None where they were too few.
    """

    model_version: str
    recipe: str
    recipe_version: str
    outcome: Literal["probability", "log hazard"]
    unit: Literal["patient", "lesion"]
    label: str
    columns: tuple[str, ...]
    medians: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    members: tuple[TrainedMember, ...]
    intercept: float
    slope: float
    scikit_learn: str
    batch_column: str = ""
    correction: BatchCorrection | None = None
    distance: JointDistance | None = None

    def completed(self, values: np.ndarray, batch: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """Return rows (rows, columns) brought to the other batches, empty cells at the median of the training data."""
        if self.correction is not None and batch is not None:
            values = self.correction(values, batch)
        return np.where(np.isnan(values), self.medians, values)


@dataclass(frozen=True)
class Predictor:
    """A verified trained model with its members ready to score."""

    model: TrainedModel
    estimators: Mapping[str, Any]

    def log_odds(self, values: np.ndarray, batch: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """Return the log-odds (or log hazard) of rows whose columns are ``model.columns``, NaN where empty, and of their batches.

        Rows of a batch that the model was not fitted to, and all rows where none is given, are taken as they are.
        """
        model = self.model
        filled = model.completed(values, batch)
        scaled = (np.clip(filled, model.lower, model.upper) - np.array(model.means)) / np.array(model.deviations)
        total = np.zeros(len(values))
        for item in model.members:
            fitted = (
                (np.array(item.coefficients), item.offset)
                if item.coefficients is not None
                else self.estimators[str(item.file)]
            )
            total += item.weight * (item.intercept + item.slope * score(fitted, scaled))
        return np.asarray(model.intercept + model.slope * total)

    def predict(self, values: np.ndarray, batch: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """Return the probability of the event, or for survival the log hazard."""
        found = self.log_odds(values, batch)
        return probability(found) if self.model.outcome == "probability" else found

    def predict_row(self, cells: Mapping[str, float | None], batch: str | None = None) -> float:
        """Return the prediction for one patient from named values, and of a batch; a column that is None is completed.

        Raises
        ------
        InputError
            If a column of the model is not named at all.
        """
        if missing := [name for name in self.model.columns if name not in cells]:
            raise InputError(
                [f"The model {self.model.recipe} needs the column `{name}`, which is not there." for name in missing]
            )
        return float(self.predict(self._row(cells), None if batch is None else [batch])[0])

    def share_farther_out(self, cells: Mapping[str, float | None], batch: str | None = None) -> float | None:
        """Return the share of training rows, each held out, that lie at least as far out as one patient, all columns together.

        0 where none does; None where the model does not keep the joint distribution of its columns.
        """
        distance = self.model.distance
        if distance is None:
            return None
        row = self.model.completed(self._row(cells), None if batch is None else [batch])
        return 0.0 if distance.beyond_all(row)[0] else float(distance.share_farther_out(row)[0])

    def _row(self, cells: Mapping[str, float | None]) -> np.ndarray:
        known = [cells[name] for name in self.model.columns]
        return np.array([[math.nan if item is None else float(item) for item in known]])


def score(fitted: Any, values: np.ndarray) -> np.ndarray:
    """Return the score of rows by a pair of coefficients and offset, or by an estimator: log-odds where it knows probabilities."""
    if isinstance(fitted, tuple):
        return np.asarray(values @ fitted[0] + fitted[1])
    if hasattr(fitted, "predict_proba"):
        return log_odds(fitted.predict_proba(values)[:, 1])
    if hasattr(fitted, "score_samples"):
        return np.asarray(-fitted.score_samples(values))
    return np.asarray(fitted.decision_function(values))


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities kept off 0 and 1."""
    kept = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(kept / (1 - kept)))


def probability(log_odds: np.ndarray) -> np.ndarray:
    """Return the probability of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)))


def model_problems(model: TrainedModel, declared: Sequence[str], files: Sequence[str]) -> list[str]:
    """Return what does not fit together in a trained model, given the inputs and files that its card names."""
    found = []
    size = len(model.columns)
    for name in ("medians", "lower", "upper", "means", "deviations"):
        if len(getattr(model, name)) != size:
            found.append(f"{name} has {len(getattr(model, name))} numbers for {size} columns.")
    if any(value <= 0 for value in model.deviations):
        found.append("a deviation is not above 0.")
    if len(set(model.columns)) != size or not size:
        found.append("the columns are none, or one is named twice.")
    found += [
        f"the model reads {name!r}, which the card does not declare as an input."
        for name in model.columns
        if name not in declared
    ]
    if model.correction is not None:
        batches = len(model.correction.batches)
        for name, rows in (("factors", model.correction.factors), ("shifts", model.correction.shifts)):
            if len(rows) != batches or any(len(row) != size for row in rows):
                found.append(f"the {name} of the correction are not those of {batches} batches and {size} columns.")
    if model.distance is not None:
        found += model.distance.problems(size)
    if not model.members:
        found.append("the model has no member.")
    for item in model.members:
        if (item.coefficients is None) == (item.file is None):
            found.append(f"the member {item.kind} needs either coefficients or a file.")
        if item.coefficients is not None and len(item.coefficients) != size:
            found.append(f"the member {item.kind} has {len(item.coefficients)} coefficients for {size} columns.")
        if item.file is not None and item.file not in files:
            found.append(f"the member {item.kind} lies in {item.file!r}, which the card does not name.")
    return found


def types_of(path: Path) -> tuple[str, ...]:
    """Return the types in a skops file that skops itself does not vouch for.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    skops = _skops()
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
        if unpacked > LARGEST_UNPACKED_BYTES:
            raise InputError(
                f"{path}: holds {unpacked / 1e9:.1f} GB when unpacked, which no model does; it is not loaded."
            )
        return tuple(sorted(skops.get_untrusted_types(file=path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: is no readable skops file ({type(error).__name__}); fetch the bundle again."
        ) from error


def load_estimator(path: Path, named: Sequence[str], columns: int) -> Any:
    """Build an estimator from a skops file.

    Parameters
    ----------
    path
        The file.
    named
        The types that the card names.
    columns
        How many columns it has to take.

    Raises
    ------
    InputError
        If the file is damaged, holds a type that the card does not name or that no member is made of, or takes other columns.
    """
    foreign = [name for name in types_of(path) if name not in KNOWN_TYPES or name not in named]
    if foreign:
        raise InputError([f"{path}: holds {name}, which {_why_not(name)}; it is not loaded." for name in foreign])
    try:
        fitted = _skops().load(path, trusted=[name for name in named if name in KNOWN_TYPES])
    except Exception as error:
        # Whatever a damaged or hostile file makes the reader raise, the answer is the same.
        raise InputError(
            f"{path}: cannot be loaded ({type(error).__name__}: {error}); fetch the bundle again."
        ) from error
    if getattr(fitted, "n_features_in_", None) != columns:
        raise InputError(
            f"{path}: takes {getattr(fitted, 'n_features_in_', 'an unknown number of')} columns, the model has {columns}."
        )
    return fitted


def _why_not(name: str) -> str:
    return "the card does not name" if name in KNOWN_TYPES else "is no part of any model that this software fits"


def _skops() -> Any:
    try:
        import sklearn  # noqa: F401
        import skops.io
    except ImportError as error:
        raise MissingDependencyError(
            f"This bundle needs the package {error.name}; pip install 'immunoradiomics[train]'."
        ) from error
    return skops.io
