"""All features of one region."""

from __future__ import annotations

import math
import warnings

import numpy as np
import SimpleITK as sitk

from ...images import RegionMask
from ..preparation import UnmeasurableError
from .grid import Levels, Region, discretise, prepare
from .intensity import histogram, peaks, statistics, volume_histogram
from .morphology import morphology
from .settings import IbsiSettings
from .texture import textures

# A co-occurrence matrix of so many levels, in 13 directions, takes 1.7 GiB.
MAXIMUM_GREY_LEVELS = 4096


def measure(volume: sitk.Image, region: RegionMask, settings: IbsiSettings) -> dict[str, float | None]:
    """Return the features of one region by name, in the order of ``settings.columns``; one that is not defined is None.

    Parameters
    ----------
    volume
        A scalar 3D image.
    region
        On its grid.
    settings
        How the image is prepared and which aggregations are wanted.

    Raises
    ------
    UnmeasurableError
        If nothing is left of the region, or its discretisation has too many levels.
    """
    prepared = prepare(volume, region, settings)
    levels = discretise(prepared, settings.discretisation, settings.intensity_range[0])
    if levels.count > MAXIMUM_GREY_LEVELS:
        raise UnmeasurableError(
            f"the region has {levels.count} grey levels; a larger bin width gives no more than {MAXIMUM_GREY_LEVELS}"
        )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        found = _features(prepared, levels, settings)
    return {name: found[name] if math.isfinite(found[name]) else None for name in settings.columns}


def _features(region: Region, levels: Levels, settings: IbsiSettings) -> dict[str, float]:
    return {
        **morphology(region),
        **peaks(region),
        **statistics(region.inside),
        **histogram(levels.array[region.intensity], levels.count),
        **volume_histogram(region, settings.volume_histogram, settings.intensity_range),
        **textures(levels, region.morphological, settings.aggregations),
    }
