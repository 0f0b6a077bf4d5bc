"""Section 4: how every time point is laid on the baseline, shown, accepted, redone or replaced."""

from __future__ import annotations

import dataclasses
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Dependencies import ensurePackages
from .Presentation import alignmentRows
from .Results import fingerprint
from .RowTables import fillTable, selectedRow
from .Section import Section, Shown, able, fillCombo, tell
from .Timepoints import Role, TransformUse, readRows, timepointNames, writeRows
from .Views import AlignedPair


class AlignmentSection(Section):
    """Runs the alignment alone, shows its quality and the aligned pair, and takes the user's own transforms."""

    def setup(self) -> None:
        """Connect the widgets."""
        ui = self.ui
        self.pair = AlignedPair()
        ui.alignmentTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        ui.alignmentTable.connect("cellClicked(int,int)", self.onRowClicked)
        ui.alignmentTimepoint.connect("currentIndexChanged(int)", self.onTimepoint)
        ui.transformSelector.setMRMLScene(slicer.mrmlScene)
        ui.transformSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onTransformChosen)
        ui.fadeSlider.connect("valueChanged(int)", lambda value: self.pair.setOpacity(value / 100.0))
        self.onClick(ui.alignButton, self.onAlign)
        self.onClick(ui.acceptAlignmentButton, self.onAccept)
        self.onClick(ui.startTransformButton, lambda: self._use(TransformUse.START))
        self.onClick(ui.ownTransformButton, lambda: self._use(TransformUse.REPLACE))
        self.onClick(ui.resetTransformButton, lambda: self._use(TransformUse.NONE))
        self.onClick(ui.showAlignedButton, self.onFade)
        self.onClick(ui.checkerboardButton, self.onCheckerboard)

    def show(self, shown: Shown) -> None:
        """Show the figures of quality, what was accepted, and what can be done."""
        ui = self.ui
        rows = dict(zip(shown.names, shown.rows, strict=True))
        others = [name for name, row in rows.items() if row.role is not Role.BASELINE]
        fillCombo(ui.alignmentTimepoint, others)
        records = {record.timepoint: record for record in shown.alignments}
        current = selectedRow(ui.alignmentTable)
        accepted = {
            name for name, record in records.items() if name in rows and rows[name].accepted == fingerprint(record)
        }
        used = {name: row.transformUse for name, row in rows.items() if row.transform is not None}
        fillTable(ui.alignmentTable, *alignmentRows(shown.alignments, accepted, used))
        if 0 <= current < len(records):
            ui.alignmentTable.selectRow(current)
        self._showState(records, accepted)
        self._enable(shown, records, accepted, others)

    def _showState(self, records: dict[str, Any], accepted: set[str]) -> None:
        failed = [name for name, record in records.items() if record.quality.verdict == "failed"]
        said = []
        if failed:
            said.append(
                _("Not aligned: {names}. What compares these with the baseline is withheld.").format(
                    names=", ".join(failed)
                )
            )
        waiting = [name for name in records if name not in accepted and name not in failed]
        if waiting:
            said.append(_("Look at {names} and accept, or redo.").format(names=", ".join(waiting)))
        state = "to do"
        if records:
            state = "problem" if failed else ("to do" if waiting else "done")
        tell(self.ui.alignmentSection, _("4. Alignment"), state, self.ui.alignmentMessage, said)

    def _enable(self, shown: Shown, records: dict[str, Any], accepted: set[str], others: list[str]) -> None:
        ui = self.ui
        name = self.timepoint()
        able(
            ui.alignButton,
            shown.running or shown.problems,
            _("Align every time point with the baseline and show how good that is."),
        )
        noPoint = "" if name in others else _("Add a time point other than the baseline first.")
        noRecord = "" if name in records else _("Align first.")
        done = _("This alignment is accepted.") if name in accepted else ""
        if name in records and records[name].quality.verdict == "failed":
            done = _("It has failed and is not used. Redo it from a transform, or use one of your own.")
        able(
            ui.acceptAlignmentButton,
            noPoint or noRecord or done,
            _("Say that you have looked at this alignment and found it good."),
        )
        chosen = "" if ui.transformSelector.currentNode() is not None else _("Choose a transform node first.")
        reason = shown.running or noPoint or chosen or shown.problems
        able(ui.startTransformButton, reason, _("Align again, starting from the chosen transform."))
        able(
            ui.ownTransformButton,
            reason,
            _("Lay this time point on the baseline by the chosen transform instead of aligning it."),
        )
        row = self._row(name)
        automatic = "" if row is not None and row.transformUse is not TransformUse.NONE else _("It is automatic now.")
        able(
            ui.resetTransformButton,
            shown.running or noPoint or automatic,
            _("Align this time point without a transform of your own."),
        )
        noTransform = "" if name and self.logic.transformOf(self.parameters, name) is not None else _("Align first.")
        able(
            ui.showAlignedButton,
            noPoint or noTransform,
            _("Fade the time point, carried onto the baseline, over the baseline."),
        )
        able(
            ui.checkerboardButton,
            shown.running or noPoint or noTransform,
            _("Show the baseline and the time point carried onto it in squares by turns."),
        )
        ui.fadeSlider.enabled = bool(ui.showAlignedButton.checked)

    def release(self) -> None:
        """Show the scene as it was acquired."""
        self.hidePair()

    def timepoint(self) -> str:
        """Return the name of the time point that the section is about, empty where there is none."""
        return str(self.ui.alignmentTimepoint.currentText)

    def _row(self, name: str) -> Any:
        rows = readRows(self.parameters.parameterNode)
        return dict(zip(timepointNames(rows), rows, strict=True)).get(name)

    def onRowClicked(self, row: int, _column: int) -> None:
        """The user has clicked a row of the figures."""
        item = self.ui.alignmentTable.item(row, 0)
        index = self.ui.alignmentTimepoint.findText(item.text()) if item is not None else -1
        if index >= 0:
            self.ui.alignmentTimepoint.setCurrentIndex(index)

    def onTimepoint(self, _index: int) -> None:
        """Another time point was chosen."""
        self.hidePair()
        if self.parameters is not None and not self.panel.updating:
            row = self._row(self.timepoint())
            self.ui.transformSelector.setCurrentNode(row.transform if row is not None else None)
            self.panel.update()

    def onTransformChosen(self, _node: Any) -> None:
        """A transform node was chosen: it counts once one of the buttons is clicked."""
        self.panel.update()

    # Doing

    def onAlign(self) -> None:
        """Align, and show how good that is."""
        ensurePackages()
        self.hidePair()
        work = self.logic.alignmentWork(self.parameters, self.panel.onProgress)
        self.begin(work, _("Aligned. The table shows how well."))

    def onAccept(self) -> None:
        """Remember that the user has found this alignment good."""
        records = {record.timepoint: record for record in self.logic.results.alignments(self.parameters)}
        record = records.get(self.timepoint())
        if record is not None:
            self._write(accepted=fingerprint(record))

    def _use(self, use: TransformUse) -> None:
        node = self.ui.transformSelector.currentNode() if use is not TransformUse.NONE else None
        self.hidePair()
        self._write(transform=node, transformUse=use, accepted="")
        self.onAlign()

    def _write(self, **changes: Any) -> None:
        rows = readRows(self.parameters.parameterNode)
        index = timepointNames(rows).index(self.timepoint())
        rows[index] = dataclasses.replace(rows[index], **changes)
        writeRows(self.parameters.parameterNode, rows)

    # Showing

    def _pairNodes(self) -> tuple[Any, Any, Any]:
        """Return the volumes of the baseline and of the time point, and the transform between them."""
        rows = readRows(self.parameters.parameterNode)
        baseline = next((row.volume for row in rows if row.role is Role.BASELINE), None)
        row = self._row(self.timepoint())
        transform = self.logic.transformOf(self.parameters, self.timepoint())
        if baseline is None or row is None or row.volume is None or transform is None:
            raise ValueError(
                _("The transform of {name} is not in the scene. Align again.").format(name=self.timepoint())
            )
        return baseline, row.volume, transform

    def onFade(self) -> None:
        """Fade the time point over the baseline, or show it where it was acquired again."""
        if not self.ui.showAlignedButton.checked:
            self.hidePair()
            return
        self.hidePair()
        self.pair.fade(*self._pairNodes(), self.ui.fadeSlider.value / 100.0)
        self.ui.showAlignedButton.checked = True
        self.ui.fadeSlider.enabled = True

    def onCheckerboard(self) -> None:
        """Show both in squares by turns, or remove that."""
        if not self.ui.checkerboardButton.checked:
            self.hidePair()
            return
        self.hidePair()
        baseline, volume, transform = self._pairNodes()
        logic, parameters, panel = self.logic, self.parameters, self.panel

        def work() -> Any:
            board = yield from logic.checkerboardWork(parameters, baseline, volume, transform, panel.onProgress)
            self.pair.checker(board, baseline)
            self.ui.checkerboardButton.checked = True

        self.begin(work(), _("The squares show the baseline and the time point by turns."))

    def hidePair(self) -> None:
        """Take a shown pair back: every scan where it was acquired, no checkerboard."""
        self.pair.hide()
        self.ui.showAlignedButton.checked = False
        self.ui.checkerboardButton.checked = False
        self.ui.fadeSlider.enabled = False
