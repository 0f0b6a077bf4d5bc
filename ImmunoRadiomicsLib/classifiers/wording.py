"""Probabilities and reasons in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis import Evidence
from .bundles import Card
from .engine import Posterior
from .model import ContextItem


def percent(probability: float) -> str:
    """Return a probability as a percentage with as many digits as it can bear.

    >>> percent(0.0279), percent(0.0912), percent(0.437)
    ('2.8 %', '9 %', '44 %')
    """
    value = 100 * probability
    return f"{value:.1f} %" if value < 4.95 else f"{value:.0f} %"


def span(posterior: Posterior) -> str:
    """Return probability and interval as one phrase."""
    return f"{percent(posterior.probability)} (90 % interval {percent(posterior.lower)} to {percent(posterior.upper)})"


def sentence(parts: Sequence[str]) -> str:
    """Join phrases into one sentence that begins with a capital letter and ends with a full stop."""
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def context_evidence(item: ContextItem, card: Card) -> Evidence:
    """Return a published fact as evidence without weight."""
    return Evidence(item.title, item.text, 0.0, None, None, "context", card.cite(item.source))


def missing_names(evidence: Sequence[Evidence]) -> str:
    """Return what would have counted and is not known, as one phrase; empty where nothing is missing."""
    names = list(dict.fromkeys(item.name for item in evidence if item.use == "missing"))
    return f"not known: {', '.join(names)}" if names else ""
