"""Section 7: run, watch, cancel."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .Bundles import bundleFolders, setBundleFolders
from .Dependencies import ensurePackages, offerRadiomicsExtension
from .RowTables import fillTable, selectedRow
from .Section import Section, Shown, able, titled


class RunSection(Section):
    """Starts the analysis and ends it."""

    def setup(self) -> None:
        """Connect the widgets."""
        self._offered = False
        self._bundleRows: object = None
        self.onClick(self.ui.runButton, self.onRun)
        self.onClick(self.ui.cancelButton, self.panel.onCancel)
        self.onClick(self.ui.addBundleButton, self.onAddBundle)
        self.onClick(self.ui.removeBundleButton, self.onRemoveBundle)
        self.ui.bundlesTable.connect("itemSelectionChanged()", self.panel.update)
        self.ui.bundlesTable.setWordWrap(False)

    def show(self, shown: Shown) -> None:
        """Show whether the analysis can be started, and why not."""
        ui = self.ui
        ui.runSection.text = titled(_("7. Run"), "done" if shown.analysis is not None else "to do")
        self._showBundles(shown)
        able(
            ui.runButton,
            shown.running or shown.problems,
            _("Analyze the patient: alignment, lesions, radiomics, response, flags."),
        )
        able(
            ui.cancelButton,
            "" if shown.running else _("Nothing is running."),
            _("End the work and all its processes."),
        )

    def _showBundles(self, shown: Shown) -> None:
        ui = self.ui
        found = self.logic.ownBundles(self.parameters)
        refused = _("refused: {reason}")
        states = [refused.format(reason=item.problem) if item.problem else item.weight for item in found]
        rows = [[item.flag, item.title, state, item.folder] for item, state in zip(found, states, strict=True)]
        headings = [_("Flag"), _("Bundle"), _("State"), _("Folder")]
        if self._bundleRows != (rows, self.parameters.parameterNode):
            self._bundleRows = (rows, self.parameters.parameterNode)
            blocked = ui.bundlesTable.blockSignals(True)
            fillTable(ui.bundlesTable, headings, rows)
            # The panel is narrow: title and state share its width, and tooltips tell all of them and the folder.
            ui.bundlesTable.setColumnHidden(3, True)
            for column in (1, 2):
                ui.bundlesTable.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.Stretch)
            for row, item in enumerate(found):
                ui.bundlesTable.item(row, 1).setToolTip(f"{item.title}\n{item.folder}")
            ui.bundlesTable.setCurrentCell(-1, -1)
            ui.bundlesTable.blockSignals(blocked)
        ui.bundlesTable.visible = bool(rows)
        able(
            ui.addBundleButton,
            shown.running,
            _("Choose the folder of a trained or evidence bundle; it takes the place of the shipped one of its flag."),
        )
        chosen = selectedRow(ui.bundlesTable) >= 0
        able(
            ui.removeBundleButton,
            shown.running or ("" if chosen else _("Choose a bundle in the table first.")),
            _("Answer this flag by the shipped bundle again; no file is removed."),
        )

    def onAddBundle(self) -> None:
        """Let the user choose a bundle folder; it is verified before it is used."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of the bundle"))
        if folder:
            self.logic.addBundle(self.parameters, Path(folder))

    def onRemoveBundle(self) -> None:
        """Take the chosen bundle off the list."""
        row = selectedRow(self.ui.bundlesTable)
        folders = bundleFolders(self.parameters)
        setBundleFolders(self.parameters, [folder for index, folder in enumerate(folders) if index != row])

    def onRun(self) -> None:
        """Analyze the patient."""
        if not self._offered:
            self._offered = True  # whoever has said no is not asked at every run
            offerRadiomicsExtension()
        ensurePackages()
        self.panel.showUnaligned()
        self.begin(self.logic.analysisWork(self.parameters, self.panel.onProgress), _("Done."))
