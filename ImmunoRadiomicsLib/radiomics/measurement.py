"""The features of regions of one volume, by the classes of pyradiomics or by the engine of our own.

The classes of pyradiomics define every feature; what is gone around is work outside their definitions: the shape class compares
all pairs of surface vertices, and for the others see ``classes``.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..images import RegionMask
from .classes import executed, pyradiomics, textures_by_classes
from .engine import texture
from .engine.intensity import bin_edges, firstorder_features
from .engine.matrices import LevelGrid, directions
from .engine.shape import shape2d_features, shape_features
from .engine.texture import Discretised
from .filters import derive
from .ibsi import IbsiSettings
from .ibsi import measure as measure_by_standard
from .preparation import Prepared, Source, UnmeasurableError, require_size
from .surface import surface_of

Parameters = dict[str, dict[str, Any]]

PYRADIOMICS, OWN = "pyradiomics", "own"
ENGINES = ("auto", PYRADIOMICS, OWN)

# A co-occurrence matrix of so many levels, in 13 directions, takes 1.6 GiB; pyradiomics holds several.
MAXIMUM_GREY_LEVELS = 4096


@dataclass
class Outcome:
    """What was measured of a region: features by name, or the reason why there are none."""

    reason: str | None = None
    values: dict[str, float | None] = field(default_factory=dict)


def choose_engine(name: str) -> str:
    """Return the engine to use: with `auto`, pyradiomics where it is installed, and our own elsewhere.

    Raises
    ------
    InputError
        If there is no such engine.
    MissingDependencyError
        If pyradiomics is asked for and not installed.
    """
    if name not in ENGINES:
        raise InputError(f"{name} is no engine for radiomics; there are {', '.join(ENGINES)}.")
    if name == "auto":
        return PYRADIOMICS if _installed() else OWN
    if name == PYRADIOMICS:
        pyradiomics()
    return name


def _installed() -> bool:
    try:
        return importlib.util.find_spec("radiomics") is not None
    except ValueError:  # what a module that was made unavailable raises
        return False


def measure(
    source: Source,
    regions: Sequence[RegionMask],
    parameters: Parameters,
    engine: str,
    tick: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Return the features of regions, which share filtered images where they lie on the same one.

    A feature that is not defined for a region is None or absent. Whatever cannot be done with a region is its reason.

    Parameters
    ----------
    source
        The volume, prepared with the same parameters.
    regions
        On the grid of the volume.
    parameters
        ``Preset.parameters()``, or those of some of its image types.
    engine
        As ``choose_engine`` returns it.
    tick
        Called after every image; it may raise to stop.
    """
    outcomes = [Outcome() for _ in regions]
    if "engine" in parameters:
        settings = IbsiSettings.from_mapping(parameters)
        for region, outcome in zip(regions, outcomes, strict=True):
            with _Guard(outcome):
                outcome.values.update(measure_by_standard(source.volume, region, settings))
            tick()
        return outcomes
    source.expect(regions)
    jobs: list[_Job] = []
    for region, outcome in zip(regions, outcomes, strict=True):
        with _Guard(outcome):
            jobs.append(_prepare(source, region, parameters, outcome, engine))
    source.expect(())
    for image_type, own in parameters["imageType"].items():
        merged = {**parameters["setting"], **own}
        for group in _sharing([job for job in jobs if job.outcome.reason is None]):
            _measure_images(image_type, merged, group, parameters["featureClass"], engine, tick)
    return outcomes


@dataclass(frozen=True, eq=False)
class _Job:
    """A region, resegmented, and where its features go."""

    prepared: Prepared
    outcome: Outcome

    @property
    def spacing_zyx(self) -> tuple[float, ...]:
        spacing: tuple[float, ...] = self.prepared.image.GetSpacing()[::-1]
        return spacing


