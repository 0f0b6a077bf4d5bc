"""The texture features of pyradiomics from texture matrices (doi:10.1158/0008-5472.CAN-17-0339, and its documentation).

Each function takes the levels of a region and returns every feature of one class by the name that pyradiomics gives it. Axes
are kept in the order (level, level or size, direction) and sums are taken over directions last, as pyradiomics takes them,
so that values that are nothing but rounding, as in a constant region, are the same too. What is not defined is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .matrices import LevelGrid, directions, glcm, gldm, glrlm, glszm, lone_directions, ngtdm

EPSILON = float(np.spacing(1.0))

# A sum this much smaller than its terms, or an eigenvalue this small, shows the rounding of its last digits; there the steps
# of pyradiomics are repeated one by one.
CANCELLED = 1e-5
_SMALL_EIGENVALUE = 1e-4
# How much of an eigenvalue may be lost by taking a matrix for symmetrical.
_ASYMMETRY = 1e-10

Values = dict[str, float]


@dataclass(frozen=True, eq=False)
class Discretised:
    """A region of grey levels.

    Attributes
    ----------
    grid
        Its voxels.
    present, counts
        The levels that occur, ascending, and the voxels of each.
    spacing_zyx
        In mm.
    """

    grid: LevelGrid
    present: np.ndarray
    counts: np.ndarray
    spacing_zyx: tuple[float, ...]

    @property
    def highest(self) -> int:
        """The highest level, which counts as the number of levels."""
        return int(self.present[-1])


def _mean(values: np.ndarray) -> float:
    """Return the mean over directions, leaving out those in which the feature is not defined."""
    defined = ~np.isnan(values)
    count = int(defined.sum())
    return float(np.where(defined, values, 0).sum() / count) if count else float("nan")


def _weights(norm: str, steps: np.ndarray, spacing_zyx: tuple[float, ...]) -> np.ndarray:
    """Return the length of each step in mm by a norm, or 1 where there is no such norm."""
    lengths = np.abs(steps) * np.array(spacing_zyx)
    if norm == "infinity":
        return lengths.max(axis=1)
    if norm == "euclidean":
        return np.sqrt((lengths**2).sum(axis=1))
    if norm == "manhattan":
        return lengths.sum(axis=1)
    return np.ones(len(steps))


def _directions_last(matrix: np.ndarray, present: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(matrix[:, present - 1], 0, -1))


def normalised_glcm(
    region: Discretised,
    distances: Sequence[int] = (1,),
    force2d_dim: int | None = None,
    symmetrical: bool = True,
    weighting_norm: str | None = None,
) -> np.ndarray:
    """Return the probabilities of pairs of levels (present levels, present levels, directions).

    With a weighting norm the directions are summed, each weighted by exp(-length²); directions without a pair are left out.
    """
    present = region.present
    counts = glcm(region.grid, region.highest, distances, force2d_dim)
    pairs = _directions_last(counts, present)[:, present - 1]
    if symmetrical:
        pairs += pairs.transpose(1, 0, 2).copy()
    if weighting_norm is not None:
        steps = directions(region.grid.shape, distances, force2d_dim)
        weights = np.ones(len(steps))
        if weighting_norm != "no_weighting":
            weights = np.exp(-(_weights(weighting_norm, steps, region.spacing_zyx) ** 2))
        pairs = (pairs * weights).sum(axis=2, keepdims=True)
    total = pairs.sum(axis=(0, 1))
    if len(total) > 1:
        pairs, total = pairs[:, :, total > 0], total[total > 0]
    return pairs / np.where(total == 0, np.nan, total)


def glcm_features(probabilities: np.ndarray, present: np.ndarray) -> Values:
    """Return the features of ``normalised_glcm``; all but none where no voxel has a neighbour in the region."""
    p = probabilities
    count, _, angles = p.shape
    if angles == 0:
        return {"MCC": 1.0} if count == 1 else {}
    highest = int(present[-1])
    level = present.astype(float)
    i, j = level[:, None, None], level[None, :, None]
    sums, differences = by_sum_and_difference(p, present, highest)
    k_sum = np.arange(2.0, 2 * highest + 1)[:, None]
    k_diff = np.arange(0.0, highest)[:, None]
    px, py = p.sum(axis=1, keepdims=True), p.sum(axis=0, keepdims=True)
    ux = (i * p).sum(axis=(0, 1), keepdims=True)
    uy = (j * p).sum(axis=(0, 1), keepdims=True)
    both = (i + j) - ux - uy
    spread_x = (p * (i - ux) ** 2).sum(axis=(0, 1))
    spread_y = (p * (j - uy) ** 2).sum(axis=(0, 1))
    entropy = -(p * np.log2(p + EPSILON)).sum(axis=(0, 1))
    difference_average = (k_diff * differences).sum(axis=0)

    sigma = spread_x**0.5 * spread_y**0.5
    correlation = (p * (i - ux) * (j - uy)).sum(axis=(0, 1)) / (sigma + EPSILON)
    correlation[sigma == 0] = 1

    independent = px * py
    logarithm = np.log2(independent + EPSILON)
    entropy_x = -(px * np.log2(px + EPSILON)).sum(axis=(0, 1))
    entropy_y = -(py * np.log2(py + EPSILON)).sum(axis=(0, 1))
    larger = np.fmax(entropy_x, entropy_y)
    imc1 = entropy + (p * logarithm).sum(axis=(0, 1))
    imc1[larger != 0] /= larger[larger != 0]
    imc1[larger == 0] = 0
    entropy_independent = -(independent * logarithm).sum(axis=(0, 1))
    imc2 = (1 - np.e ** (-2 * (entropy_independent - entropy))) ** 0.5
    imc2[entropy_independent == entropy] = 0

    tendency, shade, prominence = clusters(p, both)
    per_direction = {
        "Autocorrelation": (p * (i * j)).sum(axis=(0, 1)),
        "ClusterProminence": prominence,
        "ClusterShade": shade,
        "ClusterTendency": tendency,
        "Contrast": (differences * k_diff**2).sum(axis=0),
        "Correlation": correlation,
        "DifferenceAverage": difference_average,
        "DifferenceEntropy": -(differences * np.log2(differences + EPSILON)).sum(axis=0),
        "DifferenceVariance": (differences * (k_diff - difference_average) ** 2).sum(axis=0),
        "Id": (differences / (1 + k_diff)).sum(axis=0),
        "Idm": (differences / (1 + k_diff**2)).sum(axis=0),
        "Idmn": (differences / (1 + k_diff**2 / highest**2)).sum(axis=0),
        "Idn": (differences / (1 + k_diff / highest)).sum(axis=0),
        "Imc1": imc1,
        "Imc2": imc2,
        "InverseVariance": (differences[1:] / k_diff[1:] ** 2).sum(axis=0),
        "JointEnergy": (p**2).sum(axis=(0, 1)),
        "JointEntropy": entropy,
        "MCC": maximal_correlation(p, px[:, 0], py[0]),
        "MaximumProbability": p.max(axis=(0, 1)),
        "SumAverage": (k_sum * sums).sum(axis=0),
        "SumEntropy": -(sums * np.log2(sums + EPSILON)).sum(axis=0),
        "SumSquares": spread_x,
    }
    values = {name: _mean(value) for name, value in per_direction.items()}
    # The only mean in which an undefined direction makes the whole undefined.
    values["JointAverage"] = float(ux.mean())
    return values


def by_sum_and_difference(p: np.ndarray, present: np.ndarray, highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of sums 2 to 2 ng and of absolute differences 0 to ng - 1 of two levels, per direction."""
    angles = p.shape[2]
    one, other = np.meshgrid(present, present, indexing="ij")
    result = []
    for code, size in ((one + other - 2, 2 * highest - 1), (np.abs(one - other), highest)):
        place = (code.ravel() * angles)[:, None] + np.arange(angles)
        result.append(np.bincount(place.ravel(), p.ravel(), size * angles).reshape(size, angles))
    return result[0], result[1]


