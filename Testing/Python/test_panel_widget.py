"""The panel over stand-ins for Qt and Slicer, with real MRML and real engine processes."""

# ruff: noqa: F811 - fixtures are imported under their names

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import vtk

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer_stand_in
from panel_patient import panel, process_that, slicer, wait  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "ImmunoRadiomics"


@pytest.fixture(scope="module")
def virtual_patient(tmp_path_factory) -> Path:
    """A virtual patient of two time points, made by the panel's own task."""
    folder = tmp_path_factory.mktemp("virtual")
    path = os.pathsep.join([str(MODULE), str(ROOT)])
    command = [sys.executable, "-m", "ImmunoRadiomicsPanel.Tasks", "patient", str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    study = folder / "study.yaml"
    text = study.read_text()
    study.write_text(re.sub(r"- name: prebaseline\n(  .*\n)+", "", text))
    return study


def timepoint_table(panel):
    from ImmunoRadiomicsPanel.TimepointsSection import TimepointsSection

    return panel.section(TimepointsSection).table


def lesions_section(panel):
    from ImmunoRadiomicsPanel.LesionsSection import LesionsSection

    return panel.section(LesionsSection)


def running_process(panel):
    """The process of the running work, once it has begun."""
    wait(lambda: panel.work is None or panel.work.run is not None, 60)
    return panel.work.run._process


def volume(slicer, name, date="", size=(8, 9, 10)):
    from ImmunoRadiomicsLib.scene.mrml import fill_volume

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    fill_volume(node, sitk.GetImageFromArray(np.zeros(size, np.int16)))
    if date:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "P7")
        hierarchy.SetItemAttribute(subject, "DICOM.PatientID", "P7")
        study = hierarchy.CreateStudyItem(subject, name)
        hierarchy.SetItemAttribute(study, "DICOM.StudyDate", date)
        hierarchy.CreateItem(study, node)
    return node


def test_every_parameter_has_one_widget_and_follows_it_both_ways(panel):
    import qt

    found = {}
    for widget in vars(panel.ui).values():
        if name := widget.property("SlicerParameterName"):
            assert name not in found
            found[name] = widget
    # The list of bundle folders is shown in a table and changed by buttons.
    assert set(found) == set(panel.parameters.allParameters) - {"bundles"}
    for name, widget in found.items():
        if isinstance(widget, qt.QLineEdit):
            widget.text = f"text of {name}"
            assert getattr(panel.parameters, name) == f"text of {name}"
            setattr(panel.parameters, name, "")
            assert widget.text == ""
        elif isinstance(widget, qt.QSpinBox):
            widget.value = 3
            assert getattr(panel.parameters, name) == 3
        else:
            kind = panel.parameters.allParameters[name].kind
            assert widget.count == len(kind)
            widget.currentIndex = 1
            assert getattr(panel.parameters, name) == list(kind)[1]
            setattr(panel.parameters, name, next(iter(kind)))
            assert widget.currentIndex == 0


def test_every_choice_of_the_clinical_form_is_one_of_the_engine(slicer):
    import typing

    from ImmunoRadiomicsPanel import Facts, ParameterNode

    from ImmunoRadiomicsLib.study import Clinical

    fields = {*Facts.WHOLE_NUMBERS, *Facts.NUMBERS, *Facts.ANSWERS, *Facts.CHOICES, "histology"}
    kinds = typing.get_type_hints(Clinical)
    assert fields == set(kinds)
    for field, parameter in Facts.CHOICES.items():
        kind = ParameterNode.ImmunoRadiomicsParameterNode.allParameters[parameter].kind
        literal = typing.get_args(kinds[field])[0]
        assert {item.value for item in kind} == {"", *typing.get_args(literal)}


def test_the_form_has_every_widget_that_the_code_names():
    form = (MODULE / "Resources" / "UI" / "ImmunoRadiomics.ui").read_text()
    names = re.findall(r'name="(\w+)"', form)
    used = set()
    for path in (MODULE / "ImmunoRadiomicsPanel").glob("*.py"):
        used |= set(re.findall(r"\bui\.(\w+)", path.read_text()))
    assert used - set(names) == set()


def test_no_sentence_for_the_user_is_put_together_before_it_is_translated():
    for path in [MODULE / "ImmunoRadiomics.py", *(MODULE / "ImmunoRadiomicsPanel").glob("*.py")]:
        assert not re.findall(r"\b_\(\s*f[\"']", path.read_text()), path.name


