"""Tumours: where they sit, what form they have at each time point, and how they look.

A tumour is the inside of a level set (mm, negative inside) that is made of one or more blobs and bounded by the organ it
grows in. Blobs are anchored in the tissue of the baseline, but keep their own form when the patient breathes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..errors import StageError
from .deformation import Deformation
from .growth import GrowthLaw, law_for_factor
from .lattice import Lattice, smooth_noise
from .scenario import LesionPlan, Organ, Scenario
from .thorax import Thorax

# Tumours keep this distance, in mm, in the successive draws of their places.
_GAPS_MM = (8.0,) * 6 + (5.0,) * 4 + (3.0,) * 4

_LIVER_HU, _NODE_HU, _TUMOUR_HU, _NECROSIS_HU = 72.0, 82.0, 52.0, 16.0


@dataclass(frozen=True, eq=False)
class Form:
    """A star-shaped body: an ellipsoid with lobes and spicules; vectors are (z, y, x).

    ``axes`` are relative semi-axes with product 1 along the rows of ``frame``; ``directions``, ``heights`` and
    ``sharpness`` describe bumps of the surface, broad ones (lobes) and narrow ones (spicules).
    """

    axes: np.ndarray
    frame: np.ndarray
    directions: np.ndarray
    heights: np.ndarray
    sharpness: np.ndarray

    def relative_radius(self, unit: np.ndarray) -> np.ndarray:
        """Return the radius along unit vectors (..., 3) in the frame of the ellipsoid, before normalisation."""
        radius = np.ones(unit.shape[:-1], dtype=np.float32)
        for direction, height, sharpness in zip(self.directions, self.heights, self.sharpness, strict=True):
            radius += np.float32(height) * np.exp(np.float32(sharpness) * (unit @ direction - np.float32(1.0)))
        return radius

    @property
    def cubic_mean(self) -> float:
        """Cube root of the mean cubed radius: the radius of the sphere of equal volume."""
        return float(np.mean(self.relative_radius(_sphere_directions(4000)) ** 3.0) ** (1.0 / 3.0))

    @property
    def reach(self) -> float:
        """Largest distance of the surface from the middle, for a volume of that of the unit sphere."""
        return float(self.relative_radius(_sphere_directions(4000)).max() * self.axes.max() / self.cubic_mean)

    def level(self, points: np.ndarray, radius_mm: float, turn: np.ndarray) -> np.ndarray:
        """Return the level set at points (..., 3) around the middle, for a volume of 4/3 pi radius³; ``turn`` rotates it."""
        local = (points @ (turn @ self.frame.T).astype(np.float32)) / self.axes.astype(np.float32)
        distance = np.sqrt(np.einsum("...i,...i", local, local))
        unit = local / np.maximum(distance, 1e-6)[..., None]
        return distance - np.float32(radius_mm / self.cubic_mean) * self.relative_radius(unit)


@dataclass(frozen=True, eq=False)
class Blob:
    """One part of a tumour at one time point: its form, the radius of its volume and where it is off the anchor."""

    form: Form
    radius_mm: float
    offset: np.ndarray


@dataclass(frozen=True, eq=False)
class Tumour:
    """One planned lesion with its place, form and growth.

    ``anchor`` is a point of the baseline; ``partner`` is the index of the lesion it merges with, ``axis`` the direction
    along which it splits. ``volume_ml`` is the viable volume that the law's 1 stands for.
    """

    id: str
    plan: LesionPlan
    anchor: np.ndarray
    offset: np.ndarray
    form: Form
    fragments: tuple[Form, Form]
    axis: np.ndarray
    law: GrowthLaw
    volume_ml: float
    event_day: float
    partner: int | None
    necrosis: float
    texture_seed: int

    @property
    def node(self) -> bool:
        """Whether it is a lymph node."""
        return self.plan.organ == "lymph node"

    def volume_at(self, day: float) -> tuple[float, float]:
        """Return viable and inflammatory volume in ml as the growth law has them, before any clipping by the organ."""
        return self.volume_ml * self.law.viable(day), self.volume_ml * self.law.inflamed(day)

    def is_split(self, day: float) -> bool:
        """Whether the tumour is in two parts at a day."""
        return self.plan.fate == "split" and day >= self.event_day

    def blobs(self, day: float) -> tuple[Blob, ...]:
        """Return the parts that can be seen at a day; none where there is nothing to see."""
        volume = sum(self.volume_at(day))
        if volume <= 0:
            return ()
        radius = _radius(volume)
        if not self.is_split(day):
            return (Blob(self.form, radius, self.offset),)
        first, second = radius * 0.55 ** (1 / 3), radius * 0.45 ** (1 / 3)
        gap = first * self.fragments[0].reach + second * self.fragments[1].reach + 4.0
        share = first / (first + second)
        return (
            Blob(self.fragments[0], first, self.offset + self.axis * gap * (1.0 - share)),
            Blob(self.fragments[1], second, self.offset - self.axis * gap * share),
        )

    def reach_over(self, days: list[int]) -> float:
        """How far from the anchor, in mm, the tumour gets at any of these days."""
        reaches = [
            blob.radius_mm * blob.form.reach + float(np.linalg.norm(blob.offset))
            for day in days
            for blob in self.blobs(day)
        ]
        return max(reaches, default=0.0)


def plan_tumours(scenario: Scenario, thorax: Thorax, rng: np.random.Generator, room: Lattice) -> tuple[Tumour, ...]:
    """Give every lesion of a scenario its form, growth and place, in the order of the scenario.

    ``room`` is the scan; tumours stay away from its ends and from each other. Where one finds no place, all places are
    drawn again, at last closer together.

    Raises
    ------
    StageError
        If a lesion finds no place in its organ in any draw.
    """
    drafts = _drafts(scenario, rng)
    days = [scenario.day(item) for item in scenario.timepoints]
    reach = [draft.reach_over(days) for draft in drafts]
    for i, draft in enumerate(drafts):
        if draft.partner is not None:
            reach[i] = max(reach[i], reach[draft.partner])
    space = _Space(thorax, room)
    for gap_mm in _GAPS_MM:
        try:
            anchors = _places(drafts, reach, space, gap_mm, rng)
        except StageError as error:
            refusal = error
        else:
            return tuple(replace(draft, anchor=anchors[i]) for i, draft in enumerate(drafts))
    raise refusal


def _places(
    drafts: list[Tumour], reach: list[float], space: _Space, gap_mm: float, rng: np.random.Generator
) -> dict[int, np.ndarray]:
    """Return the anchor of every tumour, the largest placed first."""
    taken: list[tuple[np.ndarray, float]] = []
    anchors: dict[int, np.ndarray] = {}
    for i in sorted(range(len(drafts)), key=lambda i: -reach[i]):
        if i in anchors:
            continue
        draft = drafts[i]
        anchor = space.place(draft.plan.organ, i + 1, _radius(draft.volume_ml), reach[i], taken, gap_mm, rng)
        anchors[i] = anchor
        if draft.partner is not None:
            anchors[draft.partner] = anchor
        taken.append((anchor, reach[i]))
    return anchors


def _drafts(scenario: Scenario, rng: np.random.Generator) -> list[Tumour]:
    first = scenario.followups[0]
    first_day, start_day = float(scenario.day(first)), float(scenario.treatment_day)
    days = {item.name: float(scenario.day(item)) for item in scenario.timepoints}
    merging = [i for i, plan in enumerate(scenario.lesions) if plan.fate == "merge"]
    partners = {a: b for pair in zip(merging[::2], merging[1::2], strict=True) for a, b in (pair, pair[::-1])}
    drafts = []
    for i, plan in enumerate(scenario.lesions):
        event_day = days.get(plan.fate_at or first.name, first_day)
        smooth = plan.fate in ("merge", "split") or plan.organ in ("lymph node", "liver")
        spiculation = rng.uniform(0.1, 0.9) if plan.spiculation is None else plan.spiculation
        drawn_necrosis = max(rng.uniform(-0.6, 0.8), 0.0) if plan.diameter_mm > 20 else 0.0
        form = _form(rng, 0.05 if smooth else spiculation, 1.12 if plan.fate == "merge" else 1.45)
        axis = rng.normal(size=3) * np.array([0.35, 1.0, 1.0])
        axis /= np.linalg.norm(axis)
        if plan.fate == "split":
            form = _along(form, axis)
        law = _law(scenario, plan, first_day, start_day, event_day, rng)
        volume = math.pi / 6.0 * plan.diameter_mm**3 / 1000.0
        if plan.fate == "new":
            volume /= law.viable(event_day)
        drafts.append(
            Tumour(
                id=f"L{i + 1}",
                plan=plan,
                anchor=np.zeros(3),
                offset=np.zeros(3),
                form=form,
                fragments=(_form(rng, 0.05, 1.1), _form(rng, 0.05, 1.1)),
                axis=axis,
                law=law,
                volume_ml=volume,
                event_day=event_day,
                partner=partners.get(i),
                necrosis=drawn_necrosis if plan.necrosis is None else plan.necrosis,
                texture_seed=int(rng.integers(2**31)),
            )
        )
    for a, b in partners.items():
        if a < b:
            drafts[a], drafts[b] = _merging_pair(drafts[a], drafts[b])
    return drafts


def _merging_pair(first: Tumour, second: Tumour) -> tuple[Tumour, Tumour]:
    """Put two tumours side by side, 4 mm apart at the baseline, and let them grow so that they meet at their day."""
    radii = [_radius(item.volume_ml) for item in (first, second)]
    gap = radii[0] * first.form.reach + radii[1] * second.form.reach + 4.0
    # 12 % of overlap of the spheres: a firm bridge on any grid.
    factor = (1.12 * gap / sum(radii)) ** 3
    day = first.event_day
    law = law_for_factor(factor, day, start_day=first.law.start_day, rate_before=0.001)
    share = radii[0] / sum(radii)
    return (
        replace(first, law=law, offset=first.axis * gap * (1.0 - share)),
        replace(second, law=law, offset=-first.axis * gap * share, event_day=day),
    )


def _law(
    scenario: Scenario, plan: LesionPlan, first_day: float, start_day: float, event_day: float, rng: np.random.Generator
) -> GrowthLaw:
    """Return the growth of one lesion: its own factor and fate where given, else what the course of the patient is."""
    before = {
        "hyperprogression": rng.uniform(0.002, 0.005),
        "progression": rng.uniform(0.009, 0.013),
        "stable": rng.uniform(0.0, 0.001),
    }.get(scenario.course, rng.uniform(0.001, 0.005))
    before = before if plan.rate_before is None else plan.rate_before
    # Viable volume at the first follow-up over that at the baseline.
    factor = {
        "response": rng.uniform(0.15, 0.4),
        "stable": rng.uniform(0.9, 1.12),
        "progression": math.exp(before * (start_day + (first_day - start_day) * rng.uniform(0.95, 1.25))),
        "pseudoprogression": rng.uniform(0.55, 0.85),
        "hyperprogression": rng.uniform(4.0, 6.5),
        "mixed": rng.uniform(0.9, 1.1),
    }[scenario.course]
    inflammation = rng.uniform(1.8, 2.6) if scenario.course == "pseudoprogression" else 0.0
    if scenario.course in ("mixed",) or plan.fate != "stable":
        factor = {
            "grow": rng.uniform(1.5, 2.6),
            "shrink": rng.uniform(0.3, 0.6),
            "split": rng.uniform(0.42, 0.5),
            "vanish": 0.5,
            "new": 1.6,
        }.get(plan.fate, factor)
        inflammation = 0.0
    factor = factor if plan.factor is None else plan.factor
    inflammation = inflammation if plan.inflammation is None else plan.inflammation
    law = law_for_factor(
        factor,
        first_day,
        start_day=start_day,
        rate_before=before,
        inflammation=inflammation,
        peak_days=max(first_day - start_day, 20.0),
    )
    if plan.fate == "vanish":
        return replace(law, vanishes_day=event_day)
    if plan.fate == "new":
        # Nothing to see at any scan before; what follows is exponential growth.
        return replace(law, appears_day=event_day, rate_before=0.0, rate_after=math.log(1.6) / 60.0)
    if plan.fate == "split" and event_day > first_day:
        return replace(law, rate_after=math.log(0.45) / (event_day - start_day))
    return law


def _form(rng: np.random.Generator, spiculation: float, elongation: float) -> Form:
    axes = np.exp(rng.uniform(-1, 1, 3) * math.log(elongation) / 2.0)
    axes /= np.prod(axes) ** (1.0 / 3.0)
    frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    lobes, spicules = 6, round(26 * spiculation)
    directions = rng.normal(size=(lobes + spicules, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    roughness = 0.04 + 0.13 * min(spiculation * 2.0, 1.0)
    heights = np.concatenate([rng.uniform(-roughness, roughness, lobes), rng.uniform(0.08, 0.30, spicules)])
    sharpness = np.concatenate([rng.uniform(2.0, 6.0, lobes), rng.uniform(40.0, 140.0, spicules)])
    return Form(axes, frame, directions.astype(np.float32), heights, sharpness)


def _along(form: Form, axis: np.ndarray) -> Form:
    """Stretch a form along an axis."""
    other = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    other /= np.linalg.norm(other)
    frame = np.stack([axis, other, np.cross(axis, other)])
    axes = np.array([1.4, 1.0, 1.0])
    return replace(form, axes=axes / np.prod(axes) ** (1.0 / 3.0), frame=frame)


def _radius(volume_ml: float) -> float:
    return (volume_ml * 1000.0 * 0.75 / math.pi) ** (1.0 / 3.0)


def _sphere_directions(count: int) -> np.ndarray:
    """Return points spread evenly over the unit sphere (a Fibonacci lattice), float32."""
    index = np.arange(count) + 0.5
    height = 1.0 - 2.0 * index / count
    angle = np.pi * (1.0 + 5.0**0.5) * index
    ring = np.sqrt(1.0 - height**2)
    return np.stack([height, ring * np.cos(angle), ring * np.sin(angle)], axis=-1).astype(np.float32)


class _Space:
    """Where in a thorax tumours can sit; ``room`` is the scan."""

    def __init__(self, thorax: Thorax, room: Lattice) -> None:
        self.thorax, self.room = thorax, room

    def place(
        self,
        organ: Organ,
        number: int,
        radius_mm: float,
        reach_mm: float,
        taken: list[tuple[np.ndarray, float]],
        gap_mm: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return a point of the organ where a tumour of this reach fits, ``gap_mm`` from every other."""
        points = self._candidates(organ, radius_mm, reach_mm)
        inside = (points[:, 0] > self.room.low[0] + reach_mm + 8.0) & (
            points[:, 0] < self.room.high[0] - reach_mm - 8.0
        )
        points = points[inside]
        for anchor, other in taken:
            points = points[np.linalg.norm(points - anchor, axis=1) > reach_mm + other + gap_mm]
        if len(points) == 0:
            raise StageError(
                f"lesion {number}: no place is left in the {organ} for a lesion that reaches {reach_mm:.0f} mm; plan fewer or smaller lesions."
            )
        return points[rng.integers(len(points))] + rng.uniform(-1.0, 1.0, 3)

    def _candidates(self, organ: Organ, radius_mm: float, reach_mm: float) -> np.ndarray:
        thorax = self.thorax
        lungs, cage, solid = thorax.lungs, thorax.cage, thorax.solid
        if organ == "lung":
            depth = min(0.7 * reach_mm, 22.0)
            fits = (lungs < -depth) & (cage < -depth)
        elif organ == "pleura":
            # On the chest wall, not on the mediastinum or the diaphragm.
            fits = (np.abs(lungs + 0.35 * radius_mm) < 2.0) & (np.abs(cage + 0.35 * radius_mm + 1.0) < 2.5)
        elif organ == "mediastinum":
            fits = (lungs > 0.0) & (lungs < 7.0) & (solid > 5.0) & (cage < -14.0)
        elif organ == "liver":
            fits = thorax.liver < -min(0.6 * reach_mm, 20.0)
        else:
            fits = (lungs > 2.0) & (solid > 4.0) & (cage < -8.0) & (thorax.liver > 15.0)
        points = thorax.coarse.low + np.argwhere(fits) * np.asarray(thorax.coarse.spacing)
        if organ in ("mediastinum", "lymph node"):
            height = points[:, 0] / thorax.scale[0]
            points = points[(height > -45.0) & (height < 72.0)]
        return points


