"""Section 6: the clinical facts that evidence models use."""

from __future__ import annotations

from slicer.i18n import tr as _

from .Facts import NUMBERS, WHOLE_NUMBERS, factProblems
from .Section import Section, Shown, tell


class ClinicalSection(Section):
    """A form; what is wrong with a value is said beside it while it is typed."""

    def show(self, shown: Shown) -> None:
        """Show what is wrong, beside each field and in the title."""
        problems = factProblems(self.parameters)
        for name in (WHOLE_NUMBERS | NUMBERS).values():
            message = getattr(self.ui, f"{name}Message")
            message.text = problems.get(name, "")
            message.visible = name in problems
        state = "problem" if problems else "optional"
        said = [_("Values marked above have to be mended or emptied.")] if problems else []
        tell(self.ui.clinicalSection, _("6. Clinical"), state, self.ui.clinicalMessage, said)
