"""Carry the contours of an earlier scan to a follow-up and fit them to its image.

For each lesion the earlier scan, here called the baseline, teaches what its inside and its surroundings look like: the chance to be inside, given the
density, among the voxels near the contour. The contour, carried through the alignment, says where to look. Both are joined
by a random walker with priors (doi:10.1109/CVPR.2005.239): the chance to be inside is as smooth as the image is, and
close to what density and place say. The result may have grown or shrunk to any size the image supports; what cannot be
told from its surroundings is said to be gone or is marked for a person to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from ..progress import Progress, silent
from ..transforms import invert_points, transform_points
from .geometry import (
    Box,
    Crop,
    crop_of,
    distance_to,
    index_to_world,
    margin_voxels,
    padded_box,
    shape_of,
    spacing_of,
    voxel_volume_ml,
    world_to_index,
)
from .regions import within

WORK_VOXELS = 110_000
LEARN_MM = 6.0
LATTICE_MM = 8.0
GROWTH_SHARE = 0.5
SMOOTH_HU = 18.0
EDGE_WEIGHT = 2.5
RESIDUE_SHARE = 0.4
RESIDUE_CONFIDENCE = 0.25
RESIDUE_CHANCE = 0.8
DISTINCT_CONTRAST = 3.0
DISTINCT_COMPACTNESS = 0.68

FIT_ODDS = 2.0
FIT_STEP_MM = 0.5
FIT_REACH_MM = 3.0
FIT_PRICE = 1.5
"""How the carried contour is laid on the image: the largest log-odds of one voxel, the step of its growth, the farthest it is
moved, and the price of that. With the weights in ``_Fit._walk`` tuned on 63 virtual lesions with alignment errors of
1.5 mm, and on balls that grow to one side so that the form does not hold back what the image shows."""
HIDDEN_SHARE = 0.25
"""Above this share of border that does not show, one volume in two was more than 10 % off on the same lesions."""

_BINS = np.arange(-1050.0, 1551.0, 10.0)


@dataclass(frozen=True, eq=False)
class Propagated:
    """One lesion carried to a follow-up. ``mask`` is on the follow-up's grid and empty where the lesion is gone.

    ``confidence`` (0 to 1) is low where the lesion looks like its surroundings or its border is not where anything in the
    image changes. ``check`` says why a person should look.
    """

    mask: Crop
    confidence: float
    check: str | None = None

    @property
    def gone(self) -> bool:
        """Whether nothing of the lesion was found."""
        return self.mask.count == 0


def propagate(
    baseline_ct: sitk.Image,
    lesions: Mapping[str, Crop],
    followup_ct: sitk.Image,
    transform: sitk.Transform | None,
    *,
    source_transform: sitk.Transform | None = None,
    progress: Progress = silent,
) -> dict[str, Propagated]:
    """Find every lesion of the baseline in a follow-up.

    Parameters
    ----------
    lesions
        The lesions' voxels on the grid of the baseline.
    transform
        Carries positions of the reference to positions of the follow-up (LPS); None is the identity.
    source_transform
        Carries positions of the reference to positions of the scan that the lesions were drawn on; None where it is the
        reference.

    Returns
    -------
    dict
        By name of the lesion. Where two lesions want the same voxel, the one that is surer of it gets it.
    """
    fits = {}
    for index, (name, mask) in enumerate(lesions.items()):
        progress(index / max(len(lesions), 1), f"carrying over {name}")
        if mask.count:
            others = [crop for other, crop in lesions.items() if other != name]
            itself = _Fit(baseline_ct, mask, others, baseline_ct, _Way())
            level, agreement = itself.calibration()
            way = _Way(source_transform, transform)
            fits[name] = _Fit(baseline_ct, mask, others, followup_ct, way, level, agreement)
    _share_out(list(fits.values()))
    progress(1.0, "done")
    return {name: fit.result() for name, fit in fits.items()}


@dataclass(frozen=True, eq=False)
class _Way:
    """From one scan to another by way of the reference; both transforms carry positions of the reference to a scan."""

    source: sitk.Transform | None = None
    target: sitk.Transform | None = None

    def there(self, points: np.ndarray) -> np.ndarray:
        return transform_points(invert_points(points, self.source), self.target)

    def back(self, points: np.ndarray) -> np.ndarray:
        return transform_points(invert_points(points, self.target), self.source)


class _Fit:
    """One lesion while it is fitted to the follow-up."""

    def __init__(
        self,
        baseline_ct: sitk.Image,
        mask: Crop,
        others: list[Crop],
        followup_ct: sitk.Image,
        way: _Way,
        level: float = 0.5,
        agreement: float = 1.0,
    ) -> None:
        self.level = level
        self.agreement = agreement
        self.followup_ct = followup_ct
        self.mask = mask
        self.volume_ml = mask.count * voxel_volume_ml(baseline_ct)
        self.radius_mm = (3000.0 * self.volume_ml / (4.0 * np.pi)) ** (1.0 / 3.0)
        self.outside = False
        self._learn(baseline_ct, others)
        box = self._box(baseline_ct, way)
        if box is None:
            self.outside = True
            return
        self.box = box
        self._prepare_grid()
        distance, alike, elsewhere = self._carried(baseline_ct, others, way)
        self.inside = self._walk(distance, alike, elsewhere)
        self._resample(distance)

    def _learn(self, ct: sitk.Image, others: list[Crop]) -> None:
        """Learn the log-odds to be inside, by density, from the voxels on both sides of the contour."""
        spacing = spacing_of(ct)
        box = padded_box(self.mask.box, margin_voxels(LEARN_MM + 3.0, spacing), shape_of(ct))
        core = within(self.mask, box)
        values = _smooth(sitk.GetArrayViewFromImage(ct)[box].astype(np.float32), spacing, 0.7)
        other = np.zeros_like(core)
        for crop in others:
            other |= within(crop, box)
        near = max(LEARN_MM, 0.6 * self.radius_mm)
        outside = (distance_to(core, spacing) <= near) & ~core & ~other
        inside = core & (distance_to(~core, spacing) <= near)
        low, high = np.percentile(values[core], [8.0, 92.0])
        self.inside_sd = float(np.std(values[inside]))
        # What looks like the lesion but lies outside it (chest wall, vessels) teaches nothing about density: it is
        # known by its place, as long as enough of the surroundings looks different.
        alike = ~core & (values >= low) & (values <= high)
        distinct = outside & ~alike
        if distinct.sum() >= 0.15 * outside.sum():
            outside = distinct
        self.alike = np.where(core, 0.0, _smooth(alike.astype(np.float32), spacing, 1.0))
        self.alike_box = box
        counts = []
        for part in (inside, outside):
            histogram = np.histogram(np.clip(values[part], _BINS[0], _BINS[-1] - 1), bins=_BINS)[0].astype(float)
            histogram = ndimage.gaussian_filter1d(histogram, SMOOTH_HU / 10.0, mode="nearest")
            counts.append(histogram / max(part.sum(), 1))
        floor = 0.002 * max(counts[0].max(), counts[1].max())
        odds = np.log((counts[0] + floor) / (counts[1] + floor))
        self.log_odds = np.clip(odds, -4.0, 4.0)
        # How well density alone tells inside from outside: 0 not at all, 1 without error.
        self.separation = 0.5 * float(np.abs(counts[0] - counts[1]).sum())
        self.core_odds = float(self._odds(values[core]).mean())

    def _odds(self, values: np.ndarray) -> np.ndarray:
        return np.interp(values, _BINS[:-1] + 5.0, self.log_odds)

    def _box(self, ct: sitk.Image, way: _Way) -> Box | None:
        """Return where in the follow-up to look: around the carried lesion, with room to grow; None outside the image."""
        indices = self.mask.indices()
        places = index_to_world(indices[:: max(1, len(indices) // 400)], ct)
        carried = world_to_index(way.there(places), self.followup_ct)
        shape = np.asarray(shape_of(self.followup_ct))
        shown = ((carried > -0.5) & (carried < shape - 0.5)).all(axis=1)
        if shown.mean() < 0.5:
            return None
        low = np.maximum(np.floor(carried[shown].min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(carried[shown].max(axis=0)).astype(int) + 1, shape)
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        margin = margin_voxels(GROWTH_SHARE * self.radius_mm + 8.0, spacing_of(self.followup_ct))
        return padded_box(box, margin, shape_of(self.followup_ct))

    def _prepare_grid(self) -> None:
        """Reduce the follow-up around the lesion to a grid that is even in space and small enough to solve on."""
        spacing = np.asarray(spacing_of(self.followup_ct))
        size = np.array([side.stop - side.start for side in self.box])
        step = max(float((np.prod(size * spacing) / WORK_VOXELS) ** (1.0 / 3.0)), float(spacing.min()))
        self.factors = np.maximum(1.0, step / spacing)
        self.size = np.maximum(np.round(size / self.factors).astype(int), 2)
        self.factors = size / self.size
        self.spacing = spacing * self.factors
        values = sitk.GetArrayViewFromImage(self.followup_ct)[self.box].astype(np.float32)
        sigma = np.sqrt(np.maximum(0.0, (0.45 * self.factors) ** 2 - 0.2))
        values = ndimage.gaussian_filter(values, sigma)
        self.values = ndimage.map_coordinates(values, self._fine_indices(), order=1, mode="nearest")

    def _fine_indices(self) -> np.ndarray:
        """Return, for each node of the working grid, its place in the box on the follow-up's grid, shape (3, z, y, x)."""
        axes = [(np.arange(n) + 0.5) * f - 0.5 for n, f in zip(self.size, self.factors, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def _carried(self, ct: sitk.Image, others: list[Crop], way: _Way) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Carry to the working grid: signed distance to the contour (negative inside), what looks alike, other lesions."""
        start = np.array([side.start for side in self.box])
        nodes = self._fine_indices()
        coarse_axes = []
        for axis in range(3):
            count = max(2, int(np.ceil(self.size[axis] * self.spacing[axis] / LATTICE_MM)) + 1)
            coarse_axes.append(np.linspace(nodes[axis].min(), nodes[axis].max(), count))
        lattice = np.stack(np.meshgrid(*coarse_axes, indexing="ij"))
        flat = lattice.reshape(3, -1).T + start
        back = way.back(index_to_world(flat, self.followup_ct))
        # The baseline index is smooth in the follow-up index, so interpolating it between lattice points is enough.
        source = world_to_index(back, ct).T.reshape(lattice.shape)
        scale = [
            (nodes[axis] - coarse_axes[axis][0]) / max(coarse_axes[axis][1] - coarse_axes[axis][0], 1e-9)
            for axis in range(3)
        ]
        indices = np.stack([ndimage.map_coordinates(source[axis], scale, order=1, mode="nearest") for axis in range(3)])
        spacing = spacing_of(ct)
        reach = GROWTH_SHARE * self.radius_mm + 20.0
        box = padded_box(self.mask.box, margin_voxels(reach, spacing), shape_of(ct))
        core = within(self.mask, box)
        signed = distance_to(core, spacing) - distance_to(~core, spacing)
        offset = np.array([side.start for side in box]).reshape(3, 1, 1, 1)
        distance = ndimage.map_coordinates(signed, indices - offset, order=1, mode="nearest")
        other = np.zeros_like(core)
        for crop in others:
            other |= within(crop, box)
        elsewhere = ndimage.map_coordinates(other.astype(np.float32), indices - offset, order=1, mode="constant") > 0.5
        start_alike = np.array([side.start for side in self.alike_box]).reshape(3, 1, 1, 1)
        alike = ndimage.map_coordinates(self.alike, indices - start_alike, order=1, mode="nearest")
        return distance, alike, elsewhere

    def _walk(self, distance: np.ndarray, alike: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
        """Return the chance of every node to be inside the lesion.

        The carried contour is first laid on the image as a whole, moved a little and grown or shrunk evenly, and then given
        up wherever density says otherwise. The less of the border the image shows, the more the form of the contour counts.
        """
        odds = self._odds(_smooth(self.values, tuple(self.spacing), 0.7))
        beyond = np.clip(distance / 1.5, 0.0, 1.0)
        other = np.clip(2.0 * alike - 1.0, 0.0, 1.0) * beyond
        telling = np.clip(odds, -FIT_ODDS, FIT_ODDS) * (1.0 - other) * ~elsewhere
        farthest = GROWTH_SHARE * self.radius_mm + 7.0
        laid = _laid(distance, telling, self.radius_mm, farthest, self.spacing)
        hidden = _hidden_share(odds, laid)
        scale = 1.0 + 0.1 * self.radius_mm
        limit = 2.0 + 5.0 * hidden
        place = np.clip(-(2.0 + 4.0 * hidden) * laid / scale, -limit, limit)
        place -= np.clip((laid - 0.3 * self.radius_mm) / scale, 0.0, 6.0)
        evidence = odds + place - 7.0 * other
        evidence[elsewhere] = -6.0
        target = 1.0 / (1.0 + np.exp(-evidence))
        certainty = 0.15 + np.abs(2.0 * target - 1.0)
        solution = _random_walk(self.values, target, certainty, self.spacing, max(self.inside_sd, 15.0))
        solution[distance > farthest] = 0.0
        return solution

    def _resample(self, distance: np.ndarray) -> None:
        """Bring the chances to the follow-up's own grid, within the box."""
        size = [side.stop - side.start for side in self.box]
        axes = [(np.arange(n) + 0.5) / f - 0.5 for n, f in zip(size, self.factors, strict=True)]
        places = np.stack(np.meshgrid(*axes, indexing="ij"))
        self.chance = ndimage.map_coordinates(self.inside, places, order=1, mode="nearest")
        self.distance = ndimage.map_coordinates(distance, places, order=1, mode="nearest")

    def calibration(self) -> tuple[float, float]:
        """Fit the lesion to its own image: which level gives back its volume, and the Dice coefficient there.

        The level takes the contouring habit of whoever drew the lesion, and the method's own shrinking of curved
        borders, over to the follow-up; the Dice coefficient says how well the method can do for this lesion at all.
        """
        core = within(self.mask, self.box)
        near = self.chance[self.distance <= 3.0]
        share = np.clip(core.sum() / max(near.size, 1), 0.0, 1.0)
        level = float(np.clip(np.quantile(near, 1.0 - share), 0.25, 0.7)) if near.size else 0.5
        found = self._main_part(self.chance > level)
        return level, 2.0 * float((found & core).sum()) / float(found.sum() + core.sum())

    def result(self) -> Propagated:
        """Say what was found, and how sure it is."""
        nothing = Crop(np.zeros((0, 0, 0), dtype=bool))
        if self.outside:
            return Propagated(nothing, 0.0, "it lies outside the follow-up's field of view")
        mask = self._main_part(self.chance > self.level)
        milliliter = voxel_volume_ml(self.followup_ct)
        volume = mask.sum() * milliliter
        values = sitk.GetArrayViewFromImage(self.followup_ct)[self.box]
        if volume < max(0.03 * self.volume_ml, 8.0 * milliliter, 0.01):
            return Propagated(
                nothing, self._sure_of_absence(values), "nothing of it was found at its place: confirm that it is gone"
            )
        confidence, reasons = self._judge(mask, values, volume)
        if (
            volume < RESIDUE_SHARE * self.volume_ml
            and confidence < RESIDUE_CONFIDENCE
            and float(self.chance[mask].max()) < RESIDUE_CHANCE
            and not self._is_distinct(mask, values, volume)
        ):
            return Propagated(
                nothing,
                0.5 * self._sure_of_absence(values),
                f"what is left at its place ({volume:.1f} ml) does not stand out from its surroundings: confirm that it is gone",
            )
        return Propagated(
            crop_of(mask, (self.box[0].start, self.box[1].start, self.box[2].start)),
            confidence,
            "; ".join(reasons) or None,
        )

    def _sure_of_absence(self, values: np.ndarray) -> float:
        """Rate how little the middle of the lesion's place looks like the lesion."""
        core = self.distance < -0.3 * self.radius_mm
        likeness = float(self._odds(values[core]).mean()) if core.any() else 0.0
        return float(np.clip(0.5 * self.separation - 0.1 * likeness, 0.0, 1.0))

    def _is_distinct(self, mask: np.ndarray, values: np.ndarray, volume_ml: float) -> bool:
        """Say whether a small rest is a nodule: set off from what surrounds it, and not drawn out like a vessel."""
        spacing = spacing_of(self.followup_ct)
        distance = distance_to(mask, spacing)
        shell = (distance > 1.5) & (distance <= 5.0)
        if not shell.any():
            return False
        contrast = abs(float(np.median(values[mask])) - float(np.median(values[shell]))) / max(self.inside_sd, 15.0)
        # The largest ball inside, relative to the ball of equal volume.
        depth = distance_to(~np.pad(mask, 1), spacing).max()
        compactness = float(depth) / (3000.0 * volume_ml / (4.0 * np.pi)) ** (1.0 / 3.0)
        return contrast >= DISTINCT_CONTRAST and compactness >= DISTINCT_COMPACTNESS

    def _main_part(self, mask: np.ndarray) -> np.ndarray:
        """Keep the pieces that lie where the lesion was, and fill them."""
        labels, number = ndimage.label(mask)
        if number == 0:
            return mask
        inside = np.bincount(labels[self.distance <= 1.0], minlength=number + 1)
        total = np.bincount(labels.ravel(), minlength=number + 1)
        inside[0] = total[0] = 0
        if inside.max() == 0:
            return np.zeros_like(mask)
        keep = (inside >= 0.3 * np.maximum(total, 1)) & (total >= 0.1 * total[np.argmax(inside)])
        keep[np.argmax(inside)] = True
        keep[0] = False
        return ndimage.binary_fill_holes(keep[labels])

    def _judge(self, mask: np.ndarray, values: np.ndarray, volume_ml: float) -> tuple[float, list[str]]:
        """Rate the result by how distinct the lesion is, how much it looks as before, and how decided its border is."""
        reasons = []
        likeness = float(self._odds(values[mask]).mean())
        alike = np.clip((likeness + 1.0) / (self.core_odds + 1.0 + 1e-6), 0.0, 1.0)
        undecided = float(np.count_nonzero((self.chance > 0.3) & (self.chance < 0.7))) / max(mask.sum(), 1)
        decided = float(np.clip(1.2 - 0.6 * undecided, 0.0, 1.0))
        confidence = float(np.clip(self.agreement * (0.4 + 0.6 * alike) * decided, 0.0, 1.0))
        ratio = volume_ml / self.volume_ml
        if self.agreement < 0.8:
            reasons.append("it looks much like its surroundings already at the baseline")
        if alike < 0.5:
            reasons.append("it looks different from the baseline")
        if not 0.2 <= ratio <= 4.0:
            reasons.append(f"its volume is {ratio:.1f} times that of the baseline")
        edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1])
        if any(plane.any() for plane in edges):
            reasons.append("it reaches the end of the region that was searched")
            confidence *= 0.6
        smooth = _smooth(values.astype(np.float32), spacing_of(self.followup_ct), 0.7)
        hidden = _hidden_share(self._odds(smooth), distance_to(mask, spacing_of(self.followup_ct)))
        if hidden > HIDDEN_SHARE:
            reasons.append(f"{hidden:.0%} of its border does not show in the image; its volume is unsure")
        if confidence < 0.5 and not reasons:
            reasons.append("its border is not distinct")
        return confidence, reasons


