"""The panel over its stand-ins, and a patient whose result is prepared: what the panel does with a result needs no engine."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

import pytest
import slicer_stand_in
from scene_patient import write_patient

from ImmunoRadiomicsLib.analysis import SCHEMA_VERSION, StageResult
from ImmunoRadiomicsLib.serialise import to_json
from ImmunoRadiomicsLib.study import save_study
from ImmunoRadiomicsLib.workspace import write_json

MODULE = Path(__file__).resolve().parents[2] / "ImmunoRadiomics"


@pytest.fixture
def slicer(monkeypatch):
    """The module ``slicer`` with an empty scene; messages to the user are in ``slicer.shown``."""
    monkeypatch.syspath_prepend(str(MODULE))
    installed = slicer_stand_in.install()
    slicer_stand_in.new_scene(installed)
    slicer_stand_in.slot_errors.clear()
    installed.shown = []

    def show(text, windowTitle=None, parent=None, standardButtons=None, **options):
        # Slicer takes any details, even none, as a reason to make the message very wide.
        assert options.get("detailedText") != ""
        installed.shown.append((text, options.get("detailedText", "")))

    monkeypatch.setattr(installed.util, "errorDisplay", show)
    yield installed
    assert slicer_stand_in.slot_errors == []
    slicer_stand_in.remove()


def new_panel(slicer):
    """A panel that is shown, as the application makes one."""
    import qt

    import ImmunoRadiomics

    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    parent.isEntered = True
    widget = ImmunoRadiomics.ImmunoRadiomicsWidget(parent)
    widget.setup()
    return widget


@pytest.fixture
def panel(slicer):
    """A panel on an empty scene."""
    widget = new_panel(slicer)
    yield widget
    widget.cleanup()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A folder with study.yaml, and in ``out`` what the engine writes for it."""
    folder = tmp_path_factory.mktemp("prepared")
    analysis, study = write_patient(folder)
    out = folder / "out"
    timepoints = tuple(
        dataclasses.replace(item, segmentation=out / "segmentations" / f"{item.name}.seg.nrrd")
        for item in study.timepoints
    )
    save_study(dataclasses.replace(study, timepoints=timepoints), folder / "study.yaml")
    write_json(out / "analysis.json", to_json(analysis))
    stage = StageResult(
        SCHEMA_VERSION, analysis.research_use_only, analysis.patient, "align", analysis.timepoints, analysis.alignments
    )
    write_json(out / "stage.json", to_json(stage))
    (out / "report.html").write_text("<p>report of 5 µm</p>", encoding="utf-8")
    return folder


def process_that(code):
    """A process that runs a text in place of the engine, in the folder of the run."""
    from ImmunoRadiomicsPanel.EngineProcess import TreeProcess

    class Other(TreeProcess):
        def start(self, arguments, logPath, environment):
            # The panel's own tasks are themselves.
            if "ImmunoRadiomicsPanel.Tasks" in arguments:
                super().start(arguments, logPath, environment)
            else:
                super().start([arguments[0], "-c", code], logPath, environment)

    return Other


def give_result(panel, prepared):
    """Let the engine of a panel hand out the prepared result."""
    out = str(prepared / "out")
    code = f"import shutil; shutil.copytree({out!r}, 'result', dirs_exist_ok=True)"
    panel.logic._processFactory = process_that(code)


def analyzed(panel, prepared):
    """Load the prepared patient, show it, and click Run; return its choices."""
    give_result(panel, prepared)
    panel.setParameterNode(panel.logic.loadStudy(prepared / "study.yaml"))
    panel.ui.runButton.click()
    wait(lambda: panel.work is None)
    return panel.parameters


def wait(condition, seconds=120.0):
    """Let the interface live until a condition holds."""
    from PySide6.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        QApplication.processEvents()
        time.sleep(0.01)


def texts(table) -> list[list[str]]:
    """What a table shows."""
    cells = [[table.item(row, column) for column in range(table.columnCount)] for row in range(table.rowCount)]
    return [["" if cell is None else cell.text() for cell in row] for row in cells]


def copy_of(prepared: Path, folder: Path, patient: str) -> Path:
    """The prepared patient under another code."""
    shutil.copytree(prepared, folder)
    for name in ("study.yaml", "out/analysis.json", "out/stage.json"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").replace("P001", patient), encoding="utf-8")
    return folder