@dataclass(frozen=True, eq=False)
class Drawn:
    """One tumour, or a conglomerate of two, on the voxels of a time point: the box and the level set in it."""

    members: tuple[int, ...]
    box: tuple[slice, slice, slice]
    part: Lattice
    level: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """The voxels whose centre is inside."""
        return self.level < 0


def draw_tumours(
    tumours: tuple[Tumour, ...], day: float, scan: Lattice, deformation: Deformation, thorax: Thorax
) -> list[Drawn]:
    """Return the level sets of all tumours that can be seen at a day on the voxels of a scan."""
    drawn: list[Drawn] = []
    done: set[int] = set()
    for i, tumour in enumerate(tumours):
        if i in done:
            continue
        members = [i]
        if tumour.partner is not None and day >= tumour.event_day:
            members.append(tumour.partner)
        done.update(members)
        blobs = [blob for member in members for blob in tumours[member].blobs(day)]
        if not blobs:
            continue
        drawn.append(_draw(tuple(members), tumour, blobs, scan, deformation, thorax))
    return drawn


def _draw(
    members: tuple[int, ...],
    tumour: Tumour,
    blobs: list[Blob],
    scan: Lattice,
    deformation: Deformation,
    thorax: Thorax,
) -> Drawn:
    turn = deformation.rotation
    anchor = deformation.forward(tumour.anchor)
    centres = [anchor + turn @ blob.offset for blob in blobs]
    reach = [blob.radius_mm * blob.form.reach + 3.0 for blob in blobs]
    low = np.min([c - r for c, r in zip(centres, reach, strict=True)], axis=0)
    high = np.max([c + r for c, r in zip(centres, reach, strict=True)], axis=0)
    box = scan.box(low - 2 * np.asarray(scan.spacing), high + 2 * np.asarray(scan.spacing))
    part = scan.part(box)
    points = part.points()
    level = np.full(part.shape, 1e3, dtype=np.float32)
    for blob, centre in zip(blobs, centres, strict=True):
        own = blob.form.level((points - centre).astype(np.float32), blob.radius_mm, turn)
        if len(members) > 1:
            # Where two tumours meet, the groove between them fills.
            blend = np.clip(0.5 + 0.5 * (level - own) / 3.0, 0.0, 1.0)
            level = level + (own - level) * blend - 3.0 * blend * (1.0 - blend)
        else:
            level = np.minimum(level, own)
    level = np.maximum(level, _bound(tumour.plan.organ, part, deformation, thorax))
    return Drawn(members, box, part, _without_crumbs(level, len(blobs) if len(members) == 1 else 1))


