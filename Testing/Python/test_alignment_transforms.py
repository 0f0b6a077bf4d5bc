"""Transforms of the alignment: inversion, composition, files, directions of the axes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from ImmunoRadiomicsLib.alignment import (
    invert_points,
    read_transform,
    resample,
    resample_mask,
    transform_points,
    write_transform,
)
from ImmunoRadiomicsLib.alignment.deform import jacobian, unfold
from ImmunoRadiomicsLib.alignment.fields import field_transform, inverse_field, padded
from ImmunoRadiomicsLib.alignment.grids import Grid, corners, covered, grid_over, sample
from ImmunoRadiomicsLib.alignment.start import Linear, rotation
from ImmunoRadiomicsLib.errors import InputError

GRID = Grid((-60.0, -50.0, 100.0), (4.0, 5.0, 3.0), (28, 22, 30))


def smooth_field(seed: int, largest_voxels: float) -> np.ndarray:
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(GRID.shape), 4.0) for _ in range(3)])
    return (field * largest_voxels / np.sqrt((field**2).sum(axis=0)).max()).astype(np.float32)


def deformable(seed: int, linear: Linear) -> tuple[sitk.Transform, sitk.Transform]:
    wide, box = padded(smooth_field(seed, 3.0), GRID)
    forward = sitk.CompositeTransform([linear.transform(), field_transform(wide, box)])
    return forward, sitk.CompositeTransform([field_transform(inverse_field(wide), box), linear.inverse().transform()])


def points_in_grid(seed: int, count: int = 200) -> np.ndarray:
    rng = np.random.default_rng(seed)
    extent = np.array(GRID.spacing) * (np.array(GRID.size) - 1)
    return np.array(GRID.origin) + rng.random((count, 3)) * extent


# In steps, as headers hold them: ITK cannot invert direction cosines of 1e-311.
turns = st.tuples(*[st.floats(-0.5, 0.5).map(lambda angle: round(angle, 9))] * 3)
large_turns = st.tuples(*[st.floats(-3.0, 3.0).map(lambda angle: round(angle, 9))] * 3)
shifts = st.tuples(*[st.floats(-80.0, 80.0)] * 3)


@settings(max_examples=30, deadline=None)
@given(large_turns, shifts, large_turns, shifts)
def test_linear_maps_invert_and_compose(turn, shift, other_turn, other_shift):
    a, b = (
        Linear(rotation(np.array(turn)), np.array(shift)),
        Linear(rotation(np.array(other_turn)), np.array(other_shift)),
    )
    points = points_in_grid(0, 20)
    both = transform_points(transform_points(points, b.transform()), a.transform())
    assert np.abs(transform_points(points, a.after(b).transform()) - both).max() < 1e-6
    back = transform_points(transform_points(points, a.transform()), a.inverse().transform())
    assert np.abs(back - points).max() < 1e-6


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), large_turns, shifts)
def test_deformations_invert(seed, turn, shift):
    linear = Linear(rotation(np.array(turn)), np.array(shift))
    forward, inverse = deformable(seed, linear)
    points = points_in_grid(seed)
    there = transform_points(points, forward)
    assert np.abs(invert_points(there, forward, inverse) - points).max() < 1e-3
    assert np.abs(invert_points(there, forward) - points).max() < 1e-3
    # What is stored is as exact at its nodes; between them it is interpolated linearly.
    index = np.random.default_rng(seed).integers(0, GRID.size, (200, 3))
    nodes = transform_points(np.array(GRID.origin) + index * GRID.spacing, linear.transform())
    assert np.abs(transform_points(transform_points(nodes, inverse), forward) - nodes).max() < 1e-3
    between = np.linalg.norm(transform_points(there, inverse) - points, axis=1)
    assert between.max() < 1.0
    assert np.median(between) < 0.15


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steep_deformations_invert(seed):
    # Fixed-point steps alone leave some nodes of these fields several voxels off.
    wide, box = padded(unfold(smooth_field(seed, 7.0)), GRID)
    assert 0.0 < jacobian(wide).min() < 0.15
    forward, inverse = field_transform(wide, box), field_transform(inverse_field(wide), box)
    index = np.indices(box.size).reshape(3, -1).T
    nodes = np.array(box.origin) + index[::3] * box.spacing
    nodes = nodes[np.linalg.norm(transform_points(nodes, inverse) - nodes, axis=1) > 3.0][::5]
    assert np.abs(transform_points(transform_points(nodes, inverse), forward) - nodes).max() < 1e-3


directions = st.tuples(large_turns, st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))


def on_any_grid(seed: int, direction: np.ndarray) -> sitk.Transform:
    """A linear map after a displacement field whose grid has oblique or reversed axes."""
    wide, box = padded(smooth_field(seed, 2.0), GRID)
    vectors = np.moveaxis(wide[::-1], 0, -1).astype(np.float64) * box.spacing
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.SetSpacing(box.spacing)
    field.SetDirection(direction.ravel().tolist())
    middle = np.array(box.spacing) * (np.array(box.size) - 1) / 2.0
    field.SetOrigin((box.centre - direction @ middle).tolist())
    linear = Linear(rotation(np.array([0.1, -0.2, 0.3])), np.array([5.0, -70.0, 40.0]))
    return sitk.CompositeTransform([linear.transform(), sitk.DisplacementFieldTransform(field)])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), directions)
def test_points_are_carried_back_exactly_on_grids_of_any_direction(seed, direction):
    turn, signs = direction
    transform = on_any_grid(seed, rotation(np.array(turn)) @ np.diag(signs))
    points = points_in_grid(seed, 60)
    there = transform_points(points, transform)
    back = invert_points(there, transform)
    assert np.abs(transform_points(back, transform) - there).max() < 1e-4
    assert np.abs(back - points).max() < 1e-3
    np.testing.assert_allclose(invert_points(there[0], transform), back[0], atol=1e-3)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), directions)
def test_composed_transforms_invert_in_the_other_order(seed, direction):
    turn, signs = direction
    first = on_any_grid(seed, rotation(np.array(turn)) @ np.diag(signs))
    second, _ = deformable(seed + 1, Linear(rotation(np.array(turn)), np.array([-4.0, 60.0, -35.0])))
    both = sitk.CompositeTransform([second, first])
    points = points_in_grid(seed, 40)
    there = transform_points(points, both)
    np.testing.assert_allclose(there, transform_points(transform_points(points, first), second), atol=1e-6)
    np.testing.assert_allclose(invert_points(invert_points(there, second), first), points, atol=1e-3)
    np.testing.assert_allclose(invert_points(there, both), points, atol=1e-3)


def test_a_point_without_a_source_keeps_the_nearest_place():
    flat = sitk.AffineTransform(3)
    flat.SetMatrix((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    found = invert_points(np.array([[3.0, 4.0, 5.0]]), flat)
    np.testing.assert_allclose(transform_points(found, flat), [[3.0, 4.0, 0.0]], atol=1e-6)


def test_no_transform_is_the_identity():
    points = points_in_grid(1, 5)
    assert (transform_points(points, None) == points).all()
    assert (invert_points(points, None) == points).all()
    assert transform_points(np.zeros((0, 3)), sitk.TranslationTransform(3, (1.0, 2.0, 3.0))).shape == (0, 3)


@pytest.mark.parametrize(
    "signs", [(1.0, 1.0, 1.0), (-1.0, -1.0, 1.0), (1.0, -1.0, -1.0), (1.0, 1.0, -1.0), (-1.0, 1.0, 1.0)], ids=str
)
@pytest.mark.parametrize(
    "turn", [(0.0, 0.0, 0.0), (0.2, -0.3, 0.4), (1.3, 0.4, -2.6)], ids=["straight", "oblique", "turned"]
)
def test_a_transform_node_of_mrml_keeps_the_map_and_its_inverse(tmp_path, turn, signs):
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    from ImmunoRadiomicsLib.scene.mrml import interpolate_linearly, mrml_classes, new_scene

    mrml_classes()
    transform = on_any_grid(4, rotation(np.array(turn)) @ np.diag(signs))
    to_ras = np.array([-1.0, -1.0, 1.0])
    points = points_in_grid(6, 60)
    there = transform_points(points, transform)

    def read(path):
        scene = new_scene()
        storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
        node = scene.AddNewNodeByClass("vtkMRMLTransformNode")
        storage.SetFileName(str(path))
        assert storage.ReadData(node)
        return scene, storage, node

    write_transform(transform, tmp_path / "itk.h5")
    _scene, storage, node = read(tmp_path / "itk.h5")
    storage.SetFileName(str(tmp_path / "mrml.h5"))
    assert storage.WriteData(node)
    kept = read_transform(tmp_path / "mrml.h5")
    assert np.abs(transform_points(points, kept) - there).max() < 1e-3
    interpolate_linearly(node.GetTransformFromParent())
    for general, begin, end in (
        (node.GetTransformFromParent(), points, there),
        (node.GetTransformToParent(), there, points),
    ):
        carried = np.array([general.TransformPoint((point * to_ras).tolist()) for point in begin]) * to_ras
        assert np.abs(carried - end).max() < 1e-3


def test_transform_nodes_of_mrml_compose_and_invert_with_those_above_them(tmp_path):
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    from vtkmodules.vtkCommonTransforms import vtkGeneralTransform

    from ImmunoRadiomicsLib.scene.mrml import mrml_classes, new_scene
    from ImmunoRadiomicsLib.scene.transforms import fill_transform, read_transform_node, transform_class

    mrml_classes()
    scene = new_scene()
    first = on_any_grid(4, rotation(np.array([0.2, -0.3, 2.4])) @ np.diag([-1.0, 1.0, 1.0]))
    second = on_any_grid(7, rotation(np.array([-1.2, 0.1, 0.4])) @ np.diag([1.0, -1.0, 1.0]))
    nodes = []
    for number, transform in enumerate((first, second)):
        write_transform(transform, tmp_path / f"{number}.h5")
        source = read_transform_node(tmp_path / f"{number}.h5")
        nodes.append(scene.AddNewNodeByClass(transform_class(source)))
        fill_transform(nodes[-1], source)
    # What lies under the lower node is carried by it first, and by the upper one then, both from the parent.
    nodes[1].SetAndObserveTransformNodeID(nodes[0].GetID())
    points = points_in_grid(8, 60)
    there = transform_points(transform_points(points, first), second)
    to_ras = np.array([-1.0, -1.0, 1.0])
    onward, back = vtkGeneralTransform(), vtkGeneralTransform()
    nodes[1].GetTransformFromWorld(onward)
    nodes[1].GetTransformToWorld(back)
    for general, begin, end in ((onward, points, there), (back, there, points)):
        carried = np.array([general.TransformPoint((point * to_ras).tolist()) for point in begin]) * to_ras
        assert np.abs(carried - end).max() < 1e-3


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_files_give_back_the_same_transform(tmp_path, suffix):
    forward, _ = deformable(3, Linear(rotation(np.array([0.1, -0.2, 0.3])), np.array([5.0, -7.0, 40.0])))
    path = tmp_path / f"followup{suffix}"
    write_transform(forward, path)
    points = np.concatenate([points_in_grid(1), points_in_grid(2) * 3.0])
    assert np.abs(transform_points(points, read_transform(path)) - transform_points(points, forward)).max() < 1e-6
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), directions, st.sampled_from([".h5", ".tfm"]))
def test_files_keep_a_field_whose_axes_are_oblique_or_reversed(tmp_path_factory, seed, direction, suffix):
    turn, signs = direction
    transform = on_any_grid(seed, rotation(np.array(turn)) @ np.diag(signs))
    path = tmp_path_factory.mktemp("transforms") / f"followup{suffix}"
    write_transform(transform, path)
    kept = read_transform(path)
    points = points_in_grid(seed, 60)
    there = transform_points(points, transform)
    assert np.abs(transform_points(points, kept) - there).max() < 1e-3
    assert np.abs(invert_points(there, kept) - points).max() < 1e-3


def test_a_padded_field_is_the_identity_outside_and_does_not_fold():
    wide, box = padded(smooth_field(5, 3.0), GRID)
    assert jacobian(wide).min() > 0.0
    transform = field_transform(wide, box)
    edge = np.array(box.origin) + np.array(box.spacing) * (np.array(box.size) - 1)
    for point in (np.array(box.origin), edge, edge + 30.0):
        assert np.abs(transform_points(point, transform) - point).max() < 1e-6
    inside = points_in_grid(7)
    narrow = field_transform(smooth_field(5, 3.0), GRID)
    assert np.abs(transform_points(inside, transform) - transform_points(inside, narrow)).max() < 1e-4


def test_unfold_removes_folds_and_leaves_the_rest():
    field = np.zeros((3, 24, 24, 24), dtype=np.float32)
    field[2, 10:14, 10:14, 10] = 3.0
    assert (jacobian(field) <= 0).any()
    mended = unfold(field)
    assert (jacobian(mended) > 0).all()
    assert np.abs(mended[:, :, :, 20:]).max() == 0.0


def test_a_missing_and_a_wrong_file_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.h5"):
        read_transform(tmp_path / "absent.h5")
    wrong = tmp_path / "wrong.tfm"
    wrong.write_text("not a transform")
    with pytest.raises(InputError, match=r"wrong\.tfm"):
        read_transform(wrong)


def ramp(direction: np.ndarray) -> sitk.Image:
    """An image whose density is a linear function of the LPS position, on any grid."""
    image = sitk.Image([40, 36, 30], sitk.sitkFloat32)
    image.SetSpacing((2.0, 2.5, 3.0))
    image.SetDirection(direction.ravel().tolist())
    middle = direction @ (np.array([40, 36, 30]) * np.array([2.0, 2.5, 3.0]) / 2.0)
    image.SetOrigin((-middle).tolist())
    index = np.stack(np.meshgrid(np.arange(40), np.arange(36), np.arange(30), indexing="ij"), axis=-1)
    place = np.array(image.GetOrigin()) + (index * np.array(image.GetSpacing())) @ direction.T
    values = (place @ np.array([1.0, 2.0, -3.0])).transpose(2, 1, 0).astype(np.float32)
    result = sitk.GetImageFromArray(values)
    result.CopyInformation(image)
    return result


@pytest.mark.parametrize(
    "direction",
    [
        np.eye(3),
        np.diag([-1.0, -1.0, 1.0]),
        np.diag([1.0, 1.0, -1.0]),
        np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]]),
        rotation(np.array([0.3, -0.2, 0.5])),
    ],
    ids=["identity", "both in-plane axes flipped", "slices downwards", "axes permuted", "oblique"],
)
def test_working_grids_keep_positions_whatever_the_direction(direction):
    image = ramp(direction)
    points = corners(image)
    grid = grid_over(points.min(axis=0), points.max(axis=0), np.full(3, 4.0))
    values = sample(image, grid)
    inside = covered(image, grid)
    expected = grid.axis(0)[None, None, :] * 1.0 + grid.axis(1)[None, :, None] * 2.0 - grid.axis(2)[:, None, None] * 3.0
    from scipy import ndimage

    core = ndimage.binary_erosion(inside, iterations=2)
    assert core.sum() > 500
    assert np.abs(values - expected)[core].max() < 0.01
    share = inside.sum() * np.prod(grid.spacing) / (40 * 36 * 30 * 2.0 * 2.5 * 3.0)
    assert 0.9 < share < 1.1


def test_resample_keeps_type_and_fills():
    image = sitk.Cast(ramp(np.eye(3)), sitk.sitkInt16)
    moved = resample(image, image, sitk.TranslationTransform(3, (20.0, 0.0, 0.0)), default_hu=-1024)
    assert moved.GetPixelID() == sitk.sitkInt16
    assert moved[39, 10, 10] == -1024
    assert moved[5, 10, 10] == image[15, 10, 10]


def test_resample_mask_cuts_at_one_half_and_keeps_labels():
    mask = sitk.Image([40, 36, 30], sitk.sitkUInt8)
    mask[10:20, 10:20, 10:20] = 1
    moved = resample_mask(mask, mask, sitk.TranslationTransform(3, (0.4, 0.0, 0.0)))
    assert (sitk.GetArrayFromImage(moved) == sitk.GetArrayFromImage(mask)).all()
    labels = mask * 4
    moved = resample_mask(labels, labels, sitk.TranslationTransform(3, (0.4, 0.0, 0.0)))
    assert set(np.unique(sitk.GetArrayFromImage(moved))) == {0, 4}
