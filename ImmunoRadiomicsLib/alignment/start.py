"""Where to begin: a search over all shifts and several turns, and a linear transform refined from it.

The search is the normalised cross-correlation of the overlap for every shift at once (masked correlation in the Fourier domain,
D. Padfield 2012, doi:10.1109/TIP.2011.2181402), which needs no common field of view. The refinement is a Gauss-Newton minimisation of the
difference of the images up to a gain and an offset, with weights that let voxels go that cannot be explained
(doi:10.1109/TMI.2010.2049497 discusses such robust weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import fft, ndimage

from ..progress import Progress
from .grids import Grid

# Degrees of freedom of the refinement.
RIGID, AFFINE = 6, 12
_STRETCH_LIMITS = (0.7, 1.4)


@dataclass(frozen=True, eq=False)
class Scan:
    """An image on a working grid: densities (clipped HU), where it has voxels, where the body is, where the lungs are."""

    grid: Grid
    values: np.ndarray
    valid: np.ndarray
    body: np.ndarray
    lungs: np.ndarray

    def coarser(self) -> Scan:
        """Return the scan on every second voxel, smoothed first so that nothing aliases."""
        smooth = ndimage.gaussian_filter(self.values, 0.8, mode="nearest", truncate=3.0)
        step = (slice(None, None, 2),) * 3
        return Scan(
            self.grid.coarser(),
            np.ascontiguousarray(smooth[step]),
            np.ascontiguousarray(self.valid[step]),
            np.ascontiguousarray(self.body[step]),
            np.ascontiguousarray(self.lungs[step]),
        )

    @property
    def body_centre(self) -> np.ndarray:
        """LPS centre of mass of the body; the middle of the grid where there is none."""
        if not self.body.any():
            return self.grid.centre
        index = np.array(ndimage.center_of_mass(self.body))[::-1]
        return np.asarray(self.grid.origin) + index * self.grid.spacing


@dataclass(frozen=True, eq=False)
class Linear:
    """The map ``point -> matrix @ point + offset`` from fixed to moving LPS points."""

    matrix: np.ndarray
    offset: np.ndarray

    @classmethod
    def shift(cls, offset: np.ndarray) -> Linear:
        """Return a pure translation."""
        return cls(np.eye(3), np.asarray(offset, dtype=float))

    def after(self, first: Linear) -> Linear:
        """Return the map that applies ``first`` and then this one."""
        return Linear(self.matrix @ first.matrix, self.matrix @ first.offset + self.offset)

    def inverse(self) -> Linear:
        """Return the inverse map."""
        back = np.linalg.inv(self.matrix)
        return Linear(back, -back @ self.offset)

    def transform(self) -> sitk.AffineTransform:
        """Return the map as an ITK affine transform."""
        result = sitk.AffineTransform(3)
        result.SetMatrix(self.matrix.ravel().tolist())
        result.SetTranslation(self.offset.tolist())
        return result

    @property
    def plausible(self) -> bool:
        """Whether no direction is stretched or squeezed more than bodies are between two scans."""
        stretches = np.linalg.svd(self.matrix, compute_uv=False)
        return bool(stretches[-1] > _STRETCH_LIMITS[0] and stretches[0] < _STRETCH_LIMITS[1])


def rotation(vector: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) of the turn about ``vector`` by its length in radians."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = np.asarray(vector) / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def warp_linear(
    array: np.ndarray, source: Grid, target: Grid, linear: Linear, outside: float, order: int = 1
) -> np.ndarray:
    """Sample an array of grid ``source`` at the points that ``linear`` assigns to the voxels of grid ``target``."""
    scale_in = np.asarray(target.spacing)
    scale_out = np.asarray(source.spacing)
    matrix = (linear.matrix * scale_in) / scale_out[:, None]
    offset = (linear.matrix @ np.asarray(target.origin) + linear.offset - source.origin) / scale_out
    return ndimage.affine_transform(
        array,
        matrix[::-1, ::-1],
        offset[::-1],
        output_shape=target.shape,
        order=order,
        mode="constant",
        cval=outside,
        prefilter=False,
    )


@dataclass(frozen=True, eq=False)
class Candidate:
    """A start: the map and its correlation over the overlap."""

    linear: Linear
    score: float


def search_shifts(fixed: Scan, moving: Scan, turns: list[np.ndarray], *, overlap: float = 0.5) -> list[Candidate]:
    """Find, for each turn (a matrix) of the moving scan about its body centre, the shift with the highest correlation.

    Both scans must have the same spacing. Only shifts count where the bodies overlap by at least the share ``overlap`` of the smaller one.
    """
    spacing = np.asarray(fixed.grid.spacing)
    # A turned box needs room for its corners.
    reach = (
        int(np.ceil(np.linalg.norm(np.array(moving.grid.shape)) - max(moving.grid.shape))) // 2 if len(turns) > 1 else 0
    )
    low = np.asarray(moving.grid.origin) - reach * spacing
    room = Grid(tuple(low), moving.grid.spacing, tuple(length + 2 * reach for length in moving.grid.size))  # type: ignore[arg-type]
    full = tuple(fft.next_fast_len(a + b - 1, real=True) for a, b in zip(fixed.grid.shape, room.shape, strict=True))
    mean = float(fixed.values[fixed.body].mean()) if fixed.body.any() else 0.0

    def forward(array: np.ndarray) -> np.ndarray:
        return fft.rfftn(array.astype(np.float32), full)

    valid_f = fixed.valid.astype(np.float32)
    values_f = (fixed.values - mean) * valid_f
    transforms_f = [forward(item) for item in (values_f, values_f**2, valid_f, fixed.body)]
    centre = moving.body_centre
    result = []
    for turn in turns:
        about = Linear(turn, centre - turn @ centre)
        valid = warp_linear(moving.valid.astype(np.float32), moving.grid, room, about, 0.0, order=0)
        body = warp_linear(moving.body.astype(np.float32), moving.grid, room, about, 0.0, order=0)
        values = (warp_linear(moving.values, moving.grid, room, about, mean) - mean) * valid
        transforms_m = [np.conj(forward(item)) for item in (values, values**2, valid, body)]

        def correlate(of_fixed: int, of_moving: int, of: list[np.ndarray] = transforms_m) -> np.ndarray:
            return fft.irfftn(transforms_f[of_fixed] * of[of_moving], full)

        count = np.maximum(correlate(2, 2), 1.0)
        sum_f, sum_m = correlate(0, 2), correlate(2, 0)
        covariance = correlate(0, 0) - sum_f * sum_m / count
        variance = (correlate(1, 2) - sum_f**2 / count) * (correlate(2, 1) - sum_m**2 / count)
        shared = correlate(3, 3)
        enough = shared >= overlap * max(1.0, min(float(fixed.body.sum()), float(body.sum())))
        score = np.where(enough & (variance > 0), covariance / np.sqrt(np.maximum(variance, 1.0)), -1.0)
        best = np.array(np.unravel_index(int(np.argmax(score)), score.shape))
        lag = np.where(best >= np.array(fixed.grid.shape), best - np.array(full), best)[::-1]
        # Voxel i of the turned moving scan lies on voxel i + lag of the fixed scan.
        shift = np.asarray(room.origin) - np.asarray(fixed.grid.origin) - lag * spacing
        result.append(Candidate(about.after(Linear.shift(shift)), float(score.max())))
    return result


def usual_turns(degrees: float = 12.0) -> list[np.ndarray]:
    """Return no turn and turns by ``degrees`` about each patient axis, either way."""
    steps = [np.zeros(3)]
    for axis in range(3):
        for sign in (-1.0, 1.0):
            step = np.zeros(3)
            step[axis] = sign * np.radians(degrees)
            steps.append(step)
    return [rotation(step) for step in steps]


def match(fixed: Scan, moving: Scan, linear: Linear) -> float:
    """Return how well two scans match under a map: the correlation over their overlap, somewhat less where that is small.

    -1 where the bodies overlap by less than a fifth of the smaller one.
    """

    def carried(region: np.ndarray) -> np.ndarray:
        return warp_linear(region.astype(np.float32), moving.grid, fixed.grid, linear, 0.0, order=0) > 0.5

    valid = fixed.valid & carried(moving.valid)
    body = carried(moving.body)
    overlap = float((fixed.body & body).sum()) / max(1, min(int(fixed.body.sum()), int(moving.body.sum())))
    if overlap < 0.2:
        return -1.0
    region = valid & ndimage.binary_dilation(fixed.body | body, iterations=2)
    a, b = fixed.values[region], warp_linear(moving.values, moving.grid, fixed.grid, linear, 0.0)[region]
    if a.size < 100 or a.std() == 0 or b.std() == 0:
        return -1.0
    return float(np.corrcoef(a, b)[0, 1]) * min(1.0, overlap) ** 0.25


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the least-squares line."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    variance = float(((x - mean_x) ** 2).mean())
    slope = float(((x - mean_x) * (y - mean_y)).mean()) / variance if variance > 0 else 1.0
    return slope, mean_y - slope * mean_x


def refine(
    fixed: Scan,
    moving: Scan,
    start: Linear,
    freedom: int,
    *,
    iterations: int = 30,
    sample_to: int = 40_000,
    tolerance_mm: float = 0.02,
) -> Linear:
    """Improve a linear map by Gauss-Newton steps; ``freedom`` is RIGID or AFFINE.

    The unknowns are a small motion of the fixed points before the map, a gain and an offset of the densities. Voxels are weighed down
    (Geman-McClure) the more their difference exceeds the robust spread. Ends early once no unknown moves the body by more than ``tolerance_mm``.
    """
    region = fixed.valid & ndimage.binary_dilation(fixed.body, iterations=2)
    chosen = np.flatnonzero(region.ravel())
    if chosen.size < 200:
        return start
    chosen = chosen[:: max(1, chosen.size // sample_to)]
    index = np.stack(np.unravel_index(chosen, fixed.grid.shape))[::-1]
    points = np.asarray(fixed.grid.origin)[:, None] + index * np.asarray(fixed.grid.spacing)[:, None]
    middle = points.mean(axis=1)
    scale = float(points.std(axis=1).mean()) or 1.0
    relative = (points - middle[:, None]) / scale
    target = fixed.values.ravel()[chosen].astype(np.float64)
    gradients = np.gradient(moving.values, *moving.grid.spacing[::-1])
    valid_m = moving.valid.astype(np.float32)
    current, damping = start, 1e-3
    for _ in range(iterations):
        there = current.matrix @ points + current.offset[:, None]
        coordinates = ((there - np.asarray(moving.grid.origin)[:, None]) / np.asarray(moving.grid.spacing)[:, None])[
            ::-1
        ]
        inside = ndimage.map_coordinates(valid_m, coordinates, order=0, mode="constant", prefilter=False) > 0.5
        if inside.sum() < 200:
            return start
        values = ndimage.map_coordinates(
            moving.values, coordinates[:, inside], order=1, mode="nearest", prefilter=False
        )
        slope = np.stack(
            [
                ndimage.map_coordinates(item, coordinates[:, inside], order=1, mode="nearest", prefilter=False)
                for item in gradients[::-1]
            ]
        ).astype(np.float64)
        slope = current.matrix.T @ slope
        place = relative[:, inside]
        if freedom == RIGID:
            motion = np.concatenate([np.cross(place, slope, axis=0), slope])
        else:
            motion = np.concatenate([(slope[:, None] * place[None]).reshape(9, -1), slope])
        # Linear around no motion, gain 1 and offset 0: fixed - moving = slope . motion + (gain - 1) * moving + offset.
        design = np.concatenate([motion, values[None], np.ones((1, values.size))])
        rest = target[inside] - values
        gain, level = _line(values, target[inside])
        difference = target[inside] - gain * values - level
        spread = 1.4826 * float(np.median(np.abs(difference))) + 10.0
        weight = 1.0 / (1.0 + (difference / (2.0 * spread)) ** 2) ** 2
        weighted = design * weight
        normal = weighted @ design.T
        right = weighted @ rest
        diagonal = np.diag(normal).copy()
        normal[np.diag_indices_from(normal)] += damping * diagonal + 1e-9
        step = np.linalg.solve(normal, right)
        small = rotation(step[:3] / scale) if freedom == RIGID else np.eye(3) + step[:9].reshape(3, 3) / scale
        moved = small @ middle
        shift = Linear(small, middle - moved + step[freedom - 3 : freedom])
        proposal = current.after(shift)
        if not proposal.plausible:
            return current
        current = proposal
        if np.abs(step[:freedom]).max() < tolerance_mm:
            break
    return current


@dataclass(frozen=True, eq=False)
class Start:
    """The linear map found, its match, and the best match of the moving scan seen in a mirror or turned over (with its name)."""

    linear: Linear
    score: float
    turned_over: str
    turned_over_score: float


# What a scan looks like whose axes were mixed up on the way; diagonal signs along the patient axes (x, y, z).
_TURNED_OVER = {
    "mirrored left to right": (-1.0, 1.0, 1.0),
    "mirrored front to back": (1.0, -1.0, 1.0),
    "mirrored head to feet": (1.0, 1.0, -1.0),
    "turned upside down (front to back and head to feet)": (1.0, -1.0, -1.0),
    "turned upside down (left to right and head to feet)": (-1.0, 1.0, -1.0),
    "turned over (left to right and front to back)": (-1.0, -1.0, 1.0),
    "mirrored along every axis": (-1.0, -1.0, -1.0),
}
_REFINED_STARTS = 4


def centre_shift(fixed: Scan, moving: Scan, *, lungs: bool) -> Linear | None:
    """Return the shift that lays the centres of the bodies, or of the lungs, on each other; None where there are none."""
    regions = (fixed.lungs, moving.lungs) if lungs else (fixed.body, moving.body)
    if not all(region.any() for region in regions):
        return None
    centres = [
        np.asarray(scan.grid.origin) + np.array(ndimage.center_of_mass(region))[::-1] * scan.grid.spacing
        for scan, region in zip((fixed, moving), regions, strict=True)
    ]
    return Linear.shift(centres[1] - centres[0])


def find_start(fixed: Scan, moving: Scan, freedom: int, given: Linear | None, progress: Progress) -> Start:
    """Find the linear map between two scans of the same coarse spacing, from nothing or from a given start.

    Starts are the best shift for every usual turn, the shifts of body and lung centres, and the positions as they are. The best few
    are refined, rigidly first. The same is tried with the moving scan turned over, to recognise mixed-up axes.
    """
    if given is not None:
        starts = [given]
    else:
        starts = [item.linear for item in search_shifts(fixed, moving, usual_turns())]
        centres = (centre_shift(fixed, moving, lungs=False), centre_shift(fixed, moving, lungs=True))
        starts += [Linear.shift(np.zeros(3)), *(item for item in centres if item is not None)]
    progress(0.2, "Searching how the scans lie to each other")
    best, score = _best_refined(fixed, moving, starts, freedom)
    turned_over, turned_score = "", -1.0
    for number, (name, signs) in enumerate(_TURNED_OVER.items()):
        progress(0.4 + 0.6 * number / len(_TURNED_OVER), "Checking the orientation of the scans")
        found = [item.linear for item in search_shifts(fixed, moving, [np.diag(signs)])]
        _, other = _best_refined(fixed, moving, found, freedom)
        if other > turned_score:
            turned_over, turned_score = name, other
    return Start(best, score, turned_over, turned_score)


def _best_refined(fixed: Scan, moving: Scan, starts: list[Linear], freedom: int) -> tuple[Linear, float]:
    """Refine the best few starts rigidly, and the best two of those affinely; return the best map and its match."""

    def ranked(items: list[Linear]) -> list[tuple[Linear, float]]:
        scored = [(item, match(fixed, moving, item)) for item in items]
        return sorted(scored, key=lambda pair: pair[1], reverse=True)

    def refined(pairs: list[tuple[Linear, float]], kind: int) -> list[tuple[Linear, float]]:
        found = [refine(fixed, moving, item, kind, sample_to=10_000, tolerance_mm=0.1) for item, _ in pairs]
        return ranked([*(item for item, _ in pairs), *found])

    best = refined(ranked(starts)[:_REFINED_STARTS], RIGID)
    if freedom == AFFINE:
        best = refined(best[:2], AFFINE)
    return best[0]