def test_the_button_says_why_it_cannot_run(panel, slicer):
    run = panel.ui.runButton
    assert not run.enabled
    assert "Give the patient a code" in run.toolTip
    panel.ui.patientEdit.text = "P1"
    assert "code" not in run.toolTip
    assert "at least two time points" in run.toolTip
    volume(slicer, "first", "20240110")
    volume(slicer, "second", "20240312")
    panel.ui.fillTimepointsButton.click()
    assert run.enabled
    assert run.toolTip.startswith("Analyze")
    panel.ui.ldhEdit.text = "high"
    assert not run.enabled
    assert run.toolTip == "high: give a number, or leave it empty."
    assert panel.ui.ldhMessage.text == "high: give a number, or leave it empty."
    assert panel.ui.clinicalSection.text == "6. Clinical (problem)"


def test_time_points_are_filled_from_dicom_with_dates_and_roles(panel, slicer):
    from ImmunoRadiomicsPanel.Timepoints import Role, readRows, timepointNames

    panel.ui.treatmentStartEdit.text = "2024-01-15"
    for name, date in (("late", "20240312"), ("early", "20231120"), ("middle", "20240110")):
        volume(slicer, name, date)
    panel.ui.fillTimepointsButton.click()
    rows = readRows(panel.parameters.parameterNode)
    assert panel.parameters.patient == "P7"
    assert [row.volume.GetName() for row in rows] == ["early", "middle", "late"]
    assert [row.role for row in rows] == [Role.PREBASELINE, Role.BASELINE, Role.FOLLOWUP]
    assert timepointNames(rows) == ["prebaseline", "baseline", "followup-1"]
    panel.ui.fillTimepointsButton.click()
    assert len(readRows(panel.parameters.parameterNode)) == 3


def test_wrong_dates_are_said_at_once(panel, slicer):
    volume(slicer, "first", "20240110")
    volume(slicer, "second", "20240312")
    panel.ui.fillTimepointsButton.click()
    date = timepoint_table(panel)._editors[1].widgets[1]
    for text, said in (
        ("2024-01-10", "Several time points have the date 2024-01-10."),
        ("2023-01-10", "Time point 2: a follow-up lies before the baseline."),
        ("12.3.2024", "Time point 2: give the date as YYYY-MM-DD."),
        ("2999-01-01", "Time point 2: the date lies in the future."),
    ):
        date.text = text
        assert panel.ui.timepointsMessage.text == said
        assert panel.ui.timepointsSection.text == "2. Time points (problem)"
    date.text = "2024-03-12"
    assert panel.ui.timepointsSection.text == "2. Time points (done)"


def test_time_points_are_added_moved_and_removed(panel, slicer):
    from ImmunoRadiomicsPanel.Timepoints import Role, readRows

    node = panel.parameters.parameterNode
    panel.ui.addTimepointButton.click()
    panel.ui.addTimepointButton.click()
    assert [row.role for row in readRows(node)] == [Role.BASELINE, Role.FOLLOWUP]
    scan = volume(slicer, "scan")
    timepoint_table(panel)._editors[0].widgets[2].setCurrentNode(scan)
    assert readRows(node)[0].volume is scan
    panel.ui.timepointsTable.setCurrentCell(0, 0)
    panel.ui.moveTimepointDownButton.click()
    assert readRows(node)[1].volume is scan
    slicer.mrmlScene.RemoveNode(scan)
    assert readRows(node)[1].volume is None
    panel.ui.timepointsTable.setCurrentCell(1, 0)
    panel.ui.removeTimepointButton.click()
    assert [row.role for row in readRows(node)] == [Role.FOLLOWUP]
    assert panel.ui.timepointsTable.rowCount == 1


def test_patients_of_one_scene_are_kept_apart(panel, slicer):
    panel.ui.patientEdit.text = "P1"
    first = panel.parameters.parameterNode
    panel.ui.newPatientButton.click()
    assert panel.ui.patientEdit.text == ""
    panel.ui.patientEdit.text = "P2"
    panel.ui.patientSelector.setCurrentNode(first)
    assert panel.ui.patientEdit.text == "P1"
    slicer.mrmlScene.RemoveNode(first)
    assert panel.ui.patientEdit.text == "P2"
    slicer.mrmlScene.RemoveNode(panel.parameters.parameterNode)
    wait(lambda: panel.parameters is not None, 5)
    assert panel.ui.patientEdit.text == ""
    panel.ui.patientEdit.text = "P3"
    assert panel.parameters.patient == "P3"


