"""Sections of the panel: alignment, lesions, segmentation, DICOM, clinical facts; with numbers."""

# ruff: noqa: F811 - fixtures are imported under their names

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import SimpleITK as sitk
from panel_patient import (  # noqa: F401
    analyzed,
    give_result,
    panel,
    prepared,
    process_that,
    slicer,
    texts,
    wait,
)

from ImmunoRadiomicsLib.alignment import read_transform
from ImmunoRadiomicsLib.study import LesionLink, LesionSpec, load_study


def shown_patient(panel, prepared):
    give_result(panel, prepared)
    panel.setParameterNode(panel.logic.loadStudy(prepared / "study.yaml"))
    return panel.parameters


def written_study(panel):
    return load_study(panel.logic.folderOf(panel.parameters) / "study" / "study.yaml")


def rows_by_name(panel):
    from ImmunoRadiomicsPanel.Timepoints import readRows, timepointNames

    rows = readRows(panel.parameters.parameterNode)
    return dict(zip(timepointNames(rows), rows, strict=True))


def click(panel, button):
    button.click()
    wait(lambda: panel.work is None)


def choose(combo, text):
    index = combo.findText(text)
    assert index >= 0, [combo.itemText(i) for i in range(combo.count)]
    combo.setCurrentIndex(index)


# Alignment


def test_an_alignment_that_ran_alone_is_shown_accepted_and_kept(panel, slicer, prepared):
    shown_patient(panel, prepared)
    ui = panel.ui
    assert not ui.acceptAlignmentButton.enabled
    assert ui.acceptAlignmentButton.toolTip == "Align first."
    click(panel, ui.alignButton)
    assert slicer.shown == []
    rows = texts(ui.alignmentTable)
    assert [row[0] for row in rows] == ["prebaseline", "followup-1", "followup-2"]
    assert {row[1] for row in rows} == {"automatic"}
    assert rows[1][2:8] == ["good", "", "1.1", "0.987", "0.91", "17.4"]
    assert "Look at" in ui.alignmentMessage.text
    waiting = [row[0] for row in rows if row[2] != "failed"]
    for name in waiting:
        choose(ui.alignmentTimepoint, name)
        click(panel, ui.acceptAlignmentButton)
    assert [row[3] for row in texts(ui.alignmentTable)] == ["accepted" if row[2] != "failed" else "" for row in rows]
    assert ui.acceptAlignmentButton.toolTip == "This alignment is accepted."
    # A failed one is not used, whoever accepts it.
    assert [row[0] for row in rows if row[2] == "failed"] == ["followup-2"]
    assert ui.alignmentSection.text == "4. Alignment (problem)"
    choose(ui.alignmentTimepoint, "followup-2")
    assert not ui.acceptAlignmentButton.enabled
    assert ui.acceptAlignmentButton.toolTip.startswith("It has failed")
    # The same alignment, made again, stays accepted.
    click(panel, ui.alignButton)
    assert [row[3] for row in texts(ui.alignmentTable)] == ["accepted" if row[2] != "failed" else "" for row in rows]
    # Another method is another alignment.
    ui.alignmentEngineCombo.currentIndex = 3
    assert ui.alignmentTable.rowCount == 0
    assert ui.alignmentSection.text == "4. Alignment (to do)"


def linear_node(slicer, shift=(10.0, -4.0, 6.0)):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    for axis, value in enumerate(shift):
        matrix.SetElement(axis, 3, value)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "landmarks")
    node.SetMatrixTransformToParent(matrix)
    return node


