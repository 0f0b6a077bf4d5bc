"""Deformable engines of others behind the same function: Python packages that may be installed, and modules of 3D Slicer.

Each is given two scans on one grid along the patient axes, the follow-up already laid on the baseline linearly, and returns a transform from
baseline to follow-up points. None of them is needed: each is imported only when asked for. Python packages run in a process and a folder of
their own, so that a crash inside them ends no more than that process and what they write by the way disappears with the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import StageError

_ROOT = Path(__file__).resolve().parents[2]
_GREEDY = "-d 3 -i fixed moving -gm region -ia-identity -m NCC 2x2x2 -n 100x60x30 -s 1.5vox 0.7vox -o warp"
_ELASTIX_ITERATIONS = 500
_ELASTIX_NODES_MM = 10
_BRAINS_NODES_MM = 15.0
_BRAINS_SAMPLES = 0.01  # of all voxels; memory grows with it, to 10 GiB at 0.02 on a whole chest

# Symmetric normalisation on the local correlation, as the extension writes it: transform, metric and the levels from coarse to fine.
_ANTS_TRANSFORM = "0.2,3,0"
_ANTS_METRIC = "1,2"
_ANTS_LEVELS = ((60, 3, 6), (40, 2, 4), (20, 1, 2), (0, 0, 1))

Register = Callable[[sitk.Image, sitk.Image, sitk.Image], sitk.Transform]


def register(engine: str, fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
    """Deform ``moving`` onto ``fixed`` with one of ``PEERS``.

    Parameters
    ----------
    fixed, moving
        Densities on one grid with the identity as direction.
    region
        Where the images may pull, not 0, on the same grid.

    Returns
    -------
    SimpleITK.Transform
        From points of ``fixed`` to points of ``moving``, LPS mm.

    Raises
    ------
    StageError
        If the engine gives up.
    """
    try:
        return PEERS[engine].run(fixed, moving, region)
    except (RuntimeError, OSError, ValueError) as error:
        raise StageError(f"The alignment engine {engine!r} gave up: {error}. Choose the engine 'auto'.") from error


def why_missing(engine: str) -> str | None:
    """Return why an engine of ``PEERS`` cannot be used here and what to do about it; None where it can."""
    peer = PEERS[engine]
    if peer.distribution:
        try:
            version(peer.distribution)
        except PackageNotFoundError:
            return (
                f"The alignment engine {engine!r} is not installed. "
                f"Run 'pip install {peer.distribution}', or choose the engine 'auto'."
            )
        return None
    if _program(peer) is not None if peer.program else _module(peer) is not None:
        return None
    install = f" with the extension {peer.extension}" if peer.extension else ""
    return f"The alignment engine {engine!r} works inside 3D Slicer{install} only. Run it there, or choose the engine 'auto'."


def _slicer() -> ModuleType | None:
    try:
        return import_module("slicer")
    except ImportError:
        return None


def _module(peer: _Peer) -> Any:
    """Return the module of a running Slicer, None outside or where it lacks."""
    return getattr(getattr(_slicer(), "modules", None), peer.module, None)


def _program(peer: _Peer) -> str | None:
    """Return the path of the program behind a module of Slicer, None where it lacks.

    A running Slicer says where the module lies; a terminal, and the process that the panel starts, find the program on the search path that
    Slicer's launcher sets.
    """
    module = _module(peer)
    beside = None if module is None else shutil.which(peer.program, path=str(Path(str(module.path)).parent))
    return beside or shutil.which(peer.program)


def _apart(engine: str) -> Register:
    """Return a function that runs one of ``_PACKAGES`` in a process of its own."""

    def run(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for role, image in (
                ("fixed", fixed),
                ("moving", moving),
                ("region", sitk.Cast(region != 0, sitk.sitkUInt8)),
            ):
                sitk.WriteImage(image, str(folder / f"{role}.nrrd"))
            threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
            call = f"from {__name__} import run_package; run_package({engine!r}, {threads})"
            paths = [str(_ROOT), *(path for path in sys.path if path)]
            # Our own interpreter with a sentence of our own making.
            done = subprocess.run(  # noqa: S603
                [_python(), "-c", call],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            found = folder / "found.h5"
            if done.returncode or not found.exists():
                raise RuntimeError(_last_words(done))
            return sitk.ReadTransform(str(found)).Downcast()

    return run


def run_package(engine: str, threads: int) -> None:
    """Deform what lies in the working folder (``fixed``, ``moving`` and ``region``, all .nrrd) and leave ``found.h5`` there."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    fixed, moving = (sitk.ReadImage(f"{role}.nrrd", sitk.sitkFloat32) for role in ("fixed", "moving"))
    sitk.WriteTransform(_PACKAGES[engine](fixed, moving, sitk.ReadImage("region.nrrd")), "found.h5")


