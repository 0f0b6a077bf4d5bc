"""The feature classes of pyradiomics, handed the bins and counts of a region that were made once for all of them.

The classes define every feature. What they take over are the bins, which each would make again with Python's own ``min`` and
``max``, the counts of texture, the same whole numbers as theirs, and steps that are slow for no gain: powers instead of
products, percentiles sorted anew for each, and a search through the co-occurrence matrix for every sum of two levels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import MissingDependencyError
from .engine import texture
from .engine.intensity import central_moment
from .engine.matrices import gldm, glszm, ngtdm
from .engine.texture import Discretised


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
            "or 'pip install pyradiomics-bhklab==3.1.4' outside it (a C compiler is needed); "
            "or choose the engine 'own', which needs nothing and gives the same features."
        ) from error
    radiomics.setVerbosity(logging.CRITICAL + 10)
    return radiomics


def textures_by_classes(
    image: sitk.Image,
    mask: np.ndarray,
    levels: Discretised,
    settings: dict[str, Any],
    classes: Mapping[str, list[str]],
    force2d_dim: int | None,
) -> dict[str, Any]:
    """Return the features of intensity and texture of one image of a region.

    Parameters
    ----------
    image
        The box of the region.
    mask
        Bool array (z, y, x), the region in it.
    levels
        Its grey levels.
    settings
        Those of pyradiomics.
    classes
        The names of the features wanted of each class.
    force2d_dim
        The axis that textures are not followed along, if any.
    """
    result: dict[str, Any] = {}
    for name, features in classes.items():
        found = _classes().get(name)
        if found is not None:
            # In place of a mask as an image, which the class would turn into an array, it is handed the array.
            instance = found(image, image, mask=mask, levels=levels, force2d_dim=force2d_dim, **settings)
            result.update({f"{name}_{feature}": value for feature, value in executed(instance, features).items()})
    return result


def executed(instance: Any, features: list[str]) -> dict[str, Any]:
    """Return features of an instance of a feature class."""
    for feature in features:
        instance.enableFeatureByName(feature)
    found: dict[str, Any] = instance.execute()
    return found


@lru_cache(maxsize=1)
def _classes() -> dict[str, type]:
    bases = pyradiomics().getFeatureClasses()

    def taking_over(name: str) -> type:
        """Return a class that takes over the mask and the bins of its region."""
        base = bases[name]
        names = base.getFeatureNames()

        class Texture(base):  # type: ignore[misc, valid-type]
            def __init_subclass__(cls) -> None:
                cls.__module__ = base.__module__  # names its logger

            @classmethod
            def getFeatureNames(cls) -> dict[str, bool]:  # noqa: N802
                return names

            def _initSegmentBasedCalculation(self) -> None:  # noqa: N802
                self.maskArray = self.settings["mask"]

            def _applyBinning(self, matrix: np.ndarray) -> np.ndarray:  # noqa: N802
                levels = self.settings["levels"]
                self.coefficients["grayLevels"] = levels.present
                self.coefficients["Ng"] = levels.highest
                return matrix

        return Texture

    class Intensities(taking_over("firstorder")):  # type: ignore[misc]
        def _initCalculation(self, voxelCoordinates: None = None) -> None:  # noqa: N802, N803
            self.targetVoxelArray = self.imageArray[self.maskArray].astype(float).reshape(1, -1)
            counts = self.settings["levels"].counts.astype(float)
            self.coefficients["p_i"] = (counts / counts.sum())[None]
            self.percentiles = np.percentile(self.targetVoxelArray, (10, 25, 50, 75, 90), axis=1)

        def get10PercentileFeatureValue(self) -> np.ndarray:  # noqa: N802
            return self.percentiles[0]

        def getInterquartileRangeFeatureValue(self) -> np.ndarray:  # noqa: N802
            return self.percentiles[3] - self.percentiles[1]

        def getMedianFeatureValue(self) -> np.ndarray:  # noqa: N802
            return self.percentiles[2]

        def get90PercentileFeatureValue(self) -> np.ndarray:  # noqa: N802
            return self.percentiles[4]

        @staticmethod
        def _moment(a: np.ndarray, moment: int = 1) -> np.ndarray:
            return np.array([central_moment(a[0], moment)])

    class Pairs(taking_over("glcm")):  # type: ignore[misc]
        def _calculateMatrix(self, voxelCoordinates: None = None) -> np.ndarray:  # noqa: N802, N803
            settings = self.settings
            return texture.normalised_glcm(
                settings["levels"],
                tuple(settings.get("distances", (1,))),
                settings["force2d_dim"],
                self.symmetricalGLCM,
                self.weightingNorm,
            )[None]

        def _calculateCoefficients(self) -> None:  # noqa: N802
            p, present, highest = self.P_glcm[0], self.coefficients["grayLevels"], self.coefficients["Ng"]
            sums, differences = texture.by_sum_and_difference(p, present, highest)
            level = present.astype(float)
            i, j = level[:, None], level[None, :]
            self.coefficients.update(
                eps=texture.EPSILON,
                i=i,
                j=j,
                kValuesSum=np.arange(2.0, 2 * highest + 1),
                kValuesDiff=np.arange(0.0, highest),
                px=p.sum(axis=1, keepdims=True)[None],
                py=p.sum(axis=0, keepdims=True)[None],
                ux=(i[:, :, None] * p).sum(axis=(0, 1), keepdims=True)[None],
                uy=(j[:, :, None] * p).sum(axis=(0, 1), keepdims=True)[None],
                pxAddy=sums[None],
                pxSuby=differences[None],
                HXY=-(p * np.log2(p + texture.EPSILON)).sum(axis=(0, 1))[None],
            )
            both = (i + j)[:, :, None] - self.coefficients["ux"][0] - self.coefficients["uy"][0]
            self.clusters = texture.clusters(p, both)

        def getClusterTendencyFeatureValue(self) -> np.ndarray:  # noqa: N802
            return np.nanmean(self.clusters[0], keepdims=True)

        def getClusterShadeFeatureValue(self) -> np.ndarray:  # noqa: N802
            return np.nanmean(self.clusters[1], keepdims=True)

        def getClusterProminenceFeatureValue(self) -> np.ndarray:  # noqa: N802
            return np.nanmean(self.clusters[2], keepdims=True)

        def getMCCFeatureValue(self) -> np.ndarray:  # noqa: N802
            px, py = self.coefficients["px"][0, :, 0], self.coefficients["py"][0, 0]
            return np.nanmean(texture.maximal_correlation(self.P_glcm[0], px, py), keepdims=True)

    class Runs(taking_over("glrlm")):  # type: ignore[misc]
        def _calculateMatrix(self, voxelCoordinates: None = None) -> np.ndarray:  # noqa: N802, N803
            settings = self.settings
            runs, total = texture.run_counts(settings["levels"], settings["force2d_dim"], self.weightingNorm)
            self.coefficients["Nr"] = total[None]
            return runs[None]

    class Zones(taking_over("glszm")):  # type: ignore[misc]
        def _calculateMatrix(self, voxelCoordinates: None = None) -> np.ndarray:  # noqa: N802, N803
            levels = self.settings["levels"]
            self.sizes, counts = glszm(levels.grid, levels.highest, self.settings["force2d_dim"])
            return counts[None, levels.present - 1]

        def _calculateCoefficients(self) -> None:  # noqa: N802
            by_size = self.P_glszm.sum(axis=1)
            self.coefficients.update(
                Np=(by_size * self.sizes).sum(axis=1),
                Nz=by_size.sum(axis=1),
                ps=by_size,
                pg=self.P_glszm.sum(axis=2),
                ivector=self.coefficients["grayLevels"].astype(float),
                jvector=self.sizes.astype(float),
            )

    class Dependences(taking_over("gldm")):  # type: ignore[misc]
        def _calculateMatrix(self, voxelCoordinates: None = None) -> np.ndarray:  # noqa: N802, N803
            levels, settings = self.settings["levels"], self.settings
            distances = tuple(settings.get("distances", (1,)))
            counts = gldm(levels.grid, levels.highest, settings.get("gldm_a", 0), distances, settings["force2d_dim"])
            counts = counts[None, levels.present - 1]
            by_size = counts.sum(axis=1)
            used = by_size[0] > 0
            self.coefficients.update(
                Nz=by_size.sum(axis=1),
                pd=by_size[:, used],
                pg=counts.sum(axis=2),
                ivector=levels.present.astype(float),
                jvector=np.flatnonzero(used) + 1.0,
            )
            return counts[:, :, used]

    class Tones(taking_over("ngtdm")):  # type: ignore[misc]
        def _calculateMatrix(self, voxelCoordinates: None = None) -> np.ndarray:  # noqa: N802, N803
            levels, settings = self.settings["levels"], self.settings
            distances = tuple(settings.get("distances", (1,)))
            counts, differences, _ = ngtdm(levels.grid, levels.highest, distances, settings["force2d_dim"])
            rows = levels.present - 1
            return np.stack([counts[rows], differences[rows], levels.present], axis=1)[None]

    return {
        "firstorder": Intensities,
        "glcm": Pairs,
        "glrlm": Runs,
        "glszm": Zones,
        "gldm": Dependences,
        "ngtdm": Tones,
    }
