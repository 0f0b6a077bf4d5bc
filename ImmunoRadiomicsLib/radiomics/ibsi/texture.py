"""Texture features by every way of aggregation of the image biomarker standardisation initiative.

Formulas of the families LFYI, TP0I, 9SAK, VMDZ, IPET and REK0 of the reference manual (A. Zwanenburg et al., arXiv:1612.07003,
doi:10.1148/radiol.2020191145). A slice is a plane across the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..engine.matrices import LevelGrid, glcm, gldm, glrlm, ngtdm, zones
from .catalogue import dimensions_of
from .grid import Levels

# Matrices of so many entries are evaluated at a time.
_BATCH_ENTRIES = 4_000_000

_TABLE_NAMES = {
    "rlm": "sre lre lgre hgre srlge srhge lrlge lrhge glnu glnu_norm rlnu rlnu_norm r_perc gl_var rl_var rl_entr",
    "szm": "sze lze lgze hgze szlge szhge lzlge lzhge glnu glnu_norm zsnu zsnu_norm z_perc gl_var zs_var zs_entr",
    "dzm": "sde lde lgze hgze sdlge sdhge ldlge ldhge glnu glnu_norm zdnu zdnu_norm z_perc gl_var zd_var zd_entr",
    "ngl": "lde hde lgce hgce ldlge ldhge hdlge hdhge glnu glnu_norm dcnu dcnu_norm dc_perc gl_var dc_var dc_entr dc_energy",
}


@dataclass(frozen=True, eq=False)
class Table:
    """Counts (levels, columns) of runs, zones or dependences; ``sizes`` are their lengths, extents, distances or counts.

    ``voxels`` is the number of voxels that were looked at to make it: those of the region, for every direction anew.
    """

    counts: np.ndarray
    sizes: np.ndarray
    voxels: int


def textures(levels: Levels, morphological: np.ndarray, aggregations: Sequence[str]) -> dict[str, float]:
    """Return all texture features, their names with the aggregation as suffix.

    Parameters
    ----------
    levels
        Of the intensity mask.
    morphological
        The mask (z, y, x) whose border the distances of zones are measured from.
    aggregations
        Some keys of ``catalogue.AGGREGATIONS``.

    Returns
    -------
    dict
        A value is not finite where the region does not define it.
    """
    result: dict[str, float] = {}
    dimensions = dimensions_of(aggregations)
    # The border makes every direction exist, also where the box of the region has one voxel.
    array, mask = np.pad(levels.array, 1), np.pad(morphological, 1)
    slices = [(array[at][None], mask[at][None]) for at in np.flatnonzero(array.any(axis=(1, 2)))]
    for parts, wanted in ((slices, ("2D", "2_5D")), ([(array, mask)], ("3D",))):
        kept = tuple(name for name in wanted if name in dimensions)
        if not kept:
            continue
        grids = [LevelGrid(part) for part, _ in parts]
        counts = [len(grid.places) for grid in grids]
        result.update(_cooccurrence([glcm(grid, levels.count) for grid in grids], kept, aggregations))
        runs = [glrlm(grid, levels.count) for grid in grids]
        result.update(_directed(runs, counts, kept, aggregations))
        found = [_zone_tables(grid, part > 0, inside) for grid, (part, inside) in zip(grids, parts, strict=True)]
        for family, zoned in (("szm", [item[0] for item in found]), ("dzm", [item[1] for item in found])):
            result.update(_undirected(family, [_zone_table(*item, levels.count) for item in zoned], kept))
        dependences = [
            Table(counts_of, np.arange(counts_of.shape[1]) + 1, count)
            for counts_of, count in zip((gldm(grid, levels.count) for grid in grids), counts, strict=True)
        ]
        result.update(_undirected("ngl", dependences, kept))
        differences = [ngtdm(grid, levels.count)[1:] for grid in grids]
        result.update(_tone_differences(differences, kept))
    return result


def _mean(rows: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean of features over matrices; a matrix that does not define a feature does not count."""
    array = np.array(list(rows))
    finite = np.isfinite(array)
    with np.errstate(invalid="ignore"):
        return np.where(finite, array, 0).sum(axis=0) / finite.sum(axis=0)


