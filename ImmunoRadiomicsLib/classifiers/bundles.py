"""Bundles: a folder with a card and a model, verified before use.

``card.json`` says what the model is for, what it was made from and how well it did; it names every model file with its
SHA-256. A bundle is refused, with every reason, when a file is missing or changed, the card or the model does not have the
expected form, was written by a later version, uses an input that the card does not declare, or cites a source that the card does not list.
Models are data, never code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from ..errors import InputError
from ..files import sha256_of, write_text
from ..resources import resource
from ..serialise import from_json, json_schema
from .model import MODEL_VERSION, EvidenceModel, Prior, RatioTerm, TestTerm
from .trained import KNOWN_TYPES, TRAINED_VERSION, Predictor, TrainedModel, load_estimator, model_problems

CARD_VERSION = "1.0"
CARD_FILE = "card.json"
EVIDENCE_FILE = "model.json"
# A card or a model in JSON is read into memory as a whole; the largest that is trained here takes a hundredth of this.
LARGEST_JSON_BYTES = 50_000_000
# The priors that each question chooses from.
_PRIORS_NEEDED = {"pseudoprogression": ("any", "melanoma"), "pneumonitis": ("trial", "real-world")}


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: ``low`` and ``high`` are the range it was made for; None where there is no bound."""

    name: str
    title: str
    unit: str
    low: float | None
    high: float | None
    required: bool
    source: str


@dataclass(frozen=True)
class Source:
    """Where numbers come from: ``reference`` is a DOI, a PMID or the file they were fitted on."""

    id: str
    citation: str
    reference: str


@dataclass(frozen=True)
class Training:
    """The patients (or lesions) and events that the fitted part was made from; None where nothing was fitted."""

    patients: int | None
    events: int | None
    description: str
    source: str


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Performance:
    """How well a model did, and how that was found out."""

    auc: Figure
    calibration_slope: float | None
    calibration_intercept: float | None
    brier: float | None
    scheme: str


@dataclass(frozen=True)
class Validation:
    """Performance inside and outside the fitting data; None where it was not or cannot be measured."""

    internal: Performance | None
    external: Performance | None


