"""How the results of patients live in a scene: cleared, kept apart, saved, opened again."""

# ruff: noqa: F811 - fixtures are imported under their names

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer_stand_in
from panel_patient import (  # noqa: F401
    analyzed,
    copy_of,
    give_result,
    new_panel,
    panel,
    prepared,
    slicer,
    texts,
    wait,
)

from ImmunoRadiomicsLib.alignment import read_transform
from ImmunoRadiomicsLib.transforms import transform_points


def cards(panel) -> list[str]:
    ui = panel.ui
    return [ui.pseudoprogressionLabel.text, ui.hyperprogressionLabel.text, ui.pneumonitisLabel.text]


def shown(panel):
    """Everything that the panel shows of a result."""
    ui = panel.ui
    tables = (ui.lesionsTable, ui.visitsTable, ui.lungTable, ui.alignmentTable)
    sections = (ui.alignmentSection, ui.lesionsSection, ui.runSection, ui.resultsSection)
    return (
        cards(panel),
        [texts(table) for table in tables],
        [section.text for section in sections],
        ui.resultsMessage.text,
    )


def chart(slicer, patient="P001"):
    return slicer.mrmlScene.GetFirstNodeByName(f"{patient} lesion sizes")


def test_a_result_is_cleared_when_an_input_changes_and_comes_back_with_it(panel, slicer, prepared):
    analyzed(panel, prepared)
    assert slicer.shown == []
    before = shown(panel)
    assert all(before[0])
    assert panel.ui.resultsSection.text == "8. Results (done)"
    assert chart(slicer).GetTitle() == "P001: lesion sizes"
    panel.ui.ldhEdit.text = "310"
    assert cards(panel) == ["", "", ""]
    assert panel.ui.visitsTable.rowCount == 0
    assert panel.ui.resultsSection.text == "8. Results (problem)"
    assert panel.ui.resultsMessage.text.startswith("An input has changed since the last run")
    assert "an input has changed since" in panel.ui.lesionsMessage.text
    assert not panel.ui.exportButton.enabled
    assert panel.ui.exportButton.toolTip.startswith("An input has changed")
    assert chart(slicer).GetTitle() == "P001: lesion sizes (out of date: an input has changed)"
    assert slicer.mrmlScene.GetFirstNodeByName("P001 flags").GetDescription() == "(out of date: an input has changed)"
    # The alignment does not rest on blood values.
    assert texts(panel.ui.alignmentTable) == before[1][3]
    panel.ui.ldhEdit.text = ""
    assert shown(panel) == before
    assert chart(slicer).GetTitle() == "P001: lesion sizes"


def test_edited_voxels_put_result_and_alignment_out_of_date(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.Timepoints import readRows

    parameters = analyzed(panel, prepared)
    node = readRows(parameters.parameterNode)[1].volume
    slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + 1)
    assert cards(panel) == ["", "", ""]
    assert panel.ui.alignmentTable.rowCount == 0


def test_a_result_does_not_fit_choices_that_changed_while_it_was_made(panel, slicer, prepared):
    give_result(panel, prepared)
    panel.setParameterNode(panel.logic.loadStudy(prepared / "study.yaml"))
    panel.ui.runButton.click()
    panel.ui.albuminEdit.text = "36"
    wait(lambda: panel.work is None)
    assert panel.ui.resultsSection.text == "8. Results (problem)"
    assert chart(slicer).GetTitle().endswith("(out of date: an input has changed)")


