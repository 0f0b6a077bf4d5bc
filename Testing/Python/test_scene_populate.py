from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from factories import DAYS, LESIONS, example_analysis
from scene_patient import bent, write_patient

from ImmunoRadiomicsLib.analysis import Analysis, LesionObservation
from ImmunoRadiomicsLib.errors import CancelledError, InputError, StageError
from ImmunoRadiomicsLib.images import read_segmentation, segmentation_from_arrays, write_segmentation
from ImmunoRadiomicsLib.scene import Course, arrange_views, lesion_course, new_scene, populate_scene, show_marks
from ImmunoRadiomicsLib.scene.mrml import fill_volume, quiet, segment_terminology, volume_array, volume_grid

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patient")
    return folder, *write_patient(folder)


@pytest.fixture
def populated(patient):
    folder, analysis, study = patient
    scene = new_scene()
    return scene, populate_scene(scene, analysis, study, folder / "out"), patient


def node_ids(scene) -> list[str]:
    return sorted(scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes()))


def children(hierarchy, item: int) -> list[str]:
    items: list[int] = []
    hierarchy.GetItemChildren(item, items)
    return [hierarchy.GetItemName(child) for child in items]


def observed(**changes):
    """A lesion whose size in mm at each time point is given; None is not evaluated."""
    lesion = example_analysis().lesions[0]
    observations = []
    for timepoint, size in changes.items():
        name = timepoint.replace("_", "-")
        status = "not evaluated" if size is None else "absent" if size == 0 else "measured"
        event = "new" if name == "followup-1" and not changes.get("baseline") else "present"
        observations.append(LesionObservation(name, status, event, long_axis_mm=size, short_axis_mm=size))
    return dataclasses.replace(lesion, observations=tuple(observations))


def with_levels(**levels: tuple[str, float]) -> Analysis:
    analysis = example_analysis()
    flags = tuple(
        dataclasses.replace(flag, level=levels[flag.flag][0], probability=levels[flag.flag][1])
        if flag.flag in levels
        else flag
        for flag in analysis.flags
    )
    return dataclasses.replace(analysis, flags=flags)


def test_volumes_keep_every_value_and_their_place(populated):
    _, nodes, (_, _, study) = populated
    for timepoint in study.timepoints:
        image = sitk.ReadImage(str(timepoint.ct))
        node = nodes.volumes[timepoint.name]
        np.testing.assert_array_equal(volume_array(node), sitk.GetArrayViewFromImage(image))
        origin, spacing, axes = volume_grid(node)
        for index in ((0, 0, 0), (7, 11, 13), tuple(count - 1 for count in image.GetSize())):
            ras = origin + axes @ (spacing * index)
            np.testing.assert_allclose(ras, LPS_TO_RAS * image.TransformIndexToPhysicalPoint(index), atol=1e-9)
        display = node.GetDisplayNode()
        assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (1500, -600, 0)


def test_a_pet_lies_beside_its_ct(patient, tmp_path):
    folder, analysis, study = patient
    image = sitk.Image(20, 22, 24, sitk.sitkFloat32)
    image.SetSpacing((8.0, 8.0, 8.0))
    image.SetOrigin((-80.0, -90.0, -95.0))
    image[5, 6, 7] = 11.25
    sitk.WriteImage(image, str(tmp_path / "suv.nrrd"))
    first, *others = study.timepoints
    with_pet = dataclasses.replace(study, timepoints=(dataclasses.replace(first, pet=tmp_path / "suv.nrrd"), *others))
    scene = new_scene()
    for _ in range(2):  # a second call fills the same node again
        nodes = populate_scene(scene, analysis, with_pet, folder / "out")
        found = [
            scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode") for index in range(len(study.timepoints) + 1)
        ]
        (node,) = (item for item in found if item.GetAttribute("DICOM.Modality") == "PT")
        assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == len(found)
    np.testing.assert_array_equal(volume_array(node), sitk.GetArrayViewFromImage(image))
    assert node.GetName() == f"P001 {first.name} PET"
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    assert parent == hierarchy.GetItemParent(hierarchy.GetItemByDataNode(nodes.volumes[first.name]))


