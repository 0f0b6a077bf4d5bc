"""The radiomics arm of a flag: a bundle that was trained on a table, read on this patient, and what it may weigh.

The weight follows from the external validation on the bundle's card and from nothing else. Without one, or where its AUC is not surely
above chance or its calibration slope is not known, the weight is 0 and the arm is shown as context. Otherwise it is
(2 AUC - 1) times the calibration slope, the slope held between 0 and 1: the slope takes back what overfitting
exaggerates, and 2 AUC - 1 (Somers' D, doi:10.1002/sim.4780030207) is 0 at chance and 1 for a perfect ranking, so that an arm that tells
little moves little, also where it repeats what the evidence says already. A bundle trained on simulated patients never weighs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..analysis import Evidence
from ..study import Clinical
from .applicability import FAR_OUT_SHARE, Doubt
from .bundles import Bundle, Card
from .case import Case
from .engine import DRAWS, Contribution, stream
from .trained import SMALLEST_PROBABILITY, Predictor
from .wording import percent

# What words of study.yaml are as numbers, in training tables and here.
CLINICAL_WORDS = {
    "sex": {"female": 0.0, "f": 0.0, "male": 1.0, "m": 1.0},
    "smoking": {"never": 0.0, "former": 1.0, "current": 2.0},
    "ctdna_change": {"favourable": 0.0, "unfavourable": 1.0},
    "setting": {"trial": 0.0, "real-world": 1.0},
}
SIMULATED = "simulation-trained, not for patients"

# Beyond these shares the completed or cut values would speak instead of the patient.
MOST_MISSING = 0.5
MOST_OUTSIDE = 0.25
# The name of the volume by which the largest lesion stands for the patient, as in training.
_VOLUME = "original_shape_MeshVolume"
_WIDTH_95 = 2 * 1.959963984540054


@dataclass(frozen=True, eq=False)
class Arm:
    """What a trained bundle says of a patient: a contribution where it weighs, else evidence without weight; and doubts."""

    contributions: tuple[Contribution, ...] = ()
    context: tuple[Evidence, ...] = ()
    doubts: tuple[Doubt, ...] = ()


def external_weight(card: Card) -> tuple[float, str]:
    """Return how much of its log-odds a trained bundle contributes (0 to 1), and why.

    The rule is that of the module's description.
    """
    if card.simulated:
        return 0.0, f"weight 0: {SIMULATED}"
    external = card.validation.external
    if external is None:
        return 0.0, "weight 0: not validated on patients of another table"
    auc, slope = external.auc, external.calibration_slope
    measured = f"external AUC {auc.value:.2f} ({auc.lower:.2f}-{auc.upper:.2f})"
    if auc.lower <= 0.5:
        return 0.0, f"weight 0: {measured} is not surely above chance"
    if slope is None:
        return 0.0, f"weight 0: {measured}, but the external calibration slope is not known"
    held = min(max(slope, 0.0), 1.0)
    weight = (2.0 * auc.value - 1.0) * held
    return weight, f"weight {weight:.2f}: (2 × AUC - 1) × calibration slope, {measured}, slope {slope:.2f}"


def read_arm(case: Case, bundle: Bundle | None) -> Arm:
    """Read a trained bundle on a patient; nothing where there is no bundle.

    A bundle about lesions is read on every lesion, and the highest probability counts; one about patients is read on the
    largest lesion at baseline, as it was trained. Where more than half of its inputs are not known, more than a quarter of
    them lie outside the range it was trained on, or all together lie farther out than any patient it was trained on, it says nothing.
    """
    if bundle is None or bundle.predictor is None:
        return Arm()
    card, predictor = bundle.card, bundle.predictor
    name = f"Radiomics arm: {card.title}"
    source = card.cite(card.training.source)
    weight, why = external_weight(card)
    if predictor.model.outcome != "probability":
        return _silent(name, source, "gives a hazard, not a probability", why)
    rows = [(lesion, _cells(case, lesion, predictor.model.columns)) for lesion in _lesions(case, predictor)]
    if not rows:
        return _silent(name, source, "no lesion was measured", why)
    lesion, cells = max(rows, key=lambda item: predictor.predict_row(item[1]))
    known = {key: value for key, value in cells.items() if value is not None}
    absent = len(cells) - len(known)
    limits = {item.name: (item.low, item.high) for item in card.inputs}
    outside = [key for key, value in known.items() if not _within(value, *limits[key])]
    if absent > MOST_MISSING * len(cells):
        return _silent(name, source, f"{absent} of its {len(cells)} inputs are not known", why)
    if len(outside) > MOST_OUTSIDE * len(cells):
        said = f"{len(outside)} of its {len(cells)} inputs lie outside the range it was trained on"
        return _silent(name, source, said, why)
    share = predictor.share_farther_out(cells)
    if share == 0.0:
        said = "its inputs together are unlike those of every patient it was trained on"
        return _silent(name, source, said, why)
    unusual = share is not None and share < FAR_OUT_SHARE
    chance = predictor.predict_row(cells)
    notes = [why]
    if lesion is not None:
        notes.append(f"read on {lesion}" if predictor.model.unit == "patient" else f"highest on {lesion}")
    if absent:
        notes.append(f"{absent} of {len(cells)} inputs are not known and counted at the median of the training data")
    if outside:
        notes.append(f"{len(outside)} of {len(cells)} inputs lie outside the training range")
    if share is None:
        notes.append("the bundle does not say how its inputs are distributed together")
    elif unusual:
        notes.append(f"its inputs together are unusual: {100 * share:.1g} % of the training data lie farther out")
    note = "; ".join(notes)
    if weight == 0.0:
        shown = f"{percent(chance)}, {SIMULATED}" if card.simulated else percent(chance)
        return Arm(context=(Evidence(name, shown, 0.0, None, None, "context", source, note),))
    point, draws = _contribution(card, chance, _usual_chance(card, predictor), case.seed)
    counted = Contribution(name, percent(chance), point, draws, source, note)
    doubts = []
    if outside:
        doubts.append(Doubt("caution", f"{len(outside)} inputs of the radiomics arm lie outside its training range"))
    if unusual:
        doubts.append(Doubt("caution", "the inputs of the radiomics arm together are unusual among its training data"))
    return Arm((counted,), doubts=tuple(doubts))


def _silent(name: str, source: str, reason: str, why: str) -> Arm:
    return Arm(context=(Evidence(name, f"not read: {reason}", 0.0, None, None, "context", source, why),))


def _usual_chance(card: Card, predictor: Predictor) -> float:
    """Return the chance of the average patient of the training table, or of the median lesion: earlier cards count patients beside events of lesions."""
    patients, events = card.training.patients, card.training.events
    if predictor.model.unit == "lesion":
        return predictor.predict_row(dict.fromkeys(predictor.model.columns))
    return events / patients if patients and events else 0.5


def _contribution(card: Card, chance: float, usual: float, seed: int) -> tuple[float, np.ndarray]:
    """Return the weighted log-odds against the usual chance, and draws under the AUC's uncertainty."""
    distance = _log_odds(chance) - _log_odds(usual)
    external = card.validation.external
    assert external is not None  # noqa: S101 - without it the weight is 0
    spread = (external.auc.upper - external.auc.lower) / _WIDTH_95
    drawn = stream(seed, "radiomics arm").normal(external.auc.value, spread, DRAWS)
    slope = min(max(external.calibration_slope or 0.0, 0.0), 1.0)
    return external_weight(card)[0] * distance, np.clip(2.0 * drawn - 1.0, 0.0, 1.0) * slope * distance


