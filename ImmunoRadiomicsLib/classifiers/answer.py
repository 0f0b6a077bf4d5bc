"""The flag that a baseline risk gives: the same form for every question that is answered by one."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis import Definition, Evidence, Flag, Level
from .applicability import Applicability
from .bundles import Bundle
from .engine import Posterior
from .wording import missing_names, sentence


def baseline_risk_flag(
    bundle: Bundle,
    question: str,
    posterior: Posterior,
    applicability: Applicability,
    *,
    level: Level,
    answer: str,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    context: Sequence[Evidence] = (),
    counterfactuals: Sequence[str] = (),
    definitions: Sequence[Definition] = (),
) -> Flag:
    """Return the flag of an evidence bundle's question from the posterior of its baseline risk.

    Where the patient is not assessable, the probability and everything that explains it are withheld; what is known without it
    (``before`` and ``after`` the answer, the definitions, the prior) stays.
    """
    if bundle.model is None:
        raise ValueError("an evidence bundle is needed")
    assessable = applicability.verdict != "not assessable"
    return Flag(
        flag=bundle.model.flag,
        question=question,
        status="assessed" if assessable else "not assessable",
        probability=posterior.probability if assessable else None,
        lower=posterior.lower if assessable else None,
        upper=posterior.upper if assessable else None,
        prior=posterior.prior,
        prior_lower=posterior.prior_lower,
        prior_upper=posterior.prior_upper,
        prior_source=posterior.prior_source,
        level=level if assessable else "not assessable",
        bundle=bundle.card.id,
        bundle_version=bundle.card.version,
        applicability=applicability.verdict,
        reason=sentence(
            [
                *before,
                answer if assessable else "no baseline risk is given",
                *after,
                missing_names(posterior.evidence) if assessable else "",
                *applicability.reasons,
            ]
        ),
        evidence=(*posterior.evidence, *context) if assessable else (),
        counterfactuals=tuple(counterfactuals) if assessable else (),
        definitions=tuple(definitions),
    )
