"""An analysed patient as nodes of a scene."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import SimpleITK as sitk

from ..analysis import Analysis, Lesion
from ..errors import InputError, StageError
from ..images import Segmentation, read_segmentation, read_volume
from ..progress import Progress, part, silent
from ..study import Study
from .appearance import (
    LUNG_COLOUR,
    PNEUMONITIS_COLOUR,
    RAISED,
    lesion_course,
    lesion_terminology,
    lung_terminology,
)
from .mrml import (
    LPS_TO_RAS,
    OWNER,
    UNSAFE_IN_NODE_NAMES,
    claim,
    fill_segmentation_steps,
    fill_table,
    fill_volume,
    grid_image,
    mrml_classes,
)
from .steps import Steps, run_steps
from .tables import Column, flag_columns, lesion_columns, response_columns, size_columns
from .transforms import fill_transform, read_transform_node, transform_class

# Window width and level in HU, as radiologists set them.
_WINDOWS = {"lung": (1500.0, -600.0), "mediastinum": (400.0, 40.0)}
_SUV_WINDOW = (10.0, 5.0)


@dataclass(frozen=True)
class SceneNodes:
    """The nodes of one patient: by time point name, table name or lesion id. Items are those of the subject hierarchy.

    ``tables`` holds `flags`, `lesions`, `response` and `sizes`; ``axes`` maps (time point, lesion id, `long` or `short`) to a line;
    ``opacities`` are the segmentations of what is new in the lungs.
    """

    patient_item: int
    study_items: Mapping[str, int]
    volumes: Mapping[str, Any]
    segmentations: Mapping[str, Any]
    transforms: Mapping[str, Any]
    tables: Mapping[str, Any]
    series: Mapping[str, Any]
    chart: Any
    axes: Mapping[tuple[str, str, str], Any]
    opacities: Mapping[str, Any]


def populate_scene(
    scene: Any,
    analysis: Analysis,
    study: Study,
    folder: Path,
    *,
    volumes: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> SceneNodes:
    """Put one analysed patient into a MRML scene, in place of what an earlier call has put there for the same patient.

    Nodes that are already there are filled anew and keep their ids; those no longer needed are removed; what others have
    put into the scene is left alone. If anything fails, the nodes that were added are taken out again.

    Each follow-up's transform carries it onto the baseline (`from parent` is baseline to follow-up, as in ITK). It is present
    but not applied: radiologists read unwarped images. Its displacement grid is interpolated linearly, as it was estimated.

    Parameters
    ----------
    scene
        A vtkMRMLScene: ``slicer.mrmlScene``, or one made by ``new_scene``.
    folder
        The output folder of the analysis, with ``segmentations/<time point>.seg.nrrd`` and the transform files.
    volumes
        Volume nodes that are in the scene already, by time point; they are used as they are, and the results go to their study in
        the subject hierarchy (those without one are put into a new one). The others are read from the paths of the study.

    Raises
    ------
    MissingDependencyError
        If there is no MRML.
    StageError
        If a file of the output folder is missing or cannot be read.
    InputError
        If a volume of the study cannot be read.
    """
    scene.StartState(scene.BatchProcessState)
    try:
        return run_steps(populate_steps(scene, analysis, study, folder, volumes=volumes, progress=progress))
    finally:
        scene.EndState(scene.BatchProcessState)


def populate_steps(
    scene: Any,
    analysis: Analysis,
    study: Study,
    folder: Path,
    *,
    volumes: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Steps[SceneNodes]:
    """Do the work of ``populate_scene`` in steps."""
    builder = _Builder(mrml_classes(), scene, analysis, study, folder)
    scene.SaveStateForUndo()
    try:
        return (yield from builder.build(dict(volumes or {}), progress))
    except BaseException:
        builder.take_back()
        raise


def find_nodes(scene: Any, analysis: Analysis, volumes: Mapping[str, Any]) -> SceneNodes:
    """Return the nodes that ``populate_scene`` has put into a scene for a patient; ``volumes`` are those by time point that were handed to it.

    Raises
    ------
    StageError
        If the tables or the chart were removed.
    """
    builder = _Builder(mrml_classes(), scene, analysis, Study(analysis.patient, ()), Path())
    parts: dict[str, dict[str, Any]] = {}
    for key, node in builder.stale.items():
        kind, _, name = key.partition("/")
        parts.setdefault(kind, {})[name] = node
    if "chart" not in parts or "lesions" not in parts.get("table", {}):
        raise StageError("The chart or a table of the result was removed from the scene. Run the analysis again.")
    axes = {}
    for key, node in parts.get("axis", {}).items():
        timepoint, _, rest = key.partition("/")
        lesion, _, kind = rest.rpartition("/")
        axes[timepoint, lesion, kind] = node
    return SceneNodes(
        0,
        {},
        volumes,
        parts.get("segmentation", {}),
        parts.get("transform", {}),
        parts["table"],
        parts.get("series", {}),
        parts["chart"]["sizes"],
        axes,
        parts.get("opacities", {}),
    )


class _Builder:
    """Fills the nodes of one patient."""

    def __init__(self, mrml: SimpleNamespace, scene: Any, analysis: Analysis, study: Study, folder: Path):
        self.mrml = mrml
        self.scene = scene
        self.analysis = analysis
        self.study = study
        self.folder = folder
        self.key = quote(analysis.patient, safe="")
        self.hierarchy = mrml.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        self.courses = {lesion.id: lesion_course(lesion, analysis) for lesion in analysis.lesions}
        self.added: list[Any] = []
        self.added_items: list[int] = []
        self.items: set[int] = set()
        self.stale: dict[str, Any] = {}
        for index in range(scene.GetNumberOfNodes()):
            node = scene.GetNthNode(index)
            if node.GetAttribute(f"{OWNER}.patient") == self.key:
                self.stale[node.GetAttribute(f"{OWNER}.part")] = node

    def build(self, volumes: dict[str, Any], progress: Progress) -> Steps[SceneNodes]:
        self.check_files(volumes)
        # Volumes that an earlier call has made may be handed in again.
        self.stale = {key: node for key, node in self.stale.items() if node not in volumes.values()}
        patient_item = self.patient_item(volumes)
        study_items: dict[str, int] = {}
        segmentations: dict[str, Any] = {}
        opacities: dict[str, Any] = {}
        transforms: dict[str, Any] = {}
        axes: dict[tuple[str, str, str], Any] = {}
        timepoints = self.study.timepoints
        for index, timepoint in enumerate(timepoints):
            name = timepoint.name
            step = part(progress, index / len(timepoints), (index + 1) / len(timepoints))
            step(0.0, f"Scene: {name}")
            study_items[name] = self.study_item(patient_item, name, timepoint.date, volumes.get(name))
            if name in volumes:
                if not self.ancestor(volumes[name], "Study"):
                    self.hierarchy.CreateItem(study_items[name], volumes[name])
            else:
                image = yield functools.partial(read_volume, timepoint.ct)
                volumes[name] = self.volume(study_items[name], name, image)
                if timepoint.pet is not None:
                    uptake = yield functools.partial(read_volume, timepoint.pet, ct=False)
                    self.uptake(study_items[name], name, uptake)
            step(0.6, f"Scene: segmentation of {name}")
            if self.segmentation_path(name).exists():
                drawn = yield self.reader(self.segmentation_path(name), volumes[name])
                segmentations[name] = yield from self.segmentation(study_items[name], name, volumes[name], drawn)
                yield None
            if (new := self.opacities_path(name)) is not None:
                step(0.7, f"Scene: new opacities of {name}")
                drawn = yield self.reader(new, volumes[name])
                opacities[name] = yield from self.opacities(study_items[name], name, volumes[name], drawn)
                yield None
            axes.update((yield from self.axes(study_items[name], name)))
            step(0.8, f"Scene: transform of {name}")
            if (path := self.transform_path(name)) is not None:
                yield None
                transforms[name] = self.transform(study_items[name], name, path)
                yield None
        results = self.item(patient_item, "results", "folder", "Results")
        columns = {
            "flags": flag_columns(self.analysis),
            "lesions": lesion_columns(self.analysis),
            "response": response_columns(self.analysis),
            "sizes": size_columns(self.analysis),
        }
        tables = {key: self.table(results, key, entries) for key, entries in columns.items()}
        series = self.series(results, tables["sizes"])
        chart = self.chart(results, series)
        for node in self.stale.values():
            self.remove(node)
        self.remove_unused_items(patient_item)
        progress(1.0, "done")
        return SceneNodes(
            patient_item, study_items, volumes, segmentations, transforms, tables, series, chart, axes, opacities
        )

    def node(self, class_name: str, key: str, name: str, item: int) -> Any:
        """Return this patient's node for ``key``, a new one where there is none, under an item of the subject hierarchy."""
        found = self.stale.pop(key, None)
        if found is not None and found.GetClassName() != class_name:
            self.remove(found)
            found = None
        if found is None:
            found = self.scene.AddNewNodeByClass(class_name, name.translate(UNSAFE_IN_NODE_NAMES))
            claim(found, self.analysis.patient, key)
            self.added.append(found)
        self.hierarchy.CreateItem(item, found)
        return found

    def remove(self, node: Any) -> None:
        """Remove a node with its display and storage nodes and its item."""
        displays = node.GetNumberOfDisplayNodes() if hasattr(node, "GetNumberOfDisplayNodes") else 0
        attached = [node.GetNthDisplayNode(index) for index in range(displays)]
        if hasattr(node, "GetStorageNode"):
            attached.append(node.GetStorageNode())
        item = self.hierarchy.GetItemByDataNode(node)
        if item:
            self.hierarchy.RemoveItem(item, False, False)
        for other in (node, *attached):
            if other is not None and other.GetScene() is not None:
                self.scene.RemoveNode(other)

    def take_back(self) -> None:
        """Remove what was added, so that a scene is not left half filled."""
        for node in reversed(self.added):
            if node.GetScene() is not None:
                self.remove(node)
        for item in reversed(self.added_items):
            if self.hierarchy.GetNumberOfItemChildren(item) == 0:
                self.hierarchy.RemoveItem(item, False, False)

    def item(self, parent: int, key: str, level: str, name: str) -> int:
        """Return the item of this patient with ``key``, a new one under ``parent`` where there is none."""
        found = self.hierarchy.GetItemByUID(OWNER, f"{self.key}/{key}")
        if not found:
            create = {
                "patient": self.hierarchy.CreateSubjectItem,
                "study": self.hierarchy.CreateStudyItem,
                "folder": self.hierarchy.CreateFolderItem,
            }[level]
            found = create(parent, name)
            self.hierarchy.SetItemUID(found, OWNER, f"{self.key}/{key}")
            self.added_items.append(int(found))
        self.items.add(int(found))
        return int(found)

    def remove_unused_items(self, patient: int) -> None:
        """Remove the studies and folders that an earlier analysis of this patient needed and that are empty now."""
        below: list[int] = []
        self.hierarchy.GetItemChildren(patient, below, True)
        for item in reversed(below):
            ours = self.hierarchy.GetItemUID(item, OWNER).startswith(f"{self.key}/")
            if ours and item not in self.items and self.hierarchy.GetNumberOfItemChildren(item) == 0:
                self.hierarchy.RemoveItem(item, False, False)

    def ancestor(self, node: Any, level: str) -> int:
        """Return the patient or study item above a node, 0 if there is none."""
        item = self.hierarchy.GetItemByDataNode(node) if node is not None else 0
        return int(self.hierarchy.GetItemAncestorAtLevel(item, level)) if item else 0

    def patient_item(self, volumes: Mapping[str, Any]) -> int:
        given = [item for node in volumes.values() if (item := self.ancestor(node, "Patient"))]
        if given:
            return given[0]
        item = self.item(self.hierarchy.GetSceneItemID(), "", "patient", self.analysis.patient)
        self.hierarchy.SetItemAttribute(item, "DICOM.PatientID", self.analysis.patient)
        self.hierarchy.SetItemAttribute(item, "DICOM.PatientName", self.analysis.patient)
        return item

    def study_item(self, patient: int, name: str, date: datetime.date, volume: Any) -> int:
        item = self.ancestor(volume, "Study")
        if not item:
            item = self.item(patient, f"study/{quote(name, safe='')}", "study", f"{name} ({date.isoformat()})")
            self.hierarchy.SetItemAttribute(item, "DICOM.StudyDate", date.strftime("%Y%m%d"))
            self.hierarchy.SetItemAttribute(item, "DICOM.StudyDescription", name)
        return item

    def segmentation_path(self, timepoint: str) -> Path:
        return self.folder / "segmentations" / f"{timepoint}.seg.nrrd"

    def opacities_path(self, timepoint: str) -> Path | None:
        files = (item.map_file for item in self.analysis.lung_changes if item.timepoint == timepoint)
        name = next((file for file in files if file is not None), None)
        return None if name is None else self.folder / name

    def transform_path(self, timepoint: str) -> Path | None:
        record = next((item for item in self.analysis.alignments if item.timepoint == timepoint), None)
        return self.folder / record.transform_file if record and record.transform_file else None

    def check_files(self, volumes: Mapping[str, Any]) -> None:
        names = [timepoint.name for timepoint in self.study.timepoints]
        segmented = {record.name for record in self.analysis.timepoints if record.segmentation != "none"}
        wanted = [self.segmentation_path(name) for name in names if name in segmented]
        for path_of in (self.opacities_path, self.transform_path):
            wanted += [path for name in names if (path := path_of(name)) is not None]
        missing = [str(path) for path in wanted if not path.exists()]
        if unknown := sorted(set(volumes) - set(names)):
            raise StageError(f"The study has no time point named {', '.join(unknown)}.")
        if empty := [node.GetName() for node in volumes.values() if node.GetImageData() is None]:
            raise StageError(f"Volume {', '.join(empty)} has no voxels. Choose the volumes that were analysed.")
        if missing:
            raise StageError(f"The result is incomplete: {', '.join(missing)} is missing. Run the analysis again.")

    def volume(self, item: int, timepoint: str, image: sitk.Image) -> Any:
        node = self.node("vtkMRMLScalarVolumeNode", f"ct/{timepoint}", f"{self.analysis.patient} {timepoint} CT", item)
        fill_volume(node, image)
        node.SetAttribute("DICOM.Modality", "CT")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.ResetWindowLevelPresets()
        in_lung = sum(lesion.organ.lower() in {"lung", "pleura"} for lesion in self.analysis.lesions)
        preset = "lung" if 2 * in_lung >= len(self.analysis.lesions) else "mediastinum"
        for name in sorted(_WINDOWS, key=lambda key: key != preset):
            display.AddWindowLevelPreset(*_WINDOWS[name])
        display.SetWindowLevel(*_WINDOWS[preset])
        return node

    def uptake(self, item: int, timepoint: str, image: sitk.Image) -> None:
        """Add the PET beside its CT, in the window that readers of FDG are used to."""
        node = self.node(
            "vtkMRMLScalarVolumeNode", f"pet/{timepoint}", f"{self.analysis.patient} {timepoint} PET", item
        )
        fill_volume(node, image)
        node.SetAttribute("DICOM.Modality", "PT")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevel(*_SUV_WINDOW)

    def reader(self, path: Path, volume: Any) -> Callable[[], Segmentation]:
        """Return what reads a segmentation of a time point on the grid of its volume, without MRML."""
        grid = grid_image(volume)

        def read() -> Segmentation:
            try:
                return read_segmentation(path, grid, may_be_empty=True)
            except InputError as error:
                raise StageError(f"{error} Run the analysis again.") from error

        return read

    def fill_hidden(self, node: Any, volume: Any, drawn: Segmentation) -> Steps[Any]:
        """Fill a segmentation node on the grid of its volume and return its display node, not shown yet."""
        yield from fill_segmentation_steps(self.mrml, node, drawn)
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetVisibility(False)
        return display

    def segmentation(self, item: int, timepoint: str, volume: Any, drawn: Segmentation) -> Steps[Any]:
        name = f"{self.analysis.patient} {timepoint} lesions"
        node = self.node("vtkMRMLSegmentationNode", f"segmentation/{timepoint}", name, item)
        display = yield from self.fill_hidden(node, volume, drawn)
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            segment_id = segmentation.GetNthSegmentID(index)
            segment = segmentation.GetNthSegment(index)
            lesion = self.lesion_of(timepoint, segment.GetName())
            if lesion is not None:
                segment.SetColor(*self.courses[lesion.id].colour)
                segment.SetTag(segment.GetTerminologyEntryTagName(), lesion_terminology(lesion))
                display.SetSegmentOpacity2DFill(segment_id, 0.25)
            elif "lung" in segment.GetName().lower():
                raised = any(flag.flag == "pneumonitis" and flag.level in RAISED for flag in self.analysis.flags)
                segment.SetColor(*(PNEUMONITIS_COLOUR if raised else LUNG_COLOUR))
                segment.SetTag(segment.GetTerminologyEntryTagName(), lung_terminology(segment.GetName()))
                display.SetSegmentOpacity2DFill(segment_id, 0.0)
                display.SetSegmentOpacity3D(segment_id, 0.15)
        return node

    def opacities(self, item: int, timepoint: str, volume: Any, drawn: Segmentation) -> Steps[Any]:
        """Fill the segmentation of what is new in the lungs: tinted where it is, in its own colours."""
        name = f"{self.analysis.patient} {timepoint} new lung opacities"
        node = self.node("vtkMRMLSegmentationNode", f"opacities/{timepoint}", name, item)
        display = yield from self.fill_hidden(node, volume, drawn)
        display.SetVisibility3D(False)
        display.SetOpacity2DFill(0.4)
        return node

    def lesion_of(self, timepoint: str, segment: str) -> Lesion | None:
        for lesion in self.analysis.lesions:
            observation = lesion.at(timepoint)
            if segment == lesion.id or (observation is not None and segment in observation.segments):
                return lesion
        return None

    def transform(self, item: int, timepoint: str, path: Path) -> Any:
        source = read_transform_node(path)
        name = f"{self.analysis.patient} {timepoint} to {self.analysis.baseline}"
        node = self.node(transform_class(source), f"transform/{timepoint}", name, item)
        fill_transform(node, source)
        return node

    def axes(self, item: int, timepoint: str) -> Steps[dict[tuple[str, str, str], Any]]:
        """Draw the long and short axis of every measured lesion as locked lines."""
        lines = {}
        key = quote(timepoint, safe="")
        for lesion in self.analysis.lesions:
            observation = lesion.at(timepoint)
            if observation is None:
                continue
            for kind, ends in (
                ("long", observation.long_axis_ends_lps_mm),
                ("short", observation.short_axis_ends_lps_mm),
            ):
                if ends is None:
                    continue
                folder = self.item(item, f"axes/{key}", "folder", "Diameters")
                node = self.node(
                    "vtkMRMLMarkupsLineNode",
                    f"axis/{timepoint}/{lesion.id}/{kind}",
                    f"{lesion.id} {kind} axis, {timepoint}",
                    folder,
                )
                node.SetLocked(False)
                node.RemoveAllControlPoints()
                for end in ends:
                    node.AddControlPointWorld(*(LPS_TO_RAS @ end).tolist())
                node.SetLocked(True)
                node.CreateDefaultDisplayNodes()
                display = node.GetDisplayNode()
                display.SetColor(*self.courses[lesion.id].colour)
                display.SetSelectedColor(*self.courses[lesion.id].colour)
                display.SetPointLabelsVisibility(False)
                display.SetPropertiesLabelVisibility(False)
                display.SetVisibility(False)
                display.SetVisibility3D(False)
                display.SetGlyphScale(1.0)
                lines[timepoint, lesion.id, kind] = node
                yield None
        return lines

    def table(self, item: int, key: str, columns: Sequence[Column]) -> Any:
        node = self.node("vtkMRMLTableNode", f"table/{key}", f"{self.analysis.patient} {key}", item)
        fill_table(node, columns)
        return node

    def series(self, item: int, table: Any) -> dict[str, Any]:
        nodes = {}
        grey = (0.3, 0.3, 0.3)
        curves = [(lesion.id, self.courses[lesion.id].colour) for lesion in self.analysis.lesions]
        for column, colour in (*curves, ("sum_mm", grey)):
            label = "sum of target lesions" if column == "sum_mm" else column
            node = self.node("vtkMRMLPlotSeriesNode", f"series/{column}", f"{self.analysis.patient} {label}", item)
            node.SetAndObserveTableNodeID(table.GetID())
            node.SetXColumnName("day")
            node.SetYColumnName(column)
            node.SetPlotType(node.PlotTypeScatter)
            node.SetMarkerStyle(node.MarkerStyleCircle)
            node.SetMarkerSize(9.0)
            node.SetLineStyle(node.LineStyleDash if column == "sum_mm" else node.LineStyleSolid)
            node.SetLineWidth(2.0)
            node.SetColor(*colour)
            nodes[column] = node
        return nodes

    def chart(self, item: int, series: Mapping[str, Any]) -> Any:
        node = self.node("vtkMRMLPlotChartNode", "chart/sizes", f"{self.analysis.patient} lesion sizes", item)
        node.RemoveAllPlotSeriesNodeIDs()
        for entry in series.values():
            node.AddAndObservePlotSeriesNodeID(entry.GetID())
        node.SetTitle(f"{self.analysis.patient}: lesion sizes")
        node.SetXAxisTitle("days since the baseline scan")
        node.SetYAxisTitle("long axis (nodes: short axis) in mm")
        node.SetLegendVisibility(True)
        return node
