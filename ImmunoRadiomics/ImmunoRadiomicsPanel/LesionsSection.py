"""Section 5: every lesion over time, and which segment is which lesion."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Nodes import segmentsOf
from .Presentation import lesionRows
from .RowTables import AUTOMATIC, LESION, NOTHING, OWN, CorrespondenceRow, CorrespondenceTable, fillTable
from .Section import Section, Shown, able, tell
from .Timepoints import Kind, Role, SegmentMeaning, readMeanings, readRows, timepointNames, writeMeanings, writeRows
from .Views import (
    BASELINE_VIEW,
    TIMEPOINT_VIEW,
    LinkedViews,
    carried,
    layOutSideBySide,
    showContoursIn,
    shownImages,
    showPlace,
    viewNodes,
)

_FIRST_SIZE_COLUMN = 3


class LesionsSection(Section):
    """Shows lesions, jumps to them, and takes the user's word on correspondences."""

    def setup(self) -> None:
        """Connect the widgets."""
        ui = self.ui
        self.views = LinkedViews()
        self._transform: Any = None
        self._images: tuple[str | None, str | None] = (None, None)
        ui.lesionsTable.setSelectionBehavior(qt.QAbstractItemView.SelectItems)
        ui.lesionsTable.connect("cellClicked(int,int)", self.onLesionClicked)
        ui.linkViewsCheckBox.connect("toggled(bool)", self.onLinkToggled)
        self.table = CorrespondenceTable(ui.correspondenceTable, self.onChosen)
        self.onClick(ui.resetLinksButton, self.onReset)

    def show(self, shown: Shown) -> None:
        """Show the lesions of the last result, and the correspondences as they are chosen."""
        ui = self.ui
        last = shown.last
        fillTable(ui.lesionsTable, *(lesionRows(last) if last is not None else ([], [])))
        self.table.show(self._correspondences(shown))
        said = []
        if shown.isOutdated:
            said.append(_("This is the last result; an input has changed since. Run again."))
        if last is not None:
            checks = [item for lesion in last.lesions for item in lesion.observations if item.check]
            said += [f"{item.timepoint}: {item.check}" for item in checks]
        state = "done" if shown.analysis is not None else "to do"
        tell(ui.lesionsSection, _("5. Lesions"), state, ui.lesionsMessage, said)
        edited = any(row.links for row in shown.rows) or any(
            item.kind is Kind.NOTHING for item in readMeanings(self.parameters.parameterNode).values()
        )
        able(
            ui.resetLinksButton,
            "" if edited else _("Nothing was changed."),
            _("Leave all correspondences to the engine again."),
        )

    def release(self) -> None:
        """Let the views go their own ways."""
        self.views.unlink()

    # Correspondences

    def _correspondences(self, shown: Shown) -> list[CorrespondenceRow]:
        meanings = readMeanings(self.parameters.parameterNode)
        ignored = {name for name, item in meanings.items() if item.kind is Kind.NOTHING}
        organs = {name for name, item in meanings.items() if item.kind is Kind.ORGAN}
        found = _found(shown)
        lesions = tuple(
            dict.fromkeys([*_known(shown), *(link for row in shown.rows for link in row.links.values() if link)])
        )
        rows = []
        for index, (name, row) in enumerate(zip(shown.names, shown.rows, strict=True)):
            if row.segmentation is None:
                continue
            for segment in segmentsOf(row.segmentation):
                if _isOrgan(segment) or segment in organs:
                    continue
                lesion, remark = found.get((name, segment), ("", ""))
                choice = NOTHING if segment in ignored else AUTOMATIC
                if segment in row.links and segment not in ignored:
                    linked = row.links[segment]
                    choice = OWN if linked is None else LESION + linked
                rows.append(CorrespondenceRow(index, name, segment, lesions, choice, lesion, remark))
        return rows

    def onChosen(self, row: CorrespondenceRow, choice: str) -> None:
        """The user has said what a segment of a time point belongs to."""
        if self.parameters is None or self.panel.updating:
            return
        node = self.parameters.parameterNode
        with slicer.util.NodeModify(node):
            meanings = readMeanings(node)
            item = meanings.get(row.segment, SegmentMeaning(row.segment))
            if choice == NOTHING:
                item = dataclasses.replace(item, kind=Kind.NOTHING)
            elif item.kind is Kind.NOTHING:
                item = dataclasses.replace(item, kind=Kind.AUTOMATIC)
            writeMeanings(node, [*({**meanings, row.segment: item}).values()])
            rows = readRows(node)
            links = {name: lesion for name, lesion in rows[row.index].links.items() if name != row.segment}
            if choice == OWN:
                links[row.segment] = None
            elif choice.startswith(LESION):
                links[row.segment] = choice.removeprefix(LESION)
            rows[row.index] = dataclasses.replace(rows[row.index], links=links)
            writeRows(node, rows)

    def onReset(self) -> None:
        """Forget every correspondence that the user has set."""
        node = self.parameters.parameterNode
        with slicer.util.NodeModify(node):
            meanings = readMeanings(node).values()
            writeMeanings(
                node,
                [
                    dataclasses.replace(item, kind=Kind.AUTOMATIC) if item.kind is Kind.NOTHING else item
                    for item in meanings
                ],
            )
            writeRows(node, [dataclasses.replace(row, links={}) for row in readRows(node)])

    # Jumping

    def onLesionClicked(self, row: int, column: int) -> None:
        """Show a lesion at the baseline and beside it at the clicked time point, each as acquired; the views are linked."""
        last = self.logic.results.lastAnalysis(self.parameters) if self.parameters is not None else None
        if last is None or not 0 <= row < len(last.lesions):
            return
        names = [record.name for record in sorted(last.timepoints, key=lambda record: record.day)]
        name = names[column - _FIRST_SIZE_COLUMN] if column >= _FIRST_SIZE_COLUMN else names[-1]
        rows = readRows(self.parameters.parameterNode)
        volumes = {item: entry.volume for item, entry in zip(timepointNames(rows), rows, strict=True)}
        transform = self.logic.transformOf(self.parameters, name) if name != last.baseline else None
        baseline, other = _places(last.lesions[row], last.baseline, name, transform)
        self.views.unlink()
        self.panel.showUnaligned()
        fit = layOutSideBySide()
        showPlace(BASELINE_VIEW, volumes.get(last.baseline), baseline, fit=fit)
        showPlace(TIMEPOINT_VIEW, volumes.get(name), other, fit=fit)
        self._showContours(last, volumes, ((BASELINE_VIEW, last.baseline), (TIMEPOINT_VIEW, name)))
        self._transform, self._images = transform, shownImages()
        if self.ui.linkViewsCheckBox.checked:
            self.views.link(transform)

    def _showContours(self, analysis: Any, volumes: dict[str, Any], shown: Sequence[tuple[str, str]]) -> None:
        """Show in every view the contours of the time point whose image it shows, those of the result or else the drawn ones."""
        from ImmunoRadiomicsLib.errors import StageError
        from ImmunoRadiomicsLib.scene import find_nodes, show_marks

        viewIds: dict[str, list[str]] = {}
        for view, name in shown:
            _composite, sliceNode = viewNodes(view)
            if sliceNode is not None:
                viewIds.setdefault(name, []).append(sliceNode.GetID())
        try:
            nodes = find_nodes(slicer.mrmlScene, analysis, volumes)
        except StageError:
            nodes = None
        if nodes is not None:
            show_marks(nodes, viewIds)
        rows = readRows(self.parameters.parameterNode)
        for name, row in zip(timepointNames(rows), rows, strict=True):
            showContoursIn(row.segmentation, [] if nodes is not None else viewIds.get(name, []))

    def onLinkToggled(self, checked: bool) -> None:
        """Link the views where they are, or let each go its own way."""
        if checked:
            # Images that were chosen since lie on each other as they are.
            self.views.link(self._transform if shownImages() == self._images else None)
        else:
            self.views.unlink()


