"""From nodes to the engine and back, with no widget: also for the Python console."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from .Dependencies import missingPackages
from .EngineProcess import EngineProgress, EngineRun, ProcessProtocol, TreeProcess
from .ParameterNode import ImmunoRadiomicsParameterNode
from .Timepoints import (
    SegmentMeaning,
    TimepointRow,
    proposeRoles,
    readMeanings,
    readRows,
    rowProblems,
    timepointNames,
    writeMeanings,
    writeRows,
)

if TYPE_CHECKING:
    from ImmunoRadiomicsLib.analysis import Analysis, Lesion, StageResult
    from ImmunoRadiomicsLib.scene import ChosenTimepoint
    from ImmunoRadiomicsLib.study import Clinical, LesionSpec, Treatment

_ANALYSIS = "analysisNode"
_REPORT = "reportNode"
_INPUTS = "analysedInputs"
_RESULT_FOLDER = "result"

# Fields of the engine's clinical facts by the parameter that holds them: whole numbers, numbers, texts, choices.
_WHOLE_NUMBERS = {"ecog": "ecog", "metastatic_sites": "metastaticSites"}
_NUMBERS = {
    "age": "age",
    "ldh": "ldh",
    "ldh_uln": "ldhUpperLimit",
    "albumin_g_l": "albumin",
    "neutrophils": "neutrophils",
    "leukocytes": "leukocytes",
    "lymphocytes": "lymphocytes",
    "tmb": "tumorMutationalBurden",
    "pdl1_percent": "pdl1",
}
_ANSWERS = {
    "liver_metastases": "liverMetastases",
    "prior_thoracic_rt": "priorThoracicRadiotherapy",
    "prior_radiation_pneumonitis": "priorRadiationPneumonitis",
    "ild": "interstitialLungDisease",
    "interstitial_lung_abnormality": "interstitialLungAbnormality",
    "honeycombing": "honeycombing",
    "ground_glass_attenuation": "groundGlassAttenuation",
    "respiratory_disease": "respiratoryDisease",
    "prior_systemic_therapy": "priorSystemicTherapy",
    "symptoms_worse": "symptomsWorse",
}
_CHOICES = {"sex": "sex", "smoking": "smoking", "ctdna_change": "ctdnaChange", "setting": "setting"}


@dataclass(frozen=True)
class Request:
    """Everything that a run needs, checked as far as that is possible without opening images."""

    patient: str
    timepoints: tuple[ChosenTimepoint, ...]
    tumor: str | None = None
    treatment: Treatment | None = None
    clinical: Clinical | None = None
    lesions: tuple[LesionSpec, ...] = ()
    preset: str = "ct-lesion"
    engine: str = "auto"
    jobs: int = 1


class EngineError(RuntimeError):
    """The engine could not do what was asked; ``log`` is the end of what it has said."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class ImmunoRadiomicsLogic(ScriptedLoadableModuleLogic):
    """Runs the engine on nodes of the scene. A patient is a parameter node; a scene may hold several.

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
        self._processFactory = processFactory
        self._folders: dict[str, Path] = {}
        self._parsed: tuple[Any, int, Analysis] | None = None

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

    # From what the user has chosen to what the engine needs

    def problems(self, parameters: ImmunoRadiomicsParameterNode) -> list[str]:
        """Say everything that keeps a patient from being analysed."""
        return self._patientProblems(parameters) + rowProblems(readRows(parameters.parameterNode))

    def patientProblems(self, parameters: ImmunoRadiomicsParameterNode) -> list[str]:
        """Say what is wrong with patient and treatment."""
        problems = [] if parameters.patient.strip() else [_("Give the patient a code, for example P001.")]
        if parameters.treatmentStart.strip() and _date(parameters.treatmentStart) is None:
            problems.append(_("Give the start of treatment as YYYY-MM-DD, or leave it empty."))
        if parameters.line.strip() and _whole(parameters.line) is None:
            problems.append(_("Give the line of treatment as a whole number, or leave it empty."))
        return problems

    def clinicalProblems(self, parameters: ImmunoRadiomicsParameterNode) -> list[str]:
        """Say which clinical values are no numbers. The engine checks what is possible in a living adult."""
        problems = []
        for name in _WHOLE_NUMBERS.values():
            text = getattr(parameters, name).strip()
            if text and _whole(text) is None:
                problems.append(_("{value}: give a whole number, or leave it empty.").format(value=text))
        for name in _NUMBERS.values():
            text = getattr(parameters, name).strip()
            if text and _number(text) is None:
                problems.append(_("{value}: give a number, or leave it empty.").format(value=text))
        return problems

    def _patientProblems(self, parameters: ImmunoRadiomicsParameterNode) -> list[str]:
        return self.patientProblems(parameters) + self.clinicalProblems(parameters)

    def request(self, parameters: ImmunoRadiomicsParameterNode) -> Request:
        """Return what a run of a patient needs.

        :raises ValueError: with everything that is missing or wrong.
        """
        from ImmunoRadiomicsLib.scene import ChosenTimepoint
        from ImmunoRadiomicsLib.study import Clinical, LesionSpec, Treatment

        if problems := self.problems(parameters):
            raise ValueError("\n".join(problems))
        rows = readRows(parameters.parameterNode)
        timepoints = tuple(
            ChosenTimepoint(name, row.day(), row.volume, row.segmentation, no_visible_lesions=row.noVisibleLesions)
            for name, row in zip(timepointNames(rows), rows, strict=True)
        )
        agents = tuple(part.strip() for part in parameters.agents.split(",") if part.strip())
        treatment = Treatment(
            _date(parameters.treatmentStart), agents, parameters.regimen.strip() or None, _whole(parameters.line)
        )
        facts: dict[str, Any] = {field: _whole(getattr(parameters, name)) for field, name in _WHOLE_NUMBERS.items()}
        facts |= {field: _number(getattr(parameters, name)) for field, name in _NUMBERS.items()}
        answers = {"": None, "yes": True, "no": False}
        facts |= {field: answers[getattr(parameters, name).value] for field, name in _ANSWERS.items()}
        facts |= {field: getattr(parameters, name).value or None for field, name in _CHOICES.items()}
        facts["histology"] = parameters.histology.strip() or None
        drawn = set(segmentNames(rows))
        lesions = tuple(
            LesionSpec(item.segment, item.organ or None, item.role or None, item.node)
            for item in readMeanings(parameters.parameterNode).values()
            if item.segment in drawn
        )
        return Request(
            parameters.patient.strip(),
            timepoints,
            parameters.tumor.strip() or None,
            treatment,
            Clinical(**facts),
            lesions,
            parameters.preset.value,
            parameters.alignmentEngine.value,
            parameters.jobs,
        )

    def inputsKey(self, parameters: ImmunoRadiomicsParameterNode) -> str:
        """Return a text that changes when a choice changes on which a result depends."""
        rows = [
            [
                row.volume.GetName() if row.volume else None,
                row.segmentation.GetName() if row.segmentation else None,
                row.date,
                row.role.value,
                row.noVisibleLesions,
            ]
            for row in readRows(parameters.parameterNode)
        ]
        names = sorted({*parameters.allParameters} - {"jobs"})
        values = {name: str(getattr(parameters, name)) for name in names}
        meanings = [vars(item) for item in readMeanings(parameters.parameterNode).values()]
        return json.dumps([rows, values, meanings], sort_keys=True)

    # Runs

    def start(
        self,
        request: Request,
        folder: Path,
        *,
        command: str = "analyze",
        onProgress: Callable[[EngineProgress], None] | None = None,
    ) -> EngineRun:
        """Write nodes as a study folder and start the engine on it; the caller polls the run.

        :param command: `analyze`, or a stage (`align`, `lesions`) to run alone.
        :raises InputError: if the nodes are no study, with every problem.
        """
        from ImmunoRadiomicsLib.scene import study_from_nodes
        from ImmunoRadiomicsLib.study import load_study

        if missing := missingPackages():
            raise EngineError(_("Python packages are missing: {names}.").format(names=", ".join(missing)))
        written = study_from_nodes(
            folder / "study",
            request.patient,
            request.timepoints,
            tumour=request.tumor,
            treatment=request.treatment,
            clinical=request.clinical,
            lesions=request.lesions,
        )
        load_study(written.path)
        arguments = ["-m", "ImmunoRadiomicsLib", command, str(written.path), "--out", str(folder / _RESULT_FOLDER)]
        arguments += ["--preset", request.preset, "--engine", request.engine, "--jobs", str(request.jobs)]
        arguments += ["--progress", "json"]
        if command == "analyze":
            arguments.append("--no-scene")
        return EngineRun(arguments, folder, process=self._processFactory(), onProgress=onProgress)

    def startTask(
        self, arguments: Sequence[str], folder: Path, onProgress: Callable[[EngineProgress], None] | None = None
    ) -> EngineRun:
        """Start one of the panel's own tasks (see ``Tasks``) as a process."""
        return EngineRun(
            ["-m", "ImmunoRadiomicsPanel.Tasks", *arguments],
            folder,
            process=self._processFactory(),
            onProgress=onProgress,
        )

    def check(self, run: EngineRun) -> None:
        """Raise what a run that has ended has to say.

        :raises EngineError: if it was cancelled, refused its input or crashed.
        """
        if run.cancelled:
            raise EngineError(_("Cancelled."))
        # 1 says that a stage could not be assessed as asked: the result is there and says which.
        if run.exitCode == 0 or (run.exitCode == 1 and not run.errors()):
            return
        if errors := run.errors():
            raise EngineError("\n".join(errors), run.endOfLog())
        raise EngineError(
            _("The engine ended unexpectedly (exit code {code}). The scene is as it was.").format(code=run.exitCode),
            run.endOfLog(),
        )

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
        onProgress: Callable[[EngineProgress], None] | None = None,
    ) -> Analysis:
        """Analyse nodes and put the result into the scene; blocks until that is done.

        :param timepoints: for each scan its date (YYYY-MM-DD), volume node and segmentation node (None: the contours of the
            baseline are propagated).
        :param treatmentStart: date; the last scan until then is the baseline. Without it the first scan is.
        :param clinical: facts by the names of study.yaml, for example ``{"ecog": 1, "ldh": 310}``.
        :raises ValueError: if dates or nodes are missing.
        :raises InputError: if the nodes are no study, with every problem.
        :raises EngineError: if the engine could not do it.
        """
        from ImmunoRadiomicsLib.scene import ChosenTimepoint
        from ImmunoRadiomicsLib.study import Clinical, LesionSpec, Treatment

        rows = [TimepointRow(volume, segmentation, date) for date, volume, segmentation in timepoints]
        rows = proposeRoles(rows, _date(treatmentStart))
        if problems := rowProblems(rows):
            raise ValueError("\n".join(problems))
        request = Request(
            patient,
            tuple(
                ChosenTimepoint(name, row.day(), row.volume, row.segmentation)
                for name, row in zip(timepointNames(rows), rows, strict=True)
            ),
            treatment=Treatment(start=_date(treatmentStart)),
            clinical=Clinical(**(clinical or {})),
            lesions=tuple(
                LesionSpec(item.segment, item.organ or None, item.role or None, item.node) for item in lesions
            ),
            preset=preset,
            engine=engine,
            jobs=jobs,
        )
        folder = self._temporaryFolder()
        try:
            run = self.start(request, folder, onProgress=onProgress)
            try:
                run.wait()
            except BaseException:
                run.kill()
                raise
            self.check(run)
            return self._populate(folder, {item.name: item.volume for item in request.timepoints})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # Results

    def load(self, parameters: ImmunoRadiomicsParameterNode, request: Request, folder: Path) -> Analysis:
        """Put the result of a run into the scene and keep it with the patient."""
        analysis = self._populate(folder, {item.name: item.volume for item in request.timepoints})
        result = folder / _RESULT_FOLDER
        node = parameters.parameterNode
        with slicer.util.NodeModify(node):
            self._keepText(node, _ANALYSIS, _("analysis"), (result / "analysis.json").read_text(encoding="utf-8"))
            self._keepText(node, _REPORT, _("report"), (result / "report.html").read_text(encoding="utf-8"))
            node.SetParameter(_INPUTS, self.inputsKey(parameters))
        return analysis

    def _populate(self, folder: Path, volumes: Mapping[str, Any]) -> Analysis:
        from ImmunoRadiomicsLib.analysis import Analysis
        from ImmunoRadiomicsLib.scene import populate_scene
        from ImmunoRadiomicsLib.serialise import from_json
        from ImmunoRadiomicsLib.study import load_study

        result = folder / _RESULT_FOLDER
        analysis = from_json(Analysis, json.loads((result / "analysis.json").read_text(encoding="utf-8")))
        populate_scene(slicer.mrmlScene, analysis, load_study(folder / "study" / "study.yaml"), result, volumes=volumes)
        return analysis

    def _keepText(self, parameterNode: Any, role: str, name: str, text: str) -> None:
        node = parameterNode.GetNodeReference(role)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", f"{parameterNode.GetName()} {name}")
            parameterNode.SetNodeReferenceID(role, node.GetID())
        node.SetText(text, vtk.VTK_ENCODING_UTF_8)

    def analysis(self, parameters: ImmunoRadiomicsParameterNode) -> Analysis | None:
        """Return the patient's result, None where there is none or an input has changed since."""
        from ImmunoRadiomicsLib.analysis import Analysis
        from ImmunoRadiomicsLib.serialise import from_json

        node = parameters.parameterNode.GetNodeReference(_ANALYSIS)
        if node is None or parameters.parameterNode.GetParameter(_INPUTS) != self.inputsKey(parameters):
            return None
        if self._parsed is None or self._parsed[:2] != (node, node.GetMTime()):
            self._parsed = (node, node.GetMTime(), from_json(Analysis, json.loads(node.GetText())))
        return self._parsed[2]

    def discardResult(self, parameters: ImmunoRadiomicsParameterNode) -> None:
        """Forget the patient's result because what it rests on was edited; nodes of earlier results stay in the scene."""
        parameters.parameterNode.UnsetParameter(_INPUTS)

    def stageResult(self, folder: Path) -> StageResult:
        """Read the result of a stage that was run alone."""
        from ImmunoRadiomicsLib.analysis import StageResult
        from ImmunoRadiomicsLib.serialise import from_json

        return from_json(StageResult, json.loads((folder / _RESULT_FOLDER / "stage.json").read_text(encoding="utf-8")))

    def takePropagated(self, parameters: ImmunoRadiomicsParameterNode, folder: Path) -> list[str]:
        """Give every time point without a segmentation the contours that the engine has propagated to it; return their names."""
        node = parameters.parameterNode
        rows = readRows(node)
        names = timepointNames(rows)
        taken = []
        for index, (name, row) in enumerate(zip(names, rows, strict=True)):
            path = folder / _RESULT_FOLDER / "segmentations" / f"{name}.seg.nrrd"
            if row.segmentation is None and not row.noVisibleLesions and path.exists():
                title = f"{row.volume.GetName()} propagated"
                rows[index] = dataclasses.replace(row, segmentation=self.loadSegmentation(path, row.volume, title))
                taken.append(name)
        writeRows(node, rows)
        return taken

    def loadVolume(self, path: Path, name: str) -> Any:
        """Read an image file into a new volume node."""
        from ImmunoRadiomicsLib.images import read_volume
        from ImmunoRadiomicsLib.scene.mrml import fill_volume

        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        fill_volume(node, read_volume(path))
        node.SetAttribute("DICOM.Modality", "CT")
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevel(1500.0, -600.0)
        return node

    def loadSegmentation(self, path: Path, volume: Any, name: str) -> Any:
        """Read a segmentation file on the grid of a volume into a new segmentation node."""
        from ImmunoRadiomicsLib.images import read_segmentation
        from ImmunoRadiomicsLib.scene.mrml import fill_segmentation, grid_image, mrml_classes

        drawn = read_segmentation(path, grid_image(volume), may_be_empty=True)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        fill_segmentation(mrml_classes(), node, drawn)
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        node.CreateDefaultDisplayNodes()
        return node

    def addLungs(self, path: Path, row: TimepointRow) -> Any:
        """Add the lungs of a segmentation file to a time point's segmentation, a new one where it has none; return its node."""
        lungs = self.loadSegmentation(path, row.volume, f"{row.volume.GetName()} lungs")
        if row.segmentation is None:
            return lungs
        source, target = lungs.GetSegmentation(), row.segmentation.GetSegmentation()
        for index in range(source.GetNumberOfSegments()):
            identifier = source.GetNthSegmentID(index)
            old = target.GetSegmentIdBySegmentName(source.GetNthSegment(index).GetName())
            if old:
                target.RemoveSegment(old)
            target.CopySegmentFromSegmentation(source, identifier)
        slicer.mrmlScene.RemoveNode(lungs)
        return row.segmentation

    def loadStudy(self, path: Path) -> ImmunoRadiomicsParameterNode:
        """Read a study.yaml with its images into nodes, as a new patient of the scene.

        :raises InputError: if the study or an image is wrong.
        """
        from ImmunoRadiomicsLib.study import load_study

        study = load_study(path)
        rows = []
        for timepoint in study.timepoints:
            volume = self.loadVolume(timepoint.ct, f"{study.patient} {timepoint.name} CT")
            segmentation = None
            if timepoint.segmentation is not None:
                title = f"{study.patient} {timepoint.name} segmentation"
                segmentation = self.loadSegmentation(timepoint.segmentation, volume, title)
            rows.append(
                TimepointRow(
                    volume, segmentation, timepoint.date.isoformat(), noVisibleLesions=timepoint.no_visible_lesions
                )
            )
        self._placeInHierarchy(study.patient, rows)
        parameters = self.newPatient(study.patient)
        node = parameters.parameterNode
        with slicer.util.NodeModify(node):
            parameters.tumor = study.tumour or ""
            parameters.treatmentStart = study.treatment.start.isoformat() if study.treatment.start else ""
            parameters.agents = ", ".join(study.treatment.agents)
            parameters.regimen = study.treatment.regimen or ""
            parameters.line = str(study.treatment.line or "")
            for field, name in (_WHOLE_NUMBERS | _NUMBERS).items():
                value = getattr(study.clinical, field)
                setattr(parameters, name, "" if value is None else f"{value:g}")
            for field, name in (_ANSWERS | _CHOICES).items():
                value = getattr(study.clinical, field)
                word = {None: "", True: "yes", False: "no"}.get(value, value)
                setattr(parameters, name, type(getattr(parameters, name))(word))
            parameters.histology = study.clinical.histology or ""
            writeRows(node, proposeRoles(rows, study.baseline.date))
            writeMeanings(
                node,
                [SegmentMeaning(item.segment, item.organ or "", item.role or "", item.node) for item in study.lesions],
            )
        return parameters

    def _placeInHierarchy(self, patient: str, rows: Sequence[TimepointRow]) -> None:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), patient)
        hierarchy.SetItemAttribute(subject, "DICOM.PatientID", patient)
        for row in rows:
            study = hierarchy.CreateStudyItem(subject, row.date)
            hierarchy.SetItemAttribute(study, "DICOM.StudyDate", row.date.replace("-", ""))
            for node in (row.volume, row.segmentation):
                if node is not None:
                    hierarchy.CreateItem(study, node)

    # What the scene knows

    def rowsFromScene(self, parameters: ImmunoRadiomicsParameterNode) -> list[TimepointRow]:
        """Return the chosen rows and, behind them, the CT volumes of the scene that are not chosen, with dates from DICOM."""
        rows = readRows(parameters.parameterNode)
        chosen = {row.volume.GetID() for row in rows if row.volume is not None}
        for node in _nodes("vtkMRMLScalarVolumeNode"):
            if node.GetID() in chosen or node.IsA("vtkMRMLLabelMapVolumeNode") or node.GetImageData() is None:
                continue
            if (node.GetAttribute("DICOM.Modality") or "CT") == "CT":
                rows.append(TimepointRow(node, segmentationOf(node), studyDate(node)))
        rows = [row for row in rows if row.volume is not None]
        return proposeRoles(rows, _date(parameters.treatmentStart))

    def transformOf(self, analysis: Analysis, timepoint: str) -> Any:
        """Return the node that carries a follow-up onto the baseline, None where there is none."""
        from urllib.parse import quote

        for node in _nodes("vtkMRMLTransformNode"):
            if (
                node.GetAttribute("ImmunoRadiomics.patient") == quote(analysis.patient, safe="")
                and node.GetAttribute("ImmunoRadiomics.part") == f"transform/{timepoint}"
            ):
                return node
        return None

    def chartOf(self, analysis: Analysis) -> Any:
        """Return the node of the size chart, None where there is none."""
        from urllib.parse import quote

        for node in _nodes("vtkMRMLPlotChartNode"):
            if node.GetAttribute("ImmunoRadiomics.patient") == quote(analysis.patient, safe=""):
                return node
        return None

    def showLesion(
        self, parameters: ImmunoRadiomicsParameterNode, lesion: Lesion, timepoint: str, baseline: str
    ) -> bool:
        """Show a lesion at the baseline in the red view and at another time point in the yellow one, each as acquired.

        :return: whether the lesion has a place at one of them.
        """
        rows = readRows(parameters.parameterNode)
        volumes = dict(zip(timepointNames(rows), (row.volume for row in rows), strict=True))
        shown = False
        for view, name in (("Red", baseline), ("Yellow", timepoint)):
            observation = lesion.at(name)
            composite, sliceNode = viewNodes(view)
            if volumes.get(name) is None or composite is None or sliceNode is None:
                continue
            composite.SetBackgroundVolumeID(volumes[name].GetID())
            composite.SetForegroundVolumeID(None)
            sliceNode.SetOrientation("Axial")
            place = observation.centroid_lps_mm if observation is not None else None
            if place is not None:
                sliceNode.JumpSliceByCentering(-place[0], -place[1], place[2])
                shown = True
        return shown

    def showAligned(self, analysis: Analysis, volumes: Mapping[str, Any], timepoint: str, opacity: float) -> bool:
        """Fade a follow-up, carried onto the baseline, over the baseline in the red view; return whether that is possible."""
        transform = self.transformOf(analysis, timepoint)
        composite, _sliceNode = viewNodes("Red")
        if transform is None or composite is None or volumes.get(timepoint) is None:
            return False
        volumes[timepoint].SetAndObserveTransformNodeID(transform.GetID())
        composite.SetBackgroundVolumeID(volumes[analysis.baseline].GetID())
        composite.SetForegroundVolumeID(volumes[timepoint].GetID())
        composite.SetForegroundOpacity(opacity)
        return True

    def hideAligned(self, volume: Any) -> None:
        """Show a follow-up again where it was acquired."""
        volume.SetAndObserveTransformNodeID(None)
        composite, _sliceNode = viewNodes("Red")
        if composite is not None:
            composite.SetForegroundVolumeID(None)

    # Files

    def export(self, parameters: ImmunoRadiomicsParameterNode, target: Path) -> list[Path]:
        """Write the patient's result into a folder: everything of the last run, or after reopening a scene what it keeps.

        :raises ValueError: if there is no result.
        """
        analysis = self.analysis(parameters)
        if analysis is None:
            raise ValueError(_("There is no result to export. Run the analysis first."))
        target.mkdir(parents=True, exist_ok=True)
        result = self._folders.get(parameters.parameterNode.GetID(), Path()) / _RESULT_FOLDER
        if (result / "analysis.json").is_file():
            shutil.copytree(result, target, dirs_exist_ok=True)
        else:
            from ImmunoRadiomicsLib.report import write_tables

            text = parameters.parameterNode.GetNodeReference(_ANALYSIS).GetText()
            (target / "analysis.json").write_text(text, encoding="utf-8")
            write_tables(analysis, target)
            self.writeReport(parameters, target / "report.html")
        return sorted(path for path in target.rglob("*") if path.is_file())

    def writeReport(self, parameters: ImmunoRadiomicsParameterNode, path: Path) -> Path:
        """Write the patient's report as one HTML file.

        :raises ValueError: if there is none.
        """
        node = parameters.parameterNode.GetNodeReference(_REPORT)
        if node is None:
            raise ValueError(_("There is no report. Run the analysis first."))
        path.write_text(node.GetText(), encoding="utf-8")
        return path

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


