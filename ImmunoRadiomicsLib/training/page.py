"""The page of a training run or an external validation: one HTML file that opens offline."""

from __future__ import annotations

import math
from pathlib import Path

from .. import SOURCE_VERSION
from ..errors import MissingDependencyError
from ..files import write_text
from ..resources import PACKAGE
from .assess import Assessment
from .checklists import Checklists
from .metrics import Interval
from .plots import Series, bars, chart
from .recipes import Recipe, learner_titles

RESEARCH_USE_ONLY = "Research use only. Not a medical device; not for diagnosis or for decisions about treatment."
_MOST_COLUMNS = 30


def write_validation_page(recipe: Recipe, result: Assessment, lists: Checklists | None, path: Path) -> None:
    """Write the page.

    Raises
    ------
    MissingDependencyError
        If jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError("The validation report needs the package jinja2; pip install jinja2.") from error
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((PACKAGE / "training" / "validation.html.jinja").read_text(encoding="utf-8"))
    shown = [
        (item.name, item.importance, f"{item.importance:.3f}; {item.stability:.0%} of folds")
        for item in result.columns[:_MOST_COLUMNS]
    ]
    text = template.render(
        title=f"{recipe.title}: {'external validation' if result.kind == 'external' else 'training and internal validation'}",
        notice=RESEARCH_USE_ONLY,
        css=(PACKAGE / "report" / "report.css").read_text(encoding="utf-8"),
        recipe=recipe,
        learner=learner_titles(recipe)[:1].upper() + learner_titles(recipe)[1:],
        result=result,
        charts=_charts(result),
        importance=bars("Importance of columns", shown) if shown else "",
        lists=lists,
        number=_number,
        range=_range,
        version=SOURCE_VERSION,
    )
    write_text(path, text)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _range(item: Interval, digits: int = 3) -> str:
    return f"({_number(item.lower, digits)} to {_number(item.upper, digits)})"


def _charts(result: Assessment) -> list[tuple[str, str]]:
    made, found = [], result.performance
    diagonal = Series("", ((0.0, 0.0), (1.0, 1.0)), 6, "3 4")
    if found.roc:
        line = Series("", tuple((point.x, point.y) for point in found.roc))
        made.append(
            (
                "ROC curve",
                chart(
                    "ROC curve", (diagonal, line), x="1 - specificity", y="sensitivity", x_range=(0, 1), y_range=(0, 1)
                ),
            )
        )
    if found.calibration:
        dots = Series(
            "",
            tuple((item.predicted, item.observed) for item in found.calibration),
            dots=True,
            ranges=tuple((item.lower, item.upper) for item in found.calibration),
        )
        made.append(
            (
                "Calibration",
                chart(
                    "Calibration",
                    (diagonal, dots),
                    x="predicted probability",
                    y="observed share",
                    x_range=(0, 1),
                    y_range=(0, 1),
                ),
            )
        )
    if found.decision:
        low = min(0.0, *(item.model for item in found.decision))
        high = max(0.01, *(max(item.model, item.all) for item in found.decision))
        lines = [
            Series("model", tuple((item.threshold, item.model) for item in found.decision)),
            Series("all positive", tuple((item.threshold, item.all) for item in found.decision), 1, "6 3"),
            Series("none", ((0.0, 0.0), (0.8, 0.0)), 6, "2 3"),
        ]
        clinical = tuple((item.threshold, item.clinical) for item in found.decision if item.clinical is not None)
        if clinical:
            lines.append(Series("clinical", clinical, 2, "8 3 2 3"))
        made.append(
            (
                "Decision curve",
                chart(
                    "Decision curve",
                    lines,
                    x="threshold probability",
                    y="net benefit",
                    x_range=(0, 0.8),
                    y_range=(low, high),
                ),
            )
        )
    if result.learning_curve:
        points = tuple((point.x, point.y) for point in result.learning_curve)
        made.append(
            (
                "Learning curve",
                chart(
                    "Learning curve",
                    (Series("", points), Series("", points, dots=True)),
                    x="patients fitted on",
                    y=found.metric,
                    x_range=(0, max(px for px, _ in points)),
                    y_range=(0.3, 1.0),
                ),
            )
        )
    return made
