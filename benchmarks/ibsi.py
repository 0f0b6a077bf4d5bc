"""Compare every feature with the consensus values of the image biomarker standard, and write the table that is shipped.

    python benchmarks/ibsi.py --write

The digital phantom and the five configurations of the CT phantom are measured with the engine of the standard and with
pyradiomics, set up as closely as its own settings allow. A value matches if, rounded to three significant digits like the
consensus value, it lies within the tolerance (A. Zwanenburg et al., doi:10.1148/radiol.2020191145).

Where pyradiomics does not match, the cause is found by taking work away from it, one step after another:

- `resampling and mask`: it matches on the image and the mask that the standard prescribes: a new grid with the centre of the
  old one and not its corner, a mask that is interpolated and not taken from the nearest voxel, whole HU, and outliers;
- `bin edges`: it matches if it is also given the grey levels, whose first bin begins at the lower limit of the intensity
  range and not at the multiple of the bin width below the smallest intensity of the region;
- `definition`: it does not match even then, because it defines the feature otherwise: kurtosis is not in excess of 3, and
  the axes rest on the population covariance.

There is no consensus for the presets of pyradiomics that are shipped for daily use. For them the table holds, on the CT phantom,
what pyradiomics finds in the original image beside what the engine of the standard finds with the same numbers.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]
# This folder holds a script with the name of pyradiomics' package; Python would look here for it first.
sys.path[:] = [str(ROOT), *(place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent)]

from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import Preset, extract, load_preset
from ImmunoRadiomicsLib.radiomics.ibsi import WITHOUT_CONSENSUS, Discretisation, IbsiSettings, Interpolation, columns
from ImmunoRadiomicsLib.radiomics.ibsi.catalogue import AGGREGATIONS
from ImmunoRadiomicsLib.radiomics.ibsi.grid import discretise, prepare
from ImmunoRadiomicsLib.radiomics.presets import parse_preset

TABLE = ROOT / "Resources" / "Presets" / "ibsi_compliance.csv"
PAGE = TABLE.with_suffix(".md")
DATA = ROOT.parent / "shared" / "data" / "images"
SIGNIFICANT_DIGITS = 3

FIELDS = (
    "phantom",
    "configuration",
    "feature",
    "code",
    "aggregation_code",
    "title",
    "reference",
    "tolerance",
    "value",
    "match",
    "pyradiomics_feature",
    "pyradiomics_value",
    "pyradiomics_match",
    "pyradiomics_deviation",
    "pyradiomics_relative_difference",
)

# Shipped for daily use; more than so much apart counts as another value.
ORDINARY = ("ct-lesion", "ct-lesion-fast", "ct-lung")
SAME = 0.01

# Settings of pyradiomics that come closest to each configuration; with `force2D` it offers 2.5D and no average over slices.
NEAREST: dict[str, dict[str, Any]] = {
    "digital": {"binWidth": 1.0},
    "a": {"binWidth": 25.0, "resegmentRange": [-500, 400], "force2D": True},
    "b": {
        "binCount": 32,
        "resegmentRange": [-500, 400],
        "resampledPixelSpacing": [2.0, 2.0, 0],
        "interpolator": "sitkLinear",
        "force2D": True,
    },
    "c": {
        "binWidth": 25.0,
        "resegmentRange": [-1000, 400],
        "resampledPixelSpacing": [2.0, 2.0, 2.0],
        "interpolator": "sitkLinear",
    },
    "d": {
        "binCount": 32,
        "resegmentRange": [-3, 3],
        "resegmentMode": "sigma",
        "resampledPixelSpacing": [2.0, 2.0, 2.0],
        "interpolator": "sitkLinear",
    },
    "e": {
        "binCount": 32,
        "resegmentRange": [-1000, 400],
        "resampledPixelSpacing": [2.0, 2.0, 2.0],
        "interpolator": "sitkBSpline",
    },
}

SHAPE = {
    "morph_volume": "MeshVolume",
    "morph_vol_approx": "VoxelVolume",
    "morph_area_mesh": "SurfaceArea",
    "morph_av": "SurfaceVolumeRatio",
    "morph_comp_1": "Compactness1",
    "morph_comp_2": "Compactness2",
    "morph_sph_dispr": "SphericalDisproportion",
    "morph_sphericity": "Sphericity",
    "morph_diam": "Maximum3DDiameter",
    "morph_pca_maj_axis": "MajorAxisLength",
    "morph_pca_min_axis": "MinorAxisLength",
    "morph_pca_least_axis": "LeastAxisLength",
    "morph_pca_elongation": "Elongation",
    "morph_pca_flatness": "Flatness",
}
FIRST_ORDER = {
    "stat_mean": "Mean",
    "stat_var": "Variance",
    "stat_skew": "Skewness",
    "stat_kurt": "Kurtosis",
    "stat_median": "Median",
    "stat_min": "Minimum",
    "stat_p10": "10Percentile",
    "stat_p90": "90Percentile",
    "stat_max": "Maximum",
    "stat_iqr": "InterquartileRange",
    "stat_range": "Range",
    "stat_mad": "MeanAbsoluteDeviation",
    "stat_rmad": "RobustMeanAbsoluteDeviation",
    "stat_energy": "Energy",
    "stat_rms": "RootMeanSquared",
    "ih_entropy": "Entropy",
    "ih_uniformity": "Uniformity",
}
_EMPHASES = [
    "ShortRunEmphasis",
    "LongRunEmphasis",
    "LowGrayLevelRunEmphasis",
    "HighGrayLevelRunEmphasis",
    "ShortRunLowGrayLevelEmphasis",
    "ShortRunHighGrayLevelEmphasis",
    "LongRunLowGrayLevelEmphasis",
    "LongRunHighGrayLevelEmphasis",
    "GrayLevelNonUniformity",
    "GrayLevelNonUniformityNormalized",
    "RunLengthNonUniformity",
    "RunLengthNonUniformityNormalized",
    "RunPercentage",
    "GrayLevelVariance",
    "RunVariance",
    "RunEntropy",
]
TEXTURES: dict[str, tuple[str, dict[str, str]]] = {
    "cm": (
        "glcm",
        {
            "joint_max": "MaximumProbability",
            "joint_avg": "JointAverage",
            "joint_var": "SumSquares",
            "joint_entr": "JointEntropy",
            "diff_avg": "DifferenceAverage",
            "diff_var": "DifferenceVariance",
            "diff_entr": "DifferenceEntropy",
            "sum_avg": "SumAverage",
            "sum_entr": "SumEntropy",
            "energy": "JointEnergy",
            "contrast": "Contrast",
            "inv_diff": "Id",
            "inv_diff_norm": "Idn",
            "inv_diff_mom": "Idm",
            "inv_diff_mom_norm": "Idmn",
            "inv_var": "InverseVariance",
            "corr": "Correlation",
            "auto_corr": "Autocorrelation",
            "clust_tend": "ClusterTendency",
            "clust_shade": "ClusterShade",
            "clust_prom": "ClusterProminence",
            "info_corr1": "Imc1",
            "info_corr2": "Imc2",
        },
    ),
    "rlm": (
        "glrlm",
        dict(
            zip(
                [
                    "sre",
                    "lre",
                    "lgre",
                    "hgre",
                    "srlge",
                    "srhge",
                    "lrlge",
                    "lrhge",
                    "glnu",
                    "glnu_norm",
                    "rlnu",
                    "rlnu_norm",
                    "r_perc",
                    "gl_var",
                    "rl_var",
                    "rl_entr",
                ],
                _EMPHASES,
                strict=True,
            )
        ),
    ),
    "szm": (
        "glszm",
        dict(
            zip(
                [
                    "sze",
                    "lze",
                    "lgze",
                    "hgze",
                    "szlge",
                    "szhge",
                    "lzlge",
                    "lzhge",
                    "glnu",
                    "glnu_norm",
                    "zsnu",
                    "zsnu_norm",
                    "z_perc",
                    "gl_var",
                    "zs_var",
                    "zs_entr",
                ],
                [
                    "SmallAreaEmphasis",
                    "LargeAreaEmphasis",
                    "LowGrayLevelZoneEmphasis",
                    "HighGrayLevelZoneEmphasis",
                    "SmallAreaLowGrayLevelEmphasis",
                    "SmallAreaHighGrayLevelEmphasis",
                    "LargeAreaLowGrayLevelEmphasis",
                    "LargeAreaHighGrayLevelEmphasis",
                    "GrayLevelNonUniformity",
                    "GrayLevelNonUniformityNormalized",
                    "SizeZoneNonUniformity",
                    "SizeZoneNonUniformityNormalized",
                    "ZonePercentage",
                    "GrayLevelVariance",
                    "ZoneVariance",
                    "ZoneEntropy",
                ],
                strict=True,
            )
        ),
    ),
    "ngt": (
        "ngtdm",
        {name.lower(): name for name in ("Coarseness", "Contrast", "Busyness", "Complexity", "Strength")},
    ),
    "ngl": (
        "gldm",
        dict(
            zip(
                [
                    "lde",
                    "hde",
                    "lgce",
                    "hgce",
                    "ldlge",
                    "ldhge",
                    "hdlge",
                    "hdhge",
                    "glnu",
                    "dcnu",
                    "dcnu_norm",
                    "gl_var",
                    "dc_var",
                    "dc_entr",
                ],
                [
                    "SmallDependenceEmphasis",
                    "LargeDependenceEmphasis",
                    "LowGrayLevelEmphasis",
                    "HighGrayLevelEmphasis",
                    "SmallDependenceLowGrayLevelEmphasis",
                    "SmallDependenceHighGrayLevelEmphasis",
                    "LargeDependenceLowGrayLevelEmphasis",
                    "LargeDependenceHighGrayLevelEmphasis",
                    "GrayLevelNonUniformity",
                    "DependenceNonUniformity",
                    "DependenceNonUniformityNormalized",
                    "GrayLevelVariance",
                    "DependenceVariance",
                    "DependenceEntropy",
                ],
                strict=True,
            )
        ),
    ),
}


@dataclass(frozen=True)
class Case:
    """One phantom with one configuration."""

    phantom: str
    configuration: str
    settings: IbsiSettings
    image: sitk.Image
    region: RegionMask

    @property
    def planar(self) -> bool:
        return bool(NEAREST[self.configuration].get("force2D"))


def cases(data: Path) -> Iterator[Case]:
    """Yield the six cases."""
    digital = IbsiSettings.from_mapping(
        {"discretisation": {"method": "fixed_bin_size", "width": 1}, "aggregation": list(AGGREGATIONS)}
    )
    for phantom, configurations in (("digital", {"digital": digital}), ("ct", dict.fromkeys("abcde"))):
        folder = data / f"ibsi_{phantom}_phantom"
        image = sitk.ReadImage(str(folder / "phantom.nii.gz"))
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask.nii.gz"))) != 0
        region = RegionMask.from_array("phantom", None, "region", mask)
        for name, given in configurations.items():
            settings = given if given is not None else load_preset(f"ibsi-{name}").ibsi
            assert settings is not None
            yield Case(phantom, name, settings, image, region)


def references(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (value, tolerance) as published by (configuration, feature), from the table and, where there, from files."""
    found = {}
    if TABLE.exists():
        with TABLE.open(encoding="ascii", newline="") as file:
            for row in csv.DictReader(file):
                found[row["configuration"], row["feature"]] = (row["reference"], row["tolerance"])
    for configuration in NEAREST:
        stem = "dig_phantom" if configuration == "digital" else f"chest_config_{configuration}"
        path = folder / f"ibsi_1_{stem}.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file, delimiter=";"):
                    found[configuration, row["tag"]] = (row["reference value"], row["tolerance"])
    return found