def test_a_saved_and_reopened_scene_shows_the_same(panel, slicer, prepared, tmp_path):
    analyzed(panel, prepared)
    panel.ui.acceptAlignmentButton.click()
    panel.ui.showAlignedButton.click()
    before = shown(panel)
    nodes = [
        (node.GetName(), node.GetClassName())
        for name in ("vtkMRMLTableNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLSegmentationNode")
        for node in slicer.util.getNodesByClass(name)
    ]
    rows = {
        name: slicer.util.arrayFromTableColumn(slicer.util.getNode("P001 sizes"), name).tolist()
        for name in ("day", "sum_mm")
    }
    path = tmp_path / "saved.mrb"
    messages = slicer.vtkMRMLMessageCollection()
    assert slicer.mrmlScene.WriteToMRB(str(path), None, messages), messages.GetAllMessagesAsString()
    panel.cleanup()

    scene = slicer_stand_in.new_scene(slicer)
    again = new_panel(slicer)
    assert cards(again) == ["", "", ""]
    slicer_stand_in.read_bundle(slicer, path, tmp_path / "cache")
    assert slicer.mrmlScene is scene
    # It was saved while a scan was shown on the baseline; it is opened as it was acquired.
    assert not any(node.GetParentTransformNode() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    # The patient of the scene takes the place of the blank one.
    assert [item.patient for item in again.logic.patients()] == ["P001"]
    assert shown(again) == before
    assert again.ui.patientEdit.text == "P001"
    assert again.ui.timepointsTable.rowCount == 4
    found = [
        (node.GetName(), node.GetClassName())
        for name in ("vtkMRMLTableNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLSegmentationNode")
        for node in slicer.util.getNodesByClass(name)
    ]
    assert sorted(found) == sorted(nodes)
    for name, values in rows.items():
        table = slicer.util.getNode("P001 sizes")
        assert slicer.util.arrayFromTableColumn(table, name).tolist() == pytest.approx(values, nan_ok=True)
    written = again.logic.export(again.parameters, tmp_path / "export")
    assert (tmp_path / "export" / "analysis.json").read_bytes() == (prepared / "out" / "analysis.json").read_bytes()
    assert {"flags.csv", "lesions.csv", "features.csv", "report.html"} <= {item.name for item in written}
    again.ui.showAlignedButton.click()
    assert slicer.shown == []
    again.cleanup()


@pytest.mark.parametrize("opened_first", [False, True])
def test_a_reopened_scene_carries_places_as_the_engine_does(panel, slicer, prepared, tmp_path, opened_first):
    analyzed(panel, prepared)
    path = tmp_path / "saved.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path), None, slicer.vtkMRMLMessageCollection())
    panel.cleanup()
    slicer_stand_in.new_scene(slicer)
    again = None if opened_first else new_panel(slicer)
    slicer_stand_in.read_bundle(slicer, path, tmp_path / "cache")
    again = again or new_panel(slicer)
    truth = read_transform(prepared / "out" / "transforms" / "followup-1.h5")
    points = np.random.default_rng(3).uniform((-150, -110, -140), (150, 110, 140), (100, 3))
    to_ras = np.array([-1.0, -1.0, 1.0])
    there = transform_points(points, truth)
    node = slicer.util.getNode("P001 followup-1 to baseline")
    for general, begin, end in (
        (node.GetTransformFromParent(), points, there),
        (node.GetTransformToParent(), there, points),
    ):
        carried = np.array([general.TransformPoint((point * to_ras).tolist()) for point in begin]) * to_ras
        assert np.abs(carried - end).max() < 1e-3
    again.cleanup()


def test_two_patients_of_one_scene_keep_their_own_results(panel, slicer, prepared, tmp_path):
    first = analyzed(panel, prepared).parameterNode
    one = shown(panel)
    other = copy_of(prepared, tmp_path / "other", "P002")
    second = analyzed(panel, other).parameterNode
    assert slicer.shown == []
    assert panel.ui.patientEdit.text == "P002"
    assert chart(slicer) is not None
    assert chart(slicer, "P002") is not None
    panel.ui.patientSelector.setCurrentNode(first)
    assert shown(panel) == one
    panel.ui.ldhEdit.text = "310"
    assert cards(panel) == ["", "", ""]
    panel.ui.patientSelector.setCurrentNode(second)
    assert all(cards(panel))
    assert chart(slicer, "P002").GetTitle() == "P002: lesion sizes"
    panel.ui.patientEdit.text = "P001"
    assert "Another patient of the scene has this code. Give each its own." in panel.ui.patientMessage.text
    assert not panel.ui.runButton.enabled


def test_the_views_show_every_lesion_in_the_color_of_its_course(panel, slicer, prepared):
    from ImmunoRadiomicsPanel.Timepoints import readRows

    parameters = analyzed(panel, prepared)
    panel.ui.showViewsButton.click()
    assert slicer.shown == []
    analysis = panel.logic.analysis(parameters)
    last = slicer.mrmlScene.GetFirstNodeByName("P001 followup-2 lesions")
    assert last.GetDisplayNode().GetVisibility()
    assert last.GetSegmentation().ContainsRepresentation("Closed surface")
    from ImmunoRadiomicsLib.scene import lesion_course

    for lesion in analysis.lesions:
        segment = last.GetSegmentation().GetSegment(lesion.id)
        if segment is not None:
            assert segment.GetColor() == pytest.approx(lesion_course(lesion, analysis).colour)
    assert not readRows(parameters.parameterNode)[1].segmentation.GetDisplayNode().GetVisibility()


def test_what_is_new_in_the_lungs_is_shown(panel, slicer, prepared):
    analyzed(panel, prepared)
    rows = texts(panel.ui.lungTable)
    assert rows[0] == ["followup-1", "both", "21.4", "2.2", "0.48", ""]
    assert rows[3][2] == "not assessable"
    assert "outside 0.85 to 1.15" in rows[3][5]


def test_the_console_analyzes_a_patient_as_the_panel_shows_it(panel, slicer, prepared):
    from ImmunoRadiomics import ImmunoRadiomicsLogic

    give_result(panel, prepared)
    logic = ImmunoRadiomicsLogic(panel.logic._processFactory)
    parameters = logic.loadStudy(prepared / "study.yaml")
    assert [item.patient for item in logic.patients()] == ["", "P001"]
    analysis = logic.analyzePatient(logic.patients()[-1])
    assert {flag.flag for flag in analysis.flags} == {"pseudoprogression", "hyperprogression", "pneumonitis"}
    panel.ui.patientSelector.setCurrentNode(parameters.parameterNode)
    assert all(cards(panel))
    logic.forgetFolders()


# Bundles of the user's own


def own_bundle(folder: Path) -> Path:
    """The shipped evidence bundle about hyperprogression as one of the user's own."""
    from ImmunoRadiomicsLib.classifiers import seal_bundle
    from ImmunoRadiomicsLib.resources import resource

    shutil.copytree(resource("Classifiers") / "hyperprogression-evidence", folder)
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**card, "title": "Risk of our centre"}), encoding="utf-8")
    seal_bundle(folder)
    return folder


