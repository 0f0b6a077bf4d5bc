"""The tables that are edited: time points, what segments are, and which lesion a segment belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Timepoints import Kind, Role, SegmentMeaning, TimepointRow, TransformUse

_ROLES = tuple(Role)
_KINDS = tuple(Kind)
# A text field is this much wider than its text.
_FRAME_PIXELS = 16
_LESION_ROLES = ("", "target", "non-target")


def fillTable(table: Any, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show texts in a QTableWidget, in place of what it showed; the cells are not edited."""
    table.setColumnCount(len(headings))
    table.setHorizontalHeaderLabels(list(headings))
    table.setRowCount(len(rows))
    for index, row in enumerate(rows):
        for column, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
            item.setToolTip(text)
            table.setItem(index, column, item)
    table.resizeColumnsToContents()


def fillCheckedTable(
    table: Any, headings: Sequence[str], rows: Sequence[Sequence[str]], checked: Sequence[bool]
) -> None:
    """Show texts in a QTableWidget, each row with a box that can be checked."""
    fillTable(table, headings, rows)
    for index, wanted in enumerate(checked):
        item = table.item(index, 0)
        item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
        item.setCheckState(qt.Qt.Checked if wanted else qt.Qt.Unchecked)
    table.resizeColumnsToContents()


def checkedRows(table: Any) -> list[int]:
    """Return the indices of the rows whose box is checked."""
    return [index for index in range(table.rowCount) if table.item(index, 0).checkState() == qt.Qt.Checked]


def selectedRow(table: Any) -> int:
    """Return the index of the current row, -1 where there is none."""
    return table.currentRow()


def _choice(labels: Sequence[str], onChanged: Callable[..., None]) -> Any:
    combo = qt.QComboBox()
    for label in labels:
        combo.addItem(label)
    combo.connect("currentIndexChanged(int)", onChanged)
    return combo


def _nodeSelector(className: str, tip: str, onChanged: Callable[..., None]) -> Any:
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = [className]
    selector.noneEnabled = True
    selector.addEnabled = False
    selector.removeEnabled = False
    selector.renameEnabled = False
    selector.toolTip = tip
    selector.setMRMLScene(slicer.mrmlScene)
    selector.setCurrentNode(None)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", onChanged)
    return selector


class _Editors:
    """The widgets of one row; the table shows them, and without a reference here they would be taken for plain widgets."""

    def __init__(self, widgets: Sequence[Any]) -> None:
        self.widgets = tuple(widgets)

    def block(self, blocked: bool) -> None:
        for widget in self.widgets:
            widget.blockSignals(blocked)


class _EditedTable:
    """A QTableWidget whose cells are widgets; ``onEdited`` is called when the user has changed one."""

    def __init__(self, table: Any, headings: Sequence[str], wide: Sequence[int], onEdited: Callable[[], None]) -> None:
        self.table = table
        self._onEdited = onEdited
        self._wide = tuple(wide)
        self._editors: list[_Editors] = []
        table.setColumnCount(len(headings))
        table.setHorizontalHeaderLabels(list(headings))

    def _changed(self, *_arguments: Any) -> None:
        self._onEdited()

    def _resize(self, count: int) -> None:
        for index in range(len(self._editors), count):
            self.table.setRowCount(index + 1)
            editors = self._newEditors()
            for column, widget in enumerate(editors.widgets):
                self.table.setCellWidget(index, column, widget)
            self._editors.append(editors)
        if count < len(self._editors):
            for editors in self._editors[count:]:
                editors.block(True)
            del self._editors[count:]
            self.table.setRowCount(count)

    def _fit(self) -> None:
        """Give every column the width of what it shows, and the wide ones what is left."""
        for column in range(self.table.columnCount):
            if column not in self._wide:
                self.table.resizeColumnToContents(column)
        for column in self._wide:
            # Set anew each time: only then is the space shared out again.
            self.table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.Stretch)

    def _newEditors(self) -> _Editors:
        raise NotImplementedError


class TimepointTable(_EditedTable):
    """Role, date, volume and segmentation of every time point."""

    def __init__(self, table: Any, onEdited: Callable[[], None]) -> None:
        headings = [_("Role"), _("Date"), _("CT"), _("Segmentation"), _("No lesion")]
        super().__init__(table, headings, (), onEdited)
        self._shown: list[TimepointRow] = []

    def _newEditors(self) -> _Editors:
        date = qt.QLineEdit()
        date.placeholderText = "YYYY-MM-DD"
        date.setMaximumWidth(date.fontMetrics().horizontalAdvance(date.placeholderText) + _FRAME_PIXELS)
        date.connect("textChanged(QString)", self._changed)
        absent = qt.QCheckBox()
        absent.toolTip = _("Every lesion has gone at this time point.")
        absent.connect("toggled(bool)", self._changed)
        return _Editors(
            [
                _choice([role.label() for role in _ROLES], self._changed),
                date,
                _nodeSelector("vtkMRMLScalarVolumeNode", _("CT in HU"), self._changed),
                _nodeSelector(
                    "vtkMRMLSegmentationNode",
                    _("Lesions of this time point; without one, the contours of the baseline are propagated."),
                    self._changed,
                ),
                absent,
            ]
        )

    def show(self, rows: Sequence[TimepointRow]) -> None:
        """Show rows, changing only what differs."""
        self._shown = list(rows)
        self._resize(len(rows))
        for editors, row in zip(self._editors, rows, strict=True):
            role, date, volume, segmentation, absent = editors.widgets
            editors.block(True)
            role.setCurrentIndex(_ROLES.index(row.role))
            if date.text != row.date:
                date.setText(row.date)
            volume.setCurrentNode(row.volume)
            segmentation.setCurrentNode(row.segmentation)
            absent.setChecked(row.noVisibleLesions)
            editors.block(False)
        self._fit()

    def rows(self) -> list[TimepointRow]:
        """Return what the table shows, with what was shown of each row elsewhere."""
        found = []
        for editors, shown in zip(self._editors, self._shown, strict=True):
            role, date, volume, segmentation, absent = editors.widgets
            row = replace(
                shown,
                volume=volume.currentNode(),
                segmentation=segmentation.currentNode(),
                date=date.text.strip(),
                role=_ROLES[role.currentIndex],
                noVisibleLesions=absent.checked,
            )
            if row.volume is not shown.volume:
                # A transform, and what was said about it, belongs to the scan that it was made for.
                row = replace(row, transform=None, transformUse=TransformUse.NONE, accepted="")
            if row.segmentation is not shown.segmentation:
                row = replace(row, links={})
            found.append(row)
        return found