def matches(value: float | None, reference: str, tolerance: str) -> bool:
    """Tell whether a value, rounded as the consensus value is, lies within its tolerance."""
    if value is None or not reference:
        return False
    rounded = float(f"{value:.{SIGNIFICANT_DIGITS - 1}e}")
    return abs(rounded - float(reference)) <= float(tolerance) + 1e-9 * abs(float(reference))


def pyradiomics_name(feature: str) -> str | None:
    """Return what pyradiomics calls a feature, as class and name; None if it has no such feature."""
    if feature in SHAPE:
        return f"shape_{SHAPE[feature]}"
    if feature in FIRST_ORDER:
        return f"firstorder_{FIRST_ORDER[feature]}"
    family, _, name = feature.partition("_")
    if family in TEXTURES and name in TEXTURES[family][1]:
        return f"{TEXTURES[family][0]}_{TEXTURES[family][1][name]}"
    return None


def parameter_file(setting: Mapping[str, Any], classes: Mapping[str, list[str]]) -> Preset:
    import yaml

    content = {"imageType": {"Original": {}}, "featureClass": dict(classes), "setting": dict(setting)}
    return parse_preset(yaml.safe_dump(content), Path("nearest.yaml"))


def measured(image: sitk.Image, region: RegionMask, preset: Preset) -> dict[str, float | None]:
    features = extract({"phantom": image}, [region], preset)[0]
    if features.reason is not None:
        raise SystemExit(f"{preset.name}: {features.reason}")
    return features.values