def test_bundles_of_the_user_are_verified_shown_kept_and_given_to_the_engine(
    panel, slicer, prepared, monkeypatch, tmp_path
):
    import qt

    analyzed(panel, prepared)
    ui, chosen = panel.ui, []
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: chosen[-1], raising=False)

    def add(folder):
        chosen.append(str(folder))
        ui.addBundleButton.click()

    assert not ui.bundlesTable.visible
    assert ui.removeBundleButton.toolTip == "Choose a bundle in the table first."
    add("")
    assert slicer.shown == []
    own = own_bundle(tmp_path / "own")
    add(own)
    assert texts(ui.bundlesTable) == [["hyperprogression", "Risk of our centre", "evidence model", str(own)]]
    # The result rests on other bundles now.
    assert ui.resultsSection.text == "8. Results (problem)"
    assert panel.logic.request(panel.parameters).bundles == (str(own),)
    # What is no bundle, or a second one of the flag, is refused with its reason and not taken up.
    empty = tmp_path / "empty"
    empty.mkdir()
    add(empty)
    add(own_bundle(tmp_path / "second"))
    assert [text.split(". ", 1)[0] for text, _ in slicer.shown] == ["The bundle is not used"] * 2
    assert "cannot be read" in slicer.shown[0][0]
    assert f"{own} answers hyperprogression already" in slicer.shown[1][0]
    assert ui.bundlesTable.rowCount == 1
    # The engine is told.
    started = []
    run = panel.logic._processFactory

    class Recorded(run):
        def start(self, arguments, logPath, environment):
            started.append(list(arguments))
            super().start(arguments, logPath, environment)

    panel.logic._processFactory = Recorded
    ui.runButton.click()
    wait(lambda: panel.work is None)
    said = next(arguments for arguments in started if "analyze" in arguments)
    assert said[said.index("--bundle") + 1] == str(own)
    # A bundle that was changed afterwards keeps the patient from being analysed, and says why.
    model = own / "model.json"
    model.write_text(model.read_text(encoding="utf-8") + " ", encoding="utf-8")
    panel.update()
    assert not ui.runButton.enabled
    assert "was changed after the card was sealed" in ui.runButton.toolTip
    assert "was changed after the card was sealed" in texts(ui.bundlesTable)[0][2]
    ui.bundlesTable.setCurrentCell(0, 0)
    assert ui.removeBundleButton.enabled
    ui.removeBundleButton.click()
    assert not ui.bundlesTable.visible
    assert ui.runButton.enabled
    assert panel.parameters.bundles == ""


def test_a_trained_bundle_shows_what_it_weighs(panel, tmp_path):
    from ImmunoRadiomicsPanel.Bundles import BundleReader

    from ImmunoRadiomicsLib.resources import resource

    (found,) = BundleReader().read([str(resource("Classifiers") / "simulated-pneumonitis-trained")])
    assert (found.flag, found.problem) == ("pneumonitis", "")
    assert found.weight == "weight 0: simulation-trained, not for patients"