def _named(family: str, names: Sequence[str], suffix: str, values: np.ndarray) -> dict[str, float]:
    return {f"{family}_{name}_{suffix}": float(value) for name, value in zip(names, values, strict=True)}


def _cooccurrence(
    matrices: list[np.ndarray], dimensions: Sequence[str], aggregations: Sequence[str]
) -> dict[str, float]:
    """Return the features of the matrices (directions, levels, levels) of slices, or of the one matrix of a volume."""
    ways: dict[str, Callable[[], Iterator[np.ndarray]]] = {
        "2D_avg": lambda: iter(matrices),
        "2D_comb": lambda: (matrix.sum(axis=0, keepdims=True) for matrix in matrices),
        "2_5D_avg": lambda: iter([np.sum(matrices, axis=0)]),
        "2_5D_comb": lambda: iter([np.sum(matrices, axis=(0, 1))[None]]),
        "3D_avg": lambda: iter(matrices),
        "3D_comb": lambda: iter([matrices[0].sum(axis=0, keepdims=True)]),
    }
    result: dict[str, float] = {}
    for name, batches in ways.items():
        if name in aggregations and name.rsplit("_", 1)[0] in dimensions:
            rows = [row for batch in batches() for row in cooccurrence_features(batch + batch.transpose(0, 2, 1))]
            result.update(_named("cm", _COOCCURRENCE_NAMES, name, _mean(rows)))
    return result


_COOCCURRENCE_NAMES = (
    "joint_max",
    "joint_avg",
    "joint_var",
    "joint_entr",
    "diff_avg",
    "diff_var",
    "diff_entr",
    "sum_avg",
    "sum_var",
    "sum_entr",
    "energy",
    "contrast",
    "dissimilarity",
    "inv_diff",
    "inv_diff_norm",
    "inv_diff_mom",
    "inv_diff_mom_norm",
    "inv_var",
    "corr",
    "auto_corr",
    "clust_tend",
    "clust_shade",
    "clust_prom",
    "info_corr1",
    "info_corr2",
)


