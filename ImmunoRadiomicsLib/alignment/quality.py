"""How good an alignment is, measured on the images after it, and what that says about its error in mm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..analysis import AlignmentQuality, Verdict
from ..progress import silent
from .deform import Correlator, Level, Schedule, deform, identity, jacobian, local_correlation, to_voxels, warp
from .fields import sample_transform
from .grids import Grid
from .start import Scan, Start

_LUNGS_AT_LEAST_ML = 100.0
# The alignment that is tried once more to see what is left: from an eighth to a half of the resolution of the measurement.
_REMAINING_SCHEDULES = (Schedule(12, 5, 3.0, 0.4), Schedule(12, 5, 3.0, 0.4), Schedule(8, 5, 2.0, 0.4))


@dataclass(frozen=True, eq=False)
class Measured:
    """The quality figures, and the local correlation map they come from (z, y, x on ``grid``, with its structure weight).

    ``comparable`` is where both scans show the body; ``overlap`` is its share of the smaller body. ``remaining_mm`` is how far an alignment of
    the aligned scans would still carry points inside the lungs, or else the body (median). ``baseline`` and ``followup`` are the aligned
    scans themselves, in HU.
    """

    quality: AlignmentQuality
    grid: Grid
    correlation: np.ndarray
    structure: np.ndarray
    comparable: np.ndarray
    overlap: float
    remaining_mm: float | None
    baseline: np.ndarray
    followup: np.ndarray

    @property
    def telling(self) -> np.ndarray:
        """How much each voxel tells of the alignment around one place (0 to 1): its structure beyond the noise.

        Flat tissue, of which there is much around a lesion of the liver, tells nothing, however little its noise correlates. 0 where the scans
        cannot be compared.
        """
        # A structure of one half is what three times the noise leaves (see ``local_correlation``); of a larger variance its share beyond that counts.
        beyond = np.clip(2.0 - 1.0 / np.maximum(self.structure, 0.5), 0.0, 1.0)
        return np.where(self.comparable, beyond, 0.0).astype(np.float32)


def weighted_mean(values: np.ndarray, weights: np.ndarray, region: np.ndarray) -> float | None:
    """Return the mean of ``values`` over a region, weighted; None where the region holds no weight."""
    total = float(weights[region].sum())
    return float((values[region] * weights[region]).sum() / total) if total > 0 else None


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice overlap of two bool arrays; 1 where both are empty."""
    size = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / size if size else 1.0