def test_leaving_and_entering_keeps_the_choices_and_no_observer_too_many(panel, recwarn):
    panel.ui.patientEdit.text = "P1"
    before = len(panel.Observations)
    for _ in range(3):
        panel.exit()
        panel.exit()
        panel.enter()
        panel.enter()
    assert len(panel.Observations) == before
    assert panel.ui.patientEdit.text == "P1"
    assert not recwarn.list


def test_choices_come_back_with_a_saved_scene(panel, slicer, tmp_path):
    from ImmunoRadiomicsPanel.Logic import ImmunoRadiomicsLogic
    from ImmunoRadiomicsPanel.ParameterNode import Knowledge
    from ImmunoRadiomicsPanel.Timepoints import (
        Kind,
        SegmentMeaning,
        TimepointRow,
        readMeanings,
        readRows,
        writeMeanings,
        writeRows,
    )

    panel.ui.patientEdit.text = "P1"
    panel.parameters.honeycombing = Knowledge.NO
    node = panel.parameters.parameterNode
    writeRows(node, [TimepointRow(volume(slicer, "scan"), None, "2024-01-10")])
    writeMeanings(node, [SegmentMeaning("N1", "lymph node", "target", Kind.NODE), SegmentMeaning("L1")])
    path = tmp_path / "scene.mrml"
    scene = slicer.mrmlScene
    scene.SetURL(str(path))
    assert scene.Commit()
    slicer_stand_in.new_scene(slicer)
    slicer.mrmlScene.SetURL(str(path))
    slicer.mrmlScene.Import()
    again = ImmunoRadiomicsLogic().getParameterNode()
    assert again.patient == "P1"
    assert again.honeycombing is Knowledge.NO
    assert [(row.volume.GetName(), row.date) for row in readRows(again.parameterNode)] == [("scan", "2024-01-10")]
    assert readMeanings(again.parameterNode) == {"N1": SegmentMeaning("N1", "lymph node", "target", Kind.NODE)}
    slicer.mrmlScene = scene


def start_patient(panel, virtual_patient):
    """Show the virtual patient, prepared for a quick run."""
    from ImmunoRadiomicsPanel.ParameterNode import AlignmentEngine, Preset

    parameters = panel.logic.loadStudy(virtual_patient)
    parameters.preset = Preset.FAST
    parameters.alignmentEngine = AlignmentEngine.RIGID
    panel.setParameterNode(parameters)
    return parameters