class _Guard:
    """Turns what goes wrong with one region into its reason."""

    def __init__(self, *outcomes: Outcome):
        self._outcomes = outcomes
        self._quiet = warnings.catch_warnings()
        self._errors = np.errstate(all="ignore")

    def __enter__(self) -> None:
        # A feature that divides by nothing is None in the result; numpy would also warn of each.
        self._quiet.__enter__()
        warnings.simplefilter("ignore", RuntimeWarning)
        self._errors.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._errors.__exit__(None, None, None)
        self._quiet.__exit__(None, None, None)
        if error is None:
            return False
        if isinstance(error, UnmeasurableError):
            reason = str(error)
        elif isinstance(error, MemoryError):
            reason = "the region needs more memory than there is; a larger bin width or voxel needs less"
        elif isinstance(error, ValueError | IndexError | RuntimeError | ArithmeticError):
            reason = f"the region could not be measured ({' '.join(str(error).split())[:200]})"
        else:
            return False
        for outcome in self._outcomes:
            outcome.reason = reason
            outcome.values.clear()
        return True


def _prepare(source: Source, region: RegionMask, parameters: Parameters, outcome: Outcome, engine: str) -> _Job:
    """Prepare a region and measure its shape."""
    settings, classes = parameters["setting"], parameters["featureClass"]
    if not source.finite:
        raise UnmeasurableError("the volume has voxels that are not finite numbers")
    prepared = source.prepare(region)
    require_size(prepared.mask, settings)
    resegmented = _resegmented(prepared, settings)
    require_size(resegmented.mask, settings)
    job = _Job(resegmented, outcome)
    shape_mask = resegmented.mask
    if resegmented is not prepared and not settings.get("resegmentShape", False):
        # pyradiomics measures the shape of the whole region, but only inside the box of what resegmentation leaves.
        start = [new - old for new, old in zip(resegmented.offset_zyx, prepared.offset_zyx, strict=True)]
        box = tuple(slice(a, a + size) for a, size in zip(start, resegmented.mask.shape, strict=True))
        shape_mask = prepared.mask[box]
    for name in ("shape", "shape2D"):
        if name in classes and (name == "shape" or settings.get("force2D")):
            found = _shape(name, shape_mask, job.spacing_zyx, settings, classes[name], engine)
            outcome.values.update({f"original_{name}_{feature}": value for feature, value in found.items()})
    return job


def _resegmented(prepared: Prepared, settings: dict[str, Any]) -> Prepared:
    """Keep the voxels whose intensity lies in the range of the preset."""
    if settings.get("resegmentRange") is None:
        return prepared
    thresholds = sorted(settings["resegmentRange"])
    values = sitk.GetArrayViewFromImage(prepared.image)[prepared.box]
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


def _hull(jobs: Sequence[_Job]) -> tuple[slice, slice, slice]:
    boxes = [job.prepared.box for job in jobs]
    z, y, x = (slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3))
    return z, y, x


def _voxels(box: tuple[slice, ...]) -> int:
    return math.prod(span.stop - span.start for span in box)


