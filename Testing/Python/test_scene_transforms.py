"""Transform nodes written for the engine carry the points that the scene carries."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scene_patient import bent

from ImmunoRadiomicsLib.alignment import read_transform
from ImmunoRadiomicsLib.scene import new_scene, run_steps, write_transform_node
from ImmunoRadiomicsLib.scene.transforms import fill_transform, read_transform_node, transform_class
from ImmunoRadiomicsLib.transforms import transform_points

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
vtk = pytest.importorskip("vtk")

BOUNDS = (-90.0, 80.0, -70.0, 75.0, -60.0, 65.0)
POINTS = np.random.default_rng(5).uniform((-90, -70, -60), (80, 75, 65), (60, 3))


def carried_by(node) -> np.ndarray:
    """LPS points of the baseline carried to the time point by a node of the scene."""
    general = vtk.vtkGeneralTransform()
    node.GetTransformFromWorld(general)
    flip = np.array([-1.0, -1.0, 1.0])
    return np.array([flip * general.TransformPoint(*(flip * point)) for point in POINTS])


def largest_error_mm(node, path) -> float:
    write_transform_node(node, path, BOUNDS)
    transform = read_transform(path)
    carried = np.array([transform.TransformPoint(point.tolist()) for point in POINTS])
    return float(np.linalg.norm(carried - carried_by(node), axis=1).max())


def linear(scene, degrees=12.0):
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, 0.2, 0.3, 0.9)
    transform.Translate(12.0, -7.0, 3.5)
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "linear")
    node.SetMatrixTransformToParent(transform.GetMatrix())
    return node


def grid(scene, transform, tmp_path):
    """A node as Slicer makes it of an ITK transform file."""
    path = tmp_path / "given.h5"
    sitk.WriteTransform(transform, str(path))
    source = read_transform_node(path)
    node = scene.AddNewNodeByClass(transform_class(source), "deformable")
    fill_transform(node, source)
    return node


def field() -> sitk.Transform:
    composite = bent("followup-1")
    return composite.GetNthTransform(composite.GetNumberOfTransforms() - 1)


@pytest.fixture
def scene():
    return new_scene()


def test_a_matrix_is_written_exactly_with_the_matrix_above_it(scene, tmp_path):
    node = linear(scene)
    assert largest_error_mm(node, tmp_path / "a.h5") < 1e-9
    above = linear(scene, -31.0)
    node.SetAndObserveTransformNodeID(above.GetID())
    assert largest_error_mm(node, tmp_path / "b.h5") < 1e-9


def test_a_grid_is_written_as_it_is(scene, tmp_path):
    node = grid(scene, field(), tmp_path)
    assert node.GetClassName() == "vtkMRMLGridTransformNode"
    assert np.linalg.norm(carried_by(node) - POINTS, axis=1).max() > 2.0
    assert largest_error_mm(node, tmp_path / "grid.h5") < 1e-5


def test_a_chain_of_matrices_and_grids_is_written_as_it_is(scene, tmp_path):
    node = grid(scene, field(), tmp_path)
    node.SetAndObserveTransformNodeID(linear(scene).GetID())
    assert largest_error_mm(node, tmp_path / "under.h5") < 1e-3
    for number, order in enumerate(([0, 1], [1, 0], [1, 0, 1])):
        pieces = [sitk.Euler3DTransform((3.0, 4.0, 5.0), 0.1, -0.2, 0.15, (9.0, -6.0, 4.0)), field()]
        chain = sitk.CompositeTransform([pieces[index] for index in order])
        composite = grid(scene, chain, tmp_path)
        assert composite.GetClassName() == "vtkMRMLTransformNode"
        assert largest_error_mm(composite, tmp_path / f"composite-{number}.h5") < 1e-3
        kept = read_transform(tmp_path / f"composite-{number}.h5")
        np.testing.assert_allclose(transform_points(POINTS, kept), transform_points(POINTS, chain), atol=1e-9)


def test_an_inverse_grid_and_one_that_is_too_small_are_sampled(scene, tmp_path):
    inverse = grid(scene, field(), tmp_path)
    inverse.Inverse()
    assert largest_error_mm(inverse, tmp_path / "inverse.h5") < 0.05
    small = sitk.GetImageFromArray(np.full((12, 12, 12, 3), (4.0, -3.0, 5.0)), isVector=True)
    small.SetSpacing((5.0, 5.0, 5.0))
    small.SetOrigin((-30.0, -30.0, -30.0))
    # Slicer moves what lies outside of a grid as far as its edge.
    assert largest_error_mm(grid(scene, sitk.DisplacementFieldTransform(small), tmp_path), tmp_path / "small.h5") < 0.05


def test_a_b_spline_of_another_program_is_sampled(scene, tmp_path):
    spline = sitk.BSplineTransformInitializer(sitk.Image(60, 60, 60, sitk.sitkUInt8), [4, 4, 4])
    spline.SetTransformDomainOrigin((-150.0, -150.0, -150.0))
    spline.SetTransformDomainPhysicalDimensions((300.0, 300.0, 300.0))
    values = np.random.default_rng(3).normal(0.0, 6.0, len(spline.GetParameters()))
    spline.SetParameters(values.tolist())
    node = grid(scene, spline, tmp_path)
    moved = np.array([spline.TransformPoint(point.tolist()) for point in POINTS])
    np.testing.assert_allclose(carried_by(node), moved, atol=1e-3)
    assert largest_error_mm(node, tmp_path / "spline.h5") < 0.05


def test_what_fails_outside_the_scene_is_handed_to_the_steps():
    def steps():
        try:
            yield lambda: 1 / 0
        except ZeroDivisionError:
            return (yield lambda: "mended")

    assert run_steps(steps()) == "mended"