def test_a_patient_goes_from_load_to_flags_and_back_from_the_scene(panel, slicer, virtual_patient, tmp_path):
    parameters = start_patient(panel, virtual_patient)
    ui = panel.ui
    assert ui.segmentsTable.rowCount > 3
    assert ui.runButton.enabled, ui.runButton.toolTip
    assert not ui.exportButton.enabled
    ui.runButton.click()
    assert panel.work is not None
    assert not ui.runButton.enabled
    assert "running" in ui.runButton.toolTip
    stages = set()

    def done():
        stages.add(ui.runMessage.text.partition(":")[0])
        return panel.work is None

    wait(done, 400)
    assert slicer.shown == []
    assert {"Alignment", "Radiomics"} <= stages
    analysis = panel.logic.analysis(parameters)
    assert ui.resultsSection.text == "8. Results (done)"
    for flag in analysis.flags:
        text = getattr(ui, f"{flag.flag}Label").text
        assert flag.bundle in text
        if flag.status == "assessed":
            assert f"{flag.probability:.0%} ({flag.lower:.0%} to {flag.upper:.0%})" in text
            counted = [item for item in flag.evidence if item.use == "used" and abs(item.log_odds) >= 0.005]
            assert text.count("bgcolor") == len(counted)
    assert ui.lesionsTable.rowCount == len(analysis.lesions)
    assert ui.visitsTable.item(0, 3).text() == analysis.response.visits[0].recist
    assert ui.alignmentTable.item(0, 2).text() == analysis.alignments[0].quality.verdict

    # A click on a size shows the lesion at that time point, where it was acquired.
    index = next(
        i for i, item in enumerate(analysis.lesions) if item.at("followup-1") and item.at("followup-1").centroid_lps_mm
    )
    lesions_section(panel).onLesionClicked(index, 4)
    place = analysis.lesions[index].at("followup-1").centroid_lps_mm
    composite, view = _views("Yellow")
    assert slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID()).GetName() == "P0001 followup-1 CT"
    assert view.GetSliceToRAS().GetElement(2, 3) == pytest.approx(place[2], abs=1e-3)

    # The follow-up lies on the baseline only while the button is down.
    followup = slicer.mrmlScene.GetFirstNodeByName("P0001 followup-1 CT")
    ui.showAlignedButton.click()
    assert followup.GetParentTransformNode() is panel.logic.transformOf(parameters, "followup-1")
    ui.showAlignedButton.click()
    assert followup.GetParentTransformNode() is None

    first = panel.logic.export(parameters, tmp_path / "first")
    assert {"analysis.json", "report.html", "flags.csv", "lesions.csv"} <= {path.name for path in first}
    panel.logic.forgetFolders()
    again = panel.logic.export(parameters, tmp_path / "again")
    assert {"analysis.json", "report.html", "flags.csv", "lesions.csv"} <= {path.name for path in again}
    for name in ("analysis.json", "report.html", "flags.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes(), name

    ui.ldhEdit.text = "999"
    assert panel.logic.analysis(parameters) is None
    assert not ui.exportButton.enabled
    assert ui.pneumonitisLabel.text == ""
    assert ui.visitsTable.rowCount == 0
    assert "out of date" in ui.resultsMessage.text
    assert "an input has changed" in ui.lesionsMessage.text


def _views(name):
    from ImmunoRadiomicsPanel.Views import viewNodes

    return viewNodes(name)


@pytest.mark.slow
def test_the_console_analyzes_nodes_without_a_panel(slicer, virtual_patient):
    from ImmunoRadiomicsPanel.Logic import ImmunoRadiomicsLogic
    from ImmunoRadiomicsPanel.Timepoints import readRows

    logic = ImmunoRadiomicsLogic()
    parameters = logic.loadStudy(virtual_patient)
    rows = readRows(parameters.parameterNode)
    seen = []
    analysis = logic.analyze(
        "P9",
        [(row.date, row.volume, row.segmentation) for row in rows],
        treatmentStart=parameters.treatmentStart,
        clinical={"ecog": 1},
        preset="ct-lesion-fast",
        engine="rigid",
        onProgress=seen.append,
    )
    assert analysis.patient == "P9"
    assert {flag.flag for flag in analysis.flags} == {"pseudoprogression", "hyperprogression", "pneumonitis"}
    assert [item.fraction for item in seen] == sorted(item.fraction for item in seen)
    assert slicer.mrmlScene.GetFirstNodeByName("P9 flags").GetNumberOfRows() == 3
    assert logic.chartOf(analysis) is not None
    assert not list(Path(slicer.app.temporaryPath).glob("ImmunoRadiomics-*/study"))
    with pytest.raises(ValueError, match="at least two time points"):
        logic.analyze("P9", [("2024-01-10", rows[0].volume, None)])


@pytest.mark.slow
def test_alignment_and_propagation_run_alone(panel, slicer, virtual_patient):
    from dataclasses import replace

    from ImmunoRadiomicsPanel.Timepoints import readRows, writeRows

    parameters = start_patient(panel, virtual_patient)
    node = parameters.parameterNode
    rows = readRows(node)
    drawn = rows[1].segmentation.GetSegmentation().GetNumberOfSegments()
    writeRows(node, [rows[0], replace(rows[1], segmentation=None)])
    panel.ui.alignButton.click()
    wait(lambda: panel.work is None)
    assert slicer.shown == []
    assert panel.ui.alignmentTable.rowCount == 1
    assert panel.ui.alignmentTable.item(0, 0).text() == "followup-1"
    assert panel.ui.alignmentTable.item(0, 2).text() in {"good", "usable", "failed"}
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetBackgroundVolumeID(rows[0].volume.GetID())
    panel.ui.propagateButton.click()
    wait(lambda: panel.work is None)
    assert slicer.shown == []
    carried = readRows(node)[1].segmentation
    assert carried.GetName() == "P0001 followup-1 CT propagated"
    assert 0 < carried.GetSegmentation().GetNumberOfSegments() <= drawn + 2
    # The views show the baseline: contours of another time point do not lie over it.
    assert not carried.GetDisplayNode().GetVisibility()
    assert rows[0].segmentation.GetDisplayNode().GetVisibility()


def test_the_segment_editor_opens_on_the_chosen_time_point(panel, slicer, monkeypatch):
    from ImmunoRadiomicsPanel.Timepoints import readRows

    selected = []
    monkeypatch.setattr(slicer.util, "selectModule", selected.append)
    assert not panel.ui.editSegmentationButton.enabled
    slicer.modules.segmenteditor = SimpleNamespace()
    scan = volume(slicer, "first", "20240110")
    panel.ui.fillTimepointsButton.click()
    panel.ui.editSegmentationButton.click()
    assert selected == ["SegmentEditor"]
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert editor.GetSourceVolumeNode() is scan
    assert editor.GetSegmentationNode() is readRows(panel.parameters.parameterNode)[0].segmentation
    del slicer.modules.segmenteditor


def test_cancel_ends_the_engine_within_two_seconds(panel, slicer, virtual_patient):
    start_patient(panel, virtual_patient)
    panel.ui.runButton.click()
    process = running_process(panel)
    wait(lambda: panel.ui.progressBar.value > 0)
    started = time.monotonic()
    panel.ui.cancelButton.click()
    wait(lambda: panel.work is None, 5)
    assert time.monotonic() - started < 2.0
    assert not process.isAlive()
    assert slicer.shown == []
    assert panel.ui.runMessage.text.startswith("Cancelled")
    assert panel.ui.runButton.enabled


def test_closing_the_scene_ends_the_engine(panel, slicer, virtual_patient):
    start_patient(panel, virtual_patient)
    panel.ui.runButton.click()
    process = running_process(panel)
    slicer.mrmlScene.Clear()
    assert panel.work is None
    assert not process.isAlive()
    assert panel.ui.runMessage.text == ""
    # The selectors hear of the end first.
    assert panel.parameters is None
    wait(lambda: panel.parameters is not None, 5)
    assert panel.ui.patientEdit.text == ""
    assert not panel.ui.runButton.enabled
    assert slicer.shown == []


def test_segmentations_go_first_when_the_scene_closes(panel, slicer):
    import ImmunoRadiomics

    scene, gone = slicer.mrmlScene, []
    volume(slicer, "first", "20240110")
    drawn = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(slicer.util.getNode("first"))
    panel.ui.fillTimepointsButton.click()
    scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "result").SetAttribute("ImmunoRadiomics.patient", "P7")
    scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "of another module")
    ImmunoRadiomics.onStartupCompleted()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def removed(_caller, _event, node):
        gone.append(node.GetName())

    scene.AddObserver(scene.NodeRemovedEvent, removed)
    scene.Clear()
    assert gone[:2] == ["drawn", "result"]
    assert "of another module" in gone[2:]
    wait(lambda: panel.parameters is not None, 5)
    assert panel.ui.timepointsTable.rowCount == 0


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"])
print("child", child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="the signals are those of POSIX")
def test_a_process_that_does_not_listen_is_killed_with_its_children(slicer, tmp_path):
    from ImmunoRadiomicsPanel.EngineProcess import EngineRun

    run = EngineRun(["-c", STUBBORN], tmp_path)
    wait(lambda: run.poll() or "child" in run.endOfLog(), 20)
    child = int(run.endOfLog().split()[1])
    started = time.monotonic()
    run.cancel()
    wait(run.poll, 5)
    assert time.monotonic() - started < 2.0
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("code", "message", "log"),
    [
        (
            "import os; print('the last words', flush=True); os.abort()",
            "The engine ended unexpectedly",
            "the last words",
        ),
        (
            "import sys; print('error: the LDH is odd', file=sys.stderr); sys.exit(2)",
            "the LDH is odd",
            "error: the LDH is odd",
        ),
    ],
)
def test_a_crash_and_a_refusal_are_told_and_the_scene_stays(panel, slicer, code, message, log):
    from ImmunoRadiomicsPanel.Logic import ImmunoRadiomicsLogic

    panel.logic = ImmunoRadiomicsLogic(processFactory=process_that(code))
    volume(slicer, "first", "20240110")
    volume(slicer, "second", "20240312")
    panel.ui.fillTimepointsButton.click()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    panel.ui.runButton.click()
    wait(lambda: panel.work is None, 20)
    ((text, detail),) = slicer.shown
    assert message in text
    assert log in detail
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert panel.ui.runButton.enabled


