"""Where the lines of the charts of a report run, in the units of their drawing.

The drawing itself is in the template; here time and size become coordinates. Thresholds are those of RECIST 1.1
(doi:10.1016/j.ejca.2008.10.026): response at 30 % below the baseline sum, progression at 20 % and 5 mm over the nadir.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..analysis import Analysis, Flag, Lesion, Visit
from .measures import change_percent, days, reference_observation, response_size_mm

WIDTH = 560.0
HEIGHT = 310.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 64.0, 16.0, 40.0
LABEL_DISTANCE = 13.0

# The style of the line of the sum among those of lesions: the strongest of all.
SUM_STYLE = -1

RESPONSE_FACTOR = 0.7
PROGRESSION_FACTOR = 1.2
PROGRESSION_MM = 5.0


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One measurement: its place and what it says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A series over time. ``style`` chooses colour, dash and marker; the label, if any, stands at (``label_x``, ``label_y``)."""

    label: str
    style: int
    dots: tuple[Dot, ...]
    label_x: float | None
    label_y: float

    @property
    def path(self) -> str:
        """The SVG path through the dots."""
        return "M" + "L".join(f"{dot.x:.1f} {dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True)
class Guide:
    """A threshold from one place to another; ``kind`` chooses how it is drawn."""

    kind: str
    x1: float
    x2: float
    y: float


@dataclass(frozen=True)
class Chart:
    """A chart of sizes over time. ``start_x`` is where the treatment starts."""

    title: str
    description: str
    unit: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    guides: tuple[Guide, ...]
    guide_labels: tuple[Tick, ...]
    start_x: float | None
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return round numbers that cover a range, about ``count`` of them."""
    span = max(high - low, 1e-9)
    raw = span / max(count - 1, 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * unit >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def minus(day: int) -> str:
    """Return a whole number with a true minus."""
    return str(day).replace("-", "−")


def signed(value: float, digits: int = 0) -> str:
    """Return a number with its sign, a true minus, and no sign before zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def spread_labels(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Return places as near as possible to those wanted and far enough apart to be read."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed: list[float] = []
    for index in order:
        placed.append(max(wanted[index], placed[-1] + LABEL_DISTANCE) if placed else max(wanted[index], low))
    excess = (placed[-1] - high) if placed else 0.0
    if excess > 0:
        placed[-1] -= excess
        for index in range(len(placed) - 2, -1, -1):
            placed[index] = min(placed[index], placed[index + 1] - LABEL_DISTANCE)
    result = [0.0] * len(wanted)
    for index, place in zip(order, placed, strict=True):
        result[index] = place
    return result


def _day_scale(days: Iterable[int]) -> tuple[_Scale, tuple[Tick, ...]]:
    """Return the time axis and its ticks, one per scan, those too near to the one before left out."""
    every = sorted(set(days))
    low, high = every[0], every[-1]
    margin = max((high - low) * 0.03, 1.0)
    scale = _Scale(low - margin, high + margin, LEFT, WIDTH - RIGHT)
    ticks: list[Tick] = []
    for day in every:
        if not ticks or scale(day) - ticks[-1].at >= 30:
            ticks.append(Tick(scale(day), minus(day)))
    return scale, tuple(ticks)


def sum_chart(analysis: Analysis) -> Chart | None:
    """Return the chart of the sum of target diameters with baseline, nadir and the thresholds; None without two sums."""
    visits = sorted((item for item in analysis.response.visits if item.sum_mm is not None), key=lambda item: item.day)
    points = [(item.day, item.sum_mm) for item in visits if item.sum_mm is not None]
    baseline = next((item.baseline_mm for item in visits if item.baseline_mm is not None), None)
    if baseline is not None and all(day != 0 for day, _ in points):
        points = sorted([(0, baseline), *points])
    if len(points) < 2:
        return None
    x, x_ticks = _day_scale(day for day, _ in points)
    thresholds = _thresholds(visits, points[0][0])
    values = [size for _, size in points] + [high for *_, high in thresholds] + [low for _, _, low, _ in thresholds]
    if baseline is not None:
        values.append(baseline * RESPONSE_FACTOR)
    ticks = nice_ticks(min(values) * 0.94, max(values) * 1.04)
    y = _Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    guides = []
    if baseline is not None:
        guides.append(Guide("baseline", LEFT, WIDTH - RIGHT, y(baseline)))
        guides.append(Guide("response", LEFT, WIDTH - RIGHT, y(baseline * RESPONSE_FACTOR)))
    for before, day, nadir, progression in thresholds:
        guides.append(Guide("nadir", x(before), x(day), y(nadir)))
        guides.append(Guide("progression", x(before), x(day), y(progression)))
    dots = tuple(Dot(x(day), y(size), f"day {day}: {size:.1f} mm") for day, size in points)
    line = Line("sum", 0, dots, None, 0.0)
    # What lies at the right end of the chart is named there, each thing once.
    named = [("sum", dots[-1].y)]
    if baseline is not None:
        named += [("baseline", y(baseline)), ("−30 %", y(baseline * RESPONSE_FACTOR))]
    if thresholds:
        _, _, nadir, progression = thresholds[-1]
        named += [("PD limit", y(progression))] + ([] if nadir == baseline else [("nadir", y(nadir))])
    places = spread_labels([place for _, place in named], TOP, HEIGHT - BOTTOM)
    said = ", ".join(dot.text for dot in dots)
    return Chart(
        title="Sum of target diameters",
        description=f"Line chart of the sum of target diameters over time: {said}.",
        unit="mm",
        x_ticks=x_ticks,
        y_ticks=tuple(Tick(y(value), f"{value:g}") for value in ticks),
        lines=(line,),
        guides=tuple(guides),
        guide_labels=tuple(Tick(place, label) for (label, _), place in zip(named, places, strict=True)),
        start_x=_start(analysis, x),
    )


def _thresholds(visits: Sequence[Visit], first_day: int) -> list[tuple[int, int, float, float]]:
    """Return for each visit: the day before and its own, the nadir, and the sum from which on it is a progression."""
    return [
        (before, item.day, item.nadir_mm, max(item.nadir_mm * PROGRESSION_FACTOR, item.nadir_mm + PROGRESSION_MM))
        for before, item in zip([first_day, *(item.day for item in visits)], visits, strict=False)
        if item.nadir_mm is not None and before < item.day
    ]


def _sum_in_percent(analysis: Analysis) -> tuple[list[tuple[int, float, float]], list[tuple[int, int, float, float]]]:
    """Return the sums of target diameters (day, % of the baseline, mm) and their thresholds in %; empty where there is no baseline."""
    visits = sorted((item for item in analysis.response.visits if item.sum_mm is not None), key=lambda item: item.day)
    baseline = next((item.baseline_mm for item in visits if item.baseline_mm), None)
    if baseline is None:
        return [], []
    points = {0: (0, 0.0, baseline)}
    for item in visits:
        if item.sum_mm is not None:
            points[item.day] = (item.day, 100 * (item.sum_mm / baseline - 1), item.sum_mm)
    steps = [
        (before, day, 100 * (nadir / baseline - 1), 100 * (progression / baseline - 1))
        for before, day, nadir, progression in _thresholds(visits, 0)
    ]
    return [points[day] for day in sorted(points)], steps


def lesion_chart(analysis: Analysis) -> Chart | None:
    """Return each lesion's change in % of its baseline diameter (of its first one where it is new), and that of the sum of targets.

    The guides are those of the sum: the response at -30 %, the nadir, and the limit of progression over it.
    """
    day = days(analysis)
    series: list[tuple[Lesion, str, list[tuple[int, float, float]]]] = []
    for lesion in analysis.lesions:
        start = reference_observation(analysis, lesion)
        points = []
        for seen in lesion.observations:
            size = response_size_mm(lesion, seen)
            change = change_percent(analysis, lesion, start, seen)
            if seen.timepoint in day and size is not None and change is not None:
                points.append((day[seen.timepoint], change, size))
        if points and start is not None:
            new = start.timepoint != analysis.baseline
            series.append((lesion, f"{lesion.id} (new)" if new else lesion.id, sorted(points)))
    if not series:
        return None
    sums, steps = _sum_in_percent(analysis)
    x, x_ticks = _day_scale([point[0] for *_, points in series for point in points] + [0] + [item[0] for item in sums])
    changes = [point[1] for *_, points in series for point in points]
    changes += [change for _, change, _ in sums] + [level for *_, nadir, limit in steps for level in (nadir, limit)]
    ticks = nice_ticks(min([*changes, -35.0]), max([*changes, 25.0]))
    y = _Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    total = (sums[-1][1],) if len(sums) > 1 else ()
    ends = spread_labels([*(y(points[-1][1]) for *_, points in series), *map(y, total)], TOP, HEIGHT - BOTTOM)
    guides = [Guide("baseline", LEFT, WIDTH - RIGHT, y(0.0))]
    if total:
        guides.append(Guide("response", LEFT, WIDTH - RIGHT, y(100 * (RESPONSE_FACTOR - 1))))
    for before, after, nadir, limit in steps if total else ():
        guides += [Guide("nadir", x(before), x(after), y(nadir)), Guide("progression", x(before), x(after), y(limit))]
    lines = tuple(
        Line(
            label,
            number,
            tuple(
                Dot(x(when), y(change), f"{lesion.id}, day {minus(when)}: {size:.1f} mm ({signed(change)} %)")
                for when, change, size in points
            ),
            x(points[-1][0]) + 8,
            end,
        )
        for number, ((lesion, label, points), end) in enumerate(zip(series, ends, strict=False))
    )
    if total:
        dots = tuple(
            Dot(x(when), y(change), f"sum, day {minus(when)}: {size:.1f} mm ({signed(change)} %)")
            for when, change, size in sums
        )
        lines += (Line("sum", SUM_STYLE, dots, dots[-1].x + 8, ends[-1]),)
    said = "; ".join(line.dots[-1].text for line in lines)
    return Chart(
        title="Each lesion and the sum of targets, change of diameter",
        description=f"Line chart of each lesion's diameter in % of its baseline. Latest: {said}.",
        unit="%",
        x_ticks=x_ticks,
        y_ticks=tuple(Tick(y(value), signed(value)) for value in ticks),
        lines=lines,
        guide_labels=(),
        guides=tuple(guides),
        start_x=_start(analysis, x),
    )


def _start(analysis: Analysis, x: _Scale) -> float | None:
    """Return where the treatment starts, None where that is unknown or outside the chart."""
    day = analysis.treatment_start_day
    return x(day) if day is not None and x.low <= day <= x.high else None


@dataclass(frozen=True)
class Bar:
    """One step of the evidence: from where to where on the scale of log-odds, with its bounds. In % of the width."""

    name: str
    start: float
    end: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Waterfall:
    """How the evidence carries the prior to the result, all places in % of the width.

    ``steps`` has one entry per evidence item of the flag, None where it carries no weight. ``remainder`` is what the items do not
    add up to, in log-odds.
    """

    zero: float
    prior: Bar
    result: Bar
    steps: tuple[Bar | None, ...]
    remainder: Bar | None
    remainder_log_odds: float


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)), with p kept off 0 and 1 by 1e-4."""
    kept = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(kept / (1 - kept))


def waterfall(flag: Flag) -> Waterfall | None:
    """Return the steps from a flag's prior to its probability; None where either is not known."""
    if flag.prior is None or flag.probability is None:
        return None
    prior, result = log_odds(flag.prior), log_odds(flag.probability)
    reached = prior
    steps: list[tuple[float, float, float | None, float | None] | None] = []
    for item in flag.evidence:
        if item.use != "used":
            steps.append(None)
            continue
        bounds = [None if value is None else reached + value for value in (item.lower, item.upper)]
        steps.append((reached, reached + item.log_odds, bounds[0], bounds[1]))
        reached += item.log_odds
    places = [0.0, prior, result, reached]
    for step in steps:
        places += [value for value in step or () if value is not None]
    margin = 0.04 * (max(places) - min(places)) + 0.05
    scale = _Scale(min(places) - margin, max(places) + margin, 0.0, 100.0)

    def bar(name: str, start: float, end: float, lower: float | None = None, upper: float | None = None) -> Bar:
        return Bar(
            name,
            scale(start),
            scale(end),
            None if lower is None else scale(lower),
            None if upper is None else scale(upper),
        )

    remainder = result - reached
    return Waterfall(
        zero=scale(0.0),
        prior=bar(
            "prior",
            prior,
            prior,
            *(None if item is None else log_odds(item) for item in (flag.prior_lower, flag.prior_upper)),
        ),
        result=bar(
            "result", result, result, *(None if item is None else log_odds(item) for item in (flag.lower, flag.upper))
        ),
        steps=tuple(
            None if step is None else bar(item.name, *step) for item, step in zip(flag.evidence, steps, strict=True)
        ),
        remainder=bar("remainder", reached, result) if abs(remainder) >= 0.02 else None,
        remainder_log_odds=remainder,
    )