Measure = Callable[[RegionMask, Mapping[str, Any], Mapping[str, list[str]]], Mapping[str, float | None]]


def by_pyradiomics(case: Case, shape: RegionMask, inside: RegionMask, run: Measure) -> dict[str, float | None]:
    """Measure with pyradiomics and return the values by the names of the standard.

    ``run`` measures classes of a region with settings in addition to its own.
    """
    classes: dict[str, list[str]] = {}
    for name in {feature.name: None for _, feature, _ in columns(case.settings.aggregations)}:
        if (theirs := pyradiomics_name(name)) is not None:
            classes.setdefault(theirs.split("_")[0], []).append(theirs.split("_")[1])
    outline = run(shape, {}, {"shape": classes.pop("shape")})
    found = run(inside, {}, classes)
    merged = run(inside, {"weightingNorm": "no_weighting"}, classes)
    dimension = "2_5D" if case.planar else "3D"
    result: dict[str, float | None] = {}
    for column, feature, _ in columns(case.settings.aggregations):
        theirs = pyradiomics_name(feature.name)
        suffix = column.removeprefix(feature.name).lstrip("_")
        if theirs is not None and suffix in ("", dimension, f"{dimension}_avg", f"{dimension}_comb"):
            values = outline if theirs.startswith("shape") else merged if suffix.endswith("comb") else found
            result[column] = values[f"original_{theirs}"]
    return result