def test_declined_packages_are_named_and_nothing_starts(panel, slicer, monkeypatch):
    from ImmunoRadiomicsPanel import Dependencies

    def declined(requirements, requester):
        assert requester == "ImmunoRadiomics"
        raise RuntimeError("User declined package installation")

    packaging = SimpleNamespace(pip_ensure=declined)
    monkeypatch.setitem(Dependencies.REQUIREMENTS, "no_such_package", "no-such-package>=1")
    monkeypatch.setattr(slicer, "packaging", packaging, raising=False)
    volume(slicer, "first", "20240110")
    volume(slicer, "second", "20240312")
    panel.ui.fillTimepointsButton.click()
    panel.ui.runButton.click()
    assert panel.work is None
    ((text, _),) = slicer.shown
    assert "no-such-package>=1" in text


def test_reload_reads_the_library_again(panel, slicer, monkeypatch):
    reloaded = []
    monkeypatch.setattr(slicer.util, "reloadScriptedModule", reloaded.append)
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0].startswith("ImmunoRadiomics")}
    try:
        panel.onReload()
        assert reloaded == ["ImmunoRadiomics"]
        assert not [
            name for name in sys.modules if name.split(".")[0] in ("ImmunoRadiomicsPanel", "ImmunoRadiomicsLib")
        ]
    finally:
        sys.modules.update(kept)


