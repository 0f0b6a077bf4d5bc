"""One-click segmentation: the lesion around a point that a person has put into it, in the lung or in soft tissue.

Around the point the image is sampled on an even grid, first in a small window and, where the lesion does not fit, in larger ones.
What has the density of the lesion is told from lung by the middle between both densities and from other soft tissue by
the step of density that most rays from the point meet. In it the point climbs to the middle of the largest ball that
fits; what hangs together with the ball is the lesion unless it goes on into the chest wall, a vessel or an organ of the
same density. Then a random walker (doi:10.1109/TPAMI.2006.233) between the ball and what is no lesion cuts it off at
its neck. Slender things that hang on it, vessels and strands, are taken off by an opening. Where the result is unsure and lung is
near, the search starts again a little beside the point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from ..analysis import Point
from ..errors import InputError
from ..images import Anatomy
from ..progress import Progress, part, silent
from .geometry import Box, Crop, crop_of, distance_to, shape_of, spacing_of, world_to_index

WINDOWS_MM = (26.0, 46.0, 85.0)
NODES_ACROSS = 61
COARSE_NODES = 37
"""Nodes along the side of a window: 0.8 mm apart in the smallest one; coarser ones are enough to choose the densities."""
AIR_HU = -650.0
BONE_HU = 250.0
LUNG_HU = -600.0
EDGE_MM = 1.0
SOFT_MM = 1.6
"""Scales on which borders, and the densities of soft tissue, are read: above the noise of a CT, below the size of a lesion."""
RIM_MM = 2.5
"""How far the blurred border beside lung reaches."""
LIGHT_MM = 0.6
FAT_BORDER_HU = -25.0
SOFT_TOP_HU = 300.0
"""What is denser than the middle between fat (-100) and soft tissue (50), on the image smoothed by ``LIGHT_MM``, is soft tissue;
above the top it is bone, metal or dense contrast."""
PARTED = 0.08
"""A limit of density counts where at least this share of what lies beside the lesion is beyond it."""
IN_LUNG = 0.5
CLEAR = 20.0
CLEARER = 1.7
NEARLY_AS_CLEAR = 0.85
"""From this share of its border against lung on a lesion is one of the lung; other densities are tried for it only below a border
of ``CLEAR``, and have to be ``CLEARER`` times as clear. Elsewhere those of soft tissue need only be nearly as clear, as
the fat around a node is told from lung as clearly as from the node."""
REACH = 2.6
"""A lesion that is cut from its surroundings reaches at most so many radii of the ball in it."""
SMALL_MM = 6.0

COMPACT = 0.75
SOFT_TRUST = 0.5
UNSURE = 0.5
"""The largest ball in a compact lesion has this share of the radius of the ball of its volume; what a result in soft tissue
counts; and the confidence below which a person should look. They were chosen on 18 points in two lesions with experts' contours
and 42 in virtual ones, with an earlier search in soft tissue; `benchmarks/lesions.py --part seed` says what they do now."""
BESIDE_MM = 6.0
BESIDE_STARTS = 3
BESIDE_LUNG = 0.05
BESIDE_TRUST = 0.75
"""Where a result is unsure and at least this share of the smallest window is aerated lung, the search starts again so far from
the point, at most so many times; what is found so counts less."""


@dataclass(frozen=True, eq=False)
class SeedResult:
    """The lesion found around a seed, on the grid of the image.

    ``confidence`` (0 to 1) says how much of its border is seen in the image, whether it is compact and whether it lies in lung;
    ``check`` says why a person should look.
    """

    mask: Crop
    confidence: float
    check: str | None = None


def segment_from_seed(
    volume: sitk.Image, point_lps_mm: Point, *, anatomy: sitk.Image | None = None, progress: Progress = silent
) -> SeedResult:
    """Find the lesion around a point.

    Parameters
    ----------
    volume
        A CT in HU, any orientation.
    point_lps_mm
        Anywhere inside the lesion, LPS.
    anatomy
        Labels of ``images.Anatomy`` on the same grid; with them gas of the airways and of the room is not taken for lung.

    Raises
    ------
    InputError
        If the point lies outside the image, in gas or aerated lung, or in bone or metal.
    """
    seed = world_to_index(np.asarray([point_lps_mm], dtype=float), volume)[0]
    _check_place(volume, seed, anatomy)
    attempts = _search(volume, anatomy, seed, part(progress, 0.0, 0.4))
    # Where the lesion fits in no window, the last one shows most of it.
    result = attempts[-1].result(volume)
    aerated = attempts[0].grower.aerated
    if result.confidence < UNSURE and aerated.mean() >= BESIDE_LUNG:
        result = _search_beside(volume, anatomy, seed, aerated, part(progress, 0.4, 1.0)) or result
    progress(1.0, "Lesion at a point: done")
    return result


def _search(volume: sitk.Image, anatomy: sitk.Image | None, seed: np.ndarray, progress: Progress) -> list[_Attempt]:
    """Search around a seed, an index (z, y, x), in larger and larger windows until the lesion fits."""
    attempts: list[_Attempt] = []
    for number, half in enumerate(WINDOWS_MM):
        progress(number / len(WINDOWS_MM), f"Lesion at a point: within {half:.0f} mm")
        attempts.append(_Attempt(partial(_Window.around, volume, anatomy, seed, half)))
        if attempts[-1].fits:
            break
    progress(0.9, "Lesion at a point: border")
    return attempts


def _search_beside(
    volume: sitk.Image, anatomy: sitk.Image | None, seed: np.ndarray, aerated: np.ndarray, progress: Progress
) -> SeedResult | None:
    """Start again beside a seed, first where most lung lies; return the first sure lesion of the lung that holds the seed.

    A seed at the end of a lesion, on the diaphragm or at the hilum, may climb into the organ there.
    """
    to_lung = np.argwhere(aerated).mean(axis=0) - (np.asarray(aerated.shape) - 1) / 2
    shifts = np.concatenate([np.eye(3), -np.eye(3)]) * BESIDE_MM / np.asarray(spacing_of(volume))
    nearest_first = np.argsort(-np.sign(shifts) @ to_lung, kind="stable")
    for number, shift in enumerate(shifts[nearest_first[:BESIDE_STARTS]]):
        start = seed + shift
        try:
            _check_place(volume, start, anatomy)
        except InputError:
            continue
        found = _search(volume, anatomy, start, part(progress, number / BESIDE_STARTS, (number + 1) / BESIDE_STARTS))
        result = found[-1].result(volume)
        if found[-1].in_lung and result.confidence >= UNSURE and _holds(result.mask, seed):
            note = f"it was found from {BESIDE_MM:.0f} mm beside the point"
            reasons = note if result.check is None else f"{note}; {result.check}"
            return SeedResult(result.mask, BESIDE_TRUST * result.confidence, reasons)
    return None


def _holds(mask: Crop, seed: np.ndarray) -> bool:
    """Say whether a mask holds a place, an index (z, y, x), or one of its neighbours."""
    place = np.rint(seed).astype(int) - np.asarray(mask.offset_zyx)
    return bool(mask.voxels[tuple(slice(max(i - 1, 0), max(i + 2, 0)) for i in place)].any())


def _check_place(volume: sitk.Image, seed: np.ndarray, anatomy: sitk.Image | None) -> None:
    shape = shape_of(volume)
    place = "({:.1f}, {:.1f}, {:.1f})".format(*volume.TransformContinuousIndexToPhysicalPoint(seed[::-1].tolist()))
    if not ((seed > -0.5) & (seed < np.asarray(shape) - 0.5)).all():
        raise InputError(f"seed {place}: the point lies outside the image. Give a point inside it, in LPS millimetres.")
    index = np.clip(np.rint(seed).astype(int), 0, np.asarray(shape) - 1)
    values = sitk.GetArrayViewFromImage(volume)
    near = values[tuple(slice(max(i - 1, 0), i + 2) for i in index)]
    value = float(np.median(near[near.shape[0] // 2]))
    label = None if anatomy is None else sitk.GetArrayViewFromImage(anatomy)[tuple(index)]
    if label == Anatomy.OUTSIDE or value < AIR_HU:
        raise InputError(
            f"seed {place}: the density there is {value:.0f} HU: air or aerated lung. Put the point into the dense part of a lesion."
        )
    if value > BONE_HU:
        raise InputError(
            f"seed {place}: the density there is {value:.0f} HU: bone, contrast or metal. Put the point into the soft part of a lesion."
        )


@dataclass(frozen=True, eq=False)
class _Window:
    """The image around a seed on an even grid.

    Node ``n`` lies at ``start_mm + step * n`` along the axes of the image, in mm from its first voxel. ``shown`` are the
    nodes inside the image, ``room`` those that the anatomy map calls gas outside the lungs.
    """

    values: np.ndarray
    shown: np.ndarray
    room: np.ndarray
    start_mm: np.ndarray
    step: float
    seed: np.ndarray

    @classmethod
    def around(
        cls, volume: sitk.Image, anatomy: sitk.Image | None, seed: np.ndarray, half_mm: float, nodes: int
    ) -> _Window:
        spacing, shape = np.asarray(spacing_of(volume)), np.asarray(shape_of(volume))
        step = 2.0 * half_mm / (nodes - 1)
        start = seed * spacing - half_mm
        axes = [(start[axis] + step * np.arange(nodes)) / spacing[axis] for axis in range(3)]
        low = [max(int(np.floor(axis[0])) - 2, 0) for axis in axes]
        high = [min(int(np.ceil(axis[-1])) + 3, size) for axis, size in zip(axes, shape, strict=True)]
        box: Box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        values = sitk.GetArrayViewFromImage(volume)[box].astype(np.float32)
        sigma = np.sqrt(np.maximum(0.0, (0.4 * step / spacing) ** 2 - 0.15))
        values = ndimage.gaussian_filter(values, sigma, mode="nearest")
        places = np.stack(np.meshgrid(*(axis - first for axis, first in zip(axes, low, strict=True)), indexing="ij"))
        shown = np.ones((nodes,) * 3, dtype=bool)
        for axis in range(3):
            inside = (axes[axis] > -0.5) & (axes[axis] < shape[axis] - 0.5)
            shown &= inside.reshape([-1 if other == axis else 1 for other in range(3)])
        room = ~shown
        if anatomy is not None:
            labels = sitk.GetArrayViewFromImage(anatomy)[box]
            near = ndimage.map_coordinates(labels, places, order=0, mode="nearest")
            room |= (near == Anatomy.OUTSIDE) | (near == Anatomy.AIRWAYS)
        return cls(
            ndimage.map_coordinates(values, places, order=1, mode="nearest"),
            shown,
            room,
            start,
            step,
            np.full(3, half_mm / step),
        )


@dataclass(frozen=True)
class _Band:
    """The densities that belong to a lesion: from ``low`` to ``high``, read on the image smoothed by ``sigma_mm``.

    Beside aerated lung, where the border is blurred, everything above ``lung`` belongs to it.
    """

    low: float
    high: float
    sigma_mm: float
    lung: float


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A possible lesion: what has its density, how deep in it every node lies, its ball, and the chance of every node to be in it."""

    band: _Band
    solid: np.ndarray
    depth: np.ndarray
    centre: np.ndarray
    radius: float
    chance: np.ndarray
    cut: bool
    volume_ml: float
    score: float
    fits: bool


