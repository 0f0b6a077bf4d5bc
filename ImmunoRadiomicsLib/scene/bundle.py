"""The scene of a patient as one file that Slicer opens."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis import Analysis, LesionObservation
from ..errors import StageError
from ..progress import Progress, part, silent
from ..study import Study
from .mrml import LPS_TO_RAS, mrml_classes, new_scene, quiet
from .populate import SceneNodes, populate_scene

# Slice views of the layout "conventional with plot", which shows the 3D view and the chart above them.
_BASELINE_VIEWS = (("Red", "Axial"), ("Yellow", "Sagittal"))
_FOLLOW_UP_VIEWS = (("Green", "Axial"),)
_THREE_D_VIEW = "vtkMRMLViewNode1"
_MARGIN = 1.05
_VIEW_PIXELS = 400


def write_scene(analysis: Analysis, study: Study, folder: Path, path: Path, *, progress: Progress = silent) -> None:
    """Write an analysed patient as a MRML bundle (.mrb) that Slicer opens with views, tables and chart in place.

    The file is either whole or absent. Arguments and errors are those of ``populate_scene``. A file does not say how a displacement
    grid is interpolated, and Slicer opens it with cubic interpolation: the same at grid points, apart by the curvature of the field
    between them (with a 3 mm grid some 0.01 mm, at most about 0.1 mm). ``populate_scene`` on the opened scene restores the linear one.
    """
    mrml = mrml_classes()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent.resolve()))
    try:
        with quiet() as log:
            scene = new_scene()
            nodes = populate_scene(scene, analysis, study, folder, progress=part(progress, 0.0, 0.5))
            arrange_views(scene, analysis, nodes)
            progress(0.5, "writing")
            messages = mrml.vtkMRMLMessageCollection()
            # The bundle's inner folder takes the file's name, so the name must be the final one already.
            if not scene.WriteToMRB(str(temporary / path.name), None, messages):
                said = f"{messages.GetAllMessagesAsString()} {log.GetOutput()}".strip()
                raise StageError(f"{path}: the scene cannot be written. {said}")
            scene.Clear(True)
        os.replace(temporary / path.name, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    progress(1.0, "written")


def arrange_views(
    scene: Any, analysis: Analysis, nodes: SceneNodes, *, settle: Callable[[], object] = lambda: None
) -> None:
    """Lay the views out: baseline (red) and last follow-up (green) at their largest lesion, the lesions in 3D and the chart of sizes.

    Every time point's contours are shown only where its own image is, because the images are not warped; those of the last also in the
    3D view. ``settle`` is called once they are laid out, before images are fitted into them: views on a screen take their sizes then.
    """
    layout = _singleton(scene, "vtkMRMLLayoutNode", "vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutConventionalPlotView)
    settle()
    names = [record.name for record in sorted(analysis.timepoints, key=lambda item: item.day)]
    shown: dict[str, Sequence[tuple[str, str]]] = {analysis.baseline: _BASELINE_VIEWS}
    if names[-1] != analysis.baseline:
        shown[names[-1]] = _FOLLOW_UP_VIEWS
    for name, views in shown.items():
        _slice_views(scene, views, nodes.volumes[name], _largest_lesion(analysis, name))
    view_ids = {name: [f"vtkMRMLSliceNode{view}" for view, _ in views] for name, views in shown.items()}
    view_ids[names[-1]].append(_THREE_D_VIEW)
    show_marks(nodes, view_ids)
    if (last := nodes.segmentations.get(names[-1])) is not None:
        last.CreateClosedSurfaceRepresentation()
    selection = _singleton(scene, "vtkMRMLSelectionNode", "Singleton")
    selection.SetActiveVolumeID(nodes.volumes[analysis.baseline].GetID())
    selection.SetActivePlotChartID(nodes.chart.GetID())
    selection.SetActiveTableID(nodes.tables["lesions"].GetID())
    _singleton(scene, "vtkMRMLPlotViewNode", "PlotView1").SetPlotChartNodeID(nodes.chart.GetID())


def show_marks(nodes: SceneNodes, view_ids: Mapping[str, Sequence[str]]) -> None:
    """Show the contours, new opacities and diameters of every time point in the views with these node IDs alone, those of other time points nowhere."""
    for name in nodes.volumes:
        marks = [drawn[name] for drawn in (nodes.segmentations, nodes.opacities) if name in drawn]
        marks += [line for (timepoint, _, _), line in nodes.axes.items() if timepoint == name]
        for mark in marks:
            display = mark.GetDisplayNode()
            if display is not None:
                display.SetVisibility(name in view_ids)
                display.SetViewNodeIDs(list(view_ids.get(name, ())))


def _largest_lesion(analysis: Analysis, timepoint: str) -> tuple[float, float, float] | None:
    found = [observation for lesion in analysis.lesions if (observation := lesion.at(timepoint)) is not None]
    seen: list[LesionObservation] = [item for item in found if item.centroid_lps_mm is not None]
    return max(seen, key=lambda item: item.long_axis_mm or 0.0).centroid_lps_mm if seen else None


def _singleton(scene: Any, class_name: str, tag: str) -> Any:
    """Return the one node of its kind with this tag; the tag makes Slicer merge it with its own when the scene is opened."""
    node = scene.GetSingletonNode(tag, class_name)
    if node is None:
        node = scene.CreateNodeByClass(class_name)
        node.UnRegister(None)  # the scene's factory leaves a reference that Python does not know of
        node.SetSingletonTag(tag)
        node.SetName(tag)
        scene.AddNode(node)
    return node


def _slice_views(
    scene: Any,
    views: Sequence[tuple[str, str]],
    volume: Any,
    centre_lps_mm: tuple[float, float, float] | None,
) -> None:
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    extent = [high - low for low, high in zip(bounds[::2], bounds[1::2], strict=True)]
    middle = [(high + low) / 2 for low, high in zip(bounds[::2], bounds[1::2], strict=True)]
    centre = middle if centre_lps_mm is None else (LPS_TO_RAS @ centre_lps_mm).tolist()
    in_plane = {"Axial": (0, 1), "Sagittal": (1, 2), "Coronal": (0, 2)}
    for view, orientation in views:
        # First, so that whoever follows a view learns of its new image before of its new place.
        composite = _singleton(scene, "vtkMRMLSliceCompositeNode", view)
        composite.SetLayoutName(view)
        composite.SetBackgroundVolumeID(volume.GetID())
        composite.SetForegroundVolumeID(None)
        on_screen = scene.GetSingletonNode(view, "vtkMRMLSliceNode") is not None
        slice_node = _singleton(scene, "vtkMRMLSliceNode", view)
        slice_node.SetLayoutName(view)
        slice_node.SetOrientation(orientation)
        if not on_screen:
            # A view on a screen has the size of its window, which it is told only when that changes.
            slice_node.SetDimensions(_VIEW_PIXELS, _VIEW_PIXELS, 1)
        wide, high = slice_node.GetDimensions()[:2]
        pixel = _MARGIN * max(extent[axis] for axis in in_plane[orientation]) / max(1, min(wide, high))
        slice_node.SetFieldOfView(pixel * wide, pixel * high, 1.0)
        plane = [centre[axis] if axis not in in_plane[orientation] else middle[axis] for axis in range(3)]
        slice_node.JumpSliceByCentering(*plane)
