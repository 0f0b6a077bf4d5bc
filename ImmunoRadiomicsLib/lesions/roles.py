"""Which lesions are followed as targets: a proposal by RECIST 1.1, with its reasons.

Measurable is a lesion of at least 10 mm longest axial diameter, a node of at least 15 mm short axis, and both of at least
twice the slice thickness where that is above 5 mm. Targets are the largest measurable lesions, at most five, at most
two per organ; all nodes together are one organ (doi:10.1016/j.ejca.2008.10.026). New lesions are chosen likewise, as
targets of their own (doi:10.1016/S1470-2045(17)30074-8). A role given by the user always wins, and takes its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..organs import organ_group

Role = Literal["target", "non-target", "new-target", "new-non-target"]

MEASURABLE_MM = 10.0
MEASURABLE_NODE_MM = 15.0
NORMAL_NODE_MM = 10.0
MOST_TARGETS = 5
MOST_PER_ORGAN = 2
THICK_SLICE_MM = 5.0


@dataclass(frozen=True)
class Candidate:
    """A lesion where it first counts: at the baseline, or, ``new``, where it appears after it."""

    id: str
    organ: str
    node: bool
    new: bool
    long_axis_mm: float | None
    short_axis_mm: float | None
    slice_thickness_mm: float
    given: Literal["target", "non-target"] | None = None

    @property
    def size_mm(self) -> float | None:
        """The axis that counts: the short one of a node, the long one of any other lesion."""
        return self.short_axis_mm if self.node else self.long_axis_mm


@dataclass(frozen=True)
class Proposal:
    """The role of one lesion and why."""

    role: Role
    reason: str


def propose_roles(candidates: Iterable[Candidate]) -> dict[str, Proposal]:
    """Propose the role of every lesion, by its id."""
    items = list(candidates)
    proposals: dict[str, Proposal] = {}
    for new in (False, True):
        group = [item for item in items if item.new == new]
        total, per_organ = 0, Counter[str]()
        for item in group:
            if item.given is not None:
                proposals[item.id] = Proposal(_role(item.given == "target", new), "given")
                if item.given == "target":
                    total += 1
                    per_organ[_organ(item)] += 1
        rest = [item for item in group if item.given is None]
        for item in sorted(rest, key=lambda item: (-(item.size_mm or 0.0), item.id)):
            obstacle = _not_measurable(item)
            organ = _organ(item)
            if obstacle is None and total >= MOST_TARGETS:
                obstacle = f"there are already {MOST_TARGETS} larger or given targets"
            if obstacle is None and per_organ[organ] >= MOST_PER_ORGAN:
                obstacle = f"there are already {MOST_PER_ORGAN} larger or given targets in the {organ}"
            if obstacle is None:
                total += 1
                per_organ[organ] += 1
                axis = "short axis" if item.node else "long axis"
                proposals[item.id] = Proposal(_role(True, new), f"measurable: {axis} {item.size_mm:.1f} mm")
            else:
                proposals[item.id] = Proposal(_role(False, new), obstacle)
    return proposals


def _role(target: bool, new: bool) -> Role:
    if new:
        return "new-target" if target else "new-non-target"
    return "target" if target else "non-target"


def _organ(item: Candidate) -> str:
    return organ_group(item.organ, node=item.node)


def _not_measurable(item: Candidate) -> str | None:
    """Say why a lesion is not measurable; None where it is."""
    size = item.size_mm
    if size is None:
        return "it was not measured"
    axis, least = ("short axis", MEASURABLE_NODE_MM) if item.node else ("long axis", MEASURABLE_MM)
    # Tenths of a millimetre, as a reader writes them, so that 9.96 mm counts as 10.0 mm.
    if round(10 * size) < round(10 * least):
        normal = item.node and round(10 * size) < round(10 * NORMAL_NODE_MM)
        note = "; a node this small is normal" if normal else ""
        return f"not measurable: {axis} {size:.1f} mm is below {least:g} mm{note}"
    if item.slice_thickness_mm > THICK_SLICE_MM and size < 2 * item.slice_thickness_mm:
        return (
            f"not measurable: {axis} {size:.1f} mm is below twice the slice thickness of {item.slice_thickness_mm:g} mm"
        )
    return None
