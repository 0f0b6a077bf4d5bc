"""The panel: shows what is chosen, says what is missing, and starts work elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ImmunoRadiomicsLib.errors import ImmunoRadiomicsError

from .AlignmentSection import AlignmentSection
from .ClinicalSection import ClinicalSection
from .EngineProcess import EngineProgress, EngineRun
from .Jobs import CancelledWork, Job, Work
from .LesionsSection import LesionsSection
from .Logic import EngineError, ImmunoRadiomicsLogic, messageDetails
from .Nodes import isBlank, patientNodes, segmentNames
from .ParameterNode import ImmunoRadiomicsParameterNode
from .PatientSection import PatientSection
from .ResultsSection import ResultsSection
from .RunSection import RunSection
from .Section import Shown, guard
from .SegmentationSection import SegmentationSection
from .Timepoints import readRows, timepointNames
from .TimepointsSection import TimepointsSection
from .Views import interpolateAsEstimated, takeAllBack

_POLL_MS = 100
_TURN_MS = 10
_SECONDS_TO_END = 2.0
_SECTIONS = (
    PatientSection,
    TimepointsSection,
    SegmentationSection,
    AlignmentSection,
    LesionsSection,
    ClinicalSection,
    RunSection,
    ResultsSection,
)


@dataclass(frozen=True)
class _Running:
    """Work that goes on, the patient it is for, and what is said once it is done."""

    job: Job
    parameters: ImmunoRadiomicsParameterNode
    doneMessage: str

    @property
    def run(self) -> EngineRun | None:
        """The process that runs now, None between processes."""
        return self.job.run


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The guided panel, from the patient to the results."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: ImmunoRadiomicsLogic | None = None
        self.parameters: ImmunoRadiomicsParameterNode | None = None
        self.work: _Running | None = None
        self.sections: list[Any] = []
        self._guiTag: int | None = None
        self.updating = False
        self._watched: dict[Any, tuple[Any, ...]] = {}

    # Life of the panel

    def setup(self) -> None:
        """Build the panel when it is first opened, and after a reload."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/ImmunoRadiomics.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = ImmunoRadiomicsLogic()
        self.sections = [kind(self) for kind in _SECTIONS]
        self.timer = qt.QTimer()
        self.timer.connect("timeout()", self.onTimeout)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        # A scene may have been opened before the panel was there to hear of it.
        interpolateAsEstimated()
        self.initializeParameterNode()

    def section(self, kind: type) -> Any:
        """Return a section of the panel by its class."""
        return next(item for item in self.sections if isinstance(item, kind))

    def cleanup(self) -> None:
        """End what runs and let go of the scene, when the application closes and before a reload."""
        self.endWork()
        self.setParameterNode(None)
        self._watched.clear()
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
        self._watch([])

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """Begin anew if the panel is shown."""
        self.logic.forgetFolders()
        self.ui.progressBar.setValue(0)
        self.ui.runMessage.text = ""
        self.beginAnewLater()

    def beginAnewLater(self) -> None:
        """Begin anew once the selectors have taken in what has gone: a node that comes while they do confuses them."""
        qt.QTimer.singleShot(0, self._beginAnew)

    def _beginAnew(self) -> None:
        alive = self.hasObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        if alive and self.parent.isEntered and self.parameters is None and not slicer.mrmlScene.IsClosing():
            self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        """Show the patients of a scene that was opened, every scan where it was acquired and carried as the engine carries it."""
        takeAllBack()
        interpolateAsEstimated()
        if not self.parent.isEntered:
            return
        shown = self.parameters.parameterNode if self.parameters is not None else None
        opened = [node for node in patientNodes() if node is not shown and not isBlank(node)]
        if opened and self.work is None and (shown is None or isBlank(shown)):
            self.showInstead(ImmunoRadiomicsParameterNode(opened[0]))
        else:
            self.initializeParameterNode()

    def showInstead(self, parameters: ImmunoRadiomicsParameterNode) -> None:
        """Show a patient that has come into the scene; blank ones were only there to be filled in, and go."""
        self.setParameterNode(parameters)
        for node in patientNodes():
            if node is not parameters.parameterNode and isBlank(node):
                slicer.mrmlScene.RemoveNode(node)

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
            for section in self.sections:
                section.release()
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified)
        self.parameters, self._guiTag = parameters, None
        if parameters is None:
            return
        self.updating = True
        try:
            self.ui.patientSelector.setCurrentNode(parameters.parameterNode)
            self._guiTag = parameters.connectGui(self.ui)
        finally:
            self.updating = False
        self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified)
        self.update()

    def onModified(self, caller: Any = None, event: Any = None) -> None:
        """A choice has changed."""
        self.update()

    # What is shown

    def update(self) -> None:
        """Show the choices, what they lack, and the result where it still fits them."""
        if self.parameters is None or self.updating:
            return
        self.updating = True
        try:
            self._watch(patientNodes())
            shown = self._shown()
            for section in self.sections:
                section.show(shown)
        finally:
            self.updating = False

    def _shown(self) -> Shown:
        rows = tuple(readRows(self.parameters.parameterNode))
        return Shown(
            rows,
            tuple(timepointNames(rows)),
            tuple(segmentNames(rows)),
            self.logic.analysis(self.parameters),
            self.logic.results.lastAnalysis(self.parameters),
            self.logic.results.alignments(self.parameters),
            "\n".join(self.logic.problems(self.parameters)),
            _("Wait until the running work has ended, or cancel it.") if self.work is not None else "",
        )

    def showUnaligned(self) -> None:
        """Show every scan where it was acquired: a scan that lies under a transform is neither written to the engine nor drawn on."""
        self.section(AlignmentSection).hidePair()

    def showLater(self, parameters: ImmunoRadiomicsParameterNode) -> None:
        """Show another patient once the work that has brought it is over."""
        qt.QTimer.singleShot(0, lambda: self.showInstead(parameters))

    def showError(self, message: str, log: str = "") -> None:
        """Show what went wrong; the end of the engine's log is behind the details."""
        self.ui.runMessage.text = message
        slicer.util.errorDisplay(message, windowTitle=_("ImmunoRadiomics"), **messageDetails(log))

    def guarded(self, slot: Callable[[], None]) -> Callable[..., None]:
        """Return a slot that does nothing while no patient is shown, and shows what the user can mend as a message."""

        def called() -> None:
            if self.parameters is not None:
                slot()

        return guard(self.showError, called)

    # Contours and voxels that results rest on, of all patients, also while another module is shown

    def _watch(self, patients: list[Any]) -> None:
        """Notice when contours (vtkSegmentation) or voxels are edited: a result that rests on them is out of date then."""
        wanted: dict[Any, tuple[Any, ...]] = {}
        kinds = slicer.vtkSegmentation
        edits = (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SourceRepresentationModified)
        for node in patients:
            for row in readRows(node):
                if row.segmentation is not None:
                    wanted[row.segmentation.GetSegmentation()] = edits
                if row.volume is not None:
                    wanted[row.volume] = (row.volume.ImageDataModifiedEvent,)
        for source in [source for source in self._watched if source not in wanted]:
            for event in self._watched.pop(source):
                self.removeObserver(source, event, self.onInputEdited)
        for source, events in wanted.items():
            if source not in self._watched:
                self._watched[source] = events
                for event in events:
                    self.addObserver(source, event, self.onInputEdited)

    def onInputEdited(self, caller: Any = None, event: Any = None) -> None:
        """Contours or voxels were edited."""
        if slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting():
            return
        for node in patientNodes():
            rows = readRows(node)
            volume = any(row.volume is caller for row in rows)
            drawn = any(row.segmentation is not None and row.segmentation.GetSegmentation() is caller for row in rows)
            if volume or drawn:
                parameters = ImmunoRadiomicsParameterNode(node)
                self.logic.results.discard(parameters, alignments=volume)
                self.logic.results.markNodes(parameters, outdated=True)
        self.update()

    # Long work

    def begin(self, work: Work, doneMessage: str = "") -> None:
        """Start long work for the patient that is shown."""
        if self.work is not None:
            work.close()
            raise ValueError(_("Wait until the running work has ended, or cancel it."))
        self.work = _Running(Job(work), self.parameters, doneMessage)
        self.ui.progressBar.setValue(0)
        self.ui.runMessage.text = _("Preparing")
        self.timer.setInterval(_TURN_MS)
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
        said = progress.message.startswith(f"{stage}:") or not stage
        self.ui.runMessage.text = progress.message if said else f"{stage}: {progress.message}"

    def onTimeout(self) -> None:
        """Look after the running work."""
        work = self.work
        if work is None:
            return
        if work.parameters.parameterNode.GetScene() is None:  # the patient was removed
            work.job.cancel()
        try:
            # Steps run no slots of the panel: what they change is shown once, at the end.
            self.updating = True
            try:
                over = work.job.turn()
            finally:
                self.updating = False
        except CancelledWork:
            self._ended(_("Cancelled. What was finished is kept for the next run."))
        except EngineError as error:
            self._ended("")
            self.showError(str(error), error.log)
        except (ImmunoRadiomicsError, ValueError, OSError) as error:
            self._ended("")
            self.showError(str(error))
        except BaseException:
            self._ended(_("The work has ended unexpectedly; the log of the application says why."))
            raise
        else:
            if over:
                self._ended(work.doneMessage or self.ui.runMessage.text)
                self.ui.progressBar.setValue(100)
            else:
                self.timer.setInterval(_POLL_MS if work.job.waits else _TURN_MS)

    def _ended(self, message: str) -> None:
        self.timer.stop()
        self.work = None
        self.ui.progressBar.setValue(0)
        self.ui.runMessage.text = message
        self.update()

    def onCancel(self) -> None:
        """End the running work."""
        if self.work is not None:
            self.work.job.cancel()
            self.ui.runMessage.text = _("Cancelling")

    def endWork(self) -> None:
        """End the running work at once, with all its processes."""
        if self.work is None:
            return
        self.timer.stop()
        job = self.work.job
        self.work = None
        job.kill()
        deadline = time.monotonic() + _SECONDS_TO_END
        while job.run is not None and not job.run.poll() and time.monotonic() < deadline:
            time.sleep(0.02)