def test_the_lungs_are_added_to_a_segmentation(panel, slicer, virtual_patient):
    from ImmunoRadiomicsPanel.Timepoints import readRows

    parameters = start_patient(panel, virtual_patient)
    node = readRows(parameters.parameterNode)[0].segmentation
    before = node.GetSegmentation().GetNumberOfSegments()
    panel.ui.segmentLungsButton.click()
    wait(lambda: panel.work is None)
    assert slicer.shown == []
    names = [
        node.GetSegmentation().GetNthSegment(i).GetName() for i in range(node.GetSegmentation().GetNumberOfSegments())
    ]
    assert len(names) == before + 2
    assert {"left lung", "right lung"} <= set(names)


class PluginBase:
    """What Segment Statistics gives its plugins, as far as the measures need it."""

    def __init__(self):
        self.keys, self.defaultKeys = [], []

    def getRequestedKeys(self):
        return self.keys

    def getParameterNode(self):
        return self.node


def test_segment_statistics_measures_by_recist(slicer, monkeypatch):
    plugins = ModuleType("SegmentStatisticsPlugins")
    plugins.SegmentStatisticsPluginBase = PluginBase
    monkeypatch.setitem(sys.modules, "SegmentStatisticsPlugins", plugins)
    monkeypatch.delitem(sys.modules, "ImmunoRadiomicsPanel.RecistStatisticsPlugin", raising=False)
    from ImmunoRadiomicsPanel.RecistStatisticsPlugin import RecistStatisticsPlugin

    from ImmunoRadiomicsLib.images import segmentation_from_arrays
    from ImmunoRadiomicsLib.scene.mrml import fill_segmentation, fill_volume, mrml_classes

    values = np.zeros((12, 40, 50), np.int16)
    mask = np.zeros(values.shape, bool)
    mask[4:8, 10:20, 5:35] = True  # 30 columns of 2 mm, 10 rows of 2 mm
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 3.0))
    scan = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    fill_volume(scan, image)
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    fill_segmentation(mrml_classes(), drawn, segmentation_from_arrays([("L1", mask)], image))
    plugin = RecistStatisticsPlugin()
    plugin.node = slicer.vtkMRMLScriptedModuleNode()
    plugin.node.SetParameter("Segmentation", drawn.GetID())
    plugin.node.SetParameter("ScalarVolume", scan.GetID())
    measured = plugin.computeStatistics(drawn.GetSegmentation().GetNthSegmentID(0))
    assert measured["long_axis_mm"] == pytest.approx(np.hypot(60, 20), abs=2.0)
    assert measured["short_axis_mm"] == pytest.approx(20 * np.hypot(60, 20) / 60, abs=2.0)
    assert 4 <= measured["slice_index"] <= 7


def test_making_a_virtual_patient_can_be_cancelled(panel, slicer, monkeypatch):
    from PySide6.QtWidgets import QProgressDialog

    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    make = slicer.util.createProgressDialog

    def impatient(**options):
        dialog = make(**options)
        # Slicer's dialog lets everything else be clicked unless it is asked not to.
        assert dialog.modal
        QProgressDialog.cancel(dialog)
        return dialog

    monkeypatch.setattr(slicer.util, "createProgressDialog", impatient)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    panel.ui.samplePatientButton.click()
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert slicer.shown == []
    assert not list(Path(slicer.app.temporaryPath).glob("ImmunoRadiomics-*/patient"))