def _laid(
    distance: np.ndarray, telling: np.ndarray, radius_mm: float, farthest_mm: float, spacing: np.ndarray
) -> np.ndarray:
    """Return the signed distance to the carried contour after it is moved, and grown or shrunk evenly, to suit the densities.

    The sum of the log-odds inside is made as large as possible, less a price on the square of the way.
    """
    gradient = np.stack(np.gradient(distance, *spacing))
    near = np.abs(distance) < farthest_mm + 4.0
    from_here, slope, weight = distance[near], gradient[:, near], telling[near]
    levels = np.arange(-0.8 * radius_mm, farthest_mm, FIT_STEP_MM)
    price = FIT_PRICE * radius_mm**2 / float(np.prod(spacing))

    def gain(way: np.ndarray) -> tuple[float, float]:
        bins = np.ceil((from_here - way @ slope - levels[0]) / FIT_STEP_MM).astype(int)
        inside = np.cumsum(np.bincount(np.clip(bins, 0, len(levels)), weight, minlength=len(levels) + 1)[:-1])
        inside = ndimage.gaussian_filter1d(inside, 1.0, mode="nearest")
        best = int(np.argmax(inside))
        return float(inside[best] - price * (way @ way)), float(levels[best])

    way = np.zeros(3)
    best, level = gain(way)
    for step in (1.5, 0.75):
        moved = True
        while moved:
            moved = False
            for direction in (*np.eye(3), *-np.eye(3)):
                other = way + step * direction
                if np.linalg.norm(other) > FIT_REACH_MM:
                    continue
                found, at = gain(other)
                if found > best:
                    best, level, way, moved = found, at, other, True
    return distance - np.tensordot(way, gradient, 1) - level


