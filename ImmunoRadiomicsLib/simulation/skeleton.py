"""Ribs with their cartilages, spine, breastbone, shoulder blades and collarbones, as signed distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from .lattice import Lattice
from .trees import Branches, draw_distance, tube

# Per pair of ribs: descent from back to front (mm) and the angle at which bone ends (degrees from the back).
_DESCENT = (24, 36, 45, 53, 59, 64, 68, 70, 66, 58, 45, 30)
_BONE_END = (142, 150, 152, 150, 146, 141, 134, 122, 110, 98, 78, 52)
# Height at which the cartilages of the first seven meet the breastbone.
_STERNAL_Z = (66, 47, 25, 2, -22, -45, -63)
_VERTEBRA_PITCH = 23.5
_FIRST_VERTEBRA_Z = 104.0


@dataclass(frozen=True, eq=False)
class Chest:
    """Profile of the inner chest wall of one patient: heights and centre y, in mm."""

    heights: np.ndarray
    centre_y: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray, scale: np.ndarray) -> Chest:
        """Scale the standard profile."""
        return cls(table[:, 0] * scale[0], table[:, 4] * scale[1])

    def centre(self, z: np.ndarray | float) -> np.ndarray:
        """Return y of the middle of the chest at a height."""
        return PchipInterpolator(self.heights, self.centre_y)(z)


def spine_y(z: np.ndarray | float) -> np.ndarray:
    """Return y of the middle of the vertebral bodies of the standard adult at a height, in mm."""
    return np.asarray(
        np.interp(z, (-420, -200, -100, -40, 20, 70, 110, 150, 220), (46, 50, 55, 58, 56, 47, 38, 30, 26))
    )


def draw_skeleton(
    medium: Lattice, coarse: Lattice, cage: np.ndarray, chest: Chest, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signed distances of bone and of rib cartilage on the medium lattice (mm; at most 9 outside).

    ``cage`` is the distance of the inner chest wall on the coarse lattice: ribs follow it whatever its form.
    """
    bone = np.full(medium.shape, 9.0, dtype=np.float32)
    cartilage = np.full(medium.shape, 9.0, dtype=np.float32)
    previous: dict[int, np.ndarray] = {}
    for number in range(12):
        for side in (-1, 1):
            path, gristle = _rib(number, side, coarse, cage, chest, scale, previous.get(side))
            _draw_ribbon(path, medium, bone, chest)
            if gristle is not None:
                draw_distance(tube(gristle, [4.6] * len(gristle)), medium, cartilage, 4.0)
                previous[side] = gristle
    low, high = medium.low[0] / scale[0], medium.high[0] / scale[0]
    for index in range(-6, 26):
        z = _FIRST_VERTEBRA_Z - _VERTEBRA_PITCH * index
        if low - 30 < z < high + 30:
            _draw_vertebra(z, medium, bone, scale)
    _draw_sternum(medium, coarse, cage, bone, scale)
    _draw_shoulders(medium, coarse, cage, bone, scale)
    return bone, cartilage


def _on_wall(
    angles: np.ndarray, heights: np.ndarray, side: int, offset: float, coarse: Lattice, cage: np.ndarray, chest: Chest
) -> np.ndarray:
    """Return the points outside the inner chest wall by ``offset`` mm, seen from its middle; angles from the back."""
    radii = np.arange(8.0, 230.0, 1.5)
    centre = chest.centre(heights)
    y = centre[:, None] + np.cos(angles)[:, None] * radii
    x = side * np.sin(angles)[:, None] * radii
    z = np.broadcast_to(heights[:, None], y.shape)
    wall = coarse.at(cage, np.stack([z, y, x], axis=-1))
    hit = np.argmax(wall > offset, axis=1)
    hit = np.maximum(hit, 1)
    rows = np.arange(len(angles))
    before, after = wall[rows, hit - 1], wall[rows, hit]
    share = np.clip((offset - before) / np.maximum(after - before, 1e-6), 0.0, 1.0)
    radius = radii[hit - 1] + share * 1.5
    return np.stack([heights, centre + np.cos(angles) * radius, side * np.sin(angles) * radius], axis=-1)