def cooccurrence_features(matrices: np.ndarray) -> np.ndarray:
    """Return the 25 features (n, 25) of symmetrical co-occurrence matrices (n, levels, levels), in the order of their names.

    The features of a matrix without a pair are not a number.
    """
    count, ng, _ = matrices.shape
    batch = max(1, _BATCH_ENTRIES // ng**2)
    if count > batch:
        return np.concatenate([cooccurrence_features(matrices[at : at + batch]) for at in range(0, count, batch)])
    with np.errstate(divide="ignore", invalid="ignore"):
        p = matrices / matrices.sum(axis=(1, 2), keepdims=True)
        i = np.arange(1, ng + 1)
        rows = p.sum(axis=2)
        difference, total = _diagonals(p)
        k, s = np.arange(ng), np.arange(2, 2 * ng + 1)
        mean = rows @ i
        variance = rows @ i**2 - mean**2
        difference_mean = difference @ k
        total_mean = total @ s
        centred = s - 2 * mean[:, None]
        joint_entropy = _entropy(p.reshape(count, -1))
        row_entropy = _entropy(rows)
        product = np.einsum("ni,nj->nij", rows, rows)
        log_product = np.log2(product, where=product > 0, out=np.zeros_like(product))
        cross_entropy = -np.einsum("nij,nij->n", p, log_product)
        product_entropy = -np.einsum("nij,nij->n", product, log_product)
        auto = np.einsum("nij,i,j->n", p, i, i)
        # The manual calls a matrix of one level perfectly correlated.
        correlation = np.where(variance > 1e-12, (auto - mean**2) / variance, 1.0)
        columns = [
            p.max(axis=(1, 2)),
            mean,
            np.einsum("ni,ni->n", rows, (i - mean[:, None]) ** 2),
            joint_entropy,
            difference_mean,
            np.einsum("nk,nk->n", difference, (k - difference_mean[:, None]) ** 2),
            _entropy(difference),
            total_mean,
            np.einsum("nk,nk->n", total, (s - total_mean[:, None]) ** 2),
            _entropy(total),
            np.einsum("nij,nij->n", p, p),
            difference @ k**2,
            difference_mean,
            difference @ (1 / (1 + k)),
            difference @ (1 / (1 + k / ng)),
            difference @ (1 / (1 + k**2)),
            difference @ (1 / (1 + k**2 / ng**2)),
            difference[:, 1:] @ (1 / k[1:] ** 2),
            correlation,
            auto,
            np.einsum("nk,nk->n", total, centred**2),
            np.einsum("nk,nk->n", total, centred**3),
            np.einsum("nk,nk->n", total, centred**4),
            (joint_entropy - cross_entropy) / row_entropy,
            np.sqrt(np.clip(1 - np.exp(-2 * (product_entropy - joint_entropy)), 0, None)),
        ]
        result = np.column_stack(columns)
    result[matrices.sum(axis=(1, 2)) == 0] = np.nan
    return result


def _diagonals(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (n, levels) of differences and (n, 2 levels - 1) of sums of the two levels of a pair."""
    count, ng, _ = p.shape
    i, j = np.indices((ng, ng))
    flat = p.reshape(count, -1)
    difference = np.stack([np.bincount(np.abs(i - j).ravel(), weights=row, minlength=ng) for row in flat])
    total = np.stack([np.bincount((i + j).ravel(), weights=row, minlength=2 * ng - 1) for row in flat])
    return difference, total


def _entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy in bits of each row (n, outcomes)."""
    return -np.einsum("nk,nk->n", p, np.log2(p, where=p > 0, out=np.zeros_like(p)))


def _directed(
    runs: list[np.ndarray], voxels: list[int], dimensions: Sequence[str], aggregations: Sequence[str]
) -> dict[str, float]:
    """Return the features of the run lengths (directions, levels, lengths) of slices, or of the one volume."""
    longest = max(table.shape[2] for table in runs)
    padded = [np.pad(table, ((0, 0), (0, 0), (0, longest - table.shape[2]))) for table in runs]
    lengths = np.arange(1, longest + 1)
    ways: dict[str, Callable[[], Iterator[Table]]] = {
        "avg": lambda: (
            Table(table, lengths, count) for tables, count in zip(padded, voxels, strict=True) for table in tables
        ),
        "comb": lambda: (
            Table(tables.sum(axis=0), lengths, count * len(tables))
            for tables, count in zip(padded, voxels, strict=True)
        ),
        "2_5D_avg": lambda: (Table(table, lengths, sum(voxels)) for table in np.sum(padded, axis=0)),
        "2_5D_comb": lambda: iter([Table(np.sum(padded, axis=(0, 1)), lengths, sum(voxels) * len(padded[0]))]),
    }
    result: dict[str, float] = {}
    names = _TABLE_NAMES["rlm"].split()
    for name in aggregations:
        dimension, way = name.rsplit("_", 1)
        if dimension in dimensions:
            tables = ways[name if dimension == "2_5D" else way]()
            result.update(_named("rlm", names, name, _mean(map(table_features, tables))[: len(names)]))
    return result


_Zones = tuple[np.ndarray, np.ndarray, int]


def _zone_tables(grid: LevelGrid, region: np.ndarray, mask: np.ndarray) -> tuple[_Zones, _Zones]:
    """Return level and size, and level and distance to the border of the mask, of every zone of a slice or a volume."""
    found = zones(grid)
    inside = mask if mask.shape[0] > 1 else mask[0]
    # Steps across faces to the first voxel outside: 1 at the border. The arrays have a border of zeros.
    steps = ndimage.distance_transform_cdt(inside, metric="taxicab").reshape(mask.shape)[region]
    distances = np.full(len(found.levels), np.iinfo(np.int64).max)
    np.minimum.at(distances, found.labels, steps)
    voxels = len(grid.places)
    return (found.levels, found.sizes, voxels), (found.levels, distances, voxels)


def _zone_table(levels: np.ndarray, sizes: np.ndarray, voxels: int, ng: int) -> Table:
    present, column = np.unique(sizes, return_inverse=True)
    counts = np.bincount((levels - 1) * len(present) + column, minlength=ng * len(present))
    return Table(counts.reshape(ng, len(present)).astype(float), present, voxels)


def _undirected(family: str, tables: list[Table], dimensions: Sequence[str]) -> dict[str, float]:
    """Return the features of the tables of slices, or of the one volume."""
    names = _TABLE_NAMES[family].split()
    result: dict[str, float] = {}
    for dimension in dimensions:
        wanted = [_merged(tables)] if dimension == "2_5D" else tables
        result.update(_named(family, names, dimension, _mean(map(table_features, wanted))[: len(names)]))
    return result


def _merged(tables: list[Table]) -> Table:
    sizes = np.unique(np.concatenate([table.sizes for table in tables]))
    counts = np.zeros((len(tables[0].counts), len(sizes)))
    for table in tables:
        counts[:, np.searchsorted(sizes, table.sizes)] += table.counts
    return Table(counts, sizes, sum(table.voxels for table in tables))


def table_features(table: Table) -> np.ndarray:
    """Return the features (17,) that runs, zones and dependences share, in the order of the names of the last."""
    counts, size = table.counts, table.sizes.astype(np.float64)
    level = np.arange(1, len(counts) + 1, dtype=np.float64)
    number = counts.sum()
    by_level, by_size = counts.sum(axis=1), counts.sum(axis=0)
    p = counts / number
    inverse_level, inverse_size = level**-2, size**-2
    mean_level, mean_size = by_level @ level / number, by_size @ size / number
    present = p[p > 0]
    return np.array(
        [
            by_size @ inverse_size / number,
            by_size @ size**2 / number,
            by_level @ inverse_level / number,
            by_level @ level**2 / number,
            inverse_level @ p @ inverse_size,
            level**2 @ p @ inverse_size,
            inverse_level @ p @ size**2,
            level**2 @ p @ size**2,
            by_level @ by_level / number,
            by_level @ by_level / number**2,
            by_size @ by_size / number,
            by_size @ by_size / number**2,
            number / table.voxels,
            by_level @ (level - mean_level) ** 2 / number,
            by_size @ (size - mean_size) ** 2 / number,
            -(present * np.log2(present)).sum(),
            (present**2).sum(),
        ]
    )


def _tone_differences(found: list[tuple[np.ndarray, np.ndarray]], dimensions: Sequence[str]) -> dict[str, float]:
    """Return the features of the tone differences of slices, or of the one volume."""
    names = ("coarseness", "contrast", "busyness", "complexity", "strength")
    result: dict[str, float] = {}
    for dimension in dimensions:
        wanted = found
        if dimension == "2_5D":
            wanted = [(np.sum([item[0] for item in found], axis=0), np.sum([item[1] for item in found], axis=0))]
        rows = _mean(tone_features(differences, counts) for differences, counts in wanted)
        result.update(_named("ngt", names, dimension, rows))
    return result


def tone_features(differences: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return coarseness, contrast, busyness, complexity and strength (5,).

    Parameters
    ----------
    differences
        Of each level (levels,): the sum of absolute differences of its voxels from the mean level around them.
    counts
        Voxels of each level that have neighbours.
    """
    number = counts.sum()
    if number == 0:
        return np.full(5, np.nan)
    present = counts > 0
    level = np.flatnonzero(present) + 1.0
    p, s = counts[present] / number, differences[present]
    a, b = level[:, None], level[None, :]
    weighted = p @ s
    busyness_below = np.abs(a * p[:, None] - b * p[None, :]).sum()
    kinds = len(level)
    pair = p[:, None] * p[None, :]
    mean = p[:, None] + p[None, :]
    moment = p[:, None] * s[:, None] + p[None, :] * s[None, :]
    return np.array(
        [
            # A region of one level has no differences; the manual sets its coarseness to 10^6.
            1 / weighted if weighted > 0 else 1e6,
            (pair * (a - b) ** 2).sum() / (kinds * (kinds - 1)) * s.sum() / number if kinds > 1 else 0.0,
            weighted / busyness_below if kinds > 1 else 0.0,
            (np.abs(a - b) * moment / mean).sum() / number,
            (mean * (a - b) ** 2).sum() / s.sum() if s.sum() > 0 else 0.0,
        ]
    )
