"""Slice views: a lesion at two time points side by side, each as acquired, and an aligned pair over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.util import VTKObservationMixin

from .Nodes import nodesOf

if TYPE_CHECKING:
    from .Timepoints import TimepointRow

Point = tuple[float, float, float]

BASELINE_VIEW, TIMEPOINT_VIEW = "Red", "Yellow"
_SAME_PLACE_MM = 1e-3
# On a scan that is shown under the transform of its alignment: so marked, it is taken back also after a scene was saved like that.
_LAID, _ABOVE = "ImmunoRadiomics.laidOnBaseline", "ImmunoRadiomics.transformAbove"
# What a node is of a result.
_PART = "ImmunoRadiomics.part"


def viewNodes(view: str) -> tuple[Any, Any]:
    """Return the composite node and the slice node of a slice view, None where there is no such view."""
    composite = next((node for node in nodesOf("vtkMRMLSliceCompositeNode") if node.GetLayoutName() == view), None)
    sliceNode = next((node for node in nodesOf("vtkMRMLSliceNode") if node.GetLayoutName() == view), None)
    return composite, sliceNode


def shownImages() -> tuple[str | None, str | None]:
    """Return the node IDs of the images that the view of the baseline and the one of the time point show."""
    first, second = (viewNodes(view)[0] for view in (BASELINE_VIEW, TIMEPOINT_VIEW))
    return (first and first.GetBackgroundVolumeID(), second and second.GetBackgroundVolumeID())


def showVolume(volume: Any, rows: Sequence[TimepointRow] = ()) -> None:
    """Show a volume in the slice views, where there are any, and of the contours of these time points only its own."""
    for row in rows:
        showContoursIn(row.segmentation, None if row.volume is volume else [])
    if slicer.app.layoutManager() is not None:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def showContoursIn(segmentation: Any, viewIds: Sequence[str] | None) -> None:
    """Show a segmentation in the views with these node IDs alone; None shows it in all views, an empty list in none."""
    display = segmentation.GetDisplayNode() if segmentation is not None else None
    if display is not None:
        display.SetVisibility(viewIds is None or len(viewIds) > 0)
        display.SetViewNodeIDs(list(viewIds or ()))


def layOutSideBySide() -> bool:
    """Lay two slice views out side by side; return whether they were laid out otherwise before."""
    manager = slicer.app.layoutManager()
    layout = slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    if manager is None or manager.layout == layout:
        return False
    manager.setLayout(layout)
    # The views take their sizes when these events are handled; what is fitted before does not fit after.
    slicer.app.processEvents()
    return True


def showPlace(view: str, volume: Any, place: Point | None, *, fit: bool = False) -> bool:
    """Show a volume alone in a slice view, axial and where it was acquired, with a place (RAS mm) in its middle.

    ``fit`` shows all of the slice; else the view keeps its zoom.
    """
    composite, sliceNode = viewNodes(view)
    if volume is None or composite is None or sliceNode is None:
        return False
    composite.SetLinkedControl(False)
    composite.SetBackgroundVolumeID(volume.GetID())
    composite.SetForegroundVolumeID(None)
    sliceNode.SetOrientation("Axial")
    if fit:
        slicer.app.layoutManager().sliceWidget(view).sliceController().fitSliceToBackground()
    if place is not None:
        sliceNode.JumpSliceByCentering(*place)
    return place is not None


def carried(transform: Any, place: Point, *, toBaseline: bool = False) -> Point:
    """Carry a place of the baseline (RAS mm) to a time point through the node that lays that time point on the baseline, or back."""
    if transform is None:
        return place
    general = vtk.vtkGeneralTransform()
    if toBaseline:
        transform.GetTransformToWorld(general)
    else:
        transform.GetTransformFromWorld(general)
    x, y, z = general.TransformPoint(*place)
    return (x, y, z)


class LinkedViews(VTKObservationMixin):
    """Two slice views that follow each other through a transform: each shows its own image, unwarped, at the same anatomy.

    Slicer's own linking gives both views one position, which is another place of the body in an image that is not warped.
    """

    def __init__(self) -> None:
        VTKObservationMixin.__init__(self)
        self._nodes: tuple[Any, Any] | None = None
        self._images: tuple[str | None, str | None] = (None, None)
        self._transform: Any = None
        self._shift: Point = (0.0, 0.0, 0.0)
        self._following = False

    @property
    def linked(self) -> bool:
        """Whether the views follow each other now."""
        return self._nodes is not None

    def link(self, transform: Any) -> None:
        """Link the views where they are now: these two places stay opposite each other, their surroundings follow the transform.

        The link ends when one of them shows another image.
        """
        self.unlink()
        _first, baseline = viewNodes(BASELINE_VIEW)
        _second, other = viewNodes(TIMEPOINT_VIEW)
        if baseline is None or other is None:
            return
        self._transform = transform
        expected = carried(transform, _center(baseline))
        self._shift = _difference(_center(other), expected)
        self._nodes, self._images = (baseline, other), shownImages()
        for node in self._nodes:
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onMoved)

    def unlink(self) -> None:
        """Let each view go its own way."""
        self.removeObservers()
        self._nodes = self._transform = None

    def _onMoved(self, caller: Any, _event: Any) -> None:
        if self._following or self._nodes is None:
            return
        if shownImages() != self._images or (self._transform is not None and self._transform.GetScene() is None):
            self.unlink()
            return
        baseline, other = self._nodes
        if caller is baseline:
            target, place = other, _sum(carried(self._transform, _center(baseline)), self._shift)
        else:
            start = _difference(_center(other), self._shift)
            target, place = baseline, carried(self._transform, start, toBaseline=True)
        self._following = True
        try:
            if max(abs(value) for value in _difference(place, _center(target))) > _SAME_PLACE_MM:
                target.JumpSliceByCentering(*place)
            _zoomAs(caller, target)
        finally:
            self._following = False


def _center(sliceNode: Any) -> Point:
    matrix = sliceNode.GetSliceToRAS()
    return (matrix.GetElement(0, 3), matrix.GetElement(1, 3), matrix.GetElement(2, 3))


def _sum(first: Point, second: Point) -> Point:
    return (first[0] + second[0], first[1] + second[1], first[2] + second[2])


def _difference(first: Point, second: Point) -> Point:
    return (first[0] - second[0], first[1] - second[1], first[2] - second[2])


def _zoomAs(source: Any, target: Any) -> None:
    """Give a view the scale of another: the same mm per pixel, whatever its size."""
    wide, high = source.GetDimensions()[:2]
    if min(wide, high) < 1:
        return
    scale = source.GetFieldOfView()[0] / wide
    size = target.GetDimensions()
    wanted = (scale * size[0], scale * size[1])
    now = target.GetFieldOfView()
    if max(abs(wanted[0] - now[0]), abs(wanted[1] - now[1])) > _SAME_PLACE_MM:
        target.SetFieldOfView(*wanted, now[2])


def takeBack(volume: Any) -> None:
    """Let a scan that was laid on the baseline lie again where it was acquired; others are left alone."""
    if volume.GetAttribute(_LAID) is None:
        return
    above = volume.GetNodeReference(_ABOVE)
    volume.SetAndObserveTransformNodeID(above.GetID() if above is not None else None)
    volume.SetNodeReferenceID(_ABOVE, None)
    volume.RemoveAttribute(_LAID)


def takeAllBack() -> None:
    """Let every scan of the scene lie where it was acquired."""
    for volume in nodesOf("vtkMRMLScalarVolumeNode"):
        takeBack(volume)


def interpolateAsEstimated() -> None:
    """Let the displacement grids of results carry places as the engine does: from files Slicer reads them with cubic interpolation.

    With that, places in the body lie 0.01 mm, and up to 0.4 mm, from where the engine puts them.
    """
    grids = [
        node
        for node in nodesOf("vtkMRMLTransformNode")
        if (node.GetAttribute(_PART) or "").startswith("transform/") and not node.IsLinear()
    ]
    if not grids:
        return
    from ImmunoRadiomicsLib.scene.mrml import interpolate_linearly

    for node in grids:
        interpolate_linearly(node.GetTransformFromParent())


class AlignedPair:
    """A time point shown on the baseline in all slice views: faded over it, or in the squares of a checkerboard.

    Only while it is shown lies the time point under its transform; the checkerboard is a volume of its own that goes with it. Of all
    contours those drawn on the baseline alone fit what is seen then; afterwards the views show what they showed before.
    """

    def __init__(self) -> None:
        self._faded: Any = None
        self._board: Any = None
        self._views: list[tuple[Any, str, str | None, str | None]] = []
        self._marks: list[tuple[Any, list[str]]] = []

    @property
    def faded(self) -> Any:
        """The volume that is faded over the baseline, None where none is."""
        return self._faded

    def fade(self, baseline: Any, timepoint: Any, transform: Any, opacity: float) -> None:
        """Lay a time point on the baseline by its transform and over it with an opacity."""
        self.hide()
        above = timepoint.GetParentTransformNode()
        timepoint.SetNodeReferenceID(_ABOVE, above.GetID() if above is not None else None)
        timepoint.SetAttribute(_LAID, "true")
        timepoint.SetAndObserveTransformNodeID(transform.GetID())
        self._faded = timepoint
        self._show(baseline.GetID(), timepoint.GetID(), baseline)
        self.setOpacity(opacity)

    def setOpacity(self, opacity: float) -> None:
        """Fade: 0 shows the baseline alone, 1 the time point alone."""
        if self._faded is not None:
            for composite in nodesOf("vtkMRMLSliceCompositeNode"):
                composite.SetForegroundOpacity(opacity)

    def checker(self, board: Any, baseline: Any) -> None:
        """Show a volume whose squares are those of the baseline and of the time point by turns; it is removed by ``hide``."""
        self.hide()
        self._board = board
        board.SetSaveWithScene(False)
        display, given = board.GetDisplayNode(), baseline.GetDisplayNode()
        if display is not None and given is not None:
            display.AutoWindowLevelOff()
            display.SetWindowLevel(given.GetWindow(), given.GetLevel())
        self._show(board.GetID(), None, baseline)

    def _show(self, background: str, foreground: str | None, baseline: Any) -> None:
        for composite in nodesOf("vtkMRMLSliceCompositeNode"):
            shown = (composite.GetBackgroundVolumeID() or baseline.GetID(), composite.GetForegroundVolumeID())
            self._views.append((composite, background, *shown))
            composite.SetBackgroundVolumeID(background)
            composite.SetForegroundVolumeID(foreground)
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        for node in [*nodesOf("vtkMRMLSegmentationNode"), *nodesOf("vtkMRMLMarkupsLineNode")]:
            display = node.GetDisplayNode()
            if display is not None and display.GetVisibility():
                self._marks.append((display, list(display.GetViewNodeIDs())))
                display.SetVisibility(node.GetNodeReferenceID(role) == baseline.GetID())
                display.SetViewNodeIDs([])

    def _showAsBefore(self) -> None:
        for composite, background, *shown in self._views:
            # Views in which something else was chosen since are left alone.
            if composite.GetScene() is not None and composite.GetBackgroundVolumeID() == background:
                composite.SetBackgroundVolumeID(shown[0])
                composite.SetForegroundVolumeID(shown[1])
        for display, viewIds in self._marks:
            if display.GetScene() is not None:
                display.SetVisibility(True)
                display.SetViewNodeIDs(viewIds)
        self._views, self._marks = [], []

    def hide(self) -> None:
        """Show the time point again where it was acquired, remove the checkerboard, and show what was shown before."""
        self._showAsBefore()
        if self._faded is not None:
            if self._faded.GetScene() is not None:
                takeBack(self._faded)
            self._faded = None
        if self._board is not None:
            if self._board.GetScene() is not None:
                display = self._board.GetDisplayNode()
                slicer.mrmlScene.RemoveNode(self._board)
                if display is not None and display.GetScene() is not None:
                    slicer.mrmlScene.RemoveNode(display)
            self._board = None
