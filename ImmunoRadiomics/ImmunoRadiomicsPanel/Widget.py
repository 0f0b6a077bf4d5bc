"""The panel: shows what is chosen, says what is missing, and starts work elsewhere."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ImmunoRadiomicsLib.errors import ImmunoRadiomicsError

from .Dependencies import DeclinedError, ensurePackages, offerRadiomicsExtension
from .EngineProcess import EngineProgress, EngineRun
from .Logic import EngineError, ImmunoRadiomicsLogic, patientCode, segmentNames, volumeImage
from .ParameterNode import ImmunoRadiomicsParameterNode
from .Presentation import alignmentRows, flagHtml, flagTitle, lesionRows, visitRows
from .RowTables import SegmentTable, TimepointTable, fillTable, selectedRow
from .Timepoints import (
    Role,
    SegmentMeaning,
    TimepointRow,
    readMeanings,
    readRows,
    rowProblems,
    timepointNames,
    writeMeanings,
    writeRows,
)
from .VirtualPatient import makeVirtualPatient

_POLL_MS = 100
_SECONDS_TO_END = 2.0
_MODULE = "ImmunoRadiomics"
_FIRST_SIZE_COLUMN = 3


@dataclass(frozen=True)
class _Work:
    """Something that runs in a process, and what to do with its result."""

    run: EngineRun
    parameters: ImmunoRadiomicsParameterNode
    onDone: Callable[[], None]
    doneMessage: str


def _saysWhatIsWrong(method: Callable[..., None]) -> Callable[..., None]:
    """Let a slot show what the user can mend as a message; anything else is a defect and reaches the log."""

    @functools.wraps(method)
    def slot(self: PanelWidget, *_arguments: Any) -> None:
        try:
            method(self)
        except EngineError as error:
            self.showError(str(error), error.log)
        except (ImmunoRadiomicsError, DeclinedError, ValueError, OSError) as error:
            self.showError(str(error))

    return slot


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The guided panel, from the patient to the results."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: ImmunoRadiomicsLogic | None = None
        self.parameters: ImmunoRadiomicsParameterNode | None = None
        self.work: _Work | None = None
        self._guiTag: int | None = None
        self._updating = False
        self._segmentations: list[Any] = []
        self._alignments: tuple[Any, ...] = ()
        self._faded: Any = None

    # Life of the panel

    def setup(self) -> None:
        """Build the panel when it is first opened, and after a reload."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/ImmunoRadiomics.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = ImmunoRadiomicsLogic()
        self.ui.patientSelector.addAttribute("vtkMRMLScriptedModuleNode", "ModuleName", _MODULE)
        self.ui.patientSelector.setMRMLScene(slicer.mrmlScene)
        self.timepointTable = TimepointTable(self.ui.timepointsTable, self.onTimepointsEdited)
        self.segmentTable = SegmentTable(self.ui.segmentsTable, self.onSegmentsEdited)
        for table in (self.ui.alignmentTable, self.ui.lesionsTable, self.ui.visitsTable, self.ui.timepointsTable):
            table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.ui.lesionsTable.setSelectionBehavior(qt.QAbstractItemView.SelectItems)
        self.timer = qt.QTimer()
        self.timer.setInterval(_POLL_MS)
        self.timer.connect("timeout()", self.onTimeout)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self._connect()
        self.initializeParameterNode()

    def _connect(self) -> None:
        ui = self.ui
        ui.patientSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onPatientSelected)
        for button, slot in (
            (ui.newPatientButton, self.onNewPatient),
            (ui.loadDicomButton, self.onLoadDicom),
            (ui.openStudyButton, self.onOpenStudy),
            (ui.samplePatientButton, self.onSamplePatient),
            (ui.fillTimepointsButton, self.onFillTimepoints),
            (ui.addTimepointButton, self.onAddTimepoint),
            (ui.removeTimepointButton, self.onRemoveTimepoint),
            (ui.moveTimepointUpButton, self.onMoveTimepointUp),
            (ui.moveTimepointDownButton, self.onMoveTimepointDown),
            (ui.editSegmentationButton, self.onEditSegmentation),
            (ui.segmentLungsButton, self.onSegmentLungs),
            (ui.propagateButton, self.onPropagate),
            (ui.alignButton, self.onAlign),
            (ui.runButton, self.onRun),
            (ui.cancelButton, self.onCancel),
            (ui.showChartButton, self.onShowChart),
            (ui.openReportButton, self.onOpenReport),
            (ui.exportButton, self.onExport),
        ):
            button.connect("clicked(bool)", slot)
        ui.showAlignedButton.connect("toggled(bool)", self.onShowAligned)
        ui.fadeSlider.connect("valueChanged(int)", self.onFade)
        ui.lesionsTable.connect("cellClicked(int,int)", self.onLesionClicked)

    def cleanup(self) -> None:
        """End what runs and let go of the scene, when the application closes and before a reload."""
        self.endWork()
        self.setParameterNode(None)
        self.removeObservers()
        if self.logic is not None:
            self.logic.forgetFolders()

    def enter(self) -> None:
        """Take up the patient again each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Stop following the choices while another module is shown; work goes on."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """End what runs: its nodes are about to go."""
        self.endWork()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """Begin anew if the panel is shown."""
        self.logic.forgetFolders()
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        """Show the patients of a scene that was opened."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Show the selected patient, or the first of the scene, or a new one."""
        selected = self.ui.patientSelector.currentNode()
        if selected is not None:
            self.setParameterNode(ImmunoRadiomicsParameterNode(selected))
        else:
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameters: ImmunoRadiomicsParameterNode | None) -> None:
        """Show the choices of a patient and follow them; None shows nothing and follows nothing."""
        if self.parameters is not None:
            self.showUnaligned()
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified)
        self.parameters, self._guiTag, self._alignments = parameters, None, ()
        if parameters is None:
            self._observeSegmentations([])
            return
        self._updating = True
        try:
            self.ui.patientSelector.setCurrentNode(parameters.parameterNode)
            self._guiTag = parameters.connectGui(self.ui)
        finally:
            self._updating = False
        self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified)
        self.update()

    def onModified(self, caller: Any = None, event: Any = None) -> None:
        """A choice has changed."""
        self.update()

    # What is shown

    def update(self) -> None:
        """Show the choices, what they lack, and the result where it still fits them."""
        if self.parameters is None or self._updating:
            return
        self._updating = True
        try:
            rows = readRows(self.parameters.parameterNode)
            drawn = {row.segmentation.GetSegmentation(): None for row in rows if row.segmentation is not None}
            self._observeSegmentations(list(drawn))
            self.timepointTable.show(rows)
            self._showTimepointChoice(rows)
            said = readMeanings(self.parameters.parameterNode)
            names = segmentNames(rows)
            self.segmentTable.show([said.get(name, SegmentMeaning(name)) for name in names])
            self._showResults()
            self._showStates(rows, names)
        finally:
            self._updating = False

    def _showTimepointChoice(self, rows: list[TimepointRow]) -> None:
        combo = self.ui.segmentationTimepoint
        names = timepointNames(rows)
        if [combo.itemText(index) for index in range(combo.count)] != names:
            current = combo.currentText
            combo.clear()
            combo.addItems(names)
            combo.setCurrentIndex(max(0, names.index(current) if current in names else 0))

    def _showStates(self, rows: list[TimepointRow], names: list[str]) -> None:
        ui, parameters = self.ui, self.parameters
        analysis = self.logic.analysis(parameters)
        patientProblems = self.logic.patientProblems(parameters)
        clinicalProblems = self.logic.clinicalProblems(parameters)
        timepointProblems = rowProblems(rows)
        self._state(
            ui.patientSection,
            _("1. Patient"),
            "done" if not patientProblems else "to do",
            ui.patientMessage,
            patientProblems,
        )
        state = "done" if not timepointProblems else ("problem" if rows else "to do")
        self._state(ui.timepointsSection, _("2. Time points"), state, ui.timepointsMessage, timepointProblems)
        self._state(
            ui.segmentationSection,
            _("3. Segmentation"),
            "done" if names else "to do",
            ui.segmentationMessage,
            [] if names else [_("No time point has a segmentation: draw the lesions at least at the baseline.")],
        )
        records = analysis.alignments if analysis is not None else self._alignments
        failed = [record.timepoint for record in records if record.quality.verdict == "failed"]
        self._state(
            ui.alignmentSection,
            _("4. Alignment"),
            "problem" if failed else ("done" if records else "to do"),
            ui.alignmentMessage,
            [
                _("Not aligned: {names}. What compares these with the baseline is withheld.").format(
                    names=", ".join(failed)
                )
            ]
            if failed
            else [],
        )
        check = (
            []
            if analysis is None
            else [item for lesion in analysis.lesions for item in lesion.observations if item.check]
        )
        self._state(
            ui.lesionsSection,
            _("5. Lesions"),
            "done" if analysis is not None else "to do",
            ui.lesionsMessage,
            [f"{item.timepoint}: {item.check}" for item in check],
        )
        self._state(
            ui.clinicalSection,
            _("6. Clinical"),
            "problem" if clinicalProblems else "optional",
            ui.clinicalMessage,
            clinicalProblems,
        )
        ui.runSection.text = self._titled(_("7. Run"), "done" if analysis is not None else "to do")
        ui.resultsSection.text = self._titled(_("8. Results"), "done" if analysis is not None else "to do")
        self._enable(rows, analysis)

    def _state(self, section: Any, title: str, state: str, message: Any, problems: list[str]) -> None:
        section.text = self._titled(title, state)
        message.text = "\n".join(problems)
        message.visible = bool(problems)

    @staticmethod
    def _titled(title: str, state: str) -> str:
        states = {"to do": _("to do"), "done": _("done"), "problem": _("problem"), "optional": _("optional")}
        return _("{title} ({state})").format(title=title, state=states[state])

    def _enable(self, rows: list[TimepointRow], analysis: Any) -> None:
        """Enable what can be done, and let the tooltip of everything else say why it cannot."""
        ui = self.ui
        running = _("Wait until the running work has ended, or cancel it.") if self.work is not None else ""
        problems = "\n".join(self.logic.problems(self.parameters))
        noLesions = ""
        if not any(row.segmentation is not None for row in rows if row.role is Role.BASELINE):
            noLesions = _("Draw the lesions at the baseline first.")
        self._able(
            ui.runButton, running or problems, _("Analyze the patient: alignment, lesions, radiomics, response, flags.")
        )
        self._able(
            ui.alignButton,
            running or problems,
            _("Align every time point with the baseline and show how good that is."),
        )
        self._able(
            ui.propagateButton,
            running or problems or noLesions,
            _("Carry the contours of the baseline to every time point that has none, to be checked there."),
        )
        noVolume = "" if any(row.volume is not None for row in rows) else _("Choose a CT volume first.")
        self._able(ui.segmentLungsButton, running or noVolume, _("Add the lungs to this time point's segmentation."))
        noEditor = "" if hasattr(slicer.modules, "segmenteditor") else _("This Slicer has no Segment Editor.")
        self._able(ui.editSegmentationButton, noEditor or noVolume, _("Open the Segment Editor on this time point."))
        noDicom = "" if hasattr(slicer.modules, "dicom") else _("This Slicer was built without DICOM.")
        self._able(ui.loadDicomButton, noDicom, _("Open the DICOM database to load CT scans."))
        self._able(
            ui.cancelButton,
            "" if self.work is not None else _("Nothing is running."),
            _("End the work and all its processes."),
        )
        noResult = "" if analysis is not None else _("Run the analysis first.")
        self._able(ui.showChartButton, noResult, _("Show the sizes of all lesions over time."))
        self._able(ui.openReportButton, noResult, _("Open the report in the browser."))
        self._able(ui.exportButton, noResult, _("Write all results into a folder."))
        self._able(
            ui.showAlignedButton,
            noResult,
            _("Fade the selected time point, carried onto the baseline, over the baseline."),
        )
        ui.fadeSlider.enabled = ui.showAlignedButton.checked

    @staticmethod
    def _able(button: Any, reason: str, purpose: str) -> None:
        button.enabled = not reason
        button.toolTip = reason or purpose

    def _showResults(self) -> None:
        ui = self.ui
        analysis = self.logic.analysis(self.parameters)
        groups = {
            "pseudoprogression": (ui.pseudoprogressionGroup, ui.pseudoprogressionLabel),
            "hyperprogression": (ui.hyperprogressionGroup, ui.hyperprogressionLabel),
            "pneumonitis": (ui.pneumonitisGroup, ui.pneumonitisLabel),
        }
        flags = {} if analysis is None else {flag.flag: flag for flag in analysis.flags}
        for name, (group, label) in groups.items():
            group.visible = name in flags
            if name in flags:
                group.title = flagTitle(flags[name])
                label.text = flagHtml(flags[name])
            else:
                label.text = ""
        fillTable(ui.lesionsTable, *(lesionRows(analysis) if analysis is not None else ([], [])))
        fillTable(ui.visitsTable, *(visitRows(analysis) if analysis is not None else ([], [])))
        records = analysis.alignments if analysis is not None else self._alignments
        current = selectedRow(ui.alignmentTable)
        fillTable(ui.alignmentTable, *alignmentRows(records))
        if 0 <= current < len(records):
            ui.alignmentTable.selectRow(current)
        if analysis is None:
            ui.resultsMessage.text = _("There is no result for these inputs yet.")
        else:
            ui.resultsMessage.text = "\n".join([analysis.research_use_only, *analysis.warnings])

    def _observeSegmentations(self, segmentations: list[Any]) -> None:
        """Notice when contours (vtkSegmentation) are edited: a result that rests on them is out of date then."""
        if segmentations == self._segmentations:
            return
        events = (
            slicer.vtkSegmentation.SegmentAdded,
            slicer.vtkSegmentation.SegmentRemoved,
            slicer.vtkSegmentation.SourceRepresentationModified,
        )
        for segmentation in self._segmentations:
            for event in events:
                self.removeObserver(segmentation, event, self.onSegmentationEdited)
        self._segmentations = segmentations
        for segmentation in segmentations:
            for event in events:
                self.addObserver(segmentation, event, self.onSegmentationEdited)

    def onSegmentationEdited(self, caller: Any = None, event: Any = None) -> None:
        """Contours were edited."""
        if self.parameters is not None:
            self.logic.discardResult(self.parameters)
            self.update()

    def showError(self, message: str, log: str = "") -> None:
        """Show what went wrong; the end of the engine's log is behind the details."""
        self.ui.runMessage.text = message
        slicer.util.errorDisplay(message, windowTitle=_("ImmunoRadiomics"), detailedText=log)

    # Patient

    def onPatientSelected(self, node: Any = None) -> None:
        """Another patient of the scene was chosen."""
        if self._updating or slicer.mrmlScene.IsClosing():
            return
        if node is None:
            if self.parameters is None or self.parameters.parameterNode.GetScene() is None:
                self.setParameterNode(None)
                if self.parent.isEntered:
                    self.initializeParameterNode()
        elif self.parameters is None or self.parameters.parameterNode is not node:
            self.setParameterNode(ImmunoRadiomicsParameterNode(node))

    @_saysWhatIsWrong
    def onNewPatient(self) -> None:
        """Add a patient."""
        self.setParameterNode(self.logic.newPatient(""))

    @_saysWhatIsWrong
    def onLoadDicom(self) -> None:
        """Open the DICOM database."""
        slicer.util.selectModule("DICOM")

    @_saysWhatIsWrong
    def onOpenStudy(self) -> None:
        """Read a study.yaml as a new patient."""
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Open study"), "", _("Study (*.yaml *.yml)"))
        # Qt for Python returns the filter beside the path.
        path = path[0] if isinstance(path, tuple) else path
        if path:
            ensurePackages()
            self.setParameterNode(self.logic.loadStudy(Path(path)))

    @_saysWhatIsWrong
    def onSamplePatient(self) -> None:
        """Make a virtual patient and show it."""
        ensurePackages()
        parameters = makeVirtualPatient(logic=self.logic)
        if parameters is not None:
            self.setParameterNode(parameters)
            self._showVolume(readRows(parameters.parameterNode)[0].volume)

    @staticmethod
    def _showVolume(volume: Any) -> None:
        """Show a volume in the slice views, where there are any."""
        if slicer.app.layoutManager() is not None:
            slicer.util.setSliceViewerLayers(background=volume, fit=True)

    # Time points

    def onTimepointsEdited(self) -> None:
        """The user has changed a cell."""
        if self.parameters is not None and not self._updating:
            writeRows(self.parameters.parameterNode, self.timepointTable.rows())

    @_saysWhatIsWrong
    def onFillTimepoints(self) -> None:
        """Take the CT volumes of the scene."""
        rows = self.logic.rowsFromScene(self.parameters)
        if not rows:
            raise ValueError(_("The scene has no CT volume. Load one first."))
        with slicer.util.NodeModify(self.parameters.parameterNode):
            if not self.parameters.patient:
                self.parameters.patient = patientCode(rows[0].volume)
            writeRows(self.parameters.parameterNode, rows)

    @_saysWhatIsWrong
    def onAddTimepoint(self) -> None:
        """Add an empty time point; the first one is the baseline."""
        rows = readRows(self.parameters.parameterNode)
        role = Role.FOLLOWUP if any(row.role is Role.BASELINE for row in rows) else Role.BASELINE
        writeRows(self.parameters.parameterNode, [*rows, TimepointRow(role=role)])

    @_saysWhatIsWrong
    def onRemoveTimepoint(self) -> None:
        """Remove the selected time point, else the last one."""
        rows = readRows(self.parameters.parameterNode)
        if rows:
            del rows[selectedRow(self.ui.timepointsTable)]
            writeRows(self.parameters.parameterNode, rows)

    @_saysWhatIsWrong
    def onMoveTimepointUp(self) -> None:
        """Move the selected time point up."""
        self._move(-1)

    @_saysWhatIsWrong
    def onMoveTimepointDown(self) -> None:
        """Move the selected time point down."""
        self._move(1)

    def _move(self, step: int) -> None:
        rows = readRows(self.parameters.parameterNode)
        index = selectedRow(self.ui.timepointsTable)
        if index >= 0 and 0 <= index + step < len(rows):
            rows[index], rows[index + step] = rows[index + step], rows[index]
            writeRows(self.parameters.parameterNode, rows)
            self.ui.timepointsTable.setCurrentCell(index + step, 0)

    # Segmentation

    def _chosenTimepoint(self) -> tuple[int, TimepointRow]:
        rows = readRows(self.parameters.parameterNode)
        index = self.ui.segmentationTimepoint.currentIndex
        if not 0 <= index < len(rows) or rows[index].volume is None:
            raise ValueError(_("Choose a time point that has a CT volume."))
        return index, rows[index]

    def onSegmentsEdited(self) -> None:
        """The user has said what a segment is."""
        if self.parameters is not None and not self._updating:
            writeMeanings(self.parameters.parameterNode, self.segmentTable.meanings())

    def _giveSegmentation(self, index: int, node: Any) -> None:
        rows = readRows(self.parameters.parameterNode)
        row = rows[index]
        rows[index] = TimepointRow(row.volume, node, row.date, row.role, False)
        writeRows(self.parameters.parameterNode, rows)

    @_saysWhatIsWrong
    def onEditSegmentation(self) -> None:
        """Open the Segment Editor on the chosen time point, with a new segmentation where it has none."""
        index, row = self._chosenTimepoint()
        segmentation = row.segmentation
        if segmentation is None:
            name = f"{row.volume.GetName()} segmentation"
            segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            segmentation.CreateDefaultDisplayNodes()
            segmentation.SetReferenceImageGeometryParameterFromVolumeNode(row.volume)
            self._giveSegmentation(index, segmentation)
        # The Segment Editor follows the node with this tag.
        editorNode = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if editorNode is None:
            editorNode = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            editorNode.UnRegister(None)
            editorNode.SetSingletonTag("SegmentEditor")
            editorNode = slicer.mrmlScene.AddNode(editorNode)
        editorNode.SetAndObserveSegmentationNode(segmentation)
        editorNode.SetAndObserveSourceVolumeNode(row.volume)
        self._showVolume(row.volume)
        slicer.util.selectModule("SegmentEditor")

    @_saysWhatIsWrong
    def onSegmentLungs(self) -> None:
        """Segment the lungs of the chosen time point in a process."""
        from ImmunoRadiomicsLib.images import write_volume

        index, row = self._chosenTimepoint()
        folder = self.logic.folderOf(self.parameters)
        source, target = folder / "lungs.nrrd", folder / "lungs.seg.nrrd"
        write_volume(volumeImage(row.volume), source, compress=False)

        def take() -> None:
            self._giveSegmentation(index, self.logic.addLungs(target, row))

        run = self.logic.startTask(["lungs", str(source), str(target)], folder, self.onProgress)
        self._begin(run, take, _("The lungs are segmented. Check them."))

    @_saysWhatIsWrong
    def onPropagate(self) -> None:
        """Carry the baseline's contours to the time points that have none."""
        self._startEngine(
            "lesions", self._takePropagated, _("The contours were propagated. Check them before you run.")
        )

    def _takePropagated(self) -> None:
        if not self.logic.takePropagated(self.parameters, self.logic.folderOf(self.parameters)):
            raise ValueError(_("Every time point has a segmentation already."))

    # Alignment

    @_saysWhatIsWrong
    def onAlign(self) -> None:
        """Align, and show how good that is."""
        self._startEngine("align", self._takeAlignment, _("Aligned. The table shows how well."))

    def _takeAlignment(self) -> None:
        self._alignments = self.logic.stageResult(self.logic.folderOf(self.parameters)).alignments

    def onShowAligned(self, checked: bool = False) -> None:
        """Show the selected time point on the baseline, or where it was acquired again."""
        if not checked:
            self.showUnaligned()
            return
        analysis = self.logic.analysis(self.parameters) if self.parameters is not None else None
        index = max(0, selectedRow(self.ui.alignmentTable))
        if analysis is None or index >= len(analysis.alignments):
            self.ui.showAlignedButton.setChecked(False)
            return
        rows = readRows(self.parameters.parameterNode)
        volumes = dict(zip(timepointNames(rows), (row.volume for row in rows), strict=True))
        name = analysis.alignments[index].timepoint
        if self.logic.showAligned(analysis, volumes, name, self.ui.fadeSlider.value / 100.0):
            self._faded = volumes[name]
            self.ui.fadeSlider.enabled = True
        else:
            self.ui.showAlignedButton.setChecked(False)
            self.ui.alignmentMessage.text = _("The transform of {name} is not in the scene.").format(name=name)
            self.ui.alignmentMessage.visible = True

    def showUnaligned(self) -> None:
        """Take a faded time point back to where it was acquired."""
        if self._faded is not None:
            self.logic.hideAligned(self._faded)
            self._faded = None
        if self.ui.showAlignedButton.checked:
            self.ui.showAlignedButton.setChecked(False)
        self.ui.fadeSlider.enabled = False

    def onFade(self, value: int) -> None:
        """Fade between the baseline and the time point on it."""
        if self._faded is not None:
            self.onShowAligned(True)

    # Lesions

    def onLesionClicked(self, row: int, column: int) -> None:
        """Show a lesion at the clicked time point, beside the baseline."""
        analysis = self.logic.analysis(self.parameters) if self.parameters is not None else None
        if analysis is None or not 0 <= row < len(analysis.lesions):
            return
        names = [record.name for record in sorted(analysis.timepoints, key=lambda record: record.day)]
        name = names[column - _FIRST_SIZE_COLUMN] if column >= _FIRST_SIZE_COLUMN else names[-1]
        manager = slicer.app.layoutManager()
        if manager is not None:
            manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        self.logic.showLesion(self.parameters, analysis.lesions[row], name, analysis.baseline)

    # Run

    @_saysWhatIsWrong
    def onRun(self) -> None:
        """Analyze the patient."""
        if offerRadiomicsExtension():
            return
        request = self.logic.request(self.parameters)
        self._startEngine("analyze", lambda: self._takeAnalysis(request), _("Done."))

    def _takeAnalysis(self, request: Any) -> None:
        self.logic.load(self.parameters, request, self.logic.folderOf(self.parameters))

    def _startEngine(self, command: str, onDone: Callable[[], None], doneMessage: str) -> None:
        ensurePackages()
        self.showUnaligned()
        request = self.logic.request(self.parameters)
        self.ui.runMessage.text = _("Writing the images for the engine")
        self.ui.runMessage.repaint()
        folder = self.logic.folderOf(self.parameters)
        run = self.logic.start(request, folder, command=command, onProgress=self.onProgress)
        self._begin(run, onDone, doneMessage)

    def _begin(self, run: EngineRun, onDone: Callable[[], None], doneMessage: str) -> None:
        self.work = _Work(run, self.parameters, onDone, doneMessage)
        self.ui.progressBar.setValue(0)
        self.timer.start()
        self.update()

    def onProgress(self, progress: EngineProgress) -> None:
        """Show where the engine is."""
        stages = {
            "read": _("Reading"),
            "anatomy": _("Anatomy"),
            "align": _("Alignment"),
            "lesions": _("Lesions"),
            "extract": _("Radiomics"),
            "respond": _("Response"),
            "flag": _("Flags"),
            "report": _("Report"),
        }
        self.ui.progressBar.setValue(int(100 * progress.fraction))
        stage = stages.get(progress.stage, progress.stage)
        self.ui.runMessage.text = f"{stage}: {progress.message}" if stage else progress.message

    def onTimeout(self) -> None:
        """Look after the running work."""
        work = self.work
        if work is None or not work.run.poll():
            return
        self.timer.stop()
        self.work = None
        self.ui.progressBar.setValue(0)
        self._finish(work)
        self.update()

    def _finish(self, work: _Work) -> None:
        if work.run.cancelled:
            self.ui.runMessage.text = _("Cancelled. What was finished is kept for the next run.")
            return
        shown = self.parameters
        if work.parameters.parameterNode.GetScene() is None:
            return
        self.parameters = work.parameters  # the result belongs to the patient that was run, whichever is shown now
        try:
            self.logic.check(work.run)
            work.onDone()
            self.ui.progressBar.setValue(100)
            self.ui.runMessage.text = work.doneMessage
        except EngineError as error:
            self.showError(str(error), error.log)
        except (ImmunoRadiomicsError, ValueError, OSError) as error:
            self.showError(str(error), work.run.endOfLog())
        finally:
            self.parameters = shown

    def onCancel(self, _checked: bool = False) -> None:
        """End the running work."""
        if self.work is not None:
            self.work.run.cancel()
            self.ui.runMessage.text = _("Cancelling")

    def endWork(self) -> None:
        """End the running work at once, with all its processes."""
        if self.work is None:
            return
        self.timer.stop()
        run = self.work.run
        self.work = None
        run.kill()
        deadline = time.monotonic() + _SECONDS_TO_END
        while not run.poll() and time.monotonic() < deadline:
            time.sleep(0.02)

    # Results

    @_saysWhatIsWrong
    def onShowChart(self) -> None:
        """Show the size chart."""
        chart = self.logic.chartOf(self.logic.analysis(self.parameters))
        if chart is None:
            raise ValueError(_("The chart was removed from the scene. Run the analysis again."))
        slicer.modules.plots.logic().ShowChartInLayout(chart)

    @_saysWhatIsWrong
    def onOpenReport(self) -> None:
        """Open the report in the browser."""
        path = self.logic.writeReport(self.parameters, self.logic.folderOf(self.parameters) / "report.html")
        qt.QDesktopServices.openUrl(qt.QUrl(path.as_uri()))

    @_saysWhatIsWrong
    def onExport(self) -> None:
        """Write everything into a folder that the user chooses."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Export results into a folder"))
        if folder:
            written = self.logic.export(self.parameters, Path(folder))
            self.ui.resultsMessage.text = _("{count} files were written to {folder}.").format(
                count=len(written), folder=folder
            )