def on_grid(array: np.ndarray, spacing_zyx: tuple[float, ...]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_zyx[::-1])
    return image


def steps_of(case: Case) -> Iterator[dict[str, float | None]]:
    """Yield what pyradiomics finds alone, on the prepared image, and on the prepared image with the bins of the standard."""
    from radiomics import imageoperations
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    nearest = NEAREST[case.configuration]
    binning = {key: nearest[key] for key in ("binWidth", "binCount", "force2D") if key in nearest}
    prepared = prepare(case.image, case.region, case.settings)
    shape = RegionMask.from_array("phantom", None, "region", prepared.morphological)
    inside = RegionMask.from_array("phantom", None, "region", prepared.intensity)
    image = on_grid(prepared.values, prepared.spacing_zyx)

    def alone(region: RegionMask, more: Mapping[str, Any], classes: Mapping[str, list[str]]):
        return measured(case.image, region, parameter_file({**nearest, **more}, classes))

    def on_prepared(region: RegionMask, more: Mapping[str, Any], classes: Mapping[str, list[str]]):
        return measured(image, region, parameter_file({**binning, **more}, classes))

    levels = discretise(prepared, case.settings.discretisation, case.settings.intensity_range[0])
    level_image = on_grid(levels.array.astype(np.float64), prepared.spacing_zyx)

    def on_levels(region: RegionMask, more: Mapping[str, Any], classes: Mapping[str, list[str]]):
        preset = parameter_file({"force2D": case.planar, **more}, classes)
        edges = np.arange(1, levels.count + 2, dtype=float)
        # No setting of pyradiomics moves the first bin away from the smallest intensity.
        with mock.patch.object(imageoperations, "getBinEdges", return_value=edges):
            found = RadiomicsFeatureExtractor(preset.to_pyradiomics()).execute(level_image, region.image(level_image))
        return {name: float(value) for name, value in found.items() if not name.startswith("diagnostics")}

    yield by_pyradiomics(case, case.region, case.region, alone)
    yield by_pyradiomics(case, shape, inside, on_prepared)
    yield by_pyradiomics(case, shape, inside, on_levels)