def _sharing(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Put regions together that are cheaper to filter in one box, as a lesion and the rings around it."""
    groups: list[list[_Job]] = []
    for job in sorted(jobs, key=lambda item: _voxels(item.prepared.box), reverse=True):
        for group in groups:
            together = _voxels(_hull([*group, job]))
            if group[0].prepared.image is job.prepared.image and together <= _voxels(_hull(group)) + _voxels(
                job.prepared.box
            ):
                group.append(job)
                break
        else:
            groups.append([job])
    return groups


def _measure_images(
    image_type: str,
    settings: dict[str, Any],
    group: Sequence[_Job],
    classes: Mapping[str, list[str]],
    engine: str,
    tick: Callable[[], None],
) -> None:
    hull = _hull(group)
    start = [span.start for span in hull]
    with _Guard(*(job.outcome for job in group)):
        for derived in derive(image_type, settings, group[0].prepared.image, hull):
            for job in group:
                if job.outcome.reason is not None:
                    continue
                box = tuple(
                    slice(span.start - first, span.stop - first)
                    for span, first in zip(job.prepared.box, start, strict=True)
                )
                with _Guard(job.outcome):
                    found = _textures(
                        derived.values[box], derived.name, job.prepared.mask, job.spacing_zyx, settings, classes, engine
                    )
                    job.outcome.values.update({f"{derived.name}_{name}": value for name, value in found.items()})
            tick()


def _image(array: np.ndarray, spacing_zyx: tuple[float, ...]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_zyx[::-1])
    return image


def _finite(value: Any) -> float | None:
    number = float(np.real(value))
    return number if math.isfinite(number) else None


def _all_finite(values: dict[str, Any]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in values.items()}


def _shape(
    name: str,
    mask: np.ndarray,
    spacing_zyx: tuple[float, ...],
    settings: dict[str, Any],
    features: list[str],
    engine: str,
) -> dict[str, float | None]:
    plane = settings.get("force2Ddimension", 0)
    if name == "shape2D":
        if mask.shape[2 - plane] <= 1:
            return {}
        if mask.shape[plane] > 1:
            raise UnmeasurableError(f"the shape in 2D needs a region in one slice; this one is in {mask.shape[plane]}")
    if engine == OWN:
        if name == "shape2D":
            flat = mask.squeeze(axis=plane)
            found = shape2d_features(flat, tuple(step for axis, step in enumerate(spacing_zyx) if axis != plane))
        else:
            found = shape_features(mask, spacing_zyx)
        return {feature: _finite(found[feature]) for feature in features}
    base = pyradiomics().getFeatureClasses()[name]
    image = _image(mask.astype(np.uint8), spacing_zyx)
    if name == "shape2D":
        return _all_finite(executed(base(image, image, **settings), features))

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

    return _all_finite(executed(Shape(image, image, **settings), features))


def _textures(
    values: np.ndarray,
    image_name: str,
    mask: np.ndarray,
    spacing_zyx: tuple[float, ...],
    settings: dict[str, Any],
    classes: Mapping[str, list[str]],
    engine: str,
) -> dict[str, float | None]:
    """Return the features of one image of one region, from its values (z, y, x) in the box of the region."""
    inside = values[mask]
    lowest, highest = inside.min(), inside.max()
    bins = (float(highest) - float(lowest)) / settings["binWidth"]
    if settings.get("binCount") is None and bins > MAXIMUM_GREY_LEVELS:
        raise UnmeasurableError(
            f"the {image_name} image has {math.ceil(bins)} grey levels in the region; "
            f"a larger bin width gives no more than {MAXIMUM_GREY_LEVELS}"
        )
    edges = bin_edges(lowest, highest, settings["binWidth"], settings.get("binCount"))
    levels = np.digitize(inside, edges)
    binned = np.zeros(mask.shape, dtype=np.min_scalar_type(len(edges)))
    binned[mask] = levels
    counts = np.bincount(levels)
    present = np.flatnonzero(counts)
    distances = tuple(settings.get("distances", (1,)))
    force2d_dim = settings.get("force2Ddimension", 0) if settings.get("force2D") else None
    textured = any(name != "firstorder" and not name.startswith("shape") for name in classes)
    if textured and not (
        len(directions(mask.shape, distances, force2d_dim)) and len(directions(mask.shape, (1,), force2d_dim))
    ):
        raise UnmeasurableError(
            "the region has no neighbours at the distance and in the plane that the preset asks for"
        )
    region = Discretised(LevelGrid(binned, max(distances)), present, counts[present], spacing_zyx)
    if engine == PYRADIOMICS:
        image = _image(values, spacing_zyx)
        return _all_finite(textures_by_classes(image, mask, region, settings, classes, force2d_dim))

    norm = settings.get("weightingNorm")
    compute: dict[str, Callable[[], dict[str, float]]] = {
        "firstorder": lambda: firstorder_features(
            inside, region.counts, math.prod(spacing_zyx[::-1]), settings.get("voxelArrayShift", 0)
        ),
        "glcm": lambda: texture.glcm_features(
            texture.normalised_glcm(region, distances, force2d_dim, settings.get("symmetricalGLCM", True), norm),
            present,
        ),
        "glrlm": lambda: texture.glrlm_features(region, force2d_dim, norm),
        "glszm": lambda: texture.glszm_features(region, force2d_dim),
        "gldm": lambda: texture.gldm_features(region, settings.get("gldm_a", 0), distances, force2d_dim),
        "ngtdm": lambda: texture.ngtdm_features(region, distances, force2d_dim),
    }
    result: dict[str, float | None] = {}
    for name, features in classes.items():
        if name in compute:
            found = compute[name]()
            result.update({f"{name}_{feature}": _finite(found.get(feature, math.nan)) for feature in features})
    return result