def test_segments_lie_where_the_file_has_them_with_colour_and_code(populated):
    _, nodes, (folder, analysis, study) = populated
    for timepoint in study.timepoints:
        node = nodes.segmentations[timepoint.name]
        assert node.GetNodeReference("referenceImageGeometryRef") is nodes.volumes[timepoint.name]
        image = sitk.ReadImage(str(timepoint.ct))
        expected = read_segmentation(folder / "out" / "segmentations" / f"{timepoint.name}.seg.nrrd", image)
        segmentation = node.GetSegmentation()
        assert segmentation.GetNumberOfSegments() == len(expected.segments)
        for lesion in analysis.lesions:
            segment = segmentation.GetSegment(lesion.id)
            if segment is None:
                assert lesion.id not in [item.name for item in expected.segments]
                continue
            labelmap = slicer.vtkOrientedImageData()
            assert node.GetBinaryLabelmapRepresentation(lesion.id, labelmap)
            indices = np.argwhere(expected.array(lesion.id))
            centre = image.TransformContinuousIndexToPhysicalPoint(indices.mean(axis=0)[::-1].tolist())
            np.testing.assert_allclose(node.GetSegmentCenterRAS(lesion.id), LPS_TO_RAS * centre, atol=6.0)
            assert segment.GetColor() == pytest.approx(lesion_course(lesion, analysis).colour)
            code = segment_terminology(segment).split("~")
            assert (code[1], code[2]) == (
                "SCT^49755003^Morphologically Altered Structure",
                "SCT^4147007^Mass",
            )
            regions = {"lung": "39607008", "mediastinal lymph node": "59441001", "liver": "10200004"}
            assert code[5].split("^")[1] == regions[lesion.organ]
            entry = slicer.vtkSlicerTerminologyEntry()
            logic = slicer.vtkSlicerTerminologiesModuleLogic
            with quiet():
                assert logic().DeserializeTerminologyEntry(segment_terminology(segment), entry)
            assert entry.GetTypeObject().GetCodeValue() == "4147007"
        for lung, side in (("right lung", "SCT^24028007^Right"), ("left lung", "SCT^7771000^Left")):
            code = segment_terminology(segmentation.GetSegment(lung)).split("~")
            assert code[1:4] == ["SCT^123037004^Anatomical Structure", "SCT^39607008^Lung", side]


def test_a_follow_up_under_its_transform_lies_on_the_baseline(populated):
    _, nodes, (folder, _, _) = populated
    random = np.random.default_rng(2)
    points = random.uniform((-150, -110, -140), (150, 110, 140), (400, 3))
    for timepoint, node in nodes.transforms.items():
        truth = sitk.ReadTransform(str(folder / "out" / "transforms" / f"{timepoint}.h5"))
        volume = nodes.volumes[timepoint]
        assert volume.GetParentTransformNode() is None  # follow-ups are read unwarped
        volume.SetAndObserveTransformNodeID(node.GetID())
        for point in points:
            follow_up = np.array(truth.TransformPoint(point.tolist()))
            world = [0.0] * 3
            volume.TransformPointToWorld((LPS_TO_RAS * follow_up).tolist(), world)
            np.testing.assert_allclose(world, LPS_TO_RAS * point, atol=1e-3)
            back = node.GetTransformFromParent().TransformPoint((LPS_TO_RAS * point).tolist())
            np.testing.assert_allclose(back, LPS_TO_RAS * follow_up, atol=1e-3)
    assert nodes.transforms["followup-2"].IsA("vtkMRMLLinearTransformNode")
    assert not nodes.transforms["followup-1"].IsLinear()
    assert set(nodes.transforms) == {"prebaseline", "followup-1", "followup-2"}


def test_the_bend_of_the_test_patient_is_worth_testing():
    moved = [np.subtract(bent("followup-1").TransformPoint((x, 0, 0)), (x, 0, 0)) for x in (-60.0, 0.0, 60.0)]
    assert np.ptp(moved, axis=0).max() > 2