def _nodes(className: str) -> list[Any]:
    scene = slicer.mrmlScene
    return [scene.GetNthNodeByClass(index, className) for index in range(scene.GetNumberOfNodesByClass(className))]


def viewNodes(view: str) -> tuple[Any, Any]:
    """Return the composite node and the slice node of a slice view, None where there is no such view."""
    composite = next((node for node in _nodes("vtkMRMLSliceCompositeNode") if node.GetLayoutName() == view), None)
    sliceNode = next((node for node in _nodes("vtkMRMLSliceNode") if node.GetLayoutName() == view), None)
    return composite, sliceNode


def segmentationOf(volume: Any) -> Any:
    """Return the segmentation that was drawn on a volume, None where there is none."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return next(
        (node for node in _nodes("vtkMRMLSegmentationNode") if node.GetNodeReferenceID(role) == volume.GetID()), None
    )


def segmentNames(rows: Sequence[TimepointRow]) -> list[str]:
    """Return the names of all segments of all time points, each once."""
    names: dict[str, None] = {}
    for row in rows:
        if row.segmentation is not None:
            segmentation = row.segmentation.GetSegmentation()
            for index in range(segmentation.GetNumberOfSegments()):
                names[segmentation.GetNthSegment(index).GetName()] = None
    return list(names)


def volumeImage(volume: Any) -> Any:
    """Return the voxels of a volume node as a SimpleITK image in LPS, where they lie without the node's transform."""
    import SimpleITK as sitk

    from ImmunoRadiomicsLib.scene.mrml import LPS_TO_RAS, volume_array, volume_grid

    origin, spacing, axes = volume_grid(volume)
    image = sitk.GetImageFromArray(volume_array(volume))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((LPS_TO_RAS @ origin).tolist())
    image.SetDirection((LPS_TO_RAS @ axes).ravel().tolist())
    return image


def studyDate(volume: Any) -> str:
    """Return the date (YYYY-MM-DD) that DICOM gives for a volume, empty where it is not known."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume)
    study = hierarchy.GetItemAncestorAtLevel(item, "Study") if item else 0
    text = hierarchy.GetItemAttribute(study, "DICOM.StudyDate") if study else ""
    if not text:
        text = _fromDatabase(volume, "0008,0020")
    try:
        return datetime.datetime.strptime(text, "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def patientCode(volume: Any) -> str:
    """Return the patient ID that DICOM gives for a volume, empty where it is not known."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume)
    subject = hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0
    text = hierarchy.GetItemAttribute(subject, "DICOM.PatientID") if subject else ""
    return text or _fromDatabase(volume, "0010,0020")


def _fromDatabase(volume: Any, tag: str) -> str:
    """Return a DICOM value from Slicer's database, empty where Slicer was built without it."""
    database = getattr(slicer, "dicomDatabase", None)
    instances = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    return database.instanceValue(instances[0], tag) if database is not None and instances else ""


def _date(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text.strip())
    except ValueError:
        return None


def _whole(text: str) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        value = float(text.strip())
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