def rows_of(case: Case, known: Mapping[tuple[str, str], tuple[str, str]]) -> Iterator[dict[str, str]]:
    start = time.process_time()
    values = measured(case.image, case.region, by_standard(case.settings))
    seconds = time.process_time() - start
    alone, prepared, levelled = steps_of(case)
    for column, feature, aggregation in columns(case.settings.aggregations):
        reference, tolerance = known[case.configuration, column]
        theirs = alone.get(column)
        match, deviation = "", ""
        if column in alone and reference:
            match = "yes" if matches(theirs, reference, tolerance) else "no"
            if match == "no":
                deviation = "definition"
                if matches(prepared[column], reference, tolerance):
                    deviation = "resampling and mask"
                elif not feature.name.startswith(("morph", "stat")) and matches(levelled[column], reference, tolerance):
                    deviation = "bin edges"
        ours = "yes" if matches(values[column], reference, tolerance) else "no"
        yield {
            "phantom": case.phantom,
            "configuration": case.configuration,
            "feature": column,
            "code": feature.code,
            "aggregation_code": aggregation,
            "title": feature.title,
            "reference": reference,
            "tolerance": tolerance,
            "value": shown(values[column]),
            "match": ours if reference else "",
            "pyradiomics_feature": pyradiomics_name(feature.name) or "" if column in alone else "",
            "pyradiomics_value": shown(theirs) if column in alone else "",
            "pyradiomics_match": match,
            "pyradiomics_deviation": deviation,
            "pyradiomics_relative_difference": shown(difference(theirs, values[column]), 3),
        }
    print(
        f"{case.phantom} {case.configuration}: {seconds:.2f} CPU s for {len(values)} values by the engine of the standard"
    )


def ordinary_rows(image: sitk.Image, region: RegionMask, name: str) -> Iterator[dict[str, str]]:
    """Yield what pyradiomics and the engine of the standard find with the numbers of a preset, in the original image."""
    preset = load_preset(name)
    settings = dict(preset.settings)
    x, y, z = settings["resampledPixelSpacing"]
    order = 3 if settings["interpolator"] == "sitkBSpline" else 1
    ibsi = IbsiSettings(
        Interpolation((x, y, z), order),
        (None, None),
        None,
        Discretisation("fixed_bin_size", width=settings["binWidth"]),
        Discretisation("none"),
        ("3D_avg",),
    )
    values = measured(image, region, by_standard(ibsi))
    classes = {name: list(features) for name, features in preset.classes}
    given = {key: value for key, value in settings.items() if value is not None}
    theirs = measured(image, region, parameter_file(plain(given), classes))
    for column, feature, aggregation in columns(ibsi.aggregations):
        found = theirs.get(f"original_{pyradiomics_name(feature.name)}")
        if found is None:
            continue
        yield {
            "phantom": "ct",
            "configuration": name,
            "feature": column,
            "code": feature.code,
            "aggregation_code": aggregation,
            "title": feature.title,
            "value": shown(values[column]),
            "pyradiomics_feature": pyradiomics_name(feature.name) or "",
            "pyradiomics_value": shown(found),
            "pyradiomics_relative_difference": shown(difference(found, values[column]), 3),
        }


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def by_standard(settings: IbsiSettings) -> Preset:
    """Return a preset of the engine of the standard."""
    import yaml

    return parse_preset(yaml.safe_dump({"engine": "ibsi", **settings.to_mapping()}), Path("ibsi.yaml"))