def test_tables_are_typed_and_hold_the_numbers_of_the_analysis(populated):
    _, nodes, (_, analysis, _) = populated
    flags = nodes.tables["flags"].GetTable()
    assert flags.GetColumnByName("probability").IsA("vtkDoubleArray")
    assert flags.GetColumnByName("probability").GetValue(1) == analysis.flags[1].probability
    assert np.isnan(flags.GetColumnByName("probability").GetValue(2))
    assert flags.GetColumnByName("level").GetValue(1) == "indeterminate"
    lesions = nodes.tables["lesions"].GetTable()
    assert lesions.GetNumberOfRows() == len(LESIONS) * len(DAYS)
    assert lesions.GetColumnByName("day").IsA("vtkIntArray")
    rows = [
        (lesions.GetColumnByName("lesion").GetValue(row), lesions.GetColumnByName("timepoint").GetValue(row))
        for row in range(lesions.GetNumberOfRows())
    ]
    row = rows.index(("L2", "followup-2"))
    assert lesions.GetColumnByName("long_axis_mm").GetValue(row) == 12.4
    assert lesions.GetColumnByName("change_percent").GetValue(row) == pytest.approx(100 * (12.4 / 19.0 - 1))
    assert lesions.GetColumnByName("course").GetValue(row) == "shrinking"
    assert nodes.tables["lesions"].GetColumnUnitLabel("long_axis_mm") == "mm"
    response = nodes.tables["response"].GetTable()
    assert response.GetColumnByName("irecist").GetValue(1) == "iUPD"
    sizes = nodes.tables["sizes"].GetTable()
    assert [sizes.GetColumnByName("L1").GetValue(row) for row in range(4)] == [34.0, 38.4, 46.1, 51.8]
    assert np.isnan([sizes.GetColumnByName("L5").GetValue(row) for row in range(3)]).all()
    assert sizes.GetColumnByName("N1").GetValue(3) == pytest.approx(31.2 * 0.74)  # nodes are measured across


def test_the_chart_draws_every_lesion_against_the_day(populated):
    _, nodes, (_, analysis, _) = populated
    assert nodes.chart.GetNumberOfPlotSeriesNodes() == len(analysis.lesions) + 1
    for lesion in analysis.lesions:
        series = nodes.series[lesion.id]
        assert series.GetTableNode() is nodes.tables["sizes"]
        assert (series.GetXColumnName(), series.GetYColumnName()) == ("day", lesion.id)
        assert series.GetColor() == pytest.approx(lesion_course(lesion, analysis).colour)


def test_axes_are_lines_of_the_measured_length(populated):
    _, nodes, (_, analysis, _) = populated
    for (timepoint, lesion_id, kind), line in nodes.axes.items():
        observation = next(item for item in analysis.lesions if item.id == lesion_id).at(timepoint)
        length = observation.long_axis_mm if kind == "long" else observation.short_axis_mm
        assert line.GetLineLengthWorld() == pytest.approx(length, abs=1e-6)
    assert len(nodes.axes) == 2 * (len(LESIONS) * len(DAYS) - 3)


def test_everything_is_under_patient_and_study(populated):
    scene, nodes, _ = populated
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert hierarchy.GetItemName(nodes.patient_item) == "P001"
    assert hierarchy.GetItemLevel(nodes.patient_item) == "Patient"
    assert children(hierarchy, nodes.patient_item) == [
        "prebaseline (2023-11-20)",
        "baseline (2024-01-10)",
        "followup-1 (2024-03-12)",
        "followup-2 (2024-04-17)",
        "Results",
    ]
    for timepoint, item in nodes.study_items.items():
        assert hierarchy.GetItemLevel(item) == "Study"
        for node in (nodes.volumes[timepoint], nodes.segmentations[timepoint]):
            assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == item
    assert hierarchy.GetItemAttribute(nodes.study_items["baseline"], "DICOM.StudyDate") == "20240110"


