"""What a patient is: a study of time points with images, contours, a treatment and clinical facts."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import math
import os
import re
import reprlib
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from .errors import InputError
from .files import write_text

LesionRole = Literal["target", "non-target"]

_SHOWN_CHARACTERS = 120

# RECIST 1.1 asks for a baseline at most four weeks before treatment (doi 10.1016/j.ejca.2008.10.026, section 3.1).
MAXIMUM_DAYS_FROM_BASELINE_TO_TREATMENT = 28

# What is possible in a living adult, not what is normal: values outside are mistakes, most often of unit.
_CLINICAL_LIMITS: dict[str, tuple[float, float, str]] = {
    "ecog": (0, 4, "the ECOG performance status is 0 to 4"),
    "ldh": (20, 30_000, "LDH is given in U/L"),
    "ldh_uln": (80, 1_000, "the upper limit of normal of LDH is given in U/L"),
    "albumin_g_l": (10, 70, "albumin is given in g/L; multiply g/dL by 10"),
    "neutrophils": (0, 200, "cells are given in 10^9/L; divide cells per microlitre by 1000"),
    "leukocytes": (0, 500, "cells are given in 10^9/L; divide cells per microlitre by 1000"),
    "lymphocytes": (0, 400, "cells are given in 10^9/L; divide cells per microlitre by 1000"),
    "metastatic_sites": (0, 40, "this is a number of organs"),
    "age": (0, 120, "age is given in years"),
    "tmb": (0, 2_000, "tumour mutational burden is given in mutations per megabase"),
    "pdl1_percent": (0, 100, "PD-L1 is given in %"),
}

# A tube voltage in kV or a slice outside these is a mistake of unit or of column.
_ACQUISITION_LIMITS: dict[str, tuple[float, float, str]] = {
    "kvp": (40, 200, "the tube voltage is given in kV"),
    "slice_thickness_mm": (0.1, 20, "the slice thickness is given in mm"),
}


def clinical_limits() -> Mapping[str, tuple[float, float, str]]:
    """Return what is possible in a living adult, by field of ``Clinical``: lowest, highest, and the unit in words."""
    return MappingProxyType(_CLINICAL_LIMITS)


def acquisition_limits() -> Mapping[str, tuple[float, float, str]]:
    """Return what is possible of a CT, by field of ``Acquisition``: lowest, highest, and the unit in words."""
    return MappingProxyType(_ACQUISITION_LIMITS)


# The entries of a time point that are paths.
TIMEPOINT_FILES = ("ct", "segmentation", "pet", "mr", "transform", "start_transform")


@dataclass(frozen=True)
class Treatment:
    """The immunotherapy. Everything is optional."""

    start: datetime.date | None = None
    agents: tuple[str, ...] = ()
    regimen: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Clinical:
    """What the images cannot tell. Everything is optional; None means "not known", never "no".

    Units: LDH and its upper limit of normal in U/L, albumin in g/L, blood cells in 10^9/L, tumour mutational burden in
    mutations/Mb, PD-L1 tumour proportion score in %.
    """

    ecog: int | None = None
    ldh: float | None = None
    ldh_uln: float | None = None
    albumin_g_l: float | None = None
    neutrophils: float | None = None
    leukocytes: float | None = None
    lymphocytes: float | None = None
    prior_thoracic_rt: bool | None = None
    ild: bool | None = None
    smoking: Literal["never", "former", "current"] | None = None
    histology: str | None = None
    ctdna_change: Literal["favourable", "unfavourable"] | None = None
    metastatic_sites: int | None = None
    liver_metastases: bool | None = None
    setting: Literal["trial", "real-world"] | None = None
    prior_radiation_pneumonitis: bool | None = None
    respiratory_disease: bool | None = None
    interstitial_lung_abnormality: bool | None = None
    honeycombing: bool | None = None
    ground_glass_attenuation: bool | None = None
    age: float | None = None
    sex: Literal["female", "male"] | None = None
    tmb: float | None = None
    pdl1_percent: float | None = None
    prior_systemic_therapy: bool | None = None
    symptoms_worse: bool | None = None


@dataclass(frozen=True)
class LesionSpec:
    """What one segment is, in the words of whoever drew it. ``ignore``: it is neither a lesion nor an organ."""

    segment: str
    organ: str | None = None
    role: LesionRole | None = None
    node: bool | None = None
    ignore: bool = False


@dataclass(frozen=True)
class LesionLink:
    """A correspondence that a person set: this segment at this time point is (part of) this lesion; None: a lesion of its own."""

    timepoint: str
    segment: str
    lesion: str | None = None


@dataclass(frozen=True)
class Acquisition:
    """How a CT was made, as far as known: tube voltage in kV, reconstruction kernel, nominal slice thickness in mm, contrast given or not."""

    kvp: float | None = None
    kernel: str | None = None
    slice_thickness_mm: float | None = None
    contrast: bool | None = None
    manufacturer: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Timepoint:
    """One imaging date. ``segmentation`` None means: propagate the baseline contours.

    ``transform`` and ``start_transform`` are files of transforms from points of the baseline to points of this time point
    (LPS, mm): what Slicer saves of the transform node that lays this time point on the baseline. The first replaces the
    alignment, the second is where it starts. ``pet`` holds SUV; it and ``mr`` lie on the CT as they say.
    """

    name: str
    date: datetime.date
    ct: Path
    segmentation: Path | None = None
    pet: Path | None = None
    no_visible_lesions: bool = False
    transform: Path | None = None
    start_transform: Path | None = None
    acquisition: Acquisition | None = None
    mr: Path | None = None


@dataclass(frozen=True)
class Study:
    """A patient's time points in the order of their dates."""

    patient: str
    timepoints: tuple[Timepoint, ...]
    tumour: str | None = None
    treatment: Treatment = field(default_factory=Treatment)
    clinical: Clinical = field(default_factory=Clinical)
    lesions: tuple[LesionSpec, ...] = ()
    links: tuple[LesionLink, ...] = ()

    @property
    def baseline(self) -> Timepoint:
        """The reference time point: the one named `baseline` in whatever case, else the last before treatment, else the first."""
        for timepoint in self.timepoints:
            if timepoint.name.lower() == "baseline":
                return timepoint
        start = self.treatment.start
        before = [timepoint for timepoint in self.timepoints if start is not None and timepoint.date <= start]
        return before[-1] if before else self.timepoints[0]

    def day(self, timepoint: Timepoint) -> int:
        """Days from the baseline scan to a time point; negative before it."""
        return (timepoint.date - self.baseline.date).days


