"""Refit the fitted parts of the shipped evidence bundles on the published trial tables, and print every shipped number.

    python benchmarks/refit_evidence.py pseudoprogression
    python benchmarks/refit_evidence.py hyperprogression
    python benchmarks/refit_evidence.py pneumonitis        (nothing is fitted: the shipped model on a table with 11 events)
    python benchmarks/refit_evidence.py pseudoprogression --write      store the numbers in the bundle and seal it

The tables are read where they lie (``--data``, by default ``../shared/data/trials`` beside the checkout). Both
regressions are plain maximum likelihood by Newton's method; all intervals are 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import itertools
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from ImmunoRadiomicsLib.classifiers.bundles import load_bundle, seal_bundle
from ImmunoRadiomicsLib.classifiers.distance import robust_location_scatter
from ImmunoRadiomicsLib.classifiers.engine import Reading, evaluate
from ImmunoRadiomicsLib.files import write_text

DEFAULT_DATA = CHECKOUT.parent / "shared" / "data" / "trials"
BUNDLES = CHECKOUT / "Resources" / "Classifiers"
DAYS_PER_MONTH = 30.4375
BOOTSTRAPS = 2000
SEED = 20261122

# Lesion series: the docetaxel arms say nothing about immunotherapy.
SERIES_TABLE = "laleh2022_single_target_lesion.csv"
DOCETAXEL_ARMS = ("Study_2_Arm_1", "Study_4_Arm_1")
TOO_SMALL_MM = 5.0
# No lesion of the series that had grown by more than 75 % shrank back: beyond it more growth carries no more information.
GROWTH_LIMIT = 0.75
GROWTH_BINS = (0.20, 0.25, 0.35, 0.50, 0.75, np.inf)
FIRST_WINDOW_DAYS = 95

EVENT_TABLE = "sayer_nsclc_irae.csv"
# How that table words pneumonitis.
PNEUMONITIS_WORDS = ("pneumonitis", "pulmonary toxicity")

CLINICAL_TABLE = "oak_poplar_clinical.xlsx"
ATEZOLIZUMAB = "MPDL3280A"
EARLY_DEATH_DAYS = 84
LEAST_AUC = 0.76
RIDGE_PENALTIES = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)

# Information beyond this condition number: some coefficient runs off to infinity.
LARGEST_CONDITION = 1e12


@dataclasses.dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression: intercept first, with the covariance of all coefficients."""

    coefficients: np.ndarray
    covariance: np.ndarray

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        return self.coefficients[0] + x @ self.coefficients[1:]


@dataclasses.dataclass(frozen=True)
class Progression:
    """The first progression of one immunotherapy lesion that was scanned again."""

    trial: str
    day: float
    baseline_mm: float
    nadir_mm: float
    now_mm: float
    next_mm: float

    @property
    def unconfirmed(self) -> bool:
        return not progressed(self.next_mm, self.nadir_mm)


@dataclasses.dataclass(frozen=True)
class Interval:
    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}-{self.upper:.3f}]"


class SeparableError(ArithmeticError):
    """The outcome is predicted perfectly, so the likelihood grows without end."""


def fit_logistic(x: np.ndarray, y: np.ndarray) -> Logistic:
    """Maximum likelihood by Newton's method; x is (n, k), y is bool (n,)."""
    design = np.column_stack([np.ones(len(x)), x])
    beta = np.zeros(design.shape[1])
    beta[0] = np.log(y.mean() / (1 - y.mean()))
    for _ in range(100):
        p = expit(design @ beta)
        information = (design * (p * (1 - p))[:, None]).T @ design
        if np.linalg.cond(information) > LARGEST_CONDITION:
            break
        step = np.linalg.solve(information, design.T @ (y - p))
        beta += step
        if np.abs(step).max() < 1e-10:
            return Logistic(beta, np.linalg.inv(information))
    raise SeparableError("The logistic regression has no finite solution: the classes are separable.")


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the Mann-Whitney statistic, ties count half."""
    positives = int(y.sum())
    ranks = rankdata(score)
    return float((ranks[y].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def calibration(y: np.ndarray, log_odds: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of the outcome regressed on the predicted log-odds."""
    intercept, slope = fit_logistic(log_odds[:, None], y).coefficients
    return float(intercept), float(slope)


