"""Outlines of masks as closed polygons."""

from __future__ import annotations

import numpy as np

# Corners of a cell count clockwise: 1 top left, 2 top right, 4 bottom right, 8 bottom left. A segment runs from the edge where,
# going clockwise round the cell, the inside begins, to the edge where it ends; the neighbour goes round the other way, so that
# segments of neighbouring cells join end to start. Edges: 0 top, 1 right, 2 bottom, 3 left.
_SEGMENTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 0),),
    2: ((0, 1),),
    3: ((3, 1),),
    4: ((1, 2),),
    6: ((0, 2),),
    7: ((3, 2),),
    8: ((2, 3),),
    9: ((2, 0),),
    11: ((2, 1),),
    12: ((1, 3),),
    13: ((1, 0),),
    14: ((0, 3),),
}
# Two opposite corners inside: they are one piece where the middle of the cell is inside too, else two.
_SADDLES: dict[tuple[int, bool], tuple[tuple[int, int], ...]] = {
    (5, True): ((1, 0), (3, 2)),
    (5, False): ((3, 0), (1, 2)),
    (10, True): ((0, 3), (2, 1)),
    (10, False): ((0, 1), (2, 3)),
}

_Edge = tuple[int, int, bool]


def outlines(image: np.ndarray, level: float = 0.5) -> list[np.ndarray]:
    """Return the closed polygons on which a 2D image (row, column) crosses a level, by marching squares.

    Each polygon is an (n, 2) array of x = column and y = row, in pixels, with whole numbers at pixel centres; the last point
    joins the first. What reaches the border of the image is closed along the border. Lorensen and Cline,
    doi:10.1145/37402.37422, in two dimensions.
    """
    field = np.pad(np.asarray(image, dtype=float), 1, constant_values=np.min(image, initial=level) - 1)
    inside = field > level
    code = (
        inside[:-1, :-1] * 1 + inside[:-1, 1:] * 2 + inside[1:, 1:] * 4 + inside[1:, :-1] * 8  # clockwise from top left
    )
    follows: dict[_Edge, _Edge] = {}
    for row, column in np.argwhere((code > 0) & (code < 15)).tolist():
        case = int(code[row, column])
        if case in (5, 10):
            middle = bool(field[row : row + 2, column : column + 2].mean() > level)
            segments = _SADDLES[case, middle]
        else:
            segments = _SEGMENTS[case]
        edges = ((row, column, True), (row, column + 1, False), (row + 1, column, True), (row, column, False))
        for start, end in segments:
            follows[edges[start]] = edges[end]
    polygons = []
    while follows:
        first, edge = follows.popitem()
        chain = [first]
        while edge != first:
            chain.append(edge)
            edge = follows.pop(edge)
        polygons.append(_crossings(field, np.array(chain), level))
    return polygons


def _crossings(field: np.ndarray, edges: np.ndarray, level: float) -> np.ndarray:
    """Return where the level lies on edges (row, column, horizontal) of a padded field, in pixels of the image without padding."""
    rows, columns, horizontal = edges[:, 0], edges[:, 1], edges[:, 2]
    near = field[rows, columns]
    far = field[rows + 1 - horizontal, columns + horizontal]
    share = np.clip((level - near) / (far - near), 0.0, 1.0)
    points = np.stack([columns + horizontal * share, rows + (1 - horizontal) * share], axis=1) - 1.0
    height, width = field.shape[0] - 2, field.shape[1] - 2
    return np.clip(points, [-0.5, -0.5], [width - 0.5, height - 0.5])