def load_study(path: Path) -> Study:
    """Read and validate a study.yaml; the images themselves are not opened.

    Raises
    ------
    InputError
        With every problem of the file: a malformed text, unknown or repeated keys, wrong types or values, missing files,
        repeated or contradictory dates.
    """
    study, problems = parse_study(path)
    if problems or study is None:
        raise InputError(problems)
    return study


def parse_study(path: Path) -> tuple[Study | None, list[str]]:
    """Read as much of a study.yaml as makes sense, with every problem found on the way.

    The study holds the time points that could be read, so that their images can be checked in the same pass; it is None
    where the text is no study at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, [f"{path}: the file does not exist. Give the path of a study.yaml."]
    except (OSError, UnicodeDecodeError) as error:
        return None, [
            f"{path}: the file cannot be read as UTF-8 text ({type(error).__name__}). Give the path of a study.yaml."
        ]
    reader = _Reader(path)
    content = reader.parse(text)
    return (reader.study(content) if content is not None else None), reader.problems


class _Reader:
    """Turns the nodes of a YAML text into a Study and collects every problem with its line."""

    def __init__(self, path: Path):
        self.path = path
        self.folder = path.resolve().parent
        self.problems: list[str] = []
        self.lines: dict[int, dict[str, int]] = {}
        self.texts: dict[int, dict[str, str]] = {}
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def say(self, problem: str, line: int | None = None) -> None:
        self.problems.append(f"{self.path}{f', line {line}' if line else ''}: {problem}")

    def parse(self, text: str) -> dict[str, Any] | None:
        import yaml

        try:
            loader = yaml.SafeLoader(text)
            try:
                node = loader.get_single_node()
                content = None if node is None else self._plain(loader, node)
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
            self.say(
                f"the YAML is malformed: {what}. Check indentation, colons and brackets.",
                mark.line + 1 if mark else None,
            )
            return None
        except RecursionError:
            self.say("the YAML is malformed: it is nested too deeply. Check brackets and indentation.")
            return None
        if not isinstance(content, dict):
            self.say("the file is empty or is no mapping. It must have at least `patient:` and `timepoints:`.")
            return None
        return content

    def _plain(self, loader: Any, node: Any) -> Any:
        """Construct a node by the safe constructor, but notice repeated keys and remember the line and text of each entry.

        A node that several aliases name is constructed once: a few lines of aliases can stand for billions of entries.
        """
        import yaml

        if not isinstance(node, yaml.CollectionNode):
            return self._scalar(loader, node)
        if id(node) in self._open:
            raise yaml.constructor.ConstructorError(None, None, "an anchor holds itself", node.start_mark)
        if id(node) not in self._done:
            self._open.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                self._done[id(node)] = [self._plain(loader, item) for item in node.value]
            else:
                self._done[id(node)] = self._mapping_of(loader, node)
            self._open.discard(id(node))
        return self._done[id(node)]

    def _scalar(self, loader: Any, node: Any) -> Any:
        """Construct a scalar; what is no value of its own type, as the 31st of June, is left as the text it is."""
        try:
            return loader.construct_object(node, deep=True)
        except ValueError:
            return node.value

    def _mapping_of(self, loader: Any, node: Any) -> dict[str, Any]:
        import yaml

        own = [pair for pair in node.value if pair[0].tag != "tag:yaml.org,2002:merge"]
        loader.flatten_mapping(node)
        merged = [pair for pair in node.value if not any(pair[0] is key for key, _ in own)]
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        texts: dict[str, str] = {}
        for key_node, value_node in [*own, *merged]:
            key = str(self._plain(loader, key_node))
            line = key_node.start_mark.line + 1
            if key in result:
                if any(key_node is other for other, _ in own):
                    self.say(f"the key `{key}` stands twice (first in line {lines[key]}). Keep one.", line)
                continue
            result[key] = self._plain(loader, value_node)
            lines[key] = line
            if isinstance(value_node, yaml.ScalarNode):
                texts[key] = value_node.value
        self.lines[id(result)], self.texts[id(result)] = lines, texts
        return result

    def text(self, mapping: dict[str, Any], key: str) -> str | None:
        """Return a scalar as it was written: the code 0042 is no number, and `no` no truth value, where a text is asked for."""
        if mapping.get(key) is None:
            return None
        return self.texts.get(id(mapping), {}).get(key)

    def line(self, mapping: dict[str, Any], key: str) -> int | None:
        return self.lines.get(id(mapping), {}).get(key)

    def check_keys(self, mapping: dict[str, Any], known: Collection[str], where: str) -> None:
        for key in mapping:
            if key not in known:
                close = difflib.get_close_matches(key, list(known), 1)
                hint = f"Did you mean `{close[0]}`?" if close else f"Known are: {', '.join(known)}."
                self.say(f"unknown key `{key}` in {where}. {hint}", self.line(mapping, key))

    def mapping(self, content: dict[str, Any], key: str) -> dict[str, Any]:
        value = content.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.say(f"`{key}` must be a mapping, not {_shown(value)}.", self.line(content, key))
            return {}
        return value

    def study(self, content: dict[str, Any]) -> Study:
        self.check_keys(content, [item.name for item in dataclasses.fields(Study)], "the study")
        patient = (self.text(content, "patient") or "").strip()
        if not patient:
            self.say("`patient` is missing. Give the patient a code, for example `patient: P001`.")
        timepoints = self.timepoints(content)
        study = Study(
            patient=patient,
            timepoints=tuple(sorted(timepoints, key=lambda timepoint: timepoint.date)),
            tumour=self.fields(content, {"tumour": str | None}, "the study").get("tumour"),
            treatment=self.treatment(self.mapping(content, "treatment")),
            clinical=self.clinical(self.mapping(content, "clinical")),
            lesions=self.lesions(content),
            links=self.links(content),
        )
        if study.timepoints:
            self.check_order(study)
            self.check_transforms(study)
            self.check_links(study)
        return study

    def fields(self, mapping: dict[str, Any], kinds: dict[str, Any], where: str) -> dict[str, Any]:
        """Return the values of the known keys that fit their type; say what does not."""
        values = {}
        for key, kind in kinds.items():
            value = mapping.get(key)
            if value is None:
                continue
            text = self.text(mapping, key) if kind in (str, str | None) else None
            fitting = _fit(kind, value) if text is None else text
            if fitting is None:
                self.say(f"`{key}: {_shown(value)}` in {where} is not {_wanted(kind)}.", self.line(mapping, key))
            else:
                values[key] = fitting
        return values

    def treatment(self, mapping: dict[str, Any]) -> Treatment:
        kinds = typing.get_type_hints(Treatment)
        self.check_keys(mapping, kinds, "`treatment`")
        return Treatment(**self.fields(mapping, kinds, "`treatment`"))

    def clinical(self, mapping: dict[str, Any]) -> Clinical:
        kinds = typing.get_type_hints(Clinical)
        self.check_keys(mapping, kinds, "`clinical`")
        values = self.fields(mapping, kinds, "`clinical`")
        for key, (low, high, unit) in _CLINICAL_LIMITS.items():
            if key in values and not low <= values[key] <= high:
                del values[key]
                value = _shown(mapping[key])
                self.say(f"`{key}: {value}` is outside {low:g} to {high:g}: {unit}.", self.line(mapping, key))
        parts = [key for key in ("neutrophils", "lymphocytes") if key in values]
        if "leukocytes" in values and sum(values[key] for key in parts) > values["leukocytes"] * 1.01:
            total = " + ".join(f"`{key}`" for key in parts)
            self.say(f"{total} exceed `leukocytes: {values['leukocytes']:g}`.", self.line(mapping, "leukocytes"))
        return Clinical(**values)

    def timepoints(self, content: dict[str, Any]) -> list[Timepoint]:
        entries = content.get("timepoints")
        if not isinstance(entries, list) or len(entries) < 2:
            count = len(entries) if isinstance(entries, list) else 0
            self.say(f"{count} time points are given; at least two are needed, each with `name`, `date` and `ct`.")
            entries = entries if isinstance(entries, list) else []
        result = []
        for index, entry in enumerate(entries):
            where = f"time point {index + 1}"
            if not isinstance(entry, dict):
                self.say(f"{where} must be a mapping with `name`, `date` and `ct`, not {_shown(entry)}.")
                continue
            timepoint = self.timepoint(entry, where)
            if timepoint is not None:
                result.append(timepoint)
        return result

    def timepoint(self, entry: dict[str, Any], where: str) -> Timepoint | None:
        kinds = typing.get_type_hints(Timepoint)
        self.check_keys(entry, kinds, where)
        where = f"time point `{self.text(entry, 'name')}`" if self.text(entry, "name") else where
        values = self.fields(entry, {key: kind for key, kind in kinds.items() if key != "acquisition"}, where)
        if entry.get("acquisition") is not None:
            values["acquisition"] = self.acquisition(self.mapping(entry, "acquisition"), where)
        for key in ("name", "date", "ct"):
            if entry.get(key) is None:
                self.say(f"{where} has no `{key}`.", min(self.lines.get(id(entry), {"": 0}).values(), default=0))
        if "name" in values and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", values["name"]):
            self.say(
                f"the name `{_shown(values['name'])}` becomes part of file names: use letters, digits, - and _, at most 64.",
                self.line(entry, "name"),
            )
            return None
        for key in TIMEPOINT_FILES:
            if key in values:
                values[key] = Path(os.path.normpath(self.folder / values[key]))
                if not os.path.exists(values[key]):
                    self.say(
                        f"{where}: `{key}: {_shown(entry[key])}`: the file does not exist. Paths are relative to {self.path.name}.",
                        self.line(entry, key),
                    )
        if values.get("no_visible_lesions") and "segmentation" in values:
            self.say(
                f"{where} has both a segmentation and `no_visible_lesions: true`. Keep one.",
                self.line(entry, "no_visible_lesions"),
            )
        return Timepoint(**values) if all(key in values for key in ("name", "date", "ct")) else None

    def acquisition(self, mapping: dict[str, Any], where: str) -> Acquisition:
        where = f"`acquisition` of {where}"
        kinds = typing.get_type_hints(Acquisition)
        self.check_keys(mapping, kinds, where)
        values = self.fields(mapping, kinds, where)
        for key, (low, high, unit) in _ACQUISITION_LIMITS.items():
            if key in values and not low <= values[key] <= high:
                value = values.pop(key)
                self.say(
                    f"`{key}: {value:g}` in {where} is outside {low:g} to {high:g}: {unit}.", self.line(mapping, key)
                )
        return Acquisition(**values)

    def entries(self, content: dict[str, Any], key: str, needed: str) -> list[dict[str, Any]]:
        """Return a list of mappings, empty where there is none."""
        entries = content.get(key)
        if entries is None:
            return []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.say(f"`{key}` must be a list of mappings with {needed}.", self.line(content, key))
            return []
        return entries

    def links(self, content: dict[str, Any]) -> tuple[LesionLink, ...]:
        kinds = typing.get_type_hints(LesionLink)
        result: list[LesionLink] = []
        for index, entry in enumerate(self.entries(content, "links", "`timepoint`, `segment` and `lesion`")):
            where = f"link {index + 1}"
            self.check_keys(entry, kinds, where)
            values = self.fields(entry, kinds, where)
            missing = [key for key in ("timepoint", "segment") if key not in values]
            if missing:
                self.say(f"{where} has no `{'` and no `'.join(missing)}`: which segment of which time point is meant.")
            elif LesionLink(**values) in result:
                self.say(f"{where} stands twice under `links`. Keep one.", self.line(entry, "segment"))
            else:
                result.append(LesionLink(**values))
        return tuple(result)

    def lesions(self, content: dict[str, Any]) -> tuple[LesionSpec, ...]:
        kinds = typing.get_type_hints(LesionSpec)
        result: list[LesionSpec] = []
        for index, entry in enumerate(self.entries(content, "lesions", "`segment`")):
            self.check_keys(entry, kinds, f"lesion {index + 1}")
            values = self.fields(entry, kinds, f"lesion {index + 1}")
            if "segment" not in values:
                self.say(f"lesion {index + 1} has no `segment`: the name of its segment in the segmentation.")
            elif values["segment"] in [spec.segment for spec in result]:
                self.say(
                    f"the segment `{values['segment']}` is listed twice under `lesions`.", self.line(entry, "segment")
                )
            else:
                result.append(LesionSpec(**values))
        return tuple(result)

    def check_transforms(self, study: Study) -> None:
        for timepoint in study.timepoints:
            given = [key for key in ("transform", "start_transform") if getattr(timepoint, key) is not None]
            if timepoint is study.baseline and given:
                self.say(
                    f"the baseline `{timepoint.name}` has a `{given[0]}`; the others are aligned with it. Give it to the follow-up."
                )
            elif len(given) == 2:
                self.say(
                    f"`{timepoint.name}` has both a `transform`, which replaces the alignment, and a `start_transform`. Keep one."
                )

    def check_links(self, study: Study) -> None:
        names = [timepoint.name for timepoint in study.timepoints]
        for link in study.links:
            if link.timepoint not in names:
                self.say(
                    f"the link of `{_shown(link.segment)}` names the time point `{_shown(link.timepoint)}`, which there is not. "
                    f"There are: {', '.join(names)}."
                )

    def check_order(self, study: Study) -> None:
        names = [timepoint.name for timepoint in study.timepoints]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.say(f"{names.count(name)} time points are named `{name}`. Give each its own name.")
        # Names become file names, which some systems compare without regard to case; NAME_inverse.h5 lies beside NAME.h5.
        files: dict[str, str] = {}
        for name in dict.fromkeys(names):
            own = (name.lower(), f"{name.lower()}_inverse")
            other = next((files[file] for file in own if file in files), None)
            if other is not None:
                self.say(f"the time points `{other}` and `{name}` would share file names. Rename one.")
            files.update(dict.fromkeys(own, name))
        for earlier, later in zip(study.timepoints, study.timepoints[1:], strict=False):
            if earlier.date == later.date:
                self.say(
                    f"the time points `{earlier.name}` and `{later.name}` have the same date {later.date}. Correct one date, or leave one out."
                )
        baseline = study.baseline
        for timepoint in study.timepoints:
            name = timepoint.name.lower().replace("_", "").replace("-", "")
            if name.startswith(("followup", "fu")) and timepoint.date < baseline.date:
                self.say(
                    f"the follow-up `{timepoint.name}` ({timepoint.date}) lies before the baseline `{baseline.name}` ({baseline.date}). "
                    "Correct the dates or the names."
                )
            if name.startswith("prebaseline") and timepoint.date > baseline.date:
                self.say(
                    f"`{timepoint.name}` ({timepoint.date}) lies after the baseline `{baseline.name}` ({baseline.date}). "
                    "Correct the dates or the names."
                )
        for timepoint in study.timepoints:
            if timepoint.date > datetime.date.today():
                self.say(f"the date {timepoint.date} of `{timepoint.name}` lies in the future.")


def _fit(kind: Any, value: Any) -> Any:
    """Return the value as the type of a field, or None where it does not fit. YAML already made numbers and dates."""
    arguments = [item for item in typing.get_args(kind) if item is not type(None)]
    origin = typing.get_origin(kind)
    if origin is Literal:
        return value if value in arguments else None
    if origin is tuple:
        items = [value] if isinstance(value, str) else value
        return tuple(items) if isinstance(items, list) and all(isinstance(item, str) for item in items) else None
    if arguments:
        return _fit(arguments[0], value)
    if kind is datetime.date:
        return _as_date(value)
    if kind is str:
        return str(value) if isinstance(value, str | int | float | bool) else None
    if kind is Path:
        return Path(value) if isinstance(value, str) and value else None
    if isinstance(value, bool) or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    if kind is int:
        return value if isinstance(value, int) else None
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:
        return None


def _shown(value: Any) -> str:
    """Return a value for a message, cut to a readable length whatever it holds."""
    text = reprlib.repr(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _as_date(value: Any) -> datetime.date | None:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _wanted(kind: Any) -> str:
    arguments = [item for item in typing.get_args(kind) if item is not type(None)]
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(kind) is tuple:
        return "a list of words"
    if arguments:
        return _wanted(arguments[0])
    words = {
        datetime.date: "a date (YYYY-MM-DD)",
        str: "a text",
        Path: "a path",
        bool: "true or false",
        int: "a whole number",
    }
    return words.get(kind, "a number")


def save_study(study: Study, path: Path) -> None:
    """Write a study as study.yaml; paths inside the folder of ``path`` are written relative to it."""
    import yaml

    folder = path.resolve().parent

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            resolved = value.resolve()
            return resolved.relative_to(folder).as_posix() if resolved.is_relative_to(folder) else str(resolved)
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if dataclasses.is_dataclass(value):
            pairs = ((item.name, getattr(value, item.name)) for item in dataclasses.fields(value))
            return {key: plain(part) for key, part in pairs if not _goes_without_saying(key, part)}
        return value

    write_text(path, yaml.safe_dump(plain(study), sort_keys=False, allow_unicode=True))


def _goes_without_saying(key: str, value: Any) -> bool:
    """Say whether an entry may be left out. A "no" may not: it differs from "unknown"."""
    return value is None or value == () or (key in ("no_visible_lesions", "ignore") and not value)


def study_warnings(study: Study) -> tuple[str, ...]:
    """Say what is valid but narrows what can be concluded."""
    warnings = []
    start, baseline = study.treatment.start, study.baseline
    if start is None:
        warnings.append("The start of treatment is not given: the baseline is taken as the scan before treatment.")
    elif baseline.date > start:
        warnings.append(
            f"The baseline scan lies {(baseline.date - start).days} days after the start of treatment: early growth or swelling is missed."
        )
    elif (start - baseline.date).days > MAXIMUM_DAYS_FROM_BASELINE_TO_TREATMENT:
        warnings.append(
            f"The baseline scan lies {(start - baseline.date).days} days before the start of treatment; RECIST 1.1 asks for at most "
            f"{MAXIMUM_DAYS_FROM_BASELINE_TO_TREATMENT}."
        )
    if study.timepoints[0] is baseline:
        warnings.append(
            "There is no scan before the baseline: growth before treatment, and with it most definitions of hyperprogression, cannot be assessed."
        )
    return tuple(warnings)