def brier(y: np.ndarray, log_odds: np.ndarray) -> float:
    return float(np.mean((expit(log_odds) - y) ** 2))


def bootstrap(y: np.ndarray, score: np.ndarray, figure: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
    """A figure with its 95 % percentile interval over resampled patients."""
    rng = np.random.default_rng(SEED)
    values = []
    while len(values) < BOOTSTRAPS:
        rows = rng.integers(0, len(y), len(y))
        if 2 < y[rows].sum() < len(y) - 2:
            values.append(figure(y[rows], score[rows]))
    return Interval(figure(y, score), float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))


def progressed(now_mm: float, nadir_mm: float) -> bool:
    """RECIST 1.1 for one diameter, in tenths of a millimetre: at least 20 % and at least 5 mm over the nadir."""
    now, nadir = round(now_mm * 10), round(nadir_mm * 10)
    return 10 * now >= 12 * nadir and now - nadir >= 50


def read_progressions(path: Path) -> tuple[list[Progression], int]:
    """First progressions with a later scan, and how many had none. Ids are text: as floats, distinct patients collide."""
    series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["arm"] in DOCETAXEL_ARMS:
                continue
            if not row["day"]:
                continue
            if row["state"] == "measured":
                size = float(row["mm"])
            elif row["state"] == "TOO SMALL TO MEASURE":
                size = TOO_SMALL_MM
            else:
                continue
            series[row["arm"], row["patient_id"]].append((float(row["day"]), size))
    found, unseen = [], 0
    for (arm, _), points in series.items():
        points.sort()
        baseline = nadir = points[0][1]
        for index, (day, size) in enumerate(points[1:], start=1):
            if progressed(size, nadir):
                if index + 1 < len(points):
                    trial = "_".join(arm.split("_")[:2])
                    found.append(Progression(trial, day, baseline, nadir, size, points[index + 1][1]))
                else:
                    unseen += 1
                break
            nadir = min(nadir, size)
    return found, unseen


def growth_inputs(items: Sequence[Progression]) -> np.ndarray:
    """(n, 3): ln(size / nadir) up to the limit, months since treatment started, ln(nadir / baseline)."""
    now = np.array([item.now_mm for item in items])
    nadir = np.maximum([item.nadir_mm for item in items], TOO_SMALL_MM)
    baseline = np.maximum([item.baseline_mm for item in items], TOO_SMALL_MM)
    growth = np.minimum(np.log(now / nadir), np.log(1 + GROWTH_LIMIT))
    months = np.array([item.day for item in items]) / DAYS_PER_MONTH
    return np.column_stack([growth, months, np.log(nadir / baseline)])


def growth_bins(items: Sequence[Progression]) -> list[tuple[float, float, int, int]]:
    """(from, to, unconfirmed, all) by growth against baseline, where the nadir is the baseline and by day 95."""
    early = [item for item in items if item.nadir_mm == item.baseline_mm and item.day <= FIRST_WINDOW_DAYS]
    growth = np.array([(item.now_mm - item.baseline_mm) / item.baseline_mm for item in early])
    unconfirmed = np.array([item.unconfirmed for item in early])
    rows = []
    for index, (low, high) in enumerate(itertools.pairwise(GROWTH_BINS)):
        above = growth >= low - 1e-9 if index == 0 else growth > low + 1e-9
        chosen = above & (growth <= high + 1e-9)
        rows.append((low, high, int(unconfirmed[chosen].sum()), int(chosen.sum())))
    return rows