@dataclass(frozen=True)
class Card:
    """What a bundle is, in the words and numbers that a user must see.

    ``types`` are those that its skops files may hold. ``simulated``: it was trained on simulated patients and is not for others.
    """

    card_version: str
    id: str
    version: str
    title: str
    flag: Literal["pseudoprogression", "hyperprogression", "pneumonitis", "response", "survival", "biomarker"]
    kind: Literal["evidence", "linear", "sklearn"]
    purpose: str
    endpoint: str
    population: str
    inputs: tuple[InputSpec, ...]
    sources: tuple[Source, ...]
    training: Training
    validation: Validation
    reported: str
    limits: tuple[str, ...]
    licence: str
    sha256: dict[str, str]
    types: tuple[str, ...] = ()
    simulated: bool = False

    def source(self, identifier: str) -> Source:
        """Return a source by id; KeyError if there is none."""
        for item in self.sources:
            if item.id == identifier:
                return item
        raise KeyError(identifier)

    def cite(self, identifier: str) -> str:
        """Return a source as one line."""
        source = self.source(identifier)
        return f"{source.citation} ({source.reference})"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: an evidence model, or for the trained kinds a predictor."""

    folder: Path
    card: Card
    model: EvidenceModel | None
    predictor: Predictor | None = None


def shipped_bundles() -> tuple[Path, ...]:
    """Return the folders of the bundles that come with the software."""
    return tuple(sorted(path.parent for path in resource("Classifiers").glob(f"*/{CARD_FILE}")))


def list_bundles(folder: Path | None = None) -> tuple[Bundle, ...]:
    """Load every bundle of a folder, by default the shipped ones, in the order of their ids.

    Raises
    ------
    InputError
        If one of them is damaged.
    """
    paths = shipped_bundles() if folder is None else sorted(item.parent for item in folder.glob(f"*/{CARD_FILE}"))
    return tuple(load_bundle(path) for path in paths)


def load_bundle(path: Path) -> Bundle:
    """Read and verify a bundle folder.

    Raises
    ------
    InputError
        If it is damaged, unsafe or from a later version; every reason that can be told at once is listed.
    """
    path = Path(path)
    card_path = path / CARD_FILE
    card = _read(Card, card_path, "card_version", CARD_VERSION)
    problems = [f"{card_path}: {text}" for text in _card_problems(card)]
    problems += _file_problems(path, card)
    if problems:
        raise InputError(problems)
    model_path = path / EVIDENCE_FILE
    if card.kind != "evidence":
        return Bundle(path, card, None, _load_predictor(path, card))
    model = _read(EvidenceModel, model_path, "model_version", MODEL_VERSION)
    if problems := [f"{model_path}: {text}" for text in _model_problems(card, model)]:
        raise InputError(problems)
    return Bundle(path, card, model)


def _load_predictor(path: Path, card: Card) -> Predictor:
    model_path = path / EVIDENCE_FILE
    model: TrainedModel = _read(TrainedModel, model_path, "model_version", TRAINED_VERSION)
    problems = model_problems(model, [item.name for item in card.inputs], list(card.sha256))
    if card.kind == "linear" and any(item.file is not None for item in model.members):
        problems.append("the card says linear, and a member is no weighted sum.")
    if problems:
        raise InputError([f"{model_path}: {text}" for text in problems])
    files = [item.file for item in model.members if item.file is not None]
    return Predictor(model, {name: load_estimator(path / name, card.types, len(model.columns)) for name in files})


def seal_bundle(path: Path) -> None:
    """Write the SHA-256 of every model file of a bundle into its card.

    Raises
    ------
    InputError
        If the card cannot be read, or the folder has no model file.
    """
    card_path = path / CARD_FILE
    card = _parse(card_path)
    files = sorted(item.name for item in path.iterdir() if item.is_file() and item.name != CARD_FILE)
    if not files:
        raise InputError(f"{path}: the bundle has no model file; put it beside {CARD_FILE}.")
    card["sha256"] = {name: sha256_of(path / name) for name in files}
    write_text(card_path, json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def bundle_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas of a bundle's files under the names of their schema files."""
    return {
        "card.schema.json": json_schema(
            Card, title=CARD_FILE, description="What a bundle is, in the words and numbers that a user must see."
        ),
        "evidence-model.schema.json": json_schema(
            EvidenceModel, title=EVIDENCE_FILE, description="Prior, contributions and rules of one flag."
        ),
        "trained-model.schema.json": json_schema(
            TrainedModel, title=EVIDENCE_FILE, description="A model that was fitted to a table."
        ),
    }


def _read(kind: Any, path: Path, version_key: str, version: str) -> Any:
    data = _parse(path)
    written = data.get(version_key)
    if isinstance(written, str) and _is_later(written, version):
        raise InputError(
            f"{path}: {version_key} is {written}, this software reads up to {version}; install a newer version of it."
        )
    if written != version:
        raise InputError(f"{path}: {version_key} is {written!r}; {version!r} is needed.")
    return from_json(kind, data, str(path))


def _parse(path: Path) -> dict[str, Any]:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is not a number")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text)

    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no file; a bundle is a folder with {CARD_FILE}.")
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise InputError(
                f"{path}: holds more than {LARGEST_JSON_BYTES // 1_000_000} MB, which no card or model does."
            )
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse, parse_float=finite)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); a bundle is a folder with {CARD_FILE}."
        ) from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no valid JSON ({error}); fetch the bundle again.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a JSON object is needed.")
    return data


def _is_later(written: str, known: str) -> bool:
    try:
        return tuple(map(int, written.split("."))) > tuple(map(int, known.split(".")))
    except ValueError:
        return False


