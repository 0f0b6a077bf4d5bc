"""The anatomy map (body, left and right lung, airways) of a CT, and densitometry of the lungs.

The map is found on a grid of about 2.5 mm and refined at the border of the lungs on the full grid. Gas is told from lung by
its composition, not by where it lies, so that a scan that is cut through the lungs, a crop inside the chest and a bowel
full of gas are all handled by the same rule: the inside of a lung has the density of lung, the inside of a bowel, of the
trachea and of the room has that of gas.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..analysis import LungMeasures
from ..images import LUNG_LABELS, Anatomy, Segmentation
from ..progress import Progress, silent
from .chest_wall import consolidations, lines_between
from .geometry import (
    axial_axis,
    bounding_box,
    close,
    dilate,
    distance_to,
    erode,
    lateral_axis,
    margin_voxels,
    padded_box,
    spacing_of,
    voxel_volume_ml,
)
from .names import LungPart, is_airway, is_organ, lung_part

WORK_MM = 2.5
AIR_HU = -400.0
BORDER_HU = -375.0
"""The middle between aerated lung (about -800) and soft tissue (50): where a blurred border lies whatever the size of the voxels."""
LUNG_TOP_HU = -500.0
OUTSIDE_MM = 5.0
"""Gas this thick that reaches the sides of the image is no lung, however low the density of an emphysema."""
COVER_MM = 6.0
"""What lies beside the room and is thinner than twice this is the blurred border of the patient, clothes or covers."""
CUT_LUNG_HU = 60.0
"""A lung that the field of view cuts is this much denser than gas, or lies between tissue."""
CLOSE_MM = 8.0
ENCLOSED_MM = 20.0
ENCLOSED_PAIRS = 4
"""What a closing adds to a lung is lung where this many of 13 lines through it meet lung on both sides within ``ENCLOSED_MM``:
a vessel is met on nearly all, the fill of a corner between two sheets of lung on few. Chosen on the two scans of a
lung pair, a low dose abdomen and virtual patients, where it parts right from wrong voxels alike."""
INFERRED_SHARE = 0.005
"""Of the lungs, from which an inferred border costs confidence."""
BORDER_TAP = 0.107
"""Share of each neighbour in the smoothing, by half a voxel, with which the border is read."""

GROUND_GLASS_HU = (-700.0, -300.0)
CONSOLIDATION_HU = -300.0
HIGH_ATTENUATION_HU = (-600.0, -250.0)
LOW_ATTENUATION_HU = -950.0
VESSEL_RADIUS_MM = 4.0
PLEURAL_MARGIN_MM = 2.0


@dataclass(frozen=True, eq=False)
class AnatomyResult:
    """The anatomy map on the grid of the CT (uint8, labels of ``images.Anatomy``), how sure it is (0 to 1), and what is odd."""

    image: sitk.Image
    confidence: float
    warnings: tuple[str, ...] = ()


def segment_anatomy(
    ct: sitk.Image,
    given: Segmentation | None = None,
    *,
    lesion_segments: Collection[str] = (),
    progress: Progress = silent,
) -> AnatomyResult:
    """Find body, lungs and airways.

    The lungs hold their vessels, the tumours that they enclose or that lie in their surface and consolidations up to the
    chest wall, but no pleural fluid; the trachea and the main bronchi are apart.

    Parameters
    ----------
    ct
        A CT in HU, any orientation.
    given
        A segmentation on the same grid. Segments that are lungs or lobes by their name (`left lung`, TotalSegmentator's
        `lung_upper_lobe_left`, ...) are used as they are, instead of what would be found here; so is an airway segment. Where
        it has segments of one lung only, the other lung is found here. Segments that are no organ are lesions: what is drawn
        there as tumour is not taken for a consolidation whose nature is open.
    lesion_segments
        Names of segments in it that are lesions, whatever their names say.
    """
    view = _Canonical.of(ct)
    values = view.forward(sitk.GetArrayViewFromImage(ct))
    factors = tuple(max(1, int(WORK_MM / step + 0.5)) for step in view.spacing)
    progress(0.0, "reducing the image")
    coarse = _block_mean(values, factors)
    spacing = tuple(step * factor for step, factor in zip(view.spacing, factors, strict=True))
    progress(0.3, "body, lungs and airways")
    drawn = np.zeros(coarse.shape, dtype=bool)
    masks = [] if given is None else _drawn_lesions(given, lesion_segments)
    if masks:
        places = np.nonzero(view.forward(np.logical_or.reduce(masks)))
        drawn[tuple(place // factor for place, factor in zip(places, factors, strict=True))] = True
    found = _Finder(coarse, spacing, drawn).find()
    progress(0.6, "refining the borders")
    full = np.empty(values.shape, dtype=np.uint8)
    for start, stop in _refine(values, found, factors, full):
        progress(0.6 + 0.35 * stop / values.shape[0], f"slices {start} to {stop}")
    labels = view.back(full)
    confidence, warnings = found.confidence, list(found.warnings)
    taken = None if given is None else _use_given(labels, given, lesion_segments, lateral_axis(ct))
    if taken == "lungs":
        confidence, warnings = 1.0, ["The lungs are those of the given segmentation."]
    elif taken is not None:
        warnings.append(f"The {taken} is that of the given segmentation.")
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels))
    image.CopyInformation(ct)
    progress(1.0, "done")
    return AnatomyResult(image, confidence, tuple(warnings))


@dataclass(frozen=True)
class _Canonical:
    """How to see an array with its axes running to the head, to the back and to the left."""

    order: tuple[int, int, int]
    flips: tuple[int, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> _Canonical:
        direction = np.asarray(image.GetDirection()).reshape(3, 3)
        axial = axial_axis(image)
        lateral, to_left = lateral_axis(image)
        depth = 3 - axial - lateral
        to_head, to_back = direction[2, 2 - axial], direction[1, 2 - depth]
        flips = tuple(axis for axis, sign in enumerate((to_head, to_back, to_left)) if sign < 0)
        order = (axial, depth, lateral)
        spacing = spacing_of(image)
        return cls(order, flips, tuple(spacing[axis] for axis in order))

    def forward(self, array: np.ndarray) -> np.ndarray:
        return np.flip(array.transpose(self.order), self.flips)

    def back(self, array: np.ndarray) -> np.ndarray:
        return np.flip(array, self.flips).transpose(np.argsort(self.order))


@dataclass(frozen=True, eq=False)
class _Found:
    """The anatomy on the coarse grid. ``closed`` are lung voxels that are not air: vessels, tumours."""

    labels: np.ndarray
    closed: np.ndarray
    confidence: float
    warnings: tuple[str, ...]


class _Finder:
    """Finds the anatomy on a coarse canonical grid (to the head, to the back, to the left).

    ``drawn`` is what is known to be a lesion. Below ``gas_hu`` a voxel is gas in the body, below ``room_hu`` it is room, or filling.
    """

    def __init__(self, values: np.ndarray, spacing: tuple[float, ...], drawn: np.ndarray) -> None:
        self.values = values
        self.drawn = drawn
        self.spacing = spacing
        self.voxel_ml = float(np.prod(spacing)) / 1000.0
        self.warnings: list[str] = []
        self.gas_hu = self.room_hu = -970.0

    def find(self) -> _Found:
        air = self.values < AIR_HU
        tissue = self._tissue(air)
        hits = _directions_that_meet(tissue)
        level = self._gas_level(air & (hits <= 1))
        self.gas_hu, self.room_hu = max(level, -1000.0) + 30.0, level + 30.0
        airways = self._airways(air, hits)
        lungs = self._lungs(self._within(air & ~airways, hits), hits)
        body = self._body(tissue, lungs | airways)
        right, left = self._sides(lungs, airways, body)
        labels = np.where(body, np.uint8(Anatomy.BODY), np.uint8(Anatomy.OUTSIDE))
        closed = np.zeros(air.shape, dtype=bool)
        for side, label in ((right, Anatomy.RIGHT_LUNG), (left, Anatomy.LEFT_LUNG)):
            if side.any():
                whole = self._closed(side, airways | ~body | np.isin(labels, LUNG_LABELS))
                asked = whole & ~side
                asked[asked] = lines_between(asked, lungs, self.spacing, ENCLOSED_MM) >= ENCLOSED_PAIRS
                whole = side | asked
                labels[whole] = label
                closed |= whole & ~side
        labels[airways] = Anatomy.AIRWAYS
        closed &= np.isin(labels, LUNG_LABELS)
        self._add_masses(labels, closed)
        inferred = self._add_consolidations(labels, closed)
        return _Found(labels, closed, self._confidence(labels, closed, inferred), tuple(self.warnings))

    def _tissue(self, air: np.ndarray) -> np.ndarray:
        """Return the solid part of the patient: all that is thick, which tables, clothes and cables are not."""
        solid = ~air
        labels, number = ndimage.label(erode(solid, 5.0, self.spacing))
        if number == 0:
            return solid
        counts = np.bincount(labels.ravel())
        counts[0] = 0
        thick = (counts >= 0.05 * counts.max())[labels]
        return dilate(thick, 7.0, self.spacing) & solid

    def _gas_level(self, room: np.ndarray) -> float:
        """Return the density of the room, as this scanner measures it, or of what takes its place in this image.

        Air is -1000 HU by definition; what is less is the filling of what was not scanned, and no measure for gas in the body.
        """
        gas = self.values[room & (self.values < -900.0) & (self.values > -1100.0)]
        level = float(np.median(gas)) if gas.size * self.voxel_ml > 50.0 else -1000.0
        return float(np.clip(level, -1030.0, -985.0))

    def _within(self, air: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Return the air without the gas that reaches the sides of the image: room, and the filling of what was not scanned.

        A lung that the field of view cuts lies against such a filling without a wall between them. The blurred border of the
        patient, clothes and covers go with the room.
        """
        gas = air & (self.values < self.room_hu)
        labels, number = ndimage.label(erode(gas, OUTSIDE_MM, self.spacing))
        at_sides = np.zeros(number + 1, dtype=bool)
        for face in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
            at_sides[face] = True
        at_sides[0] = False
        outside = dilate(at_sides[labels], OUTSIDE_MM + min(self.spacing), self.spacing) & gas
        rest = air & ~outside
        thick = dilate(erode(rest, COVER_MM, self.spacing), COVER_MM, self.spacing)
        rest &= thick | ~dilate(outside, 2.0 * COVER_MM, self.spacing)
        # What lies against the outside, is hardly denser than gas and is met by little tissue is room beside the patient, or covers.
        labels, number = ndimage.label(rest)
        near = dilate(outside, 1.5 * max(self.spacing), self.spacing) & rest
        touching = np.flatnonzero(np.bincount(labels[near], minlength=number + 1))
        if touching.size:
            met = np.asarray(ndimage.mean(hits, labels, touching)) / 6.0
            touching = touching[met < 0.5]
        if touching.size:
            chosen = np.zeros(number + 1, dtype=bool)
            chosen[touching] = True
            asked = chosen[labels]
            density = np.asarray(ndimage.median(self.values[asked], labels[asked], touching))
            chosen[touching[density >= self.gas_hu + CUT_LUNG_HU]] = False
            rest &= ~chosen[labels]
        return rest

    def _airways(self, air: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Return the trachea and the main bronchi, grown from round gas in axial slices as far as it does not leak into lung."""
        seeds = self._trachea(air & (hits >= 4))
        if seeds is None:
            return np.zeros_like(air)
        best = seeds
        for threshold in self.gas_hu + np.arange(-15.0, 100.0, 15.0):
            labels, _ = ndimage.label(air & (self.values < threshold) | seeds)
            keep = np.unique(labels[seeds])
            grown = np.isin(labels, keep[keep > 0])
            volume = grown.sum() * self.voxel_ml
            if volume > 110.0 or volume > 40.0 + 1.6 * best.sum() * self.voxel_ml:
                break
            best = grown
        # Bronchi inside the lung are lung here: only what is wide, and joined to the trachea, is airway.
        box = bounding_box(best)
        assert box is not None  # noqa: S101 - it holds the seeds
        box = padded_box(box, (2, 2, 2), best.shape)
        part = best[box]
        wide = dilate(erode(part, 3.0, self.spacing), 4.0, self.spacing) & part | seeds[box]
        labels, _ = ndimage.label(wide)
        keep = np.unique(labels[seeds[box]])
        wide = np.isin(labels, keep[keep > 0])
        airways = np.zeros_like(best)
        airways[box] = ndimage.binary_dilation(wide, ndimage.generate_binary_structure(3, 1), mask=air[box])
        return airways

    def _trachea(self, air: np.ndarray) -> np.ndarray | None:
        gas = air & (self.values < self.gas_hu + 80.0)
        pixel = self.spacing[1] * self.spacing[2]
        chains: list[tuple[list[tuple[int, np.ndarray]], tuple[float, float]]] = []
        done: list[list[tuple[int, np.ndarray]]] = []
        for z in range(gas.shape[0] - 1, -1, -1):
            labels, _ = ndimage.label(gas[z])
            rounds = []
            for index, box in enumerate(ndimage.find_objects(labels), start=1):
                blob = labels[box] == index
                area = blob.sum() * pixel
                sides = [blob.shape[0] * self.spacing[1], blob.shape[1] * self.spacing[2]]
                if not 40.0 <= area <= 700.0 or max(sides) > 2.5 * min(sides) or area < 0.5 * sides[0] * sides[1]:
                    continue
                wide = tuple(
                    slice(max(side.start - 3, 0), min(side.stop + 3, size))
                    for side, size in zip(box, gas.shape[1:], strict=True)
                )
                ring = ndimage.binary_dilation(labels[wide] == index, iterations=3)
                ring &= ~ndimage.binary_dilation(labels[wide] == index, iterations=1)
                # Around the trachea lies soft tissue on most sides; around a bulla or a piece of lung, lung.
                if np.median(self.values[z][wide][ring]) < -300.0:
                    continue
                centre = (
                    (box[0].start + box[0].stop) / 2 * self.spacing[1],
                    (box[1].start + box[1].stop) / 2 * self.spacing[2],
                )
                rounds.append((labels == index, centre))
            alive, open_ends = [], list(chains)
            for blob, centre in rounds:
                gaps = [np.hypot(end[0] - centre[0], end[1] - centre[1]) for _, end in open_ends]
                near = int(np.argmin(gaps)) if gaps else 0
                chain = open_ends.pop(near)[0] if gaps and gaps[near] < 8.0 else []
                chain.append((z, blob))
                alive.append((chain, centre))
            done.extend(chain for chain, _ in open_ends)
            chains = alive
        done.extend(chain for chain, _ in chains)
        long_enough = [chain for chain in done if len(chain) * self.spacing[0] >= 20.0]
        if not long_enough:
            return None
        best = max(long_enough, key=self._tracheal)
        seeds = np.zeros_like(gas)
        for z, blob in best:
            seeds[z] |= blob
        return seeds

    def _tracheal(self, chain: list[tuple[int, np.ndarray]]) -> float:
        """Score a chain of round gas: long, high up; bowel is short or low."""
        return len(chain) * self.spacing[0] + 0.5 * chain[0][0] * self.spacing[0]

    def _lungs(self, air: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Air inside the patient whose inside has the density of lung."""
        cross = ndimage.generate_binary_structure(3, 1)
        opened = ndimage.binary_opening(air, cross)
        labels, number = ndimage.label(opened)
        core = ndimage.binary_erosion(opened, cross, border_value=1)
        counts = np.bincount(labels.ravel(), minlength=number + 1)
        boxes = ndimage.find_objects(labels)
        keep = np.zeros(number + 1, dtype=bool)
        for index in range(1, number + 1):
            if counts[index] * self.voxel_ml < 5.0:
                continue
            box = boxes[index - 1]
            piece = labels[box] == index
            inside = self.values[box][piece & core[box]]
            if inside.size * self.voxel_ml < 1.0 or not self._like_lung(inside):
                continue
            met = float(hits[box][piece].mean()) / 6.0
            # Where a round field of view cuts them, lungs are met by less tissue. Foam and the air in a gap between limbs
            # are met by little, and are hardly denser than the room.
            above_gas = float(np.median(inside)) - self.gas_hu
            keep[index] = (
                met >= 0.65
                or (met >= 0.5 and above_gas > CUT_LUNG_HU)
                or (met >= 0.3 and above_gas > 20.0 and self._vessels(piece) >= 0.02)
            )
        # Bowel content mixed with gas can have the density of lung, but is small beside the lungs and not as even.
        largest = int(counts[keep].max()) if keep.any() else 0
        for index in np.flatnonzero(keep).tolist():
            if counts[index] < 0.1 * largest or counts[index] * self.voxel_ml < 30.0:
                box = boxes[index - 1]
                inside = self.values[box][(labels[box] == index) & core[box]]
                keep[index] = np.mean((inside > self.gas_hu) & (inside < -600.0)) >= 0.7
        if not keep.any():
            return np.zeros_like(air)
        # What the opening took away comes back: recesses thinner than it, as far as they are joined to the lung.
        inside = air & (hits >= 4)
        lungs = ndimage.binary_dilation(keep[labels], cross, iterations=4, mask=inside)
        return lungs | self._recesses(inside & ~lungs, lungs)

    def _recesses(self, air: np.ndarray, lungs: np.ndarray) -> np.ndarray:
        """Return pieces of lung that this image shows apart from it: cut by its upper end, or too thin to be joined."""
        labels, number = ndimage.label(air, ndimage.generate_binary_structure(3, 2))
        if number == 0:
            return air
        steps = max(1, round(12.0 / max(self.spacing)))
        near = ndimage.binary_dilation(lungs, ndimage.generate_binary_structure(3, 1), iterations=steps)
        near[-1] = True
        # A sheet one voxel thick is the blurred border of something else.
        thick = np.zeros(number + 1, dtype=bool)
        for label, span in enumerate(ndimage.find_objects(labels), start=1):
            thick[label] = min(side.stop - side.start for side in span[1:]) >= 2
        counts = np.bincount(labels.ravel(), minlength=number + 1)
        touching = np.bincount(labels[near], minlength=number + 1) > 0
        # The rest of a piece that is cut by the upper end is not seen, so that its size says less.
        least = np.full(number + 1, 0.5)
        least[np.unique(labels[-1])] = 0.2
        # Larger pieces have been judged already, by what they hold and by what surrounds them.
        keep = touching & thick & (counts * self.voxel_ml >= least) & (counts * self.voxel_ml <= 6.0)
        keep[0] = False
        asked = np.flatnonzero(keep)
        if asked.size == 0:
            return np.zeros_like(air)
        chosen = keep[labels]
        density = np.asarray(ndimage.median(self.values[chosen], labels[chosen], asked))
        keep[asked] = (density > self.gas_hu) & (density < -600.0)
        return keep[labels]

    def _like_lung(self, inside: np.ndarray) -> bool:
        share = np.mean((inside > self.gas_hu) & (inside < LUNG_TOP_HU))
        return bool(share >= 0.5 and np.mean(inside < self.gas_hu) <= 0.45)

    def _vessels(self, piece: np.ndarray) -> float:
        """Return the share of a piece that is not air but enclosed by it: the vessels of a lung; a foam mattress has none."""
        closed = close(piece, 5.0, self.spacing)
        return float((closed & ~piece).sum() / closed.sum())

    def _body(self, tissue: np.ndarray, cavities: np.ndarray) -> np.ndarray:
        """Return the patient: the tissue with all that it encloses in space or in an axial slice."""
        body = ndimage.binary_closing(tissue | cavities, ndimage.generate_binary_structure(3, 1)) | tissue | cavities
        for plane in body:
            ndimage.binary_fill_holes(plane, output=plane)
        return body

    def _sides(self, lungs: np.ndarray, airways: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell right from left."""
        nothing = np.zeros_like(lungs)
        if not lungs.any():
            self.warnings.append("No lungs are in this image.")
            return nothing, nothing
        box = bounding_box(lungs)
        assert box is not None  # noqa: S101 - there are lungs
        box = padded_box(box, (1, 1, 1), lungs.shape)
        markers = self._markers(lungs[box])
        if markers.max() == 2:
            nearest = ndimage.distance_transform_edt(
                markers == 0, sampling=self.spacing, return_distances=False, return_indices=True
            )
            parts = np.zeros(lungs.shape, dtype=np.uint8)
            parts[box] = np.where(lungs[box], markers[tuple(nearest)], 0)
            first, second = (ndimage.center_of_mass(parts == index)[2] for index in (1, 2))
            right, left = (1, 2) if first < second else (2, 1)
            return parts == right, parts == left
        is_right = self._is_right(lungs, airways, body)
        self.warnings.append(
            f"Only one lung is in this image; it is taken for the {'right' if is_right else 'left'} one."
        )
        return (lungs, nothing) if is_right else (nothing, lungs)

    def _markers(self, lungs: np.ndarray) -> np.ndarray:
        """One or two markers, 1 and 2: the lungs shrunk until what joins them is gone."""
        depth = ndimage.distance_transform_edt(lungs, sampling=self.spacing)
        for radius in (0.0, 2.0, 4.0, 6.0, 9.0, 12.0, 16.0):
            labels, number = ndimage.label(depth > radius)
            if number < 2:
                continue
            counts = np.bincount(labels.ravel())
            counts[0] = 0
            first, second = np.argsort(counts)[::-1][:2]
            if counts[second] < 0.12 * counts.sum() or counts[second] * self.voxel_ml < 10.0:
                continue
            places = ndimage.center_of_mass(labels > 0, labels, [first, second])
            if abs(places[0][2] - places[1][2]) * self.spacing[2] < 50.0:
                continue
            return np.where(labels == first, 1, np.where(labels == second, 2, 0))
        return lungs.astype(np.int64)

    def _is_right(self, lungs: np.ndarray, airways: np.ndarray, body: np.ndarray) -> bool:
        """Say whether a single lung is the right one: the trachea lies medial of it, the skin lateral."""
        place = ndimage.center_of_mass(lungs)[2]
        if airways.any():
            return bool(place < ndimage.center_of_mass(airways)[2])
        rows = lungs.any(axis=2)
        first = lungs.argmax(axis=2)[rows]
        last = lungs.shape[2] - 1 - lungs[:, :, ::-1].argmax(axis=2)[rows]
        reach = int(80.0 / self.spacing[2])
        columns = np.arange(lungs.shape[2])
        room = ~body[rows]
        before = (room & (columns < first[:, None]) & (columns >= first[:, None] - reach)).any(axis=1).sum()
        after = (room & (columns > last[:, None]) & (columns <= last[:, None] + reach)).any(axis=1).sum()
        if before == after:
            self.warnings.append("Nothing in this image tells right from left for its lung.")
        return bool(before >= after)

    def _closed(self, lung: np.ndarray, barred: np.ndarray) -> np.ndarray:
        """Return a lung with its vessels, and with the tumours that it encloses or that dent its surface."""
        box = bounding_box(lung)
        assert box is not None  # noqa: S101 - the caller has seen that there is a lung
        part = close(lung[box], CLOSE_MM, self.spacing)
        part = ndimage.binary_fill_holes(part)
        whole = lung.copy()
        whole[box] |= part & ~barred[box]
        return whole

    def _add_masses(self, labels: np.ndarray, closed: np.ndarray) -> None:
        """Add to the lungs the solid masses that hang in them by a stalk: tumours on a vessel, at the hilum or the wall.

        A mass is a piece that comes apart from the rest of the body when a layer is taken off all around it, and
        that has lung on most of its surface.
        """
        box = bounding_box(np.isin(labels, LUNG_LABELS))
        if box is None:
            return
        near, inside = labels[box], closed[box]
        added = True
        for radius in (10.0, 6.0, 3.5):
            if added:
                solid = near == Anatomy.BODY
                padded = np.pad(solid, 1, mode="edge")
                depth = ndimage.distance_transform_edt(padded, sampling=self.spacing)[1:-1, 1:-1, 1:-1]
                added = False
            pieces, number = ndimage.label(depth > radius)
            if number < 2:
                continue
            main = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
            for index, span in enumerate(ndimage.find_objects(pieces), start=1):
                # What the image cuts through may be anything: the dome of the liver, too, hangs in the lung.
                cut = span[0].start == 0 or span[0].stop == near.shape[0]
                if index == main or (cut and (box[0].start == 0 or box[0].stop == labels.shape[0])):
                    continue
                wide = padded_box(span, margin_voxels(radius + 6.0, self.spacing), near.shape)
                distance = distance_to(pieces[wide] == index, self.spacing)
                mass = solid[wide] & (distance <= radius + 1.5)
                # The layer that was taken off is put back, and what surrounds it then must be lung.
                shell = (distance <= radius + 5.0) & ~mass
                around = near[wide][shell]
                lung = np.isin(around, LUNG_LABELS)
                if lung.mean() < 0.6:
                    continue
                near[wide][mass] = np.bincount(around[lung], minlength=4).argmax()
                inside[wide] |= mass
                added = True

    def _add_consolidations(self, labels: np.ndarray, closed: np.ndarray) -> float:
        """Add dense lung at the chest wall, whose border is inferred and not seen; return the ml that no lesion explains."""
        added = consolidations(labels, self.values, self.spacing)
        if not added.any():
            return 0.0
        nearest = ndimage.distance_transform_edt(
            ~np.isin(labels, LUNG_LABELS), sampling=self.spacing, return_distances=False, return_indices=True
        )
        labels[added] = labels[tuple(axis[added] for axis in nearest)]
        closed |= added
        return float(np.count_nonzero(added & ~self.drawn)) * self.voxel_ml

    def _confidence(self, labels: np.ndarray, closed: np.ndarray, inferred_ml: float) -> float:
        """Rate the lungs by what healthy and sick ones have in common; it is no probability."""
        volumes = [float((labels == label).sum()) * self.voxel_ml for label in LUNG_LABELS]
        if not any(volumes):
            return 0.0
        lungs = np.isin(labels, LUNG_LABELS)
        score = 1.0
        if min(volumes) < 0.25 * max(volumes):
            score *= 0.7
        if sum(volumes) < 1000.0:
            score *= 0.7
            self.warnings.append(
                f"The lungs in this image are small ({sum(volumes):.0f} ml): it may be cut through them."
            )
        if inferred_ml > INFERRED_SHARE * sum(volumes):
            score *= 0.7
            self.warnings.append(
                f"{inferred_ml:.0f} ml of dense tissue between lung and ribs are taken for consolidated lung: look at the border "
                "there, and whether it is blood or tumour."
            )
        if float(closed.sum()) > 0.2 * lungs.sum():
            score *= 0.7
            self.warnings.append("A fifth or more of the lungs is dense: look at their border.")
        if float(np.median(self.values[lungs])) > -600.0:
            score *= 0.7
        return score


def _directions_that_meet(tissue: np.ndarray) -> np.ndarray:
    """Count, for every voxel, in how many of the six directions along the axes there is tissue."""
    count = np.zeros(tissue.shape, dtype=np.uint8)
    for axis in range(3):
        count += np.logical_or.accumulate(tissue, axis=axis)
        count += np.flip(np.logical_or.accumulate(np.flip(tissue, axis), axis=axis), axis)
    return count


def _block_mean(values: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Mean over blocks of voxels, those at the far ends smaller where the size is no multiple."""
    result: np.ndarray = values
    for axis in (2, 1, 0):
        factor, size = factors[axis], values.shape[axis]
        starts = np.arange(0, size, factor)
        if factor == 1:
            continue
        counts = np.diff(np.append(starts, size)).astype(np.float32)
        total = np.add.reduceat(result, starts, axis=axis, dtype=np.float32)
        result = total / counts.reshape([-1 if other == axis else 1 for other in range(3)])
    return result.astype(np.float32, copy=False)


def _refine(values: np.ndarray, found: _Found, factors: tuple[int, ...], full: np.ndarray) -> Iterator[tuple[int, int]]:
    """Fill ``full`` with the coarse labels and decide again, voxel by voxel, at the border of lungs, airways and body.

    The border is read on the image smoothed by half a voxel: noise does not fray it, and it stays where it is.
    """
    labels = found.labels
    airy = (labels > Anatomy.BODY) & ~found.closed
    hollow = airy | (labels == Anatomy.OUTSIDE)
    ball = ndimage.generate_binary_structure(3, 3)
    band = ndimage.binary_dilation(hollow, ball) & ~ndimage.binary_erosion(hollow, ball, border_value=1)
    nearest = ndimage.distance_transform_edt(~hollow, return_distances=False, return_indices=True)
    of_air = labels[tuple(nearest)]
    of_tissue = np.where(found.closed, labels, np.uint8(Anatomy.BODY))
    size_y, size_x = values.shape[1:]

    def up(plane: np.ndarray) -> np.ndarray:
        return plane.repeat(factors[1], axis=0)[:size_y].repeat(factors[2], axis=1)[:, :size_x]

    for index in range(labels.shape[0]):
        start, stop = index * factors[0], min((index + 1) * factors[0], values.shape[0])
        base = up(labels[index])
        places = np.nonzero(up(band[index]))
        if places[0].size == 0:
            full[start:stop] = base
            yield start, stop
            continue
        rectangle = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in places)
        inner = tuple(axis - side.start for axis, side in zip(places, rectangle, strict=True))
        air_label, tissue_label = up(of_air[index])[places], up(of_tissue[index])[places]
        for z in range(start, stop):
            full[z] = base
            near = _smoothed(values, z, rectangle)[inner]
            full[z][places] = np.where(near < BORDER_HU, air_label, tissue_label)
        yield start, stop


def _smoothed(values: np.ndarray, z: int, rectangle: tuple[slice, ...]) -> np.ndarray:
    """Return a part of a slice, smoothed by half a voxel along all three axes; the image is continued at its ends."""
    before, after = max(z - 1, 0), min(z + 1, values.shape[0] - 1)
    plane = values[z][rectangle].astype(np.float32) * (1.0 - 2.0 * BORDER_TAP)
    plane += BORDER_TAP * (values[before][rectangle].astype(np.float32) + values[after][rectangle])
    for axis in (0, 1):
        wide = np.concatenate([plane.take([0], axis), plane, plane.take([-1], axis)], axis)
        ends = [
            wide[tuple(slice(a, b) if other == axis else slice(None) for other in (0, 1))]
            for a, b in ((0, -2), (2, None))
        ]
        plane = (1.0 - 2.0 * BORDER_TAP) * plane + BORDER_TAP * (ends[0] + ends[1])
    return plane


def _drawn_lesions(given: Segmentation, lesion_segments: Collection[str]) -> list[np.ndarray]:
    """Return the segments that are lesions: those said to be, and all that no organ is named like."""
    names = (segment.name for segment in given.segments)
    return [given.array(name) for name in names if name in lesion_segments or not is_organ(name)]


def _use_given(
    labels: np.ndarray, given: Segmentation, lesion_segments: Collection[str], lateral: tuple[int, int]
) -> LungPart | None:
    """Put the lungs and airways of a given segmentation in the place of those found; return which lungs it has.

    A lung that it does not speak of stays as it was found.
    """
    organs = [segment.name for segment in given.segments if segment.name not in lesion_segments]
    parts = [(name, lung_part(name)) for name in organs]
    # Both lungs in one segment come first, because a segment of one lung knows its side better.
    lungs = sorted(((name, part) for name, part in parts if part is not None), key=lambda item: item[1] != "lungs")
    taken: LungPart | None = None
    if any(given.array(name).any() for name, _ in lungs):
        named = {part for _, part in lungs}
        taken = named.pop() if len(named) == 1 else "lungs"
        _replace_lungs(labels, given, lungs, taken, lateral)
    for name in organs:
        if is_airway(name):
            labels[given.array(name)] = Anatomy.AIRWAYS
    return taken


def _replace_lungs(
    labels: np.ndarray,
    given: Segmentation,
    lungs: Sequence[tuple[str, LungPart]],
    taken: LungPart,
    lateral: tuple[int, int],
) -> None:
    """Put given segments of lungs in the place of ``taken`` in a map of labels."""
    sides = {"right lung": Anatomy.RIGHT_LUNG, "left lung": Anatomy.LEFT_LUNG}
    found = np.where(np.isin(labels, LUNG_LABELS), labels, 0)
    if taken == "lungs":
        labels[found > 0] = Anatomy.BODY
    else:
        labels[found == sides[taken]] = Anatomy.BODY
        other = found == sides["left lung" if taken == "right lung" else "right lung"]
        drawn = np.logical_or.reduce([given.array(name) for name, _ in lungs])
        # The only lung of a patient may have been found on the wrong side.
        if np.count_nonzero(other & drawn) > 0.5 * np.count_nonzero(other):
            labels[other] = Anatomy.BODY
    for name, part in lungs:
        mask = given.array(name)
        labels[mask] = _sides_of(mask, found, lateral)[mask] if part == "lungs" else sides[part]


def _sides_of(mask: np.ndarray, sides: np.ndarray, lateral: tuple[int, int]) -> np.ndarray:
    """Tell right from left in a mask of both lungs, by the lungs found or else by the middle of the mask."""
    if sides.any():
        nearest = ndimage.distance_transform_edt(sides == 0, return_distances=False, return_indices=True)
        return sides[tuple(nearest)]
    axis, to_left = lateral
    centre = float(np.argwhere(mask)[:, axis].mean())
    index = np.arange(mask.shape[axis]).reshape([-1 if other == axis else 1 for other in range(3)])
    is_left = (index - centre) * to_left > 0
    return np.broadcast_to(np.where(is_left, np.uint8(Anatomy.LEFT_LUNG), np.uint8(Anatomy.RIGHT_LUNG)), mask.shape)


def measure_lungs(
    ct: sitk.Image, anatomy: sitk.Image, exclude: np.ndarray | None, timepoint: str
) -> tuple[LungMeasures, ...]:
    """Measure the density of both lungs, of each, and of their thirds by height.

    Voxels within ``PLEURAL_MARGIN_MM`` of the lung's surface (blurred with the chest wall), those of ``exclude`` and large
    vessels are left out of the densities, not of the volume.

    Parameters
    ----------
    exclude
        What is no lung tissue: lesions with their margin, as a bool array (z, y, x) on the grid of the CT; None: nothing.

    Returns
    -------
    tuple of LungMeasures
        Parts without at least 1 ml of tissue to measure are missing.
    """
    labels, values = sitk.GetArrayViewFromImage(anatomy), sitk.GetArrayViewFromImage(ct)
    box = bounding_box(np.isin(labels, LUNG_LABELS))
    if box is None:
        return ()
    near, hu = labels[box], values[box]
    lungs = np.isin(near, LUNG_LABELS)
    usable = lung_tissue(hu, lungs, spacing_of(ct))
    if exclude is not None:
        usable &= ~exclude[box]
    axis = axial_axis(ct)
    direction = np.asarray(ct.GetDirection()).reshape(3, 3)
    to_head = bool(direction[2, 2 - axis] > 0)
    milliliter = voxel_volume_ml(ct)
    result = []
    for side, name in ((None, "both"), (Anatomy.LEFT_LUNG, "left"), (Anatomy.RIGHT_LUNG, "right")):
        mask = lungs if side is None else near == side
        parts = [(name, slice(0, mask.shape[axis]))]
        if side is not None:
            parts += [(f"{name}-{third}", span) for third, span in _thirds(mask, axis, to_head)]
        for part, span in parts:
            index = tuple(span if other == axis else slice(None) for other in range(3))
            volume = float(np.count_nonzero(mask[index])) * milliliter
            tissue = hu[index][usable[index] & mask[index]].astype(np.float32)
            if tissue.size * milliliter >= 1.0:
                result.append(_densities(timepoint, part, volume, tissue, milliliter))
    return tuple(result)


def lung_tissue(hu: np.ndarray, lungs: np.ndarray, spacing_zyx: tuple[float, ...]) -> np.ndarray:
    """Return the lungs without their blurred surface and without large vessels.

    A vessel is dense and slender: what an opening by a ball of ``VESSEL_RADIUS_MM`` takes away from the dense voxels.
    Consolidations are wider than that, and stay.
    """
    # Margins and widths of millimetres need no finer grid than this; the densities are read on the full one.
    factors = tuple(max(1, int(1.8 / step)) for step in spacing_zyx)
    spacing = tuple(step * factor for step, factor in zip(spacing_zyx, factors, strict=True))
    picked = tuple(slice(None, None, factor) for factor in factors)
    small, values = lungs[picked], hu[picked]
    inner = erode(small, PLEURAL_MARGIN_MM, spacing)
    thick = erode(small & (values > CONSOLIDATION_HU), VESSEL_RADIUS_MM, spacing)
    wide = dilate(thick, VESSEL_RADIUS_MM + 1.0, spacing) if thick.any() else thick
    tissue = _enlarged(inner, factors, lungs.shape) & lungs
    tissue &= (hu <= CONSOLIDATION_HU) | _enlarged(wide, factors, lungs.shape)
    return tissue


def _enlarged(mask: np.ndarray, factors: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Repeat every voxel of a coarse mask on the full grid."""
    for axis, factor in enumerate(factors):
        mask = mask.repeat(factor, axis=axis)
    return mask[tuple(slice(0, size) for size in shape)]


def _thirds(mask: np.ndarray, axis: int, to_head: bool) -> list[tuple[str, slice]]:
    """Cut a lung into thirds of equal height."""
    rows = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    if rows.size < 3:
        return []
    edges = np.round(np.linspace(rows[0], rows[-1] + 1, 4)).astype(int)
    names = ("lower", "middle", "upper") if to_head else ("upper", "middle", "lower")
    return [(name, slice(int(a), int(b))) for name, a, b in zip(names, edges[:-1], edges[1:], strict=True)]


def _densities(timepoint: str, part: str, volume_ml: float, hu: np.ndarray, milliliter: float) -> LungMeasures:
    mean, sd = float(hu.mean(dtype=np.float64)), float(hu.std(dtype=np.float64))
    scaled = (hu - mean) / max(sd, 1e-6)
    squared = scaled * scaled

    def share(low: float, high: float) -> float:
        return float(np.count_nonzero((hu >= low) & (hu < high))) / hu.size

    return LungMeasures(
        timepoint=timepoint,
        part=part,
        volume_ml=volume_ml,
        mean_hu=mean,
        sd_hu=sd,
        skewness=float((squared * scaled).mean(dtype=np.float64)),
        kurtosis=float((squared * squared).mean(dtype=np.float64)),
        percentile_15_hu=float(np.percentile(hu, 15)),
        laa950_percent=100.0 * share(-np.inf, LOW_ATTENUATION_HU),
        haa_percent=100.0 * share(*HIGH_ATTENUATION_HU),
        ground_glass_ml=share(*GROUND_GLASS_HU) * hu.size * milliliter,
        consolidation_ml=share(CONSOLIDATION_HU, np.inf) * hu.size * milliliter,
    )
