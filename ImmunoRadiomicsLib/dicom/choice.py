"""Which of the CT series of a day is read: rules in their order, so that a table can say which one decided."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from .geometry import Stack

# A series that covers less than this share of the longest one of its day is a part of the examination.
LEAST_COVERAGE_SHARE = 0.8
# RECIST 1.1 wants at most 5 mm; thin slices make volumes and textures comparable (QIBA CT volumetry profile: at most 2.5 mm).
LARGEST_STEP_MM = 5.0
THIN_STEP_MM = 3.0

Sharpness = Literal["soft", "sharp", "not known"]

# Siemens writes a letter (or two) and a number: up to 49 is soft, from 50 on the kernels are for lung and bone.
_SIEMENS = re.compile(r"^(?:[BHIQTDSJ][A-Z]?|BR|BV|BF|BL|HR|HC|QR)(\d{2})")
# Canon and Toshiba: FC01 to FC29 and FC43, FC44 are soft, FC30 and FC50 onwards sharp.
_CANON = re.compile(r"^FC(\d{2})")
_SOFT_WORDS = ("STANDARD", "SOFT", "DETAIL", "SMOOTH", "CHEST", "ABDOMEN", "BODY", "MEDIAST")
_SHARP_WORDS = ("LUNG", "BONE", "EDGE", "SHARP", "ULTRA", "HRCT", "HIGH RES")
_PHILIPS_SOFT = ("A", "B", "C", "SA", "SB", "SC", "UA", "UB", "UC")
_PHILIPS_SHARP = ("D", "E", "L", "YA", "YB", "YC", "YD", "YE", "YL")


def sharpness(kernel: str) -> Sharpness:
    """Say whether a reconstruction kernel is one for soft tissue or one for lung and bone, by the names of the manufacturers."""
    word = kernel.upper().split("\\")[0].strip()
    if not word:
        return "not known"
    if found := _SIEMENS.match(word):
        return "soft" if int(found.group(1)) < 50 else "sharp"
    if found := _CANON.match(word):
        number = int(found.group(1))
        return "soft" if number < 30 or number in (43, 44) else "sharp"
    if any(part in word for part in _SHARP_WORDS):
        return "sharp"
    if any(part in word for part in _SOFT_WORDS) or word in _PHILIPS_SOFT:
        return "soft"
    return "sharp" if word in _PHILIPS_SHARP else "not known"


def ranked(stacks: Sequence[Stack]) -> tuple[list[Stack], dict[int, str]]:
    """Order the stacks of one day, best first.

    The rules: slices across the body; at least 80 % of the longest coverage; slices at most 5 mm apart; not a sharp kernel; slices at
    most 3 mm apart; contrast given; then the thinnest slices, the longest coverage and the lowest series number.

    Returns
    -------
    tuple
        The stacks, best first, and by their ``id`` the rule by which each one is worse than the best.
    """
    axial = [stack for stack in stacks if stack.is_axial]
    longest = max((stack.coverage_mm for stack in axial), default=0.0)

    def merits(stack: Stack) -> tuple[tuple[bool, str], ...]:
        return (
            (stack.is_axial, "its slices do not lie across the body"),
            (
                stack.coverage_mm >= LEAST_COVERAGE_SHARE * longest,
                f"it covers {stack.coverage_mm:.0f} mm of {longest:.0f} mm",
            ),
            (stack.step_mm <= LARGEST_STEP_MM + 1e-3, f"its slices lie {stack.step_mm:.2f} mm apart"),
            (sharpness(stack.first.kernel) != "sharp", f"its kernel {stack.first.kernel} is sharp"),
            (stack.step_mm <= THIN_STEP_MM + 1e-3, f"its slices lie {stack.step_mm:.2f} mm apart"),
            (stack.first.contrast is True, "no contrast is stated"),
        )

    def key(stack: Stack) -> tuple[object, ...]:
        return (
            tuple(not passed for passed, _ in merits(stack)),
            round(stack.step_mm, 2),
            -round(stack.coverage_mm),
            "DERIVED" in stack.first.image_type,
            stack.first.series_number if stack.first.series_number is not None else 10**9,
            stack.first.series_uid,
        )

    order = sorted(stacks, key=key)
    why: dict[int, str] = {}
    for stack in order[1:]:
        best = merits(order[0])
        decided = next(
            (said for (passed, said), (top, _) in zip(merits(stack), best, strict=True) if top and not passed), None
        )
        if decided is None:
            thicker = stack.step_mm > order[0].step_mm + 0.005
            decided = (
                f"its slices lie {stack.step_mm:.2f} mm apart" if thicker else "another of the same merit comes first"
            )
        why[id(stack)] = f"{decided}; a better one of the day is used"
    return order, why