def _card_problems(card: Card) -> Iterator[str]:
    names = [item.name for item in card.inputs]
    sources = [item.id for item in card.sources]
    for what, values in (("input", names), ("source", sources)):
        for value in sorted({item for item in values if values.count(item) > 1}):
            yield f"the {what} {value!r} is listed twice."
    for item in card.sources:
        if not item.citation.strip() or not item.reference.strip():
            yield f"the source {item.id!r} has no citation or no reference."
    for spec in card.inputs:
        if spec.source not in sources:
            yield f"the input {spec.name!r} cites {spec.source!r}, which is not among the sources."
        if spec.low is not None and spec.high is not None and spec.low > spec.high:
            yield f"the input {spec.name!r} has low {spec.low} above high {spec.high}."
    if card.training.source not in sources:
        yield f"the training data cite {card.training.source!r}, which is not among the sources."
    yield from _figure_problems(card)
    if EVIDENCE_FILE not in card.sha256:
        yield f"sha256 does not name {EVIDENCE_FILE}."
    for name in sorted(set(card.types) - KNOWN_TYPES):
        yield f"types names {name!r}, which is no part of any model that this software fits."


def _figure_problems(card: Card) -> Iterator[str]:
    """Yield figures that cannot be: a trained bundle weighs by its AUC, so that one above 1 would count more than all evidence."""
    patients, events = card.training.patients, card.training.events
    if any(value is not None and value < 0 for value in (patients, events)):
        yield f"training has {patients} patients and {events} events."
    for name, found in (("internal", card.validation.internal), ("external", card.validation.external)):
        if found is None:
            continue
        auc = found.auc
        if not (0 <= auc.lower <= auc.upper <= 1 and 0 <= auc.value <= 1):
            yield f"the {name} AUC {auc.value:g} ({auc.lower:g} to {auc.upper:g}) is none between 0 and 1."
        if found.brier is not None and not 0 <= found.brier <= 1:
            yield f"the {name} Brier score {found.brier:g} is none between 0 and 1."


def _file_problems(folder: Path, card: Card) -> Iterator[str]:
    if not card.sha256:
        yield f"{folder / CARD_FILE}: sha256 names no model file."
    for name, expected in card.sha256.items():
        path = folder / name
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
            yield f"{folder / CARD_FILE}: sha256 names {name!r}; a plain file name is needed."
        elif path.is_symlink() or not path.is_file():
            yield f"{path}: is named by the card and missing; fetch the bundle again."
        elif sha256_of(path) != expected:
            yield f"{path}: was changed after the card was sealed (its SHA-256 differs); fetch the bundle again."


def _model_problems(card: Card, model: EvidenceModel) -> Iterator[str]:
    if model.flag != card.flag:
        yield f"the model answers {model.flag}, the card {card.flag}."
    declared = {item.name for item in card.inputs}
    for name in model.inputs:
        if name not in declared:
            yield f"the model reads {name!r}, which the card does not declare as an input."
    sources = {item.id for item in card.sources}
    parts: list[Any] = [*model.priors, *model.terms, *model.tests, *model.limits, *model.context, model.levels]
    parts += [item for item in (model.regression, model.shrinkage, model.measurement_error) if item is not None]
    for part in parts:
        if part.source not in sources:
            yield f"{getattr(part, 'id', type(part).__name__)} cites {part.source!r}, which the card does not list."
    yield from _number_problems(model)
    yield from _need_problems(model)
    if model.regression is not None:
        yield from _regression_problems(model)


def _need_problems(model: EvidenceModel) -> Iterator[str]:
    """Yield what the question of a model needs and the model does not have."""
    regression = model.regression
    priors = [item.id for item in model.priors]
    for name in _PRIORS_NEEDED.get(model.flag, ()):
        if name not in priors:
            yield f"a model of {model.flag} needs the prior {name!r}."
    if model.flag == "pseudoprogression" and (regression is None or "growth" not in regression.inputs):
        yield "a model of pseudoprogression needs a regression on 'growth'."
    if model.flag == "hyperprogression" and (regression is None or regression.intercept is None):
        yield "a model of hyperprogression needs a regression with an intercept, which is its prior."
    if model.flag != "pneumonitis" and model.measurement_error is None:
        yield f"a model of {model.flag} needs the measurement error of a diameter."
    if priors and regression is not None and regression.intercept is not None:
        yield "the priors and the intercept of the regression both say where the answer starts."