def _python() -> str:
    """Return the Python interpreter; inside the application of Slicer ``sys.executable`` is the application."""
    if Path(sys.executable).stem.lower().startswith("python"):
        return sys.executable
    if (found := shutil.which("PythonSlicer")) is None:
        raise RuntimeError("PythonSlicer was not found")
    return found


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a process that failed said last, or how it ended where a signal ended it."""
    if done.returncode < 0:
        return f"its process crashed ({signal.Signals(-done.returncode).name})"
    said = [line.strip() for line in (*done.stdout.splitlines(), *done.stderr.splitlines()) if line.strip()]
    return said[-1] if said else f"its process ended with code {done.returncode} and said nothing"


def _greedy(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
    greedy = import_module("picsl_greedy").Greedy3D()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    weight = sitk.Cast(region != 0, sitk.sitkFloat32)
    greedy.execute(f"{_GREEDY} -threads {threads}", fixed=fixed, moving=moving, region=weight, warp=None)
    return sitk.DisplacementFieldTransform(sitk.Cast(greedy["warp"], sitk.sitkVectorFloat64))


def _elastix(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
    itk: Any = import_module("itk")

    def image(source: sitk.Image) -> Any:
        result = itk.image_from_array(np.ascontiguousarray(sitk.GetArrayFromImage(source)))
        result.SetSpacing(source.GetSpacing())
        result.SetOrigin(source.GetOrigin())
        return result

    parameters = itk.ParameterObject.New()
    plan = parameters.GetDefaultParameterMap("bspline", 4)
    plan["MaximumNumberOfIterations"] = [str(_ELASTIX_ITERATIONS)]
    plan["FinalGridSpacingInPhysicalUnits"] = [str(_ELASTIX_NODES_MM)]
    parameters.AddParameterMap(plan)
    target, source = image(fixed), image(moving)
    _, found = itk.elastix_registration_method(
        target,
        source,
        parameter_object=parameters,
        fixed_mask=image(sitk.Cast(region != 0, sitk.sitkUInt8)),
        log_to_console=False,
    )
    vectors = itk.array_from_image(itk.transformix_deformation_field(source, found))
    field = sitk.GetImageFromArray(vectors.astype(np.float64), isVector=True)
    field.CopyInformation(fixed)
    return sitk.DisplacementFieldTransform(field)


def _ants(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
    ants: Any = import_module("ants")
    paths = {}
    images = {"fixed": fixed, "moving": moving, "region": sitk.Cast(region != 0, sitk.sitkFloat32)}
    for name, image in images.items():
        paths[name] = f"{name}.nii.gz"
        sitk.WriteImage(image, paths[name])
    target, source, mask = (ants.image_read(paths[name]) for name in images)
    result = ants.registration(target, source, type_of_transform="SyNOnly", mask=mask, outprefix="ants_")
    warps = [path for path in result["fwdtransforms"] if path.endswith((".nii.gz", ".nii"))]
    if not warps:
        raise RuntimeError("it returned no displacement field")
    return sitk.DisplacementFieldTransform(sitk.ReadImage(warps[0], sitk.sitkVectorFloat64))


def _in_slicer(run: Callable[[Any, Any, Any, Any, Any], None], *images: sitk.Image) -> sitk.Transform:
    """Push the images to the scene, run a module on their nodes, take its transform back, and remove what was made."""
    slicer: Any = import_module("slicer")
    utilities: Any = import_module("sitkUtils")
    nodes = []
    try:
        for image, kind in zip(images, ("ScalarVolume", "ScalarVolume", "LabelMapVolume"), strict=True):
            nodes.append(utilities.PushVolumeToSlicer(image, className=f"vtkMRML{kind}Node"))
        output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        nodes.append(output)
        run(slicer, *nodes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "found.h5"
            if not slicer.util.saveNode(output, str(path)):
                raise RuntimeError("its transform could not be saved")
            return sitk.ReadTransform(str(path))
    finally:
        for node in nodes:
            slicer.mrmlScene.RemoveNode(node)


def _brains(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
    program = str(_program(PEERS["brains"]))
    extent = [length * step for length, step in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    nodes = ",".join(str(max(3, round(length / _BRAINS_NODES_MM))) for length in extent)
    mask = sitk.Cast(region != 0, sitk.sitkUInt8)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.nrrd") for name in ("fixed", "moving", "mask")}
        for name, image in (("fixed", fixed), ("moving", moving), ("mask", mask)):
            sitk.WriteImage(image, files[name])
        found = str(Path(folder) / "found.h5")
        arguments = {
            "--fixedVolume": files["fixed"],
            "--movingVolume": files["moving"],
            "--fixedBinaryVolume": files["mask"],
            "--movingBinaryVolume": files["mask"],
            "--maskProcessingMode": "ROI",
            "--bsplineTransform": found,
            "--initializeTransformMode": "Off",
            "--splineGridSize": nodes,
            "--samplingPercentage": str(_BRAINS_SAMPLES),
            "--costMetric": "MMI",
            "--numberOfThreads": str(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()),
        }
        command = [program, "--useBSpline", *(word for pair in arguments.items() for word in pair)]
        # A program of Slicer, started with paths of our own making.
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode or not Path(found).exists():
            raise RuntimeError(_last_words(done))
        return sitk.ReadTransform(found)


def _slicer_elastix(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
    def run(slicer: Any, target: Any, source: Any, mask: Any, output: Any) -> None:
        logic = import_module("Elastix").ElastixLogic()
        logic.registerVolumes(target, source, outputTransformNode=output, fixedVolumeMaskNode=mask)

    return _in_slicer(run, fixed, moving, sitk.Cast(region != 0, sitk.sitkUInt8))


def _slicer_ants(fixed: sitk.Image, moving: sitk.Image, region: sitk.Image) -> sitk.Transform:
    def run(slicer: Any, target: Any, source: Any, mask: Any, output: Any) -> None:
        steps = [
            {"convergence": iterations, "smoothingSigmas": sigma, "shrinkFactors": factor}
            for iterations, sigma, factor in _ANTS_LEVELS
        ]
        stage = {
            "transformParameters": {"transform": "SyN", "settings": _ANTS_TRANSFORM},
            "metrics": [{"type": "CC", "fixed": target, "moving": source, "settings": _ANTS_METRIC}],
            "levels": {
                "steps": steps,
                "smoothingSigmasUnit": "vox",
                "convergenceThreshold": 6,
                "convergenceWindowSize": 10,
            },
            # The extension leaves out a mask that comes alone.
            "masks": {"fixed": mask, "moving": mask},
        }
        logic = import_module("antsRegistration").antsRegistrationLogic()
        logic.process(
            stages=[stage],
            outputSettings={"transform": output, "volume": None, "interpolation": "Linear"},
            initialTransformSettings={"initializationFeature": -1},
            generalSettings={"dimensionality": 3, "computationPrecision": "float"},
            wait_for_completion=True,
        )
        ended = logic.cliNode
        failed = ended.GetStatus() & ended.ErrorsMask
        message = ended.GetErrorText()
        slicer.mrmlScene.RemoveNode(ended)
        if failed:
            raise RuntimeError(message)

    return _in_slicer(run, fixed, moving, sitk.Cast(region != 0, sitk.sitkUInt8))


_PACKAGES: dict[str, Register] = {"greedy": _greedy, "elastix": _elastix, "ants": _ants}


@dataclass(frozen=True)
class _Peer:
    """What runs an engine, and what it needs: a Python distribution, or a module of Slicer (`slicer.modules`) and perhaps its program."""

    run: Register
    distribution: str = ""
    module: str = ""
    program: str = ""
    extension: str = ""


PEERS = {
    "greedy": _Peer(_apart("greedy"), distribution="picsl_greedy"),
    "elastix": _Peer(_apart("elastix"), distribution="itk-elastix"),
    "ants": _Peer(_apart("ants"), distribution="antspyx"),
    "brains": _Peer(_brains, module="brainsfit", program="BRAINSFit"),
    "slicer-elastix": _Peer(_slicer_elastix, module="elastix", extension="SlicerElastix"),
    "slicer-ants": _Peer(_slicer_ants, module="antsregistration", extension="SlicerANTs"),
}