def _bound(organ: Organ, part: Lattice, deformation: Deformation, thorax: Thorax) -> np.ndarray:
    """Return the level set of the space that a tumour of an organ can take, on the voxels of a part of the scan."""
    if deformation.is_identity:
        points = part.points()
    else:
        nodes = Lattice.covering(part.low - 3.0, part.high + 3.0, 3.0)
        carried = deformation.inverse(nodes.points())
        points = np.stack([nodes.expand(carried[..., i], part) for i in range(3)], axis=-1)
    coarse = thorax.coarse
    if organ == "lung":
        return coarse.at(thorax.lungs, points)
    if organ == "pleura":
        return coarse.at(thorax.lungs, points) - 1.5
    if organ == "liver":
        return coarse.at(thorax.liver, points) + 1.0
    return np.maximum(1.0 - coarse.at(thorax.solid, points), coarse.at(thorax.cage, points) - 1.0)


def _without_crumbs(level: np.ndarray, parts: int) -> np.ndarray:
    """Keep the ``parts`` largest connected pieces of the voxels inside; what is left of others is pushed outside."""
    labels, count = ndimage.label(level < 0, structure=np.ones((3, 3, 3)))
    if count <= parts:
        return level
    sizes = np.bincount(labels.ravel())[1:]
    keep = np.argsort(-sizes, kind="stable")[:parts] + 1
    return np.where((labels > 0) & ~np.isin(labels, keep), np.float32(0.05), level)


