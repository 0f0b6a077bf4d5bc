"""From nodes to the engine and back, with no widget: also for the Python console."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from .Bundles import BundleReader, OwnBundle, bundleFolders, setBundleFolders
from .Dependencies import missingPackages
from .DicomDatabase import acquisitionOf, studyDate
from .EngineProcess import EngineProgress, EngineRun, ProcessProtocol, TreeProcess
from .Facts import clinicalFacts, date, factProblems, whole
from .Jobs import doAll
from .Nodes import nodesOf, patientNodes, segmentationOf, segmentNames, segmentsOf
from .ParameterNode import ImmunoRadiomicsParameterNode
from .Results import RESULT_FOLDER, ResultStore
from .StudyLoader import segmentationSteps, studySteps, volumeSteps
from .Timepoints import (
    Kind,
    Role,
    SegmentMeaning,
    TimepointRow,
    TransformUse,
    proposeRoles,
    readMeanings,
    readRows,
    rowProblems,
    timepointNames,
    writeRows,
)

if TYPE_CHECKING:
    from ImmunoRadiomicsLib.analysis import Analysis, StageResult
    from ImmunoRadiomicsLib.scene import ChosenTimepoint
    from ImmunoRadiomicsLib.study import Clinical, LesionLink, LesionSpec, Treatment

Steps = Generator[Any, Any, Any]
OnProgress = Callable[[EngineProgress], None]

_CHECKER_MM = 32.0


@dataclass(frozen=True)
class Request:
    """Everything that a run needs, checked as far as that is possible without opening images."""

    patient: str
    timepoints: tuple[ChosenTimepoint, ...]
    tumor: str | None = None
    treatment: Treatment | None = None
    clinical: Clinical | None = None
    lesions: tuple[LesionSpec, ...] = ()
    links: tuple[LesionLink, ...] = ()
    preset: str = "ct-lesion"
    engine: str = "auto"
    jobs: int = 1
    bundles: tuple[str, ...] = ()

    @property
    def volumes(self) -> dict[str, Any]:
        """The volume nodes by the names of the time points."""
        return {item.name: item.volume for item in self.timepoints}


class EngineError(RuntimeError):
    """The engine could not do what was asked; ``log`` is the end of what it has said."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


def messageDetails(log: str) -> dict[str, str]:
    """Return how a message box takes an engine's log: Slicer makes one with details very wide, even if these are empty."""
    return {"detailedText": log} if log else {}


