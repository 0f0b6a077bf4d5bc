"""Presets: what is shipped, what is accepted, and what a wrong file is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from radiomics import getFeatureClasses
from radiomics.featureextractor import RadiomicsFeatureExtractor

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.radiomics import load_preset, preset_names
from ImmunoRadiomicsLib.radiomics.presets import DEPRECATED, parse_preset
from ImmunoRadiomicsLib.resources import resource


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        parse_preset(text, Path("mine.yaml"))
    return caught.value.problems


PLAIN = tuple(name for name in preset_names() if load_preset(name).ibsi is None)


@pytest.mark.parametrize("name", PLAIN)
def test_shipped_preset_is_a_plain_parameter_file(name: str) -> None:
    path = resource("Presets", f"{name}.yaml")
    preset = load_preset(name)
    ours, theirs = RadiomicsFeatureExtractor(preset.to_pyradiomics()), RadiomicsFeatureExtractor(str(path))
    assert {**ours.settings, "additionalInfo": None} == {**theirs.settings, "additionalInfo": None}
    assert ours.enabledImagetypes == theirs.enabledImagetypes
    assert list(ours.enabledFeatures) == list(theirs.enabledFeatures)
    assert len(preset.rationale) > 200
    assert len(preset.title) < 120
    schema = json.loads(resource("Schemas", "preset.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema, jsonschema.Draft202012Validator)


def test_shipped_presets_and_their_sizes() -> None:
    assert {name: len(load_preset(name).columns) for name in PLAIN} == {
        "ct-lesion": 14 + 12 * 93,
        "ct-lesion-fast": 14 + 2 * 93,
        "ct-lung": 107,
        "fused-pet-ct": 107,
        "mr": 14 + 3 * 93,
        "pet-suv": 107,
    }


def test_padding_holds_ten_standard_deviations() -> None:
    for name in ("ct-lesion", "ct-lesion-fast", "mr"):
        preset = load_preset(name)
        sigma = max(max(item.settings.get("sigma", (0,))) for item in preset.image_types)
        spacing = min(preset.settings["resampledPixelSpacing"])
        assert preset.settings["padDistance"] >= 10 * sigma / spacing


def test_the_schema_knows_the_features_of_pyradiomics() -> None:
    schema = json.loads(resource("Schemas", "preset.schema.json").read_text())
    classes = schema["properties"]["featureClass"]["properties"]
    assert set(classes) == set(getFeatureClasses())
    for name, features in getFeatureClasses().items():
        names = features.getFeatureNames()
        assert set(classes[name]["items"]["enum"]) == set(names)
        assert DEPRECATED.get(name, frozenset()) == {feature for feature, deprecated in names.items() if deprecated}


def test_settings_keys_are_those_that_pyradiomics_validates() -> None:
    import radiomics

    file, _ = radiomics.getParameterValidationFiles()
    theirs = yaml.safe_load(Path(file).read_text())["mapping"]["setting"]["mapping"]
    ours = json.loads(resource("Schemas", "preset.schema.json").read_text())["$defs"]["settings"]["properties"]
    assert set(ours) == set(theirs)


def test_bin_width_is_a_float_everywhere() -> None:
    preset = parse_preset(
        "setting: {binWidth: 25}\nimageType: {Original: {binWidth: 10}, LoG: {sigma: [2]}}", Path("x")
    )
    assert isinstance(preset.settings["binWidth"], float)
    assert [item.settings["binWidth"] for item in preset.image_types] == [10.0, 25.0]
    assert all(isinstance(item.settings["binWidth"], float) for item in preset.image_types)
    assert isinstance(parse_preset("imageType: {Original: {}}", Path("x")).settings["binWidth"], float)


def test_written_and_read_again() -> None:
    preset = load_preset("ct-lesion")
    again = parse_preset(preset.to_yaml(), Path("ct-lesion.yaml"))
    assert again.sha256 == preset.sha256
    assert (again.title, again.rationale, again.columns) == (preset.title, preset.rationale, preset.columns)


def test_identity_depends_on_what_is_computed_only() -> None:
    text = "imageType: {Original: {}}\nsetting: {binWidth: 25}"
    preset = parse_preset(text, Path("a.yaml"))
    assert preset.sha256 == parse_preset("# Other words\n" + text, Path("b.yaml")).sha256
    assert preset.sha256 != parse_preset(text.replace("25", "20"), Path("a.yaml")).sha256


def test_settings_that_belong_to_the_study_are_left_out() -> None:
    preset = parse_preset("setting: {label: 2, correctMask: true, additionalInfo: true, binWidth: 5}", Path("x"))
    assert "label" not in preset.settings
    assert preset.to_pyradiomics()["setting"]["additionalInfo"] is False


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("setting: {binWidht: 10}", ["mine.yaml", "setting", "'binWidht'", "did you mean 'binWidth'"]),
        ("settings: {}", ["unknown key 'settings'", "did you mean 'setting'"]),
        ("imageType: {Log: {}}", ["imageType", "did you mean 'LoG'"]),
        ("imageType: {LoG: {sgima: [1]}}", ["imageType.LoG", "did you mean 'sigma'"]),
        ("featureClass: {glcm: [Contrst]}", ["featureClass.glcm", "did you mean 'Contrast'"]),
        ("setting: {binWidth: 0}", ["binWidth", "greater than 0"]),
        ("setting: {binWidth: .nan}", ["binWidth", "number"]),
        ("setting: {binWidth: true}", ["binWidth", "number"]),
        ("setting: {padDistance: 2.5}", ["padDistance", "integer"]),
        ("setting: {force2Ddimension: 3}", ["above the largest possible, 2"]),
        ("setting: {resampledPixelSpacing: [1, 1]}", ["has 2 items", "3 are needed"]),
        ("setting: {interpolator: sitkBspline}", ["did you mean 'sitkBSpline'"]),
        ("imageType: {LoG: {}}", ["no sigma"]),
        ("imageType: {Wavelet: {wavelet: coif99}}", ["imageType.Wavelet.wavelet", "coif"]),
        ("imageType: {LBP2D: {}}", ["local binary patterns"]),
        ("featureClass: {shape2D: []}", ["force2D: true"]),
        ("binWidth: 25", ["unknown key 'binWidth'", "belongs under 'setting'"]),
        ("setting: {LoG: {sigma: [1]}}", ["setting", "unknown key 'LoG'", "belongs under 'imageType'"]),
        ("imageType: {glcm: []}", ["belongs under 'featureClass'"]),
        ("imageType: [Original, LoG]", ["imageType", "'key: value'"]),
        ("imageType: {LoG: {sigma: 3}}", ["imageType.LoG.sigma", "write a list"]),
        ("just words", ["holds no parameters"]),
        ("setting: {binWidth: [", ["not valid YAML", "brackets"]),
        ("setting:\n\tbinWidth: 25\n", ["line 2", "not by tabs"]),
        ("setting: !!python/object/apply:os.getcwd []\n", ["line 1", "os.getcwd", "Remove the tag"]),
        ("setting: {binWidth: 25}\nsetting: {binCount: 8}\n", ["line 2", "'setting' stands twice", "Keep one"]),
        ("setting: {binWidth: 25, binWidth: 10}\n", ["'binWidth' stands twice"]),
        ("setting: {binWidth: 2024-13-01}\n", ["not valid YAML", "month"]),
        ("[" * 3000, ["not valid YAML", "brackets"]),
    ],
)
def test_wrong_files(text: str, fragments: list[str]) -> None:
    (problem,) = problems_of(text)
    for fragment in fragments:
        assert fragment in problem


def test_all_problems_at_once() -> None:
    assert len(problems_of("setting: {binWidht: 10, padDistance: -1}\nimageType: {Log: {}}\nother: 1")) == 4


def test_no_such_preset() -> None:
    with pytest.raises(InputError, match=r"did you mean ct-lesion\?|Did you mean ct-lesion\?"):
        load_preset("ct-lesoin")
    with pytest.raises(InputError, match="nor the path of a parameter file"):
        load_preset(Path("/nowhere/mine.yaml"))


def test_json_parameter_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"setting": {"binWidth": 20}, "featureClass": {"firstorder": ["Mean"]}}))
    preset = load_preset(path)
    assert (preset.name, preset.title, preset.columns) == ("mine", "mine", ("original_firstorder_Mean",))


def test_json_with_tabs_is_read_and_broken_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{\n\t"setting": {"binWidth": 20},\n\t"featureClass": {"firstorder": ["Mean"]}\n}')
    assert load_preset(path).settings["binWidth"] == 20
    path.write_text('{"setting": {"binWidth": 20}')
    with pytest.raises(InputError, match="not valid JSON"):
        load_preset(path)
    path.write_text('{"setting": {"binWidth": 20, "binWidth": 10}}')
    with pytest.raises(InputError, match="'binWidth' stands twice"):
        load_preset(path)


def test_wavelets_without_pywavelets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywt", None)
    assert load_preset("ct-lesion").columns
    assert "coif1" in problems_of("imageType: {Wavelet: {wavelet: db4}}")[0]


def test_an_empty_section_means_everything() -> None:
    preset = parse_preset("setting: {binWidth: 25}", Path("x"))
    assert len(preset.columns) == 107


def test_names_of_derived_images() -> None:
    text = (
        "imageType: {LoG: {sigma: [1, 2.5]}, Wavelet: {level: 2}, SquareRoot: {}}\nfeatureClass: {firstorder: [Mean]}"
    )
    names = [name.removesuffix("_firstorder_Mean") for name in parse_preset(text, Path("x")).columns]
    assert names[:2] == ["log-sigma-1-mm-3D", "log-sigma-2-5-mm-3D"]
    assert {"wavelet-LLH", "wavelet-HHH", "wavelet2-LLH", "wavelet2-LLL"} <= set(names)
    assert "wavelet-LLL" not in names
    assert names[-1] == "squareroot"
