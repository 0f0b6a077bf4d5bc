"""Section 3: contours, drawn, propagated or made by one click, and what they are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .Dependencies import ensurePackages
from .Nodes import nodesOf
from .RowTables import SegmentTable
from .Section import Section, Shown, able, fillCombo, tell
from .Timepoints import Role, SegmentMeaning, TimepointRow, readMeanings, readRows, writeMeanings, writeRows
from .Views import showContoursIn, showVolume

if TYPE_CHECKING:
    from .Jobs import Work


class SegmentationSection(Section, VTKObservationMixin):
    """Opens the Segment Editor, propagates, segments lungs and single lesions, and says what segments are."""

    def setup(self) -> None:
        """Connect the widgets."""
        VTKObservationMixin.__init__(self)
        ui = self.ui
        self._seed: Any = None
        self.table = SegmentTable(ui.segmentsTable, self.onSegmentsEdited)
        self.onClick(ui.editSegmentationButton, self.onEdit)
        self.onClick(ui.segmentLungsButton, self.onLungs)
        self.onClick(ui.propagateButton, self.onPropagate)
        self.onClick(ui.placeSeedButton, self.onPlaceSeed)

    def show(self, shown: Shown) -> None:
        """Show the segments, and what can be done."""
        ui = self.ui
        fillCombo(ui.segmentationTimepoint, shown.names)
        said = readMeanings(self.parameters.parameterNode)
        self.table.show([said.get(name, SegmentMeaning(name)) for name in shown.segments])
        nothing = [_("No time point has a segmentation: draw the lesions at least at the baseline.")]
        tell(
            ui.segmentationSection,
            _("3. Segmentation"),
            "done" if shown.segments else "to do",
            ui.segmentationMessage,
            [] if shown.segments else nothing,
        )
        noVolume = "" if any(row.volume is not None for row in shown.rows) else _("Choose a CT volume first.")
        noEditor = "" if hasattr(slicer.modules, "segmenteditor") else _("This Slicer has no Segment Editor.")
        noMarkups = "" if hasattr(slicer.modules, "markups") else _("This Slicer has no Markups module.")
        able(ui.editSegmentationButton, noEditor or noVolume, _("Open the Segment Editor on this time point."))
        able(ui.segmentLungsButton, shown.running or noVolume, _("Add the lungs to this time point's segmentation."))
        able(
            ui.placeSeedButton,
            shown.running or noMarkups or noVolume,
            _("Click into a lesion of this time point in a slice view: it is segmented and added."),
        )
        noLesions = ""
        if not any(row.segmentation is not None for row in shown.rows if row.role is Role.BASELINE):
            noLesions = _("Draw the lesions at the baseline first.")
        able(
            ui.propagateButton,
            shown.running or shown.problems or noLesions,
            _("Carry the contours of the baseline to every time point that has none, to be checked there."),
        )

    def release(self) -> None:
        """Stop placing a point."""
        self._stopPlacing()

    def _chosen(self) -> tuple[int, TimepointRow]:
        rows = readRows(self.parameters.parameterNode)
        index = self.ui.segmentationTimepoint.currentIndex
        if not 0 <= index < len(rows) or rows[index].volume is None:
            raise ValueError(_("Choose a time point that has a CT volume."))
        return index, rows[index]

    def onSegmentsEdited(self) -> None:
        """The user has said what a segment is."""
        if self.parameters is not None and not self.panel.updating:
            writeMeanings(self.parameters.parameterNode, self.table.meanings())

    def onEdit(self) -> None:
        """Open the Segment Editor on the chosen time point, with a new segmentation where it has none."""
        index, row = self._chosen()
        segmentation = row.segmentation
        if segmentation is None:
            name = f"{row.volume.GetName()} segmentation"
            segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            segmentation.CreateDefaultDisplayNodes()
            segmentation.SetReferenceImageGeometryParameterFromVolumeNode(row.volume)
            rows = readRows(self.parameters.parameterNode)
            rows[index] = dataclasses.replace(row, segmentation=segmentation, noVisibleLesions=False, links={})
            writeRows(self.parameters.parameterNode, rows)
        self.panel.showUnaligned()
        # The Segment Editor follows the node with this tag.
        editorNode = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if editorNode is None:
            editorNode = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            editorNode.UnRegister(None)
            editorNode.SetSingletonTag("SegmentEditor")
            editorNode = slicer.mrmlScene.AddNode(editorNode)
        editorNode.SetAndObserveSegmentationNode(segmentation)
        editorNode.SetAndObserveSourceVolumeNode(row.volume)
        showVolume(row.volume, readRows(self.parameters.parameterNode))
        slicer.util.selectModule("SegmentEditor")

    def onLungs(self) -> None:
        """Segment the lungs of the chosen time point in a process."""
        index, _row = self._chosen()
        work = self.logic.lungsWork(self.parameters, index, self.panel.onProgress)
        self.begin(self._shownAfter(work, self.parameters.parameterNode), _("The lungs are segmented. Check them."))

    def onPropagate(self) -> None:
        """Carry the baseline's contours to the time points that have none."""
        ensurePackages()
        self.panel.showUnaligned()
        work = self.logic.propagationWork(self.parameters, self.panel.onProgress)
        self.begin(
            self._shownAfter(work, self.parameters.parameterNode),
            _("The contours were propagated. Check them before you run."),
        )

    @staticmethod
    def _shownAfter(work: Work, node: Any) -> Work:
        """Do work that draws contours for a patient; then hide the contours whose image no slice view shows: they lie over another."""
        yield from work
        shown = {composite.GetBackgroundVolumeID() for composite in nodesOf("vtkMRMLSliceCompositeNode")} - {None}
        for row in readRows(node):
            if shown and row.volume is not None and row.volume.GetID() not in shown:
                showContoursIn(row.segmentation, [])

    # One click

    def onPlaceSeed(self) -> None:
        """Let the user click a point into a lesion, or stop that."""
        if not self.ui.placeSeedButton.checked:
            self._stopPlacing()
            return
        try:
            _index, row = self._chosen()
        except ValueError:
            self.ui.placeSeedButton.checked = False
            raise
        self._stopPlacing()
        self.panel.showUnaligned()
        self.ui.placeSeedButton.checked = True
        showVolume(row.volume, readRows(self.parameters.parameterNode))
        self._seed = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _("Lesion"))
        self._seed.CreateDefaultDisplayNodes()
        self._seed.SetSaveWithScene(False)
        self.addObserver(self._seed, self._seed.PointPositionDefinedEvent, self.onSeedPlaced)
        logic = slicer.modules.markups.logic()
        logic.SetActiveList(self._seed)
        logic.StartPlaceMode(False)

    def onSeedPlaced(self, caller: Any = None, event: Any = None) -> None:
        """Segment the lesion around the point that the user has clicked."""
        place = [0.0, 0.0, 0.0]
        self._seed.GetNthControlPointPositionWorld(0, place)
        # The views still hold the point while they tell of it.
        qt.QTimer.singleShot(0, lambda: self._takePlace(place))

    def _takePlace(self, placeRas: list[float]) -> None:
        self._stopPlacing()
        self.panel.guarded(lambda: self.segmentAt(placeRas))()

    def segmentAt(self, placeRas: list[float]) -> None:
        """Segment the lesion around a place (RAS, mm) of the chosen time point in a process."""
        index, _row = self._chosen()
        logic, parameters, panel = self.logic, self.parameters, self.panel

        def work() -> Any:
            name, check = yield from logic.seedWork(parameters, index, placeRas, panel.onProgress)
            said = _("{name} was added. Check it.").format(name=name)
            panel.ui.runMessage.text = f"{said} {check}" if check else said

        self.begin(work())

    def _stopPlacing(self) -> None:
        self.ui.placeSeedButton.checked = False
        if self._seed is None:
            return
        seed, self._seed = self._seed, None
        self.removeObservers()
        interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        if interaction is not None and interaction.GetCurrentInteractionMode() == interaction.Place:
            interaction.SwitchToViewTransformMode()
        if seed.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(seed)