def paint_tumour(hu: np.ndarray, drawn: Drawn, tumour: Tumour, inflamed_share: float) -> None:
    """Draw one tumour into the HU (float32) of its box, with partial volume at the surface.

    The inflamed part is the outer shell, a little less dense than the tumour; necrosis is the centre.
    """
    rng = np.random.default_rng(tumour.texture_seed)
    level = drawn.level
    voxel = float(np.prod(drawn.part.spacing)) ** (1.0 / 3.0)
    base = {"liver": _LIVER_HU, "lymph node": _NODE_HU}.get(tumour.plan.organ, _TUMOUR_HU)
    tissue = np.full(level.shape, base, dtype=np.float32)
    tissue += 11.0 * smooth_noise(rng, drawn.part, 4.0) + 9.0 * smooth_noise(rng, drawn.part, 9.0)
    deepest = float(-level.min()) or 1.0
    depth = np.clip(-level / deepest, 0.0, 1.0)
    if inflamed_share > 0:
        shell = (1.0 - inflamed_share) ** (1.0 / 3.0)
        tissue -= 24.0 * np.clip((1.0 - depth - shell) * 6.0 + 0.5, 0.0, 1.0)
    if tumour.necrosis > 0:
        patchy = depth + 0.12 * smooth_noise(rng, drawn.part, 7.0)
        core = np.clip((patchy - (1.0 - 0.75 * tumour.necrosis)) * 5.0, 0.0, 1.0)
        tissue += core * (_NECROSIS_HU - tissue)
    share = np.clip(0.5 - level / voxel, 0.0, 1.0)
    hu += share * (tissue - hu)