def _number_problems(model: EvidenceModel) -> Iterator[str]:
    parts: tuple[tuple[str, Sequence[Prior | RatioTerm | TestTerm]], ...] = (
        ("prior", model.priors),
        ("term", model.terms),
        ("test", model.tests),
    )
    for what, items in parts:
        names = [item.id for item in items]
        for name in sorted({item for item in names if names.count(item) > 1}):
            yield f"the {what} {name!r} is there twice."
    probabilities = [(item.lower, item.probability, item.upper) for item in model.priors]
    probabilities += [(item.lower, item.probability, item.upper) for item in model.limits]
    for lower, probability, upper in probabilities:
        if not 0 < lower <= probability <= upper < 1:
            yield f"{lower}, {probability}, {upper} are no rising probabilities between 0 and 1."
    for term in model.terms:
        bounds = [value for value in (term.lower, term.ratio, term.upper) if value is not None]
        if min(bounds) <= 0 or bounds != sorted(bounds):
            yield f"{term.id}: the ratio and its bounds must be positive and in order."
        if not term.adjusted and model.shrinkage is None:
            yield f"{term.id}: is not adjusted, and the model has no shrinkage."
        if term.form == "per unit" and (term.origin is None or term.direction is None):
            yield f"{term.id}: a ratio per unit needs an origin and a direction."
        if term.measure == "risk ratio" and not _gives_risks(term, bounds):
            yield f"{term.id}: a ratio of risks needs the risk at which it was measured, below 1 before and after."
        if term.ceiling_ratio is not None and term.ceiling_ratio <= 1:
            yield f"{term.id}: the ceiling is a ratio above 1."
    for test in model.tests:
        if not (0 <= test.hits <= test.cases and 0 <= test.rejections <= test.others and test.cases and test.others):
            yield f"{test.id}: the counts do not fit together."
    shrinkage, error, levels = model.shrinkage, model.measurement_error, model.levels
    if shrinkage is not None and not (0 <= shrinkage.factor <= 1 and shrinkage.standard_deviation >= 0):
        yield "the shrinkage is no factor between 0 and 1 with a standard deviation."
    if error is not None and error.sd_log_diameter < 0:
        yield "the measurement error is below 0."
    if not 0 <= levels.unlikely_probability < levels.likely_probability <= 1:
        yield "the levels are no rising probabilities between 0 and 1."


def _gives_risks(term: RatioTerm, ratios: Sequence[float]) -> bool:
    return term.at_risk is not None and all(0 < term.at_risk * ratio < 1 for ratio in (1.0, *ratios))


def _regression_problems(model: EvidenceModel) -> Iterator[str]:
    regression = model.regression
    if regression is None:
        return
    size = len(regression.inputs)
    lists = (
        regression.titles,
        regression.coefficients,
        regression.origins,
        regression.spreads,
        regression.upper_limits,
    )
    if any(len(item) != size for item in lists):
        yield "the lists of the regression differ in length from its inputs."
    if any(value < 0 for value in regression.spreads):
        yield "a spread of the regression is below 0."
    if not regression.distance_inputs:
        yield "the regression names no distance inputs, so nobody far outside would be noticed."
        return
    for name, matrix, width in (
        ("covariance", regression.covariance, size + (regression.intercept is not None)),
        ("scatter", regression.scatter, len(regression.distance_inputs)),
    ):
        if len(matrix) != width or any(len(row) != width for row in matrix):
            yield f"the {name} of the regression is not {width} x {width}."
            continue
        values = np.array(matrix, dtype=float)
        if not np.allclose(values, values.T) or not math.isfinite(values.sum()) or np.linalg.eigvalsh(values)[0] <= 0:
            yield f"the {name} of the regression is not symmetric and positive definite."
    if len(regression.location) != len(regression.distance_inputs):
        yield "the location of the regression differs in length from its distance inputs."
    if not set(regression.distance_inputs) <= set(regression.inputs):
        yield "a distance input of the regression is not among its inputs."
