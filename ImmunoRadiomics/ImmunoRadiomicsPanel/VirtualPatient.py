"""A virtual patient for the Sample Data module: made on request by a process of its own, nothing is downloaded."""

from __future__ import annotations

import functools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .Jobs import CancelledWork, Job
from .Logic import EngineError, ImmunoRadiomicsLogic, messageDetails
from .ParameterNode import ImmunoRadiomicsParameterNode
from .Timepoints import Role, readRows
from .Views import showVolume

CATEGORY = "ImmunoRadiomics"
SAMPLE_NAME = "ImmunoRadiomicsVirtualPatient"
SEED = 7
_POLL_SECONDS = 0.02


def registerSampleData(iconPath: str) -> None:
    """Add the virtual patient to the Sample Data module, once; does nothing where Slicer lacks that module."""
    try:
        import SampleData
    except ImportError:
        return
    logic = SampleData.SampleDataLogic
    if any(source.sampleName == SAMPLE_NAME for source in logic.sampleDataSourcesByCategory(CATEGORY)):
        return
    if hasattr(logic, "registerCustomSampleDataCategory"):
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("ImmunoRadiomics"))
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        thumbnailFileName=iconPath,
        # Nothing is downloaded, but the module wants an address of every sample.
        uris="immunoradiomics:virtual-patient",
        customDownloader=lambda source: loadVirtualPatient(),
    )
    _letCodeAskForIt(logic)


def _letCodeAskForIt(logicClass: Any) -> None:
    """Let ``SampleData.downloadSample`` bring the virtual patient too: Slicer calls a source's own downloader from its button alone."""
    download = logicClass.downloadFromSource

    @functools.wraps(download)
    def downloadFromSource(self: Any, source: Any, *arguments: Any, **options: Any) -> Any:
        if source.sampleName == SAMPLE_NAME:
            return source.customDownloader(source)
        return download(self, source, *arguments, **options)

    logicClass.downloadFromSource = downloadFromSource


def loadVirtualPatient(size: str = "small", logic: ImmunoRadiomicsLogic | None = None) -> list[Any]:
    """Make a virtual patient and load it: volumes, segmentations, and the patient's data in the panel.

    Blocks behind a progress dialog, which can be cancelled; returns the nodes, none where it was cancelled.
    """
    parameters = makeVirtualPatient(size, logic)
    if parameters is None:
        return []
    return [node for row in readRows(parameters.parameterNode) for node in (row.volume, row.segmentation) if node]


def makeVirtualPatient(
    size: str = "small", logic: ImmunoRadiomicsLogic | None = None
) -> ImmunoRadiomicsParameterNode | None:
    """Make a virtual patient as a new patient of the scene; return its choices, None where it was cancelled."""
    logic = logic or ImmunoRadiomicsLogic()
    folder = Path(tempfile.mkdtemp(prefix="ImmunoRadiomics-", dir=slicer.app.temporaryPath))
    dialog = slicer.util.createProgressDialog(
        windowTitle=_("ImmunoRadiomics"), labelText=_("Making a virtual patient"), maximum=100, modal=True
    )
    try:
        found = []

        def work() -> Any:
            arguments = ["patient", str(folder / "patient"), "--seed", str(SEED), "--size", size]
            yield from logic.taskWork(arguments, folder, lambda progress: dialog.setValue(int(95 * progress.fraction)))
            found.append((yield from logic.studyWork(folder / "patient" / "study.yaml")))

        job = Job(work())
        while not job.turn():
            # The dialog is modal: nothing else can be clicked meanwhile.
            slicer.app.processEvents()
            if dialog.wasCanceled:
                job.cancel()
            time.sleep(_POLL_SECONDS)
        rows = readRows(found[0].parameterNode)
        showVolume(next(row.volume for row in rows if row.role is Role.BASELINE), rows)
        return found[0]
    except CancelledWork:
        return None
    except EngineError as error:
        slicer.util.errorDisplay(str(error), **messageDetails(error.log))
        return None
    finally:
        dialog.close()
        shutil.rmtree(folder, ignore_errors=True)
