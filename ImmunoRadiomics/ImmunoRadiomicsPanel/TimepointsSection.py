"""Section 2: the imaging dates."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from .DicomDatabase import fillFromDicom
from .RowTables import TimepointTable, selectedRow
from .Section import Section, Shown, tell
from .Timepoints import Role, TimepointRow, readRows, rowProblems, writeRows


class TimepointsSection(Section):
    """A table with one row per imaging date."""

    def setup(self) -> None:
        """Connect the widgets."""
        ui = self.ui
        self.table = TimepointTable(ui.timepointsTable, self.onEdited)
        ui.timepointsTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        for button, slot in (
            (ui.fillTimepointsButton, self.onFill),
            (ui.addTimepointButton, self.onAdd),
            (ui.removeTimepointButton, self.onRemove),
            (ui.moveTimepointUpButton, lambda: self._move(-1)),
            (ui.moveTimepointDownButton, lambda: self._move(1)),
        ):
            self.onClick(button, slot)

    def show(self, shown: Shown) -> None:
        """Show the rows, and at once what is wrong with them."""
        ui = self.ui
        self.table.show(shown.rows)
        problems = rowProblems(shown.rows)
        state = "done" if not problems else ("problem" if shown.rows else "to do")
        tell(ui.timepointsSection, _("2. Time points"), state, ui.timepointsMessage, problems)

    def onEdited(self) -> None:
        """The user has changed a cell."""
        if self.parameters is not None and not self.panel.updating:
            writeRows(self.parameters.parameterNode, self.table.rows())

    def onFill(self) -> None:
        """Take the CT volumes of the scene."""
        rows = self.logic.rowsFromScene(self.parameters)
        if not rows:
            raise ValueError(_("The scene has no CT volume. Load one first."))
        with slicer.util.NodeModify(self.parameters.parameterNode):
            fillFromDicom(self.parameters, rows[-1].volume)
            writeRows(self.parameters.parameterNode, rows)

    def onAdd(self) -> None:
        """Add an empty time point; the first one is the baseline."""
        rows = readRows(self.parameters.parameterNode)
        role = Role.FOLLOWUP if any(row.role is Role.BASELINE for row in rows) else Role.BASELINE
        writeRows(self.parameters.parameterNode, [*rows, TimepointRow(role=role)])

    def onRemove(self) -> None:
        """Remove the selected time point, else the last one."""
        rows = readRows(self.parameters.parameterNode)
        if rows:
            del rows[selectedRow(self.ui.timepointsTable)]
            writeRows(self.parameters.parameterNode, rows)

    def _move(self, step: int) -> None:
        rows = readRows(self.parameters.parameterNode)
        index = selectedRow(self.ui.timepointsTable)
        if index >= 0 and 0 <= index + step < len(rows):
            rows[index], rows[index + step] = rows[index + step], rows[index]
            writeRows(self.parameters.parameterNode, rows)
            self.ui.timepointsTable.setCurrentCell(index + step, 0)