class ImmunoRadiomicsLogic(ScriptedLoadableModuleLogic):
    """Runs the engine on nodes of the scene. A patient is a parameter node; a scene may hold several.

    Methods whose names end in ``Work`` return work for ``Jobs``: the panel does it a little at a time, the console at once.

    >>> logic = ImmunoRadiomicsLogic()
    >>> analysis = logic.analyze(
    ...     "P001",
    ...     [("2024-01-10", baselineVolume, baselineSegmentation), ("2024-03-12", followUpVolume, None)],
    ...     treatmentStart="2024-01-15",
    ... )
    >>> [(flag.flag, flag.probability) for flag in analysis.flags]
    """

    def __init__(self, processFactory: Callable[[], ProcessProtocol] = TreeProcess) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.moduleName = "ImmunoRadiomics"
        self.isSingletonParameterNode = False
        self.results = ResultStore()
        self._processFactory = processFactory
        self._folders: dict[str, Path] = {}
        self._bundleReader = BundleReader()

    def getParameterNode(self) -> ImmunoRadiomicsParameterNode:
        """Return the choices for the first patient of the scene, new ones where there is none."""
        return ImmunoRadiomicsParameterNode(super().getParameterNode())

    def newPatient(self, name: str) -> ImmunoRadiomicsParameterNode:
        """Add a patient to the scene."""
        node = self.createParameterNode()
        if name:
            node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
        node = slicer.mrmlScene.AddNode(node)
        parameters = ImmunoRadiomicsParameterNode(node)
        parameters.patient = name
        return parameters

    def patients(self) -> list[ImmunoRadiomicsParameterNode]:
        """Return the choices for every patient of the scene, in the order in which they were added."""
        return [ImmunoRadiomicsParameterNode(node) for node in patientNodes()]

    # From what the user has chosen to what the engine needs

    def problems(self, parameters: ImmunoRadiomicsParameterNode) -> list[str]:
        """Say everything that keeps a patient from being analysed."""
        said = [*self.patientProblems(parameters), *factProblems(parameters).values()]
        said += [item.problem for item in self.ownBundles(parameters) if item.problem]
        return said + rowProblems(readRows(parameters.parameterNode))

    def ownBundles(self, parameters: ImmunoRadiomicsParameterNode) -> tuple[OwnBundle, ...]:
        """Return the bundles that the user has chosen for a patient, verified."""
        return self._bundleReader.read(bundleFolders(parameters))

    def addBundle(self, parameters: ImmunoRadiomicsParameterNode, folder: Path) -> None:
        """Choose a bundle folder for a patient.

        :raises ValueError: with the reasons, if the bundle is refused.
        """
        folders = list(dict.fromkeys([*bundleFolders(parameters), str(folder)]))
        refused = next((item.problem for item in self._bundleReader.read(folders) if item.folder == str(folder)), "")
        if refused:
            raise ValueError(_("The bundle is not used. {reason}").format(reason=refused))
        setBundleFolders(parameters, folders)

    def patientProblems(self, parameters: ImmunoRadiomicsParameterNode) -> list[str]:
        """Say what is wrong with patient and treatment."""
        code = parameters.patient.strip()
        problems = [] if code else [_("Give the patient a code, for example P001.")]
        others = [node for node in patientNodes() if node is not parameters.parameterNode]
        if code and any((node.GetParameter("patient") or "").strip() == code for node in others):
            problems.append(_("Another patient of the scene has this code. Give each its own."))
        if parameters.treatmentStart.strip() and date(parameters.treatmentStart) is None:
            problems.append(_("Give the start of treatment as YYYY-MM-DD, or leave it empty."))
        if parameters.line.strip() and whole(parameters.line) is None:
            problems.append(_("Give the line of treatment as a whole number, or leave it empty."))
        return problems

    def request(self, parameters: ImmunoRadiomicsParameterNode) -> Request:
        """Return what a run of a patient needs.

        :raises ValueError: with everything that is missing or wrong.
        """
        from ImmunoRadiomicsLib.study import LesionLink, Treatment

        if problems := self.problems(parameters):
            raise ValueError("\n".join(problems))
        rows = readRows(parameters.parameterNode)
        names = timepointNames(rows)
        agents = tuple(part.strip() for part in parameters.agents.split(",") if part.strip())
        links = []
        for name, row in zip(names, rows, strict=True):
            drawn = segmentsOf(row.segmentation) if row.segmentation is not None else []
            links += [LesionLink(name, segment, lesion) for segment, lesion in row.links.items() if segment in drawn]
        return Request(
            parameters.patient.strip(),
            tuple(_chosen(name, row) for name, row in zip(names, rows, strict=True)),
            parameters.tumor.strip() or None,
            Treatment(
                date(parameters.treatmentStart), agents, parameters.regimen.strip() or None, whole(parameters.line)
            ),
            clinicalFacts(parameters),
            lesionSpecs(readMeanings(parameters.parameterNode).values(), segmentNames(rows)),
            tuple(links),
            parameters.preset.value,
            parameters.alignmentEngine.value,
            parameters.jobs,
            tuple(bundleFolders(parameters)),
        )

    # Runs

    def runWork(
        self, request: Request, folder: Path, command: str = "analyze", onProgress: OnProgress | None = None
    ) -> Steps:
        """Write nodes as a study folder, run the engine on it, and raise what it has to say.

        :param command: `analyze`, or a stage (`align`, `lesions`) to run alone.
        :raises InputError: if the nodes are no study, with every problem.
        :raises EngineError: if the engine could not do it.
        """
        from ImmunoRadiomicsLib.scene import study_steps

        if missing := missingPackages():
            raise EngineError(_("Python packages are missing: {names}.").format(names=", ".join(missing)))
        written = yield from study_steps(
            folder / "study",
            request.patient,
            request.timepoints,
            tumour=request.tumor,
            treatment=request.treatment,
            clinical=request.clinical,
            lesions=request.lesions,
            links=request.links,
        )
        arguments = ["-m", "ImmunoRadiomicsLib", command, str(written.path), "--out", str(folder / RESULT_FOLDER)]
        arguments += ["--preset", request.preset, "--engine", request.engine, "--jobs", str(request.jobs)]
        for bundle in request.bundles:
            arguments += ["--bundle", bundle]
        arguments += ["--progress", "json"]
        if command == "analyze":
            arguments.append("--no-scene")
        run = EngineRun(arguments, folder, process=self._processFactory(), onProgress=onProgress)
        yield run
        self.check(run)

    def taskWork(self, arguments: Sequence[str], folder: Path, onProgress: OnProgress | None = None) -> Steps:
        """Run one of the panel's own tasks (see ``Tasks``) as a process."""
        command = ["-m", "ImmunoRadiomicsPanel.Tasks", *arguments]
        run = EngineRun(command, folder, process=self._processFactory(), onProgress=onProgress)
        yield run
        self.check(run)

    def check(self, run: EngineRun) -> None:
        """Raise what a run that has ended has to say.

        :raises EngineError: if it refused its input or crashed.
        """
        # 1 says that a stage could not be assessed as asked: the result is there and says which.
        if run.exitCode == 0 or (run.exitCode == 1 and not run.errors()):
            return
        if errors := run.errors():
            raise EngineError("\n".join(errors), run.endOfLog())
        raise EngineError(
            _("The engine ended unexpectedly (exit code {code}). The scene is as it was.").format(code=run.exitCode),
            run.endOfLog(),
        )

    def analysisWork(self, parameters: ImmunoRadiomicsParameterNode, onProgress: OnProgress | None = None) -> Steps:
        """Analyze a patient, put the result into the scene and keep it with the patient."""
        request = self.request(parameters)
        key, aligned = self.results.inputsKey(parameters), self.results.alignmentKey(parameters)
        folder = self.folderOf(parameters)

        def work() -> Steps:
            yield from self.runWork(request, folder, onProgress=onProgress)
            analysis = yield from self._populateSteps(folder, request.volumes)
            self._keepAccepted(parameters, analysis.alignments)
            self.results.keepAnalysis(parameters, analysis, folder, key, aligned)
            self.results.markNodes(parameters, outdated=self.results.isOutdated(parameters))

        return work()

    def alignmentWork(self, parameters: ImmunoRadiomicsParameterNode, onProgress: OnProgress | None = None) -> Steps:
        """Align a patient's time points alone; put the transforms into the scene and keep the figures with the patient."""
        from ImmunoRadiomicsLib.scene import alignment_steps

        request = self.request(parameters)
        key = self.results.alignmentKey(parameters)
        folder = self.folderOf(parameters)

        def work() -> Steps:
            yield from self.runWork(request, folder, "align", onProgress)
            records = self.stageResult(folder).alignments
            baseline = records[0].reference if records else ""
            yield from alignment_steps(slicer.mrmlScene, request.patient, baseline, records, folder / RESULT_FOLDER)
            self._keepAccepted(parameters, records)
            self.results.keepAlignments(parameters, folder, key)

        return work()

    def _keepAccepted(self, parameters: ImmunoRadiomicsParameterNode, records: Sequence[Any]) -> None:
        """Take back what was accepted of alignments that have changed."""
        from .Results import fingerprint

        found = {record.timepoint: fingerprint(record) for record in records}
        rows = readRows(parameters.parameterNode)
        kept = [
            row if row.accepted == found.get(name, "") else dataclasses.replace(row, accepted="")
            for name, row in zip(timepointNames(rows), rows, strict=True)
        ]
        if kept != rows:
            writeRows(parameters.parameterNode, kept)

    def propagationWork(self, parameters: ImmunoRadiomicsParameterNode, onProgress: OnProgress | None = None) -> Steps:
        """Carry the baseline's contours to every time point without a segmentation.

        :raises ValueError: if every time point has one.
        """
        request = self.request(parameters)
        folder = self.folderOf(parameters)

        def work() -> Steps:
            yield from self.runWork(request, folder, "lesions", onProgress)
            for name, volume in request.volumes.items():
                path = folder / RESULT_FOLDER / "segmentations" / f"{name}.seg.nrrd"
                if name in waiting and path.exists():
                    title = f"{volume.GetName()} propagated"
                    segmentation = yield from segmentationSteps(path, volume, title)
                    self._giveSegmentation(parameters, volume, segmentation)

        rows = readRows(parameters.parameterNode)
        named = zip(timepointNames(rows), rows, strict=True)
        waiting = [name for name, row in named if row.segmentation is None and not row.noVisibleLesions]
        if not waiting:
            raise ValueError(_("Every time point has a segmentation already."))
        return work()

    @staticmethod
    def _giveSegmentation(parameters: ImmunoRadiomicsParameterNode, volume: Any, segmentation: Any) -> None:
        """Give a segmentation to the time point that shows a volume, wherever that stands by now."""
        node = parameters.parameterNode
        rows = [
            dataclasses.replace(row, segmentation=segmentation, noVisibleLesions=False) if row.volume is volume else row
            for row in readRows(node)
        ]
        writeRows(node, rows)

    def lungsWork(
        self, parameters: ImmunoRadiomicsParameterNode, index: int, onProgress: OnProgress | None = None
    ) -> Steps:
        """Add the lungs to the segmentation of a time point, to a new one where it has none."""
        from ImmunoRadiomicsLib.scene import volume_steps

        folder = self.folderOf(parameters)
        source, target = folder / "lungs.nrrd", folder / "lungs.seg.nrrd"
        row = readRows(parameters.parameterNode)[index]
        yield from volume_steps(row.volume, source)
        yield from self.taskWork(["lungs", str(source), str(target)], folder, onProgress)
        yield from self._addSegments(parameters, row.volume, target, f"{row.volume.GetName()} lungs")

    def seedWork(
        self,
        parameters: ImmunoRadiomicsParameterNode,
        index: int,
        placeRas: Sequence[float],
        onProgress: OnProgress | None = None,
    ) -> Steps:
        """Add the lesion around a place (RAS, mm) to the segmentation of a time point; return its name and why to look at it."""
        from ImmunoRadiomicsLib.scene import volume_steps

        folder = self.folderOf(parameters)
        source, target = folder / "lesion.nrrd", folder / "lesion.seg.nrrd"
        row = readRows(parameters.parameterNode)[index]
        there = segmentNames(readRows(parameters.parameterNode))
        name = next(f"L{number}" for number in range(1, len(there) + 2) if f"L{number}" not in there)
        yield from volume_steps(row.volume, source)
        place = [str(value) for value in (-placeRas[0], -placeRas[1], placeRas[2])]
        arguments = ["lesion", str(source), str(target), "--name", name, "--place", *place]
        yield from self.taskWork(arguments, folder, onProgress)
        yield from self._addSegments(parameters, row.volume, target, f"{row.volume.GetName()} segmentation")
        return name, target.with_suffix(".txt").read_text(encoding="utf-8")

    def _addSegments(self, parameters: ImmunoRadiomicsParameterNode, volume: Any, path: Path, title: str) -> Steps:
        """Put the segments of a file into the segmentation of the time point that shows a volume, in place of those of the same name."""
        added = yield from segmentationSteps(path, volume, title)
        # The rows may have been edited in the meantime.
        row = next((row for row in readRows(parameters.parameterNode) if row.volume is volume), None)
        if row is None:
            return
        own = row.segmentation
        if own is None:
            self._giveSegmentation(parameters, volume, added)
            return
        source, target = added.GetSegmentation(), own.GetSegmentation()
        for number in range(source.GetNumberOfSegments()):
            identifier = source.GetNthSegmentID(number)
            old = target.GetSegmentIdBySegmentName(source.GetNthSegment(number).GetName())
            if old:
                target.RemoveSegment(old)
            target.CopySegmentFromSegmentation(source, identifier)
            yield None  # the views draw each
        slicer.mrmlScene.RemoveNode(added)

    def checkerboardWork(
        self,
        parameters: ImmunoRadiomicsParameterNode,
        baseline: Any,
        timepoint: Any,
        transform: Any,
        onProgress: OnProgress | None = None,
    ) -> Steps:
        """Return a new volume on the grid of the baseline: its own voxels and those of a time point laid on it, in squares by turns."""
        from ImmunoRadiomicsLib.scene import transform_steps, volume_bounds, volume_steps

        folder = self.folderOf(parameters)
        paths = [folder / name for name in ("board-baseline.nrrd", "board-timepoint.nrrd", "board.h5", "board.nrrd")]
        yield from volume_steps(baseline, paths[0])
        yield from volume_steps(timepoint, paths[1])
        yield from transform_steps(transform, paths[2], volume_bounds(baseline))
        arguments = ["checkerboard", *map(str, paths), "--square-mm", str(_CHECKER_MM)]
        yield from self.taskWork(arguments, folder, onProgress)
        title = _("{name} checkerboard").format(name=timepoint.GetName())
        board = yield from volumeSteps(paths[3], title)
        yield lambda: [path.unlink(missing_ok=True) for path in paths]
        return board

    def studyWork(self, path: Path) -> Steps:
        """Read a study.yaml with its images as a new patient of the scene; return its choices.

        :raises InputError: if the study or an image is wrong.
        """
        return studySteps(path, self.newPatient)

    def loadStudy(self, path: Path) -> ImmunoRadiomicsParameterNode:
        """Do ``studyWork`` at once."""
        return _result(self.studyWork(path))

    def exportWork(self, parameters: ImmunoRadiomicsParameterNode, target: Path) -> Steps:
        """Write the patient's result into a folder; return the files.

        :raises ValueError: if there is no result.
        """
        return self.results.exportSteps(parameters, self.folderOf(parameters), target)

    def export(self, parameters: ImmunoRadiomicsParameterNode, target: Path) -> list[Path]:
        """Do ``exportWork`` at once."""
        return _result(self.exportWork(parameters, target))

    def analyze(
        self,
        patient: str,
        timepoints: Sequence[tuple[str, Any, Any]],
        *,
        treatmentStart: str = "",
        clinical: Mapping[str, Any] | None = None,
        lesions: Sequence[SegmentMeaning] = (),
        preset: str = "ct-lesion",
        engine: str = "auto",
        jobs: int = 1,
        bundles: Sequence[str | Path] = (),
        onProgress: OnProgress | None = None,
    ) -> Analysis:
        """Analyse nodes and put the result into the scene; blocks until that is done.

        :param timepoints: for each scan its date (YYYY-MM-DD), volume node and segmentation node (None: the contours of the
            baseline are propagated).
        :param treatmentStart: date; the last scan until then is the baseline. Without it the first scan is.
        :param clinical: facts by the names of study.yaml, for example ``{"ecog": 1, "ldh": 310}``.
        :param bundles: folders of bundles that take the place of the shipped ones.
        :raises ValueError: if dates or nodes are missing.
        :raises InputError: if the nodes are no study, with every problem.
        :raises EngineError: if the engine could not do it.
        """
        from ImmunoRadiomicsLib.study import Clinical, Treatment

        rows = [TimepointRow(volume, segmentation, day) for day, volume, segmentation in timepoints]
        rows = proposeRoles(rows, date(treatmentStart))
        if problems := rowProblems(rows):
            raise ValueError("\n".join(problems))
        request = Request(
            patient,
            tuple(_chosen(name, row) for name, row in zip(timepointNames(rows), rows, strict=True)),
            treatment=Treatment(start=date(treatmentStart)),
            clinical=Clinical(**(clinical or {})),
            lesions=lesionSpecs(lesions, segmentNames(rows)),
            preset=preset,
            engine=engine,
            jobs=jobs,
            bundles=tuple(str(item) for item in bundles),
        )
        folder = self._temporaryFolder()

        def work() -> Steps:
            yield from self.runWork(request, folder, onProgress=onProgress)
            return (yield from self._populateSteps(folder, request.volumes))

        try:
            return _result(work())
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def analyzePatient(
        self, parameters: ImmunoRadiomicsParameterNode, onProgress: OnProgress | None = None
    ) -> Analysis | None:
        """Analyze a patient of the scene with the choices that the panel shows; blocks, and keeps the result with the patient.

        :return: the result without its radiomics, which ``export`` writes.
        :raises ValueError: with everything that is missing or wrong.
        :raises EngineError: if the engine could not do it.
        """
        doAll(self.analysisWork(parameters, onProgress))
        return self.results.lastAnalysis(parameters)

    def _populateSteps(self, folder: Path, volumes: Mapping[str, Any]) -> Steps:
        from ImmunoRadiomicsLib.analysis import Analysis
        from ImmunoRadiomicsLib.scene import populate_steps
        from ImmunoRadiomicsLib.serialise import from_json
        from ImmunoRadiomicsLib.study import load_study

        result = folder / RESULT_FOLDER
        text = (result / "analysis.json").read_text(encoding="utf-8")
        analysis = yield lambda: from_json(Analysis, json.loads(text))
        study = yield functools.partial(load_study, folder / "study" / "study.yaml")
        # Drawn anew for each of some hundred nodes, the views would hold up the interface.
        with slicer.util.RenderBlocker():
            yield from populate_steps(slicer.mrmlScene, analysis, study, result, volumes=volumes)
        return analysis

    # Results

    def analysis(self, parameters: ImmunoRadiomicsParameterNode) -> Analysis | None:
        """Return the patient's result without its radiomics, None where there is none or an input has changed since."""
        return self.results.analysis(parameters)

    def stageResult(self, folder: Path) -> StageResult:
        """Read the result of a stage that was run alone."""
        from ImmunoRadiomicsLib.analysis import StageResult
        from ImmunoRadiomicsLib.serialise import from_json

        return from_json(StageResult, json.loads((folder / RESULT_FOLDER / "stage.json").read_text(encoding="utf-8")))

    def writeReport(self, parameters: ImmunoRadiomicsParameterNode, path: Path) -> Path:
        """Write the patient's report as one HTML file.

        :raises ValueError: if there is none.
        """
        path.write_text(self.results.reportText(parameters), encoding="utf-8")
        return path

    # What the scene knows

    def rowsFromScene(self, parameters: ImmunoRadiomicsParameterNode) -> list[TimepointRow]:
        """Return the chosen rows and, behind them, the CT volumes of the scene that no patient has, with dates from DICOM."""
        rows = readRows(parameters.parameterNode)
        taken = {row.volume.GetID() for node in patientNodes() for row in readRows(node) if row.volume is not None}
        volumes = [
            node
            for node in nodesOf("vtkMRMLScalarVolumeNode")
            if node.GetID() not in taken
            and node.GetSaveWithScene()
            and not node.IsA("vtkMRMLLabelMapVolumeNode")
            and node.GetImageData() is not None
        ]
        rows += self.rowsOf([node for node in volumes if (node.GetAttribute("DICOM.Modality") or "CT") == "CT"])
        rows = [row for row in rows if row.volume is not None]
        return proposeRoles(rows, date(parameters.treatmentStart))

    def rowsOf(self, volumes: Sequence[Any]) -> list[TimepointRow]:
        """Return new rows of volume nodes, each with the segmentation that was drawn on it and its date from DICOM."""
        return [TimepointRow(node, segmentationOf(node), studyDate(node)) for node in volumes]

    def transformOf(self, parameters: ImmunoRadiomicsParameterNode, timepoint: str) -> Any:
        """Return the node that lays a time point on the baseline: the user's own, else that of the last run; None where there is none."""
        from ImmunoRadiomicsLib.scene import owned_node

        rows = readRows(parameters.parameterNode)
        for name, row in zip(timepointNames(rows), rows, strict=True):
            if name == timepoint and row.transformUse is TransformUse.REPLACE and row.transform is not None:
                return row.transform
        return owned_node(slicer.mrmlScene, parameters.patient.strip(), f"transform/{timepoint}")

    def chartOf(self, analysis: Analysis) -> Any:
        """Return the node of the size chart, None where there is none."""
        from ImmunoRadiomicsLib.scene import owned_node

        return owned_node(slicer.mrmlScene, analysis.patient, "chart/sizes")

    # Working folders

    def folderOf(self, parameters: ImmunoRadiomicsParameterNode) -> Path:
        """Return the folder in which this patient's runs work; what one has finished, the next takes over."""
        key = parameters.parameterNode.GetID()
        if key not in self._folders:
            self._folders[key] = self._temporaryFolder()
        return self._folders[key]

    def _temporaryFolder(self) -> Path:
        parent = slicer.app.temporaryPath if hasattr(slicer, "app") else None
        return Path(tempfile.mkdtemp(prefix="ImmunoRadiomics-", dir=parent))

    def forgetFolders(self) -> None:
        """Remove the working folders of all patients."""
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()


