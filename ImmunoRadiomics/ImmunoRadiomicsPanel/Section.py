"""What the sections of the panel have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from ImmunoRadiomicsLib.errors import ImmunoRadiomicsError

from .Dependencies import DeclinedError
from .Logic import EngineError, ImmunoRadiomicsLogic

if TYPE_CHECKING:
    from ImmunoRadiomicsLib.analysis import AlignmentRecord, Analysis

    from .Jobs import Work
    from .ParameterNode import ImmunoRadiomicsParameterNode
    from .Timepoints import TimepointRow
    from .Widget import PanelWidget


@dataclass(frozen=True)
class Shown:
    """The state of a patient that all sections show.

    ``analysis`` is the result that fits the choices, ``last`` the last one whether or not it still fits. ``running`` is empty, or
    why nothing else can be started now; ``problems`` is what keeps the patient from being analysed.
    """

    rows: tuple[TimepointRow, ...]
    names: tuple[str, ...]
    segments: tuple[str, ...]
    analysis: Analysis | None
    last: Analysis | None
    alignments: tuple[AlignmentRecord, ...]
    problems: str
    running: str

    @property
    def isOutdated(self) -> bool:
        """Whether there is a result, and an input has changed since."""
        return self.last is not None and self.analysis is None


class Section:
    """One section of the panel: connects its widgets, shows a patient in them, and answers clicks."""

    def __init__(self, panel: PanelWidget) -> None:
        self.panel = panel
        self.ui = panel.ui
        self.setup()

    def setup(self) -> None:
        """Connect the widgets."""

    def show(self, shown: Shown) -> None:
        """Show a patient."""

    def release(self) -> None:
        """Let go of what belongs to the patient that was shown."""

    @property
    def logic(self) -> ImmunoRadiomicsLogic:
        """The logic of the module."""
        return self.panel.logic

    @property
    def parameters(self) -> ImmunoRadiomicsParameterNode:
        """The choices for the patient that is shown."""
        return self.panel.parameters

    def onClick(self, button: Any, slot: Callable[[], None]) -> None:
        """Call ``slot`` when a button is clicked; what the user can mend is shown as a message."""
        button.connect("clicked(bool)", self.panel.guarded(slot))

    def begin(self, work: Work, message: str = "") -> None:
        """Start long work; ``message`` is shown once it is done."""
        self.panel.begin(work, message)


def guard(showError: Callable[[str, str], None], slot: Callable[[], None]) -> Callable[..., None]:
    """Let a slot show what the user can mend as a message; anything else is a defect and reaches the log."""

    @functools.wraps(slot)
    def guarded(*_arguments: Any) -> None:
        try:
            slot()
        except EngineError as error:
            showError(str(error), error.log)
        except (ImmunoRadiomicsError, DeclinedError, ValueError, OSError) as error:
            showError(str(error), "")

    return guarded


def titled(title: str, state: str) -> str:
    """Return the title of a section with its state."""
    states = {"to do": _("to do"), "done": _("done"), "problem": _("problem"), "optional": _("optional")}
    return _("{title} ({state})").format(title=title, state=states[state])


def tell(section: Any, title: str, state: str, message: Any, problems: Sequence[str]) -> None:
    """Show the state of a section, and beneath it what is missing."""
    section.text = titled(title, state)
    message.text = "\n".join(problems)
    message.visible = bool(problems)


def able(button: Any, reason: str, purpose: str) -> None:
    """Enable a button, or let its tooltip say why it is disabled."""
    button.enabled = not reason
    button.toolTip = reason or purpose


def fillCombo(combo: Any, names: Sequence[str]) -> None:
    """Offer names in a combo box, keeping what is chosen where it is still offered."""
    if [combo.itemText(index) for index in range(combo.count)] == list(names):
        return
    current = combo.currentText
    blocked = combo.blockSignals(True)
    combo.clear()
    combo.addItems(list(names))
    combo.setCurrentIndex(list(names).index(current) if current in names else (0 if names else -1))
    combo.blockSignals(blocked)
