"""Section 1: which patient, from the scene, a file, or the DICOM database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import DicomDatabase
from .Dependencies import ensurePackages
from .Facts import date
from .ParameterNode import ImmunoRadiomicsParameterNode
from .RowTables import checkedRows, fillCheckedTable
from .Section import Section, Shown, able, tell
from .Timepoints import proposeRoles, readRows, writeRows
from .Views import showVolume
from .VirtualPatient import makeVirtualPatient

_MODULE = "ImmunoRadiomics"


class PatientSection(Section):
    """Chooses a patient and brings new ones into the scene."""

    def setup(self) -> None:
        """Connect the widgets."""
        ui = self.ui
        self._patients: list[DicomDatabase.DicomPatient] = []
        self._series: list[DicomDatabase.DicomSeries] = []
        ui.patientSelector.addAttribute("vtkMRMLScriptedModuleNode", "ModuleName", _MODULE)
        ui.patientSelector.setMRMLScene(slicer.mrmlScene)
        ui.patientSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onPatientSelected)
        ui.dicomPatientCombo.connect("currentIndexChanged(int)", self.onDicomPatient)
        for button, slot in (
            (ui.newPatientButton, self.onNewPatient),
            (ui.openStudyButton, self.onOpenStudy),
            (ui.samplePatientButton, self.onSamplePatient),
            (ui.loadDicomButton, self.onImportDicom),
            (ui.dicomRefreshButton, self.onRefreshDicom),
            (ui.dicomLoadButton, self.onLoadDicom),
        ):
            self.onClick(button, slot)
        self.onRefreshDicom()

    def show(self, shown: Shown) -> None:
        """Show what is missing of the patient."""
        ui = self.ui
        problems = self.logic.patientProblems(self.parameters)
        tell(ui.patientSection, _("1. Patient"), "to do" if problems else "done", ui.patientMessage, problems)
        noDicom = "" if hasattr(slicer.modules, "dicom") else _("This Slicer was built without DICOM.")
        able(ui.loadDicomButton, noDicom, _("Open the DICOM module to import files into the database."))
        noDatabase = "" if DicomDatabase.database() is not None else _("There is no open DICOM database.")
        able(ui.dicomRefreshButton, noDatabase, _("Look into the DICOM database again."))
        ui.dicomPatientCombo.enabled = bool(self._patients)
        ui.dicomSeriesTable.visible = bool(self._series)
        noSeries = "" if self._series else _("The DICOM database has no CT.")
        able(
            ui.dicomLoadButton,
            shown.running or noDatabase or noSeries,
            _("Load the chosen CT series as time points, with what DICOM says of the patient."),
        )

    def onPatientSelected(self, node: Any = None) -> None:
        """Another patient of the scene was chosen."""
        panel = self.panel
        if panel.updating or slicer.mrmlScene.IsClosing():
            return
        if node is None:
            if panel.parameters is None or panel.parameters.parameterNode.GetScene() is None:
                panel.setParameterNode(None)
                panel.beginAnewLater()
        elif panel.parameters is None or panel.parameters.parameterNode is not node:
            panel.setParameterNode(ImmunoRadiomicsParameterNode(node))

    def onNewPatient(self) -> None:
        """Add a patient."""
        self.panel.setParameterNode(self.logic.newPatient(""))

    def onOpenStudy(self) -> None:
        """Read a study.yaml as a new patient."""
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Open study"), "", _("Study (*.yaml *.yml)"))
        # Qt for Python returns the filter beside the path.
        path = path[0] if isinstance(path, tuple) else path
        if not path:
            return
        ensurePackages()

        def work() -> Any:
            parameters = yield from self.logic.studyWork(Path(path))
            self.panel.showLater(parameters)

        self.begin(work(), _("The study is loaded."))

    def onSamplePatient(self) -> None:
        """Make a virtual patient and show it."""
        ensurePackages()
        parameters = makeVirtualPatient(logic=self.logic)
        if parameters is not None:
            self.panel.showInstead(parameters)

    # DICOM

    def onImportDicom(self) -> None:
        """Open the DICOM module."""
        slicer.util.selectModule("DICOM")

    def onRefreshDicom(self) -> None:
        """Show the patients of the DICOM database."""
        self._patients = DicomDatabase.patients()
        combo = self.ui.dicomPatientCombo
        blocked = combo.blockSignals(True)
        combo.clear()
        combo.addItems([patient.code for patient in self._patients])
        combo.blockSignals(blocked)
        self.onDicomPatient(combo.currentIndex)

    def onDicomPatient(self, index: int) -> None:
        """Show the CT series of a patient of the DICOM database."""
        self._series = DicomDatabase.seriesOf(self._patients[index].key) if 0 <= index < len(self._patients) else []
        proposed = DicomDatabase.proposedSeries(self._series)
        rows = [[item.date, item.description, str(item.images)] for item in self._series]
        headings = [_("Date"), _("Series"), _("Images")]
        fillCheckedTable(self.ui.dicomSeriesTable, headings, rows, [item.uid in proposed for item in self._series])
        self.panel.update()

    def onLoadDicom(self) -> None:
        """Load the chosen series as time points of this patient, as a new one where this one has volumes already."""
        chosen = [self._series[index].uid for index in checkedRows(self.ui.dicomSeriesTable)]
        if not chosen:
            raise ValueError(_("Choose at least one series."))
        volumes = DicomDatabase.loadSeries(chosen)
        if not volumes:
            raise ValueError(_("None of the chosen series could be loaded as a volume."))
        if readRows(self.parameters.parameterNode):
            self.panel.setParameterNode(self.logic.newPatient(""))
        parameters = self.parameters
        with slicer.util.NodeModify(parameters.parameterNode):
            DicomDatabase.fillFromDicom(parameters, volumes[-1])
            rows = proposeRoles(self.logic.rowsOf(volumes), date(parameters.treatmentStart))
            writeRows(parameters.parameterNode, rows)
        showVolume(volumes[0])