def _chosen(name: str, row: TimepointRow) -> ChosenTimepoint:
    from ImmunoRadiomicsLib.scene import ChosenTimepoint

    aligned = row.role is not Role.BASELINE
    return ChosenTimepoint(
        name,
        row.day(),
        row.volume,
        row.segmentation,
        no_visible_lesions=row.noVisibleLesions,
        transform=row.transform if aligned and row.transformUse is TransformUse.REPLACE else None,
        start_transform=row.transform if aligned and row.transformUse is TransformUse.START else None,
        acquisition=acquisitionOf(row.volume),
    )


def lesionSpecs(meanings: Any, drawn: Sequence[str]) -> tuple[LesionSpec, ...]:
    """Return what the user has said about segments in the engine's words; what is drawn nowhere is left out."""
    from ImmunoRadiomicsLib.lesions.names import is_organ
    from ImmunoRadiomicsLib.study import LesionSpec

    specs = []
    for item in meanings:
        # A segment that is named like an organ is taken for one without a word, and a lung for a lung.
        if item.segment not in drawn or (item.kind is Kind.ORGAN and is_organ(item.segment)):
            continue
        if item.kind in (Kind.ORGAN, Kind.NOTHING):
            specs.append(LesionSpec(item.segment, ignore=True))
        else:
            node = {Kind.NODE: True, Kind.LESION: False}.get(item.kind)
            specs.append(LesionSpec(item.segment, item.organ or None, item.role or None, node))
    return tuple(specs)


def _result(steps: Steps) -> Any:
    """Do all work at once and return its result."""
    found = []

    def work() -> Steps:
        found.append((yield from steps))

    doAll(work())
    return found[0]
