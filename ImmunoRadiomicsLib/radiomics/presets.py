"""Presets: which features are extracted, and how.

A preset is a pyradiomics parameter file. The shipped ones lie in ``Resources/Presets``; their leading comment lines are
the title and the rationale, so that every file can be given to pyradiomics unchanged. A user's own parameter file is
accepted as it is, but read strictly: pyradiomics ignores a misspelt keyword argument, which changes results in silence.

A file that begins with ``engine: ibsi`` asks for the features of the image biomarker standard instead, with its own keys
(``ibsi-preset.schema.json``).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import InputError
from ..resources import resource
from .engine.wavelet import BUILT_IN, known_wavelets
from .ibsi.settings import IbsiSettings, contradictions

# A value is a truth value, a number, a word, None or a tuple of numbers, as the key demands.
Settings = MappingProxyType[str, Any]

# What pyradiomics assumes where a parameter file is silent (RadiomicsFeatureExtractor and the feature classes, 3.1).
DEFAULTS: Settings = MappingProxyType(
    {
        "minimumROIDimensions": 2,
        "minimumROISize": None,
        "normalize": False,
        "normalizeScale": 1,
        "removeOutliers": None,
        "resampledPixelSpacing": None,
        "interpolator": "sitkBSpline",
        "preCrop": False,
        "padDistance": 5,
        "distances": (1,),
        "force2D": False,
        "force2Ddimension": 0,
        "resegmentRange": None,
        "binWidth": 25.0,
    }
)

# Where the region comes from and what is reported beside the features is the study's business, not the preset's.
_IGNORED = frozenset({"label", "label_channel", "correctMask", "geometryTolerance", "additionalInfo"})

# Features that pyradiomics computes only where they are named.
DEPRECATED = MappingProxyType(
    {
        "firstorder": frozenset({"StandardDeviation"}),
        "glcm": frozenset({"Dissimilarity", "Homogeneity1", "Homogeneity2", "SumVariance"}),
        "gldm": frozenset({"DependencePercentage", "GrayLevelNonUniformityNormalized"}),
        "shape": frozenset({"Compactness1", "Compactness2", "SphericalDisproportion"}),
        "shape2D": frozenset({"SphericalDisproportion"}),
    }
)


@dataclass(frozen=True)
class ImageType:
    """One family of images that features are read from, with the settings that hold for it (those of the preset included)."""

    name: str
    settings: Settings

    def images(self) -> tuple[str, ...]:
        """Return the names of its images as they begin the feature names, in the order in which pyradiomics makes them."""
        if self.name == "LoG":
            return tuple(f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D" for sigma in self.settings["sigma"])
        if self.name == "Wavelet":
            return self._wavelet_images()
        return (self.name.lower(),)

    def _wavelet_images(self) -> tuple[str, ...]:
        axes = 2 if self.settings.get("force2D") else 3
        levels = self.settings.get("level", 1)
        bands = [format(code, f"0{axes}b").replace("0", "L").replace("1", "H") for code in range(2**axes)]
        names: list[str] = []
        for level in range(1, levels + 1):
            stem = "wavelet" if level == 1 else f"wavelet{level}"
            names.extend(f"{stem}-{band}" for band in bands[1:])
        names.append(f"{stem}-{bands[0]}")
        return tuple(names)


@dataclass(frozen=True)
class Preset:
    """What to extract: image types, feature classes, and how the image is prepared.

    ``classes`` are (class, feature names) in the order of the file. ``settings`` are those of the file over the
    defaults of pyradiomics; every bin width is a float, because a whole number makes pyradiomics compute the edges of the bins
    in the type of the image, where they overflow. With ``ibsi`` the features are those of the image biomarker standard and
    its settings count; the others say only what the work will cost.
    """

    name: str
    title: str
    rationale: str
    image_types: tuple[ImageType, ...]
    classes: tuple[tuple[str, tuple[str, ...]], ...]
    settings: Settings
    ibsi: IbsiSettings | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all features, always the same and in this order, whether or not a region allows them."""
        return tuple(self._columns()) if self.ibsi is None else self.ibsi.columns

    def _columns(self) -> Iterator[str]:
        for name, features in self.classes:
            if name == "shape" or (name == "shape2D" and self.settings["force2D"]):
                for feature in features:
                    yield f"original_{name}_{feature}"
        for image_type in self.image_types:
            for image in image_type.images():
                for name, features in self.classes:
                    if not name.startswith("shape"):
                        for feature in features:
                            yield f"{image}_{name}_{feature}"

    @property
    def sha256(self) -> str:
        """The identity of what is computed: equal for presets that differ in name and wording only."""
        text = json.dumps(self.parameters(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def parameters(self) -> dict[str, Any]:
        """Return what a parameter file of this preset holds, for the engine that it asks for."""
        return self.to_pyradiomics() if self.ibsi is None else {"engine": "ibsi", **self.ibsi.to_mapping()}

    def to_pyradiomics(self) -> dict[str, dict[str, Any]]:
        """Return the parameters as ``radiomics.featureextractor.RadiomicsFeatureExtractor`` takes them.

        Raises
        ------
        InputError
            If the preset asks for the features of the image biomarker standard.
        """
        if self.ibsi is not None:
            raise InputError(
                f"{self.name}: pyradiomics does not offer what this preset asks for; use ct-lesion instead."
            )
        return {
            "imageType": {item.name: _plain(item.settings, without=self.settings) for item in self.image_types},
            "featureClass": {name: list(features) for name, features in self.classes},
            "setting": {**_plain(self.settings), "additionalInfo": False},
        }

    def to_yaml(self) -> str:
        """Return the text of a parameter file, with the title and rationale as comments."""
        import yaml

        comment = "\n".join(f"# {line}".rstrip() for line in (self.title, "", *self.rationale.splitlines()))
        return f"{comment}\n{yaml.safe_dump(self.parameters(), sort_keys=False)}"


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped presets."""
    return tuple(sorted(path.stem for path in resource("Presets").glob("*.yaml")))


def load_preset(name_or_path: str | Path) -> Preset:
    """Read a shipped preset by its name, or a parameter file (YAML or JSON) by its path.

    Raises
    ------
    InputError
        If there is no such preset or file, or it has unknown keys or values out of range: all of them, each with the file,
        the key and the nearest valid one.
    """
    if isinstance(name_or_path, str) and name_or_path in preset_names():
        path = resource("Presets", f"{name_or_path}.yaml")
    else:
        path = Path(name_or_path)
        if not path.is_file():
            names = preset_names()
            guess = difflib.get_close_matches(str(name_or_path), names, n=1)
            hint = f" Did you mean {guess[0]}?" if guess else ""
            raise InputError(
                f"{name_or_path} is neither a preset ({', '.join(names)}) nor the path of a parameter file.{hint}"
            )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}). Give a YAML parameter file.") from error
    return parse_preset(text, path)


def parse_preset(text: str, path: Path) -> Preset:
    """Read a preset from the text of a parameter file; ``path`` names it in messages.

    Raises
    ------
    InputError
        As ``load_preset``.
    """
    # JSON that is indented by tabs is no YAML.
    content = _read_json(text, path) if path.suffix.lower() == ".json" else _read_yaml(text, path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no parameters. Start from one of the shipped presets.")
    title, rationale = _heading(text)
    if "engine" in content:
        return _ibsi_preset(content, path, title, rationale)

    schema = json.loads(resource("Schemas", "preset.schema.json").read_text(encoding="utf-8"))
    problems = [f"{path}: {problem}" for problem in _violations(content, schema, schema, "")]
    if not problems:
        problems = [f"{path}: {problem}" for problem in _contradictions(content)]
    if problems:
        raise InputError(problems)

    setting = {**DEFAULTS, **_normalised(content.get("setting"))}
    types = content.get("imageType") or {"Original": {}}
    image_types = tuple(
        ImageType(name, MappingProxyType({**setting, **_normalised(own)})) for name, own in types.items()
    )
    known = _feature_names(schema)
    wanted = content.get("featureClass") or dict.fromkeys(known)
    classes = tuple((name, tuple(features or _defaults(name, known[name]))) for name, features in wanted.items())
    return Preset(path.stem, title or path.stem, rationale, image_types, classes, MappingProxyType(setting))


def _read_json(text: str, path: Path) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if repeated := _repeated([key for key, _ in pairs]):
            raise ValueError(_stands_twice(repeated))
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=mapping)
    except (ValueError, RecursionError) as error:
        remedy = _remedy(str(error), "Check quotes, commas and brackets.")
        raise InputError(f"{path}: not valid JSON: {error}. {remedy}") from error


def _read_yaml(text: str, path: Path) -> Any:
    """Read YAML of plain values; a repeated key is refused, as pyradiomics does: of two bin widths either may be meant."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if repeated := _repeated([str(key.value) for key in keys]):
                mark = [key for key in keys if key.value == repeated][1].start_mark
                raise yaml.constructor.ConstructorError(None, None, _stands_twice(repeated), mark)
            return super().construct_mapping(node, deep)

    try:
        loader = Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        what = str(getattr(error, "problem", None) or " ".join(str(error).split()))
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        remedy = _remedy(what, "Check indentation, colons and brackets.")
        raise InputError(f"{where}: not valid YAML: {what.rstrip('.')}. {remedy}") from error
    except (ValueError, RecursionError) as error:  # a number or date that cannot be, or thousands of brackets
        raise InputError(f"{path}: not valid YAML: {error}. Check the values and brackets.") from error


def _repeated(keys: list[str]) -> str | None:
    return next((key for place, key in enumerate(keys) if key in keys[:place]), None)


def _stands_twice(key: str) -> str:
    return f"the key {key!r} stands twice"


def _remedy(what: str, otherwise: str) -> str:
    return next((remedy for part, remedy in _REMEDIES.items() if part in what), otherwise)


def _ibsi_preset(content: dict[str, Any], path: Path, title: str, rationale: str) -> Preset:
    schema = json.loads(resource("Schemas", "ibsi-preset.schema.json").read_text(encoding="utf-8"))
    problems = [f"{path}: {problem}" for problem in _violations(content, schema, schema, "")]
    if not problems:
        problems = [f"{path}: {problem}" for problem in contradictions(content)]
    if problems:
        raise InputError(problems)
    ibsi = IbsiSettings.from_mapping(content)
    spacing = ibsi.interpolation.spacing_mm if ibsi.interpolation else None
    settings = MappingProxyType({**DEFAULTS, "resampledPixelSpacing": spacing})
    image_types = (ImageType("Original", settings),)
    return Preset(path.stem, title or path.stem, rationale, image_types, (), settings, ibsi)


def _defaults(name: str, features: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(feature for feature in features if feature not in DEPRECATED.get(name, ()))


def _feature_names(schema: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    classes = schema["properties"]["featureClass"]["properties"]
    return {name: tuple(item["items"]["enum"]) for name, item in classes.items()}


def _heading(text: str) -> tuple[str, str]:
    """Split the leading comment lines into the title (the first line) and the rationale (the rest)."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return (lines[0], "\n".join(lines[1:]).strip()) if lines else ("", "")


def _normalised(settings: dict[str, Any] | None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        if key in _IGNORED:
            continue
        result[key] = tuple(value) if isinstance(value, list) else value
        if key == "binWidth":
            result[key] = float(value)
    return result


def _plain(settings: Settings, without: Settings | None = None) -> dict[str, Any]:
    """Return settings as plain YAML values: no None, which parameter files cannot hold, and none equal to ``without``."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in settings.items()
        if value is not None and (without is None or key not in without or without[key] != value)
    }


# What to do about what the YAML parser says.
_REMEDIES = {
    "'\\t'": "Indent by spaces, not by tabs.",
    "constructor for the tag": "Remove the tag: only plain values are read.",
    "another document": "Keep one document, without a line '---' between.",
    "stands twice": "Keep one.",
}

# How to write what people most often write as something else.
_EXAMPLES = {"object": "; write one 'key: value' on each line below it", "array": "; write a list, such as [1, 2]"}


def _place_of(key: object, root: dict[str, Any]) -> str | None:
    """Say where a key belongs that stands at the wrong level of a file."""
    sections = root["properties"]
    for section in ("setting", "imageType", "featureClass"):
        known = sections.get(section, {})
        if "$ref" in known:
            known = root["$defs"][known["$ref"].rsplit("/", 1)[1]]
        if key in known.get("properties", {}):
            return f"; it belongs under {section!r}."
    return None


def _nearest(key: object, known: dict[str, Any]) -> str:
    lower = {name.lower(): name for name in known}
    guess = difflib.get_close_matches(str(key).lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[guess[0]]!r}?" if guess else f"; known are {', '.join(known)}."


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, _JSON_TYPES[kind])


def _violations(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str) -> Iterator[str]:
    """Check a value against the part of JSON Schema that the preset schema uses; yield one sentence per problem."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    at = f"{where}: " if where else ""
    if "type" not in schema:
        return
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_a(value, kind) for kind in kinds):
        example = _EXAMPLES.get(kinds[0], "")
        yield f"{at}{value!r} is not of type {' or '.join(kinds)}{example}."
        return
    if isinstance(value, dict):
        known = schema["properties"]
        for key, item in value.items():
            inner = f"{where}.{key}" if where else str(key)
            if key not in known:
                yield f"{at}unknown key {key!r}{_place_of(key, root) or _nearest(key, known)}"
            else:
                yield from _violations(item, known[key], root, inner)
        return
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
            yield f"{at}{value!r} has {len(value)} items; {_wanted_length(schema)}."
        for item in value:
            yield from _violations(item, schema["items"], root, where)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}unknown value {value!r}{_nearest(value, {str(item): None for item in schema['enum']})}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            yield f"{at}{value!r} is below the smallest possible, {schema['minimum']}."
        if "maximum" in schema and value > schema["maximum"]:
            yield f"{at}{value!r} is above the largest possible, {schema['maximum']}."
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            yield f"{at}{value!r} must be greater than {schema['exclusiveMinimum']}."


def _wanted_length(schema: dict[str, Any]) -> str:
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    if low == high:
        return f"{low} are needed"
    return f"{low} or more are needed" if high is None else f"{low} to {high} are needed"


def _contradictions(content: dict[str, Any]) -> Iterator[str]:
    """Yield what each key alone allows but pyradiomics would answer with missing features or a late error."""
    wavelets = known_wavelets()
    setting = content.get("setting") or {}
    for name, own in (content.get("imageType") or {}).items():
        merged = {**setting, **(own or {})}
        if name == "LoG" and not merged.get("sigma"):
            yield "imageType.LoG: no sigma is given, so there would be no features; add for example 'sigma: [1.0, 3.0]'."
        if name in ("LBP2D", "LBP3D"):
            yield f"imageType.{name}: local binary patterns are not offered, because pyradiomics leaves them out in silence where scikit-image or trimesh is missing; remove the key."
        wavelet = merged.get("wavelet", "coif1")
        if name == "Wavelet" and wavelet not in wavelets:
            hint = _nearest(wavelet, dict.fromkeys(wavelets))
            if len(wavelets) <= len(BUILT_IN):
                hint = f"; without PyWavelets ('pip install PyWavelets') there are {', '.join(wavelets)}."
            yield f"imageType.Wavelet.wavelet: unknown value {wavelet!r}{hint}"
    classes = content.get("featureClass") or {}
    if "shape2D" in classes and not setting.get("force2D"):
        yield "featureClass.shape2D: needs 'force2D: true' in setting; add it, or use the class shape."
