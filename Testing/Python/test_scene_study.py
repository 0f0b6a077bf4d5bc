from __future__ import annotations

import datetime
import math

import numpy as np
import pytest
import SimpleITK as sitk
from scene_patient import TILTED

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.images import read_segmentation, read_volume
from ImmunoRadiomicsLib.scene import ChosenTimepoint, new_scene, study_from_nodes
from ImmunoRadiomicsLib.scene.mrml import fill_volume
from ImmunoRadiomicsLib.study import Clinical, LesionSpec, Treatment, load_study

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
vtk = pytest.importorskip("vtk")

BASELINE, FOLLOW_UP = datetime.date(2024, 1, 10), datetime.date(2024, 3, 12)
LESION_CODE = "a~SCT^49755003^x~SCT^4147007^Mass~^^~b~^^~^^"


def ct(seed: int, direction=None) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(seed).integers(-1000, 400, (20, 30, 40)).astype(np.int16))
    image.SetSpacing((0.7123, 0.8, 1.25))
    image.SetOrigin((-101.3, 55.25, -1234.5))
    image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
    return image


def volume_node(scene, image, name):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    fill_volume(node, image)
    return node


def box(image, first, last) -> np.ndarray:
    mask = np.zeros(image.GetSize()[::-1], dtype=bool)
    mask[tuple(slice(low, high) for low, high in zip(first, last, strict=True))] = True
    return mask


def labelmap(image: sitk.Image, mask: np.ndarray):
    """A vtkOrientedImageData with the voxels of a mask on the grid of an image."""
    from vtk.util.numpy_support import numpy_to_vtk

    oriented = slicer.vtkOrientedImageData()
    oriented.SetDimensions(*image.GetSize())
    matrix = vtk.vtkMatrix4x4()
    axes = np.diag([-1, -1, 1]) @ np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    origin = np.array([-1, -1, 1]) * image.GetOrigin()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, axes[row, column])
        matrix.SetElement(row, 3, origin[row])
    oriented.SetImageToWorldMatrix(matrix)
    oriented.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=True))
    return oriented


def segmentation_node(scene, name, segments):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    for segment_name, data in segments.items():
        segment = slicer.vtkSegment()
        segment.SetName(segment_name)
        segment.SetColor(0.25, 0.5, 0.75)
        segment.SetTag("TerminologyEntry", LESION_CODE)
        segment.AddRepresentation("Binary labelmap", data)
        node.GetSegmentation().AddSegment(segment, segment_name)
    return node


def rotation(scene, name, degrees=20.0, scale=1.0):
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, 0.2, 0.3, 0.9)
    transform.Translate(12.0, -7.0, 3.5)
    transform.Scale(scale, scale, scale)
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(transform.GetMatrix())
    return node


@pytest.fixture
def chosen():
    scene = new_scene()
    first, second = ct(1), ct(2, TILTED)
    masks = {"L1": box(first, (3, 4, 5), (9, 12, 15)), "N1": box(first, (6, 8, 12), (14, 20, 22))}
    contours = segmentation_node(scene, "contours", {name: labelmap(first, mask) for name, mask in masks.items()})
    points = [
        ChosenTimepoint("baseline", BASELINE, volume_node(scene, first, "CT 1"), contours),
        ChosenTimepoint("followup-1", FOLLOW_UP, volume_node(scene, second, "CT 2")),
    ]
    return scene, points, (first, second), masks


