"""The rules of the house: imports point down, schemas are current, nothing of a machine or a person is in the files."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ImmunoRadiomicsLib.report.dicom import codes
from ImmunoRadiomicsLib.schemas import schemas
from ImmunoRadiomicsLib.study import Acquisition, Clinical, LesionLink, LesionSpec, Study, Timepoint, Treatment

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "ImmunoRadiomicsLib"

# Each part may import what stands in a row above its own.
ORDER = (
    {
        "__init__",
        "errors",
        "progress",
        "delimited",
        "resources",
        "files",
        "analysis",
        "study",
        "images",
        "serialise",
        "organs",
        "transforms",
        "processes",
    },
    {"alignment", "lesions", "radiomics", "response", "simulation", "dicom"},
    {"classifiers"},
    {"report", "training", "workspace", "inputs", "readings", "finished", "order"},
    {"pipeline"},
    {"scene", "schemas", "cohort"},
    {"cli", "display", "__main__"},
)
# Base files and the helpers of the pipeline know each other; parts of one row otherwise do not.
ACQUAINTED = (0, 3, 6)
SLICER_BRINGS = {"numpy", "scipy", "SimpleITK", "vtk", "pydicom"}


def rank(part: str) -> int:
    return next(index for index, row in enumerate(ORDER) if part in row)


def part_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports_of(path: Path, *, file_scope_only: bool) -> list[str]:
    """Return every imported module, our own as `ImmunoRadiomicsLib.part...`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("ImmunoRadiomicsLib", *path.relative_to(LIBRARY).parts[:-1])
    found = []
    nodes = ast.walk(tree) if not file_scope_only else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found += [f"{module}.{alias.name}" for alias in node.names] if module == "ImmunoRadiomicsLib" else [module]
    return found


FILES = sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_imports_point_down(path: Path) -> None:
    own = part_of(path)
    for name in imports_of(path, file_scope_only=False):
        if not name.startswith("ImmunoRadiomicsLib."):
            continue
        other = name.split(".")[1]
        if other in (own, "SOURCE_VERSION") or own == "__init__":
            continue
        below = rank(other) < rank(own) or (rank(other) == rank(own) and rank(own) in ACQUAINTED)
        assert below, f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_only_what_slicer_brings_is_imported_at_file_scope(path: Path) -> None:
    for name in imports_of(path, file_scope_only=True):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names | SLICER_BRINGS | {"ImmunoRadiomicsLib"}, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_nothing_unsafe_is_loaded(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in imports_of(path, file_scope_only=False):
        assert name.split(".")[0] not in {"pickle", "marshal", "shelve", "joblib"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}
    assert "yaml.load(" not in text
    assert "allow_pickle=True" not in text


def test_the_package_imports_without_what_slicer_lacks() -> None:
    code = (
        "import sys\n"
        "for name in ('yaml', 'jinja2', 'pywt', 'radiomics', 'slicer', 'pandas', 'sklearn'): sys.modules[name] = None\n"
        "import ImmunoRadiomicsLib.pipeline, ImmunoRadiomicsLib.cli, ImmunoRadiomicsLib.scene, ImmunoRadiomicsLib.simulation\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_written_schemas_are_those_of_the_code() -> None:
    for name, schema in schemas().items():
        written = json.loads((ROOT / "Resources" / "Schemas" / name).read_text(encoding="utf-8"))
        assert written == schema, f"{name}: run python -m ImmunoRadiomicsLib.schemas"


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("no git checkout")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name]


def test_no_machine_path_is_in_the_project() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/\w+")
    for path in tracked_files():
        if (
            path.suffix in {".py", ".md", ".toml", ".yaml", ".json", ".txt", ".cff", ".html", ".css", ""}
            and path.exists()
        ):
            found = pattern.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.name}: {found.group() if found else ''}"


def test_no_patient_image_is_in_the_project() -> None:
    for path in tracked_files():
        assert not path.name.lower().endswith((".nrrd", ".nii", ".nii.gz", ".mha", ".dcm", ".h5")), path


def test_every_key_of_a_study_is_described() -> None:
    text = (ROOT / "Docs" / "STUDY.md").read_text(encoding="utf-8")
    kinds = (Study, Treatment, Clinical, Timepoint, LesionSpec, LesionLink, Acquisition)
    for key in (item.name for kind in kinds for item in dataclasses.fields(kind)):
        assert f"`{key}`" in text, key


def test_every_private_code_is_described() -> None:
    text = (ROOT / "Docs" / "DICOM.md").read_text(encoding="utf-8")
    table = [*codes._RECIST.values(), *codes._IRECIST.values()]
    private = {value for value, _ in table} | {
        value for value, scheme, _ in codes._CATEGORIES.values() if scheme == codes.PRIVATE_SCHEME
    }
    assert len(private) > 10
    for value in private:
        assert f"`{value}`" in text, value