def clusters(p: np.ndarray, both: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the second, third and fourth moment, per direction, of the sum of two levels from its mean (``both``)."""
    squared = both * both
    weighted = p * squared
    third = weighted * both
    shade = third.sum(axis=(0, 1))
    if (np.abs(shade) < CANCELLED * np.abs(third).sum(axis=(0, 1))).any():
        shade = (p * both**3).sum(axis=(0, 1))
    return weighted.sum(axis=(0, 1)), shade, (weighted * squared).sum(axis=(0, 1))


def maximal_correlation(p: np.ndarray, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    """Return the root of the second largest eigenvalue of Q(i, j), the sum over k of p(i, k) p(j, k) / (px(i) py(k) + epsilon).

    But for epsilon, Q is similar to a symmetrical matrix, of which eigenvalues are found in a third of the time. What its
    asymmetrical part adds is of second order: no more than its square divided by the distance to the next eigenvalue.

    Parameters
    ----------
    p
        Probabilities (levels, levels, directions).
    px, py
        Their sums over the second and over the first axis (levels, directions).
    """
    if np.isnan(p).any():
        return np.array([np.nan])
    if len(p) == 1:
        return np.ones(1)
    pairs = np.ascontiguousarray(p.transpose(2, 0, 1))
    rows, columns = px.T[:, :, None], py.T[:, None, :]
    q = (pairs / (rows * columns + EPSILON)) @ pairs.transpose(0, 2, 1)
    root = np.sqrt(rows)
    similar = q * root * np.divide(1.0, root, out=np.zeros_like(root), where=root > 0).transpose(0, 2, 1)
    turned = similar.transpose(0, 2, 1)
    values = np.linalg.eigvalsh((similar + turned) / 2)
    second = values[:, -2]
    if (second < _SMALL_EIGENVALUE).any():
        return _maximal_correlation_step_by_step(p, px, py)
    apart = np.minimum(values[:, -1] - second, second - values[:, -3] if len(p) > 2 else np.inf)
    asymmetrical = ~(((similar - turned) ** 2).sum(axis=(1, 2)) / 4 <= _ASYMMETRY * second * apart)
    if asymmetrical.any():
        second[asymmetrical] = np.sort(np.linalg.eigvals(q[asymmetrical]))[:, -2].real
    return np.sqrt(second)


def _maximal_correlation_step_by_step(p: np.ndarray, px: np.ndarray, py: np.ndarray) -> np.ndarray:
    q = np.zeros_like(p)
    term, divisor = np.empty_like(p), np.empty_like(px)
    for k in range(len(p)):
        column = p[:, k]
        np.multiply(px, py[k], out=divisor)
        divisor += EPSILON
        np.multiply(column[:, None], column[None, :], out=term)
        term /= divisor[:, None]
        q += term
    values = np.linalg.eigvals(q.transpose(2, 0, 1))
    values.sort()
    return np.sqrt(values[:, -2]).real


def run_counts(
    region: Discretised, force2d_dim: int | None = None, weighting_norm: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return runs (present levels, lengths from 1 on, directions) and their number per direction, NaN where there is none.

    A direction where no line holds two voxels has no runs. With a weighting norm the directions are summed, each weighted by
    its length.
    """
    counts = glrlm(region.grid, region.highest, force2d_dim)
    counts[lone_directions(region.grid, force2d_dim)] = 0
    runs = _directions_last(counts, region.present)
    if weighting_norm is not None:
        steps = directions(region.grid.shape, (1,), force2d_dim)
        runs = (runs * _weights(weighting_norm, steps, region.spacing_zyx)).sum(axis=2, keepdims=True)
    total = runs.sum(axis=(0, 1))
    if len(total) > 1:
        runs, total = runs[:, :, total > 0], total[total > 0]
    return runs, np.where(total == 0, np.nan, total)


def glrlm_features(region: Discretised, force2d_dim: int | None = None, weighting_norm: str | None = None) -> Values:
    """Return the features of runs."""
    runs, total = run_counts(region, force2d_dim, weighting_norm)
    length = np.arange(1, runs.shape[1] + 1)
    used = runs.sum(axis=(0, 2)) > 0
    names = ("Run", "RunLength", "Run")
    return _size_features(runs[:, used], region.present, length[used], total, names, _mean)


def glszm_features(region: Discretised, force2d_dim: int | None = None) -> Values:
    """Return the features of zones."""
    sizes, counts = glszm(region.grid, region.highest, force2d_dim)
    zones = counts[region.present - 1, :, None]
    total = zones.sum(axis=(0, 1))
    return _size_features(zones, region.present, sizes, total, ("Area", "SizeZone", "Zone"), _mean)


def gldm_features(
    region: Discretised, alpha: float = 0, distances: Sequence[int] = (1,), force2d_dim: int | None = None
) -> Values:
    """Return the features of dependence; its size is the number of like neighbours and the voxel itself."""
    counts = gldm(region.grid, region.highest, alpha, distances, force2d_dim)
    voxels = counts[region.present - 1, :, None]
    used = voxels.sum(axis=(0, 2)) > 0
    sizes = np.arange(1, counts.shape[1] + 1)[used]
    total = voxels.sum(axis=(0, 1))
    values = _size_features(
        voxels[:, used], region.present, sizes, total, ("Dependence", "Dependence", "Dependence"), _mean
    )
    renamed = {name.replace("ShortDep", "SmallDep").replace("LongDep", "LargeDep"): v for name, v in values.items()}
    return {
        name: value
        for name, value in renamed.items()
        if name not in ("GrayLevelNonUniformityNormalized", "DependencePercentage")
    }


def _size_features(
    counts: np.ndarray,
    present: np.ndarray,
    sizes: np.ndarray,
    total: np.ndarray,
    names: tuple[str, str, str],
    mean: Callable[[np.ndarray], float],
) -> Values:
    """Return the features that runs, zones and dependences have in common.

    Parameters
    ----------
    counts
        (levels, sizes, directions).
    present, sizes
        What the first two axes stand for.
    total
        Number of runs, zones or voxels per direction.
    names
        What is small or large, what is uniform, and what has an entropy, in the words of the class.
    mean
        Over directions.
    """
    what, uniform, item = names
    small, large = ("Small", "Large") if what == "Area" else ("Short", "Long")
    i = present.astype(float)[:, None]
    j = sizes.astype(float)[:, None]
    by_level, by_size = counts.sum(axis=1), counts.sum(axis=0)
    level_part, size_part = by_level / total, by_size / total
    level_mean = (level_part * i).sum(axis=0)
    size_mean = (size_part * j).sum(axis=0)
    part = counts / total
    i2, j2 = (i**2)[:, :, None], (j**2)[None, :, :]
    level = {"Run": "Run", "Zone": "Zone", "Dependence": ""}[item]
    values = {
        f"{small}{what}Emphasis": (by_size / j**2).sum(axis=0) / total,
        f"{large}{what}Emphasis": (by_size * j**2).sum(axis=0) / total,
        "GrayLevelNonUniformity": (by_level**2).sum(axis=0) / total,
        "GrayLevelNonUniformityNormalized": (by_level**2).sum(axis=0) / total**2,
        f"{uniform}NonUniformity": (by_size**2).sum(axis=0) / total,
        f"{uniform}NonUniformityNormalized": (by_size**2).sum(axis=0) / total**2,
        f"{item}Percentage": total / (by_size * j).sum(axis=0),
        "GrayLevelVariance": (level_part * (i - level_mean) ** 2).sum(axis=0),
        f"{item}Variance": (size_part * (j - size_mean) ** 2).sum(axis=0),
        f"{item}Entropy": -(part * np.log2(part + EPSILON)).sum(axis=(0, 1)),
        f"LowGrayLevel{level}Emphasis": (by_level / i**2).sum(axis=0) / total,
        f"HighGrayLevel{level}Emphasis": (by_level * i**2).sum(axis=0) / total,
        f"{small}{what}LowGrayLevelEmphasis": (counts / (i2 * j2)).sum(axis=(0, 1)) / total,
        f"{small}{what}HighGrayLevelEmphasis": (counts * i2 / j2).sum(axis=(0, 1)) / total,
        f"{large}{what}LowGrayLevelEmphasis": (counts * j2 / i2).sum(axis=(0, 1)) / total,
        f"{large}{what}HighGrayLevelEmphasis": (counts * (j2 * i2)).sum(axis=(0, 1)) / total,
    }
    return {name: mean(value) for name, value in values.items()}


def ngtdm_features(region: Discretised, distances: Sequence[int] = (1,), force2d_dim: int | None = None) -> Values:
    """Return the features of the difference of voxels from the mean of their neighbours."""
    counts, differences, _ = ngtdm(region.grid, region.highest, distances, force2d_dim)
    counts, s = counts[region.present - 1], differences[region.present - 1]
    voxels, levels = counts.sum(), len(counts)
    p = counts / voxels
    i = region.present.astype(float)
    apart = i[:, None] - i[None, :]
    coarse = (p * s).sum()
    weighted = i * p
    busy = np.abs(weighted[:, None] - weighted[None, :]).sum()
    strength = ((p[:, None] + p[None, :]) * apart**2).sum()
    contrast = 0.0
    if levels > 1:
        contrast = (p[:, None] * p[None, :] * apart**2).sum() * s.sum() / voxels / (levels * (levels - 1))
    both = (p * s)[:, None] + (p * s)[None, :]
    return {
        "Coarseness": float(1 / coarse) if coarse else 1e6,
        "Contrast": float(contrast),
        "Busyness": float(coarse / busy) if busy else 0.0,
        "Complexity": float((np.abs(apart) * both / (p[:, None] + p[None, :])).sum() / voxels),
        "Strength": float(strength / s.sum()) if s.sum() else 0.0,
    }
