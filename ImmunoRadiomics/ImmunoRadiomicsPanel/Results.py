"""What a run has found, kept in the scene with the patient it belongs to."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _

from .Nodes import nodesOf
from .Timepoints import TimepointRow, readMeanings, readRows

if TYPE_CHECKING:
    from collections.abc import Generator

    from ImmunoRadiomicsLib.analysis import AlignmentRecord, Analysis

    from .ParameterNode import ImmunoRadiomicsParameterNode

# What of a patient is kept where: the result without and with its radiomics, the report, the alignment that ran alone.
_ANALYSIS, _WHOLE, _REPORT, _ALIGNMENT = "analysisNode", "wholeAnalysisNode", "reportNode", "alignmentNode"
_INPUTS, _ALIGNED, _ANALYSED_ALIGNMENT = "analysedInputs", "alignedInputs", "analysedAlignment"
RESULT_FOLDER = "result"


class ResultStore:
    """Keeps, finds, and forgets the results of patients."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[Any, int, Any]] = {}

    # What a result depends on

    def inputsKey(self, parameters: ImmunoRadiomicsParameterNode) -> str:
        """Return a text that changes when a choice changes on which a result depends."""
        node = parameters.parameterNode
        names = sorted({*parameters.allParameters} - {"jobs"})
        values = {name: str(getattr(parameters, name)) for name in names}
        meanings = [{**vars(item), "kind": item.kind.value} for item in readMeanings(node).values()]
        return json.dumps([_rowKeys(readRows(node)), values, meanings], sort_keys=True)

    def alignmentKey(self, parameters: ImmunoRadiomicsParameterNode) -> str:
        """Return a text that changes when a choice changes on which the alignments depend."""
        rows = [[key["volume"], key["role"], key["transform"]] for key in _rowKeys(readRows(parameters.parameterNode))]
        return json.dumps([rows, parameters.alignmentEngine.value])

    # Keeping

    def keepAnalysis(
        self, parameters: ImmunoRadiomicsParameterNode, analysis: Analysis, folder: Path, key: str, aligned: str
    ) -> None:
        """Keep an analysis and its report; ``key`` and ``aligned`` are ``inputsKey`` and ``alignmentKey`` at the time of its start."""
        from ImmunoRadiomicsLib.serialise import to_json

        result = folder / RESULT_FOLDER
        node = parameters.parameterNode
        # Radiomics are nine tenths of the text and take half a second to read: what the panel shows does without them.
        shown = json.dumps(to_json(dataclasses.replace(analysis, features=(), deltas=())))
        with slicer.util.NodeModify(node):
            self._keepText(node, _ANALYSIS, _("result"), shown)
            self._keepText(node, _WHOLE, _("analysis"), (result / "analysis.json").read_text(encoding="utf-8"))
            self._keepText(node, _REPORT, _("report"), (result / "report.html").read_text(encoding="utf-8"))
            node.SetParameter(_INPUTS, key)
            node.SetParameter(_ANALYSED_ALIGNMENT, aligned)

    def keepAlignments(self, parameters: ImmunoRadiomicsParameterNode, folder: Path, key: str) -> None:
        """Keep the alignments of a stage that ran alone; ``key`` is the ``alignmentKey`` at the time of its start."""
        text = (folder / RESULT_FOLDER / "stage.json").read_text(encoding="utf-8")
        node = parameters.parameterNode
        with slicer.util.NodeModify(node):
            self._keepText(node, _ALIGNMENT, _("alignment"), text)
            node.SetParameter(_ALIGNED, key)

    def _keepText(self, parameterNode: Any, role: str, name: str, text: str) -> None:
        node = parameterNode.GetNodeReference(role)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", f"{parameterNode.GetName()} {name}")
            parameterNode.SetNodeReferenceID(role, node.GetID())
        node.SetText(text, vtk.VTK_ENCODING_UTF_8)

    # Finding

    def analysis(self, parameters: ImmunoRadiomicsParameterNode) -> Analysis | None:
        """Return the patient's result without its radiomics, None where there is none or an input has changed since."""
        return None if self.isOutdated(parameters) else self.lastAnalysis(parameters)

    def lastAnalysis(self, parameters: ImmunoRadiomicsParameterNode) -> Analysis | None:
        """Return the patient's last result without its radiomics, whether or not an input has changed since."""
        from ImmunoRadiomicsLib.analysis import Analysis

        return self._parse(parameters.parameterNode.GetNodeReference(_ANALYSIS), Analysis)

    def isOutdated(self, parameters: ImmunoRadiomicsParameterNode) -> bool:
        """Say whether there is a result, and an input has changed since."""
        node = parameters.parameterNode
        kept = node.GetNodeReference(_ANALYSIS) is not None
        return kept and node.GetParameter(_INPUTS) != self.inputsKey(parameters)

    def alignments(self, parameters: ImmunoRadiomicsParameterNode) -> tuple[AlignmentRecord, ...]:
        """Return the alignments of the patient's last run that fit the volumes, empty where there are none."""
        from ImmunoRadiomicsLib.analysis import StageResult

        node, key = parameters.parameterNode, self.alignmentKey(parameters)
        last = self.lastAnalysis(parameters)
        if last is not None and node.GetParameter(_ANALYSED_ALIGNMENT) == key:
            return last.alignments
        if node.GetParameter(_ALIGNED) != key:
            return ()
        stage = self._parse(node.GetNodeReference(_ALIGNMENT), StageResult)
        return () if stage is None else stage.alignments

    def _parse(self, node: Any, kind: type) -> Any:
        from ImmunoRadiomicsLib.serialise import from_json

        if node is None:
            return None
        kept = self._parsed.get(node.GetID())
        if kept is None or kept[0] is not node or kept[1] != node.GetMTime():
            kept = (node, node.GetMTime(), from_json(kind, json.loads(node.GetText())))
            self._parsed[node.GetID()] = kept
        return kept[2]

    # Forgetting

    def discard(self, parameters: ImmunoRadiomicsParameterNode, *, alignments: bool = False) -> None:
        """Take the patient's result as out of date because what it rests on was edited; its nodes stay in the scene."""
        node = parameters.parameterNode
        with slicer.util.NodeModify(node):
            node.SetParameter(_INPUTS, "-")
            if alignments:
                node.UnsetParameter(_ALIGNED)
                node.UnsetParameter(_ANALYSED_ALIGNMENT)

    def markNodes(self, parameters: ImmunoRadiomicsParameterNode, *, outdated: bool) -> None:
        """Say on the chart and the tables of the patient's last result whether an input has changed since."""
        from urllib.parse import quote

        analysis = self.lastAnalysis(parameters)
        if analysis is None:
            return
        note = _(" (out of date: an input has changed)")
        for node in [*nodesOf("vtkMRMLPlotChartNode"), *nodesOf("vtkMRMLTableNode")]:
            if node.GetAttribute("ImmunoRadiomics.patient") != quote(analysis.patient, safe=""):
                continue
            if node.IsA("vtkMRMLPlotChartNode"):
                title = (node.GetTitle() or "").removesuffix(note)
                wanted = title + note if outdated else title
                if wanted != node.GetTitle():
                    node.SetTitle(wanted)
            else:
                text = note.strip() if outdated else ""
                if text != (node.GetDescription() or ""):
                    node.SetDescription(text)

    # Files

    def exportSteps(
        self, parameters: ImmunoRadiomicsParameterNode, folder: Path, target: Path
    ) -> Generator[Any, Any, list[Path]]:
        """Write the patient's result into ``target``: everything of the last run, or after reopening a scene what it keeps.

        :raises ValueError: if there is no result.
        """
        if self.analysis(parameters) is None:
            raise ValueError(_("There is no result to export. Run the analysis first."))
        text = parameters.parameterNode.GetNodeReference(_WHOLE).GetText()
        report = self.reportText(parameters)
        result = folder / RESULT_FOLDER

        def write() -> list[Path]:
            # Here, beside the interface: the report takes a tenth of a second to import.
            from ImmunoRadiomicsLib.analysis import Analysis
            from ImmunoRadiomicsLib.report import write_tables
            from ImmunoRadiomicsLib.serialise import from_json

            target.mkdir(parents=True, exist_ok=True)
            whole = result / "analysis.json"
            if whole.is_file() and whole.read_text(encoding="utf-8") == text:
                shutil.copytree(result, target, dirs_exist_ok=True)
            else:
                (target / "analysis.json").write_text(text, encoding="utf-8")
                write_tables(from_json(Analysis, json.loads(text)), target)
                (target / "report.html").write_text(report, encoding="utf-8")
            return sorted(path for path in target.rglob("*") if path.is_file())

        return (yield write)

    def reportText(self, parameters: ImmunoRadiomicsParameterNode) -> str:
        """Return the patient's report as HTML.

        :raises ValueError: if there is none.
        """
        node = parameters.parameterNode.GetNodeReference(_REPORT)
        if node is None:
            raise ValueError(_("There is no report. Run the analysis first."))
        return str(node.GetText())


def fingerprint(record: AlignmentRecord) -> str:
    """Return a text that tells one alignment from another: how it was made, and what was measured of it."""
    quality = record.quality
    return json.dumps(
        [record.engine, quality.verdict, quality.correlation, quality.lung_dice, quality.maximum_displacement_mm]
    )


def _rowKeys(rows: Sequence[TimepointRow]) -> list[dict[str, Any]]:
    return [
        {
            "volume": row.volume.GetName() if row.volume else None,
            "segmentation": row.segmentation.GetName() if row.segmentation else None,
            "date": row.date,
            "role": row.role.value,
            "noVisibleLesions": row.noVisibleLesions,
            "transform": [row.transform.GetName() if row.transform else None, row.transformUse.value],
            "links": dict(row.links),
        }
        for row in rows
    ]
