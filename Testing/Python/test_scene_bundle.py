from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from scene_patient import write_patient

from ImmunoRadiomicsLib import scene as scene_package
from ImmunoRadiomicsLib.errors import CancelledError, MissingDependencyError, StageError
from ImmunoRadiomicsLib.images import read_segmentation
from ImmunoRadiomicsLib.scene import lesion_course, new_scene, write_scene
from ImmunoRadiomicsLib.scene.mrml import (
    interpolate_linearly,
    quiet,
    segment_terminology,
    volume_array,
    volume_grid,
)

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def read_bundle(path, cache):
    scene = new_scene()
    manager, files = slicer.vtkDataIOManager(), slicer.vtkCacheManager()
    files.SetRemoteCacheDirectory(str(cache))
    manager.SetCacheManager(files)
    scene.SetDataIOManager(manager)
    messages = slicer.vtkMRMLMessageCollection()
    with quiet():
        assert scene.ReadFromMRB(str(path), False, messages), messages.GetAllMessagesAsString()
    return scene


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    analysis, study = write_patient(folder)
    path = folder / "out" / "scene.mrb"
    told: list[float] = []
    write_scene(analysis, study, folder / "out", path, progress=lambda fraction, _: told.append(fraction))
    assert told == sorted(told)
    assert told[-1] == 1.0
    return folder, analysis, study, path


@pytest.fixture(scope="module")
def loaded(written, tmp_path_factory):
    return read_bundle(written[3], tmp_path_factory.mktemp("cache"))


def test_nothing_but_the_bundle_is_left(written):
    folder, _, _, path = written
    assert sorted(item.name for item in path.parent.iterdir()) == ["scene.mrb", "segmentations", "transforms"]
    with zipfile.ZipFile(path) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"scene"}
        text = archive.read("scene/scene.mrml").decode()
    assert str(folder) not in text


def test_volumes_come_back_to_the_bit(written, loaded):
    _, _, study, _ = written
    for timepoint in study.timepoints:
        image = sitk.ReadImage(str(timepoint.ct))
        node = loaded.GetFirstNodeByName(f"P001 {timepoint.name} CT")
        np.testing.assert_array_equal(volume_array(node), sitk.GetArrayViewFromImage(image))
        origin, spacing, axes = volume_grid(node)
        last = np.subtract(image.GetSize(), 1)
        expected = LPS_TO_RAS * image.TransformIndexToPhysicalPoint(last.tolist())
        np.testing.assert_allclose(origin + axes @ (spacing * last), expected, atol=1e-6)
        assert node.GetDisplayNode().GetLevel() == -600


def test_segments_come_back_with_voxels_colour_and_code(written, loaded):
    folder, analysis, study, _ = written
    for timepoint in study.timepoints:
        image = sitk.ReadImage(str(timepoint.ct))
        expected = read_segmentation(folder / "out" / "segmentations" / f"{timepoint.name}.seg.nrrd", image)
        node = loaded.GetFirstNodeByName(f"P001 {timepoint.name} lesions")
        assert node.GetNodeReference("referenceImageGeometryRef").GetName() == f"P001 {timepoint.name} CT"
        assert node.GetSegmentation().GetNumberOfSegments() == len(expected.segments)
        for described in expected.segments:
            segment = node.GetSegmentation().GetSegment(described.id)
            labelmap = slicer.vtkOrientedImageData()
            assert node.GetBinaryLabelmapRepresentation(described.id, labelmap)
            voxels = expected.array(described.name)
            # Slicer keeps the smallest box of a segment; count and first voxel say where it is.
            scalars = labelmap.GetPointData().GetScalars()
            count = int(np.count_nonzero([scalars.GetTuple1(index) for index in range(scalars.GetNumberOfTuples())]))
            assert count == voxels.sum()
            entry = segment_terminology(segment)
            lesion = next((item for item in analysis.lesions if item.id == described.id), None)
            if lesion is None:
                assert "SCT^39607008^Lung" in entry
            else:
                assert "SCT^4147007^Mass" in entry
                assert segment.GetColor() == pytest.approx(lesion_course(lesion, analysis).colour, abs=1e-6)
            centre = np.argwhere(voxels).mean(axis=0)[::-1]
            world = LPS_TO_RAS * image.TransformContinuousIndexToPhysicalPoint(centre.tolist())
            if lesion is not None:
                np.testing.assert_allclose(node.GetSegmentCenterRAS(described.id), world, atol=6.0)


