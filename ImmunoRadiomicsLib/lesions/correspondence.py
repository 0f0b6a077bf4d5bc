"""Which contour is which tumour, over any number of time points.

Only geometry speaks: every contour is carried to the space of the reference time point and compared there by overlap,
distance between surfaces, distance between centres and size. Names and order of the segments play no part, except that
a lesion is called after the segment in which it first appears, and after its time point too where an earlier one has a
segment of that name: `L1`, `L1 (followup-1)`.

Time points are taken in the order of their dates. A lesion is looked for where it was last seen. First an optimal
assignment links each contour with at most one lesion; then what is left over tells the events: a lesion left over that
lies in a contour already taken has merged, a contour left over that lies in the place of a lesion is a fragment of
it, any other lesion left over has vanished and any other contour is new.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from ..analysis import LesionEvent, LesionStatus
from ..errors import InputError
from ..study import LesionLink
from ..transforms import invert_points, transform_points
from .geometry import (
    Crop,
    index_to_world,
    shape_of,
    voxel_volume_ml,
    world_to_index,
)

_SAMPLES = 1200


@dataclass(frozen=True)
class Settings:
    """How far apart two contours of one tumour may lie. Lengths in mm, in the space of the reference.

    ``tolerance_mm`` is the misalignment that is expected; ``gate_mm`` the largest gap between two contours that may still
    be one tumour; ``highest_cost`` the cost (0 for identical contours) above which they are two. ``inside_share`` is how
    much of a contour has to lie in another one to be a fragment or a partner of it, ``straddle_share`` how much of a
    contour has to lie where a lesion was for that lesion to be a part of it.
    """

    tolerance_mm: float = 3.0
    gate_mm: float = 6.0
    highest_cost: float = 2.0
    inside_share: float = 0.4
    straddle_share: float = 0.22


@dataclass(frozen=True, eq=False)
class Contour:
    """One segment at one time point, as points of its voxels in the space of the reference (LPS, mm)."""

    name: str
    points: np.ndarray
    volume_ml: float

    @property
    def centre(self) -> np.ndarray:
        """Centre of mass."""
        return self.points.mean(axis=0)

    @property
    def radius_mm(self) -> float:
        """Radius of the ball of the same volume."""
        return (3000.0 * self.volume_ml / (4.0 * math.pi)) ** (1.0 / 3.0)


@dataclass(frozen=True)
class Sighting:
    """One lesion at one time point: its segments there and what happened since the time point before."""

    timepoint: str
    status: LesionStatus
    event: LesionEvent
    segments: tuple[str, ...] = ()
    merged_into: str | None = None
    confidence: float | None = None
    check: str | None = None


@dataclass(frozen=True)
class Track:
    """One lesion over all time points, in the order of their dates."""

    id: str
    sightings: tuple[Sighting, ...]

    def at(self, timepoint: str) -> Sighting:
        """Return the sighting at a time point; KeyError if there is none."""
        for item in self.sightings:
            if item.timepoint == timepoint:
                return item
        raise KeyError(timepoint)


@dataclass(frozen=True, eq=False)
class Scan:
    """The contours of one time point, in the space of the reference.

    ``image`` and ``transform`` (reference to this time point) tell which part of the patient was imaged: a lesion outside
    cannot have vanished. ``readable`` False: there is nothing that lesions could be looked for in.
    """

    timepoint: str
    contours: tuple[Contour, ...]
    image: sitk.Image | None = None
    transform: sitk.Transform | None = None
    readable: bool = True

    def shows(self, points: np.ndarray) -> bool:
        """Say whether at least half of some positions of the reference were imaged."""
        if self.image is None:
            return True
        indices = world_to_index(transform_points(points[:: max(1, len(points) // 50)], self.transform), self.image)
        inside = (indices > -0.5).all(axis=1) & (indices < np.asarray(shape_of(self.image)) - 0.5).all(axis=1)
        return bool(inside.mean() >= 0.5)


def contour(name: str, mask: Crop, ct: sitk.Image, transform: sitk.Transform | None) -> Contour:
    """Carry a segment to the space of the reference.

    Parameters
    ----------
    mask
        The segment's voxels on the grid of ``ct``.
    transform
        Carries positions of the reference to positions of this time point; None at the reference itself.
    """
    indices = mask.indices()
    # A fixed shuffle, because a stride that shares a factor with the row length would leave out whole planes.
    order = np.random.default_rng(0).permutation(len(indices))[:_SAMPLES]
    return Contour(
        name, invert_points(index_to_world(indices[np.sort(order)], ct), transform), len(indices) * voxel_volume_ml(ct)
    )


@dataclass(frozen=True)
class _Pair:
    """How an earlier contour and a later one lie to each other."""

    possible: bool
    cost: float
    old_in_new: float
    new_in_old: float


class _Life:
    """A lesion while the time points are walked through."""

    def __init__(self, identity: str, last: Contour) -> None:
        self.id = identity
        self.last = last
        self.merged_into: _Life | None = None
        self.sightings: list[Sighting] = []

    @property
    def carrier(self) -> _Life:
        """The lesion that carries the measurements of the conglomerate; the lesion itself where there is none."""
        life = self
        while life.merged_into is not None:
            life = life.merged_into
        return life


def follow(
    scans: Sequence[Scan],
    baseline: str,
    *,
    settings: Settings | None = None,
    edits: Sequence[LesionLink] = (),
) -> tuple[Track, ...]:
    """Follow every lesion through all time points.

    Parameters
    ----------
    scans
        In the order of their dates.
    baseline
        The name of the time point at which every lesion that is seen has the event `baseline`.
    edits
        Links that a person set; they come before anything that is found here.

    Returns
    -------
    tuple of Track
        One per lesion, each with a sighting for every time point: `absent` before its first.

    Raises
    ------
    InputError
        If edits name a time point, segment or lesion that is not there, or contradict each other; all of them are named.
    """
    rules = settings or Settings()
    lives: list[_Life] = []
    problems = _problems_of(edits, scans)
    for scan, ids in zip(scans, _ids(scans), strict=True):
        if not scan.readable:
            for life in lives:
                life.sightings.append(Sighting(scan.timepoint, "not evaluated", "not evaluated"))
            continue
        links = _Links(lives, scan, ids, rules)
        problems += links.enter([edit for edit in edits if edit.timepoint == scan.timepoint])
        links.assign()
        links.place_fragments()
        links.find_merged()
        links.record(baseline)
        first: LesionEvent = "baseline" if scan.timepoint == baseline else "present" if scan is scans[0] else "new"
        for parts in links.unclaimed():
            life = _Life(ids[parts[0].name], _union(parts))
            life.sightings.append(Sighting(scan.timepoint, "measured", first, tuple(item.name for item in parts)))
            lives.append(life)
    if problems:
        raise InputError(problems)
    return tuple(_finished(life, scans) for life in lives)


def _ids(scans: Sequence[Scan]) -> list[dict[str, str]]:
    """Return, for each scan, what a lesion is called that is first seen there, by the name of its segment.

    The names of the segments up to that scan alone decide, and not which lesions are first seen in them: so no link of another lesion
    and no later scan can give an id to another lesion.
    """
    taken: set[str] = set()
    result = []
    for scan in scans:
        own = {}
        # Names that are free come first, so that none of them is lost to a name that is made up.
        for name in sorted((item.name for item in scan.contours), key=lambda name: (name in taken, name)):
            identity = name
            while identity in taken:
                identity += f" ({scan.timepoint})"
            taken.add(identity)
            own[name] = identity
        result.append(own)
    return result


def _problems_of(edits: Sequence[LesionLink], scans: Sequence[Scan]) -> list[str]:
    """Say which edits name a time point or a segment that is not there, and which contradict each other."""
    segments = {scan.timepoint: {item.name for item in scan.contours} for scan in scans}
    lesions: dict[tuple[str, str], set[str | None]] = {}
    problems = []
    for edit in dict.fromkeys(edits):
        lesions.setdefault((edit.timepoint, edit.segment), set()).add(edit.lesion)
        if edit.timepoint not in segments:
            problems.append(
                f"links: there is no time point `{edit.timepoint}`; it is one of {', '.join(segments)}. Correct or remove the link."
            )
        elif edit.segment not in segments[edit.timepoint]:
            problems.append(
                f"links: `{edit.segment}` is no lesion segment of {edit.timepoint}, which has {_listed(segments[edit.timepoint])}. "
                "Correct or remove the link."
            )
    problems += [
        f"links: `{segment}` of {timepoint} is said to be a lesion of its own and also to be a part of another. Keep one of the links."
        for (timepoint, segment), named in lesions.items()
        if None in named and len(named) > 1
    ]
    return problems


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _finished(life: _Life, scans: Sequence[Scan]) -> Track:
    before = []
    for scan in scans[: len(scans) - len(life.sightings)]:
        known = scan.readable and scan.shows(life.last.points)
        before.append(
            Sighting(scan.timepoint, "absent", "absent")
            if known
            else Sighting(scan.timepoint, "not evaluated", "not evaluated")
        )
    return Track(life.id, (*before, *life.sightings))


class _Links:
    """The links between the lesions known so far and the contours of one time point, while they are being found."""

    def __init__(self, lives: Sequence[_Life], scan: Scan, ids: Mapping[str, str], rules: Settings) -> None:
        self.scan = scan
        self.ids = ids
        self.rules = rules
        # An order that depends on places alone makes the result independent of the order of the segments.
        self.lives = sorted(lives, key=lambda life: _place(life.last))
        self.contours = sorted(scan.contours, key=_place)
        self.pairs = [[_compare(life.last, item, rules) for item in self.contours] for life in self.lives]
        self.main: dict[int, int] = {}
        self.extra: dict[int, list[int]] = {}
        self.merged: dict[int, int] = {}
        self.confidence: dict[int, float] = {}
        self.alone: set[int] = set()
        self.joined: dict[int, int] = {}
        self.edited: set[int] = set()

    def enter(self, edits: Sequence[LesionLink]) -> list[str]:
        """Enter the links that a person set, and say which of them cannot be.

        Two lesions linked with one contour have merged; two contours linked with one lesion are its parts, also where the lesion
        is called after a contour of this time point because it is first seen here.
        """
        problems = []
        known = {life.id: i for i, life in enumerate(self.lives)}
        places = {item.name: j for j, item in enumerate(self.contours)}
        # A lesion that is first seen here goes by the name of its segment too.
        firsts = places | {self.ids[name]: j for name, j in places.items()}
        claims: dict[int, list[int]] = {}
        sharers: dict[int, list[int]] = {}
        for edit in dict.fromkeys(edits):
            j = places.get(edit.segment)
            if j is None:
                continue
            i = None if edit.lesion is None else known.get(edit.lesion)
            first = j if edit.lesion is None else firsts.get(edit.lesion)
            if i is not None:
                claims.setdefault(i, []).append(j)
                sharers.setdefault(j, []).append(i)
            elif first == j:
                self.alone.add(j)
            elif first is not None:
                self.alone.update((j, first))
                if self._head(first) != j:
                    self.joined[j] = first
            else:
                problems.append(
                    f"links: there is no lesion `{edit.lesion}` before {self.scan.timepoint}; known are {_listed(known)}. "
                    f"Correct or remove the link of `{edit.segment}`."
                )
        problems += self._share(claims, sharers)
        return problems + self._join()

    def _share(self, claims: Mapping[int, Sequence[int]], sharers: Mapping[int, Sequence[int]]) -> list[str]:
        """Give lesions the contours that a person linked with them, in whatever order, and say which cannot be shared.

        ``claims`` are the contours of each lesion, ``sharers`` the lesions of each contour.
        """
        problems = []
        for j, sharing in sharers.items():
            host, *partners = sorted(sharing, key=lambda i: (-self.lives[i].last.volume_ml, i))
            busy = next((i for i in (host, *partners) if partners and len(claims[i]) > 1), None)
            if busy is not None:
                other = next(i for i in (host, *partners) if i != busy)
                problems.append(
                    f"links: at {self.scan.timepoint} `{self.lives[busy].id}` has a segment of its own and shares "
                    f"`{self.contours[j].name}` with `{self.lives[other].id}`. Keep one of the links."
                )
                continue
            for i in partners:
                self.merged[i] = host
                self.confidence[i] = 1.0
            if host not in self.main:
                self.main[host], *more = sorted(claims[host])
                self.confidence[host] = 1.0
                self.edited.add(host)
                if more:
                    self.extra[host] = more
        return problems

    def _join(self) -> list[str]:
        """Give what is joined with a contour that was linked with a lesion to that lesion, and say which joins cannot be."""
        owners = {j: i for i, main in self.main.items() for j in (main, *self.extra.get(i, []))}
        problems = []
        for j in self.joined:
            owner = owners.get(self._head(j))
            if j in owners and owners[j] != owner:
                segment, other = self.contours[j].name, self.contours[self.joined[j]].name
                problems.append(
                    f"links: at {self.scan.timepoint} `{segment}` is said to be a part of `{self.lives[owners[j]].id}` and of `{other}`, "
                    "which has a segment of its own. Keep one of the links."
                )
            elif j not in owners and owner is not None:
                self.extra.setdefault(owner, []).append(j)
        return problems

    def assign(self) -> None:
        """Link lesions and contours one to one so that the sum of costs is lowest."""
        rows = [
            i
            for i, life in enumerate(self.lives)
            if i not in self.main and i not in self.merged and life.merged_into is None
        ]
        columns = [j for j in range(len(self.contours)) if j not in self._claimed()]
        if not rows or not columns:
            return
        # The dummy rows and columns let both sides stay unlinked at the price of the highest cost.
        size = len(rows) + len(columns)
        price = np.full((size, size), 1e6)
        for a, i in enumerate(rows):
            for b, j in enumerate(columns):
                if self.pairs[i][j].possible:
                    price[a, b] = self.pairs[i][j].cost
            price[a, len(columns) + a] = self.rules.highest_cost / 2.0
        for b in range(len(columns)):
            price[len(rows) + b, b] = self.rules.highest_cost / 2.0
        price[len(rows) :, len(columns) :] = 0.0
        for a, b in zip(*linear_sum_assignment(price), strict=True):
            if a < len(rows) and b < len(columns) and price[a, b] < 1e6:
                self.main[rows[a]] = columns[b]
                self.confidence[rows[a]] = self._confidence(rows[a], columns[b])

    def place_fragments(self) -> None:
        """Give each contour left over that lies where a lesion was to that lesion, or to a partner that has come apart again."""
        for j in range(len(self.contours)):
            if j in self._claimed():
                continue
            homes = [
                i
                for i, life in enumerate(self.lives)
                if (i in self.main or life.merged_into is not None)
                and self.pairs[i][j].new_in_old >= self.rules.inside_share
            ]
            if not homes:
                continue
            apart = [i for i in homes if self.lives[i].merged_into is not None and i not in self.main]
            if apart:
                home = max(apart, key=lambda i: self.pairs[i][j].new_in_old)
                self.main[home] = j
            else:
                home = max(homes, key=lambda i: self.pairs[i][j].new_in_old)
                self.extra.setdefault(home, []).append(j)
            self.confidence[home] = min(self.confidence.get(home, 1.0), 0.5 + 0.5 * self.pairs[home][j].new_in_old)

    def find_merged(self) -> None:
        """Give each lesion left over that lies in a contour of another lesion to that one; the largest carries the rest."""
        for i, life in enumerate(self.lives):
            if i in self.main or i in self.merged or life.merged_into is not None:
                continue
            # A person who gave a contour to one lesion has said that it is not part of another.
            hosts = [h for h in self.main if h != i and h not in self.edited and self._swallowed(i, h)]
            if hosts:
                self.merged[i] = max(hosts, key=lambda h: self.pairs[i][self.main[h]].old_in_new)
                self.confidence[i] = self._share_confidence(i, self.main[self.merged[i]])
        for host in set(self.merged.values()):
            partners = [i for i, h in self.merged.items() if h == host]
            carrier = max([host, *partners], key=lambda i: self.lives[i].last.volume_ml)
            if carrier != host:
                self.main[carrier] = self.main.pop(host)
                self.confidence[carrier] = self.confidence.pop(host)
                if host in self.extra:
                    self.extra[carrier] = self.extra.pop(host)
                for i in [host, *partners]:
                    self.merged[i] = carrier
                del self.merged[carrier]
                self.confidence[host] = self._share_confidence(host, self.main[carrier])

    def record(self, baseline: str) -> None:
        """Write down what became of every lesion."""
        carriers = set(self.merged.values())
        before = {id(life): life.sightings[-1] for life in self.lives}
        for i, j in self.main.items():
            life, last = self.lives[i], before[id(self.lives[i])]
            parts = [j, *self.extra.get(i, [])]
            event: LesionEvent = "present"
            check = None
            if i in carriers:
                event = "merged"
            elif len(parts) > max(1, len(last.segments)):
                event = "split"
            elif self.scan.timepoint == baseline:
                event = "baseline"
            if last.event in ("vanished", "absent"):
                check = "seen again at the place where it had vanished"
            sure = self.confidence[i]
            if sure < 0.5:
                check = f"the link with the earlier scan is unsure ({sure:.2f})"
            life.merged_into = None
            life.last = _union([self.contours[part] for part in parts])
            life.sightings.append(
                Sighting(
                    self.scan.timepoint,
                    "measured",
                    event,
                    tuple(self.contours[part].name for part in parts),
                    confidence=sure,
                    check=check,
                )
            )
        for i, host in self.merged.items():
            self.lives[i].merged_into = self.lives[host]
        linked = {id(self.lives[i]) for i in self.main}
        for i, life in enumerate(self.lives):
            if i not in self.main:
                life.sightings.append(self._without_contour(life, before[id(life)], linked, self.confidence.get(i)))

    def unclaimed(self) -> list[list[Contour]]:
        """Return the contours of each lesion that is first seen here, in the order of their places."""
        claimed = {*self.main.values(), *(j for parts in self.extra.values() for j in parts)}
        heads = [j for j in range(len(self.contours)) if j not in claimed and self._head(j) == j]
        return [
            [self.contours[j], *(self.contours[k] for k in self.joined if k != j and self._head(k) == j)] for j in heads
        ]

    def _head(self, j: int) -> int:
        """Return the contour that the lesion of a contour is called after."""
        while j in self.joined:
            j = self.joined[j]
        return j

    def _claimed(self) -> set[int]:
        return {*self.main.values(), *(j for parts in self.extra.values() for j in parts), *self.alone}

    def _without_contour(self, life: _Life, last: Sighting, linked: set[int], confidence: float | None) -> Sighting:
        carrier = life.carrier
        if carrier is not life and id(carrier) in linked:
            sure = carrier.sightings[-1].confidence if confidence is None else confidence
            return Sighting(self.scan.timepoint, "merged", "merged", merged_into=carrier.id, confidence=sure)
        if not self.scan.shows(life.last.points):
            return Sighting(
                self.scan.timepoint, "not evaluated", "not evaluated", check="it lies outside this scan's field of view"
            )
        gone = last.status == "absent"
        return Sighting(self.scan.timepoint, "absent", "absent" if gone else "vanished")

    def _swallowed(self, i: int, host: int) -> bool:
        """Say whether an earlier lesion without a contour is a part of the contour of another lesion."""
        pair = self.pairs[i][self.main[host]]
        # A lesion that touched its neighbour before lies within the tolerance of it without any merging.
        already = _share_inside(self.lives[i].last, self.lives[host].last, self.rules.tolerance_mm)
        if pair.old_in_new >= self.rules.inside_share and pair.old_in_new - already >= 0.3:
            return True
        later = self.contours[self.main[host]]
        mine, theirs = (_distances(later, self.lives[k].last) for k in (i, host))
        straddling = (mine <= self.rules.tolerance_mm) & (mine < theirs)
        return float(straddling.mean()) >= self.rules.straddle_share

    def _share_confidence(self, i: int, j: int) -> float:
        """How sure it is that a lesion has become part of a contour: how much of its place lies there."""
        return 0.5 + 0.5 * self.pairs[i][j].old_in_new

    def _confidence(self, i: int, j: int) -> float:
        """How sure a link is: how cheap it is, and how much dearer the next best one for either side would be."""
        cost = self.pairs[i][j].cost
        rivals = [pair.cost for k, pair in enumerate(self.pairs[i]) if k != j and pair.possible]
        rivals += [row[j].cost for k, row in enumerate(self.pairs) if k != i and row[j].possible]
        lead = min(rivals, default=self.rules.highest_cost * 2.0) - cost
        return float(np.clip(1.0 - 0.5 * (cost / self.rules.highest_cost) ** 2 - 0.5 * math.exp(-4.0 * lead), 0.0, 1.0))


def _compare(old: Contour, new: Contour, rules: Settings) -> _Pair:
    distance = float(np.linalg.norm(old.centre - new.centre))
    reach = old.radius_mm + new.radius_mm
    # Elongated lesions reach farther than the radius of a ball of their volume; three radii are farther than any does.
    if distance > 3.0 * reach + rules.gate_mm:
        return _Pair(False, math.inf, 0.0, 0.0)
    to_old, to_new = _distances(new, old), _distances(old, new)
    gap = max(0.0, float(to_new.min()))
    old_in_new, new_in_old = (float((item <= rules.tolerance_mm).mean()) for item in (to_new, to_old))
    apart = distance / (rules.tolerance_mm + max(old.radius_mm, new.radius_mm))
    size = abs(math.log(max(new.volume_ml, 1e-6) / max(old.volume_ml, 1e-6)))
    cost = apart + (1.0 - max(old_in_new, new_in_old)) + 0.2 * size
    return _Pair(gap <= rules.gate_mm, cost, old_in_new, new_in_old)


def _distances(of: Contour, to: Contour) -> np.ndarray:
    """Distance of each point of one contour to another contour, the spacing of its sample taken off."""
    step = (1000.0 * to.volume_ml / len(to.points)) ** (1.0 / 3.0)
    nearest, _ = cKDTree(to.points).query(of.points)
    return nearest - 0.5 * step


def _share_inside(of: Contour, to: Contour, tolerance_mm: float) -> float:
    return float((_distances(of, to) <= tolerance_mm).mean())


def _union(parts: Sequence[Contour]) -> Contour:
    if len(parts) == 1:
        return parts[0]
    return Contour(
        parts[0].name, np.concatenate([item.points for item in parts]), sum(item.volume_ml for item in parts)
    )


def _place(item: Contour) -> tuple[float, ...]:
    return (*np.round(item.centre, 3).tolist(), item.volume_ml)