class SegmentTable(_EditedTable):
    """What every segment is; automatic leaves it to the engine."""

    def __init__(self, table: Any, onEdited: Callable[[], None]) -> None:
        super().__init__(table, [_("Segment"), _("Kind"), _("Organ"), _("Role")], (0, 2), onEdited)

    def _newEditors(self) -> _Editors:
        organ = qt.QLineEdit()
        organ.placeholderText = _("automatic")
        organ.connect("textChanged(QString)", self._changed)
        return _Editors(
            [
                qt.QLabel(),
                _choice([kind.label() for kind in _KINDS], self._changed),
                organ,
                _choice([_("automatic"), _("target"), _("non-target")], self._changed),
            ]
        )

    def show(self, meanings: Sequence[SegmentMeaning]) -> None:
        """Show one row per segment, changing only what differs."""
        self._resize(len(meanings))
        for editors, meaning in zip(self._editors, meanings, strict=True):
            name, kind, organ, role = editors.widgets
            editors.block(True)
            name.setText(meaning.segment)
            kind.setCurrentIndex(_KINDS.index(meaning.kind))
            if organ.text.strip() != meaning.organ:
                organ.setText(meaning.organ)
            role.setCurrentIndex(_LESION_ROLES.index(meaning.role))
            editors.block(False)
        self._fit()

    def meanings(self) -> list[SegmentMeaning]:
        """Return what the table shows."""
        found = []
        for editors in self._editors:
            name, kind, organ, role = editors.widgets
            found.append(
                SegmentMeaning(
                    name.text, organ.text.strip(), _LESION_ROLES[role.currentIndex], _KINDS[kind.currentIndex]
                )
            )
        return found


@dataclass(frozen=True)
class CorrespondenceRow:
    """One segment of a time point: the lesions that it can belong to, which one it does, and what the engine thinks of that.

    ``choice`` is `automatic`, `own`, `nothing` or `lesion:` and the lesion's name.
    """

    index: int
    timepoint: str
    segment: str
    lesions: tuple[str, ...]
    choice: str
    found: str
    remark: str


AUTOMATIC, OWN, NOTHING, LESION = "automatic", "own", "nothing", "lesion:"


class CorrespondenceTable(_EditedTable):
    """Which lesion every segment belongs to; automatic shows what the engine has found."""

    def __init__(self, table: Any, onEdited: Callable[[CorrespondenceRow, str], None]) -> None:
        super().__init__(table, [_("Time point"), _("Segment"), _("Belongs to"), _("Remark")], (3,), lambda: None)
        self._onChosen = onEdited
        self._rows: list[CorrespondenceRow] = []
        self._choices: list[list[str]] = []

    def _newEditors(self) -> _Editors:
        number = len(self._editors)
        combo = _choice([], lambda *_arguments: self._chosen(number))
        return _Editors([qt.QLabel(), qt.QLabel(), combo, qt.QLabel()])

    def _chosen(self, number: int) -> None:
        if number < len(self._rows):
            combo = self._editors[number].widgets[2]
            self._onChosen(self._rows[number], self._choices[number][combo.currentIndex])

    def show(self, rows: Sequence[CorrespondenceRow]) -> None:
        """Show one row per segment, changing only what differs."""
        if list(rows) == self._rows:
            return
        self._rows = list(rows)
        self._choices = [[AUTOMATIC, *(LESION + name for name in row.lesions), OWN, NOTHING] for row in rows]
        self._resize(len(rows))
        for editors, row, choices in zip(self._editors, rows, self._choices, strict=True):
            timepoint, segment, combo, remark = editors.widgets
            editors.block(True)
            timepoint.setText(row.timepoint)
            segment.setText(row.segment)
            automatic = _("automatic: {lesion}").format(lesion=row.found) if row.found else _("automatic")
            combo.clear()
            combo.addItems([automatic, *row.lesions, _("a lesion of its own"), _("not a lesion")])
            combo.setCurrentIndex(choices.index(row.choice) if row.choice in choices else 0)
            remark.setText(row.remark)
            remark.setToolTip(row.remark)
            editors.block(False)
        self._fit()
