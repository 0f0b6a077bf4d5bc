"""The models that recipes name: how each is built, its settings to choose from, and the score that it gives a row.

scikit-learn does the fitting. A score is on the scale of log-odds where the model knows probabilities, otherwise as the model
gives it; recalibration makes a probability of either.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import MissingDependencyError, StageError
from .selection import fitted_alone, lasso_logistic

Kind = Literal[
    "ridge", "lasso", "plain-lasso", "loose-lasso", "elastic-net", "lda", "forest", "boosting", "svm", "anomaly", "cox"
]

_TREES = 300
_COX_PENALTY = 0.1


@dataclass(frozen=True)
class Learner:
    """A model with the settings among which the inner folds choose. ``linear``: its score is a weighted sum of scaled columns."""

    kind: Kind
    title: str
    settings: tuple[float, ...]
    linear: bool
    build: Callable[[float, int, int], Any]


def _logistic(strength: float, **options: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, **options)


def _ridge(setting: float, seed: int, jobs: int) -> Any:
    return _logistic(setting, max_iter=300, tol=1e-3)


def _lasso(setting: float, seed: int, jobs: int) -> Any:
    return lasso_logistic(setting)


def _elastic_net(setting: float, seed: int, jobs: int) -> Any:
    return _logistic(setting, l1_ratio=0.5, solver="saga", max_iter=200, tol=1e-2, random_state=seed)


def _lda(setting: float, seed: int, jobs: int) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def _forest(setting: float, seed: int, jobs: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(_TREES, min_samples_leaf=int(setting), random_state=seed, n_jobs=jobs)


def _boosting(setting: float, seed: int, jobs: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        learning_rate=setting,
        max_iter=60,
        max_leaf_nodes=7,
        min_samples_leaf=10,
        l2_regularization=1.0,
        random_state=seed,
    )


def _svm(setting: float, seed: int, jobs: int) -> Any:
    from sklearn.svm import SVC

    return SVC(C=setting, kernel="rbf", gamma="scale")


def _anomaly(setting: float, seed: int, jobs: int) -> Any:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=_TREES, random_state=seed, n_jobs=jobs)


LEARNERS: dict[Kind, Learner] = {
    item.kind: item
    for item in (
        Learner("ridge", "logistic regression with a ridge penalty", (1e-4, 1e-3, 1e-2, 1e-1), True, _ridge),
        Learner("lasso", "LASSO-logistic regression", (0.03, 0.1, 0.3, 1.0), True, _lasso),
        Learner("plain-lasso", "LASSO-logistic regression with a fixed penalty", (1.0,), True, _lasso),
        Learner("loose-lasso", "LASSO-logistic regression with a loose penalty", (3.0,), True, _lasso),
        Learner("elastic-net", "elastic-net logistic regression", (0.03, 0.1, 0.3, 1.0), True, _elastic_net),
        Learner("lda", "linear discriminant analysis with shrunk covariance", (0.0,), True, _lda),
        Learner("forest", "random forest", (1.0,), False, _forest),
        Learner("boosting", "gradient boosting", (0.05,), False, _boosting),
        Learner("svm", "support vector machine with a radial kernel", (0.3, 3.0), False, _svm),
        Learner("anomaly", "isolation forest fitted to patients without the event", (0.0,), False, _anomaly),
        Learner("cox", "Cox proportional hazards with a ridge penalty", (_COX_PENALTY,), True, lambda *_: None),
    )
}


def require_scikit_learn() -> None:
    """Say how to install what training needs, where it is not there.

    Raises
    ------
    MissingDependencyError
        If scikit-learn or skops is missing.
    """
    try:
        import sklearn  # noqa: F401
        import skops.io  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"Training needs the package {error.name}; pip install 'immunoradiomics[train]'."
        ) from error


def fit_learner(
    kind: Kind,
    setting: float,
    values: np.ndarray,
    labels: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    jobs: int = 1,
) -> Any:
    """Return a fitted estimator, or for linear models a pair of coefficients and intercept; ``values`` is scaled and complete."""
    if kind == "cox":
        if time is None:
            raise StageError("A Cox regression needs the time of follow-up.")
        return _fit_cox(values, labels, time, setting), 0.0
    from sklearn.exceptions import ConvergenceWarning

    learner = LEARNERS[kind]
    estimator = learner.build(setting, seed, jobs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if kind == "anomaly":
            estimator.fit(values[labels == 0])
        else:
            fitted_alone(estimator, values, labels)
    if "n_jobs" in estimator.get_params():
        # The number is written with the model: how many threads fitted it must not change the file, nor the sums of its trees.
        estimator.set_params(n_jobs=1)
    if learner.linear:
        return np.ravel(estimator.coef_), float(np.ravel(estimator.intercept_)[0])
    return estimator


def martingale_residuals(events: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return what each patient's event tells beyond the expected: the event minus the Nelson-Aalen hazard until its time."""
    order = np.argsort(time, kind="stable")
    at_risk = np.array([(time >= moment).sum() for moment in time[order]])
    hazard = np.cumsum(events[order] / at_risk)
    # Patients of the same time share the hazard after all of its events.
    last = np.searchsorted(time[order], time, side="right") - 1
    return np.asarray(events - hazard[last])


def _fit_cox(values: np.ndarray, events: np.ndarray, time: np.ndarray, penalty: float) -> np.ndarray:
    try:
        import pandas
        from lifelines import CoxPHFitter
        from lifelines.exceptions import ConvergenceError
    except ImportError as error:
        raise MissingDependencyError(
            f"A Cox regression needs the package {error.name}; pip install 'immunoradiomics[train]'."
        ) from error
    frame = pandas.DataFrame(values, columns=[f"x{index}" for index in range(values.shape[1])])
    frame["time"], frame["event"] = time, events
    fitter = CoxPHFitter(penalizer=penalty)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitter.fit(frame, "time", "event")
    except ConvergenceError as error:
        raise StageError(f"The Cox regression did not converge: {error}") from error
    return np.asarray(fitter.params_.to_numpy(), dtype=float)