def test_a_transform_replaces_an_alignment_or_starts_it_and_is_taken_back(panel, slicer, prepared):
    shown_patient(panel, prepared)
    ui = panel.ui
    choose(ui.alignmentTimepoint, "followup-1")
    assert ui.ownTransformButton.toolTip == "Choose a transform node first."
    node = linear_node(slicer)
    ui.transformSelector.setCurrentNode(node)
    click(panel, ui.ownTransformButton)
    assert slicer.shown == []
    study = {item.name: item for item in written_study(panel).timepoints}
    assert study["followup-1"].start_transform is None
    assert study["followup-2"].transform is None
    # The node moves the follow-up by (10, -4, 6) in RAS onto the baseline: back in LPS, baseline points move by (10, -4, -6).
    moved = read_transform(study["followup-1"].transform).TransformPoint((1.0, 2.0, 3.0))
    assert moved == pytest.approx((11.0, -2.0, -3.0))
    assert texts(ui.alignmentTable)[1][1] == "own transform"
    assert panel.logic.transformOf(panel.parameters, "followup-1") is node
    click(panel, ui.startTransformButton)
    study = {item.name: item for item in written_study(panel).timepoints}
    assert study["followup-1"].transform is None
    assert read_transform(study["followup-1"].start_transform).TransformPoint((1.0, 2.0, 3.0)) == pytest.approx(moved)
    assert texts(ui.alignmentTable)[1][1] == "from a transform"
    click(panel, ui.resetTransformButton)
    study = {item.name: item for item in written_study(panel).timepoints}
    assert study["followup-1"].start_transform is None
    assert not ui.resetTransformButton.enabled
    ui.transformSelector.setCurrentNode(node)
    click(panel, ui.ownTransformButton)
    slicer.mrmlScene.RemoveNode(node)
    assert "its transform was removed" in ui.timepointsMessage.text


