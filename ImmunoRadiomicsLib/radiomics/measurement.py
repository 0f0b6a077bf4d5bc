"""The features of one region, by the classes of pyradiomics.

The classes define every feature; what is gone around is work outside their definitions: every class would bin the same
voxels again with Python's own ``min`` and ``max``, and the shape class compares all pairs of surface vertices.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import MissingDependencyError
from ..images import RegionMask
from .filters import Derived, derive
from .ibsi import IbsiSettings
from .ibsi import measure as measure_by_standard
from .preparation import Prepared, Source, UnmeasurableError, require_size
from .surface import surface_of

Parameters = dict[str, dict[str, Any]]

# A co-occurrence matrix of so many levels, in 13 directions, takes 1.6 GiB; pyradiomics holds several.
MAXIMUM_GREY_LEVELS = 4096


def pyradiomics() -> Any:
    """Return the module ``radiomics``, quiet: what it would print about a region is a reason in our tables.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import radiomics
    except ImportError as error:
        raise MissingDependencyError(
            "pyradiomics is not installed: install the extension SlicerRadiomics in 3D Slicer, "
            "or 'pip install pyradiomics-bhklab==3.1.4' outside it (a C compiler is needed)."
        ) from error
    radiomics.setVerbosity(logging.CRITICAL + 10)
    return radiomics


def measure(source: Source, region: RegionMask, parameters: Parameters) -> dict[str, float | None]:
    """Return the features of one region by name; a feature that is not defined for it is None or absent.

    Parameters
    ----------
    source
        The volume, prepared with the same parameters.
    region
        On the grid of the volume.
    parameters
        ``Preset.parameters()``.

    Raises
    ------
    UnmeasurableError
        If the preset or the definitions exclude the region.
    """
    if "engine" in parameters:
        return measure_by_standard(source.volume, region, IbsiSettings.from_mapping(parameters))
    settings = parameters["setting"]
    if not source.finite:
        raise UnmeasurableError("the volume has voxels that are not finite numbers")
    prepared = source.prepare(region)
    require_size(prepared.mask, settings)
    resegmented = _resegmented(prepared, settings)
    require_size(resegmented.mask, settings)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # A feature that divides by nothing is None in the result; pyradiomics would also warn of each.
        warnings.simplefilter("ignore", RuntimeWarning)
        return _all_features(prepared, resegmented, parameters)


def _all_features(prepared: Prepared, resegmented: Prepared, parameters: Parameters) -> dict[str, float | None]:
    settings, classes = parameters["setting"], parameters["featureClass"]
    values: dict[str, float | None] = {}
    shape_mask = resegmented.mask
    if resegmented is not prepared and not settings.get("resegmentShape", False):
        # pyradiomics measures the shape of the whole region, but only inside the box of what resegmentation leaves.
        start = [new - old for new, old in zip(resegmented.offset_zyx, prepared.offset_zyx, strict=True)]
        box = tuple(slice(a, a + size) for a, size in zip(start, resegmented.mask.shape, strict=True))
        shape_mask = prepared.mask[box]
    spacing_zyx = prepared.image.GetSpacing()[::-1]
    for name in ("shape", "shape2D"):
        if name in classes and (name == "shape" or settings.get("force2D")):
            found = _shape(name, shape_mask, spacing_zyx, settings, classes[name])
            values.update({f"original_{feature}": value for feature, value in found.items()})
    for image_type, own in parameters["imageType"].items():
        merged = {**settings, **own}
        for derived in derive(image_type, merged, resegmented):
            found = _textures(derived, resegmented.mask, spacing_zyx, merged, classes)
            values.update({f"{derived.name}_{name}": value for name, value in found.items()})
    return values


def _resegmented(prepared: Prepared, settings: dict[str, Any]) -> Prepared:
    """Keep the voxels whose intensity lies in the range of the preset."""
    if settings.get("resegmentRange") is None:
        return prepared
    thresholds = sorted(settings["resegmentRange"])
    box = tuple(
        slice(first, first + size) for first, size in zip(prepared.offset_zyx, prepared.mask.shape, strict=True)
    )
    values = sitk.GetArrayViewFromImage(prepared.image)[box]
    inside = values[prepared.mask]
    mode = settings.get("resegmentMode", "absolute")
    if mode == "relative":
        thresholds = [inside.max() * threshold for threshold in thresholds]
    elif mode == "sigma":
        mean, deviation = inside.mean(), inside.std()
        thresholds = [mean + deviation * threshold for threshold in thresholds]
    keep = prepared.mask & (values >= thresholds[0])
    if len(thresholds) == 2:
        keep &= values <= thresholds[1]
    tight = RegionMask.from_array("", None, "", keep)
    if tight.count <= 1:
        raise UnmeasurableError(
            f"resegmentation to {settings['resegmentRange']} leaves {tight.count} of {inside.size} voxels"
        )
    z, y, x = (a + b for a, b in zip(prepared.offset_zyx, tight.offset_zyx, strict=True))
    return Prepared(prepared.image, tight.voxels, (z, y, x))