def test_loading_again_replaces(populated):
    scene, nodes, (folder, analysis, study) = populated
    before = node_ids(scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    again = populate_scene(scene, analysis, study, folder / "out")
    assert node_ids(scene) == before
    assert again.volumes["baseline"] is nodes.volumes["baseline"]
    assert again.segmentations["followup-2"].GetSegmentation().GetNumberOfSegments() == 7
    assert again.chart.GetNumberOfPlotSeriesNodes() == 6
    assert again.tables["flags"].GetNumberOfRows() == 3
    assert children(hierarchy, hierarchy.GetSceneItemID()) == ["P001"]


def test_what_an_earlier_analysis_had_more_is_removed_and_foreign_nodes_stay(populated):
    scene, nodes, (folder, analysis, study) = populated
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    note = scene.AddNewNodeByClass("vtkMRMLTextNode", "my note")
    hierarchy.CreateItem(nodes.study_items["followup-1"], note)
    fewer = dataclasses.replace(study, timepoints=study.timepoints[1:3])
    shorter = dataclasses.replace(
        analysis,
        timepoints=analysis.timepoints[1:3],
        lesions=tuple(
            dataclasses.replace(lesion, observations=lesion.observations[1:3]) for lesion in analysis.lesions[:2]
        ),
    )
    again = populate_scene(scene, shorter, fewer, folder / "out")
    assert note.GetScene() is scene
    assert set(again.volumes) == {"baseline", "followup-1"}
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 3  # two of lesions, one of new opacities
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsLineNode") == 8
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsDisplayNode") == 8
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == 3
    assert children(hierarchy, again.patient_item) == ["baseline (2024-01-10)", "followup-1 (2024-03-12)", "Results"]


def test_two_patients_do_not_touch_each_other(populated):
    scene, first, (folder, analysis, study) = populated
    count = scene.GetNumberOfNodes()
    other = dataclasses.replace(analysis, patient="P/2 ä"), dataclasses.replace(study, patient="P/2 ä")
    second = populate_scene(scene, *other, folder / "out")
    assert second.patient_item != first.patient_item
    assert second.volumes["baseline"] is not first.volumes["baseline"]
    again = populate_scene(scene, *other, folder / "out")
    assert again.volumes["baseline"] is second.volumes["baseline"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 8
    populate_scene(scene, analysis, study, folder / "out")
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 8
    assert scene.GetNumberOfNodes() > count


def test_volumes_that_are_there_are_used_and_results_go_to_their_study(patient):
    folder, analysis, study = patient
    scene = new_scene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "from DICOM")
    given = {}
    for timepoint in study.timepoints:
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", timepoint.name)
        fill_volume(node, sitk.ReadImage(str(timepoint.ct)))
        hierarchy.CreateItem(hierarchy.CreateStudyItem(subject, f"CT {timepoint.date}"), node)
        given[timepoint.name] = node
    nodes = populate_scene(scene, analysis, study, folder / "out", volumes=given)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 4
    assert nodes.patient_item == subject
    assert children(hierarchy, hierarchy.GetSceneItemID()) == ["from DICOM"]
    item = hierarchy.GetItemByDataNode(nodes.segmentations["followup-2"])
    assert hierarchy.GetItemName(hierarchy.GetItemParent(item)) == "CT 2024-04-17"


def test_volumes_of_an_earlier_call_may_be_handed_in_and_loose_ones_get_a_study(populated):
    scene, nodes, (folder, analysis, study) = populated
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    loose = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "loose")
    fill_volume(loose, sitk.ReadImage(str(study.timepoints[1].ct)))
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), loose)
    given = {**nodes.volumes, "baseline": loose}
    again = populate_scene(scene, analysis, study, folder / "out", volumes=given)
    assert again.volumes == given
    assert all(node.GetScene() is scene for node in given.values())
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 4  # the earlier baseline has gone
    item = hierarchy.GetItemByDataNode(loose)
    assert hierarchy.GetItemName(hierarchy.GetItemParent(item)) == "baseline (2024-01-10)"


def test_volumes_that_are_empty_or_of_no_time_point_are_refused(patient):
    folder, analysis, study = patient
    scene = new_scene()
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    for given, message in (
        ({"baseline": node}, "nothing has no voxels"),
        ({"week 9": node}, "no time point named week 9"),
    ):
        with pytest.raises(StageError, match=message):
            populate_scene(scene, analysis, study, folder / "out", volumes=given)