def _log_odds(chance: float) -> float:
    kept = min(max(chance, SMALLEST_PROBABILITY), 1.0 - SMALLEST_PROBABILITY)
    return math.log(kept / (1.0 - kept))


def _within(value: float, low: float | None, high: float | None) -> bool:
    margin = 1e-9 * max(abs(value), 1.0)
    return (low is None or value >= low - margin) and (high is None or value <= high + margin)


def _lesions(case: Case, predictor: Predictor) -> tuple[str | None, ...]:
    """Return the lesions that a model is read on; None stands for the lungs and the clinical facts alone."""
    measured = {item.lesion: item.values for item in case.features if item.lesion is not None and item.region == "core"}
    if not measured:
        alone = all(column.count(".") < 2 or ".lungs." in column for column in predictor.model.columns)
        return (None,) if alone else ()
    if predictor.model.unit == "lesion":
        return tuple(sorted(measured))
    volumes = {
        item.lesion: item.values.get(_VOLUME) or 0.0
        for item in case.features
        if item.lesion is not None and item.region == "core" and item.timepoint == case.baseline
    }
    return (min(measured, key=lambda lesion: (-volumes.get(lesion, 0.0), str(lesion))),)


def _cells(case: Case, lesion: str | None, columns: Sequence[str]) -> dict[str, float | None]:
    """Return the columns of a training table for one lesion: `timepoint.region.name`, `delta.region.name`, and clinical facts."""
    days = {item.name: item.day for item in case.timepoints}
    later = sorted((day, name) for name, day in days.items() if day > 0)
    first = later[0][1] if later else None
    clinical = clinical_numbers(case.study.clinical)
    cells: dict[str, float | None] = {}
    for column in columns:
        if column.count(".") < 2:
            cells[column] = clinical.get(column)
            continue
        when, region, name = column.split(".", 2)
        of = None if region == "lungs" else lesion
        if when == "delta" or when.startswith("delta-"):
            to = first if when == "delta" else when.removeprefix("delta-")
            changes = next(
                (
                    item.values
                    for item in case.deltas
                    if (item.lesion, item.region, item.earlier, item.later) == (of, region, case.baseline, to)
                ),
                {},
            )
            cells[column] = changes.get(name, (None, None, None))[1]
        else:
            values = next(
                (
                    item.values
                    for item in case.features
                    if (item.lesion, item.region, item.timepoint) == (of, region, when)
                ),
                {},
            )
            cells[column] = values.get(name)
    return cells


def clinical_numbers(clinical: Clinical) -> dict[str, float]:
    """Return the clinical facts that are known and are numbers in a training table."""
    found = {}
    for item in dataclasses.fields(clinical):
        value = getattr(clinical, item.name)
        if isinstance(value, str):
            value = CLINICAL_WORDS.get(item.name, {}).get(value.lower())
        if value is not None:
            found[item.name] = float(value)
    return found
