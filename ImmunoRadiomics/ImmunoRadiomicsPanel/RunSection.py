"""Section 7: run, watch, cancel."""

from __future__ import annotations

from slicer.i18n import tr as _

from .Dependencies import ensurePackages, offerRadiomicsExtension
from .Section import Section, Shown, able, titled


class RunSection(Section):
    """Starts the analysis and ends it."""

    def setup(self) -> None:
        """Connect the widgets."""
        self._offered = False
        self.onClick(self.ui.runButton, self.onRun)
        self.onClick(self.ui.cancelButton, self.panel.onCancel)

    def show(self, shown: Shown) -> None:
        """Show whether the analysis can be started, and why not."""
        ui = self.ui
        ui.runSection.text = titled(_("7. Run"), "done" if shown.analysis is not None else "to do")
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

    def onRun(self) -> None:
        """Analyze the patient."""
        if not self._offered:
            self._offered = True  # whoever has said no is not asked at every run
            if offerRadiomicsExtension():
                return
        ensurePackages()
        self.panel.showUnaligned()
        self.begin(self.logic.analysisWork(self.parameters, self.panel.onProgress), _("Done."))