def test_the_aligned_pair_is_faded_in_every_view(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.Views import viewNodes

    analyzed(panel, prepared)
    ui = panel.ui
    volumes = {name: row.volume for name, row in rows_by_name(panel).items()}
    choose(ui.alignmentTimepoint, "followup-1")
    ui.fadeSlider.setValue(30)
    ui.showAlignedButton.click()
    for view in ("Red", "Yellow", "Green"):
        composite, _ = viewNodes(view)
        assert composite.GetBackgroundVolumeID() == volumes["baseline"].GetID()
        assert composite.GetForegroundVolumeID() == volumes["followup-1"].GetID()
        assert composite.GetForegroundOpacity() == pytest.approx(0.3)
    ui.fadeSlider.setValue(80)
    assert viewNodes("Green")[0].GetForegroundOpacity() == pytest.approx(0.8)
    # Another time point, another patient, or another module: the scan lies where it was acquired.
    panel.exit()
    assert volumes["followup-1"].GetParentTransformNode() is None
    assert viewNodes("Red")[0].GetForegroundVolumeID() is None
    panel.enter()
    assert not ui.showAlignedButton.checked
    # A scan that the user keeps under a transform gets it back.
    own = linear_node(slicer)
    volumes["followup-1"].SetAndObserveTransformNodeID(own.GetID())
    ui.showAlignedButton.click()
    assert volumes["followup-1"].GetParentTransformNode() is not own
    ui.showAlignedButton.click()
    assert volumes["followup-1"].GetParentTransformNode() is own


@pytest.mark.parametrize("action", ["lesion", "views", "edit", "seed", "propagate"])
def test_what_needs_scans_as_acquired_ends_the_aligned_pair(panel, slicer, prepared, monkeypatch, action):
    from ImmunoRadiomicsPanel.LesionsSection import LesionsSection
    from ImmunoRadiomicsPanel.Views import viewNodes

    analyzed(panel, prepared)
    ui = panel.ui
    logic = slicer.vtkSlicerMarkupsLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    monkeypatch.setattr(slicer.modules, "markups", SimpleNamespace(logic=lambda: logic), raising=False)
    monkeypatch.setattr(slicer.modules, "segmenteditor", SimpleNamespace(), raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None)
    panel.update()
    volume = rows_by_name(panel)["followup-1"].volume
    choose(ui.alignmentTimepoint, "followup-1")
    ui.showAlignedButton.click()
    assert volume.GetParentTransformNode() is not None
    {
        "lesion": lambda: panel.section(LesionsSection).onLesionClicked(0, 5),
        "views": ui.showViewsButton.click,
        "edit": ui.editSegmentationButton.click,
        "seed": ui.placeSeedButton.click,
        "propagate": ui.propagateButton.click,
    }[action]()
    assert volume.GetParentTransformNode() is None
    assert not ui.showAlignedButton.checked
    assert ui.placeSeedButton.checked == (action == "seed")
    if action in ("lesion", "views"):
        assert viewNodes("Red")[0].GetForegroundVolumeID() is None


def test_over_an_aligned_pair_lie_the_contours_of_the_baseline_alone(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.Views import viewNodes

    analyzed(panel, prepared)
    ui = panel.ui
    ui.showViewsButton.click()
    baseline = rows_by_name(panel)["baseline"].volume
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()

    def contours():
        nodes = [
            node
            for kind in ("vtkMRMLSegmentationNode", "vtkMRMLMarkupsLineNode")
            for node in (
                slicer.mrmlScene.GetNthNodeByClass(i, kind)
                for i in range(slicer.mrmlScene.GetNumberOfNodesByClass(kind))
            )
        ]
        return [
            (node, tuple(node.GetDisplayNode().GetViewNodeIDs()))
            for node in nodes
            if node.GetDisplayNode().GetVisibility()
        ]

    def backgrounds():
        return [viewNodes(view)[0].GetBackgroundVolumeID() for view in ("Red", "Green")]

    before = contours(), backgrounds()
    ui.alignmentTimepoint.setCurrentIndex(ui.alignmentTimepoint.findText("followup-1"))
    ui.showAlignedButton.click()
    assert contours()
    for node, views in contours():
        assert node.GetNodeReferenceID(role) == baseline.GetID()
        assert views == ()
    assert backgrounds() == [baseline.GetID()] * 2
    ui.showAlignedButton.click()
    assert (contours(), backgrounds()) == before


def test_the_checkerboard_shows_both_in_squares_and_goes_again(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.Nodes import volumeImage
    from ImmunoRadiomicsPanel.Views import viewNodes

    parameters = analyzed(panel, prepared)
    ui = panel.ui
    rows = rows_by_name(panel)
    choose(ui.alignmentTimepoint, "followup-2")
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    click(panel, ui.checkerboardButton)
    assert slicer.shown == []
    assert ui.checkerboardButton.checked
    board = slicer.mrmlScene.GetNodeByID(viewNodes("Red")[0].GetBackgroundVolumeID())
    assert not board.GetSaveWithScene()
    fixed = volumeImage(rows["baseline"].volume)
    transform = read_transform(prepared / "out" / "transforms" / "followup-2.h5")
    moving = volumeImage(rows["followup-2"].volume)
    moved = sitk.GetArrayFromImage(
        sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -1024.0, moving.GetPixelID())
    )
    values, own = slicer.util.arrayFromVolume(board), sitk.GetArrayFromImage(fixed)
    z, y, x = (np.arange(n) * s // 32 for n, s in zip(own.shape, fixed.GetSpacing()[::-1], strict=True))
    odd = (z[:, None, None] + y[None, :, None] + x[None, None, :]) % 2 == 1
    np.testing.assert_array_equal(values[~odd], own[~odd])
    np.testing.assert_allclose(values[odd], moved[odd], atol=1)
    assert 0.3 < odd.mean() < 0.7
    assert (own != values).any()
    # It is no time point.
    assert board not in [row.volume for row in panel.logic.rowsFromScene(parameters)]
    click(panel, ui.checkerboardButton)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before
    assert viewNodes("Red")[0].GetBackgroundVolumeID() == rows["baseline"].volume.GetID()
    assert not list(panel.logic.folderOf(parameters).glob("board*"))


# Lesions


def correspondence(panel, timepoint, segment):
    from ImmunoRadiomicsPanel.LesionsSection import LesionsSection

    table = panel.section(LesionsSection).table
    number = next(n for n, row in enumerate(table._rows) if (row.timepoint, row.segment) == (timepoint, segment))
    return table._editors[number].widgets[2]


def test_correspondences_are_edited_handed_to_the_engine_and_reset(panel, slicer, prepared):
    analyzed(panel, prepared)
    ui = panel.ui
    analysis = panel.logic.analysis(panel.parameters)
    ids = [lesion.id for lesion in analysis.lesions]
    first = analysis.lesions[0].at("followup-1").segments[0]
    combo = correspondence(panel, "followup-1", first)
    options = [combo.itemText(index) for index in range(combo.count)]
    assert options == [f"automatic: {ids[0]}", *ids, "a lesion of its own", "not a lesion"]
    assert not ui.resetLinksButton.enabled
    choose(combo, ids[1])
    assert "an input has changed" in ui.lesionsMessage.text
    assert ui.lesionsTable.rowCount == len(ids)
    second = analysis.lesions[1].at("followup-1").segments[0]
    choose(correspondence(panel, "followup-1", second), "a lesion of its own")
    third = analysis.lesions[2].at("baseline").segments[0]
    choose(correspondence(panel, "baseline", third), "not a lesion")
    # What is no lesion is none at any time point, and the segments' table says so.
    assert correspondence(panel, "followup-1", third).currentText == "not a lesion"
    click(panel, ui.runButton)
    assert slicer.shown == []
    study = written_study(panel)
    assert set(study.links) == {LesionLink("followup-1", first, ids[1]), LesionLink("followup-1", second, None)}
    assert LesionSpec(third, ignore=True) in study.lesions
    # They outlive the run, and a time point keeps its own when rows change places.
    assert correspondence(panel, "followup-1", first).currentText == ids[1]
    ui.timepointsTable.setCurrentCell(2, 0)
    ui.moveTimepointUpButton.click()
    assert correspondence(panel, "followup-1", second).currentText == "a lesion of its own"
    click(panel, ui.resetLinksButton)
    assert correspondence(panel, "followup-1", first).currentText == f"automatic: {ids[0]}"
    assert rows_by_name(panel)["followup-1"].links == {}
    click(panel, ui.runButton)
    assert written_study(panel).links == ()
    assert written_study(panel).lesions == ()


def center(view):
    from ImmunoRadiomicsPanel.Views import viewNodes

    matrix = viewNodes(view)[1].GetSliceToRAS()
    return np.array([matrix.GetElement(axis, 3) for axis in range(3)])


def ras(place):
    return np.array([-place[0], -place[1], place[2]])


def test_a_click_shows_a_lesion_in_both_scans_and_the_views_follow_each_other(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.LesionsSection import LesionsSection
    from ImmunoRadiomicsPanel.Views import viewNodes

    parameters = analyzed(panel, prepared)
    section = panel.section(LesionsSection)
    analysis = panel.logic.analysis(parameters)
    names = [record.name for record in sorted(analysis.timepoints, key=lambda record: record.day)]
    column = 3 + names.index("followup-1")
    number, lesion = next(
        (n, item)
        for n, item in enumerate(analysis.lesions)
        if item.at("baseline").centroid_lps_mm and item.at("followup-1").centroid_lps_mm
    )
    panel.ui.showViewsButton.click()
    section.onLesionClicked(number, column)
    # No view shows contours over an image that they were not drawn on.
    views = {"baseline": ("vtkMRMLSliceNodeRed",), "followup-1": ("vtkMRMLSliceNodeYellow",)}
    for record in analysis.timepoints:
        display = slicer.mrmlScene.GetFirstNodeByName(f"P001 {record.name} lesions").GetDisplayNode()
        assert tuple(display.GetViewNodeIDs()) == views.get(record.name, ())
        assert bool(display.GetVisibility()) == (record.name in views)
    assert not any(
        row.segmentation.GetDisplayNode().GetVisibility() for row in rows_by_name(panel).values() if row.segmentation
    )
    volumes = {name: row.volume for name, row in rows_by_name(panel).items()}
    for view, name in (("Red", "baseline"), ("Yellow", "followup-1")):
        assert viewNodes(view)[0].GetBackgroundVolumeID() == volumes[name].GetID()
        assert volumes[name].GetParentTransformNode() is None
        np.testing.assert_allclose(center(view), ras(lesion.at(name).centroid_lps_mm), atol=1e-6)
    # Scrolling one view moves the other to the same anatomy, not to the same coordinates.
    transform = read_transform(prepared / "out" / "transforms" / "followup-1.h5")
    carried = lambda place: ras(transform.TransformPoint(ras(place).tolist()))  # noqa: E731
    start, other = center("Red"), center("Yellow")
    offset = other - carried(start)
    target = start + np.array([9.0, -6.0, 14.0])
    viewNodes("Red")[1].JumpSliceByCentering(*target)
    np.testing.assert_allclose(center("Yellow"), carried(target) + offset, atol=0.05)
    back = center("Yellow") - np.array([3.0, 2.0, 11.0])
    viewNodes("Yellow")[1].JumpSliceByCentering(*back)
    np.testing.assert_allclose(carried(center("Red")) + offset, back, atol=0.05)
    for view in ("Red", "Yellow"):
        viewNodes(view)[1].SetDimensions(400, 300, 1)
    viewNodes("Red")[1].SetFieldOfView(120.0, 90.0, 1.0)
    assert viewNodes("Yellow")[1].GetFieldOfView()[:2] == pytest.approx((120.0, 90.0))
    panel.ui.linkViewsCheckBox.setChecked(False)
    here = center("Yellow")
    viewNodes("Red")[1].JumpSliceByCentering(0.0, 0.0, 0.0)
    np.testing.assert_array_equal(center("Yellow"), here)


def test_views_follow_each_other_only_while_they_show_the_images_they_were_linked_on(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.LesionsSection import LesionsSection

    analyzed(panel, prepared)
    ui, section = panel.ui, panel.section(LesionsSection)
    analysis = panel.logic.analysis(panel.parameters)
    section.onLesionClicked(0, 5)  # at the first follow-up
    assert section.views.linked
    # Both views show the baseline then, and each stays where it was put.
    ui.showViewsButton.click()
    assert not section.views.linked
    largest = max(analysis.lesions, key=lambda lesion: lesion.at("baseline").long_axis_mm or 0.0)
    place = ras(largest.at("baseline").centroid_lps_mm)
    assert center("Red")[2] == pytest.approx(place[2])
    assert center("Yellow")[0] == pytest.approx(place[0])
    # Linked anew on images that lie in one space, they show one place.
    ui.linkViewsCheckBox.setChecked(False)
    ui.linkViewsCheckBox.setChecked(True)
    offset = center("Yellow") - center("Red")
    from ImmunoRadiomicsPanel.Views import viewNodes

    viewNodes("Red")[1].JumpSliceByCentering(*(center("Red") + np.array([20.0, -15.0, 30.0])))
    np.testing.assert_allclose(center("Yellow") - center("Red"), offset, atol=1e-6)


def test_views_are_fitted_when_they_are_laid_out_anew_and_keep_their_zoom_else(panel, slicer, prepared, monkeypatch):
    from ImmunoRadiomicsPanel.LesionsSection import LesionsSection

    analyzed(panel, prepared)
    done = []

    class Manager:
        layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView

        def setLayout(self, layout):
            self.layout = layout
            done.append("laid out")

        def sliceWidget(self, view):
            controller = SimpleNamespace(fitSliceToBackground=lambda: done.append(f"{view} fitted"))
            return SimpleNamespace(sliceController=lambda: controller)

    manager = Manager()
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: manager)
    monkeypatch.setattr(slicer.app, "processEvents", lambda: done.append("events handled"))
    panel.section(LesionsSection).onLesionClicked(0, 4)
    assert done == ["laid out", "events handled", "Red fitted", "Yellow fitted"]
    panel.section(LesionsSection).onLesionClicked(1, 4)
    assert len(done) == 4


def test_a_lesion_that_was_not_seen_is_shown_through_the_transform(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.LesionsSection import _places

    parameters = analyzed(panel, prepared)
    lesion = panel.logic.analysis(parameters).lesions[0]
    transform = panel.logic.transformOf(parameters, "followup-1")
    unseen = dataclasses.replace(
        lesion,
        observations=tuple(
            dataclasses.replace(item, centroid_lps_mm=None) if item.timepoint == "followup-1" else item
            for item in lesion.observations
        ),
    )
    first, second = _places(unseen, "baseline", "followup-1", transform)
    itk = read_transform(prepared / "out" / "transforms" / "followup-1.h5")
    place = lesion.at("baseline").centroid_lps_mm
    np.testing.assert_allclose(first, ras(place))
    np.testing.assert_allclose(second, ras(itk.TransformPoint(place)), atol=0.02)
    assert _places(unseen, "baseline", "followup-1", None)[1] is None


# Segmentation


def sphere_scan(slicer, radius_mm=9.0, center_lps=(12.0, -8.0, 5.0)):
    from ImmunoRadiomicsLib.scene.mrml import fill_volume

    image = sitk.Image(80, 80, 60, sitk.sitkInt16)
    image.SetOrigin((-40.0, -40.0, -30.0))
    z, y, x = np.meshgrid(np.arange(60) - 30.0, np.arange(80) - 40.0, np.arange(80) - 40.0, indexing="ij")
    inside = np.hypot(np.hypot(x - center_lps[0], y - center_lps[1]), z - center_lps[2]) <= radius_mm
    values = np.where(inside, 40, -850) + np.random.default_rng(2).normal(0, 15, inside.shape)
    filled = sitk.GetImageFromArray(values.astype(np.int16))
    filled.CopyInformation(image)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "lung scan")
    fill_volume(node, filled)
    return node, int(inside.sum())


def test_a_lesion_is_segmented_from_a_point(panel, slicer, monkeypatch):
    from ImmunoRadiomicsPanel.SegmentationSection import SegmentationSection

    _node, voxels = sphere_scan(slicer)
    logic = slicer.vtkSlicerMarkupsLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    assert "no Markups" in panel.ui.placeSeedButton.toolTip
    monkeypatch.setattr(slicer.modules, "markups", SimpleNamespace(logic=lambda: logic), raising=False)
    panel.ui.fillTimepointsButton.click()
    panel.ui.placeSeedButton.click()
    interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    seed = panel.section(SegmentationSection)._seed
    seed.AddControlPointWorld(-13.0, 9.0, 4.0)
    wait(lambda: panel.work is not None)
    assert interaction.GetCurrentInteractionMode() != interaction.Place
    assert not panel.ui.placeSeedButton.checked
    wait(lambda: panel.work is None)
    assert slicer.shown == []
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0
    segmentation = rows_by_name(panel)["baseline"].segmentation
    assert segmentation.GetSegmentation().GetNthSegment(0).GetName() == "L1"
    labelmap = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segmentation.GetSegmentation().GetNthSegmentID(0), labelmap)
    from ImmunoRadiomicsLib.scene.mrml import image_array

    assert np.count_nonzero(image_array(labelmap)) == pytest.approx(voxels, rel=0.12)
    assert panel.ui.runMessage.text.startswith("L1 was added. Check it.")
    # A click into air is refused in words, and the place is free again.
    panel.section(SegmentationSection).segmentAt([0.0, 0.0, -25.0])
    wait(lambda: panel.work is None)
    ((text, _),) = slicer.shown
    assert "seed" in text
    assert panel.ui.placeSeedButton.enabled


def test_what_segments_are_is_said_to_the_engine(panel, slicer):
    from ImmunoRadiomicsPanel.Logic import lesionSpecs
    from ImmunoRadiomicsPanel.Timepoints import Kind, SegmentMeaning

    drawn = ["L1", "N1", "left lung", "fat pad", "old", "L2"]
    meanings = [
        SegmentMeaning("L1", "liver", "target", Kind.LESION),
        SegmentMeaning("N1", kind=Kind.NODE),
        SegmentMeaning("left lung", kind=Kind.ORGAN),
        SegmentMeaning("fat pad", kind=Kind.ORGAN),
        SegmentMeaning("old", kind=Kind.NOTHING),
        SegmentMeaning("gone", kind=Kind.LESION),
    ]
    assert lesionSpecs(meanings, drawn) == (
        LesionSpec("L1", "liver", "target", False),
        LesionSpec("N1", None, None, True),
        LesionSpec("fat pad", ignore=True),
        LesionSpec("old", ignore=True),
    )


# DICOM


class Database:
    """ctkDICOMDatabase as far as the panel asks it; anything else raises."""

    isOpen = True

    def __init__(self, series):
        self._series = series  # uid: (patient, study, images, values)

    def patients(self):
        return tuple(dict.fromkeys(item[0] for item in self._series.values()))

    def studiesForPatient(self, patient):
        return tuple(dict.fromkeys(item[1] for item in self._series.values() if item[0] == patient))

    def seriesForStudy(self, study):
        return tuple(uid for uid, item in self._series.items() if item[1] == study)

    def instancesForSeries(self, uid, hits=-1):
        count = self._series[uid][2]
        return tuple(f"{uid}.{number}" for number in range(count if hits < 0 else min(hits, count)))

    def descriptionForSeries(self, uid):
        return f"series {uid}"

    def instanceValue(self, instance, tag):
        return self._series[instance.rpartition(".")[0]][3].get(tag, "")


PERSON = {"0010,0020": "CASE-7", "0010,0040": "F", "0010,1010": "064Y", "0008,1080": "NSCLC", "0012,0020": "TRIAL-1"}
SCANNER = {
    "0018,0060": "120",
    "0018,1210": "B70f\\B30f",
    "0018,0050": "1.25",
    "0018,0010": "iomeprol",
    "0008,0070": "ACME",
}


def database():
    def ct(date, **more):
        return {"0008,0060": "CT", "0008,0020": date, **PERSON, **SCANNER, **more}

    return Database(
        {
            "1.1": ("p1", "s1", 60, ct("20240110")),
            "1.2": ("p1", "s1", 300, ct("20240110")),
            "1.3": ("p1", "s1", 3, ct("20240110")),
            "2.1": ("p1", "s2", 280, ct("20240312")),
            "2.2": ("p1", "s2", 280, {**ct("20240312"), "0008,0060": "PT"}),
            "9.1": ("p2", "s9", 40, {**ct("20200101"), "0010,0020": "A-1", "0018,0060": "7"}),
        }
    )


def load_into_scene(slicer, uids):
    from ImmunoRadiomicsLib.scene.mrml import fill_volume

    nodes = []
    for uid in uids:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"volume {uid}")
        fill_volume(node, sitk.Image(6, 5, 4, sitk.sitkInt16))
        node.SetAttribute("DICOM.instanceUIDs", f"{uid}.0 {uid}.1")
        nodes.append(node.GetID())
    return nodes


def test_a_patient_is_chosen_from_the_dicom_database(panel, slicer, monkeypatch):
    from ImmunoRadiomicsPanel.ParameterNode import Setting, Sex

    ui = panel.ui
    assert not ui.dicomLoadButton.enabled
    assert ui.dicomLoadButton.toolTip == "There is no open DICOM database."
    monkeypatch.setattr(slicer, "dicomDatabase", database(), raising=False)
    tools = SimpleNamespace(loadSeriesByUID=lambda uids: load_into_scene(slicer, uids))
    monkeypatch.setitem(sys.modules, "DICOMLib", SimpleNamespace(DICOMUtils=tools))
    panel.update()
    ui.dicomRefreshButton.click()
    assert [ui.dicomPatientCombo.itemText(i) for i in range(ui.dicomPatientCombo.count)] == ["A-1", "CASE-7"]
    choose(ui.dicomPatientCombo, "CASE-7")
    assert texts(ui.dicomSeriesTable) == [
        ["2024-01-10", "series 1.2", "300"],
        ["2024-01-10", "series 1.1", "60"],
        ["2024-03-12", "series 2.1", "280"],
    ]
    ui.dicomLoadButton.click()
    assert slicer.shown == []
    rows = rows_by_name(panel)
    assert {name: (row.volume.GetName(), row.date) for name, row in rows.items()} == {
        "baseline": ("volume 1.2", "2024-01-10"),
        "followup-1": ("volume 2.1", "2024-03-12"),
    }
    parameters = panel.parameters
    assert (parameters.patient, parameters.tumor, parameters.age) == ("CASE-7", "NSCLC", "64")
    assert parameters.sex is Sex.FEMALE
    assert parameters.setting is Setting.TRIAL
    request = panel.logic.request(parameters)
    acquisition = request.timepoints[0].acquisition
    assert (acquisition.kvp, acquisition.kernel, acquisition.slice_thickness_mm) == (120.0, "B70f", 1.25)
    assert (acquisition.contrast, acquisition.manufacturer, acquisition.model) == (True, "ACME", None)
    # A second patient is a new one; a tube voltage that cannot be is not taken.
    choose(ui.dicomPatientCombo, "A-1")
    ui.dicomLoadButton.click()
    assert panel.parameters.patient == "A-1"
    assert parameters.patient == "CASE-7"
    from ImmunoRadiomicsPanel.DicomDatabase import acquisitionOf

    assert acquisitionOf(rows_by_name(panel)["baseline"].volume).kvp is None
    database_closed = Database({})
    database_closed.isOpen = False
    monkeypatch.setattr(slicer, "dicomDatabase", database_closed)
    ui.dicomRefreshButton.click()
    panel.onModified()
    assert not ui.dicomRefreshButton.enabled


# Clinical


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("albumin", "3.6", "3.6 is outside 10 to 70 (g/L; multiply g/dL by 10)."),
        ("neutrophils", "6100", "6100 is outside 0 to 200 (10^9/L; divide cells per microliter by 1000)."),
        ("ecog", "2.5", "2.5: give a whole number, or leave it empty."),
        ("ecog", "5", "5 is outside 0 to 4 (ECOG performance status)."),
        ("pdl1", "-1", "-1 is outside 0 to 100 (%)."),
        ("ldh", "nan", "nan: give a number, or leave it empty."),
        ("ldh", "310", ""),
    ],
)
def test_a_value_that_cannot_be_is_said_beside_its_field(panel, field, text, said):
    ui = panel.ui
    getattr(ui, f"{field}Edit").text = text
    message = getattr(ui, f"{field}Message")
    assert message.text == said
    assert ui.clinicalSection.text == ("6. Clinical (problem)" if said else "6. Clinical (optional)")
    getattr(ui, f"{field}Edit").text = ""
    assert message.text == ""


def test_parts_of_the_blood_count_do_not_exceed_the_whole(panel):
    panel.ui.leukocytesEdit.text = "8"
    panel.ui.neutrophilsEdit.text = "6.8"
    assert panel.ui.leukocytesMessage.text == ""
    panel.ui.lymphocytesEdit.text = "1.6"
    assert panel.ui.leukocytesMessage.text == "Neutrophils and lymphocytes together exceed the leukocytes."


def test_the_form_refuses_what_the_engine_refuses(slicer):
    from ImmunoRadiomicsPanel.Facts import NUMBERS, WHOLE_NUMBERS, unitText

    from ImmunoRadiomicsLib.study import clinical_limits

    assert set(clinical_limits()) == {*NUMBERS, *WHOLE_NUMBERS}
    assert all(unitText(field) for field in clinical_limits())
