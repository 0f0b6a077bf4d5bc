"""What the extension ships is what the tree holds, and what the extensions index asks for is there."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "ImmunoRadiomics"
NAME = "ImmunoRadiomics"

# The keys of slicer-extension-catalog-entry-schema-v1.0.2 with their types.
ENTRY_KEYS = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "dicom_support_rule": str,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}

# Slicer's build system as far as these lists need it: every file goes where
# ctkMacroCompilePythonScript puts it, below the destination under its path relative to the source folder.
SLICER_STAND_IN = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/use.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/use.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "lib/qt-scripted-modules")
function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR;GLOBAL_TARGET" "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR"
    "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown arguments: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS ${MY_SOURCE_DIR}/${file})
      message(FATAL_ERROR "no such file: ${file}")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${MY_SOURCE_DIR}/${file} DESTINATION ${MY_INSTALL_DIR}/${folder})
  endforeach()
endfunction()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  ctkMacroCompilePythonScript(TARGET_NAME ${MY_NAME} SCRIPTS "${MY_SCRIPTS}" RESOURCES "${MY_RESOURCES}"
    SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR} INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR} NO_INSTALL_SUBDIR)
endfunction()
"""


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def cmake_list(path: Path, name: str) -> list[str]:
    found = re.search(rf"set\({name}\n(.*?)\)", path.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{path.name} has no list {name}"
    return found.group(1).split()


def setting(name: str) -> str:
    """A one-line set() of the top-level CMakeLists.txt, read as the extensions index reads it."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.findall(rf'set\s*\({name}\s*"([^"]+)"[ ]*\)', text)
    assert len(found) == 1, f"{name} is not set once on one line"
    return found[0]


def said(name: str, expected: list[str]) -> str:
    return f"ImmunoRadiomics/CMakeLists.txt: the list {name} should be\n  " + "\n  ".join(expected)


def test_every_file_of_the_engine_is_packaged_and_nothing_else():
    tree = files_below(ROOT / "ImmunoRadiomicsLib")
    scripts = sorted(path for path in tree if path.endswith(".py"))
    # The pictures are for people who have not installed it yet.
    shipped = files_below(ROOT / "Resources") - files_below(ROOT / "Resources" / "Screenshots")
    resources = sorted(path for path in tree if not path.endswith(".py")) + sorted(shipped)
    for name, expected in (("ENGINE_PYTHON_SCRIPTS", scripts), ("ENGINE_RESOURCES", resources)):
        listed = cmake_list(MODULE / "CMakeLists.txt", name)
        assert len(set(listed)) == len(listed), f"{name} names a file twice"
        assert set(listed) == set(expected), said(name, expected)


def test_every_file_of_the_module_is_packaged():
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", NAME)
    files = {Path(path).relative_to(NAME).as_posix() for path in files_below(MODULE)} - {"CMakeLists.txt"}
    assert {path for path in files if path not in text.split()} == set()


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_an_installed_package_runs(tmp_path):
    stand_in = tmp_path / "slicer"
    stand_in.mkdir()
    (stand_in / "SlicerConfig.cmake").write_text(SLICER_STAND_IN)
    (stand_in / "use.cmake").write_text("")
    build, prefix = tmp_path / "build", tmp_path / "installed"
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={stand_in}"],
        ["cmake", "--install", str(build), "--prefix", str(prefix)],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    modules = prefix / "lib" / "qt-scripted-modules"
    assert (modules / "Resources" / "Icons" / f"{NAME}.png").exists()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import importlib, pkgutil, ImmunoRadiomicsLib\n"
        "from ImmunoRadiomicsLib.resources import resource\n"
        "for module in pkgutil.walk_packages(ImmunoRadiomicsLib.__path__, 'ImmunoRadiomicsLib.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "print(ImmunoRadiomicsLib.__file__, resource('Presets'), resource('Schemas'), resource('Classifiers'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(modules)],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(modules)) for path in done.stdout.split())


def test_the_extension_has_the_metadata_that_the_index_reads():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.findall(r"project\s*\(\s*([^\s\)\n\r]+)", text) == [NAME]
    for name in ("EXTENSION_HOMEPAGE", "EXTENSION_CONTRIBUTORS", "EXTENSION_DESCRIPTION"):
        assert setting(name)
    # SlicerRadiomics is recommended, not required: the index skips the packaging check of extensions with dependencies, and a
    # platform on which it does not build would not get this one either.
    assert setting("EXTENSION_DEPENDS") == "NA"
    assert setting("EXTENSION_RECOMMENDS") == "SlicerRadiomics"
    assert (ROOT / "LICENSE.txt").is_file()
    assert (ROOT / "README.md").is_file()


def test_every_picture_that_the_metadata_links_to_is_in_the_repository():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    repository = json.loads((ROOT / f"{NAME}.json").read_text())["scm_url"].removesuffix(".git")
    raw = repository.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    links = re.findall(r"https://raw\.githubusercontent\.com/[^\s\"]+", text)
    assert links
    for link in links:
        assert link.startswith(raw)
        assert (ROOT / link.removeprefix(raw)).is_file(), link
    assert links == [setting("EXTENSION_ICONURL"), *setting("EXTENSION_SCREENSHOTURLS").split()]


def test_the_icon_is_a_128_pixel_png():
    data = (MODULE / "Resources" / "Icons" / f"{NAME}.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (128, 128)


def test_the_entry_of_the_extensions_index_is_valid():
    data = (ROOT / f"{NAME}.json").read_bytes()
    assert b"\r" not in data
    entry = json.loads(data)
    assert set(entry) <= set(ENTRY_KEYS)
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert all(isinstance(value, ENTRY_KEYS[key]) for key, value in entry.items())
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["category"] == "Quantification"
    assert entry["build_dependencies"] == []
    assert entry["tier"] in {1, 3, 5}
    repository = entry["scm_url"].rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
    assert repository.startswith("Slicer")
    assert not NAME.lower().startswith("slicer")
    assert entry["scm_url"].removesuffix(".git") == setting("EXTENSION_HOMEPAGE")


def test_the_citation_fits_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project


def test_the_repository_stays_small_enough_for_the_index():
    done = subprocess.run(["git", "ls-files", "-z"], check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    size = sum((ROOT / path).stat().st_size for path in done.stdout.split("\0") if path and (ROOT / path).is_file())
    assert size < 20e6
