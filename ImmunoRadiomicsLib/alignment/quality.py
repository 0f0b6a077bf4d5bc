"""How good an alignment is, measured on the images after it, and what that says about its error in mm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..analysis import AlignmentQuality, Verdict
from .deform import identity, jacobian, local_correlation, warp
from .fields import sample_transform
from .grids import Grid
from .start import Scan, Start

_LUNGS_AT_LEAST_ML = 100.0


@dataclass(frozen=True, eq=False)
class Measured:
    """The quality figures, and the local correlation map they come from (z, y, x on ``grid``, with its structure weight).

    ``comparable`` is where both scans show the body; ``overlap`` is its share of the smaller body.
    """

    quality: AlignmentQuality
    grid: Grid
    correlation: np.ndarray
    structure: np.ndarray
    comparable: np.ndarray
    overlap: float


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
    return Measured(quality, grid, correlation, structure, region, overlap)


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
_ERROR_FACTOR_LUNGS, _ERROR_FACTOR_BODY = 14.8, 5.0


def expected_error_mm(quality: AlignmentQuality) -> float | None:
    """Return the median error in mm that the figures lead one to expect, inside the lungs or else the body.

    It is proportional to the distance between a point and where the forward and the independently found backward alignment carry it, and to
    the local correlation that is missing, because both ways share the errors that come from what the scans do not show alike. The
    factor of lungs was chosen on four virtual patients, a warped chest CT, and a real chest pair with landmarks in both directions: the estimate
    lay within a factor of 1.5 of the true median error on all seven. That of bodies without lungs rests on two warps of one thigh CT,
    which it misses by a factor of 1.5. None for engines without an independent way back.
    """
    back = quality.inverse_consistency_median_mm
    judged, factor = (
        (quality.correlation, _ERROR_FACTOR_BODY)
        if quality.lung_correlation is None
        else (quality.lung_correlation, _ERROR_FACTOR_LUNGS)
    )
    if back is None or judged is None:
        return None
    return factor * back * (1.0 - judged)


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

    ``two_ways``: the way back was found on its own, so that the distance there and back says something about the error.
    """
    quality = measured.quality
    error = expected_error_mm(quality) if two_ways else None
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
        failed.append(f"the expected error is {error:.0f} mm")
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
