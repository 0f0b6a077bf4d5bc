"""Deformable engines of others behind the same function: run where they are installed, explained where they are not."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from ImmunoRadiomicsLib.alignment import ENGINES, align, invert_points, peers, transform_points
from ImmunoRadiomicsLib.errors import InputError, StageError

AMPLITUDE_MM = 6.0


def wave(points: np.ndarray) -> np.ndarray:
    """The known displacement (mm) of baseline points: smooth, invertible, nothing far away."""
    fade = np.exp(-((points / 60.0) ** 2).sum(axis=1, keepdims=True))
    return AMPLITUDE_MM * fade * np.sin(points[:, [1, 2, 0]] / 25.0 + 0.5)


@pytest.fixture(scope="module")
def pair() -> tuple[sitk.Image, sitk.Image]:
    """A block of textured tissue, and the same after a known displacement."""
    spacing, size = 3.0, 56
    index = np.indices((size,) * 3).reshape(3, -1).T
    points = (index[:, ::-1] - (size - 1) / 2) * spacing
    rng = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(rng.standard_normal((size,) * 3), 1.5)
    texture *= 120.0 / texture.std()
    inside = (np.abs(points) / (66.0, 60.0, 72.0)).max(axis=1).reshape((size,) * 3) < 1.0
    values = np.where(inside, np.clip(texture, -250.0, 250.0), -1000.0)

    source = points.copy()
    for _ in range(40):
        source = points - wave(source)
    places = source[:, ::-1].T / spacing + (size - 1) / 2
    moved = ndimage.map_coordinates(values, places, order=1, mode="nearest").reshape(values.shape)

    def image(array: np.ndarray) -> sitk.Image:
        result = sitk.GetImageFromArray(array.astype(np.float32))
        result.SetSpacing([spacing] * 3)
        result.SetOrigin([-(size - 1) / 2 * spacing] * 3)
        return result

    return image(values), image(moved)


def check(pair: tuple[sitk.Image, sitk.Image], engine: str, largest_mm: float = 0.8) -> None:
    points = np.random.default_rng(1).uniform(-45.0, 45.0, (400, 3))
    found = align(*pair, engine=engine)
    assert found.engine == engine
    errors = np.linalg.norm(transform_points(points, found.transform) - points - wave(points), axis=1)
    assert np.median(np.linalg.norm(wave(points), axis=1)) > 2.0
    assert np.median(errors) < largest_mm
    back = transform_points(transform_points(points, found.transform), found.inverse)
    assert np.median(np.linalg.norm(back - points, axis=1)) < 0.1
    exact = invert_points(transform_points(points, found.transform), found.transform, found.inverse)
    assert np.abs(exact - points).max() < 1e-3
    assert found.quality.folding_fraction == 0.0
    assert found.quality.correlation > 0.85
    assert found.quality.score is not None


def test_the_own_engine_finds_the_known_displacement(pair):
    check(pair, "local-correlation")


@pytest.mark.parametrize("engine", [name for name, peer in peers.PEERS.items() if peer.distribution])
def test_an_installed_engine_finds_the_known_displacement(pair, engine):
    try:
        version(peers.PEERS[engine].distribution)
    except PackageNotFoundError:
        pytest.skip(f"{peers.PEERS[engine].distribution} is not installed")
    # Symmetric normalisation with its own default settings aligns less closely than the others.
    check(pair, engine, 1.2 if engine == "ants" else 0.8)


def test_every_engine_is_offered():
    assert set(peers.PEERS) < set(ENGINES)


def test_a_package_that_is_not_installed_is_named_with_its_remedy(pair, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", missing)
    for engine, package in (("greedy", "picsl_greedy"), ("elastix", "itk-elastix"), ("ants", "antspyx")):
        with pytest.raises(InputError, match=f"pip install {package}"):
            align(*pair, engine=engine)


# A stand-in for Slicer's program: it takes only what BRAINSFit takes, and answers with a known shift.
BRAINSFIT = """#!{python}
import argparse, sys
import SimpleITK as sitk

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("fixedVolume", "movingVolume", "fixedBinaryVolume", "movingBinaryVolume", "bsplineTransform"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--maskProcessingMode", choices=("NOMASK", "ROIAUTO", "ROI"), required=True)
parser.add_argument("--initializeTransformMode", choices=("Off",), required=True)
parser.add_argument("--costMetric", choices=("MMI", "MSE", "NC", "MIH"))
parser.add_argument("--splineGridSize", type=lambda text: [int(part) for part in text.split(",")])
parser.add_argument("--samplingPercentage", type=float)
parser.add_argument("--numberOfThreads", type=int)
parser.add_argument("--useBSpline", action="store_true")
options = parser.parse_args()
images = [sitk.ReadImage(path) for path in (options.fixedVolume, options.movingVolume, options.fixedBinaryVolume)]
if len({{image.GetSize() for image in images}}) != 1 or len(options.splineGridSize) != 3 or not options.useBSpline:
    sys.exit("itk::ERROR: the inputs do not occupy the same physical space")
if {fails}:
    sys.exit("itk::ERROR: all samples map outside the moving image")
spline = sitk.BSplineTransformInitializer(images[0], [size - 3 for size in options.splineGridSize])
spline.SetParameters([1.5] * len(spline.GetParameters()))
sitk.WriteTransform(spline, options.bsplineTransform)
"""


def brainsfit(folder, *, fails=False):
    program = folder / "cli-modules" / "BRAINSFit"
    program.parent.mkdir()
    program.write_text(BRAINSFIT.format(python=sys.executable, fails=fails))
    program.chmod(0o755)
    return program


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
@pytest.mark.parametrize("where", ["module", "path"])
def test_brains_runs_the_program_of_slicer(pair, where, tmp_path, monkeypatch):
    program = brainsfit(tmp_path)
    if where == "module":
        modules = SimpleNamespace(brainsfit=SimpleNamespace(path=str(program)))
        monkeypatch.setitem(sys.modules, "slicer", SimpleNamespace(modules=modules))
    else:
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    found = peers.register("brains", *pair, pair[0] > -900)
    assert np.allclose(found.TransformPoint((1.0, 2.0, 3.0)), (2.5, 3.5, 4.5))
    assert os.listdir(tmp_path) == ["cli-modules"]


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_what_brains_says_when_it_fails_is_handed_on(pair, tmp_path, monkeypatch):
    program = brainsfit(tmp_path, fails=True)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(StageError, match=r"'brains' gave up: itk::ERROR: all samples map outside"):
        align(*pair, engine="brains")


@pytest.mark.parametrize("engine", ["brains", "slicer-elastix", "slicer-ants"])
def test_an_engine_of_slicer_says_where_it_works(pair, engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer", SimpleNamespace())
    with pytest.raises(InputError, match=r"works inside 3D Slicer.*'auto'"):
        align(*pair, engine=engine)


def test_an_engine_that_gives_up_is_named(pair, monkeypatch):
    def run(*_):
        raise RuntimeError("no step improved")

    monkeypatch.setitem(peers.PEERS, "greedy", peers._Peer(run, distribution="numpy"))
    with pytest.raises(StageError, match=r"'greedy' gave up: no step improved"):
        align(*pair, engine="greedy")


def package(folder, monkeypatch, name: str, body: str) -> None:
    """Put a stand-in for the package ``picsl_greedy`` on the path of the process that will import it."""
    (folder / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "import os, signal\nclass Greedy3D:\n    def execute(self, *_, **__): os.kill(os.getpid(), signal.SIGSEGV)\n",
            "SIGSEGV",
        ),
        (
            "class Greedy3D:\n    def execute(self, *_, **__): raise ValueError('no step improved')\n",
            "no step improved",
        ),
        ("class Greedy3D:\n    def execute(self, *_, **__): raise SystemExit(3)\n", "code 3 and said nothing"),
    ],
    ids=["crash", "exception", "silence"],
)
@pytest.mark.skipif(os.name == "nt", reason="a crash is told by its signal")
def test_a_crash_of_a_package_ends_its_own_process_only(pair, tmp_path, monkeypatch, body, said):
    package(tmp_path, monkeypatch, "picsl_greedy", body)
    with pytest.raises(StageError, match=rf"'greedy' gave up: .*{said}.*Choose the engine 'auto'"):
        peers.register("greedy", *pair, pair[0] > -900)


def test_what_a_package_writes_by_the_way_disappears(pair, tmp_path, monkeypatch):
    shift = """
import numpy as np
import SimpleITK as sitk

class Greedy3D:
    def execute(self, command, fixed, moving, region, warp):
        assert "-d 3" in command and fixed.GetSize() == moving.GetSize() == region.GetSize()
        open("deformationField.nii", "w").close()
        vectors = np.broadcast_to(np.float32((1.0, 2.0, 3.0)), (*fixed.GetSize()[::-1], 3))
        self.warp = sitk.GetImageFromArray(np.ascontiguousarray(vectors), isVector=True)
        self.warp.CopyInformation(fixed)

    def __getitem__(self, name):
        return self.warp
"""
    modules, work = tmp_path / "modules", tmp_path / "work"
    modules.mkdir()
    work.mkdir()
    package(modules, monkeypatch, "picsl_greedy", shift)
    monkeypatch.chdir(work)
    found = peers.register("greedy", *pair, pair[0] > -900)
    assert np.allclose(found.TransformPoint((4.0, 5.0, 6.0)), (5.0, 7.0, 9.0))
    assert os.listdir(work) == []


class Ended:
    """What the extension keeps of the run of its command-line module."""

    ErrorsMask, Completed, CompletedWithErrors = 0x40, 0x20, 0x60

    def __init__(self, fails: bool):
        self.fails = fails

    def GetStatus(self) -> int:
        return self.CompletedWithErrors if self.fails else self.Completed

    def GetErrorText(self) -> str:
        return "the metric is not defined" if self.fails else ""


class AntsLogic:
    """A stand-in for the logic of SlicerANTs: it takes exactly the arguments that the extension takes, and answers with a known shift."""

    fails = False

    def process(
        self, stages, outputSettings, initialTransformSettings=None, generalSettings=None, wait_for_completion=False
    ):
        assert wait_for_completion
        (stage,) = stages
        self.stage(**stage)
        assert set(outputSettings) <= {"transform", "volume", "interpolation", "useDisplacementField"}
        assert outputSettings["volume"] is None
        assert outputSettings["interpolation"] == "Linear"
        self.initial(**initialTransformSettings)
        self.general(**generalSettings)
        outputSettings["transform"].transform = sitk.TranslationTransform(3, (1.5, -2.0, 0.5))
        self.cliNode = Ended(self.fails)

    def stage(self, transformParameters, metrics, levels, masks):
        assert transformParameters["transform"] == "SyN"
        assert len(transformParameters["settings"].split(",")) == 3
        (metric,) = metrics
        assert set(metric) == {"type", "fixed", "moving", "settings"}
        assert (metric["fixed"].kind, metric["moving"].kind) == ("ScalarVolume", "ScalarVolume")
        assert metric["fixed"] is not metric["moving"]
        assert {mask.kind for mask in masks.values()} == {"LabelMapVolume"}
        assert set(masks) == {"fixed", "moving"}
        self.levels(**levels)

    def levels(self, steps, convergenceThreshold, convergenceWindowSize, smoothingSigmasUnit):
        assert smoothingSigmasUnit in ("vox", "mm")
        assert all(set(step) == {"convergence", "smoothingSigmas", "shrinkFactors"} for step in steps)
        factors = [step["shrinkFactors"] for step in steps]
        assert factors == sorted(factors, reverse=True)
        assert convergenceThreshold > 0 < convergenceWindowSize

    def initial(self, initialTransformNode=None, initializationFeature=-1):
        assert (initialTransformNode, initializationFeature) == (None, -1)

    def general(self, computationPrecision, dimensionality=3, histogramMatching=False, winsorizeImageIntensities=None):
        assert (dimensionality, computationPrecision) == (3, "float")


def slicer_with_ants(monkeypatch, *, fails: bool) -> list:
    """Put stand-ins for Slicer and SlicerANTs in place; return the list of nodes that are in the scene."""
    nodes: list = []

    def add(kind):
        nodes.append(SimpleNamespace(kind=kind, transform=None))
        return nodes[-1]

    def push(image, className):
        return add(className.removeprefix("vtkMRML").removesuffix("Node"))

    def save(node, path):
        sitk.WriteTransform(node.transform, path)
        return True

    scene = SimpleNamespace(
        AddNewNodeByClass=lambda name: add(name.removeprefix("vtkMRML").removesuffix("Node")),
        RemoveNode=lambda node: nodes.remove(node) if node in nodes else None,
    )
    slicer = SimpleNamespace(
        modules=SimpleNamespace(antsregistration=object()), mrmlScene=scene, util=SimpleNamespace(saveNode=save)
    )
    monkeypatch.setattr(AntsLogic, "fails", fails)
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    monkeypatch.setitem(sys.modules, "sitkUtils", SimpleNamespace(PushVolumeToSlicer=push))
    monkeypatch.setitem(sys.modules, "antsRegistration", SimpleNamespace(antsRegistrationLogic=AntsLogic))
    return nodes


def test_ants_of_slicer_is_asked_as_the_extension_expects(pair, monkeypatch):
    nodes = slicer_with_ants(monkeypatch, fails=False)
    assert peers.why_missing("slicer-ants") is None
    found = peers.register("slicer-ants", *pair, pair[0] > -900)
    assert np.allclose(found.TransformPoint((1.0, 2.0, 3.0)), (2.5, 0.0, 3.5))
    assert nodes == []


def test_what_ants_of_slicer_says_when_it_fails_is_handed_on(pair, monkeypatch):
    nodes = slicer_with_ants(monkeypatch, fails=True)
    with pytest.raises(StageError, match=r"'slicer-ants' gave up: the metric is not defined"):
        peers.register("slicer-ants", *pair, pair[0] > -900)
    assert nodes == []
