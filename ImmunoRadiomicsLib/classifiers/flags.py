"""The three flags of one patient, and the scores beside them."""

from __future__ import annotations

from collections.abc import Sequence
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
from ..study import Study
from .bundles import Bundle, load_bundle, shipped_bundles
from .case import Case
from .context import context_scores
from .hyperprogression import assess_hyperprogression, sites_reading
from .pneumonitis import assess_pneumonitis
from .pseudoprogression import assess_pseudoprogression


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
        Folders of evidence bundles that take the place of the shipped ones, one per flag at most.

    Returns
    -------
    tuple
        The flags in the order pseudoprogression, hyperprogression, pneumonitis; and the context scores.

    Raises
    ------
    InputError
        If a bundle is damaged, of a kind that answers no flag by itself, or named twice for one flag.
    """
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
    flags = (
        assess_pseudoprogression(case, chosen["pseudoprogression"]),
        assess_hyperprogression(case, chosen["hyperprogression"]),
        assess_pneumonitis(case, chosen["pneumonitis"]),
    )
    return flags, context_scores(case, sites_reading(case).value)


def choose_bundles(paths: Sequence[Path]) -> dict[str, Bundle]:
    """Return the bundle of each flag: the given one, else the shipped one.

    Raises
    ------
    InputError
        As ``assess`` does.
    """
    given: dict[str, Bundle] = {}
    problems: list[str] = []
    for path in paths:
        try:
            bundle = load_bundle(path)
        except InputError as error:
            problems += error.problems
            continue
        flag = bundle.card.flag
        if bundle.model is None:
            problems.append(
                f"{path}: a bundle of kind {bundle.card.kind} gives no evidence model; give one of kind evidence."
            )
        elif flag in given:
            problems.append(f"{path}: {given[flag].folder} answers {flag} already; give one bundle per flag.")
        else:
            given[flag] = bundle
    if problems:
        raise InputError(problems)
    shipped = [load_bundle(path) for path in shipped_bundles()]
    return {**{item.card.flag: item for item in shipped if item.model is not None}, **given}
