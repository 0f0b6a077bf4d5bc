"""Texture matrices of a region of grey levels: how levels lie beside, in line with and around one another.

Every function takes the levels of a region as an integer array (z, y, x), 0 outside the region and 1 to ``ng`` inside, or a
``LevelGrid`` made of it once for several matrices. Counts are exact. A matrix in 3D is that of the whole array; for a matrix
per slice hand in one slice, or name the axis that neighbours must not leave as ``force2d_dim``. Matrices of directions come
with one matrix per direction, in the order of ``directions``: their mean, their sum or the mean of features over them are the
ways of aggregation of the image biomarker standard (doi:10.1148/radiol.2020191145).

The work grows with the voxels of the region, not with its box, and no step loops over voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


class LevelGrid:
    """The levels of a region as lists of voxels, with a border of zeros so that every neighbour exists.

    Parameters
    ----------
    levels
        Integer array (z, y, x), 0 outside the region.
    reach
        The largest distance, in voxels along an axis, at which neighbours will be asked for.

    Attributes
    ----------
    shape
        Of ``levels``.
    flat
        The padded levels in one line.
    places
        Where in ``flat`` the voxels of the region are, in ascending order (z first).
    values
        The levels there.
    steps
        How far in ``flat`` one voxel along z, y and x is.
    """

    def __init__(self, levels: np.ndarray, reach: int = 1):
        self.shape: tuple[int, ...] = levels.shape
        self.reach = reach
        highest = int(levels.max(initial=0))
        padded = np.zeros([size + 2 * reach for size in levels.shape], dtype=np.min_scalar_type(max(highest, 1)))
        padded[tuple(slice(reach, reach + size) for size in levels.shape)] = levels
        self.flat = padded.ravel()
        self.places = np.flatnonzero(self.flat)
        self.values = self.flat[self.places]
        self.steps = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])

    def step(self, direction: np.ndarray) -> int:
        """Return how far in ``flat`` one step in a direction (z, y, x) leads."""
        return int(direction @ self.steps)

    def indices(self) -> np.ndarray:
        """Return the indices (n, 3) of the voxels of the region in the array that the grid was made of."""
        z, rest = np.divmod(self.places, self.steps[0])
        y, x = np.divmod(rest, self.steps[1])
        return np.column_stack([z, y, x]) - self.reach


@dataclass(frozen=True, eq=False)
class Zones:
    """The connected parts of equal level of a region.

    Attributes
    ----------
    labels
        The number of the zone of every voxel of the region, in the order of the array.
    levels, sizes
        Level and number of voxels of each zone.
    """

    labels: np.ndarray
    levels: np.ndarray
    sizes: np.ndarray


def grid_of(levels: np.ndarray | LevelGrid, reach: int = 1) -> LevelGrid:
    """Return a grid that allows neighbours at a distance of ``reach``: the one given, if it does."""
    if isinstance(levels, LevelGrid):
        if levels.reach < reach:
            raise ValueError(f"the grid reaches {levels.reach} voxels, {reach} are asked for")
        return levels
    return LevelGrid(levels, reach)


def directions(shape: Sequence[int], distances: Sequence[int] = (1,), force2d_dim: int | None = None) -> np.ndarray:
    """Return the steps (n, 3) from a voxel to its neighbours, one of each pair of opposite ones.

    Parameters
    ----------
    shape
        Of the array; a step as long as an axis does not exist.
    distances
        Lengths wanted, as the largest of the three components.
    force2d_dim
        The axis along which there is no step, if any.
    """
    longest = max(distances)
    spans = [
        range(0, 1) if axis == force2d_dim else range(min(longest, size - 1), -min(longest, size - 1) - 1, -1)
        for axis, size in enumerate(shape)
    ]
    wanted = set(distances)
    found = [step for step in product(*spans) if max(map(abs, step)) in wanted]
    # The steps are sorted, so that each of the second half is the opposite of one of the first.
    return np.array(found[: len(found) // 2], dtype=int).reshape(-1, len(shape))


def glcm(
    levels: np.ndarray | LevelGrid, ng: int, distances: Sequence[int] = (1,), force2d_dim: int | None = None
) -> np.ndarray:
    """Count pairs of neighbours: grey level co-occurrence (R. M. Haralick, doi:10.1109/TSMC.1973.4309314).

    Returns
    -------
    float64 array (directions, ng, ng)
        [d, i - 1, j - 1] is the number of voxels of level i whose neighbour in direction d has level j. Not symmetrical;
        the symmetrical matrix is the sum with its transpose.
    """
    grid = grid_of(levels, max(distances))
    steps = directions(grid.shape, distances, force2d_dim)
    base = grid.values.astype(np.intp) * (ng + 1)
    result = np.empty((len(steps), ng, ng))
    for number, direction in enumerate(steps):
        codes = grid.flat[grid.places + grid.step(direction)] + base
        # A neighbour outside the region has level 0.
        counts = np.bincount(codes, minlength=(ng + 1) ** 2).reshape(ng + 1, ng + 1)
        result[number] = counts[1:, 1:]
    return result


def glrlm(levels: np.ndarray | LevelGrid, ng: int, force2d_dim: int | None = None) -> np.ndarray:
    """Count runs of equal levels in a line (M. M. Galloway, doi:10.1016/S0146-664X(75)80008-6).

    Returns
    -------
    float64 array (directions, ng, longest run)
        [d, i - 1, n - 1] is the number of runs of n voxels of level i in direction d.
    """
    grid = grid_of(levels)
    steps = directions(grid.shape, (1,), force2d_dim)
    tables = [_runs(grid, grid.step(direction), ng) for direction in steps]
    longest = max((table.shape[1] for table in tables), default=0)
    result = np.zeros((len(tables), ng, longest))
    for number, table in enumerate(tables):
        result[number, :, : table.shape[1]] = table
    return result


def _runs(grid: LevelGrid, step: int, ng: int) -> np.ndarray:
    """Return the number of runs (ng, longest run) along one step."""
    begins = grid.flat[grid.places - step] != grid.values
    place, value = grid.places[begins], grid.values[begins]
    counts = []
    # All runs are followed at once, one voxel further each time; those that end are counted and dropped.
    while len(place):
        place = place + step
        goes_on = grid.flat[place] == value
        counts.append(np.bincount(value[~goes_on], minlength=ng + 1)[1:])
        place, value = place[goes_on], value[goes_on]
    return np.array(counts).T.reshape(ng, len(counts))


def lone_directions(levels: np.ndarray | LevelGrid, force2d_dim: int | None = None) -> np.ndarray:
    """Tell in which directions no line holds two voxels of the region (bool array, one for each of ``directions``)."""
    grid = grid_of(levels)
    steps = directions(grid.shape, (1,), force2d_dim)
    result = np.zeros(len(steps), dtype=bool)
    for number, direction in enumerate(steps):
        # Neighbours in the region settle it; only scattered voxels need to be sorted into lines.
        if not grid.flat[grid.places + grid.step(direction)].any():
            axis = np.flatnonzero(direction)[0]
            indices = grid.indices()
            lines = indices - np.outer(indices[:, axis] * direction[axis], direction)
            result[number] = len(np.unique(lines, axis=0)) == len(lines)
    return result


def zones(levels: np.ndarray | LevelGrid, force2d_dim: int | None = None) -> Zones:
    """Find the connected parts of equal level; voxels that share a corner (in 2D, of the plane) are connected."""
    grid = grid_of(levels)
    first, *across = _row_steps(grid, force2d_dim)
    flat, places, values = grid.flat, grid.places, grid.values
    # Parts are put together from rows of equal level rather than from voxels.
    begins = flat[places - first] != values
    begin_places, begin_values = places[begins], values[begins]
    node = np.zeros(len(flat), dtype=np.int32)
    if first == 1:
        row_of = np.cumsum(begins, dtype=np.int32) - 1
        node[places] = row_of
    else:
        _number_rows(node, begin_places, begin_values, flat, first)
        row_of = node[places]
    ends = flat[places + first] != values
    end_places, end_values = places[ends], values[ends]
    pairs = []
    for step in across:
        same = places[flat[places + step] == values]
        pairs.append(_without_repeats(node[same], node[same + step]))
        # Rows that touch at a corner only: one ends where the other begins.
        corner = (flat[end_places + step + first] == end_values) & (flat[end_places + step] != end_values)
        pairs.append((node[end_places[corner]], node[end_places[corner] + step + first]))
        corner = (flat[begin_places + step - first] == begin_values) & (flat[begin_places + step] != begin_values)
        pairs.append((node[begin_places[corner]], node[begin_places[corner] + step - first]))
    one = np.concatenate([pair[0] for pair in pairs])
    other = np.concatenate([pair[1] for pair in pairs])
    count = len(begin_places)
    graph = sparse.csr_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    number, of_row = connected_components(graph, directed=False)
    labels = of_row[row_of]
    zone_levels = np.zeros(number, dtype=int)
    zone_levels[of_row] = begin_values
    return Zones(labels, zone_levels, np.bincount(labels, minlength=number))


def _row_steps(grid: LevelGrid, force2d_dim: int | None) -> list[int]:
    """Return the step along a row, and those to the rows beside it on one side."""
    z, y, x = (int(step) for step in grid.steps)
    if force2d_dim is None:
        return [x, y, z - y, z, z + y]
    if force2d_dim == 0:
        return [x, y]
    return [x, z] if force2d_dim == 1 else [y, z]


def _number_rows(node: np.ndarray, place: np.ndarray, value: np.ndarray, flat: np.ndarray, step: int) -> None:
    """Write the number of its row to every voxel, for rows that do not lie together in memory."""
    number = np.arange(len(place), dtype=node.dtype)
    while len(place):
        node[place] = number
        place = place + step
        goes_on = flat[place] == value
        place, value, number = place[goes_on], value[goes_on], number[goes_on]


def _without_repeats(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop every pair that equals the one before it."""
    keep = np.ones(len(one), dtype=bool)
    keep[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    return one[keep], other[keep]


def glszm(levels: np.ndarray | LevelGrid, ng: int, force2d_dim: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Count zones of equal level (G. Thibault, doi:10.1109/TBME.2013.2284600).

    Returns
    -------
    sizes
        The sizes of zones that occur, ascending.
    counts
        float64 array (ng, sizes): [i - 1, k] is the number of zones of level i and of size ``sizes[k]``. The full matrix,
        with a column for every size, would be too large for a lung.
    """
    found = zones(levels, force2d_dim)
    sizes, column = np.unique(found.sizes, return_inverse=True)
    codes = (found.levels - 1) * len(sizes) + column
    return sizes, np.bincount(codes, minlength=ng * len(sizes)).reshape(ng, len(sizes)).astype(float)


def gldm(
    levels: np.ndarray | LevelGrid,
    ng: int,
    alpha: float = 0,
    distances: Sequence[int] = (1,),
    force2d_dim: int | None = None,
) -> np.ndarray:
    """Count voxels by the number of like neighbours (C. Sun and W. G. Wee, doi:10.1016/0734-189X(83)90032-4).

    Also called the neighbouring grey level dependence matrix (NGLDM).

    Returns
    -------
    float64 array (ng, neighbours + 1)
        [i - 1, n] is the number of voxels of level i with n neighbours whose level differs by ``alpha`` or less.
    """
    grid = grid_of(levels, max(distances))
    steps = directions(grid.shape, distances, force2d_dim)
    like = np.zeros(len(grid.places), dtype=np.intp)
    signed = grid.values.astype(np.int32)
    for direction in steps:
        for step in (grid.step(direction), -grid.step(direction)):
            neighbours = grid.flat[grid.places + step]
            if alpha < 1:
                like += neighbours == grid.values
            else:
                like += (neighbours > 0) & (np.abs(neighbours - signed) <= alpha)
    columns = 2 * len(steps) + 1
    codes = (grid.values.astype(np.intp) - 1) * columns + like
    return np.bincount(codes, minlength=ng * columns).reshape(ng, columns).astype(float)


def ngtdm(
    levels: np.ndarray | LevelGrid, ng: int, distances: Sequence[int] = (1,), force2d_dim: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum how levels differ from the mean of their neighbours (M. Amadasun and R. King, doi:10.1109/21.44046).

    Returns
    -------
    counts, differences, counts_with_neighbours
        float64 arrays (ng,): voxels of each level, the sum of their absolute differences from the mean level of their
        neighbours in the region, and those of them that have neighbours (the others add nothing to the sum).
    """
    grid = grid_of(levels, max(distances))
    total = np.zeros(len(grid.places), dtype=np.int64)
    count = np.zeros(len(grid.places), dtype=np.int64)
    for direction in directions(grid.shape, distances, force2d_dim):
        for step in (grid.step(direction), -grid.step(direction)):
            neighbours = grid.flat[grid.places + step]
            total += neighbours
            count += neighbours > 0
    mean = np.divide(total, count, out=grid.values.astype(float), where=count > 0)
    difference = np.abs(grid.values - mean)
    counts = np.bincount(grid.values, minlength=ng + 1)[1:].astype(float)
    sums = np.bincount(grid.values, weights=difference, minlength=ng + 1)[1:]
    return counts, sums, np.bincount(grid.values[count > 0], minlength=ng + 1)[1:].astype(float)
