"""Presets of the image biomarker standard: what is shipped, what is accepted, and what a wrong file is told."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from radiomics_cases import ball, ct, region

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.radiomics import extract, feature_deltas, load_preset, preset_names, software_versions
from ImmunoRadiomicsLib.radiomics.cache import Cache
from ImmunoRadiomicsLib.radiomics.ibsi import columns, measure
from ImmunoRadiomicsLib.radiomics.ibsi.catalogue import AGGREGATIONS, dimensions_of
from ImmunoRadiomicsLib.radiomics.presets import parse_preset
from ImmunoRadiomicsLib.resources import resource

SHIPPED = tuple(f"ibsi-{letter}" for letter in "abcde")
SMALLEST = "engine: ibsi\ndiscretisation: {method: fixed_bin_size, width: 25}\n"


def schema() -> dict:
    return json.loads(resource("Schemas", "ibsi-preset.schema.json").read_text(encoding="utf-8"))


def problems_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_preset(text, Path("mine.yaml"))
    assert all(problem.startswith("mine.yaml: ") for problem in caught.value.problems)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped(name: str) -> None:
    preset = load_preset(name)
    assert preset.ibsi is not None
    assert len(preset.columns) == (351 if name in ("ibsi-a", "ibsi-b") else 215)
    assert len(preset.rationale) > 200
    assert len(preset.title) < 120
    text = resource("Presets", f"{name}.yaml").read_text(encoding="utf-8")
    jsonschema.validate(yaml.safe_load(text), schema(), jsonschema.Draft202012Validator)
    again = parse_preset(preset.to_yaml(), Path("copy.yaml"))
    assert (again.ibsi, again.title, again.rationale, again.sha256) == (
        preset.ibsi,
        preset.title,
        preset.rationale,
        preset.sha256,
    )


def test_pyradiomics_is_not_offered_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="ibsi-d: pyradiomics does not offer"):
        load_preset("ibsi-d").to_pyradiomics()


def test_shipped_presets_differ() -> None:
    assert set(SHIPPED) <= set(preset_names())
    assert len({load_preset(name).sha256 for name in preset_names()}) == len(preset_names())


def test_columns_follow_the_aggregations() -> None:
    names = [name for name, _, _ in columns(tuple(AGGREGATIONS))]
    assert len(names) == len(set(names)) == 487
    assert dimensions_of(["2D_comb", "3D_avg"]) == ("2D", "3D")
    preset = parse_preset(SMALLEST + "aggregation: [2_5D_comb]", Path("x.yaml"))
    assert "cm_contrast_2_5D_comb" in preset.columns
    assert "szm_sze_2_5D" in preset.columns
    assert not any(name.endswith(("3D_avg", "3D_comb", "_2D", "_3D", "2D_avg")) for name in preset.columns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("engine: isbi\n", "did you mean 'ibsi'"),
        ("engine: ibsi\n", "discretisation is missing"),
        ("engine: ibsi\ndiscretisation: {width: 5}", "method is missing"),
        ("engine: ibsi\ndiscretisation: {method: fixed_bin_size}", "needs 'width'"),
        ("engine: ibsi\ndiscretisation: {method: fixed_bin_number, width: 5}", "knows no 'width'"),
        ("engine: ibsi\ndiscretisation: {method: fixed_bin_number, bins: 1}", "below the smallest"),
        ("engine: ibsi\ndiscretisation: {method: fixed_bin_size, width: 0}", "must be greater than 0"),
        ("engine: ibsi\ndiscretisation: {method: none}", "unknown value 'none'"),
        (SMALLEST + "binWidth: 25", "unknown key 'binWidth'"),
        (SMALLEST + "interpolation: {method: linear}", "'spacing_mm' is missing"),
        (SMALLEST + "interpolation: {spacing_mm: [2, 2]}", "3 are needed"),
        (SMALLEST + "interpolation: {spacing_mm: [2, 2, -1]}", "must be greater than 0"),
        (SMALLEST + "interpolation: {spacing_mm: [2, 2, 2], method: bspline}", "unknown value 'bspline'"),
        (SMALLEST + "resegmentation: {range: [400, -1000]}", "not below the upper limit"),
        (SMALLEST + "resegmentation: {outlier_sigma: 0}", "must be greater than 0"),
        (SMALLEST + "aggregation: []", "1 or more are needed"),
        (SMALLEST + "aggregation: [4D]", "unknown value '4D'"),
        (SMALLEST + "intensity_volume_histogram: {method: none, bins: 5}", "knows no 'bins'"),
    ],
)
def test_a_wrong_file_is_told_what_to_change(text: str, expected: str) -> None:
    assert expected in problems_of(text)


def test_open_limits_and_kept_axes() -> None:
    preset = parse_preset(
        SMALLEST + "interpolation: {spacing_mm: [1, 1, null]}\nresegmentation: {range: [null, 400]}", Path("x.yaml")
    )
    assert preset.ibsi is not None
    assert preset.ibsi.interpolation is not None
    assert preset.ibsi.interpolation.spacing_mm == (1.0, 1.0, None)
    assert preset.ibsi.intensity_range == (None, 400.0)


def test_extraction_with_processes_cache_and_deltas(tmp_path: Path) -> None:
    first, second = ct(seed=1), ct(seed=2)
    centres = ((20, 30, 28), (22, 28, 30))
    regions = [
        region(ball(image, centre, 8), timepoint=name, lesion=f"L{number}")
        for number, centre in enumerate(centres)
        for name, image in (("baseline", first), ("week8", second))
    ]
    volumes = {"baseline": first, "week8": second}
    preset = load_preset("ibsi-c")
    assert preset.ibsi is not None
    found = extract(volumes, regions, preset, jobs=2, cache=tmp_path)
    for item, mask in zip(found, regions, strict=True):
        assert item.reason is None
        assert tuple(item.values) == preset.columns
        assert item.values == measure(volumes[mask.timepoint], mask, preset.ibsi)
    kept = sorted(tmp_path.rglob("*.json"))
    assert len(kept) == len(regions)
    for path in kept:
        Cache(tmp_path).write(path.stem, "read from the cache", json.loads(path.read_text())["values"])
    again = extract(volumes, regions, preset, cache=tmp_path)
    assert {item.reason for item in again} == {"read from the cache"}
    deltas = feature_deltas(found, {"baseline": 0, "week8": 56}, "baseline")
    assert len(deltas) == 2
    absolute, relative, _ = deltas[0].values["stat_var"]
    before, after = found[0].values["stat_var"], found[1].values["stat_var"]
    assert before is not None
    assert after is not None
    assert absolute == pytest.approx(after - before)
    assert relative == pytest.approx((after - before) / before)


def test_the_engine_is_named_for_provenance() -> None:
    assert "arXiv:1612.07003" in software_versions()["ibsi engine"]
