"""The three flags of one patient, and the scores beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..analysis import (
    AlignmentRecord,
    ContextScore,
    FeatureDelta,
    Features,
    Flag,
    Lesion,
    LungChange,
    LungMeasures,
    Response,
    TimepointRecord,
)
from ..errors import InputError
from ..study import Clinical, Study, clinical_limits
from .bundles import Bundle, load_bundle, shipped_bundles
from .case import Case
from .context import context_scores
from .hyperprogression import assess_hyperprogression, sites_reading
from .pneumonitis import assess_pneumonitis
from .pseudoprogression import assess_pseudoprogression

QUESTIONS = ("pseudoprogression", "hyperprogression", "pneumonitis")


def assess(
    study: Study,
    *,
    timepoints: tuple[TimepointRecord, ...],
    lesions: tuple[Lesion, ...],
    lungs: tuple[LungMeasures, ...],
    lung_changes: tuple[LungChange, ...],
    response: Response,
    alignments: tuple[AlignmentRecord, ...],
    features: tuple[Features, ...] = (),
    deltas: tuple[FeatureDelta, ...] = (),
    seed: int = 0,
    bundles: Sequence[Path] | None = None,
) -> tuple[tuple[Flag, Flag, Flag], tuple[ContextScore, ...]]:
    """Answer the three questions about one patient.

    Parameters
    ----------
    study
        What was entered.
    timepoints, lesions, lungs, lung_changes, response, alignments, features, deltas
        The results of the earlier stages.
    seed
        Of the random draws behind the intervals.
    bundles
        Folders of bundles that take the place of the shipped ones: of each flag an evidence bundle and a trained one (its
        radiomics arm) at most.

    Returns
    -------
    tuple
        The flags in the order pseudoprogression, hyperprogression, pneumonitis; and the context scores.

    Raises
    ------
    InputError
        If a clinical value is impossible, or a bundle is damaged, answers none of the three questions, or does the same as another.
    """
    if problems := list(_impossible(study.clinical)):
        raise InputError(problems)
    chosen = choose_bundles(bundles or ())
    case = Case(
        study=study,
        timepoints=timepoints,
        lesions=lesions,
        lungs=lungs,
        lung_changes=lung_changes,
        response=response,
        alignments=alignments,
        features=features,
        deltas=deltas,
        seed=seed,
    )
    evidence, trained = chosen.evidence, chosen.trained
    flags = (
        assess_pseudoprogression(case, evidence["pseudoprogression"], trained.get("pseudoprogression")),
        assess_hyperprogression(case, evidence["hyperprogression"], trained.get("hyperprogression")),
        assess_pneumonitis(case, evidence["pneumonitis"], trained.get("pneumonitis")),
    )
    return flags, context_scores(case, sites_reading(case).value)


def _impossible(clinical: Clinical) -> Iterator[str]:
    """Yield what no patient has: a file is checked when it is read, a study that was made in Python is not."""
    for name, (low, high, unit) in clinical_limits().items():
        value = getattr(clinical, name)
        if value is not None and not low <= value <= high:
            yield f"clinical.{name} is {value:g}; {low:g} to {high:g} is possible, {unit}."


@dataclass(frozen=True)
class Chosen:
    """The bundles in use by their flag: the evidence models, and the trained bundles of the radiomics arms."""

    evidence: dict[str, Bundle]
    trained: dict[str, Bundle]


def choose_bundles(paths: Sequence[Path]) -> Chosen:
    """Return the bundles of each flag: the given ones, else the shipped ones.

    Raises
    ------
    InputError
        As ``assess`` does.
    """
    given = Chosen({}, {})
    problems: list[str] = []
    for path in paths:
        try:
            bundle = load_bundle(path)
        except InputError as error:
            problems += error.problems
            continue
        flag, kind = bundle.card.flag, "evidence" if bundle.model is not None else "trained"
        known: dict[str, Bundle] = getattr(given, kind)
        if flag not in QUESTIONS:
            problems.append(f"{path}: a bundle about {flag} answers none of {', '.join(QUESTIONS)}.")
        elif flag in known:
            problems.append(f"{path}: {known[flag].folder} answers {flag} already; give one {kind} bundle per flag.")
        else:
            known[flag] = bundle
    if problems:
        raise InputError(problems)
    shipped = [load_bundle(path) for path in shipped_bundles()]
    return Chosen(
        {**{item.card.flag: item for item in shipped if item.model is not None}, **given.evidence},
        {**{item.card.flag: item for item in shipped if item.predictor is not None}, **given.trained},
    )
