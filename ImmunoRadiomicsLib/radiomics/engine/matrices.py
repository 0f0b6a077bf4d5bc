"""Texture matrices of a region of grey levels: how levels lie beside, in line with and around one another.

Every function takes the levels of a region as an integer array (z, y, x), 0 outside the region and 1 to ``ng`` inside, or a
``LevelGrid`` made of it once for several matrices. Counts are exact. A matrix in 3D is that of the whole array; for a matrix
per slice hand in one slice, or name the axis that neighbours must not leave as ``force2d_dim``. Matrices of directions come
with one matrix per direction, in the order of ``directions``: their mean, their sum or the mean of features over them are the
ways of aggregation of the image biomarker standard (doi:10.1148/radiol.2020191145).

No step loops over voxels. In a small region all directions are taken at once, as numpy's calls then cost more than their
work; in a large one each is taken by itself, so that the memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

# Voxels up to which all directions are taken at once.
_SMALL = 1 << 14
# Voxels of a box that are compared with their neighbours at once: few enough for the second-level cache.
_BLOCK = 1 << 16


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
        self._beside: dict[tuple[int, ...], np.ndarray] = {}

    def step(self, direction: np.ndarray) -> int:
        """Return how far in ``flat`` one step in a direction (z, y, x) leads."""
        return int(direction @ self.steps)

    def beside(self, steps: np.ndarray) -> np.ndarray:
        """Return the levels (steps, n) that lie one of several steps (in ``flat``) from each voxel of the region."""
        key = tuple(steps.tolist())
        found = self._beside.get(key)
        if found is None:
            found = self.flat[self.places + steps[:, None]]
            if len(self.places) <= _SMALL:
                self._beside[key] = found
        return found

    def portions(self, count: int) -> list[slice]:
        """Return which of ``count`` directions to take at once."""
        return [slice(0, count)] if len(self.places) <= _SMALL else [slice(n, n + 1) for n in range(count)]

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield parts of the box: where they are in ``flat``, and which voxels of the region lie in them."""
        if not len(self.places):
            return
        first, end = int(self.places[0]), int(self.places[-1]) + 1
        edges = np.arange(first, end, _BLOCK)
        voxels = np.searchsorted(self.places, [*edges, end])
        for number, edge in enumerate(edges.tolist()):
            if voxels[number] < voxels[number + 1]:
                yield slice(edge, min(edge + _BLOCK, end)), slice(int(voxels[number]), int(voxels[number + 1]))

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
    steps = directions(grid.shape, distances, force2d_dim) @ grid.steps
    base = grid.values.astype(np.intp) * (ng + 1)
    size = (ng + 1) ** 2
    result = np.empty((len(steps), ng, ng))
    for portion in grid.portions(len(steps)):
        codes = grid.beside(steps[portion]) + base
        count = len(codes)
        codes += size * np.arange(count)[:, None]
        # A neighbour outside the region has level 0.
        counts = np.bincount(codes.ravel(), minlength=count * size).reshape(count, ng + 1, ng + 1)
        result[portion] = counts[:, 1:, 1:]
    return result


def glrlm(levels: np.ndarray | LevelGrid, ng: int, force2d_dim: int | None = None) -> np.ndarray:
    """Count runs of equal levels in a line (M. M. Galloway, doi:10.1016/S0146-664X(75)80008-6).

    Returns
    -------
    float64 array (directions, ng, longest run)
        [d, i - 1, n - 1] is the number of runs of n voxels of level i in direction d.
    """
    grid = grid_of(levels)
    steps = directions(grid.shape, (1,), force2d_dim) @ grid.steps
    tables = [_runs(grid, steps[portion], ng) for portion in grid.portions(len(steps))]
    longest = max((table.shape[2] for table in tables), default=0)
    result = np.zeros((len(steps), ng, longest))
    for portion, table in zip(grid.portions(len(steps)), tables, strict=True):
        result[portion, :, : table.shape[2]] = table
    return result


def _runs(grid: LevelGrid, steps: np.ndarray, ng: int) -> np.ndarray:
    """Return the number of runs (steps, ng, longest run) along each step."""
    flat = grid.flat
    number, place = _second_voxels(grid, steps)
    size = len(steps) * (ng + 1)
    voxels = np.tile(np.bincount(grid.values, minlength=ng + 1), len(steps))
    counts = [voxels]
    # All runs are followed at once, one voxel further each time; those that end are counted and dropped.
    while len(place):
        ahead = place + (steps if number is None else steps[number])
        goes_on = flat[ahead] == flat[place]
        codes = flat[place[~goes_on]]
        if number is not None:
            codes = number[~goes_on] * (ng + 1) + codes
            number = number[goes_on]
        ended = np.bincount(codes, minlength=size)
        counts.append(ended)
        # What is left in the end are runs of one voxel.
        voxels -= len(counts) * ended
        place = ahead[goes_on]
    table = np.array(counts).T.reshape(len(steps), ng + 1, len(counts))
    return table[:, 1:]


