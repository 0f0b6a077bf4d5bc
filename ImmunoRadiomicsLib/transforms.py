"""Points carried through ITK transforms, and back.

Positions are LPS millimetres in the order (x, y, z). A transform maps points of the baseline to points of a time point. An inverse that is
stored as a displacement field is exact at its nodes only (see ``alignment.fields.inverse_field``), so wherever the place of a point matters
it is inverted here, by iteration on the transform itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

_PLAIN_STEPS = 14
_NEWTON_STEPS = 40
_HALVINGS = 6
# In mm or voxels: far below the spacing of displacement fields, far above rounding.
_DIFFERENCE = 0.01
_LATTICE_MARGIN_MM = 40.0


def transform_points(points: np.ndarray, transform: sitk.Transform | None) -> np.ndarray:
    """Carry LPS points in mm, shape (n, 3) or (3,), through a transform; the shape is kept. None is the identity."""
    array = np.array(points, dtype=float)
    if transform is None:
        return array
    through = transform.TransformPoint
    return np.array([through(point) for point in array.reshape(-1, 3).tolist()], dtype=float).reshape(array.shape)


def invert_points(
    points: np.ndarray,
    transform: sitk.Transform | None,
    guess: sitk.Transform | None = None,
    *,
    tolerance_mm: float = 1e-5,
) -> np.ndarray:
    """Find the LPS points, shape (n, 3) or (3,), that a transform carries to ``points``.

    Fixed-point steps through the inverse of the affine map that fits the transform best around the points solve all but steep
    places; there Newton steps with a numerical Jacobian follow, halved while they do not improve. A point that a folded
    transform carries nowhere near keeps the best place that was found.

    Parameters
    ----------
    guess
        A first estimate of the inverse, such as a stored one; without it the affine fit is used.
    tolerance_mm
        How near to ``points`` the result must be carried.
    """
    array = np.array(points, dtype=float)
    target = array.reshape(-1, 3)
    if transform is None or not len(target):
        return array
    matrix, offset = _affine_fit(target, transform)
    back = np.linalg.inv(matrix)
    here = (target - offset) @ back.T if guess is None else transform_points(target, guess)
    best = here.copy()
    error = transform_points(here, transform) - target
    size = np.linalg.norm(error, axis=1)
    best_error, best_size = error.copy(), size.copy()
    active = np.flatnonzero(size > tolerance_mm)
    for _ in range(_PLAIN_STEPS):
        if not active.size:
            break
        here[active] -= error[active] @ back.T
        error[active] = transform_points(here[active], transform) - target[active]
        size = np.linalg.norm(error[active], axis=1)
        better = size < best_size[active]
        kept = active[better]
        best[kept], best_error[kept], best_size[kept] = here[kept], error[kept], size[better]
        # Where the plain step does not halve the error, the map is steep and Newton steps are cheaper.
        active = kept[best_size[kept] > tolerance_mm]
    newton_steps(best, best_error, target, lambda places: transform_points(places, transform), tolerance_mm)
    return best.reshape(array.shape)


def _affine_fit(target: np.ndarray, transform: sitk.Transform) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix and offset of the affine map that fits a transform best where it carries points to ``target``.

    The shift between source and target may be larger than the region, so the fit is made around a first estimate of the source.
    """
    middle = target.mean(axis=0)
    centre = middle.copy()
    for _ in range(3):
        centre += middle - transform_points(centre, transform)
    half = 0.5 * np.ptp(target, axis=0) + _LATTICE_MARGIN_MM
    steps = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    source = centre + steps * half
    design = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design, transform_points(source, transform), rcond=None)
    matrix = solution[:3].T
    if np.linalg.cond(matrix) > 1e3:
        return np.eye(3), solution[3] + centre @ solution[:3] - centre
    return matrix, solution[3]


def newton_steps(
    here: np.ndarray,
    error: np.ndarray,
    target: np.ndarray,
    carry: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
) -> None:
    """Improve ``here`` and its ``error`` in place until every point is carried to its target, or no step helps.

    All lengths have the unit (mm or voxels) of the positions, arrays (n, 3), that ``carry`` takes and returns.
    """
    steps = _DIFFERENCE * np.eye(3)
    stuck = np.zeros(len(here), dtype=bool)
    for _ in range(_NEWTON_STEPS):
        active = np.flatnonzero((np.linalg.norm(error, axis=1) > tolerance) & ~stuck)
        if not active.size:
            return
        at = here[active]
        columns = [carry(at + step) - carry(at - step) for step in steps]
        jacobian = np.stack(columns, axis=2) / (2.0 * _DIFFERENCE)
        # The pseudo-inverse, because a folded place has no inverse.
        move = (np.linalg.pinv(jacobian, rcond=1e-6) @ error[active][:, :, None])[:, :, 0]
        open_ = np.arange(active.size)
        for halving in range(_HALVINGS):
            rows = active[open_]
            trial = at[open_] - 0.5**halving * move[open_]
            trial_error = carry(trial) - target[rows]
            better = np.linalg.norm(trial_error, axis=1) < np.linalg.norm(error[rows], axis=1)
            here[rows[better]], error[rows[better]] = trial[better], trial_error[better]
            open_ = open_[~better]
            if not open_.size:
                break
        stuck[active[open_]] = True
