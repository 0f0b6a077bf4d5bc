"""The anatomy of a virtual patient at the baseline, without noise and without tumours.

Soft organs are signed distances (mm, negative inside) on a lattice of about 3 mm, bones and blood on a finer one, the
trees of the lungs on the voxels of the CT. All lengths are those of a standard adult, scaled per patient. The origin is
at the carina; arrays and points are (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from ..images import Anatomy
from ..progress import Progress, silent
from .lattice import Lattice, smooth_noise
from .scenario import Lungs
from .skeleton import Chest, draw_skeleton, spine_y
from .trees import Branches, draw_coverage, draw_distance, grow_tree, tube

AIR_HU = -1000.0
_SLAB = 16
# The median of pleural effusions, doi:10.5152/dir.2013.13066.
_EFFUSION_HU = 12.5

# Semi-axes and centre of the inner chest wall (z; lateral, front, back, centre y) of a standard adult, mm.
_CAGE = np.array(
    [
        (-420, 112, 86, 78, 0),
        (-330, 118, 88, 80, 0),
        (-200, 128, 92, 86, 0),
        (-150, 133, 95, 92, 0),
        (-100, 134, 95, 95, 0),
        (-50, 130, 90, 95, 0),
        (0, 122, 80, 92, 2),
        (40, 109, 66, 86, 6),
        (70, 90, 50, 75, 12),
        (90, 67, 36, 58, 18),
        (105, 40, 22, 36, 22),
        (113, 6, 4, 6, 24),
        (150, 1, 1, 1, 24),
        (230, 1, 1, 1, 24),
    ],
    dtype=float,
)
# The same for the outer border of the muscles.
_MUSCLE = np.array(
    [
        (-420, 136, 104, 106, 0),
        (-330, 134, 102, 108, 0),
        (-200, 143, 105, 114, 0),
        (-100, 148, 107, 119, 0),
        (-50, 152, 105, 121, 0),
        (0, 157, 99, 120, 2),
        (40, 166, 90, 113, 6),
        (70, 168, 77, 101, 12),
        (95, 158, 66, 86, 18),
        (112, 130, 60, 74, 20),
        (128, 92, 55, 64, 20),
        (145, 68, 52, 58, 20),
        (230, 60, 50, 54, 20),
    ],
    dtype=float,
)


@dataclass(frozen=True, eq=False)
class Thorax:
    """What the tissue of a patient is at the baseline.

    ``hu`` (int16) and ``labels`` (uint8, see ``Anatomy``) live on ``fine``, which covers the body and reaches beyond the
    scan along z; the signed distances live on ``coarse``: ``lungs``, ``cage``, ``liver``, ``body``, and ``solid`` (bone,
    blood, heart and large airways: where no tumour goes).
    """

    fine: Lattice
    hu: np.ndarray
    labels: np.ndarray
    coarse: Lattice
    lungs: np.ndarray
    cage: np.ndarray
    liver: np.ndarray
    body: np.ndarray
    solid: np.ndarray
    scale: np.ndarray
    apex_z: float
    dome_z: float
    spine_y: float
    chest_half_width: float


@dataclass
class _Organs:
    """Signed distances of the organs on the coarse lattice, and what is drawn as tubes."""

    body: np.ndarray
    muscle: np.ndarray
    cage: np.ndarray
    lungs: np.ndarray
    diaphragm: np.ndarray
    oblique: np.ndarray
    horizontal: np.ndarray
    left_of_midline: np.ndarray
    painted: list[tuple[np.ndarray, float]]
    liver: np.ndarray
    gas: np.ndarray
    heart: np.ndarray


def build_thorax(
    scan: Lattice,
    rng: np.random.Generator,
    *,
    margin_mm: float,
    lungs: Lungs,
    contrast: float,
    progress: Progress = silent,
) -> Thorax:
    """Make the anatomy for a scan whose voxels are ``scan``; it reaches ``margin_mm`` beyond the scan along z.

    ``contrast`` scales the enhancement of blood and organs (1: a venous phase).
    """
    scale = np.array([rng.uniform(0.95, 1.06), rng.uniform(0.93, 1.05), rng.uniform(0.92, 1.0)])
    fat_mm = rng.uniform(9.0, 17.0)
    chest = Chest.of(_CAGE, scale)
    span = np.array(
        [
            0.0,
            (_MUSCLE[:, 3] + _MUSCLE[:, 4]).max() * scale[1] + fat_mm + 18.0,
            _MUSCLE[:, 1].max() * scale[2] + fat_mm + 8,
        ]
    )
    low = np.array([scan.low[0] - margin_mm, -span[1], -span[2]])
    high = np.array([scan.high[0] + margin_mm, span[1], span[2]])
    fine = _around(scan, low, high, int(np.ceil(margin_mm / scan.spacing[0])))
    coarse = Lattice.covering(fine.low - 4.0, fine.high + 4.0, 3.0 if min(scan.spacing) < 1.2 else 3.6)
    progress(0.02, "organs")
    trunks = _trunks(scale, rng)
    organs = _organs(coarse, scale, fat_mm, contrast, lungs, trunks, chest, rng)
    progress(0.15, "skeleton and large vessels")
    medium = Lattice.covering(fine.low - 2.0, fine.high + 2.0, max(1.7, 1.1 * float(np.mean(scan.spacing))))
    bone, cartilage = draw_skeleton(medium, coarse, organs.cage, chest, scale)
    blood = np.full(medium.shape, 9.0, dtype=np.float32)
    draw_distance(trunks["blood"], medium, blood, 4.0)
    soft = _soft_tissue(medium, coarse, organs, blood, bone, cartilage, trunks, contrast, scale, rng)
    progress(0.4, "airways and vessels of the lungs")
    vessels, walls, airways = _lung_trees(fine, coarse, organs, trunks, scale, rng)
    hu, labels = _compose(
        fine, medium, coarse, organs, soft, bone, vessels, walls, airways, lungs, contrast, rng, progress
    )
    solid = np.minimum(
        np.minimum(medium.expand(bone, coarse), medium.expand(blood, coarse)), np.minimum(organs.heart, 9.0)
    )
    large_airways = np.full(coarse.shape, 9.0, dtype=np.float32)
    draw_distance(trunks["airways"], coarse, large_airways, 6.0)
    return Thorax(
        fine=fine,
        hu=hu,
        labels=labels,
        coarse=coarse,
        lungs=organs.lungs,
        cage=organs.cage,
        liver=organs.liver,
        body=organs.body,
        solid=np.minimum(solid, large_airways - 1.5),
        scale=scale,
        apex_z=112.0 * scale[0],
        dome_z=-98.0 * scale[0],
        spine_y=52.0 * scale[1],
        chest_half_width=134.0 * scale[2],
    )


def _around(scan: Lattice, low: np.ndarray, high: np.ndarray, steps: int) -> Lattice:
    """Return the lattice of the anatomy: the scan's voxels between two corners, with more slices at both ends.

    It is displaced by 0.21 voxels, where linear interpolation smooths as much as it does on average over all positions:
    so the baseline comes out neither sharper nor denser than the scans that are deformed.
    """
    inner = scan.part(scan.box(low, high))
    origin = inner.low - (0.5 - 0.5 / np.sqrt(3.0)) * np.asarray(scan.spacing)
    return Lattice(
        (float(origin[0]) - steps * scan.spacing[0], float(origin[1]), float(origin[2])),
        scan.spacing,
        (inner.shape[0] + 2 * steps + 1, inner.shape[1] + 1, inner.shape[2] + 1),
    )


def _p(*xyz: float) -> tuple[float, float, float]:
    """Turn a point written as x, y, z into the order of the arrays."""
    return (xyz[2], xyz[1], xyz[0])


def _scaled_tube(points: Sequence[tuple[float, float, float]], radii: list[float], scale: np.ndarray) -> Branches:
    return tube([np.multiply(_p(*point), scale) for point in points], radii)


@dataclass(frozen=True)
class _Lobe:
    """One lobe: its side of the midline and of the fissures, and where its artery, vein and bronchus come from (x, y, z)."""

    left: bool
    above_oblique: bool
    above_horizontal: bool | None
    artery_xyz: tuple[float, float, float]
    vein_xyz: tuple[float, float, float]
    bronchus_xyz: tuple[float, float, float]

    def holds(self, oblique: np.ndarray, horizontal: np.ndarray, left_of_midline: np.ndarray) -> np.ndarray:
        """Return which points lie in the lobe, from their signed distances to fissures and midline."""
        inside = ((left_of_midline > 0) == self.left) & ((oblique > 0) == self.above_oblique)
        return inside if self.above_horizontal is None else inside & ((horizontal > 0) == self.above_horizontal)


_LOBES = (
    _Lobe(False, True, True, (-46, -4, -20), (-50, -4, -32), (-46, 4, -8)),
    _Lobe(False, True, False, (-46, -2, -26), (-50, 4, -40), (-34, 8, -40)),
    _Lobe(False, False, None, (-46, 2, -26), (-50, 22, -64), (-34, 8, -40)),
    _Lobe(True, True, None, (49, 4, -12), (52, -8, -26), (30, 12, -21)),
    _Lobe(True, False, None, (50, 14, -14), (52, 26, -64), (46, 14, -32)),
)


def _trunks(scale: np.ndarray, rng: np.random.Generator) -> dict[str, Branches]:
    """Return the large vessels, the large airways, the gullet and the spinal canal of one patient."""
    width = rng.uniform(0.9, 1.12)
    vessels: list[tuple[list[tuple[float, float, float]], list[float]]] = [
        # Aorta: root, arch over the left main bronchus, descending part left of the spine.
        (
            [
                (10, -22, -50),
                (-10, -36, -25),
                (-15, -38, 5),
                (-8, -30, 32),
                (10, -14, 43),
                (24, 6, 40),
                (29, 26, 22),
                (27, 35, -15),
                (24, 36, -80),
                (17, 34, -140),
                (8, 30, -220),
                (4, 28, -420),
            ],
            [14, 15, 15, 14, 13, 12.5, 12, 11.5, 11, 10.5, 9.5, 8],
        ),
        ([(-8, -30, 38), (-16, -24, 66), (-27, -18, 92), (-26, -12, 140)], [6, 5.5, 5, 3.5]),
        ([(4, -19, 46), (13, -12, 76), (20, -10, 110), (24, -8, 160)], [4.2, 3.8, 3.5, 3.2]),
        ([(17, -6, 48), (27, 0, 78), (46, -2, 98), (80, -18, 92), (120, -14, 70)], [5, 4.6, 4.4, 4, 3.5]),
        ([(-27, -18, 92), (-50, -6, 100), (-82, -20, 92), (-120, -14, 70)], [4.4, 4.4, 4, 3.5]),
        ([(-30, -20, -42), (-31, -22, 0), (-29, -28, 44)], [9, 9, 8.5]),
        ([(-29, -28, 44), (-36, -26, 78), (-60, -28, 88), (-125, -20, 66)], [7, 6, 5, 4.2]),
        ([(-28, -30, 44), (0, -40, 56), (34, -30, 76), (62, -28, 88), (125, -20, 66)], [6.5, 6.5, 6, 5, 4.2]),
        # Pulmonary trunk and arteries; pulmonary veins; lower caval vein; azygos vein.
        ([(14, -50, -48), (18, -42, -22), (22, -24, -6), (34, -2, 0), (50, 12, -4)], [13, 13, 11.5, 10, 8]),
        ([(20, -26, -8), (-4, -16, -16), (-28, -8, -18), (-46, -4, -22)], [10.5, 10, 9, 7.5]),
        ([(-18, 8, -40), (-36, 0, -36), (-50, -4, -32)], [7, 6, 5]),
        ([(-18, 14, -56), (-36, 18, -60), (-50, 22, -64)], [7, 6, 5]),
        ([(24, 8, -40), (38, -2, -32), (52, -8, -26)], [7, 6, 5]),
        ([(24, 16, -54), (40, 22, -60), (52, 26, -64)], [7, 6, 5]),
        ([(-28, -12, -88), (-27, 0, -120), (-24, 14, -190), (-18, 22, -420)], [11, 11, 11, 10]),
        ([(-31, -10, 12), (-20, 18, 16), (-10, 36, 0), (-8, 38, -80), (-6, 34, -200)], [4, 4, 3.6, 3.4, 3]),
        ([(-6, -84, 60), (-10, -88, -60), (-12, -92, -120)], [1.6, 1.4, 1.2]),
        ([(8, -84, 60), (12, -88, -60), (14, -92, -120)], [1.6, 1.4, 1.2]),
    ]
    airways: list[tuple[list[tuple[float, float, float]], list[float]]] = [
        ([(0, -4, 180), (0, -2, 130), (0, 3, 60), (-1, 9, 18), (0, 11, 2)], [8.6, 8.6, 8.6, 8.4, 8.0]),
        ([(0, 10, 6), (-14, 8, -10), (-26, 8, -24), (-34, 8, -40)], [7.0, 6.8, 6.2, 5.4]),
        ([(-20, 8, -16), (-34, 6, -13), (-46, 4, -8)], [5.2, 4.8, 4.2]),
        ([(0, 10, 6), (18, 11, -12), (34, 12, -24), (46, 14, -32)], [6.6, 6.2, 5.6, 5.0]),
    ]
    gullet = [(-3, 14, 180), (-3, 18, 110), (2, 23, 40), (6, 27, 0), (8, 24, -70), (18, 12, -118), (30, 2, -135)]
    canal = [(0.0, float(spine_y(z)) + 25.0, float(z)) for z in range(-420, 221, 40)]
    return {
        "blood": Branches.joined([_scaled_tube(p, [r * width for r in radii], scale) for p, radii in vessels]),
        "airways": Branches.joined([_scaled_tube(p, radii, scale) for p, radii in airways]),
        "gullet": _scaled_tube(gullet, [6.5] * len(gullet), scale),
        "canal": _scaled_tube(canal, [8.0] * len(canal), scale),
    }


def _ellipsoid(
    z: np.ndarray, y: np.ndarray, x: np.ndarray, centre_xyz: tuple[float, ...], semi_xyz: tuple[float, ...]
) -> np.ndarray:
    """Return the distance to an ellipsoid, exact to first order at its surface."""
    cx, cy, cz = centre_xyz
    ax, ay, az = semi_xyz
    u, v, w = (x - cx) / ax, (y - cy) / ay, (z - cz) / az
    length = np.sqrt(u * u + v * v + w * w)
    slope = np.sqrt((u / ax) ** 2 + (v / ay) ** 2 + (w / az) ** 2)
    return length * (length - 1.0) / np.maximum(slope, 1e-6)


def _rounded_union(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Return the union of two signed distances with its grooves filled over about ``radius`` mm."""
    blend = np.clip(0.5 + 0.5 * (b - a) / radius, 0.0, 1.0)
    return b + (a - b) * blend - radius * blend * (1.0 - blend)