def test_transforms_come_back_as_they_were_estimated(written, loaded):
    folder, _, _, _ = written
    random = np.random.default_rng(5)
    points = random.uniform((-150, -110, -140), (150, 110, 140), (300, 3))
    for name in ("prebaseline", "followup-1", "followup-2"):
        truth = sitk.ReadTransform(str(folder / "out" / "transforms" / f"{name}.h5"))
        node = loaded.GetFirstNodeByName(f"P001 {name} to baseline")
        transform = node.GetTransformFromParent()
        expected = np.array([LPS_TO_RAS * truth.TransformPoint(point.tolist()) for point in points])
        # As Slicer opens it, with cubic interpolation of the displacement grid ...
        smooth = np.array([transform.TransformPoint((LPS_TO_RAS * point).tolist()) for point in points])
        assert np.abs(smooth - expected).max() < 0.05
        # ... and with the linear one by which it was estimated.
        interpolate_linearly(transform)
        linear = np.array([transform.TransformPoint((LPS_TO_RAS * point).tolist()) for point in points])
        assert np.abs(linear - expected).max() < 1e-3
    assert loaded.GetFirstNodeByName("P001 followup-1 CT").GetParentTransformNode() is None


def test_tables_come_back_typed(written, loaded):
    _, analysis, _, _ = written
    flags = loaded.GetFirstNodeByName("P001 flags")
    column = flags.GetTable().GetColumnByName("probability")
    assert column.IsA("vtkDataArray")
    assert [column.GetValue(row) for row in range(2)] == [flag.probability for flag in analysis.flags[:2]]
    assert np.isnan(column.GetValue(2))
    assert flags.GetTable().GetColumnByName("reason").GetValue(2) == analysis.flags[2].reason
    lesions = loaded.GetFirstNodeByName("P001 lesions")
    assert lesions.GetTable().GetNumberOfRows() == 20
    assert lesions.GetTable().GetColumnByName("day").GetDataTypeAsString() == "int"
    assert lesions.GetColumnUnitLabel("volume_ml") == "mL"
    response = loaded.GetFirstNodeByName("P001 response").GetTable()
    assert response.GetColumnByName("rule").GetValue(1) == analysis.response.visits[1].rule


def test_the_hierarchy_and_the_chart_come_back(loaded):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(loaded)
    volume = loaded.GetFirstNodeByName("P001 followup-1 CT")
    item = hierarchy.GetItemByDataNode(volume)
    study_item = hierarchy.GetItemAncestorAtLevel(item, "Study")
    assert hierarchy.GetItemName(study_item) == "followup-1 (2024-03-12)"
    assert hierarchy.GetItemAttribute(study_item, "DICOM.StudyDate") == "20240312"
    assert hierarchy.GetItemName(hierarchy.GetItemAncestorAtLevel(item, "Patient")) == "P001"
    chart = loaded.GetFirstNodeByName("P001 lesion sizes")
    assert chart.GetNumberOfPlotSeriesNodes() == 6
    assert chart.GetNthPlotSeriesNode(0).GetTableNode().GetName() == "P001 sizes"


def test_it_opens_with_views_in_place(loaded):
    red = loaded.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    green = loaded.GetNodeByID("vtkMRMLSliceCompositeNodeGreen")
    names = [loaded.GetNodeByID(node.GetBackgroundVolumeID()).GetName() for node in (red, green)]
    assert names == ["P001 baseline CT", "P001 followup-2 CT"]
    slice_node = loaded.GetNodeByID("vtkMRMLSliceNodeRed")
    assert slice_node.GetOrientationString() == "Axial"
    assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(52.0)  # the largest lesion of the baseline
    layout = loaded.GetNodeByID("vtkMRMLLayoutNodevtkMRMLLayoutNode")
    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLScene(new_scene())
    logic.GetLayoutNode().SetViewArrangement(layout.GetViewArrangement())
    laid_out = re.findall(r'class="(\w+)" singletontag="(\w+)"', logic.GetLayoutNode().GetCurrentLayoutDescription())
    slices = {("vtkMRMLSliceNode", view) for view in ("Red", "Yellow", "Green")}
    assert set(laid_out) == slices | {("vtkMRMLViewNode", "1"), ("vtkMRMLPlotViewNode", "PlotView1")}
    chart = loaded.GetFirstNodeByName("P001 lesion sizes")
    assert loaded.GetNodeByID("vtkMRMLPlotViewNodePlotView1").GetPlotChartNodeID() == chart.GetID()
    shown = {
        name: loaded.GetFirstNodeByName(f"P001 {name} lesions").GetDisplayNode().GetVisibility()
        for name in ("prebaseline", "baseline", "followup-1", "followup-2")
    }
    assert shown == {"prebaseline": 0, "baseline": 1, "followup-1": 0, "followup-2": 1}
    assert (
        loaded.GetFirstNodeByName("P001 followup-2 lesions").GetSegmentation().ContainsRepresentation("Closed surface")
    )