def test_a_failure_leaves_no_half_filled_scene(patient, tmp_path):
    folder, analysis, study = patient
    scene = new_scene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    before = node_ids(scene)

    def stop(fraction, message):
        if fraction > 0.6:
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        populate_scene(scene, analysis, study, folder / "out", progress=stop)
    assert node_ids(scene) == before
    assert children(hierarchy, hierarchy.GetSceneItemID()) == []
    with pytest.raises(StageError, match=r"followup-1\.seg\.nrrd"):
        populate_scene(scene, analysis, study, tmp_path)
    missing = dataclasses.replace(study.timepoints[2], ct=tmp_path / "none.nrrd")
    with pytest.raises(InputError, match=r"none\.nrrd"):
        populate_scene(
            scene,
            analysis,
            dataclasses.replace(study, timepoints=(*study.timepoints[:2], missing, study.timepoints[3])),
            folder / "out",
        )
    assert node_ids(scene) == before


def test_a_time_point_without_any_segment_has_an_empty_segmentation(patient, tmp_path):
    folder, analysis, study = patient
    shutil.copytree(folder / "out", tmp_path / "out")
    image = sitk.ReadImage(str(study.timepoints[3].ct))
    path = tmp_path / "out" / "segmentations" / "followup-2.seg.nrrd"
    write_segmentation(segmentation_from_arrays([], image), path)
    scene = new_scene()
    nodes = populate_scene(scene, analysis, study, tmp_path / "out")
    assert nodes.segmentations["followup-2"].GetSegmentation().GetNumberOfSegments() == 0
    arrange_views(scene, analysis, nodes)


def test_views_on_a_screen_keep_their_size_and_are_filled_by_one_image_alone(populated):
    scene, nodes, (_, analysis, _) = populated
    views = {}
    for name, class_name in (("slice", "vtkMRMLSliceNode"), ("composite", "vtkMRMLSliceCompositeNode")):
        views[name] = scene.CreateNodeByClass(class_name)
        views[name].UnRegister(None)
        views[name].SetSingletonTag("Red")
        scene.AddNode(views[name])
    views["composite"].SetForegroundVolumeID(nodes.volumes["followup-1"].GetID())
    views["slice"].SetDimensions(10, 20, 1)

    def settle():  # the window takes its size in the new layout
        layout = scene.GetSingletonNode("vtkMRMLLayoutNode", "vtkMRMLLayoutNode")
        assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalPlotView
        views["slice"].SetDimensions(600, 300, 1)

    arrange_views(scene, analysis, nodes, settle=settle)
    assert views["slice"].GetDimensions() == (600, 300, 1)
    wide, high, _ = views["slice"].GetFieldOfView()
    assert wide == pytest.approx(2 * high)
    bounds = [0.0] * 6
    nodes.volumes["baseline"].GetRASBounds(bounds)
    assert high == pytest.approx(1.05 * max(bounds[1] - bounds[0], bounds[3] - bounds[2]))
    assert views["composite"].GetBackgroundVolumeID() == nodes.volumes["baseline"].GetID()
    assert views["composite"].GetForegroundVolumeID() is None