def difference(theirs: float | None, ours: float | None) -> float | None:
    """Return how far a value is from ours, over the magnitude of ours."""
    if theirs is None or ours is None:
        return None
    if ours == 0:
        return 0.0 if theirs == 0 else None
    found = abs(theirs - ours) / abs(ours)
    # Less than this is rounding, which differs from machine to machine.
    return found if found > 1e-9 else 0.0


def shown(value: float | None, digits: int = 6) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def summary(rows: list[dict[str, str]]) -> str:
    """Return the page that is shipped beside the table."""
    agreed = {row["code"] for row in rows if row.get("match") == "yes"}
    wrong = {row["code"] for row in rows if row.get("match") == "no"}
    checked = sum(bool(row.get("match")) for row in rows)
    lines = [
        "# Compliance with the image biomarker standard",
        "",
        "Made by `python benchmarks/ibsi.py --write` from `ibsi_compliance.csv`, which holds every value. Consensus values and",
        "tolerances: A. Zwanenburg et al., doi:10.1148/radiol.2020191145. A value matches if, rounded to three significant",
        "digits like the consensus value, it lies within the tolerance.",
        "",
        f"**{len(agreed - wrong)} features match wherever there is a consensus value ({checked} values); {len(wrong)} do not.**",
        f"{len(WITHOUT_CONSENSUS)} more are offered for which no consensus was reached.",
        "",
        "| phantom | configuration | values with consensus | match | pyradiomics offers | match | not: resampling and mask | not: bin edges | not: definition |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for configuration in NEAREST:
        own = [row for row in rows if row["configuration"] == configuration and row["reference"]]
        causes = Counter(row["pyradiomics_deviation"] for row in own if row["pyradiomics_match"])
        cells = [
            own[0]["phantom"],
            configuration,
            len(own),
            sum(row["match"] == "yes" for row in own),
            causes.total(),
            *(causes[cause] for cause in ("", "resampling and mask", "bin edges", "definition")),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "pyradiomics is set up as closely to each configuration as its own settings allow. The cause of a deviation is found by",
        "taking work away from pyradiomics, one step after another, until the value matches:",
        "",
        "- *resampling and mask*: it matches on the prepared image and mask. pyradiomics aligns the new grid with the corner of the",
        "  old one and not with its centre, takes each voxel of the mask from the nearest one instead of from half of its volume,",
        "  and does not round to whole HU (whole numbers are cut off); it has a range or a limit for outliers, not both.",
        "- *bin edges*: it matches with the prepared grey levels. The first bin of pyradiomics begins at a multiple of the bin width",
        "  below the smallest intensity of each region, that of the standard at the lower limit of the intensity range.",
        "- *definition*: pyradiomics does not subtract 3 from the kurtosis, and divides the covariance of the axes by the number of",
        "  voxels, the standard by one less (which shows in small regions only).",
        "",
        "The presets `ibsi-a` to `ibsi-e` are computed by the engine of the standard and have none of these deviations.",
        "",
        "## Presets for daily use",
        "",
        "These are computed by pyradiomics or equal to it, and no consensus exists for their settings. On the CT phantom, in the",
        "original image, they differ from the engine of the standard with the same voxel size, interpolation and bin width:",
        "",
        f"| preset | features compared | more than {SAME:.0%} apart | median difference |",
        "|---|---|---|---|",
    ]
    for name in ORDINARY:
        apart = [
            float(row["pyradiomics_relative_difference"])
            for row in rows
            if row["configuration"] == name and row["pyradiomics_relative_difference"]
        ]
        lines.append(f"| {name} | {len(apart)} | {sum(value > SAME for value in apart)} | {np.median(apart):.1%} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the phantoms")
    parser.add_argument("--references", type=Path, help="folder with the consensus values (default: in the data)")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    options = parser.parse_args()
    known = references(options.references or options.data / "ibsi_reference_values")
    rows = []
    for case in cases(options.data):
        rows += rows_of(case, known)
    for name in ORDINARY:
        rows += ordinary_rows(case.image, case.region, name)
    page = summary(rows)
    print(page)
    if options.write:
        with TABLE.open("w", encoding="ascii", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        PAGE.write_text(page, encoding="ascii")


if __name__ == "__main__":
    main()