def leave_one_trial_out(x: np.ndarray, y: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Log-odds of every row from the fit on the other trials."""
    result = np.zeros(len(y))
    for trial in np.unique(trials):
        inside = trials == trial
        result[inside] = fit_logistic(x[~inside], y[~inside]).log_odds(x[inside])
    return result


@dataclasses.dataclass(frozen=True)
class PseudoprogressionRefit:
    lesions: int
    unconfirmed: int
    without_later_scan: int
    bins: list[tuple[float, float, int, int]]
    fit: Logistic
    origins: np.ndarray
    spreads: np.ndarray
    location: np.ndarray
    scatter: np.ndarray
    ranges: np.ndarray
    shrinkage: float
    shrinkage_sd: float
    shipped: np.ndarray
    shipped_covariance: np.ndarray
    auc_all: Interval
    auc_from_baseline: Interval
    calibration_intercept: float
    calibration_slope: float
    brier: float


def refit_pseudoprogression(data: Path) -> PseudoprogressionRefit:
    items, unseen = read_progressions(data / SERIES_TABLE)
    x, y = growth_inputs(items), np.array([item.unconfirmed for item in items])
    trials = np.array([item.trial for item in items])
    fit = fit_logistic(x, y)
    # The growth at which a lesion with average other inputs has the average chance: contributions measured from there
    # add up to the log likelihood ratio.
    origins = x.mean(axis=0)
    average = np.log(y.mean() / (1 - y.mean()))
    origins[0] = (average - fit.coefficients[0] - fit.coefficients[2:] @ origins[1:]) / fit.coefficients[1]
    scores = leave_one_trial_out(x, y, trials)
    first = np.array([item.nadir_mm == item.baseline_mm for item in items])
    intercept, slope = calibration(y, scores)
    # Fitted on so few events the coefficients are too large for a trial that they have not seen: they are multiplied by the
    # calibration slope of the left-out trials, and the uncertainty of that slope is added to theirs.
    slope_variance = fit_logistic(scores[:, None], y).covariance[1, 1]
    slopes = fit.coefficients[1:]
    location, scatter = robust_location_scatter(x)
    return PseudoprogressionRefit(
        lesions=len(items),
        unconfirmed=int(y.sum()),
        without_later_scan=unseen,
        bins=growth_bins(items),
        fit=fit,
        origins=origins,
        spreads=x.std(axis=0, ddof=1),
        location=location,
        scatter=scatter,
        ranges=np.column_stack([x.min(axis=0), x.max(axis=0)]),
        shrinkage=slope,
        shrinkage_sd=float(np.sqrt(slope_variance)),
        shipped=slope * slopes,
        shipped_covariance=slope**2 * fit.covariance[1:, 1:] + slope_variance * np.outer(slopes, slopes),
        auc_all=bootstrap(y, scores, auc),
        auc_from_baseline=bootstrap(y[first], scores[first], auc),
        calibration_intercept=intercept,
        calibration_slope=slope,
        brier=brier(y, scores),
    )


@dataclasses.dataclass(frozen=True)
class EarlyDeath:
    x: np.ndarray
    nine: np.ndarray
    y: np.ndarray
    unknown: int


def read_early_death(path: Path, sheet: str) -> EarlyDeath:
    """(n, 3) ECOG >= 1, metastatic sites, ln(SLD mm), and death within 12 weeks, of the atezolizumab arm.

    Patients who left the trial alive within 12 weeks are counted as alive, as the published reference fit does.
    """
    import openpyxl

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
        rows = openpyxl.load_workbook(path, read_only=True)[sheet].iter_rows(values_only=True)
        names = next(rows)
        records = [dict(zip(names, row, strict=True)) for row in rows]
    x, nine, y, unknown = [], [], [], 0
    for record in records:
        if record["TRT01P"] != ATEZOLIZUMAB or not isinstance(record["blSLD"], int | float):
            continue
        died = int(record["OS.CNSR"]) == 0
        early = float(record["OS"]) * DAYS_PER_MONTH <= EARLY_DEATH_DAYS
        x.append((float(record["ECOGGR"] >= 1), float(record["METSITES"]), np.log(float(record["blSLD"]))))
        nine.append(nine_covariates(record))
        y.append(died and early)
        unknown += early and not died
    return EarlyDeath(np.array(x), np.array(nine), np.array(y), unknown)


def nine_covariates(record: dict[str, Any]) -> tuple[float, ...]:
    """Age, sex, race, histology, prior lines, smoking, ECOG, sites and burden of one patient; the two tables name the lines differently."""
    lines = record["PRIORTX"] if "PRIORTX" in record else record["PRIORTXC"]
    return (
        float(record["BAGE"]),
        float(record["SEX"] == "M"),
        float(record["race2"] == "WHITE"),
        float(record["HIST"] == "SQUAMOUS"),
        float(lines >= 2),
        float(record["TOBHX"] == "NEVER"),
        float(record["ECOGGR"] >= 1),
        float(record["METSITES"]),
        float(np.log(float(record["blSLD"]))),
    )


def fit_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Intercept and slopes of a logistic regression with half ``penalty`` times the squared slopes taken off its likelihood."""
    design = np.column_stack([np.ones(len(x)), x])
    bound = penalty * np.diag([0.0, *np.ones(x.shape[1])])
    beta = np.zeros(design.shape[1])
    for _ in range(100):
        p = expit(design @ beta)
        information = (design * (p * (1 - p))[:, None]).T @ design + bound
        step = np.linalg.solve(information, design.T @ (y - p) - bound @ beta)
        beta += step
        if np.abs(step).max() < 1e-10:
            break
    return beta


def left_out_loss(x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """Mean log loss over ten draws of ten stratified folds."""
    losses = []
    for draw in range(10):
        rng = np.random.default_rng([SEED, draw])
        fold = np.empty(len(y), dtype=int)
        for outcome in (False, True):
            rows = np.flatnonzero(y == outcome)
            fold[rng.permutation(rows)] = np.arange(len(rows)) % 10
        predicted = np.empty(len(y))
        for part in range(10):
            beta = fit_ridge(x[fold != part], y[fold != part], penalty)
            predicted[fold == part] = beta[0] + x[fold == part] @ beta[1:]
        losses.append(np.mean(np.logaddexp(0.0, np.where(y, -predicted, predicted))))
    return float(np.mean(losses))


def ridge_refit(oak: EarlyDeath, poplar: EarlyDeath) -> RidgeRefit:
    """Fit the nine covariates with an L2 penalty that the left-out loss inside OAK chooses, and test it on POPLAR."""
    mean, spread = oak.nine.mean(axis=0), oak.nine.std(axis=0)
    x = (oak.nine - mean) / spread
    penalty = min(RIDGE_PENALTIES, key=lambda item: left_out_loss(x, oak.y, item))
    beta = fit_ridge(x, oak.y, penalty)
    outside = beta[0] + (poplar.nine - mean) / spread @ beta[1:]
    return RidgeRefit(
        penalty,
        bootstrap(poplar.y, outside, auc),
        bootstrap(poplar.y, outside, lambda y, score: calibration(y, score)[1]),
        bootstrap(poplar.y, outside, lambda y, score: calibration(y, score)[0]),
    )


@dataclasses.dataclass(frozen=True)
class RidgeRefit:
    """The nine covariates with an L2 penalty: the second reference figure, not shipped."""

    penalty: float
    auc_external: Interval
    slope: Interval
    intercept: Interval


@dataclasses.dataclass(frozen=True)
class HyperprogressionRefit:
    patients: int
    events: int
    unknown: int
    external_patients: int
    external_events: int
    external_unknown: int
    fit: Logistic
    means: np.ndarray
    spreads: np.ndarray
    centred: Logistic
    location: np.ndarray
    scatter: np.ndarray
    ranges: np.ndarray
    auc_apparent: Interval
    auc_corrected: float
    auc_external: Interval
    slope: Interval
    intercept: Interval
    brier_external: float
    shrinkage: Interval
    shrinkage_sd: float
    ridge: RidgeRefit


def adjusted_over_unadjusted(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over the predictors of the adjusted over the unadjusted coefficient."""
    together = fit_logistic(x, y).coefficients[1:]
    alone = [fit_logistic(x[:, [index]], y).coefficients[1] for index in range(x.shape[1])]
    return float(np.mean(together / np.array(alone)))


def optimism_corrected_auc(x: np.ndarray, y: np.ndarray, rounds: int = 500) -> float:
    """Harrell's bootstrap: the apparent AUC less the mean drop from the resample to the original patients."""
    rng = np.random.default_rng(SEED)
    drops: list[float] = []
    while len(drops) < rounds:
        rows = rng.integers(0, len(y), len(y))
        with contextlib.suppress(SeparableError):
            fit = fit_logistic(x[rows], y[rows])
            drops.append(auc(y[rows], fit.log_odds(x[rows])) - auc(y, fit.log_odds(x)))
    return auc(y, fit_logistic(x, y).log_odds(x)) - float(np.mean(drops))


def shrinkage(x: np.ndarray, y: np.ndarray) -> tuple[Interval, float]:
    """How much log odds ratios shrink by adjustment, with its bootstrap interval and the standard deviation that fits it."""
    rng = np.random.default_rng(SEED)
    values: list[float] = []
    while len(values) < BOOTSTRAPS:
        rows = rng.integers(0, len(y), len(y))
        # Without a patient of ECOG 0 who died, its coefficient has no estimate: such a resample says nothing.
        with contextlib.suppress(SeparableError):
            values.append(adjusted_over_unadjusted(x[rows], y[rows]))
    low, high = (float(value) for value in np.quantile(values, [0.025, 0.975]))
    return Interval(adjusted_over_unadjusted(x, y), low, high), (high - low) / (2 * 1.959964)


def refit_hyperprogression(data: Path) -> HyperprogressionRefit:
    oak = read_early_death(data / CLINICAL_TABLE, "OAK_Clinical_Data")
    poplar = read_early_death(data / CLINICAL_TABLE, "POPLAR_Clinical_Data")
    fit = fit_logistic(oak.x, oak.y)
    means = oak.x.mean(axis=0)
    outside = fit.log_odds(poplar.x)
    ratio, ratio_sd = shrinkage(oak.x, oak.y)
    location, scatter = robust_location_scatter(oak.x[:, 1:])
    return HyperprogressionRefit(
        patients=len(oak.y),
        events=int(oak.y.sum()),
        unknown=oak.unknown,
        external_patients=len(poplar.y),
        external_events=int(poplar.y.sum()),
        external_unknown=poplar.unknown,
        fit=fit,
        means=means,
        spreads=oak.x.std(axis=0, ddof=1),
        centred=fit_logistic(oak.x - means, oak.y),
        location=location,
        scatter=scatter,
        ranges=np.column_stack([oak.x.min(axis=0), oak.x.max(axis=0)]),
        auc_apparent=bootstrap(oak.y, fit.log_odds(oak.x), auc),
        auc_corrected=optimism_corrected_auc(oak.x, oak.y),
        auc_external=bootstrap(poplar.y, outside, auc),
        slope=bootstrap(poplar.y, outside, lambda y, score: calibration(y, score)[1]),
        intercept=bootstrap(poplar.y, outside, lambda y, score: calibration(y, score)[0]),
        brier_external=brier(poplar.y, outside),
        shrinkage=ratio,
        shrinkage_sd=ratio_sd,
        ridge=ridge_refit(oak, poplar),
    )


@dataclasses.dataclass(frozen=True)
class PneumonitisCheck:
    patients: int
    events: int
    auc: Interval


def check_pneumonitis(data: Path) -> PneumonitisCheck:
    """Rank the patients of a public table by the shipped model, on the inputs that the table has: drug and histology."""
    bundle = load_bundle(BUNDLES / "pneumonitis-evidence")
    if bundle.model is None:
        raise ValueError("the shipped bundle has no model")
    prior = (bundle.model.prior("real-world"),)
    y, scores, known = [], [], {}
    with (data / EVENT_TABLE).open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            classes = frozenset(row["Immunotherapy.Class"].replace(" ", "").split("/"))
            values = {"squamous": float(row["Squamous"]), "ctla4_combination": float("anti-ctla-4" in classes)}
            if len(classes & {"anti-pd-1", "anti-pd-l1"}) == 1:
                values["pd1"] = float("anti-pd-1" in classes)
            key = tuple(sorted(values.items()))
            if key not in known:
                readings = {name: Reading(name, value, "", "entered") for name, value in values.items()}
                known[key] = evaluate(bundle, readings, priors=prior, nsclc=True).probability
            y.append(any(word in row["irAE.1"].lower() for word in PNEUMONITIS_WORDS))
            scores.append(known[key])
    outcome = np.array(y)
    return PneumonitisCheck(len(outcome), int(outcome.sum()), bootstrap(outcome, np.array(scores), auc))


def rounded(values: Any, digits: int = 6) -> Any:
    """Numbers as they are stored: nested lists of floats with as many decimals as are printed."""
    return np.round(np.asarray(values, dtype=float), digits).tolist()


def print_pseudoprogression(result: PseudoprogressionRefit) -> None:
    print(f"progressions with a later scan  {result.lesions}; not confirmed {result.unconfirmed}")
    print(f"progressions without            {result.without_later_scan} (left out)")
    for low, high, part, whole in result.bins:
        print(f"growth {100 * low:3.0f}-{100 * high:3.0f} %  unconfirmed {part}/{whole}")
    names = ("intercept", "ln growth over nadir", "months", "ln nadir/baseline")
    errors = np.sqrt(np.diag(result.fit.covariance))
    for name, value, error in zip(names, result.fit.coefficients, errors, strict=True):
        print(f"coefficient {name:22s} {value:+.6f} (standard error {error:.6f})")
    print("origins              ", rounded(result.origins))
    print(f"left-out calibration slope {result.shrinkage:.3f} (standard error {result.shrinkage_sd:.3f})")
    print("shipped coefficients ", rounded(result.shipped))
    print("shipped covariance   ", rounded(result.shipped_covariance))
    print("range                ", rounded(result.ranges))
    print(f"leave-one-trial-out AUC, all            {result.auc_all}")
    print(f"leave-one-trial-out AUC, from baseline  {result.auc_from_baseline}")
    print(f"left-out calibration intercept {result.calibration_intercept:.3f}")
    print(f"left-out Brier score {result.brier:.3f}")


def print_hyperprogression(result: HyperprogressionRefit) -> None:
    print(
        f"OAK atezolizumab     {result.events}/{result.patients} deaths within 12 weeks, {result.unknown} left earlier"
    )
    print(
        f"POPLAR atezolizumab  {result.external_events}/{result.external_patients}, {result.external_unknown} left earlier"
    )
    names = ("intercept", "ECOG >= 1", "metastatic sites", "ln SLD mm")
    errors = np.sqrt(np.diag(result.fit.covariance))
    for name, value, error in zip(names, result.fit.coefficients, errors, strict=True):
        print(f"coefficient {name:18s} {value:+.4f} (standard error {error:.4f})")
    print("means                ", rounded(result.means))
    print("centred coefficients ", rounded(result.centred.coefficients))
    print("centred covariance   ", rounded(result.centred.covariance))
    print("range                ", rounded(result.ranges))
    print(f"OAK AUC, apparent    {result.auc_apparent}; corrected for optimism {result.auc_corrected:.3f}")
    met = "met" if round(result.auc_external.value, 3) >= LEAST_AUC else "missed"
    pairs = result.external_events * (result.external_patients - result.external_events)
    print(f"POPLAR AUC           {result.auc_external}; demanded {LEAST_AUC:.2f}: {met} to three digits,")
    print(f"                     {result.auc_external.value * pairs:.1f} of {pairs} pairs ranked rightly")
    print(f"POPLAR calibration   slope {result.slope}, intercept {result.intercept}")
    print(f"POPLAR Brier score   {result.brier_external:.3f}")
    ridge = result.ridge
    print(f"nine covariates, L2  POPLAR AUC {ridge.auc_external}, slope {ridge.slope}, intercept {ridge.intercept};")
    print(f"                     penalty {ridge.penalty:g} chosen inside OAK; not shipped")
    print(f"adjusted/unadjusted  {result.shrinkage}; standard deviation {result.shrinkage_sd:.3f}")


def performance(auc_interval: Interval, slope: float, intercept: float, score: float, scheme: str) -> dict[str, Any]:
    return {
        "auc": rounded_interval(auc_interval),
        "calibration_slope": round(slope, 3),
        "calibration_intercept": round(intercept, 3),
        "brier": round(score, 3),
        "scheme": scheme,
    }


def rounded_interval(interval: Interval) -> dict[str, float]:
    return {name: round(value, 3) for name, value in dataclasses.asdict(interval).items()}


def update(bundle: Path, linear: dict[str, Any], card: dict[str, Any], model: dict[str, Any] | None = None) -> None:
    """Store fitted numbers in a bundle, leave the rest as it is, and seal it."""
    model_path, card_path = bundle / "model.json", bundle / "card.json"
    stored_model = json.loads(model_path.read_text(encoding="utf-8"))
    stored_model["regression"].update(linear)
    for key, value in (model or {}).items():
        stored_model[key].update(value)
    stored_card = json.loads(card_path.read_text(encoding="utf-8"))
    for key, value in card.items():
        stored_card[key].update(value)
    write_text(model_path, json.dumps(stored_model, indent=2, ensure_ascii=False) + "\n")
    write_text(card_path, json.dumps(stored_card, indent=2, ensure_ascii=False) + "\n")
    seal_bundle(bundle)


def write_pseudoprogression(result: PseudoprogressionRefit) -> None:
    update(
        BUNDLES / "pseudoprogression-evidence",
        {
            "coefficients": rounded(result.shipped),
            "covariance": rounded(result.shipped_covariance),
            "origins": rounded(result.origins),
            "spreads": rounded(result.spreads),
            "location": rounded(result.location),
            "scatter": rounded(result.scatter),
        },
        {
            "training": {"patients": result.lesions, "events": result.unconfirmed},
            "validation": {
                "internal": performance(
                    result.auc_all,
                    result.calibration_slope,
                    result.calibration_intercept,
                    result.brier,
                    "leave one of five trials out, before the coefficients were multiplied by the calibration slope found so; "
                    "2,000 bootstrap resamples",
                )
            },
        },
    )


def write_hyperprogression(result: HyperprogressionRefit) -> None:
    corrected = Interval(result.auc_corrected, result.auc_apparent.lower, result.auc_apparent.upper)
    update(
        BUNDLES / "hyperprogression-evidence",
        {
            "intercept": round(float(result.centred.coefficients[0]), 6),
            "coefficients": rounded(result.centred.coefficients[1:]),
            "covariance": rounded(result.centred.covariance),
            "origins": rounded(result.means),
            "spreads": rounded(result.spreads),
            "location": rounded(result.location),
            "scatter": rounded(result.scatter),
        },
        {
            "training": {"patients": result.patients, "events": result.events},
            "validation": {
                "internal": {
                    "auc": rounded_interval(corrected),
                    "calibration_slope": None,
                    "calibration_intercept": None,
                    "brier": None,
                    "scheme": "OAK, corrected for optimism by 500 bootstrap refits; interval of the apparent AUC",
                },
                "external": performance(
                    result.auc_external,
                    result.slope.value,
                    result.intercept.value,
                    result.brier_external,
                    f"POPLAR atezolizumab, {result.external_events} of {result.external_patients} events; "
                    "2,000 bootstrap resamples; the regression alone, without the pooled odds ratios",
                ),
            },
        },
        {
            "shrinkage": {
                "factor": round(result.shrinkage.value, 2),
                "standard_deviation": round(result.shrinkage_sd, 2),
            }
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("flag", choices=("pseudoprogression", "hyperprogression", "pneumonitis"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with the trial tables")
    parser.add_argument("--write", action="store_true", help="store the numbers in the shipped bundle and seal it")
    options = parser.parse_args(arguments)
    if options.flag == "pseudoprogression":
        growth = refit_pseudoprogression(options.data)
        print_pseudoprogression(growth)
        if options.write:
            write_pseudoprogression(growth)
    elif options.flag == "pneumonitis":
        check = check_pneumonitis(options.data)
        print(f"{check.events} events in {check.patients} patients: too few to train or to judge a model")
        print(f"AUC of drug and histology alone  {check.auc}")
    else:
        death = refit_hyperprogression(options.data)
        print_hyperprogression(death)
        if options.write:
            write_hyperprogression(death)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