class _Grower:
    """Grows lesions in a window from ranges of density."""

    def __init__(self, window: _Window) -> None:
        self.window = window
        self.step = window.step
        self.spacing = (self.step,) * 3
        self.soft = _soft(window.values, self.spacing)
        values = window.values
        self.aerated = (values < LUNG_HU) & ~window.room
        self.bone = self._bone(values)
        smooth = ndimage.gaussian_filter(values, EDGE_MM / self.step)
        gradient = np.gradient(smooth, self.step)
        self.edge = np.sqrt(sum(part**2 for part in gradient))

    def refined(self, rough: _Candidate) -> _Candidate:
        """Put the limits of density in the middle between a lesion and what lies beside it, and grow again near it."""
        smooth = self.soft
        mask = rough.chance > 0.5
        distance = distance_to(mask, self.spacing)
        shell = smooth[(distance > 1.5) & (distance <= 5.0) & self.window.shown]
        inside = float(np.median(smooth[mask]))
        band = rough.band
        # A limit beyond which nothing lies beside the lesion parts nothing, and would only fray it.
        low, high = min(band.low, FAT_BORDER_HU), SOFT_TOP_HU
        lower = shell[(shell < band.low) & (shell > FAT_BORDER_HU)]
        upper = shell[shell > band.high]
        if lower.size > PARTED * shell.size:
            low = 0.5 * (inside + float(np.median(lower)))
        if upper.size > PARTED * shell.size:
            high = 0.5 * (inside + float(np.median(upper)))
        return self.grown(_Band(low, high, band.sigma_mm, band.lung), distance <= 3.0)

    def grown(self, band: _Band, within: np.ndarray | None = None) -> _Candidate:
        """Return what a range of density gives around the seed, and how clear its border is."""
        values = self.window.values
        smooth = self.soft if band.sigma_mm else values
        solid = _in_band(band, values, smooth, self.aerated, self.spacing) & self.window.shown & ~self.bone
        solid = self._filled(solid if within is None else solid & within)
        depth = distance_to(~solid, self.spacing)
        centre, radius = self._climb(solid, depth)
        chance, cut = self._separate(solid, depth, centre, radius, bool(band.sigma_mm))
        mask = chance > 0.5
        shell = ndimage.binary_dilation(mask) & ~mask
        score, volume_ml = 0.0, float(mask.sum()) * self.step**3 / 1000.0
        if volume_ml > 0.02 and shell.any():
            size = (3000.0 * volume_ml / (4.0 * np.pi)) ** (1.0 / 3.0)
            # Where the window cuts it, a border is not seen.
            cut_off = sum(int(mask[side].sum()) for side in _SIDES)
            seen = float(np.minimum(self.edge[shell] * 3.0, 60.0).sum()) / (int(shell.sum()) + cut_off)
            score = seen * min(1.0, radius / size) ** 0.5
            score *= min(1.0, size / SMALL_MM)
        return _Candidate(
            band, solid, depth, centre, radius, chance, cut, volume_ml, score, self._is_whole(mask, radius, cut)
        )

    def _bone(self, values: np.ndarray) -> np.ndarray:
        bone = ndimage.gaussian_filter(values, 0.8 / self.step) > BONE_HU
        labels, number = ndimage.label(bone)
        large = np.bincount(labels.ravel(), minlength=number + 1) * self.step**3 > 300.0
        large[0] = False
        return large[labels]

    def _filled(self, solid: np.ndarray) -> np.ndarray:
        """Fill the cavities of a lesion, which are small and enclosed."""
        holes = ndimage.binary_fill_holes(solid) & ~solid
        if not holes.any():
            return solid
        labels, number = ndimage.label(holes)
        small = np.bincount(labels.ravel(), minlength=number + 1) * self.step**3 < 30_000.0
        small[0] = False
        return solid | small[labels]

    def _climb(self, solid: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the middle and the radius in mm of the ball that the seed climbs to; it stays within reach of the seed."""
        seed = self.window.seed
        nodes = np.argwhere(solid)
        apart = np.linalg.norm(nodes - seed, axis=1)
        here = nodes[int(np.argmin(apart))] if len(nodes) else np.rint(seed).astype(int)
        for _ in range(60):
            deep = float(depth[tuple(here)])
            reach = max(1.8, 0.35 * deep / self.step)
            low = np.maximum(np.floor(here - reach).astype(int), 0)
            high = np.minimum(np.ceil(here + reach).astype(int) + 1, depth.shape)
            part = depth[low[0] : high[0], low[1] : high[1], low[2] : high[2]].copy()
            offsets = np.stack(
                np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1
            )
            part[np.linalg.norm(offsets - here, axis=-1) > reach] = 0.0
            part[np.linalg.norm(offsets - seed, axis=-1) * self.step > 1.2 * part + 2.0] = 0.0
            best = np.unravel_index(int(part.argmax()), part.shape)
            if part[best] <= deep + 1e-6:
                break
            here = low + best
        return here.astype(float), float(depth[tuple(here)])

    def share_of_lung(self, found: _Candidate) -> float:
        """Return the share of the border of a candidate that lies against lung."""
        mask = found.chance > 0.5
        shell = ndimage.binary_dilation(mask) & ~mask
        near = distance_to(self.aerated, self.spacing) <= max(RIM_MM, 1.5 * self.step)
        return float(near[shell].mean()) if shell.any() else 0.0

    def _noise(self) -> float:
        """Return the noise in HU in the soft tissue around the seed."""
        values = self.window.values
        soft = _ball(values.shape, self.window.seed, 15.0 / self.step) & (np.abs(values - 50.0) < 150.0)
        if soft.sum() < 50:
            return 15.0
        rough = (values - ndimage.uniform_filter(values, 3))[soft]
        return float(1.48 * np.median(np.abs(rough)))

    def _separate(
        self, solid: np.ndarray, depth: np.ndarray, centre: np.ndarray, radius: float, soft: bool
    ) -> tuple[np.ndarray, bool]:
        """Return the chance of every node to belong to the lesion, and whether the lesion had to be cut from what it hangs on."""
        # In soft tissue what hangs on a lesion is as wide as the seam along its neighbours.
        thin = min(0.4 * radius, 5.0) if soft else min(0.3 * radius, 1.6)
        piece = self._opened(solid, depth, centre, radius, thin)
        if piece is not None:
            return piece.astype(np.float32), False
        neck = 0.5 * radius
        other = (depth > neck) & ~_joined(depth > neck, centre)
        chance = self._walk(solid, centre, radius, other)
        inside = chance > 0.5
        if inside.any():
            # The share for large lesions was chosen on one of the hilum (pyradiomics' lung2): a third takes its vessels off.
            stub = max(min(0.55 * radius, 2.6), 0.3 * radius)
            core = _joined(distance_to(~inside, self.spacing) > stub, centre)
            chance[distance_to(core, self.spacing) > stub + 0.6 * self.step] = 0.0
        return chance, True

    def _opened(
        self, solid: np.ndarray, depth: np.ndarray, centre: np.ndarray, radius: float, thin: float
    ) -> np.ndarray | None:
        """Return the piece around the centre without what is thinner than the opening; None where it goes on elsewhere."""
        piece = _joined(depth > thin, centre)
        if not piece.any() or float(depth[piece].max()) > 1.4 * radius + self.step:
            return None
        if any(piece[side].any() for side in _SIDES):
            return None
        far = np.linalg.norm(np.argwhere(piece) - centre, axis=1).max() * self.step
        if far > 3.2 * radius + 6.0:
            return None
        return solid & (distance_to(piece, self.spacing) <= thin + 0.6 * self.step)

    def _walk(self, solid: np.ndarray, centre: np.ndarray, radius: float, other: np.ndarray) -> np.ndarray:
        nodes = np.stack(np.meshgrid(*(np.arange(n) for n in solid.shape), indexing="ij"), -1)
        apart = np.linalg.norm(nodes - centre, axis=-1) * self.step
        inner = solid & (apart <= max(0.75 * radius, 1.5 * self.step))
        outer = (apart > REACH * radius + 4.0) | other
        outer &= ~inner
        free = solid & ~inner & ~outer
        smooth = ndimage.gaussian_filter(self.window.values, 0.8 / self.step)
        fixed = np.where(inner, 1.0, 0.0)
        chance = _random_walk(smooth, solid, free, fixed, max(20.0, self._noise()))
        return np.where(free | inner, chance, 0.0).astype(np.float32)

    def _is_whole(self, mask: np.ndarray, radius: float, cut: bool) -> bool:
        """Say whether a lesion, with some room around it, lies in the window."""
        places = np.argwhere(mask)
        if not len(places):
            return False
        nodes = mask.shape[0]
        margin = 0.06 * nodes
        room = (places.min(axis=0) >= margin).all() and (places.max(axis=0) < nodes - margin).all()
        needed = 2.0 * radius + 2.0 if cut else 1.4 * radius + 3.0
        return bool(room and needed < 0.5 * nodes * self.step)


class _Attempt:
    """The search for a lesion in one window: several ranges of density are tried, and the one with the clearest border is kept."""

    def __init__(self, window_of: Callable[[int], _Window]) -> None:
        self.grower = _Grower(window_of(NODES_ACROSS))
        self.window, self.step = self.grower.window, self.grower.step
        self.spacing = self.grower.spacing
        values = self.window.values
        lung = values[self.grower.aerated & (values > -985.0)]
        lung_hu = float(np.median(lung)) if lung.size > 0.01 * values.size else -850.0
        typical = float(np.percentile(values[_ball(values.shape, self.window.seed, 2.5 / self.step)], 70.0))
        for _ in range(2):
            level = float(np.clip(0.5 * (typical + lung_hu), AIR_HU, -250.0))
            self.best = self.grower.grown(_Band(level, np.inf, 0.0, level))
            core = _ball(values.shape, self.best.centre, max(0.7 * self.best.radius / self.step, 1.2))
            typical = float(np.median(values[core]))
        # What lies in lung, with a clear border, needs no search for its densities.
        in_lung = self.grower.share_of_lung(self.best) >= IN_LUNG
        if not in_lung or _rank(self.best) < CLEAR:
            self._try_soft_tissue(window_of(COARSE_NODES), level, in_lung)

    @property
    def fits(self) -> bool:
        """Whether the lesion lies in the window."""
        return self.best.fits

    @property
    def in_lung(self) -> bool:
        """Whether the lesion was told from lung alone, which lies on most of its border."""
        return not np.isfinite(self.best.band.high) and self.grower.share_of_lung(self.best) >= IN_LUNG

    def _try_soft_tissue(self, window: _Window, lung_level: float, in_lung: bool) -> None:
        """Try ranges of density around that of the seed, then the middle between the best one's inside and what surrounds it."""
        coarse = _Grower(window)
        smooth = coarse.soft
        near = smooth[_ball(smooth.shape, window.seed, 2.5 / window.step)]
        typical = float(np.median(near))
        if typical < 0.0:
            typical = float(np.percentile(near, 85.0))
        found = []
        for _ in range(2):
            for below in (24.0, 60.0):
                for above in (13.0, 24.0, 42.0, 70.0):
                    found.append(coarse.grown(_Band(typical - below, typical + above, SOFT_MM, lung_level)))
            best = max(found, key=_rank)
            core = _ball(smooth.shape, best.centre, max(0.6 * best.radius / window.step, 1.2))
            before, typical = typical, float(np.median(smooth[core]))
            if abs(typical - before) < 8.0:
                break
        rough = self.grower.grown(best.band)
        refined = self.grower.refined(rough)
        # Limits that no longer hold the lesion together, or hold more than it, are not better.
        better = refined.fits >= rough.fits and 0.6 <= refined.volume_ml / max(rough.volume_ml, 1e-6) <= 2.0
        soft = refined if better else rough
        if _rank(soft) >= (CLEARER if in_lung else NEARLY_AS_CLEAR) * _rank(self.best):
            self.best = soft

    def result(self, volume: sitk.Image) -> SeedResult:
        """Decide voxel by voxel on the grid of the image."""
        window, best = self.window, self.best
        spacing, shape = np.asarray(spacing_of(volume)), shape_of(volume)
        places = np.argwhere(self.best.chance > 0.5)
        if not len(places):
            return SeedResult(Crop(np.zeros((0, 0, 0), dtype=bool)), 0.0, "nothing stands out around the point")
        low = np.floor((window.start_mm + self.step * (places.min(axis=0) - 2)) / spacing).astype(int) - 2
        high = np.ceil((window.start_mm + self.step * (places.max(axis=0) + 2)) / spacing).astype(int) + 3
        low, high = np.maximum(low, 0), np.minimum(high, shape)
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        values = sitk.GetArrayViewFromImage(volume)[box].astype(np.float32)
        axes = [
            (np.arange(a, b) * s - m) / self.step
            for a, b, s, m in zip(low, high, spacing, window.start_mm, strict=True)
        ]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"))
        # The chance is carried a little beyond its nodes, so that the border is where the full image has it.
        nearest = ndimage.distance_transform_edt(~best.solid, return_distances=False, return_indices=True)
        near = distance_to(best.solid, self.spacing) <= 1.6 * self.step
        chance = np.where(near, best.chance[tuple(nearest)], 0.0)
        inside = ndimage.map_coordinates(chance, nodes, order=1, mode="nearest") > 0.5
        smooth = ndimage.gaussian_filter(values, best.band.sigma_mm / spacing)
        solid = _in_band(best.band, values, smooth, values < LUNG_HU, tuple(spacing))
        mask = ndimage.binary_fill_holes(inside & solid)
        labels, number = ndimage.label(mask)
        if number > 1:
            counts = np.bincount(labels.ravel())
            counts[0] = 0
            mask = labels == counts.argmax()
        confidence, reasons = self._judge()
        offset = (int(low[0]), int(low[1]), int(low[2]))
        return SeedResult(crop_of(mask, offset), confidence, "; ".join(reasons) or None)

    def _judge(self) -> tuple[float, list[str]]:
        """Rate the result: the share of the border where the image changes, the form, the organ, and whether it is whole."""
        reasons = []
        mask = self.best.chance > 0.5
        shell = ndimage.binary_dilation(mask) & ~mask
        seen = float((~self.best.solid & self.window.shown)[shell].mean()) if shell.any() else 0.0
        confidence = 0.15 + 0.85 * seen
        if seen < 0.7:
            reasons.append(f"{1.0 - seen:.0%} of its border does not show in the image")
        size = (3000.0 * self.best.volume_ml / (4.0 * np.pi)) ** (1.0 / 3.0)
        if size > 0.0:
            confidence *= min(1.0, self.best.radius / (COMPACT * size))
        if np.isfinite(self.best.band.high):
            reasons.append("beside soft tissue of like density a border is often wrong")
            confidence *= SOFT_TRUST
        if not self.fits:
            reasons.append("it reaches farther than is searched")
            confidence *= 0.4
        if (~self.window.shown)[shell].any():
            reasons.append("the image cuts through it")
            confidence *= 0.7
        if confidence < UNSURE and not reasons:
            reasons.append("its border is not distinct")
        return float(np.clip(confidence, 0.0, 1.0)), reasons


_SIDES = tuple(tuple(end if axis == side else slice(None) for axis in range(3)) for side in range(3) for end in (0, -1))


def _rank(candidate: _Candidate) -> float:
    """Rate a candidate by its border; one that the window cuts is worth less, because its border lies elsewhere."""
    return candidate.score if candidate.fits else 0.8 * candidate.score


def _in_band(
    band: _Band, values: np.ndarray, smooth: np.ndarray, aerated: np.ndarray, spacing: tuple[float, ...]
) -> np.ndarray:
    inside = (smooth > band.low) & (smooth < band.high)
    if np.isfinite(band.high) and aerated.any():
        rim = (distance_to(aerated, spacing) <= RIM_MM) & (values > band.lung) & (values < band.high)
        inside |= rim & (distance_to(inside, spacing) <= RIM_MM)
    return inside


def _soft(values: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Return the densities of soft tissue above the noise, each the mean of the soft tissue nearby alone: neither fat nor air reaches into it."""
    light = ndimage.gaussian_filter(values, [LIGHT_MM / step for step in spacing])
    tissue = light > FAT_BORDER_HU
    sigma = [SOFT_MM / step for step in spacing]
    weight = ndimage.gaussian_filter(tissue.astype(np.float32), sigma)
    mean = ndimage.gaussian_filter(np.where(tissue, np.minimum(values, SOFT_TOP_HU), 0.0), sigma)
    return np.where(tissue, mean / np.maximum(weight, 1e-3), light)


def _joined(mask: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the connected piece of a mask that holds a node."""
    labels, _ = ndimage.label(mask)
    label = labels[tuple(np.rint(centre).astype(int))]
    return (labels == label) if label else np.zeros_like(mask)


def _ball(shape: tuple[int, ...], centre: np.ndarray, radius: float) -> np.ndarray:
    z, y, x = (np.arange(n) - c for n, c in zip(shape, centre, strict=True))
    return z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2 <= radius**2


def _random_walk(
    values: np.ndarray, solid: np.ndarray, free: np.ndarray, fixed: np.ndarray, noise_hu: float
) -> np.ndarray:
    """Return the chance that a walk from each free node meets the nodes fixed at 1 before those fixed at 0.

    Walks stay among the solid nodes: what is not solid is no way out of a lesion and none into it.
    """
    index = np.full(values.shape, -1)
    index[free] = np.arange(int(free.sum()))
    count = int(free.sum())
    result = fixed.astype(np.float64)
    if count == 0:
        return result
    diagonal, right = np.zeros(count), np.zeros(count)
    rows, columns, weights = [], [], []
    for axis in range(3):
        one = tuple(slice(None, -1) if other == axis else slice(None) for other in range(3))
        two = tuple(slice(1, None) if other == axis else slice(None) for other in range(3))
        both = solid[one] & solid[two] & (free[one] | free[two])
        a, b = index[one][both], index[two][both]
        weight = 0.02 + np.exp(-(((values[one][both] - values[two][both]) / (2.0 * noise_hu)) ** 2))
        known_a, known_b = fixed[one][both], fixed[two][both]
        inner = (a >= 0) & (b >= 0)
        rows.append(a[inner])
        columns.append(b[inner])
        weights.append(weight[inner])
        for here, there, known in ((a, b, known_b), (b, a, known_a)):
            mine = here >= 0
            diagonal += np.bincount(here[mine], weight[mine], minlength=count)
            border = mine & (there < 0)
            right += np.bincount(here[border], weight[border] * known[border], minlength=count)
    off = sparse.coo_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    )
    diagonal = np.maximum(diagonal, 1e-6)
    system = sparse.diags(diagonal) - (off + off.T).tocsr()
    solution, _ = cg(system, right, M=sparse.diags(1.0 / diagonal), rtol=3e-3, maxiter=150)
    result[free] = np.clip(solution, 0.0, 1.0)
    return result