def test_a_study_is_written_to_the_bit(chosen, tmp_path):
    _, points, images, masks = chosen
    treatment = Treatment(start=datetime.date(2024, 1, 15), agents=("pembrolizumab",))
    written = study_from_nodes(
        tmp_path / "study",
        "P 7",
        points[::-1],
        tumour="NSCLC",
        treatment=treatment,
        clinical=Clinical(ecog=1, ild=False),
        lesions=(LesionSpec("N1", organ="lymph node", node=True),),
    )
    study = load_study(written.path)
    assert written.notes == ()
    assert study.patient == "P 7"
    assert [timepoint.name for timepoint in study.timepoints] == ["baseline", "followup-1"]
    assert study.treatment == treatment
    assert study.clinical == Clinical(ecog=1, ild=False)
    assert study.lesions[0].segment == "N1"
    for timepoint, image in zip(study.timepoints, images, strict=True):
        read = read_volume(timepoint.ct)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image))
        np.testing.assert_allclose(read.GetSpacing(), image.GetSpacing(), rtol=1e-12)
        np.testing.assert_allclose(read.GetOrigin(), image.GetOrigin(), rtol=1e-12)
        np.testing.assert_allclose(read.GetDirection(), image.GetDirection(), atol=1e-12)
    segmentation = read_segmentation(study.timepoints[0].segmentation, read_volume(study.timepoints[0].ct))
    for name, mask in masks.items():  # they overlap
        np.testing.assert_array_equal(segmentation.array(name), mask)
        assert segmentation.segment(name).colour == pytest.approx((0.25, 0.5, 0.75))
        assert segmentation.segment(name).terminology == LESION_CODE
    assert study.timepoints[1].segmentation is None


def test_file_names_hold_no_patient_identifier(chosen, tmp_path):
    _, points, _, _ = chosen
    points[0].volume.SetName("DOE^JANE 1950")
    study_from_nodes(tmp_path, "DOE", points)
    assert not [path for path in tmp_path.iterdir() if "DOE" in path.name]


def test_a_segmentation_cropped_or_on_another_grid_is_put_on_the_grid_of_the_volume(chosen, tmp_path):
    scene, points, (first, _), masks = chosen
    cropped = sitk.RegionOfInterest(first, [20, 20, 12], [4, 3, 2])
    part = masks["L1"][2:14, 3:23, 4:24]
    halves = sitk.Image([80, 60, 40], sitk.sitkUInt8)
    halves.SetSpacing([value / 2 for value in first.GetSpacing()])
    halves.SetOrigin((np.array(first.GetOrigin()) - np.array(first.GetSpacing()) / 4).tolist())
    fine = masks["N1"].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    contours = segmentation_node(scene, "other", {"L1": labelmap(cropped, part), "N1": labelmap(halves, fine)})
    points[0] = ChosenTimepoint("baseline", BASELINE, points[0].volume, contours)
    study = study_from_nodes(tmp_path, "P", points).study
    segmentation = read_segmentation(study.timepoints[0].segmentation, read_volume(study.timepoints[0].ct))
    for name, mask in masks.items():
        np.testing.assert_array_equal(segmentation.array(name), mask)


def test_surfaces_are_filled_and_the_node_stays_as_it_is(chosen, tmp_path):
    scene, points, (first, _), _ = chosen
    sphere = vtk.vtkSphereSource()
    centre = first.TransformIndexToPhysicalPoint([20, 15, 10])
    sphere.SetCenter(-centre[0], -centre[1], centre[2])
    sphere.SetRadius(6.0)
    sphere.SetThetaResolution(60)
    sphere.SetPhiResolution(60)
    sphere.Update()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surfaces")
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segment = slicer.vtkSegment()
    segment.SetName("L1")
    segment.AddRepresentation("Closed surface", sphere.GetOutput())
    node.GetSegmentation().AddSegment(segment)
    points[0] = ChosenTimepoint("baseline", BASELINE, points[0].volume, node)
    study = study_from_nodes(tmp_path, "P", points).study
    image = read_volume(study.timepoints[0].ct)
    mask = read_segmentation(study.timepoints[0].segmentation, image).array("L1")
    assert mask.sum() * math.prod(image.GetSpacing()) == pytest.approx(4 / 3 * math.pi * 6.0**3, rel=0.05)
    np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), (10, 15, 20), atol=0.2)
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")


