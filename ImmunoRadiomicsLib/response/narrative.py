"""The paragraph that a radiologist would dictate for a visit."""

from __future__ import annotations

import datetime

from .irecist import Anchor, IrecistSettings, IrecistVisit
from .measurements import tenths
from .recist import RecistVisit, in_mm, percent


def when(day: int, baseline_date: datetime.date | None) -> str:
    """Name a day: its date where the date of the baseline is known, else the day since the baseline."""
    if baseline_date is None:
        return "baseline" if day == 0 else f"day {day}"
    return (baseline_date + datetime.timedelta(days=day)).isoformat()


def describe(
    recist: RecistVisit,
    irecist: IrecistVisit,
    *,
    nadir_day: int | None,
    new_lesions: tuple[str, ...] = (),
    settings: IrecistSettings | None = None,
    baseline_date: datetime.date | None = None,
) -> str:
    """Return the findings and responses of one visit in sentences.

    ``nadir_day`` is the day of the nadir, ``new_lesions`` are those that were not there at the baseline. Days are written as dates
    where the date of the baseline is given.
    """
    settings = settings or IrecistSettings()
    sentences = [_target_sentence(recist, nadir_day, baseline_date)]
    if recist.non_target is not None:
        sentences.append(f"Non-target lesions: {recist.non_target}.")
    if new_lesions:
        sentences.append(f"New lesion{'s' if len(new_lesions) > 1 else ''}: {', '.join(new_lesions)}.")
    elif recist.new_lesion == "equivocal":
        sentences.append("An equivocal new lesion is to be followed.")
    elif recist.new_lesion == "not evaluated":
        sentences.append("New lesions were not looked for.")
    sentences.append(f"Overall RECIST 1.1: {recist.overall}.")
    sentences.append(f"iRECIST: {irecist.letter}{_irecist_note(irecist)}.")
    if irecist.letter in ("iUPD", "NE") and irecist.anchor is not None:
        sentences += _pending(irecist, irecist.anchor, settings, baseline_date)
    return " ".join(sentence for sentence in sentences if sentence)


def _signed_percent(change: float | None) -> str:
    return "" if change is None else f"{change:+.0f} %"


def _target_sentence(visit: RecistVisit, nadir_day: int | None, baseline_date: datetime.date | None) -> str:
    target = visit.target
    if target.letter is None or target.baseline is None or target.nadir is None:
        return "No target lesions."
    if target.total is None:
        partial = f"the measured part is {in_mm(target.measured_part)} mm"
        return f"Not every target could be evaluated; {partial}: target {target.letter}."
    text = f"Sum of diameters {in_mm(target.total)} mm; "
    if target.total < target.nadir or (target.letter in ("CR", "PR") and target.total <= target.nadir):
        change = _signed_percent(percent(target.total, target.baseline))
        text += (
            f"{change} and {_signed_mm(target.total - target.baseline)} against baseline ({in_mm(target.baseline)} mm)"
        )
    else:
        change = _signed_percent(percent(target.total, target.nadir))
        both = " and ".join(part for part in (change, _signed_mm(target.total - target.nadir)) if part)
        moment = "" if nadir_day is None else f", {when(nadir_day, baseline_date)}"
        text += f"{both} over nadir ({in_mm(target.nadir)} mm{moment})"
    return f"{text}: target {target.letter}."


def _signed_mm(value: int) -> str:
    return f"{'-' if value < 0 else '+'}{in_mm(abs(value))} mm"


def _irecist_note(visit: IrecistVisit) -> str:
    if visit.letter == "iUPD" and visit.anchor is not None and visit.anchor.day == visit.day:
        return f" (first, {', '.join(visit.causes)}-driven)"
    if visit.letter == "iUPD" and not visit.used:
        return " (scan too early to count)"
    if visit.letter == "iUPD":
        return " (not confirmed)"
    return ""


def _pending(
    visit: IrecistVisit, anchor: Anchor, settings: IrecistSettings, baseline_date: datetime.date | None
) -> list[str]:
    weeks = f"{settings.confirm_min_days // 7}–{settings.confirm_max_days // 7} weeks"
    first, last = anchor.day + settings.confirm_min_days, anchor.day + settings.confirm_max_days
    bar = tenths(settings.further_growth_mm)
    subject = "this scan" if anchor.day == visit.day else f"the scan of {when(anchor.day, baseline_date)}"
    ways = []
    if "target" in anchor.causes:
        ways.append(f"further target growth ≥ {in_mm(bar)} mm (sum ≥ {in_mm(anchor.total + bar)} mm)")
    elif anchor.targets:
        ways.append("target progression")
    if anchor.has_non_targets:
        ways.append(f"{'' if 'non-target' in anchor.causes else 'unequivocal '}non-target growth")
    if "new lesion" in anchor.causes:
        ways.append("growth of the new lesions")
    options = f"{', '.join(ways)} or another new lesion would give iCPD."
    return [
        f"Confirmation CT {weeks} after {subject} (between {when(first, baseline_date)} and {when(last, baseline_date)}).",
        options[0].upper() + options[1:],
        "Pseudoprogression can be neither confirmed nor excluded on this scan.",
    ]
