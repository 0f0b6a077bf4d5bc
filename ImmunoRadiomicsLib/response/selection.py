"""Which lesions to follow as targets: a proposal with reasons, for a person to change.

RECIST 1.1, doi 10.1016/j.ejca.2008.10.026: measurability, at most 5 targets and 2 per organ, largest first, all organs represented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..organs import organ_group
from .measurements import tenths

Tissue = Literal["solid", "cystic", "lytic bone with soft tissue", "blastic bone", "diffuse"]
ProposedRole = Literal["target", "non-target", "new-target", "new-non-target", "normal"]


@dataclass(frozen=True)
class Candidate:
    """A segmented lesion that may become a target.

    ``reproducible``: its border can be measured again; ``irradiated``: it lies in an earlier radiation field and has not progressed
    since. ``tissue``: blastic bone and diffuse disease (effusion, lymphangitis, leptomeningeal) cannot be measured.
    """

    lesion: str
    organ: str
    node: bool
    long_mm: float | None
    short_mm: float | None
    tissue: Tissue = "solid"
    irradiated: bool = False
    reproducible: bool = True

    @property
    def size_mm(self) -> float | None:
        """The diameter that counts: the short axis of a node, the long axis of anything else."""
        return self.short_mm if self.node else self.long_mm


@dataclass(frozen=True)
class Proposal:
    """The proposed role of one lesion and why; `normal` is a lymph node of normal size, which is not followed."""

    lesion: str
    role: ProposedRole
    reason: str


def too_many_targets(
    lesions: Sequence[tuple[str, str, bool]], name: str = "target", *, most: int = 5, most_per_organ: int = 2
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what is said, and of which lesions, where there are more targets than RECIST 1.1 takes.

    ``lesions`` are (lesion, organ, node). All of them stay in the sum: leaving one out afterwards would be a choice by result.
    """
    found = []
    if len(lesions) > most:
        names = tuple(lesion for lesion, _, _ in lesions)
        found.append((f"{len(names)} {name} lesions; RECIST 1.1 takes {most} at most. All are in the sum.", names))
    groups: dict[str, list[str]] = {}
    for lesion, organ, node in lesions:
        if organ or node:
            groups.setdefault(organ_group(organ, node=node), []).append(lesion)
    for organ in sorted(groups):
        if len(groups[organ]) > most_per_organ:
            text = f"{len(groups[organ])} {name} lesions in {organ} ({', '.join(groups[organ])}); "
            text += f"RECIST 1.1 takes {most_per_organ} per organ at most. All are in the sum."
            found.append((text, tuple(groups[organ])))
    return tuple(found)


def smallest_measurable_mm(*, node: bool, slice_thickness_mm: float, always_twice: bool = False) -> float:
    """Return the smallest size that is measurable: 10 mm, or 15 mm for the short axis of a node, on slices up to 5 mm.

    On thicker slices it is at least twice their thickness; ``always_twice`` asks for that on every slice.
    """
    least = 15.0 if node else 10.0
    return max(least, 2 * slice_thickness_mm) if always_twice or slice_thickness_mm > 5 else least


def propose_targets(
    candidates: Sequence[Candidate],
    *,
    slice_thickness_mm: float,
    new: bool = False,
    most: int = 5,
    most_per_organ: int = 2,
    always_twice: bool = False,
) -> tuple[Proposal, ...]:
    """Propose the role of every lesion at baseline, or of every new lesion at a follow-up (``new``), in the order given.

    Measurable lesions are taken by size, first one of every organ, then a second; solid ones before cystic ones, and ones that can be
    measured again before others.
    """
    target: ProposedRole = "new-target" if new else "target"
    other: ProposedRole = "new-non-target" if new else "non-target"
    proposals: dict[str, Proposal] = {}
    measurable = []
    for item in candidates:
        role, reason = _measurability(
            item,
            smallest_measurable_mm(node=item.node, slice_thickness_mm=slice_thickness_mm, always_twice=always_twice),
        )
        if role == "target":
            measurable.append(item)
        else:
            proposals[item.lesion] = Proposal(item.lesion, other if role == "non-target" else "normal", reason)
    measurable.sort(
        key=lambda item: (not item.reproducible, item.tissue == "cystic", -(item.size_mm or 0), item.lesion)
    )
    rank: dict[str, int] = {}
    turns = []
    for item in measurable:
        organ = organ_group(item.organ, node=item.node) or item.lesion
        rank[organ] = rank.get(organ, 0) + 1
        turns.append((rank[organ], item, organ))
    taken = 0
    for turn, item, organ in sorted(turns, key=lambda entry: entry[0]):
        size = f"{item.size_mm:.1f} mm {'short' if item.node else 'long'} axis"
        if turn > most_per_organ:
            proposals[item.lesion] = Proposal(
                item.lesion, other, f"measurable ({size}), but {most_per_organ} of {organ} are targets"
            )
        elif taken >= most:
            proposals[item.lesion] = Proposal(
                item.lesion, other, f"measurable ({size}), but {most} lesions are targets"
            )
        else:
            taken += 1
            place = "largest" if turn == 1 else "next largest"
            proposals[item.lesion] = Proposal(item.lesion, target, f"{place} measurable lesion of {organ} ({size})")
    return tuple(proposals[item.lesion] for item in candidates)


def _measurability(item: Candidate, least: float) -> tuple[Literal["target", "non-target", "normal"], str]:
    size = item.size_mm
    axis = "short" if item.node else "long"
    if item.node and size is not None and tenths(size) < 100:
        return "normal", f"lymph node with a short axis of {size:.1f} mm, below 10 mm: normal"
    if item.tissue in ("blastic bone", "diffuse"):
        return "non-target", f"{item.tissue} disease cannot be measured"
    if item.irradiated:
        return "non-target", "irradiated before and not progressed since"
    if size is None:
        return "non-target", f"its {axis} axis is not known"
    if tenths(size) < tenths(least):
        return (
            "non-target",
            f"{axis} axis of {size:.1f} mm, below the {least:g} mm of a measurable {'node' if item.node else 'lesion'}",
        )
    return "target", ""