def _hidden_share(odds: np.ndarray, distance: np.ndarray) -> float:
    """Return the share of the voxels beside a contour, up to 3 mm outside it, that look like the lesion."""
    beside = (distance > 0.5) & (distance <= 3.2)
    return float((odds[beside] > 0.0).mean()) if beside.any() else 1.0


def _share_out(fits: list[_Fit]) -> None:
    """Give each voxel that two lesions claim to the surer one."""
    placed = [fit for fit in fits if not fit.outside]
    for index, first in enumerate(placed):
        for second in placed[index + 1 :]:
            low = [max(a.start, b.start) for a, b in zip(first.box, second.box, strict=True)]
            high = [min(a.stop, b.stop) for a, b in zip(first.box, second.box, strict=True)]
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            views = []
            for fit in (first, second):
                part = tuple(
                    slice(a - side.start, b - side.start) for a, b, side in zip(low, high, fit.box, strict=True)
                )
                views.append(fit.chance[part])
            loses = views[0] < views[1]
            views[0][loses & (views[1] > second.level)] = 0.0
            views[1][~loses & (views[0] > first.level)] = 0.0


def _random_walk(
    values: np.ndarray, target: np.ndarray, certainty: np.ndarray, spacing: np.ndarray, noise_hu: float
) -> np.ndarray:
    """Minimise the sum of edge weights times squared steps plus certainty times squared distance to the target.

    Edges between voxels of like density are strong, so that the solution is flat inside objects and steps at borders.
    """
    count = values.size
    index = np.arange(count).reshape(values.shape)
    rows, columns, weights = [], [], []
    finest = float(np.min(spacing))
    for axis in range(3):
        first = tuple(slice(None, -1) if other == axis else slice(None) for other in range(3))
        second = tuple(slice(1, None) if other == axis else slice(None) for other in range(3))
        step = (values[first] - values[second]) / (2.0 * noise_hu)
        weight = EDGE_WEIGHT * (finest / spacing[axis]) ** 2 * (0.02 + np.exp(-(step**2)))
        rows.append(index[first].ravel())
        columns.append(index[second].ravel())
        weights.append(weight.ravel())
    row, column, weight = (np.concatenate(part) for part in (rows, columns, weights))
    off = sparse.coo_matrix((weight, (row, column)), shape=(count, count))
    graph = (off + off.T).tocsr()
    diagonal = np.asarray(graph.sum(axis=1)).ravel() + certainty.ravel()
    system = sparse.diags(diagonal) - graph
    inverse = sparse.diags(1.0 / diagonal)
    solution, _ = cg(system, (certainty * target).ravel(), x0=target.ravel(), M=inverse, rtol=1e-4, maxiter=300)
    return solution.reshape(values.shape)


def _smooth(values: np.ndarray, spacing_zyx: tuple[float, ...], sigma_mm: float) -> np.ndarray:
    return ndimage.gaussian_filter(values, [sigma_mm / step for step in spacing_zyx])