def _second_voxels(grid: LevelGrid, steps: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the second voxel of every run that has one: the number of its step, if there are several, and where it is in ``flat``."""
    flat = grid.flat
    if len(grid.places) <= _SMALL:
        number, voxel = np.nonzero((grid.beside(steps) == grid.values) & (grid.beside(-steps) != grid.values))
        return number, grid.places[voxel] + steps[number]
    (step,) = steps.tolist()
    places = []
    for part, _ in grid.blocks():
        centre = flat[part]
        begins = centre == flat[part.start + step : part.stop + step]
        begins &= centre != flat[part.start - step : part.stop - step]
        begins &= centre > 0
        places.append(np.flatnonzero(begins) + (part.start + step))
    return None, np.concatenate(places)


def lone_directions(levels: np.ndarray | LevelGrid, force2d_dim: int | None = None) -> np.ndarray:
    """Tell in which directions no line holds two voxels of the region (bool array, one for each of ``directions``)."""
    grid = grid_of(levels)
    steps = directions(grid.shape, (1,), force2d_dim)
    result = np.zeros(len(steps), dtype=bool)
    along = steps @ grid.steps
    for portion in grid.portions(len(steps)):
        result[portion] = ~grid.beside(along[portion]).any(axis=1)
    # Neighbours in the region settle it; only scattered voxels need to be sorted into lines.
    for number in np.flatnonzero(result):
        direction = steps[number]
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
    steps = directions(grid.shape, distances, force2d_dim) @ grid.steps
    columns = 2 * len(steps) + 1
    like = np.zeros(len(grid.places), dtype=np.min_scalar_type(columns))
    if len(like) <= _SMALL:
        for along in (steps, -steps):
            like += _alike(grid.beside(along), grid.values, alpha).sum(axis=0, dtype=like.dtype)
    else:
        for part, voxels in grid.blocks():
            centre = grid.flat[part]
            found = np.zeros(len(centre), dtype=like.dtype)
            for step in (*steps.tolist(), *(-steps).tolist()):
                found += _alike(grid.flat[part.start + step : part.stop + step], centre, alpha)
            like[voxels] = found[grid.places[voxels] - part.start]
    codes = (grid.values.astype(np.intp) - 1) * columns + like
    return np.bincount(codes, minlength=ng * columns).reshape(ng, columns).astype(float)


def _alike(neighbours: np.ndarray, levels: np.ndarray, alpha: float) -> np.ndarray:
    if alpha < 1:
        return neighbours == levels
    return (neighbours > 0) & (np.abs(neighbours.astype(np.int32) - levels) <= alpha)


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
    steps = directions(grid.shape, distances, force2d_dim) @ grid.steps
    total = np.zeros(len(grid.places), dtype=np.min_scalar_type(2 * len(steps) * ng))
    count = np.zeros(len(grid.places), dtype=np.min_scalar_type(2 * len(steps)))
    if len(total) <= _SMALL:
        for along in (steps, -steps):
            neighbours = grid.beside(along)
            total += neighbours.sum(axis=0, dtype=total.dtype)
            count += (neighbours > 0).sum(axis=0, dtype=count.dtype)
    else:
        reach = int(np.abs(steps).max())
        for part, voxels in grid.blocks():
            around = grid.flat[part.start - reach : part.stop + reach].astype(total.dtype)
            inside = around > 0
            levels_sum = np.zeros(part.stop - part.start, dtype=total.dtype)
            voxels_sum = np.zeros(part.stop - part.start, dtype=count.dtype)
            for step in (*steps.tolist(), *(-steps).tolist()):
                beside = slice(reach + step, reach + step + len(levels_sum))
                levels_sum += around[beside]
                voxels_sum += inside[beside]
            places = grid.places[voxels] - part.start
            total[voxels], count[voxels] = levels_sum[places], voxels_sum[places]
    mean = np.divide(total, count, out=grid.values.astype(float), where=count > 0)
    difference = np.abs(grid.values - mean)
    counts = np.bincount(grid.values, minlength=ng + 1)[1:].astype(float)
    sums = np.bincount(grid.values, weights=difference, minlength=ng + 1)[1:]
    return counts, sums, np.bincount(grid.values[count > 0], minlength=ng + 1)[1:].astype(float)