def test_new_opacities_of_the_lungs_have_a_segmentation_of_their_own(populated):
    scene, nodes, (folder, _, study) = populated
    assert list(nodes.opacities) == ["followup-1"]
    node = nodes.opacities["followup-1"]
    assert node.GetName() == "P001 followup-1 new lung opacities"
    assert node.GetNodeReference("referenceImageGeometryRef") is nodes.volumes["followup-1"]
    segmentation = node.GetSegmentation()
    named = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    assert [item.GetName() for item in named] == ["new ground-glass", "new consolidation"]
    image = sitk.ReadImage(str(study.timepoints[1 + [item.name for item in study.timepoints].index("baseline")].ct))
    path = folder / "out" / "segmentations" / "followup-1.opacities.seg.nrrd"
    glass = read_segmentation(path, image).array("new ground-glass")
    centre = image.TransformContinuousIndexToPhysicalPoint(np.argwhere(glass).mean(axis=0)[::-1].tolist())
    np.testing.assert_allclose(node.GetSegmentCenterRAS("new ground-glass"), LPS_TO_RAS * centre, atol=25.0)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node)
    assert hierarchy.GetItemParent(item) == nodes.study_items["followup-1"]
    assert not node.GetDisplayNode().GetVisibility()
    show_marks(nodes, {"followup-1": ["vtkMRMLSliceNodeGreen"]})
    assert node.GetDisplayNode().GetVisibility()
    assert list(node.GetDisplayNode().GetViewNodeIDs()) == ["vtkMRMLSliceNodeGreen"]
    show_marks(nodes, {"baseline": ["vtkMRMLSliceNodeRed"]})
    assert not node.GetDisplayNode().GetVisibility()


@pytest.mark.parametrize(
    "damaged",
    ["segmentations/baseline.seg.nrrd", "segmentations/followup-1.opacities.seg.nrrd", "transforms/followup-1.h5"],
)
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_damaged_file_is_named(patient, tmp_path, damaged, kept):
    folder, analysis, study = patient
    shutil.copytree(folder / "out", tmp_path / "out")
    data = (tmp_path / "out" / damaged).read_bytes()
    (tmp_path / "out" / damaged).write_bytes(data[: int(kept * len(data))])
    scene = new_scene()
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    before = node_ids(scene)
    with quiet(), pytest.raises(StageError, match=damaged.replace(".", r"\.")):
        populate_scene(scene, analysis, study, tmp_path / "out")
    assert node_ids(scene) == before


def test_undo_neither_breaks_nor_doubles(patient):
    folder, analysis, study = patient
    scene = new_scene()
    scene.SetUndoOn()
    nodes = populate_scene(scene, analysis, study, folder / "out")
    populate_scene(scene, analysis, study, folder / "out")
    count = scene.GetNumberOfNodes()
    scene.Undo()
    scene.Redo()
    assert populate_scene(scene, analysis, study, folder / "out").volumes["baseline"] is nodes.volumes["baseline"]
    assert scene.GetNumberOfNodes() == count


@pytest.mark.parametrize(
    ("sizes", "course"),
    [
        ({"baseline": 30.0, "followup_1": 36.0}, Course.GROWING),
        ({"baseline": 30.0, "followup_1": 35.9}, Course.STABLE),
        ({"baseline": 20.0, "followup_1": 24.9}, Course.STABLE),  # 24 % but below 5 mm
        ({"baseline": 30.0, "followup_1": 21.0}, Course.SHRINKING),
        ({"baseline": 30.0, "followup_1": 0.0}, Course.SHRINKING),
        ({"baseline": 40.0, "followup_1": 20.0, "followup_2": 26.0}, Course.GROWING),  # from its smallest size
        ({"baseline": 0.0, "followup_1": 12.0}, Course.NEW),
        ({"baseline": 30.0, "followup_1": None}, Course.NOT_EVALUATED),
        ({"baseline": 30.0, "followup_1": 36.0, "followup_2": None}, Course.GROWING),
        ({"baseline": None, "followup_2": 36.0}, Course.NOT_EVALUATED),
    ],
)
def test_the_course_of_a_lesion_follows_recist_thresholds(sizes, course):
    assert lesion_course(observed(**sizes), example_analysis()) is course


def test_a_likely_flag_colours_what_grows_and_nothing_else():
    grown, shrunk = observed(baseline=30.0, followup_1=40.0), observed(baseline=30.0, followup_1=15.0)
    pseudo = with_levels(pseudoprogression=("likely", 0.7))
    assert lesion_course(grown, pseudo) is Course.PSEUDOPROGRESSION
    assert lesion_course(shrunk, pseudo) is Course.SHRINKING
    both = with_levels(pseudoprogression=("likely", 0.7), hyperprogression=("likely", 0.8))
    assert lesion_course(grown, both) is Course.HYPERPROGRESSION
    colours = [course.colour for course in Course]
    assert len(set(colours)) == len(colours)