def correlation_under(fixed: Scan, moving: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return local correlation, structure and the region of comparison of two scans on one grid."""
    correlation, structure = local_correlation(fixed.values, moving.values)
    return correlation, structure, fixed.body & fixed.valid & moving.valid


def measure(
    fixed: Scan,
    moved: Scan,
    before: Scan,
    transform: sitk.Transform,
    returned: np.ndarray,
) -> Measured:
    """Measure an alignment.

    Parameters
    ----------
    fixed, moved, before
        The baseline, the aligned follow-up and the follow-up as it lay before, on one grid.
    transform
        From baseline to follow-up points, in mm.
    returned
        How far (mm) points of the grid end from where they began when carried there and back; NaN where not known.
    """
    grid = fixed.grid
    correlation, structure, region = correlation_under(fixed, moved)
    overlap = float(region.sum()) / max(1, min(int(fixed.body.sum()), int(moved.body.sum())))
    earlier, earlier_structure, earlier_region = correlation_under(fixed, before)

    displacement = sample_transform(transform, grid)
    lengths = np.sqrt((displacement**2).sum(axis=-1))
    voxels = np.stack([displacement[..., 2 - axis] / grid.spacing[2 - axis] for axis in range(3)])
    folded = jacobian(voxels) <= 0.0

    lungs = fixed.lungs & region
    lung_inside = ndimage.binary_erosion(lungs)
    litre = float(np.prod(grid.spacing)) / 1.0e6
    sizes = [float((scan.lungs & fixed.valid & moved.valid).sum()) * litre * 1000.0 for scan in (fixed, moved)]
    has_lungs = max(sizes) >= _LUNGS_AT_LEAST_ML
    judged = lungs if lungs.any() else region
    back = returned[judged & np.isfinite(returned)]
    quality = AlignmentQuality(
        verdict="usable",
        reasons=(),
        correlation_before=weighted_mean(earlier, earlier_structure, earlier_region),
        correlation=weighted_mean(correlation, structure, region),
        lung_correlation=weighted_mean(correlation, structure, lung_inside) if has_lungs else None,
        residual_hu=float(np.abs(fixed.values - moved.values)[region].mean()) if region.any() else None,
        lung_dice=dice(fixed.lungs & moved.valid, moved.lungs & fixed.valid) if has_lungs else None,
        body_dice=dice(fixed.body & moved.valid & fixed.valid, moved.body & fixed.valid & moved.valid),
        folding_fraction=float(folded[region].mean()) if region.any() else None,
        inverse_consistency_median_mm=float(np.median(back)) if back.size else None,
        inverse_consistency_p95_mm=float(np.percentile(back, 95)) if back.size else None,
        maximum_displacement_mm=float(lengths[region].max()) if region.any() else None,
    )
    left = remaining(fixed, moved, region, lungs if has_lungs and lungs.any() else region)
    return Measured(quality, grid, correlation, structure, region, overlap, left, fixed.values, moved.values)


def remaining(fixed: Scan, moved: Scan, comparable: np.ndarray, judged: np.ndarray) -> float | None:
    """Align the aligned scans once more, coarsely, and return how far points still move: the median in mm over ``judged``.

    Whatever made the first alignment, this one starts from its result, and so sees errors from a fraction of a voxel up to some 20 mm. It is
    tried from coarse to fine and at the finest level alone, which errs less where little is left; what correlates better counts. The
    scans are compared in ``comparable``; both regions are bool arrays (z, y, x). None where there is nothing to judge.
    """
    levels = [Level(fixed.values, moved.values, comparable.astype(np.float32)).coarser()]
    while len(levels) < len(_REMAINING_SCHEDULES) and min(levels[-1].fixed.shape) >= 8:
        levels.append(levels[-1].coarser())
    inside = (judged & comparable)[(slice(None, None, 2),) * 3]
    if not inside.any():
        return None
    plans = list(_REMAINING_SCHEDULES[-len(levels) :])
    tries = [deform(levels[::-1], plans, silent).field, deform(levels[:1], plans[-1:], silent).field]
    field = max(tries, key=lambda item: _match(levels[0], item, plans[-1].window))
    voxels = np.stack([to_voxels(item, inside.shape)[inside] for item in field])
    spacing = np.asarray(fixed.grid.spacing[::-1], dtype=np.float32).reshape(3, 1)
    # From nodes, two voxels of half the resolution apart, to mm.
    return float(np.median(np.sqrt(((4.0 * voxels * spacing) ** 2).sum(axis=0))))


def _match(level: Level, field: np.ndarray, window: int) -> float:
    """Return the local correlation, squared and weighted, that a field on the nodes of a level reaches."""
    places = identity(level.fixed.shape) + np.stack([2.0 * to_voxels(item, level.fixed.shape) for item in field])
    squared, _, _ = Correlator(level.fixed, window).compare(warp(level.moving, places))
    return float(np.vdot(squared, level.weight))


def there_and_back(forward: np.ndarray, backward: np.ndarray, grid: Grid) -> np.ndarray:
    """Return how far in mm (z, y, x) each voxel ends from its start, carried by one field (voxels) and then the other."""
    places = identity(forward.shape[1:])
    there = forward + places
    error = forward + np.stack([warp(item, there) for item in backward])
    spacing = np.asarray(grid.spacing[::-1], dtype=np.float32).reshape(3, 1, 1, 1)
    return np.sqrt(((error * spacing) ** 2).sum(axis=0))


# Limits of the verdict. On pairs of known kind the deformable engine left pairs of one patient at a body correlation of 0.78 and more and a
# lung correlation of 0.84 and more. Pairs of two patients or with mixed-up axes reached 0.78 in the body, where smooth outlines can be
# pulled onto any others, but at most 0.54 inside the lungs, whose vessels cannot. Linear engines correlate less although they are not wrong.
_CORRELATION_GOOD = 0.75
_CORRELATION_FAILED = 0.65
_LUNG_CORRELATION_GOOD = 0.75
_LUNG_CORRELATION_FAILED = 0.65
_LINEAR_CORRELATION_FAILED = 0.45
_MISMATCH_THERE_AND_BACK_MM = 1.5
_LUNG_DICE_FAILED = 0.60
_BODY_DICE_FAILED = 0.80
_OVERLAP_FAILED = 0.25
_FOLDING_FAILED = 0.01
_TURNED_OVER_MARGIN = 0.02
_TURNED_OVER_SCALE = 0.1
_SCORE_STEEPNESS = 6.0
_ERROR_GOOD_MM, _ERROR_FAILED_MM = 2.5, 5.0
# What lungs that are not shown alike add to the expected error, chosen so that a real chest pair is expected to err by what its landmarks say.
# The fourth power keeps it small on warped real scans with noise of their own, whose errors are known to be small.
_UNSHARED_MM, _UNSHARED_AT_MOST_MM = 1600.0, 0.8
# Below this share of a voxel of the measurement the second alignment sees nothing but its own noise, beside ways found independently.
_LEAST_REMAINING_VOXELS, _NOISE_VOXELS = 0.05, 0.1
# The second alignment overshoots errors far below a voxel by about a quarter, and sees those of a voxel and more in full.
_SMALL_SHARE = 0.8
# Two ways that were found independently differ by about the error of their mean: on virtual patients and warped real scans.
_ERROR_PER_THERE_AND_BACK = 1.1


def expected_error_mm(measured: Measured, *, two_ways: bool) -> float | None:
    """Return the median error in mm that the figures lead one to expect, inside the lungs or else the body.

    ``two_ways``: the way back was found on its own. Then the error is about as large as the distance there and back; what an alignment of the
    aligned scans would still move counts as far as it is beyond its own noise. Of any other result only that is known. Inside lungs
    something is added in quadrature for what the scans do not show alike (other breathing, other disease), because no alignment of
    the two sees that error: it grows with the fourth power of the local correlation that is missing. Its size rests on one real chest pair
    whose landmarks are placed to about a voxel; strong noise lowers the correlation as well, and then the figure is too large.
    """
    if measured.remaining_mm is None:
        return None
    voxel = float(np.prod(measured.grid.spacing)) ** (1 / 3)
    back, left = measured.quality.inverse_consistency_median_mm, measured.remaining_mm
    if two_ways and back is not None:
        error = float(np.hypot(_ERROR_PER_THERE_AND_BACK * back, max(left - _NOISE_VOXELS * voxel, 0.0)))
    else:
        share = _SMALL_SHARE + (1.0 - _SMALL_SHARE) * min(left / voxel, 1.0)
        error = max(share * left, _LEAST_REMAINING_VOXELS * voxel)
    correlation = measured.quality.lung_correlation
    if correlation is None:
        return error
    unshared = min(_UNSHARED_MM * (1.0 - max(correlation, 0.0)) ** 4, _UNSHARED_AT_MOST_MM)
    return float(np.hypot(error, unshared))


def judge(
    measured: Measured,
    start: Start | None,
    problems: tuple[str, ...],
    *,
    not_ct: bool,
    deformable: bool,
    two_ways: bool,
) -> AlignmentQuality:
    """Give the verdict and its reasons in plain words; ``problems`` are those known before the measurement.

    ``two_ways``: the way back was found on its own, so that the distance there and back says whether the scans belong together.
    """
    quality = measured.quality
    error = expected_error_mm(measured, two_ways=two_ways)
    failed = list(problems) if not_ct else []
    doubts = [] if not_ct else list(problems)

    if start is not None and start.turned_over_score > start.score + _TURNED_OVER_MARGIN:
        failed.append(f"the follow-up fits better when {start.turned_over}: its axes look mixed up")
    if measured.overlap < _OVERLAP_FAILED:
        failed.append(f"the scans share only {100 * measured.overlap:.0f} % of the body")
    if (correlation := quality.correlation) is not None:
        back = quality.inverse_consistency_median_mm if two_ways else None
        contradicts = back is not None and back > _MISMATCH_THERE_AND_BACK_MM
        least = _CORRELATION_FAILED if deformable else _LINEAR_CORRELATION_FAILED
        if correlation < least or (deformable and correlation < _CORRELATION_GOOD and contradicts):
            failed.append(
                f"the structures of the body do not match (local correlation {correlation:.2f}): another patient or body part?"
            )
        elif correlation < _CORRELATION_GOOD:
            doubts.append(f"the structures of the body match only in part (local correlation {correlation:.2f})")
    if deformable and quality.lung_correlation is not None:
        note = f"the vessels of the lungs do not match (local correlation {quality.lung_correlation:.2f}): another patient?"
        if quality.lung_correlation < _LUNG_CORRELATION_FAILED:
            failed.append(note)
        elif quality.lung_correlation < _LUNG_CORRELATION_GOOD:
            doubts.append(f"the lungs match only in part (local correlation {quality.lung_correlation:.2f})")
    if quality.correlation is None:
        failed.append("the scans share no structure to judge the alignment by")
    if quality.lung_dice is not None and quality.lung_dice < _LUNG_DICE_FAILED:
        # Lungs whose inside matches do lie on each other: then it is one of the two outlines that is wrong.
        inside_matches = (quality.lung_correlation or 0.0) >= _CORRELATION_GOOD
        note = f"the outlines of the lungs do not lie on each other (Dice {quality.lung_dice:.2f})"
        (doubts if inside_matches else failed).append(note)
    if quality.body_dice is not None and quality.body_dice < _BODY_DICE_FAILED:
        failed.append(f"the bodies do not lie on each other (Dice {quality.body_dice:.2f})")
    if quality.folding_fraction is not None and quality.folding_fraction > 0.0:
        note = f"the deformation folds in {100 * quality.folding_fraction:.2g} % of the body"
        (failed if quality.folding_fraction > _FOLDING_FAILED else doubts).append(note)
    if error is not None and error > _ERROR_FAILED_MM:
        # What breathing does to the lungs is no fault of an engine that only turns and shifts.
        (failed if deformable else doubts).append(f"the expected error is {error:.0f} mm")
    elif error is not None and error > _ERROR_GOOD_MM:
        doubts.append(f"the expected error is {error:.1f} mm")
    verdict: Verdict = "failed" if failed else "usable" if doubts else "good"
    score = 0.0 if not_ct else _score(measured, start, error, deformable)
    return replace(quality, verdict=verdict, reasons=(*failed, *doubts), expected_error_mm=error, score=score)


def _score(measured: Measured, start: Start | None, error_mm: float | None, deformable: bool) -> float:
    """Return how surely the scans lie on each other (0 to 1): the figure that speaks most against it decides.

    Each figure is put on a scale on which it is 0 at the limit where the alignment fails and 1 where it could not be better; the smallest
    goes through a logistic curve, so that no two alignments of different quality share a score.
    """
    quality = measured.quality
    if quality.correlation is None:
        return 0.0
    least = _CORRELATION_FAILED if deformable else _LINEAR_CORRELATION_FAILED
    margins = [
        (quality.correlation - least) / (1.0 - least),
        (measured.overlap - _OVERLAP_FAILED) / (1.0 - _OVERLAP_FAILED),
    ]
    if deformable and quality.lung_correlation is not None:
        margins.append((quality.lung_correlation - _LUNG_CORRELATION_FAILED) / (1.0 - _LUNG_CORRELATION_FAILED))
    if quality.body_dice is not None:
        margins.append((quality.body_dice - _BODY_DICE_FAILED) / (1.0 - _BODY_DICE_FAILED))
    if quality.folding_fraction is not None:
        margins.append(1.0 - quality.folding_fraction / _FOLDING_FAILED)
    if error_mm is not None:
        margins.append(1.0 - error_mm / _ERROR_FAILED_MM)
    if start is not None:
        margins.append((start.score - start.turned_over_score + _TURNED_OVER_MARGIN) / _TURNED_OVER_SCALE)
    return float(1.0 / (1.0 + np.exp(-_SCORE_STEEPNESS * min(margins))))
