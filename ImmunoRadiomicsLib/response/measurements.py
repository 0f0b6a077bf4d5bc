"""The measurements that every response criterion starts from, in plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal, get_args

Role = Literal["target", "non-target", "new-target", "new-non-target"]
Status = Literal[
    "measured",
    "too small",
    "present",
    "absent",
    "equivocal",
    "progressed",
    "further progressed",
    "not evaluated",
]

ROLES: tuple[Role, ...] = get_args(Role)

TOO_SMALL_MM = 5.0
NORMAL_NODE_MM = 10.0


@dataclass(frozen=True)
class Measurement:
    """One lesion at one visit.

    ``day`` counts from the baseline scan (0); negative days are scans before it, which only the growth kinetics use.
    ``node`` says that the lesion is a lymph node, of which the short axis counts. ``status`` is `measured`, `absent`,
    `too small` or `not evaluated` for a lesion that is measured (`target`, `new-target`), and `present`, `absent`,
    `progressed`, `further progressed` or `not evaluated` for one that is judged (`non-target`, `new-non-target`). A new
    lesion may be `equivocal`. A lesion that merged into another one is `absent`.
    """

    patient: str
    day: int
    lesion: str
    role: Role
    organ: str = ""
    node: bool = False
    long_mm: float | None = None
    short_mm: float | None = None
    status: Status = "measured"

    @property
    def size_mm(self) -> float | None:
        """The diameter that counts: the short axis of a node, the long axis of anything else."""
        return self.short_mm if self.node else self.long_mm

    @property
    def size_tenths(self) -> int | None:
        """The size that enters a sum in tenths of a millimetre; None where the lesion was not evaluated.

        A lesion that is gone is 0; one that is seen but too small to measure is 5 mm unless a size was measured
        (RECIST 1.1, doi 10.1016/j.ejca.2008.10.026).
        """
        if self.status == "not evaluated":
            return None
        if self.status == "absent":
            return 0
        size = self.size_mm
        if size is None or (self.status == "too small" and size <= 0):
            return tenths(TOO_SMALL_MM) if self.status == "too small" else None
        return tenths(size)


def tenths(millimetres: float | str | Decimal) -> int:
    """Return a length in whole tenths of a millimetre, halves rounded up.

    Thresholds are compared in these integers: 9.8 of 14 mm is exactly -30 % here and is not in binary floating point.

    >>> tenths(9.8), tenths(32.45)
    (98, 325)
    """
    return int((Decimal(str(millimetres)) * 10).quantize(Decimal(1), rounding=ROUND_HALF_UP))
