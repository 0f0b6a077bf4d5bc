"""Shape of a region and how its intensities are spread in space.

Formulas of the family HCUG of the reference manual (A. Zwanenburg et al., arXiv:1612.07003, doi:10.1148/radiol.2020191145).
The surface is the marching cubes mesh of the morphological mask; intensities are those of the intensity mask.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft
from scipy.spatial import ConvexHull

from ..surface import surface_of
from .grid import Region

# The search for the smallest ellipsoid stops where no point lies outside by more than this share of the squared distance.
_ELLIPSOID_TOLERANCE = 1e-4
_ELLIPSOID_STEPS = 20_000
_POINTS_ADDED = 50

_SERIES_DEGREE = 20

# A transform of so many voxels takes half a GiB in double precision, and four are held at once.
_DOUBLE_PRECISION_VOXELS = 2**26


def morphology(region: Region) -> dict[str, float]:
    """Return the 29 features of the family HCUG (lengths in mm); one that a flat region does not define is not finite."""
    mask, spacing = region.morphological, np.array(region.spacing_zyx)
    places = np.argwhere(mask)
    first, last = places.min(axis=0), places.max(axis=0) + 1
    surface = surface_of(mask[tuple(slice(a, b) for a, b in zip(first, last, strict=True))], region.spacing_zyx)
    volume, area = surface.volume, surface.area
    with np.errstate(divide="ignore", invalid="ignore"):
        sphericity = np.float64((36 * math.pi * volume**2) ** (1 / 3)) / area
        result = {
            "morph_volume": volume,
            "morph_vol_approx": len(places) * float(spacing.prod()),
            "morph_area_mesh": area,
            "morph_av": np.float64(area) / volume,
            "morph_comp_1": volume / (math.sqrt(math.pi) * area**1.5),
            "morph_comp_2": 36 * math.pi * volume**2 / area**3,
            "morph_sph_dispr": 1 / sphericity,
            "morph_sphericity": sphericity,
            "morph_asphericity": np.cbrt(area**3 / (36 * math.pi * np.float64(volume) ** 2)) - 1,
            "morph_com": _centre_shift(region),
            "morph_diam": surface.diameters[3],
            **_axes(places * spacing, volume, area),
            **_enclosures(mask, spacing, volume, area),
            "morph_integ_int": float(region.inside.mean()) * volume,
            **_correlation(region),
        }
    return {name: float(value) for name, value in result.items()}


def _centre_shift(region: Region) -> float:
    """Return the distance (mm) between the centre of the region and the centre of its intensities."""
    spacing = np.array(region.spacing_zyx)
    centre = np.argwhere(region.morphological).mean(axis=0)
    weights = region.inside
    weighted = weights @ np.argwhere(region.intensity) / weights.sum()
    return float(np.linalg.norm((weighted - centre) * spacing))


def _axes(points: np.ndarray, volume: float, area: float) -> dict[str, float]:
    """Return lengths of the principal axes and the densities in the ellipsoid that they span."""
    values = np.zeros(3)
    if len(points) > 1:
        centred = points - points.mean(axis=0)
        values = np.clip(np.linalg.eigvalsh(centred.T @ centred / (len(points) - 1)), 0, None)
    least, minor, major = np.sqrt(values)
    c, b, a = 2 * least, 2 * minor, 2 * major
    return {
        "morph_pca_maj_axis": 4 * major,
        "morph_pca_min_axis": 4 * minor,
        "morph_pca_least_axis": 4 * least,
        "morph_pca_elongation": minor / major,
        "morph_pca_flatness": least / major,
        "morph_vol_dens_aee": volume / np.float64(4 / 3 * math.pi * a * b * c),
        "morph_area_dens_aee": area / np.float64(ellipsoid_area(a, b, c)),
    }


def ellipsoid_area(a: float, b: float, c: float) -> float:
    """Return the surface of an ellipsoid by its semi-axes a >= b >= c, as the manual defines it.

    This is the first 21 terms of the series of the manual. It is exact for a sphere only and a few per cent small for a long
    ellipsoid, because the eccentricities of the manual both refer to the longest axis; the consensus values rest on it.
    """
    alpha, beta = 1 - (b / a) ** 2, 1 - (c / a) ** 2
    # Legendre polynomials times powers of the product of the eccentricities, which is zero for two equal axes.
    previous, current = 1.0, (alpha + beta) / 2
    total = 1.0
    for degree in range(1, _SERIES_DEGREE + 1):
        total += current / (1 - 4 * degree**2)
        following = ((2 * degree + 1) * (alpha + beta) / 2 * current - degree * alpha * beta * previous) / (degree + 1)
        previous, current = current, following
    return 4 * math.pi * a * b * total


def _enclosures(mask: np.ndarray, spacing: np.ndarray, volume: float, area: float) -> dict[str, float]:
    """Return volume and area as shares of those of bodies that enclose the surface."""
    points = surface_extremes(mask) * spacing
    hull = ConvexHull(points)
    corners = points[hull.vertices]
    centred = corners - corners.mean(axis=0)
    semi = enclosing_ellipsoid(centred)
    bodies = {
        "aabb": _box(np.ptp(corners, axis=0)),
        "ombb": _box(oriented_box(centred, hull.equations[:, :3])),
        "mvee": (4 / 3 * math.pi * float(semi.prod()), ellipsoid_area(*np.sort(semi)[::-1])),
        "conv_hull": (float(hull.volume), float(hull.area)),
    }
    result = {}
    for name, (body_volume, body_area) in bodies.items():
        result[f"morph_vol_dens_{name}"] = volume / body_volume
        result[f"morph_area_dens_{name}"] = area / body_area
    return result


def _box(edges: np.ndarray) -> tuple[float, float]:
    x, y, z = (float(edge) for edge in edges)
    return x * y * z, 2 * (x * y + x * z + y * z)


def surface_extremes(mask: np.ndarray) -> np.ndarray:
    """Return points (n, 3), in voxels, with the same convex hull as the vertices of the surface.

    A vertex lies half a voxel from the centre of a voxel inside, towards a neighbour; only the first and the last voxel of
    a row can be extreme.
    """
    z, y = np.nonzero(mask.any(axis=2))
    rows = mask[z, y]
    ends = np.stack([rows.argmax(axis=1), rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)], axis=1)
    centres = np.column_stack([np.repeat(z, 2), np.repeat(y, 2), ends.ravel()]).astype(float)
    steps = np.concatenate([np.eye(3), -np.eye(3)]) / 2
    return (centres[:, None, :] + steps).reshape(-1, 3)


def oriented_box(corners: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return the edges of the smallest box that encloses a convex body with one side on one of its faces.

    Parameters
    ----------
    corners
        Of the body (n, 3), about their mean.
    normals
        Of its faces (m, 3), unit length.
    """
    best, best_edges = math.inf, np.zeros(3)
    for normal in np.unique(np.round(normals, 9), axis=0):
        if tuple(normal) < (0.0, 0.0, 0.0):
            # The opposite direction gives the same box.
            normal = -normal  # noqa: PLW2901
        height = np.ptp(corners @ normal)
        helper = np.eye(3)[np.argmin(np.abs(normal))]
        first = np.cross(normal, helper)
        first /= np.linalg.norm(first)
        flat = corners @ np.column_stack([first, np.cross(normal, first)])
        outline = flat[ConvexHull(flat).vertices]
        edges = np.diff(outline, axis=0, append=outline[:1])
        edges /= np.linalg.norm(edges, axis=1, keepdims=True)
        # The smallest rectangle around a polygon has a side on one of its edges.
        along = np.ptp(edges @ outline.T, axis=1)
        across = np.ptp(np.column_stack([-edges[:, 1], edges[:, 0]]) @ outline.T, axis=1)
        at = int(np.argmin(along * across))
        if height * along[at] * across[at] < best:
            best, best_edges = height * along[at] * across[at], np.array([height, along[at], across[at]])
    return best_edges