def _places(lesion: Any, baseline: str, timepoint: str, transform: Any) -> tuple[Any, Any]:
    """Return where a lesion is at both time points in RAS mm: by its own center, or where it was not seen, through the transform."""

    def seen(name: str) -> Any:
        observation = lesion.at(name)
        place = observation.centroid_lps_mm if observation is not None else None
        return None if place is None else (-place[0], -place[1], place[2])

    first, second = seen(baseline), seen(timepoint)
    if first is None and second is not None and timepoint != baseline:
        first = carried(transform, second, toBaseline=True) if transform is not None else None
    if second is None and first is not None:
        second = carried(transform, first) if transform is not None else None
    return first, second


def _isOrgan(segment: str) -> bool:
    from ImmunoRadiomicsLib.lesions.names import is_organ

    return is_organ(segment)


def _known(shown: Shown) -> list[str]:
    """Return the lesions that a segment can belong to: those of the last result, else the segments of the baseline."""
    if shown.last is not None:
        return [lesion.id for lesion in shown.last.lesions]
    drawn = [row.segmentation for row in shown.rows if row.role is Role.BASELINE and row.segmentation is not None]
    return [name for node in drawn for name in segmentsOf(node) if not _isOrgan(name)]


def _found(shown: Shown) -> dict[tuple[str, str], tuple[str, str]]:
    """Return by time point and segment the lesion that the last run gave it to, and how sure it was."""
    found = {}
    for lesion in shown.last.lesions if shown.last is not None else ():
        for item in lesion.observations:
            remark = item.check or ""
            if not remark and item.confidence is not None:
                remark = _("confidence {value}").format(value=f"{item.confidence:.2f}")
            found |= {(item.timepoint, segment): (lesion.id, remark) for segment in item.segments}
    return found