def test_a_reopened_scene_is_replaced_not_doubled(written, tmp_path):
    folder, analysis, study, path = written
    scene = read_bundle(path, tmp_path)
    volume = scene.GetFirstNodeByName("P001 baseline CT")
    count = scene.GetNumberOfNodes()
    nodes = scene_package.populate_scene(scene, analysis, study, folder / "out")
    assert nodes.volumes["baseline"] is volume
    assert scene.GetNumberOfNodes() == count


def test_an_earlier_bundle_survives_a_failure(written, tmp_path):
    folder, analysis, study, _ = written
    path = tmp_path / "scene.mrb"
    path.write_bytes(b"earlier")

    def stop(fraction, message):
        raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        write_scene(analysis, study, folder / "out", path, progress=stop)
    with pytest.raises(StageError, match="incomplete"):
        write_scene(analysis, study, tmp_path, path)
    assert path.read_bytes() == b"earlier"
    assert [item.name for item in tmp_path.iterdir()] == ["scene.mrb"]


def test_without_mrml_the_message_says_how_to_install_it(written, tmp_path, monkeypatch):
    folder, analysis, study, _ = written
    monkeypatch.setitem(sys.modules, "slicer", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        write_scene(analysis, study, folder / "out", tmp_path / "scene.mrb")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_said_on_stdout_or_stderr(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from scene_patient import write_patient\n"
        "from ImmunoRadiomicsLib.scene import write_scene\n"
        "folder = Path(sys.argv[2])\n"
        "analysis, study = write_patient(folder)\n"
        "write_scene(analysis, study, folder / 'out', folder / 'scene.mrb')\n"
        "print('end')\n"
    )
    here = __file__.rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", code, here, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    assert (done.stdout, done.stderr) == ("end\n", "")


def test_importing_the_package_needs_neither_slicer_nor_vtk():
    code = "import sys, ImmunoRadiomicsLib.scene; print([name for name in ('slicer', 'vtk', 'vtkmodules') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"


def test_a_bundle_opens_whatever_the_patient_and_the_lesions_are_called(tmp_path):
    patient, lesion = 'Zoë "Ψ" <b> & co', "a & b/c\\d <i> \"é', x;"
    analysis, study = write_patient(tmp_path, patient)
    first = dataclasses.replace(analysis.lesions[0], id=lesion)
    analysis = dataclasses.replace(analysis, lesions=(first, *analysis.lesions[1:]))
    write_scene(analysis, study, tmp_path / "out", tmp_path / "out" / "scene.mrb")
    read = read_bundle(tmp_path / "out" / "scene.mrb", tmp_path / "cache")
    nodes = [read.GetNthNode(index) for index in range(read.GetNumberOfNodes())]
    volumes = [node.GetName() for node in nodes if node.IsA("vtkMRMLScalarVolumeNode")]
    assert volumes == [f'Zoë "Ψ" <b> + co {item.name} CT' for item in analysis.timepoints]
    lines = [node for node in nodes if node.IsA("vtkMRMLMarkupsLineNode") and node.GetName().startswith("a + b/c|d")]
    assert lines
    assert all(line.GetNumberOfControlPoints() == 2 for line in lines)
    (sizes,) = (node for node in nodes if node.IsA("vtkMRMLTableNode") and node.GetName().endswith(" sizes"))
    assert sizes.GetNumberOfRows() == len(analysis.timepoints)