def _hull(
    table: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray, power: float, spacing: float, offset: float = 0.0
) -> np.ndarray:
    """Return the distance to the surface whose cross-sections are superellipses with semi-axes from a table."""
    lateral, front, back, centre = (PchipInterpolator(table[:, 0], table[:, i])(z) for i in range(1, 5))
    lateral, front, back = lateral + offset, front + offset, back + offset
    v = (y - centre).astype(np.float32)
    depth = np.where(v < 0, front, back).astype(np.float32)
    radius = ((np.abs(x) / lateral.astype(np.float32)) ** power + (np.abs(v) / depth) ** power) ** np.float32(1 / power)
    field = ((radius - 1.0) * np.minimum(lateral, 0.5 * (front + back))).astype(np.float32)
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(field, spacing)))
    return (field / np.maximum(slope, 0.35)).astype(np.float32)


def _organs(
    coarse: Lattice,
    scale: np.ndarray,
    fat_mm: float,
    contrast: float,
    lungs: Lungs,
    trunks: dict[str, Branches],
    chest: Chest,
    rng: np.random.Generator,
) -> _Organs:
    """Make the signed distances of the organs."""
    plain_z, plain_y, plain_x = (axis / factor for axis, factor in zip(coarse.open_mesh(), scale, strict=True))
    step = coarse.spacing[0]
    cage = _hull(_CAGE, plain_z, plain_y, plain_x, 2.35, step) * float(scale.mean())
    muscle = _hull(_MUSCLE, plain_z, plain_y, plain_x, 2.5, step) * float(scale.mean())
    bend = smooth_noise(rng, coarse, 50.0, components=3) * np.float32(2.2)
    z, y, x = plain_z + bend[0], plain_y + bend[1], plain_x + bend[2]
    # More fat in front and at the sides than over the back.
    thickness = fat_mm * (1.0 + 0.12 * bend[0] / 2.2 - 0.25 * np.tanh(plain_y / 60.0))
    muscle = muscle + 0.25 * bend[1]
    body = muscle - thickness.astype(np.float32)

    left_ventricle = _tilted(z, y, x, (40, -30, -76), (46, 33, 31))
    left_cavity = _tilted(z, y, x, (40, -30, -76), (36, 21, 20))
    right_ventricle = _ellipsoid(z, y, x, (8, -56, -74), (40, 24, 33))
    right_atrium = _ellipsoid(z, y, x, (-32, -26, -64), (23, 25, 33))
    left_atrium = _ellipsoid(z, y, x, (3, 8, -48), (31, 17, 23))
    heart = _rounded_union(left_ventricle, right_ventricle, 14.0)
    heart = _rounded_union(heart, right_atrium, 14.0)
    heart = _rounded_union(heart, left_atrium, 10.0)

    domes = _dome_height(y, x)
    slope = np.sqrt(1.0 + sum(np.square(part) for part in np.gradient(domes, step)))
    diaphragm = ((domes - z) / slope).astype(np.float32)  # negative above: in the chest

    middle = np.full(coarse.shape, 30.0, dtype=np.float32)
    draw_distance(trunks["blood"], coarse, middle, 24.0)
    draw_distance(trunks["airways"], coarse, middle, 24.0)
    draw_distance(trunks["gullet"], coarse, middle, 24.0)
    # Limbs of these tubes that leave the chest say nothing about the mediastinum; the hila end at the root of the lung.
    spine = np.hypot(plain_x, 0.9 * (plain_y - spine_y(plain_z).astype(np.float32))) - 21.0
    behind = np.maximum(np.abs(plain_x) - 23.0 - 0.12 * np.maximum(plain_y - 40, 0), spine_y(plain_z) - plain_y)
    mediastinum = _rounded_union(middle - 3.0, np.minimum(spine, behind).astype(np.float32), 8.0)
    mediastinum = _rounded_union(mediastinum, heart - 4.5, 10.0)
    septum = np.abs(x - 3.0) - (2.5 + 9.0 * np.exp(-(((plain_y + 78.0) / 16.0) ** 2)))
    mediastinum = _rounded_union(mediastinum, septum.astype(np.float32), 12.0)
    lung = np.maximum(np.maximum(cage + 1.0, diaphragm), -mediastinum)
    lung = np.maximum(lung, plain_z - 110.0).astype(np.float32)
    left = (x - 3.0).astype(np.float32)
    dry = lung
    lung = _with_effusion(dry, left, coarse, scale, lungs)

    below = np.maximum(-diaphragm + 3.0, cage + 2.0)
    liver = np.maximum(_ellipsoid(z, y, x, (-52, -8, -150), (88, 84, 84)), below)
    left_lobe = np.maximum(_ellipsoid(z, y, x, (10, -48, -142), (70, 42, 44)), below)
    liver = np.maximum(
        _rounded_union(liver, left_lobe, 10.0), -(np.hypot(x - 8, y - 56.0 - 0.3 * (z + 150.0)) - 44.0)
    ).astype(np.float32)
    spleen = np.maximum(_ellipsoid(z, y, x, (88, 38, -150), (30, 44, 50)), below)
    stomach = np.maximum(_ellipsoid(z, y, x, (62, -14, -152), (46, 50, 48)), np.maximum(below, 6.0 - spleen))
    colon = np.maximum(_ellipsoid(z, y, x, (76, -44, -222), (36, 30, 30)), below)
    gas_level = -18.0 + 8.0 * rng.random()
    gas = np.maximum(stomach + 5.0, plain_y - gas_level)
    gas = np.minimum(gas, np.maximum(colon + 5.0, plain_y + 40.0)).astype(np.float32)
    loops = smooth_noise(rng, coarse, 26.0)
    bowel = np.maximum(np.maximum(9.0 * (0.1 - np.abs(loops)) + 3.0, below), plain_z + 158.0 + 10.0 * loops)
    painted = [
        (np.maximum(np.maximum(-diaphragm - 0.5, diaphragm - 3.5), cage), 55.0),
        (bowel, 45.0),
        (colon, 40.0),
        (liver, 60.0 + 50.0 * contrast),
        (np.maximum(spleen, -liver), 60.0 + 58.0 * contrast),
        (np.maximum(stomach, -liver), 60.0),
        (np.maximum(stomach + 5.0, -liver), 18.0),
        (_ellipsoid(z, y, x, (60, 46, -230), (27, 24, 54)), 50.0 + 115.0 * contrast),
        (_ellipsoid(z, y, x, (-58, 48, -240), (27, 24, 54)), 50.0 + 115.0 * contrast),
        (heart - 1.0, 45.0 + 55.0 * contrast),
        (left_cavity, 45.0 + 115.0 * contrast),
        (right_ventricle + 4.0, 45.0 + 105.0 * contrast),
        (np.maximum(right_atrium + 2.5, 2.0 - right_ventricle), 45.0 + 108.0 * contrast),
        (np.maximum(left_atrium + 2.5, 2.0 - left_ventricle), 45.0 + 118.0 * contrast),
    ]
    if lung is not dry:
        # It reaches a little into the lung, which is laid over it, so that nothing is left between them.
        painted.append((np.maximum(dry, -lung - 2.0), _EFFUSION_HU))
    painted = [(field.astype(np.float32), hu) for field, hu in painted]
    oblique = ((z - (38.0 + 0.98 * (y - 80.0) + np.where(left > 0, 6.0, 0.0))) / 1.4).astype(np.float32)
    horizontal = (z + 14.0 - 0.12 * np.abs(y)).astype(np.float32)
    return _Organs(
        body=body,
        muscle=muscle,
        cage=cage,
        lungs=lung,
        diaphragm=diaphragm,
        oblique=oblique,
        horizontal=horizontal,
        left_of_midline=left,
        painted=painted,
        liver=liver,
        gas=gas,
        heart=heart.astype(np.float32),
    )