def test_a_volume_under_a_transform_is_refused_and_nothing_is_written(chosen, tmp_path):
    scene, points, _, _ = chosen
    points[1].volume.SetAndObserveTransformNodeID(rotation(scene, "turned").GetID())
    with pytest.raises(InputError) as caught:
        study_from_nodes(tmp_path / "study", "P", points)
    assert len(caught.value.problems) == 1
    assert "'CT 2' is under the transform 'turned'" in caught.value.problems[0]
    assert "Harden" in caught.value.problems[0]
    assert not (tmp_path / "study").exists()


def test_a_turned_volume_is_hardened_on_a_copy(chosen, tmp_path):
    scene, points, images, masks = chosen
    turn = rotation(scene, "turned")
    for node in (points[0].volume, points[0].segmentation):
        node.SetAndObserveTransformNodeID(turn.GetID())
    written = study_from_nodes(tmp_path, "P", points, transformed="harden")
    assert any("'CT 1' is under the transform 'turned'" in note for note in written.notes)
    image = read_volume(written.study.timepoints[0].ct)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(images[0]))
    index = [31, 7, 15]
    ras = np.array([-1, -1, 1]) * images[0].TransformIndexToPhysicalPoint(index)
    moved = turn.GetTransformToParent().TransformPoint(ras.tolist())
    np.testing.assert_allclose(np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(index), moved, atol=1e-6)
    segmentation = read_segmentation(written.study.timepoints[0].segmentation, image)
    for name, mask in masks.items():
        np.testing.assert_array_equal(segmentation.array(name), mask)
    assert points[0].volume.GetParentTransformNode() is turn


def test_stretching_and_bending_are_refused_even_where_hardening_is_wanted(chosen, tmp_path):
    scene, points, _, _ = chosen
    points[0].volume.SetAndObserveTransformNodeID(rotation(scene, "larger", scale=1.1).GetID())
    bend = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "bent")
    grid = slicer.vtkOrientedGridTransform()
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.SetSpacing(100, 100, 100)
    image.AllocateScalars(vtk.VTK_DOUBLE, 3)
    grid.SetDisplacementGridData(image)
    bend.SetAndObserveTransformFromParent(grid)
    points[1].volume.SetAndObserveTransformNodeID(bend.GetID())
    with pytest.raises(InputError) as caught:
        study_from_nodes(tmp_path, "P", points, transformed="harden")
    assert len(caught.value.problems) == 2
    assert all("stretches or bends" in problem for problem in caught.value.problems)


def test_every_problem_is_said_at_once(chosen, tmp_path):
    scene, points, _, _ = chosen
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    tilted = points[1].volume
    tilted.SetIJKToRASDirections(1, 0, 0, 0, 1, 0.3, 0, 0, 1)
    blank = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "blank")
    points[0].segmentation.SetAndObserveTransformNodeID(rotation(scene, "turned").GetID())
    with pytest.raises(InputError) as caught:
        study_from_nodes(
            tmp_path / "study",
            "P",
            [
                points[0],
                ChosenTimepoint("followup-1", FOLLOW_UP, tilted, blank),
                ChosenTimepoint("followup-2", FOLLOW_UP, empty),
            ],
        )
    text = "\n".join(caught.value.problems)
    for part in ("'nothing' is empty", "gantry tilt", "'blank' is empty", "'contours' is under the transform 'turned'"):
        assert part in text
    assert len(caught.value.problems) == 4


def test_segments_of_one_name_are_refused_before_anything_is_written(chosen, tmp_path):
    _, points, _, _ = chosen
    points[0].segmentation.GetSegmentation().GetNthSegment(1).SetName("L1")
    with pytest.raises(InputError, match="several segments named L1"):
        study_from_nodes(tmp_path / "study", "P", points)
    assert not (tmp_path / "study").exists()


def test_an_identity_transform_is_none(chosen, tmp_path):
    scene, points, _, _ = chosen
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "identity")
    points[1].volume.SetAndObserveTransformNodeID(node.GetID())
    assert study_from_nodes(tmp_path, "P", points).notes == ()