def _rib(
    number: int,
    side: int,
    coarse: Lattice,
    cage: np.ndarray,
    chest: Chest,
    scale: np.ndarray,
    previous: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the middle line of a rib from its head to its end, and that of its cartilage where it has one."""
    top = (_FIRST_VERTEBRA_Z - _VERTEBRA_PITCH * number + 8.0) * scale[0]
    end = np.radians(_BONE_END[number])
    angles = np.linspace(np.radians(24), end, 90)
    share = (angles - angles[0]) / (np.radians(150) - angles[0])
    heights = top - _DESCENT[number] * scale[0] * np.sin(np.clip(share, 0, 1.0) * np.pi / 2) ** 1.3
    line = _on_wall(angles, heights, side, 5.0, coarse, cage, chest)
    z = top / scale[0]
    head = np.array([top - 1.0, (spine_y(z) + 9.0) * scale[1], side * 20.0 * scale[2]])
    neck = np.array([top, (spine_y(z) + 25.0) * scale[1], side * 30.0 * scale[2]])
    path = tube(np.vstack([head, neck, line[::6]]), [1.0] * (2 + len(line[::6])), step_mm=2.0)
    points = np.vstack([path.start, path.end[-1:]])
    if number < 7:
        target, last = _STERNAL_Z[number] * scale[0], np.radians(172)
    elif number < 10 and previous is not None:
        joint = previous[len(previous) // 2]
        target = joint[0] - 7.0
        last = np.arctan2(abs(joint[2]), joint[1] - float(chest.centre(joint[0])))
    else:
        return points, None
    turn = np.linspace(end, max(last, end + 0.05), 10)
    way = np.linspace(0.0, 1.0, 10)
    rise = heights[-1] + (target - heights[-1]) * way**1.6
    gristle = _on_wall(turn, rise, side, 6.0, coarse, cage, chest)
    return points, gristle


def _draw_ribbon(points: np.ndarray, medium: Lattice, bone: np.ndarray, chest: Chest) -> None:
    """Draw a rib: flat against the chest wall, about 7 mm thick and 13 mm high."""
    thick, high, reach = 3.6, 6.6, 10.0
    low, spacing = medium.low, np.asarray(medium.spacing)
    axes = [medium.axis(i) for i in range(3)]
    tangents = np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    outward = points.copy()
    outward[:, 0] = 0.0
    outward[:, 1] -= chest.centre(points[:, 0])
    outward -= tangents * np.sum(outward * tangents, axis=1, keepdims=True)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    upward = np.cross(tangents, outward)
    first = np.maximum(np.ceil((points - reach - low) / spacing).astype(int), 0)
    last = np.minimum(np.floor((points + reach - low) / spacing).astype(int) + 1, medium.shape)
    for i in np.flatnonzero((last > first).all(axis=1)):
        box = tuple(slice(first[i, k], last[i, k]) for k in range(3))
        z = (axes[0][box[0]] - np.float32(points[i, 0]))[:, None, None]
        y = (axes[1][box[1]] - np.float32(points[i, 1]))[None, :, None]
        x = (axes[2][box[2]] - np.float32(points[i, 2]))[None, None, :]
        frame = [
            z * np.float32(v[0]) + y * np.float32(v[1]) + x * np.float32(v[2])
            for v in (tangents[i], outward[i], upward[i])
        ]
        radius = np.sqrt((frame[0] / thick) ** 2 + (frame[1] / thick) ** 2 + (frame[2] / high) ** 2)
        part = bone[box]
        np.minimum(part, (radius - 1.0) * thick, out=part)


def _draw_vertebra(z0: float, medium: Lattice, bone: np.ndarray, scale: np.ndarray) -> None:
    """Draw one vertebra: body, pedicles, laminae, transverse processes and spinous process, with the canal free."""
    y0 = float(spine_y(z0))
    centre = np.array([z0, y0, 0.0]) * scale
    box = medium.box(centre - np.array([34.0, 24.0, 46.0]), centre + np.array([18.0, 74.0, 46.0]))
    part = medium.part(box)
    if 0 in part.shape:
        return
    z, y, x = (axis / s - c for axis, s, c in zip(part.open_mesh(), scale, (z0, y0, 0.0), strict=True))
    waist = 1.0 - 0.10 * (1.0 - np.clip(z / 10.0, -1, 1) ** 2)
    body = np.maximum((np.sqrt((x / (19.0 * waist)) ** 2 + (y / (15.5 * waist)) ** 2) - 1.0) * 15.5, np.abs(z) - 9.8)
    canal = np.hypot(x, y - 25.0)
    arch = np.maximum(np.maximum(canal - 13.5, 9.0 - canal), np.abs(z + 1.0 + 0.25 * (y - 25.0)) - 8.0)
    pedicle = np.maximum(np.maximum(np.abs(np.abs(x) - 11.0) - 3.6, np.abs(z - 3.0) - 5.0), np.abs(y - 17.0) - 9.0)
    spike = _capsule(z, y, x, (0.0, 36.0, 0.0), (-20.0, 58.0, 0.0), 3.4)
    wing = np.minimum(
        _capsule(z, y, x, (3.0, 26.0, 12.0), (5.0, 36.0, 32.0), 4.4),
        _capsule(z, y, x, (3.0, 26.0, -12.0), (5.0, 36.0, -32.0), 4.4),
    )
    behind = np.minimum(np.minimum(arch, pedicle), np.minimum(spike, wing))
    whole = np.minimum(body, np.maximum(behind, 9.0 - canal)).astype(np.float32)
    np.minimum(bone[box], whole, out=bone[box])


def _capsule(
    z: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
) -> np.ndarray:
    along = np.subtract(end, start)
    dz, dy, dx = z - start[0], y - start[1], x - start[2]
    t = np.clip((dz * along[0] + dy * along[1] + dx * along[2]) / (along @ along), 0.0, 1.0)
    return np.sqrt((dz - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dx - t * along[2]) ** 2) - radius


def _draw_sternum(medium: Lattice, coarse: Lattice, cage: np.ndarray, bone: np.ndarray, scale: np.ndarray) -> None:
    box = medium.box(np.array([-90.0, -135.0, -34.0]) * scale, np.array([80.0, 0.0, 34.0]) * scale)
    part = medium.part(box)
    if 0 in part.shape:
        return
    depth = coarse.expand(cage, part)
    z, _, x = (axis / s for axis, s in zip(part.open_mesh(), scale, strict=True))
    width = np.interp(z, (-80, -68, -40, 20, 38, 44, 74), (5, 14, 17, 14, 13, 20, 28)).astype(np.float32)
    joint = np.abs(z - 41.0) - 1.0
    slab = np.maximum(np.maximum(np.abs(x) - width, np.abs(depth - 8.0) - 5.2), np.maximum(z - 74.0, -78.0 - z))
    np.minimum(bone[box], np.maximum(slab, -joint).astype(np.float32), out=bone[box])


def _draw_shoulders(medium: Lattice, coarse: Lattice, cage: np.ndarray, bone: np.ndarray, scale: np.ndarray) -> None:
    """Draw shoulder blades as plates that lie on the chest wall, collarbones and the heads of the upper arms."""
    tubes: list[Branches] = []
    for side in (-1.0, 1.0):
        low = np.array([-66.0, 10.0, min(side * 60.0, side * 160.0)]) * scale
        high = np.array([80.0, 125.0, max(side * 60.0, side * 160.0)]) * scale
        box = medium.box(low, high)
        part = medium.part(box)
        if 0 not in part.shape:
            depth = coarse.expand(cage, part)
            z, y, x = (axis / s for axis, s in zip(part.open_mesh(), scale, strict=True))
            lateral = side * x
            inner, outer = 68.0 + 0.05 * (62.0 - z), 90.0 + 0.38 * (z + 58.0)
            plate = np.maximum(np.abs(depth - 17.0) - 1.8, np.maximum(inner - lateral, lateral - outer))
            plate = np.maximum(plate, np.maximum(z - 68.0, -58.0 - z))
            np.minimum(bone[box], np.maximum(plate, 12.0 - y).astype(np.float32), out=bone[box])
        for points, radii in (
            ([(72, -50, 24), (84, -60, 55), (92, -40, 100), (92, -10, 140)], [6.5, 5.0, 5.0, 5.5]),
            ([(55, 96, 72), (66, 88, 100), (84, 50, 135), (94, 10, 146)], [3.0, 4.5, 6.0, 5.5]),
        ):
            tubes.append(tube([np.multiply((z, y, side * x), scale) for z, y, x in points], radii))
        head = np.multiply([(76.0, 8.0, side * 147.0), (70.0, 8.0, side * 150.0)], scale)
        tubes.append(tube(head, [20.0, 20.0]))
    draw_distance(Branches.joined(tubes), medium, bone, 5.0)
