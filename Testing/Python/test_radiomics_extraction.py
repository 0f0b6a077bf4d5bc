"""Extraction of several regions: what cannot be measured, processes, progress, and the cache."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from radiomics_cases import ball, ct, region

from ImmunoRadiomicsLib.errors import CancelledError, InputError
from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import Preset, extract, load_preset, software_versions
from ImmunoRadiomicsLib.radiomics.cache import Cache
from ImmunoRadiomicsLib.radiomics.presets import parse_preset

FAST = parse_preset(
    "imageType: {Original: {}, LoG: {sigma: [1.0, 8.0]}}\nfeatureClass: {shape: , firstorder: , glcm: , ngtdm: }\n"
    "setting: {binWidth: 25, minimumROIDimensions: 3, minimumROISize: 10}",
    Path("fast.yaml"),
)
LENIENT = parse_preset(
    "imageType: {Original: {}}\nsetting: {binWidth: 25, minimumROIDimensions: 1}", Path("lenient.yaml")
)


def boxed(image: sitk.Image, z: slice, y: slice, x: slice) -> RegionMask:
    mask = np.zeros(image.GetSize()[::-1], bool)
    mask[z, y, x] = True
    return region(mask)


def reason_of(image: sitk.Image, mask: RegionMask, preset: Preset) -> str:
    (features,) = extract({"baseline": image}, [mask], preset)
    assert features.values == {}
    assert features.reason is not None
    return features.reason


@pytest.mark.parametrize(
    ("spans", "preset", "words"),
    [
        ((slice(0, 0), slice(0, 0), slice(0, 0)), FAST, "empty"),
        ((slice(5, 6), slice(20, 21), slice(20, 21)), FAST, "single voxel"),
        ((slice(5, 6), slice(20, 21), slice(20, 21)), LENIENT, "single voxel"),
        ((slice(5, 6), slice(20, 21), slice(20, 40)), FAST, "a line of voxels; 3 dimensions"),
        ((slice(5, 6), slice(20, 30), slice(20, 30)), FAST, "a single layer of voxels; 3 dimensions"),
        ((slice(5, 7), slice(20, 22), slice(20, 22)), FAST, "8 voxels; more than 10"),
    ],
)
def test_regions_that_the_preset_excludes(spans: tuple[slice, slice, slice], preset: Preset, words: str) -> None:
    image = ct()
    assert words in reason_of(image, boxed(image, *spans), preset)


def test_flat_region_that_the_preset_allows() -> None:
    image = ct()
    (features,) = extract({"baseline": image}, [boxed(image, slice(5, 6), slice(20, 30), slice(20, 30))], LENIENT)
    assert features.reason is None
    assert features.values["original_shape_MajorAxisLength"] > 0


@pytest.mark.parametrize("resampled", ["", ", resampledPixelSpacing: [2, 2, 2]"])
def test_a_volume_of_one_value_cannot_be_normalised(resampled: str) -> None:
    preset = parse_preset(f"setting: {{normalize: true, binWidth: 0.1{resampled}}}", Path("x.yaml"))
    image = ct() * 0 + 40
    assert "one value throughout" in reason_of(image, region(ball(image, (8, 20, 20), 5)), preset)


def test_a_region_that_resegmentation_empties() -> None:
    preset = parse_preset("setting: {resegmentRange: [2000, 3000], binWidth: 25}", Path("x.yaml"))
    image = ct()
    assert "resegmentation" in reason_of(image, region(ball(image, (20, 30, 28), 5)), preset)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(20, 30, 28), (0, 0, 0)])
def test_voxels_that_are_not_numbers(value: float, place: tuple[int, int, int]) -> None:
    source = ct()
    array = sitk.GetArrayFromImage(source).astype(np.float32)
    array[place] = value
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(source)
    assert "not finite" in reason_of(image, region(ball(image, (20, 30, 28), 5)), FAST)


def test_a_filter_wider_than_the_image_leaves_its_features_empty() -> None:
    image = ct((7, 40, 40))
    (features,) = extract({"baseline": image}, [region(ball(image, (3, 20, 20), 6))], FAST)
    assert features.reason is None
    assert tuple(features.values) == FAST.columns
    missing = {name for name, value in features.values.items() if value is None}
    assert missing == {name for name in FAST.columns if name.startswith("log-sigma-8-0")}


def test_a_bin_width_far_too_small_is_a_reason() -> None:
    preset = parse_preset("setting: {binWidth: 0.01}\nfeatureClass: {glcm: }", Path("x.yaml"))
    image = ct((10, 20, 20))
    assert "grey levels" in reason_of(image, region(ball(image, (5, 10, 10), 4)), preset)


def test_all_problems_of_the_input_are_listed() -> None:
    image = ct((10, 20, 20))
    outside = RegionMask("baseline", "L1", "core", (8, 0, 0), np.ones((4, 4, 4), bool))
    unknown = RegionMask("followup-9", "L1", "core", (0, 0, 0), np.ones((4, 4, 4), bool))
    with pytest.raises(InputError) as caught:
        extract({"baseline": image, "flat": sitk.Image(8, 8, sitk.sitkInt16)}, [outside, unknown], FAST)
    assert len(caught.value.problems) == 3
    assert "baseline L1 core" in str(caught.value)
    assert "followup-9" in str(caught.value)


def patient() -> tuple[dict[str, sitk.Image], list[RegionMask]]:
    volumes = {"baseline": ct(seed=1), "followup-1": ct(seed=2)}
    regions = []
    for timepoint, image in volumes.items():
        for number, centre in enumerate([(12, 30, 28), (26, 26, 36)]):
            core = ball(image, centre, 4 + number)
            regions.append(region(core, "core", f"L{number}", timepoint))
            regions.append(region(ball(image, centre, 8) & ~core, "ring-0-5mm", f"L{number}", timepoint))
        regions.append(region(np.zeros(core.shape, bool), "ring-5-10mm", "L0", timepoint))
        regions.append(region(ball(image, (20, 30, 28), 12), "lungs", None, timepoint))
    return volumes, regions


def test_processes_give_the_same_as_one() -> None:
    volumes, regions = patient()
    lung = load_preset("ct-lesion-fast")
    alone = extract(volumes, regions, FAST, lung_preset=lung)
    assert extract(volumes, regions, FAST, lung_preset=lung, jobs=3) == alone
    assert [(item.timepoint, item.lesion, item.region) for item in alone] == [
        (item.timepoint, item.lesion, item.region) for item in regions
    ]
    assert [tuple(item.values) for item in alone if item.lesion is None] == [lung.columns] * 2
    assert [item.reason for item in alone if item.region == "ring-5-10mm"] == ["the region is empty"] * 2


def test_where_volumes_cannot_be_shared_one_process_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes, regions = patient()
    alone = extract(volumes, regions[:2], FAST)
    started: list[object] = []
    monkeypatch.setattr(
        "ImmunoRadiomicsLib.radiomics.extraction.run_in_processes", lambda *given: started.append(given)
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    assert extract(volumes, regions[:2], FAST, jobs=2) == alone
    assert not started


def test_progress_rises_to_one() -> None:
    volumes, regions = patient()
    seen: list[float] = []
    extract(volumes, regions, FAST, jobs=2, progress=lambda fraction, message: seen.append(fraction))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert len(seen) >= len(regions)


@pytest.mark.parametrize("jobs", [1, 2])
def test_cancelled_work_is_kept_and_reused(tmp_path: Path, jobs: int) -> None:
    volumes, regions = patient()
    calls = 0

    def stop(fraction: float, message: str) -> None:
        nonlocal calls
        calls += message.startswith("Features of")
        if calls == 3:
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        extract(volumes, regions, FAST, jobs=jobs, cache=tmp_path, progress=stop)
    kept = len(list(tmp_path.glob("*/*.json")))
    assert kept >= 3
    result = extract(volumes, regions, FAST, cache=tmp_path)
    assert result == extract(volumes, regions, FAST)
    assert len(list(tmp_path.glob("*/*.json"))) > kept
    assert not list(tmp_path.glob("*/*.part"))


def test_cache_computes_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes, regions = patient()
    first = extract(volumes, regions, FAST, cache=tmp_path)

    def fail(*_: object) -> None:
        raise AssertionError("nothing is left to compute")

    monkeypatch.setattr("ImmunoRadiomicsLib.radiomics.workers.measure", fail)
    assert extract(volumes, regions, FAST, cache=tmp_path) == first


def test_cache_depends_on_everything(tmp_path: Path) -> None:
    image = ct((16, 30, 30))
    mask = region(ball(image, (8, 15, 15), 5))

    def count(volume: sitk.Image, of: RegionMask, preset: Preset) -> int:
        extract({"baseline": volume}, [of], preset, cache=tmp_path)
        return len(list(tmp_path.glob("*/*.json")))

    assert count(image, mask, LENIENT) == 1
    assert count(image, RegionMask("baseline", "other", "name", mask.offset_zyx, mask.voxels), LENIENT) == 1
    brighter = image + 1
    assert count(brighter, mask, LENIENT) == 2
    wider = sitk.Image(image)
    wider.SetSpacing((0.75, 0.75, 1.5))
    assert count(wider, mask, LENIENT) == 3
    assert count(image, RegionMask("baseline", "L1", "core", (0, 0, 0), mask.voxels), LENIENT) == 4
    smaller = mask.voxels.copy()
    smaller[tuple(np.argwhere(smaller)[0])] = False
    assert count(image, RegionMask("baseline", "L1", "core", mask.offset_zyx, smaller), LENIENT) == 5
    assert count(image, mask, FAST) == 6


def test_a_damaged_file_of_the_cache_counts_as_absent(tmp_path: Path) -> None:
    image = ct((16, 30, 30))
    mask = region(ball(image, (8, 15, 15), 5))
    first = extract({"baseline": image}, [mask], LENIENT, cache=tmp_path)
    (path,) = tmp_path.glob("*/*.json")
    whole = path.read_text()
    name, value = next((name, value) for name, value in json.loads(whole)["values"].items() if value)
    other = extract({"baseline": image * 2}, [mask], LENIENT, cache=tmp_path / "other")
    (foreign,) = (tmp_path / "other").glob("*/*.json")
    assert other != first
    wrong = [whole.replace(repr(value), text, 1) for text in ("NaN", "true", repr(value * 2))]
    wrong += ["", '{"reason": null', "[]", '{"reason": null, "values": 3}', '{"reason": 3, "values": {}}']
    for content in (*wrong, '{"reason": null, "values": {}}', whole.replace(name, "foo", 1), foreign.read_text()):
        path.write_text(content)
        assert extract({"baseline": image}, [mask], LENIENT, cache=tmp_path) == first
        assert path.read_text() == whole


def test_the_cache_is_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=3000)
    keys = [f"{number:02x}{number:062x}" for number in range(10)]
    for age, key in enumerate(keys):
        cache.write(key, None, {f"feature {number}": float(number) for number in range(40)})
        os.utime(tmp_path / key[:2] / f"{key}.json", (1000 + age, 1000 + age))
    assert cache.read(keys[0]) is not None
    left_behind = tmp_path / "00" / ".x.part"
    left_behind.write_text("{")
    os.utime(left_behind, (1000, 1000))
    cache.prune()
    kept = {path.stem for path in tmp_path.glob("*/*.json")}
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.json")) <= 3000
    assert {keys[0], keys[9]} <= kept
    assert keys[1] not in kept
    assert not left_behind.exists()


def test_a_cache_that_cannot_be_written_to_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    image = ct((16, 30, 30))
    mask = region(ball(image, (8, 15, 15), 5))
    (found,) = extract({"baseline": image}, [mask], LENIENT, cache=tmp_path / "file" / "cache")
    assert found.reason is None


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("sent", "to_group"), [("SIGINT", True), ("SIGTERM", True), ("SIGTERM", False)])
@pytest.mark.parametrize("after", [0.0, 1.5])
def test_an_interrupted_run_ends_its_processes_without_a_word_from_them(
    tmp_path: Path, sent: str, to_group: bool, after: float
) -> None:
    (tmp_path / "run_it.py").write_text(
        "import signal, sys\n"
        "from test_radiomics_extraction import FAST, patient\n"
        "from ImmunoRadiomicsLib.radiomics import extract\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "    volumes, regions = patient()\n"
        "    print('ready', flush=True)\n"
        "    try:\n"
        "        while True:\n"
        "            extract(volumes, regions, FAST, jobs=2)\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join([str(tmp_path), str(here), str(here.parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-m", "run_it"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3 + after)
    number = getattr(signal, sent)
    if to_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    # Their ends of the pipes close with the last of the processes.
    _, errors = process.communicate(timeout=60)
    assert errors == ""
    assert process.returncode in (130, -signal.SIGTERM)


def test_runs_share_a_cache(tmp_path: Path) -> None:
    volumes, regions = patient()
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(extract(volumes, regions, FAST, cache=tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]


def test_processes_from_a_module_run(tmp_path: Path) -> None:
    """As the terminal starts it: ``python -m``, with the work guarded."""
    (tmp_path / "run_it.py").write_text(
        "from test_radiomics_extraction import FAST, patient\n"
        "from ImmunoRadiomicsLib.radiomics import extract\n"
        "if __name__ == '__main__':\n"
        "    print(len(extract(*patient(), FAST, jobs=2)))\n"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join([str(tmp_path), str(here), str(here.parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "run_it"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "12"


def test_versions_are_named() -> None:
    versions = software_versions()
    assert {"engine", "pyradiomics", "numpy", "SimpleITK", "PyWavelets", "python"} <= set(versions)
    assert all(versions.values())