def enclosing_ellipsoid(points: np.ndarray) -> np.ndarray:
    """Return the semi-axes of the smallest ellipsoid around points (n, 3), enlarged so that it holds every one.

    Few points decide it: the ellipsoid of some is found, and those furthest outside are added until none is outside.
    """
    directions = np.array([step for step in np.ndindex(3, 3, 3) if step != (1, 1, 1)]) - 1
    chosen = np.unique(np.argmax(points @ directions.T, axis=0))
    while True:
        centre, shape = _ellipsoid_of(points[chosen])
        distances = np.einsum("ij,ji->i", points - centre, np.linalg.solve(shape, (points - centre).T))
        outside = np.flatnonzero(distances > 1 + 2 * _ELLIPSOID_TOLERANCE)
        added = np.union1d(chosen, outside[np.argsort(distances[outside])[-_POINTS_ADDED:]])
        if len(added) == len(chosen):
            return np.sqrt(np.linalg.eigvalsh(shape) * distances.max())
        chosen = added


def _ellipsoid_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and shape matrix (3, 3) of the smallest ellipsoid around points (n, 3).

    Khachiyan's algorithm with the steps of Todd and Yildirim away from points (doi:10.1016/j.dam.2007.02.013).
    """
    lifted = np.column_stack([points, np.ones(len(points))])
    dimension = lifted.shape[1]
    weights = np.full(len(points), 1.0 / len(points))
    for _ in range(_ELLIPSOID_STEPS):
        moment = lifted.T @ (weights[:, None] * lifted)
        distances = np.einsum("ij,ji->i", lifted, np.linalg.solve(moment, lifted.T))
        far = int(np.argmax(distances))
        near = int(np.argmin(np.where(weights > 0, distances, math.inf)))
        outward, inward = distances[far] / dimension - 1, 1 - distances[near] / dimension
        if max(outward, inward) <= _ELLIPSOID_TOLERANCE:
            break
        at, distance = (far, distances[far]) if outward >= inward else (near, distances[near])
        step = (distance - dimension) / (dimension * (distance - 1))
        if outward < inward:
            step = max(step, -weights[at] / (1 - weights[at]))
        weights *= 1 - step
        weights[at] = max(weights[at] + step, 0.0)
    centre = weights @ points
    shape = 3 * (points - centre).T @ (weights[:, None] * (points - centre))
    return centre, shape


def _correlation(region: Region) -> dict[str, float]:
    """Return Moran's I and Geary's C with the inverse distance as weight, over all pairs of voxels.

    The sums over pairs are taken over frequencies (Parseval), so their time grows with the box of the region and not with the
    square of its voxels. A box that would take gigabytes is transformed in single precision, whose rounding is a millionth.
    """
    places = np.nonzero(region.intensity)
    count = len(places[0])
    if count < 2:
        return {"morph_moran_i": math.nan, "morph_geary_c": math.nan}
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in places)
    mask = region.intensity[box]
    deviation = np.where(mask, region.values[box] - region.inside.mean(), 0.0)
    squares = float(np.vdot(deviation, deviation))
    sizes = [fft.next_fast_len(2 * size - 1, real=True) for size in mask.shape]
    kind = np.float64 if math.prod(sizes) <= _DOUBLE_PRECISION_VOXELS else np.float32
    kernel = fft.rfftn(_inverse_distances(sizes, region.spacing_zyx, kind), overwrite_x=True).real.copy()
    # Each frequency stands for its opposite too, except the first and, of an even number, the last.
    kernel[..., 1 : (sizes[2] + 1) // 2] *= 2
    kernel /= math.prod(sizes)
    of_mask = fft.rfftn(mask.astype(kind), sizes)
    total = _weighted_product(kernel, of_mask, of_mask)
    weighted_squares = _weighted_product(kernel, of_mask, fft.rfftn((deviation**2).astype(kind), sizes))
    del of_mask
    of_deviation = fft.rfftn(deviation.astype(kind), sizes)
    products = _weighted_product(kernel, of_deviation, of_deviation)
    differences = 2 * weighted_squares - 2 * products
    return {
        "morph_moran_i": count / total * np.float64(products) / squares,
        "morph_geary_c": (count - 1) / (2 * total) * np.float64(differences) / squares,
    }


def _inverse_distances(sizes: list[int], spacing_zyx: tuple[float, ...], kind: type) -> np.ndarray:
    """Return the inverse of the distance (1/mm) of every step around a periodic box; 0 for no step."""
    squared: np.ndarray = np.zeros((1, 1, 1), dtype=kind)
    for axis, (size, length) in enumerate(zip(sizes, spacing_zyx, strict=True)):
        steps = np.minimum(np.arange(size), size - np.arange(size)) * length
        shape = [1, 1, 1]
        shape[axis] = size
        squared = squared + (steps**2).astype(kind).reshape(shape)
    squared[0, 0, 0] = math.inf
    np.sqrt(squared, out=squared)
    return np.divide(1, squared, out=squared)


def _weighted_product(kernel: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Return the sum over frequencies of the kernel times the real part of one times the conjugate of the other."""
    return sum(
        float(np.sum(k * (a.real * b.real + a.imag * b.imag), dtype=np.float64))
        for k, a, b in zip(kernel, one, other, strict=True)
    )
