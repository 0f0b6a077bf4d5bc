"""How an image is prepared for the features of the image biomarker standardisation initiative."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .catalogue import AGGREGATIONS, columns

_METHODS = ("none", "fixed_bin_size", "fixed_bin_number")


@dataclass(frozen=True)
class Interpolation:
    """A new grid around the same centre.

    ``spacing_mm`` is in the order x, y, z; an axis with None keeps its spacing and is not interpolated. ``order`` is 1 (linear)
    or 3 (cubic spline) and concerns the intensities; the mask is always interpolated linearly, and a voxel belongs to it
    from ``mask_threshold`` on. ``round_intensities`` brings CT numbers back to whole HU.
    """

    spacing_mm: tuple[float | None, float | None, float | None]
    order: int = 1
    round_intensities: bool = True
    mask_threshold: float = 0.5


@dataclass(frozen=True)
class Discretisation:
    """Bins of a fixed size (``width``, from the lower bound of the intensity range) or a fixed number of them (``bins``)."""

    method: str
    width: float | None = None
    bins: int | None = None


@dataclass(frozen=True)
class IbsiSettings:
    """What is done to an image and its region before features are read.

    Parameters
    ----------
    interpolation
        None leaves the grid as it is.
    intensity_range
        Voxels outside do not belong to the intensity mask; a limit of None is open.
    outlier_sigma
        Voxels further than so many standard deviations from the mean do not belong to the intensity mask.
    discretisation
        Of the intensity histogram and the texture matrices.
    volume_histogram
        Discretisation of the intensity-volume histogram.
    aggregations
        Some keys of ``AGGREGATIONS``.
    """

    interpolation: Interpolation | None
    intensity_range: tuple[float | None, float | None]
    outlier_sigma: float | None
    discretisation: Discretisation
    volume_histogram: Discretisation
    aggregations: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all values, always the same and in this order, whether or not a region allows them."""
        return tuple(name for name, _, _ in columns(self.aggregations))

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> IbsiSettings:
        """Read the settings of a preset file that its schema and ``contradictions`` have nothing against."""
        grid = content.get("interpolation")
        interpolation = None
        if grid is not None:
            x, y, z = (None if value is None else float(value) for value in grid["spacing_mm"])
            interpolation = Interpolation(
                (x, y, z),
                3 if grid.get("method", "linear") == "cubic" else 1,
                grid.get("round_intensities", True),
                float(grid.get("mask_threshold", 0.5)),
            )
        resegmentation = content.get("resegmentation") or {}
        low, high = (None if limit is None else float(limit) for limit in resegmentation.get("range", (None, None)))
        sigma = resegmentation.get("outlier_sigma")
        return cls(
            interpolation,
            (low, high),
            None if sigma is None else float(sigma),
            _discretisation(content["discretisation"]),
            _discretisation(content.get("intensity_volume_histogram") or {"method": "none"}),
            tuple(name for name in AGGREGATIONS if name in content.get("aggregation", ("3D_avg", "3D_comb"))),
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return plain YAML values from which ``from_mapping`` makes the same settings."""
        result: dict[str, Any] = {}
        if (grid := self.interpolation) is not None:
            result["interpolation"] = {
                "spacing_mm": list(grid.spacing_mm),
                "method": "cubic" if grid.order == 3 else "linear",
                "round_intensities": grid.round_intensities,
                "mask_threshold": grid.mask_threshold,
            }
        result["resegmentation"] = {"range": list(self.intensity_range), "outlier_sigma": self.outlier_sigma}
        for key, item in (
            ("discretisation", self.discretisation),
            ("intensity_volume_histogram", self.volume_histogram),
        ):
            values = {"method": item.method, "width": item.width, "bins": item.bins}
            result[key] = {name: value for name, value in values.items() if value is not None}
        result["aggregation"] = list(self.aggregations)
        return result


def _discretisation(content: Mapping[str, Any]) -> Discretisation:
    width = content.get("width")
    return Discretisation(content["method"], None if width is None else float(width), content.get("bins"))


def contradictions(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what each key of a preset file alone allows, but together does not say what to compute."""
    if "discretisation" not in content:
        yield "discretisation is missing: textures need it; add for example {method: fixed_bin_size, width: 25}."
    for key in ("discretisation", "intensity_volume_histogram"):
        item = content.get(key)
        if item is None:
            continue
        method = item.get("method")
        needed = {"fixed_bin_size": "width", "fixed_bin_number": "bins"}.get(method)
        if method is None:
            yield f"{key}.method is missing; give one of {', '.join(_METHODS)}."
        elif key == "discretisation" and method == "none":
            yield "discretisation.method: textures need grey levels; give fixed_bin_size with a width of 1 for whole numbers."
        for name in ("width", "bins"):
            if name == needed and name not in item:
                yield f"{key}: the method {method} needs {name!r}."
            if name != needed and name in item and method is not None:
                yield f"{key}: the method {method} knows no {name!r}; remove it."
    grid = content.get("interpolation")
    if grid is not None and "spacing_mm" not in grid:
        yield "interpolation: 'spacing_mm' is missing; give three numbers (x, y, z), null where an axis is kept."
    low, high = (content.get("resegmentation") or {}).get("range") or (None, None)
    if low is not None and high is not None and low >= high:
        yield f"resegmentation.range: the lower limit {low} is not below the upper limit {high}."
    if not content.get("aggregation", ("3D_avg",)):
        yield f"aggregation: the list is empty; give some of {', '.join(AGGREGATIONS)}."
