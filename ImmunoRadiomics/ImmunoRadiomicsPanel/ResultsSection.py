"""Section 8: the three flags, the response, the lungs; charts, report, and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Presentation import flagHtml, flagTitle, lungRows, visitRows
from .RowTables import fillTable
from .Section import Section, Shown, able, titled
from .Timepoints import readRows, timepointNames

_FLAGS = ("pseudoprogression", "hyperprogression", "pneumonitis")


class ResultsSection(Section):
    """Shows what a run has found as long as the inputs are those of the run."""

    def setup(self) -> None:
        """Connect the widgets."""
        ui = self.ui
        self.onClick(ui.showViewsButton, self.onShowViews)
        self.onClick(ui.showChartButton, self.onShowChart)
        self.onClick(ui.openReportButton, self.onOpenReport)
        self.onClick(ui.exportButton, self.onExport)

    def show(self, shown: Shown) -> None:
        """Show the result, or why there is none."""
        ui = self.ui
        analysis = shown.analysis
        flags = {} if analysis is None else {flag.flag: flag for flag in analysis.flags}
        for name in _FLAGS:
            group, label = getattr(ui, f"{name}Group"), getattr(ui, f"{name}Label")
            group.visible = name in flags
            label.text = flagHtml(flags[name]) if name in flags else ""
            if name in flags:
                group.title = flagTitle(flags[name])
        fillTable(ui.visitsTable, *(visitRows(analysis) if analysis is not None else ([], [])))
        headings, rows = lungRows(analysis) if analysis is not None else ([], [])
        fillTable(ui.lungTable, headings, rows)
        ui.visitsTable.visible = analysis is not None
        ui.lungTable.visible = ui.lungLabel.visible = bool(rows)
        self.logic.results.markNodes(self.parameters, outdated=shown.isOutdated)
        state = "done" if analysis is not None else ("problem" if shown.isOutdated else "to do")
        ui.resultsSection.text = titled(_("8. Results"), state)
        if analysis is not None:
            text = "\n".join([analysis.research_use_only, *analysis.warnings])
        elif shown.isOutdated:
            text = _("An input has changed since the last run; its result is out of date and not shown. Run again.")
        else:
            text = _("There is no result for these inputs yet.")
        ui.resultsMessage.text = text
        noResult = "" if analysis is not None else text
        able(
            ui.showViewsButton,
            noResult,
            _("Show baseline and last time point with all lesions, and the lesions in 3D."),
        )
        able(ui.showChartButton, noResult, _("Show the sizes of all lesions over time."))
        able(ui.openReportButton, noResult, _("Open the report in the browser."))
        able(ui.exportButton, shown.running or noResult, _("Write all results into a folder."))

    def onShowViews(self) -> None:
        """Lay the views out: baseline and last time point, lesions in the colors of their course, the lesions in 3D."""
        from ImmunoRadiomicsLib.scene import arrange_views, find_nodes

        self.panel.showUnaligned()
        analysis = self.logic.analysis(self.parameters)
        rows = readRows(self.parameters.parameterNode)
        volumes = {name: row.volume for name, row in zip(timepointNames(rows), rows, strict=True)}
        nodes = find_nodes(slicer.mrmlScene, analysis, volumes)
        for row in rows:
            # The result has the same contours, in the colors of their course.
            if row.segmentation is not None and row.segmentation.GetDisplayNode() is not None:
                row.segmentation.GetDisplayNode().SetVisibility(False)
        arrange_views(slicer.mrmlScene, analysis, nodes, settle=slicer.app.processEvents)

    def onShowChart(self) -> None:
        """Show the size chart."""
        chart = self.logic.chartOf(self.logic.analysis(self.parameters))
        if chart is None:
            raise ValueError(_("The chart was removed from the scene. Run the analysis again."))
        slicer.modules.plots.logic().ShowChartInLayout(chart)

    def onOpenReport(self) -> None:
        """Open the report in the browser."""
        path = self.logic.writeReport(self.parameters, self.logic.folderOf(self.parameters) / "report.html")
        qt.QDesktopServices.openUrl(qt.QUrl(path.as_uri()))

    def onExport(self) -> None:
        """Write everything into a folder that the user chooses."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Export results into a folder"))
        if not folder:
            return
        logic, parameters, panel = self.logic, self.parameters, self.panel

        def work() -> Any:
            written = yield from logic.exportWork(parameters, Path(folder))
            panel.ui.runMessage.text = _("{count} files were written to {folder}.").format(
                count=len(written), folder=folder
            )

        self.begin(work())