def _image(array: np.ndarray, spacing_zyx: tuple[float, ...]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_zyx[::-1])
    return image


def _shape(
    name: str, mask: np.ndarray, spacing_zyx: tuple[float, ...], settings: dict[str, Any], features: list[str]
) -> dict[str, float | None]:
    base = pyradiomics().getFeatureClasses()[name]
    image = _image(mask.astype(np.uint8), spacing_zyx)
    if name == "shape2D":
        axis = settings["force2Ddimension"]
        if mask.shape[2 - axis] <= 1:
            return {}
        if mask.shape[axis] > 1:
            raise UnmeasurableError(f"the shape in 2D needs a region in one slice; this one is in {mask.shape[axis]}")
        return _executed(base(image, image, **settings), name, features)

    class Shape(base):  # type: ignore[misc, valid-type]
        """The shape class with the surface measured in a time that grows with the region, not with its square."""

        __module__ = base.__module__  # names its logger

        def _initSegmentBasedCalculation(self) -> None:  # noqa: N802
            self.pixelSpacing = np.array(spacing_zyx)
            self.maskArray = np.pad(mask, 1)
            self.labelledVoxelCoordinates = np.nonzero(self.maskArray)
            surface = surface_of(mask, spacing_zyx)
            self.SurfaceArea, self.Volume, self.diameters = surface.area, surface.volume, surface.diameters
            points = np.transpose(self.labelledVoxelCoordinates) * self.pixelSpacing
            points -= points.mean(axis=0)
            points /= math.sqrt(len(points))
            # The same solver as pyradiomics: in a flat region the smallest value is rounding, and it differs by solver.
            values = np.linalg.eigvals(points.T.copy() @ points)
            values[(values < 0) & (values > -1e-10)] = 0
            self.eigenValues = np.sort(values)

    return _executed(Shape(image, image, **settings), name, features)


def _textures(
    derived: Derived,
    mask: np.ndarray,
    spacing_zyx: tuple[float, ...],
    settings: dict[str, Any],
    classes: dict[str, list[str]],
) -> dict[str, float | None]:
    from radiomics import imageoperations

    inside = derived.values[mask]
    # Both kinds of bin edges depend on the smallest and largest value alone.
    edges = imageoperations.getBinEdges(np.array([inside.min(), inside.max()]), **settings)
    if len(edges) > MAXIMUM_GREY_LEVELS:
        raise UnmeasurableError(
            f"the {derived.name} image has {len(edges) - 1} grey levels in the region; "
            f"a larger bin width gives no more than {MAXIMUM_GREY_LEVELS}"
        )
    levels = np.digitize(inside, edges)
    binned = np.zeros(mask.shape, dtype=int)
    binned[mask] = levels
    present = np.flatnonzero(np.bincount(levels))

    image = _image(derived.values, spacing_zyx)
    region = _image(mask.astype(np.uint8), spacing_zyx)
    result: dict[str, float | None] = {}
    for name, base in pyradiomics().getFeatureClasses().items():
        if name.startswith("shape") or name not in classes:
            continue

        class Texture(base):  # type: ignore[misc, valid-type]
            """A feature class that takes over the bins of its region."""

            __module__ = base.__module__  # names its logger

            def _applyBinning(self, matrix: np.ndarray) -> np.ndarray:  # noqa: N802
                self.coefficients["grayLevels"] = present
                self.coefficients["Ng"] = int(present[-1])
                return binned

        result.update(_executed(Texture(image, region, **settings), name, classes[name]))
    return result


def _executed(instance: Any, name: str, features: list[str]) -> dict[str, float | None]:
    for feature in features:
        instance.enableFeatureByName(feature)
    found = instance.execute()
    result: dict[str, float | None] = {}
    for feature, value in found.items():
        number = float(np.real(value))
        result[f"{name}_{feature}"] = number if math.isfinite(number) else None
    return result