def test_edited_contours_put_the_result_out_of_date(panel, slicer, virtual_patient):
    from ImmunoRadiomicsPanel.Timepoints import readRows

    parameters = start_patient(panel, virtual_patient)
    node = parameters.parameterNode
    node.SetParameter("analysedInputs", panel.logic.results.inputsKey(parameters))
    panel.exit()
    segmentation = readRows(node)[0].segmentation.GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))
    assert node.GetParameter("analysedInputs") == "-"
    panel.enter()
    assert panel.ui.segmentsTable.rowCount > 0


def test_the_report_is_opened_and_results_are_exported_where_the_user_says(panel, slicer, monkeypatch, tmp_path):
    import qt

    opened = []
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", opened.append, raising=False)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path), raising=False)
    node = panel.parameters.parameterNode
    from ImmunoRadiomicsPanel.ResultsSection import ResultsSection

    section = panel.section(ResultsSection)
    panel.guarded(section.onOpenReport)()
    section.onExport()
    wait(lambda: panel.work is None)
    assert [text for text, _ in slicer.shown] == [
        "There is no report. Run the analysis first.",
        "There is no result to export. Run the analysis first.",
    ]
    panel.logic.results._keepText(node, "reportNode", "report", "<p>5 µm</p>")
    section.onOpenReport()
    assert Path(opened[0].toLocalFile()).read_text(encoding="utf-8") == "<p>5 µm</p>"


def test_the_virtual_patient_is_offered_once_in_sample_data(slicer, monkeypatch):
    from ImmunoRadiomicsPanel import VirtualPatient

    sources = []

    class Logic:
        """What SampleData's logic does with sources: code downloads their addresses, whatever their own downloader."""

        @staticmethod
        def sampleDataSourcesByCategory(category):
            return sources

        @staticmethod
        def registerCustomSampleDataSource(**source):
            sources.append(SimpleNamespace(**source))

        def downloadFromSource(self, source, maximumAttemptsCount=3, forceDownload=False):
            return [f"downloaded {source.uris}"]

    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=Logic))
    monkeypatch.setattr(VirtualPatient, "loadVirtualPatient", lambda: ["ct", "contours"])
    VirtualPatient.registerSampleData("icon.png")
    VirtualPatient.registerSampleData("icon.png")
    (source,) = sources
    assert isinstance(source.uris, str)
    # The button of the module calls the one, SampleData.downloadSample the other.
    assert source.customDownloader(source) == ["ct", "contours"]
    assert Logic().downloadFromSource(source) == ["ct", "contours"]
    other = SimpleNamespace(sampleName="MRHead", uris="https://x", customDownloader=None)
    assert Logic().downloadFromSource(other, forceDownload=True) == ["downloaded https://x"]


def test_python_for_processes_is_found_beside_the_application(slicer, monkeypatch, tmp_path):
    from ImmunoRadiomicsPanel import EngineProcess

    home = tmp_path / "Slicer-5.12"
    (home / "bin").mkdir(parents=True)
    application = home / "bin" / "SlicerApp-real"
    application.touch()
    monkeypatch.setattr(EngineProcess.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(application))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "no-python-here"))
    monkeypatch.setattr(slicer.app, "slicerHome", str(home))
    # The application itself is never started in place of Python.
    with pytest.raises(RuntimeError, match="PythonSlicer was not found"):
        EngineProcess.pythonExecutable()
    python = home / "bin" / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    python.touch()
    assert EngineProcess.pythonExecutable() == str(python)
    monkeypatch.setattr(EngineProcess.shutil, "which", lambda name: f"/opt/{name}")
    assert EngineProcess.pythonExecutable() == "/opt/PythonSlicer"


class ExtensionsManager:
    """qSlicerExtensionsManagerModel as far as the panel uses it: while interactive, it asks again and restarts at once."""

    __slots__ = ("installed", "interactive", "serves", "wanted")

    def __init__(self, *, serves=True, installed=False):
        self.interactive, self.serves, self.installed, self.wanted = True, serves, installed, []

    def isExtensionInstalled(self, name):
        return self.installed

    def installExtensionFromServer(self, name, restart=True, update=False):
        assert not self.interactive
        assert not restart
        self.wanted.append(name)
        self.installed = self.serves
        return self.serves