def _tilted(
    z: np.ndarray, y: np.ndarray, x: np.ndarray, centre_xyz: tuple[float, ...], semi: tuple[float, ...]
) -> np.ndarray:
    """Return the distance to an ellipsoid whose first axis points left, forward and down, as the left ventricle's does."""
    axes = np.array([(0.66, -0.50, -0.56), (0.60, 0.80, 0.0), (0.448, -0.336, 0.828)])
    dx, dy, dz = x - centre_xyz[0], y - centre_xyz[1], z - centre_xyz[2]
    u, v, w = (dx * a[0] + dy * a[1] + dz * a[2] for a in axes)
    return _ellipsoid(w, v, u, (0.0, 0.0, 0.0), semi)


def _dome_height(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the height of the diaphragm under every point: right dome, left dome and the tendon below the heart."""
    total = np.full(np.broadcast_shapes(y.shape, x.shape), -1e3, dtype=np.float32)
    for peak, cx, cy, ax, ay in ((-94.0, -66, -4, 70, 92), (-104.0, 66, -8, 70, 90), (-110.0, 6, -22, 62, 72)):
        rho = ((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2
        height = peak - 20.0 * rho - 42.0 * np.minimum(rho, 1.6) ** 2
        total = -_rounded_union(-total, -height, 10.0)
    return total - 8.0 * np.tanh(y / 60.0)


def _with_effusion(lung: np.ndarray, left: np.ndarray, coarse: Lattice, scale: np.ndarray, lungs: Lungs) -> np.ndarray:
    """Take the fluid of an effusion out of the lungs: what lies lowest in a patient on the back, with a meniscus."""
    for amount, side in zip(lungs.effusion_ml, (left < 0, left > 0), strict=True):
        if amount <= 0:
            continue
        z, y, x = coarse.open_mesh()
        # Fluid rises along the side wall and thins out towards the apex.
        level = (y / scale[1] + 10.0 * (np.abs(x) / (134.0 * scale[2])) ** 2 - 0.25 * z / scale[0]).astype(np.float32)
        inside = np.sort(level[(lung < 0) & side])[::-1]
        count = min(int(amount / coarse.voxel_ml), len(inside) // 2)
        threshold = float(inside[max(count - 1, 0)])
        lung = np.where(side, np.maximum(lung, level - threshold), lung)
    return lung


def _soft_tissue(
    medium: Lattice,
    coarse: Lattice,
    organs: _Organs,
    blood: np.ndarray,
    bone: np.ndarray,
    cartilage: np.ndarray,
    trunks: dict[str, Branches],
    contrast: float,
    scale: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the HU of everything that is neither lung, bone, gas nor air, on the medium lattice."""
    width = np.float32(0.9 * medium.spacing[0])

    def paint(target: np.ndarray, distance: np.ndarray, hu: float | np.ndarray) -> None:
        share = np.clip(0.5 - distance / width, 0.0, 1.0)
        target += share * (hu - target)

    wavy = smooth_noise(rng, medium, 14.0)
    fibres = smooth_noise(rng, medium, 7.0)
    depth = coarse.expand(organs.cage, medium)
    hu = np.full(medium.shape, -104.0, dtype=np.float32)
    hu += 5.0 * fibres
    flesh = 56.0 + 5.0 * fibres
    # Muscle bellies lie in layers around the chest, with fat between them.
    for layer in (11.0, 21.0, 32.0, 44.0):
        flesh -= (60.0 + 45.0 * np.clip(wavy, -1, 1)) * np.exp(-(((depth - layer - 2.0 * wavy) / 1.3) ** 2))
    flesh -= 85.0 * np.clip((fibres + 0.5 * wavy - 1.35) * 2.0, 0.0, 1.0)
    paint(hu, coarse.expand(organs.muscle, medium), flesh)
    z, y, x = (axis / factor for axis, factor in zip(medium.open_mesh(), scale, strict=True))
    for side in (-1.0, 1.0):
        pit = _ellipsoid(z, y, x, (side * 128.0, -8.0, 52.0), (22.0, 26.0, 36.0))
        paint(hu, np.maximum(pit, 11.0 - depth).astype(np.float32) + 2.0 * wavy, -98.0)
    paint(hu, depth + 1.5, -98.0 + 6.0 * wavy)
    for field, value in organs.painted:
        paint(hu, coarse.expand(field, medium), value + 3.0 * wavy)
    gullet = np.full(medium.shape, 9.0, dtype=np.float32)
    draw_distance(trunks["gullet"], medium, gullet, 3.0)
    paint(hu, gullet, 45.0)
    paint(hu, np.where(gullet < -4.6, gullet + 4.6, 9.0).astype(np.float32), -300.0)
    wall = np.full(medium.shape, 9.0, dtype=np.float32)
    draw_distance(trunks["airways"], medium, wall, 4.0)
    paint(hu, wall - 1.6, 40.0)
    paint(hu, blood, 42.0 + 110.0 * contrast)
    liver_vessels = _liver_tree(coarse, organs.liver, scale, rng)
    coverage = np.zeros(medium.shape, dtype=np.uint8)
    draw_coverage(liver_vessels, medium, coverage)
    hu += (coverage / np.float32(255.0)) * (62.0 + 85.0 * contrast - hu)
    column = np.hypot(x / 1.05, y - spine_y(z)) - 17.0
    paint(hu, np.where(np.abs(column) < 60, column, 60).astype(np.float32), 85.0)
    canal = np.full(medium.shape, 9.0, dtype=np.float32)
    draw_distance(trunks["canal"], medium, canal, 3.0)
    paint(hu, canal, 22.0)
    paint(hu, canal + 3.5, 42.0)
    paint(hu, cartilage, 105.0)
    return hu


def _liver_tree(coarse: Lattice, liver: np.ndarray, scale: np.ndarray, rng: np.random.Generator) -> Branches:
    inside = np.argwhere(liver < -6.0)
    if len(inside) < 40:
        return Branches.none()
    chosen = inside[rng.choice(len(inside), size=min(140, len(inside)), replace=False)]
    seeds = coarse.low + chosen * np.asarray(coarse.spacing)
    trees = [grow_tree(np.multiply((-112.0, 4.0, -27.0), scale), seeds[::2], 6.0, rng)]
    trees.append(grow_tree(np.multiply((-165.0, 0.0, -22.0), scale), seeds[1::2], 6.0, rng))
    return Branches.joined(trees)


def _lung_trees(
    fine: Lattice,
    coarse: Lattice,
    organs: _Organs,
    trunks: dict[str, Branches],
    scale: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw arteries and veins, the walls and the lumen of the airways; return their coverage (uint8, 255 = full)."""
    voxel = float(np.mean(fine.spacing))
    gap = 7.6 if voxel < 1.2 else 12.0
    vessels = np.zeros(fine.shape, dtype=np.uint8)
    walls = np.zeros(fine.shape, dtype=np.uint8)
    lumen = np.zeros(fine.shape, dtype=np.uint8)
    field = organs.lungs
    total = float((field < -1.0).sum())
    grown: list[Branches] = []
    bronchi: list[Branches] = [trunks["airways"]]
    for lobe in _LOBES:
        for kind, root_xyz in (("artery", lobe.artery_xyz), ("vein", lobe.vein_xyz)):
            seeds = _scattered(coarse, field, gap, rng)
            inside = lobe.holds(
                coarse.at(organs.oblique, seeds),
                coarse.at(organs.horizontal, seeds),
                coarse.at(organs.left_of_midline, seeds),
            )
            seeds = seeds[inside]
            if len(seeds) < 8:
                continue
            share = len(seeds) * gap**3 / (total * float(np.prod(coarse.spacing)))
            root = np.multiply(_p(*root_xyz), scale)
            tree = grow_tree(root, seeds, 11.0 * min(share, 1.0) ** (1.0 / 3.0), rng)
            grown.append(tree)
            if kind == "artery":
                bronchi += _bronchi_beside(tree, root, np.multiply(_p(*lobe.bronchus_xyz), scale), len(seeds))
    draw_coverage(Branches.joined(grown), fine, vessels)
    airways = Branches.joined(bronchi)
    draw_coverage(airways, fine, lumen)
    thickness = np.clip(0.22 * airways.start_radius, 0.55, 1.6)
    thick = Branches(
        airways.start, airways.end, airways.start_radius + thickness, airways.end_radius + thickness, airways.fed
    )
    draw_coverage(thick, fine, walls)
    return vessels, walls, lumen


def _bronchi_beside(tree: Branches, root: np.ndarray, trunk_end: np.ndarray, count: int) -> list[Branches]:
    """Return the airways that accompany the larger arteries of a lobe, and the way to them from the main bronchus."""
    top = tree.chosen(tree.fed >= max(count // 70, 3))
    aside = np.array([0.35, 0.85, 0.0]) + np.array([0.0, 0.0, 0.4]) * np.sign(root[2])
    aside /= np.linalg.norm(aside)
    start = top.start + aside * (1.9 * top.start_radius + 1.0)[:, None]
    end = top.end + aside * (1.9 * top.end_radius + 1.0)[:, None]
    beside = Branches(start, end, 0.82 * top.start_radius, 0.82 * top.end_radius, top.fed)
    bridge = tube([trunk_end, start[0]], [0.95 * beside.start_radius[0], beside.start_radius[0]])
    return [beside, bridge]


def _scattered(coarse: Lattice, field: np.ndarray, gap: float, rng: np.random.Generator) -> np.ndarray:
    """Return points all over the inside of a field, ``gap`` mm apart on average and none close to another."""
    grid = Lattice.covering(coarse.low, coarse.high, gap)
    points = grid.points().reshape(-1, 3)
    points = points + rng.uniform(-0.42 * gap, 0.42 * gap, points.shape)
    return points[coarse.at(field, points) < -2.0]


def _compose(
    fine: Lattice,
    medium: Lattice,
    coarse: Lattice,
    organs: _Organs,
    soft: np.ndarray,
    bone: np.ndarray,
    vessels: np.ndarray,
    walls: np.ndarray,
    airways: np.ndarray,
    lungs: Lungs,
    contrast: float,
    rng: np.random.Generator,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Put everything together on the voxels, a few slices at a time; return HU and labels."""
    hu = np.empty(fine.shape, dtype=np.int16)
    labels = np.empty(fine.shape, dtype=np.uint8)
    edge = np.float32(np.mean(fine.spacing))
    tiles = (_Tile.of(rng, fine, 2.4), _Tile.of(rng, fine, 5.5), _Tile.of(rng, fine, 14.0))
    holes = _Tile.of(rng, fine, 7.0)
    gain = _texture_gain(edge)
    for first in range(0, fine.shape[0], _SLAB):
        span = slice(first, min(first + _SLAB, fine.shape[0]))
        part = fine.part((span, slice(0, fine.shape[1]), slice(0, fine.shape[2])))
        y = part.axis(1)[None, :, None]
        fine_grain, grain, patches = (tile.cut(part, fine, first) for tile in tiles)
        value = medium.expand(soft, part)
        value += 2.5 * grain
        distance = medium.expand(bone, part)
        share = np.clip(0.5 - distance / (1.3 * edge), 0.0, 1.0)
        shell = np.clip(1.4 - np.abs(distance + 1.5) / 1.8, 0.0, 1.0)
        value += share * (190.0 + 25.0 * grain + 480.0 * shell - value)

        distance = coarse.expand(organs.lungs, part)
        inside = np.clip(0.5 - distance / edge, 0.0, 1.0)
        air = -868.0 + 0.33 * y + gain * (15.0 * fine_grain + 13.0 * grain) + 8.0 * patches
        oblique = coarse.expand(organs.oblique, part)
        left = coarse.expand(organs.left_of_midline, part)
        horizontal = coarse.expand(organs.horizontal, part)
        horizontal[(left > 0) | (oblique < 0)] = 99.0
        sheet = max(0.55, 0.45 * float(edge))
        air += (90.0 * 0.55 / sheet) * (np.exp(-((oblique / sheet) ** 2)) + np.exp(-((horizontal / sheet) ** 2)))
        if lungs.fibrosis > 0:
            rim = (
                np.clip(1.0 + distance / 22.0, 0.0, 1.0)
                * np.clip((60.0 - part.axis(0)) / 160.0, 0.0, 1.0)[:, None, None]
            )
            mesh = np.clip(1.0 - np.abs(grain) * 2.5, 0.0, 1.0)
            air += lungs.fibrosis * rim * (110.0 + 420.0 * mesh)
        if lungs.emphysema > 0:
            gap = holes.cut(part, fine, first) + 0.8 * patches
            share_of_lung = 1.0 - min(lungs.emphysema, 0.6)
            limit = np.quantile(gap[distance < 0], share_of_lung) if (distance < 0).any() else np.inf
            air += np.clip((gap - limit) * 7.0 + 0.5, 0.0, 1.0) * (-990.0 - air)
        value += inside * (air - value)

        value += (vessels[span] / np.float32(255.0)) * (42.0 + 100.0 * contrast - value)
        wall = walls[span] / np.float32(255.0)
        value += wall * np.clip(30.0 - value, 0.0, None) * 0.9
        hollow = airways[span] / np.float32(255.0)
        value += hollow * (-985.0 - value)
        gas = np.clip(0.5 - coarse.expand(organs.gas, part) / edge, 0.0, 1.0)
        value += gas * (-990.0 - value)
        surface = coarse.expand(organs.body, part)
        value += np.clip(1.0 - np.abs(surface + 1.2) / 1.2, 0.0, 1.0) * (5.0 - value)
        value = AIR_HU + np.clip(0.5 - surface / edge, 0.0, 1.0) * (value - AIR_HU)
        np.rint(value, out=value)
        hu[span] = value.astype(np.int16)

        label = labels[span]
        label[:] = np.where(surface < 0, Anatomy.BODY, Anatomy.OUTSIDE)
        label[distance < 0] = Anatomy.RIGHT_LUNG
        label[(distance < 0) & (left > 0)] = Anatomy.LEFT_LUNG
        label[(airways[span] > 127) & ((distance > 0) | (walls[span] > 250)) & (airways[span] > 200)] = Anatomy.AIRWAYS
        progress(0.55 + 0.45 * span.stop / fine.shape[0], "tissue")
    return hu, labels


def _texture_gain(voxel_mm: float) -> float:
    """Return how much of the fine texture a voxel of this size keeps: larger voxels average it."""
    return float(1.0 / np.sqrt(1.0 + (voxel_mm / 2.5) ** 3))


@dataclass(frozen=True, eq=False)
class _Tile:
    """Periodic noise of unit variance; several tiles of different periods together do not repeat within a chest."""

    values: np.ndarray
    shift: tuple[int, int, int]

    @classmethod
    def of(cls, rng: np.random.Generator, lattice: Lattice, scale_mm: float) -> _Tile:
        count = [int(min(112 + rng.integers(40), size)) for size in lattice.shape]
        noise = rng.standard_normal(count, dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, [scale_mm / 2.2 / step for step in lattice.spacing], mode="wrap")
        shift = tuple(int(value) for value in rng.integers(0, 100, 3))
        return cls(noise / noise.std(), (shift[0], shift[1], shift[2]))

    def cut(self, part: Lattice, whole: Lattice, first: int) -> np.ndarray:
        """Return the noise on the slices of ``part``, of which the first is number ``first`` of the whole."""
        starts = (first + self.shift[0], self.shift[1], self.shift[2])
        result = self.values
        for axis in range(3):
            index = (starts[axis] + np.arange(part.shape[axis])) % self.values.shape[axis]
            result = np.take(result, index, axis=axis)
        return result
