"""What is known about a training run, laid out as reporting checklists ask for it, with what only its authors can add left open.

METRICS (B. Kocak et al., doi:10.1186/s13244-023-01572-w) is scored with its published weights: an item that is not known counts as
not met, so that the score is a floor. TRIPOD+AI (doi:10.1136/bmj-2023-078378) and CLEAR (doi:10.1186/s13244-023-01415-8) are given by their numbers;
the words here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .assess import Assessment
from .recipes import Recipe

Status = Literal["met", "not met", "open", "does not apply"]


@dataclass(frozen=True)
class ChecklistItem:
    """An item: what is known about it, or what its authors have to add where it is open. ``weight`` is 0 outside METRICS."""

    checklist: Literal["TRIPOD+AI", "CLEAR", "METRICS"]
    item: str
    topic: str
    status: Status
    text: str
    weight: float = 0.0


@dataclass(frozen=True)
class Checklists:
    """All items, and the METRICS score in percent of what applies."""

    items: tuple[ChecklistItem, ...]
    metrics_percent: float
    metrics_open: int


def checklists(recipe: Recipe, result: Assessment) -> Checklists:
    """Fill in what a training run knows."""
    metrics = tuple(_metrics(recipe, result))
    applicable = [item for item in metrics if item.status != "does not apply"]
    reached = sum(item.weight for item in applicable if item.status == "met")
    return Checklists(
        (*_tripod(recipe, result), *_clear(recipe, result), *metrics),
        100 * reached / sum(item.weight for item in applicable),
        sum(item.status == "open" for item in metrics),
    )


def _metrics(recipe: Recipe, result: Assessment) -> list[ChecklistItem]:
    multi = len(result.centres) > 1
    compared = result.comparison is not None
    enough = result.events_per_variable >= 10
    calibrated = result.performance.calibration_slope is not None
    single = len({image.modality for image in recipe.images}) <= 1
    rows: tuple[tuple[float, str, Status, str], ...] = (
        (0.0368, "Adherence to a checklist", "met", "this table"),
        (0.0735, "Eligibility criteria of a representative population", "open", "state who was included and who was not"),
        (0.0919, "Reference standard of high quality", "open", f"state how `{recipe.label}` was determined: {recipe.endpoint}"),
        (0.0438, "More than one centre", "met" if multi else "open", f"{len(result.centres)} centres in the table" if multi else "no column `centre`"),
        (0.0292, "Images that are made in clinical routine", "open", "state the source of the images"),
        (0.0438, "Imaging protocol with parameters", "open", "add quality.csv of the cohort"),
        (0.0292, "Interval between imaging and reference standard", "open", "state it"),
        (0.0337, "Segmentation described", "open", "state who or what drew the lesions"),
        (0.0225, "Automatic segmentation evaluated", "open", "if lesions were drawn or propagated automatically, state how that was checked"),
        (0.0112, "Test masks by a single reader or tool", "open", "state it"),
        (0.0622, "Image processing described", "open", "name the extraction preset"),
        (0.0311, "Standardised extraction software", "open", "met where the features are those of this software's presets"),
        (0.0415, "Extraction parameters reported", "open", "add the preset file"),
        (0.0200, "Features that are not robust removed", "met" if result.stability_filter else "open", result.stability_filter or "no file of repeated readings was given"),
        (0.0200, "Redundant features removed", "met" if recipe.selection.redundancy < 1 else "not met", f"rank correlation above {recipe.selection.redundancy:g}, inside the folds"),
        (0.0300, "Dimension suits the size of the data", "met" if enough else "not met", f"{result.events_per_variable:.1f} events per variable"),
        (0.0200, "Robustness of end-to-end deep learning", "does not apply", "no deep learning"),
        (0.0599, "Data parted properly", "met", result.scheme),
        (0.0300, "Confounders handled", "met" if result.harmonisation else "open", result.harmonisation or "nothing was harmonised; look at the subgroups, and state what scanners and centres differ in"),
        (0.0352, "Suitable figures of performance", "met", f"{result.performance.metric}, with calibration where there is a probability"),
        (0.0234, "Uncertainty considered", "met", "95 % intervals from drawing patients"),
        (0.0176, "Calibration assessed", "met" if calibrated else "not met", "slope, intercept, curve, Brier score" if calibrated else "not for survival"),
        (0.0117, "One modality, or proof that more are needed", "met" if single else "open", ", ".join(sorted({image.modality for image in recipe.images})) or "as in the table"),
        (0.0293, "Compared with a way without radiomics", "met" if compared else "not met", "against the clinical columns" if compared else "give clinical columns"),
        (0.0176, "Compared with a simple statistical model", "met" if compared else "not met", "ridge-logistic regression of clinical columns" if compared else "give clinical columns"),
        (0.0375, "Internal testing", "met", result.scheme),
        (0.0749, "External testing", "met" if result.kind == "external" else "not met", "run `validate` on another centre's table"),
        (0.0075, "Data available", "open", "state it"),
        (0.0075, "Code available", "met", "this software"),
        (0.0075, "Model available", "open", "met where the bundle is published"),
    )  # fmt: skip
    return [
        ChecklistItem("METRICS", str(number), topic, status, text, weight)
        for number, (weight, topic, status, text) in enumerate(rows, start=1)
    ]


def _tripod(recipe: Recipe, result: Assessment) -> list[ChecklistItem]:
    found, external = result.performance.discrimination, result.kind == "external"
    centres = ", ".join(f"{item.name} {item.discrimination:.2f}" for item in result.centres)
    groupings = len({item.attribute for item in result.subgroups})
    rows: tuple[tuple[str, str, Status, str], ...] = (
        ("1", "Title", "met", f"{'External evaluation' if external else 'Development and internal validation'} of: {recipe.title}"),
        ("2", "Abstract", "open", "write it"),
        ("3a", "Healthcare context", "open", f"the system rebuilt is {recipe.publication.citation}"),
        ("3b-3c", "Target population and users, known inequalities", "open", f"published for: {recipe.population}"),
        ("4", "Objectives", "open", "write them"),
        ("5a-5b", "Data: sources, dates", "open", f"{result.table}; say where and when it was gathered"),
        ("6a-6c", "Participants: setting, eligibility, treatments", "open", "state them"),
        ("7", "Data preparation", "met", "see the notes on the table"),
        ("8a-8c", "Outcome: definition, assessors, blinding", "open", f"{recipe.endpoint}; say how it was determined and by whom"),
        ("9a", "Choice of predictors", "met", f"{result.candidates} candidate columns: {recipe.measured}"),
        ("9b-9c", "Predictors: definition, assessors", "open", "add the extraction preset; say who drew the lesions"),
        ("10", "Sample size", "met", f"{result.patients} patients, {result.events} events, {result.events_per_variable:.1f} events per variable"),
        ("11", "Missing data", "met", "median of the fitting rows, inside the folds; columns left out are in the notes"),
        ("12a", "How the data were used", "met", result.scheme),
        ("12b", "Handling of predictors", "met", "tails cut at the 1st and 99th percentile, mean 0 and deviation 1 of the fitting rows"),
        ("12c", "Type of model, all steps, tuning, internal validation", "met", f"{', '.join(recipe.members)}; selection: {recipe.selection.method}; settings chosen in inner folds"),
        ("12d", "Heterogeneity across clusters", "met" if centres else "open", "each centre by itself" if centres else "give a column `centre`"),
        ("12e", "Measures of performance", "met", f"{result.performance.metric}" + (", calibration slope, intercept and curve, Brier score, decision curve" if result.performance.calibration_slope else "")),
        ("12f", "Updating of the model", "does not apply", "no model was updated"),
        ("12g", "How predictions were calculated", "met" if external else "does not apply", "by the bundle, as it is" if external else "for evaluations"),
        ("13", "Class imbalance", "met", "no resampling; probabilities recalibrated inside the folds"),
        ("14", "Fairness", "met" if groupings else "open", f"figures inside {groupings} groupings of patients" if groupings else "give clinical columns to compare subgroups"),
        ("15", "Model output", "met", "a probability, without a threshold" if result.performance.metric == "auc" else "a log hazard"),
        ("16", "Training and evaluation compared", "open" if external else "met", "state how the two populations differ" if external else "the same table; nested folds"),
        ("17", "Ethical approval", "open", "state it"),
        ("18a-18d", "Funding, interests, protocol, registration", "open", "state them"),
        ("18e", "Data sharing", "open", "state it"),
        ("18f", "Code sharing", "met", "this software, with its version and the seed in provenance.json"),
        ("19", "Patient and public involvement", "open", "state it"),
        ("20a-20b", "Participants in the results: flow, characteristics", "open", "add them"),
        ("20c", "Distribution of predictors against development", "met" if external else "does not apply", "columns with many rows outside the training range are in the notes" if external else "for evaluations"),
        ("21", "Participants and events in each analysis", "met", f"{result.rows} rows of {result.patients} patients, {result.events} events"),
        ("22", "Full model", "met", "model.json of the bundle"),
        ("23a", "Performance with intervals, subgroups", "met", f"{result.performance.metric} {found.value:.3f} ({found.lower:.3f} to {found.upper:.3f})"),
        ("23b", "Performance across clusters", "met" if centres else "open", centres or "give a column `centre`"),
        ("24", "Results of updating", "does not apply", "no model was updated"),
        ("25", "Interpretation", "open", "write it"),
        ("26", "Limitations", "open", "see the limits on the card"),
        ("27a", "Unavailable or poor input data", "met", "an empty input counts at its median and is named; with more than half of them empty, or a quarter outside the training range, the flags get no answer"),
        ("27b-27c", "Interaction and expertise of users, next steps", "open", "state them; research use only"),
    )  # fmt: skip
    return [ChecklistItem("TRIPOD+AI", number, topic, status, text) for number, topic, status, text in rows]


def _clear(recipe: Recipe, result: Assessment) -> list[ChecklistItem]:
    compared = result.comparison is not None
    rows: tuple[tuple[str, str, Status, str], ...] = (
        ("1-3", "Title, abstract, keywords", "open", "write them"),
        ("4-6", "Introduction", "open", f"background, rationale, objectives; the system rebuilt is {recipe.publication.citation}"),
        ("7-12", "Study design", "open", "checklists, ethics, sample size, nature of the study, eligibility, flow of the method"),
        ("13-14, 16", "Data source, overlap, imaging protocol", "open", f"{result.table}; add quality.csv of the cohort"),
        ("15", "Data split", "met", result.scheme),
        ("17-18", "Non-radiomic predictors, reference standard", "open", f"state how `{recipe.label}` was determined: {recipe.endpoint}"),
        ("19-20", "Segmentation", "open", "strategy, and who drew"),
        ("21-24", "Pre-processing", "open", "the extraction preset names resampling, discretisation and image types"),
        ("25-28", "Feature extraction", "met", "; ".join(group.title for group in recipe.features) or "all features of the table"),
        ("29", "Missing data", "met", "median of the fitting rows, inside the folds"),
        ("30", "Class imbalance", "met", "no resampling; probabilities recalibrated inside the folds"),
        ("31", "Reliability over segmentations", "met" if result.stability_filter else "open", result.stability_filter or "no file of repeated readings was given"),
        ("32", "Scaling and harmonisation", "met", result.harmonisation or "mean 0 and deviation 1 of the fitting rows; nothing was harmonised"),
        ("33", "Dimension reduction", "met", f"rank correlation above {recipe.selection.redundancy:g} thinned, selection: {recipe.selection.method}, all inside the folds"),
        ("34-35, 37", "Algorithm, tuning, model selection", "met", f"{', '.join(recipe.members)}; settings chosen in inner folds"),
        ("36", "Confounders", "met" if result.harmonisation else "open", result.harmonisation or "state what scanners and centres differ in"),
        ("38", "Testing", "met" if result.kind == "external" else "open", result.scheme if result.kind == "external" else "internal so far; run `validate` on another centre's table"),
        ("39-40", "Figures and their uncertainty", "met", f"{result.performance.metric}, calibration where there is a probability; 95 % intervals from drawing patients"),
        ("41-42", "Comparison with a non-radiomic model", "met" if compared else "open", "against the clinical columns, difference with its interval" if compared else "give clinical columns"),
        ("43", "Interpretability", "met" if result.columns else "open", "importance and stability of columns"),
        ("44-45", "Characteristics and flow of patients", "open", "add them"),
        ("46", "Statistics of the features", "open", "the columns of the model are in the report; add features.csv of the cohort"),
        ("47-48", "Performance, and against non-radiomic models", "met" if compared else "open", "this report"),
        ("49-52", "Discussion", "open", "write it"),
        ("53-58", "Open science", "open", "share data, feature tables, preset, the bundle with its hashes, and the recipe"),
    )  # fmt: skip
    return [ChecklistItem("CLEAR", number, topic, status, text) for number, topic, status, text in rows]