@pytest.mark.parametrize("serves", [True, False])
def test_radiomics_are_offered_for_the_next_start_and_the_run_goes_on(panel, slicer, monkeypatch, serves):
    from ImmunoRadiomicsPanel import Dependencies, RunSection

    model, asked, agrees = ExtensionsManager(serves=serves), [], []
    monkeypatch.setattr(slicer.app, "extensionsManagerModel", lambda: model, raising=False)
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(Dependencies, "radiomicsIsMissing", lambda: True)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, title: asked.append(text) or bool(agrees))
    Dependencies.offerRadiomicsExtension()
    assert (len(asked), model.wanted) == (1, [])
    agrees.append(True)
    begun = []
    monkeypatch.setattr(RunSection, "ensurePackages", lambda: None)
    monkeypatch.setattr(panel.logic, "analysisWork", lambda parameters, onProgress: iter(()))
    monkeypatch.setattr(panel, "begin", lambda work, message: begun.append(message))
    section = panel.section(RunSection.RunSection)
    section.onRun()
    section.onRun()
    assert model.wanted == ["SlicerRadiomics"]
    assert model.interactive
    assert len(asked) == 2
    assert begun == ["Done.", "Done."]
    assert [text for text, _ in slicer.shown] == (
        [] if serves else ["SlicerRadiomics could not be installed. The analysis goes on without it."]
    )
    # Where it is installed already, there is nothing to offer.
    model.installed = True
    Dependencies.offerRadiomicsExtension()
    assert len(asked) == 2


@pytest.mark.parametrize("agrees", [True, False])
def test_before_slicer_5_12_packages_are_asked_for_and_installed_by_pip(slicer, monkeypatch, agrees):
    from ImmunoRadiomicsPanel import Dependencies

    asked, installed = [], []

    def confirm(text, title, detailedText):
        asked.append(detailedText)
        return agrees

    def install(packages):
        installed.extend(packages)
        monkeypatch.delitem(Dependencies.REQUIREMENTS, "no_such_package")

    monkeypatch.delattr(slicer, "packaging", raising=False)
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm, raising=False)
    monkeypatch.setattr(slicer.util, "pip_install", install, raising=False)
    monkeypatch.setitem(Dependencies.REQUIREMENTS, "no_such_package", "no-such-package>=1")
    if agrees:
        Dependencies.ensurePackages()
        assert installed == ["no-such-package>=1"]
    else:
        with pytest.raises(Dependencies.DeclinedError, match="no-such-package>=1"):
            Dependencies.ensurePackages()
        assert installed == []
        # What needs no package still works.
        assert Dependencies.missingPackages() == ["no-such-package>=1"]
    assert asked == ["no-such-package>=1"]


def test_work_is_done_in_turns_and_what_it_raises_is_raised(slicer):
    import threading

    from ImmunoRadiomicsPanel.Jobs import CancelledWork, Job, doAll

    here, seen = threading.get_ident(), []

    def work():
        for number in range(3):
            seen.append((number, threading.get_ident() == here))
            yield None
        seen.append((yield threading.get_ident) == here)
        try:
            yield lambda: 1 / 0
        except ZeroDivisionError:
            seen.append("told")
        yield lambda: time.sleep(0.01)

    doAll(work())
    assert seen == [(0, True), (1, True), (2, True), False, "told"]

    closed = []

    def endless():
        try:
            while True:
                yield lambda: time.sleep(0.001)
        finally:
            closed.append(True)

    job = Job(endless())
    job.turn()
    job.cancel()
    with pytest.raises(CancelledWork):
        wait(job.turn, 10)
    assert closed == [True]


def test_texts_can_be_read_on_light_and_dark_backgrounds():
    sources = [*(MODULE / "ImmunoRadiomicsPanel").glob("*.py"), MODULE / "Resources" / "UI" / "ImmunoRadiomics.ui"]
    for path in sources:
        text = path.read_text()
        assert not re.search(r"styleSheet|<font|color\s*[:=]\s*['\"]?#", text), path.name
    colours = re.findall(r'"#([0-9a-f]{6})"', (MODULE / "ImmunoRadiomicsPanel" / "Presentation.py").read_text())
    assert len(colours) == 2

    def luminance(values):
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in colours:
        bar = luminance([int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)])
        for background in (luminance([1.0] * 3), luminance([0.196] * 3)):  # Slicer's light and dark styles
            low, high = sorted((bar, background))
            assert (high + 0.05) / (low + 0.05) >= 2.4
