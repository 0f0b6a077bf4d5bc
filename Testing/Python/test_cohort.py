"""Many patients: the list, workers that die, what is taken over, and the tables."""

from __future__ import annotations

import csv
import datetime
import errno
import gzip
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cohort_work import always_die, hold, nap, pid_unless_first, square, square_unless_first
from dicom_writer import ct_series, save
from factories import example_analysis

from ImmunoRadiomicsLib import radiomics, report
from ImmunoRadiomicsLib.analysis import Analysis
from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.cohort import load_cohort, read_cohort, run, work
from ImmunoRadiomicsLib.cohort.harmonised import Batch
from ImmunoRadiomicsLib.cohort.kept import KEPT_FILE, is_kept, keep, stamps_of
from ImmunoRadiomicsLib.cohort.listing import CohortPatient
from ImmunoRadiomicsLib.cohort.memory import available_bytes, give_back, needed_bytes
from ImmunoRadiomicsLib.cohort.pool import DaskPool, LocalPool, WorkerDiedError
from ImmunoRadiomicsLib.cohort.run import _outcomes, _tasks
from ImmunoRadiomicsLib.cohort.stability import write_perturbed, write_stability
from ImmunoRadiomicsLib.cohort.summary import write_summary
from ImmunoRadiomicsLib.cohort.work import RESULT, Outcome, Task, run_patient
from ImmunoRadiomicsLib.errors import BusyError, InputError
from ImmunoRadiomicsLib.files import whole_file
from ImmunoRadiomicsLib.images import RegionMask, segmentation_from_regions, write_segmentation
from ImmunoRadiomicsLib.order import Settings
from ImmunoRadiomicsLib.report.pdf_pages import PageSize
from ImmunoRadiomicsLib.serialise import to_json
from ImmunoRadiomicsLib.simulation import simulate_cohort
from ImmunoRadiomicsLib.study import Acquisition, Study, Timepoint
from ImmunoRadiomicsLib.workspace import lock

posix_only = pytest.mark.skipif(os.name == "nt", reason="processes are killed the POSIX way")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# The list


def test_the_list_tells_facts_from_other_columns(tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text("\ufeffPatient,study,label,ECOG,centre\nA,a/study.yaml,1,0,X\n\nB,b,,,Y\n", encoding="utf-8")
    cohort = read_cohort(table)
    assert [item.patient for item in cohort.patients] == ["A", "B"]
    assert cohort.patients[0].source == tmp_path / "a" / "study.yaml"
    assert cohort.patients[0].facts == {"ecog": "0"}
    assert cohort.patients[0].extra == {"label": "1", "centre": "X"}
    assert cohort.patients[1].extra == {"centre": "Y"}
    assert (cohort.fact_columns, cohort.extra_columns) == (("ecog",), ("label", "centre"))
    assert "A" not in cohort.patients[0].folder
    assert cohort.patients[0].folder != cohort.patients[1].folder


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_list_as_spreadsheets_of_other_countries_write_it(tmp_path: Path, delimiter: str) -> None:
    rows = ["Patient,study,centre,albumin_g_l,volume", "1|2,a b/ü.yaml,X,38|7,-0|5"]
    (tmp_path / "c.csv").write_text("\n".join(rows).replace(",", delimiter).replace("|", ","), encoding="utf-8")
    (patient,) = read_cohort(tmp_path / "c.csv").patients
    assert (patient.patient, patient.source) == ("1,2", tmp_path / "a b" / "ü.yaml")
    assert patient.facts == {"albumin_g_l": "38.7"}
    assert patient.extra == {"centre": "X", "volume": "-0.5"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["no column `patient`", "no column `study`"]),
        ("patient,label\nA,1\n", ["no column `study`"]),
        ("patient,study,study\nA,x,y\n", ["`study` is there twice"]),
        ("patient,study\n", ["no patient in the table"]),
        ("patient,study\nA,x\nA,y\nB\n,z\nC,\n", ["line 3", "line 4", "line 5: the row has no `patient`", "line 6"]),
    ],
)
def test_a_wrong_list_is_said_with_its_lines(tmp_path: Path, text: str, expected: list[str]) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(text)
    with pytest.raises(InputError) as caught:
        read_cohort(table)
    assert len(caught.value.problems) == len(expected)
    for problem, part in zip(caught.value.problems, expected, strict=True):
        assert part in problem


# Workers


def test_every_item_comes_back_once() -> None:
    found = dict(LocalPool[int, int](2).results(square, range(20)))
    assert found == {number: number * number for number in range(20)}


def test_short_tasks_given_out_together_do_not_wait_behind_a_long_one() -> None:
    """Sixty of a millisecond, two of half a second and sixty more: the other worker takes over what came with a long one."""
    seconds = [*[0.001] * 60, 0.5, 0.5, *[0.001] * 60]
    items = [(number, length) for number, length in enumerate(seconds)]
    found = list(LocalPool[tuple[int, float], int](2).results(nap, items))
    assert sorted(item for item, _ in found) == items
    pids = [pid for _, pid in found]
    assert len(set(pids)) == 2
    assert all(pids.count(pid) >= 20 for pid in pids)


def test_what_is_added_on_the_way_is_done_too() -> None:
    pool = LocalPool[int, int](2)
    found = []
    for item, result in pool.results(square, [1, 2]):
        found.append((item, result))
        if item < 10:
            pool.add([item + 10, item + 20])
    assert sorted(found) == [(item, item**2) for item in (1, 2, 11, 12, 21, 22)]


@posix_only
def test_a_killed_worker_does_not_take_its_neighbours_with_it(tmp_path: Path) -> None:
    tasks = [(number, str(tmp_path / str(number)) if number == 0 else "") for number in range(40)]
    processes: dict[int, int] = {}
    for (number, _), pid in LocalPool[tuple[int, str], int](2).results(pid_unless_first, tasks):
        assert number not in processes
        processes[number] = pid
    assert sorted(processes) == list(range(40))
    # The first one ended with the task that killed it, and the second one worked on.
    assert len(set(processes.values())) == 2


@posix_only
def test_a_task_whose_worker_was_killed_is_done_again(tmp_path: Path) -> None:
    tasks = [(number, str(tmp_path / str(number)) if number in (0, 7) else "") for number in range(10)]
    found = list(LocalPool[tuple[int, str], int](2).results(square_unless_first, tasks))
    assert sorted(task for task, _ in found) == sorted(tasks)
    assert all(result == task[0] ** 2 for task, result in found)


@posix_only
def test_a_task_that_always_brings_its_worker_down_fails_alone() -> None:
    found = dict(LocalPool[int, int](2).results(always_die, range(6)))
    assert isinstance(found.pop(3), WorkerDiedError)
    assert found == {number: number * number for number in (0, 1, 2, 4, 5)}


@posix_only
def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = (
        "from cohort_work import write_pid_and_sleep\n"
        "from ImmunoRadiomicsLib.cohort.pool import LocalPool\n"
        "if __name__ == '__main__':\n"
        f"    list(LocalPool(1).results(write_pid_and_sleep, [{str(pid_file)!r}]))\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(program)
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    driver = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().isdigit())
    finally:
        driver.kill()
        driver.wait()
    worker = int(pid_file.read_text())
    wait_until(lambda: not alive(worker))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_dask_cluster_gives_the_same(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = dict(DaskPool[int, int](client).results(square, range(20)))
        assert found == {number: number * number for number in range(20)}
        pool = DaskPool[int, int](client)
        more = []
        for item, result in pool.results(square, [1, 2]):
            more.append((item, result))
            if item < 10:
                pool.add([item + 10])
        assert sorted(more) == [(1, 1), (2, 4), (11, 121), (12, 144)]


def test_a_whole_cohort_on_a_given_client_gives_the_same_tables(listed: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    tables = []
    for name, client_wanted in (("local", False), ("dask", True)):
        out = tmp_path / name
        for patient in "AB":
            place_result(listed, out, patient)
        with ExitStack() as stack:
            client = None
            if client_wanted:
                cluster = distributed.LocalCluster(
                    n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
                )
                client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
            result = run(listed, out, resume=True, client=client)
        assert [item.status for item in result.outcomes] == ["done", "failed", "failed", "done", "failed"]
        tables.append(
            {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".html", ".parquet")}
        )
    assert len(tables[0]) >= 11
    assert tables[0] == tables[1]


def test_a_scheduler_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "c.csv").write_text("patient,study\nA,a\n")
    arguments = ["cohort", str(tmp_path / "c.csv"), "--out", str(tmp_path / "out"), "--scheduler", "nonsense"]
    assert main(arguments) == 2
    assert "--scheduler nonsense" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_memory_of_a_patient_is_told_from_the_headers_of_its_scans(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image([200, 200, 150], sitk.sitkInt16), tmp_path / "a.nrrd")
    (tmp_path / "b.nrrd").write_bytes(bytes(1000))
    (tmp_path / "study.yaml").write_text(
        "patient: x\ntimepoints:\n- {name: baseline, date: 2024-01-01, ct: a.nrrd}\n"
        "- {name: followup-1, date: 2024-03-01, ct: b.nrrd}\n"
    )
    need = needed_bytes(CohortPatient("A", tmp_path / "study.yaml"))
    assert need == (400 << 20) + 16 * (200 * 200 * 150 + 5 * 1000)
    assert needed_bytes(CohortPatient("A", tmp_path / "missing.yaml")) == 400 << 20
    (tmp_path / "block.yaml").write_text(
        'timepoints:\n- name: baseline\n  ct: "b.nrrd"  # drawn\n- ct: b.nrrd\n  name: followup-1\n  pet: a.nrrd\n# ct: none.nrrd\n'
    )
    assert needed_bytes(CohortPatient("A", tmp_path / "block.yaml")) == (400 << 20) + 16 * 2 * 5 * 1000
    assert (available_bytes() or 1 << 30) > 100 << 20


def test_items_that_do_not_fit_into_the_memory_together_wait_for_each_other(tmp_path: Path) -> None:
    """Two take 60 of 100 bytes each, the others 30: at no moment are more than 100 in use."""
    tasks = [(str(tmp_path), size) for size in (60, 30, 60, 30, 30, 130)]
    pool = LocalPool[tuple[str, int], int](2, lambda task: task[1], 100)
    found = list(pool.results(hold, tasks))
    assert sorted(task for task, _ in found) == sorted(tasks)
    assert pool.waited
    events = sorted(
        (float(moment), kind * size)
        for path in tmp_path.iterdir()
        for size, *moments in [[float(part) for part in path.read_text().split()]]
        for kind, moment in zip((1, -1), moments, strict=True)
    )
    used = np.cumsum([change for _, change in events])
    assert used.max() == 130
    alone = int(used.argmax())
    assert events[alone][1] == 130
    assert np.delete(used, alone).max() <= 100
    roomy = LocalPool[tuple[str, int], int](2, lambda task: task[1], 1000)
    assert len(list(roomy.results(hold, tasks[:3]))) == 3
    assert not roomy.waited


# Patients and tables


def place_result(
    cohort_file: Path, out: Path, patient: str, analysis: Analysis | None = None, paper: PageSize = "A4"
) -> None:
    """Put a patient's result where a run would have left it."""
    tasks = _tasks(read_cohort(cohort_file), out, Settings(paper=paper), 0)
    task = next(item for item in tasks if item.patient.patient == patient)
    folder = task.folder / RESULT
    folder.mkdir(parents=True)
    analysis = replace(analysis or example_analysis(), patient=patient)
    report.write_tables(analysis, folder)
    (folder / "analysis.json").write_text(json.dumps(to_json(analysis)))
    (folder / "provenance.json").write_text("{}")
    write_summary(folder, task.folder)
    keep(task.folder, task.key, stamps_of(task.patient.source))
    (out / ".cohort.lock").touch()


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.yaml").write_text(f"patient: {name}\n")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.yaml").write_text("patient: [\n")
    (tmp_path / "empty").mkdir()
    table = tmp_path / "cohort.csv"
    table.write_text(
        "patient,study,ecog,label\nB,b/study.yaml,1,0\nbroken,bad/study.yaml,,1\ngone,c/study.yaml,,1\n"
        "A,a/study.yaml,0,1\nno images,empty,,0\n"
    )
    return table


def test_what_is_done_is_told_from_settings_and_files(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place_result(listed, out, "A")
    (patient,) = (item for item in read_cohort(listed).patients if item.patient == "A")
    folder, files = out / "patients" / patient.folder, sorted((out / "patients" / patient.folder).glob("*"))
    key = json.loads((folder / KEPT_FILE).read_text())["key"]
    assert is_kept(folder, patient.source, key)
    assert not is_kept(folder, patient.source, key[::-1])
    for changed in (Settings(preset="ct-lesion-fast"), Settings(seed=1)):
        (task,) = (item for item in _tasks(read_cohort(listed), out, changed, 0) if item.patient.patient == "A")
        assert task.key != key
    os.utime(patient.source, ns=(1, 1))
    assert not is_kept(folder, patient.source, key)
    patient.source.unlink()
    assert not is_kept(folder, patient.source, key)
    (folder / KEPT_FILE).write_text("{")
    assert not is_kept(folder, patient.source, key)
    assert sorted(folder.glob("*")) == files


def test_a_dicom_folder_is_done_until_a_file_of_it_changes(tmp_path: Path) -> None:
    source, folder = tmp_path / "dicom", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "1.dcm").write_text("a")
    keep(folder, "k", stamps_of(source))
    assert is_kept(folder, source, "k")
    (source / "2.dcm").write_text("b")
    assert not is_kept(folder, source, "k")


def test_a_date_of_a_dicom_folder_without_a_usable_ct_is_said(listed: Path, tmp_path: Path) -> None:
    for day in (10, 20):
        image = sitk.GetImageFromArray(np.random.default_rng(day).integers(-900, 200, (12, 22, 26)).astype(np.int16))
        image.SetSpacing((0.9, 0.8, 2.5))
        series = save(ct_series(image, date=datetime.date(2024, 1, day)), tmp_path / "scans" / str(day))
    for path in series.paths[4:6]:
        path.unlink()
    listed.write_text("patient,study\nA,scans\n")
    result = run(listed, tmp_path / "out", jobs=1)
    (row,) = rows(tmp_path / "out" / "failures.csv")
    assert "at least two are needed" in row["reason"]
    assert "The CT of 2024-01-20 was left out: 2 slices are missing" in row["reason"]
    assert result.notes == ()
    # Where enough is left of a patient the run says it too.
    place_result(listed, tmp_path / "out", "A")
    (note,) = run(listed, tmp_path / "out", resume=True).notes
    assert note.startswith("A: The CT of 2024-01-20 was left out")


def test_a_worker_of_another_version_refuses(listed: Path, tmp_path: Path) -> None:
    patient = read_cohort(listed).patients[0]
    outcome = run_patient(Task(patient, tmp_path / "p", Settings(), code="of another engine"))
    assert (outcome.status, outcome.stage) == ("failed", "worker")
    assert "another version" in outcome.reason


@pytest.mark.parametrize("jobs", [1, 2])
def test_damaged_patients_do_not_keep_the_others_from_their_tables(listed: Path, tmp_path: Path, jobs: int) -> None:
    out = tmp_path / "out"
    for name in "AB":
        place_result(listed, out, name)
    said: list[str] = []
    result = run(listed, out, jobs=jobs, resume=True, progress=lambda fraction, message: said.append(message))
    assert [(item.patient, item.status) for item in result.outcomes] == [
        ("B", "done"),
        ("broken", "failed"),
        ("gone", "failed"),
        ("A", "done"),
        ("no images", "failed"),
    ]
    failures = {row["patient"]: row for row in rows(out / "failures.csv")}
    assert list(failures) == ["broken", "gone", "no images"]
    assert "malformed" in failures["broken"]["reason"]
    assert "does not exist" in failures["gone"]["reason"]
    assert failures["no images"]["stage"] == "import"
    assert (out / failures["broken"]["log"]).is_file()
    patients = rows(out / "patients.csv")
    assert [(row["patient"], row["status"], row["ecog"], row["label"]) for row in patients] == [
        ("B", "done", "1", "0"),
        ("broken", "failed", "", "1"),
        ("gone", "failed", "", "1"),
        ("A", "done", "0", "1"),
        ("no images", "failed", "", "0"),
    ]
    own = rows(out / patients[0]["folder"] / RESULT / "features.csv")
    joined = rows(out / "features.csv")
    assert joined[: len(own)] == own
    assert len(joined) == 2 * len(own)
    page = (out / "cohort.html").read_text()
    assert page.count("<svg") == 4
    assert "5 patients: 2 analysed, 3 could not be" in page
    assert sum("failed at" in message for message in said) == 3


def test_the_training_table_has_a_row_for_each_lesion(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in "AB":
        place_result(listed, out, name)
    run(listed, out, resume=True)
    table = rows(out / "training.csv")
    features = rows(out / "features.csv")
    assert {(row["patient"], row["lesion"]) for row in table} == {
        (row["patient"], row["lesion"]) for row in features if row["lesion"]
    }
    assert {row["label"] for row in table if row["patient"] == "A"} == {"1"}
    for row in features:
        if row["lesion"] and row["value"]:
            (own,) = (item for item in table if (item["patient"], item["lesion"]) == (row["patient"], row["lesion"]))
            assert own[f"{row['timepoint']}.{row['region']}.{row['feature']}"] == row["value"]
    changes = [row for row in rows(out / "delta.csv") if row["relative"] and row["lesion"] and int(row["days"]) > 0]
    first = min(int(row["days"]) for row in changes)
    change = next(row for row in changes if int(row["days"]) == first)
    (own,) = (item for item in table if (item["patient"], item["lesion"]) == (change["patient"], change["lesion"]))
    assert own[f"delta.{change['region']}.{change['feature']}"] == change["relative"]


def place_two_centres(folder: Path, paper: PageSize = "A4") -> tuple[Path, Path]:
    """Put results of 16 patients of two centres with a scanner each: at the second every feature is larger by ten and spreads twice as far."""
    table, out = folder / "cohort.csv", folder / "out"
    (folder / "study.yaml").write_text("patient: x\n")
    lines = [f"P{number:02d},study.yaml,{'XY'[number % 2]}" for number in range(16)]
    table.write_text("\n".join(["patient,study,Centre", *lines, ""]))
    random = np.random.default_rng(3)
    for number in range(16):
        second = number % 2
        example = example_analysis()
        features = tuple(
            replace(
                item,
                values={
                    name: None if value is None else float((1 + second) * random.normal() + 10 * second)
                    for name, value in item.values.items()
                },
            )
            for item in example.features
        )
        made = Acquisition(
            kvp=120.0, kernel="B30f", slice_thickness_mm=1.0 + second, manufacturer="Maker", model="AB"[second]
        )
        timepoints = tuple(replace(item, acquisition=made) for item in example.timepoints)
        place_result(table, out, f"P{number:02d}", replace(example, features=features, timepoints=timepoints), paper)
    return table, out


@pytest.mark.parametrize(("by", "names"), [("centre", ("X", "Y")), ("scanner", ("Maker A", "Maker B"))])
def test_harmonised_features_stand_beside_those_that_were_measured(
    tmp_path: Path, by: Batch, names: tuple[str, str]
) -> None:
    table, out = place_two_centres(tmp_path)
    result = run(table, out, resume=True, harmonise=by)
    measured, harmonised = rows(out / "features.csv"), rows(out / "features_harmonised.csv")
    assert [list(row.values())[:5] for row in measured] == [list(row.values())[:5] for row in harmonised]
    assert {row["batch"] for row in harmonised} == set(names)
    assert [row["value"] == "" for row in measured] == [row["value"] == "" for row in harmonised]

    def centres(table: list[dict[str, str]]) -> list[float]:
        of = {name: [] for name in names}
        for row, known in zip(table, harmonised, strict=True):
            if row["value"] and row["lesion"]:
                of[known["batch"]].append(float(row["value"]))
        return [float(np.mean(of[name])) for name in names] + [float(np.std(of[names[1]]) / np.std(of[names[0]]))]

    before, after = centres(measured), centres(harmonised)
    assert before[1] - before[0] > 9
    assert before[2] > 1.8
    assert abs(after[1] - after[0]) < 0.5
    assert 0.85 < after[2] < 1.2
    assert any("ComBat over 2 batches" in note for note in result.notes)
    page = (out / "cohort.html").read_text()
    assert f"Harmonisation by {by}" in page
    assert page.count("before and after harmonisation</title>") >= 1
    assert "inside its folds" in page
    assert "1 to 2" not in page
    assert page.count("B30f") == 2
    training = rows(out / "training.csv")
    assert {(row["Centre"], row["scanner"]) for row in training} == {("X", "Maker A"), ("Y", "Maker B")}
    # Nothing of it reaches the other tables.
    kept = {path.name: path.read_bytes() for path in out.glob("*.csv") if path.name != "features_harmonised.csv"}
    run(table, out, resume=True)
    assert {name: (out / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize(("paper", "size"), [("A4", (595.3, 841.9)), ("letter", (612.0, 792.0))])
def test_the_printed_report_holds_everything_on_its_pages(
    tmp_path: Path, paper: PageSize, size: tuple[float, float]
) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    table, out = place_two_centres(tmp_path, paper)
    with table.open("a") as stream:
        stream.write("missing,nowhere/study.yaml,X\n")
    run(table, out, settings=Settings(paper=paper), resume=True, harmonise="centre")
    found = subprocess.run(
        ["pdftotext", "-bbox", str(out / "cohort.pdf"), "-"], check=True, capture_output=True, text=True
    ).stdout
    sizes = {tuple(map(float, item)) for item in re.findall(r'<page width="([\d.]+)" height="([\d.]+)"', found)}
    assert all(one == pytest.approx(size, abs=0.2) for one in sizes)
    words = re.findall(r'<word xMin="([-\d.]+)" yMin="([-\d.]+)" xMax="([-\d.]+)" yMax="([-\d.]+)">(.*?)</word>', found)
    for left, top, right, bottom, word in words:
        assert float(left) > 20, word
        assert float(top) > 20, word
        assert float(right) < size[0] - 20, word
        assert float(bottom) < size[1] - 20, word
    said = [word for *_, word in words]
    text = " ".join(said)
    for part in ("17 patients: 16 analysed, 1 could not be.", "Harmonisation by centre", "does not exist", "P15"):
        assert part in text
    # Every patient has a name at its bar and in its row, every question its bar and row.
    assert all(said.count(f"P{number:02d}") == 2 for number in range(16))
    assert said.count("pneumonitis") == 2


def test_harmonising_by_a_centre_that_is_not_listed_is_refused(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cohort", str(listed), "--out", str(tmp_path / "out"), "--harmonise", "centre"]) == 2
    assert "column `centre`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_cohort_without_batches_says_so_and_stays_as_it_was(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place_result(listed, out, "A")
    run(listed, out, resume=True, harmonise="scanner")
    measured, harmonised = rows(out / "features.csv"), rows(out / "features_harmonised.csv")
    assert harmonised == [{**row, "batch": ""} for row in measured]
    assert "have no known scanner" in (out / "cohort.html").read_text()


def test_tables_as_data_frames_and_parquet(listed: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    out = tmp_path / "out"
    place_result(listed, out, "A")
    result = run(listed, out, resume=True)
    assert result.notes == ()
    tables = load_cohort(out)
    assert list(tables.patients["status"]) == ["failed", "failed", "failed", "done", "failed"]
    assert len(tables.failures) == 4
    parquet = pandas.read_parquet(out / "features.parquet")
    assert len(parquet) == len(tables.features)
    assert parquet["value"].notna().sum() == tables.features["value"].notna().sum()
    assert list(tables.best["patient"]) == ["A"]
    with pytest.raises(InputError, match=r"stability\.csv: the run did not write"):
        _ = tables.stability
    with pytest.raises(InputError, match=r"no patients\.csv"):
        load_cohort(tmp_path)
    (tmp_path / "patients.csv").write_text("patient,age\nA,60\n")
    with pytest.raises(InputError, match="not the table of a cohort"):
        load_cohort(tmp_path)
    (out / "lesions.csv").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        _ = load_cohort(out).lesions


def test_a_patient_whose_code_reads_like_nothing_is_there(listed: Path, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    listed.write_text("patient,study,age\nNA,a/study.yaml,60\n007,b/study.yaml,\n")
    place_result(listed, tmp_path / "out", "NA")
    run(str(listed), str(tmp_path / "out"), resume=True)
    tables = load_cohort(tmp_path / "out")
    assert list(tables.patients["patient"]) == ["NA", "007"]
    assert set(tables.features["patient"]) == {"NA"}
    assert tables.patients["age"].isna().tolist() == [False, True]


def test_a_column_that_the_tables_have_is_refused(listed: Path, tmp_path: Path) -> None:
    listed.write_text("patient,study,Status,lesion,centre\nA,a/study.yaml,alive,L1,X\n")
    with pytest.raises(InputError) as caught:
        run(listed, tmp_path / "out")
    assert [problem.split("`")[1] for problem in caught.value.problems] == ["Status", "lesion"]
    assert not (tmp_path / "out").exists()


def test_tables_of_an_earlier_run_do_not_stay_behind(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in "AB":
        place_result(listed, out, name)
    run(listed, out, resume=True, harmonise="scanner")
    (out / "stability.csv").write_text("feature,icc\n")
    assert (out / "features_harmonised.csv").exists()
    # One patient is renamed, and one is no longer in the list.
    listed.write_text("patient,study,ecog,label\nA,a/study.yaml,0,1\nC,c/study.yaml,,1\n")
    run(listed, out, resume=True)
    for name in ("features", "lesions", "delta", "response", "best", "flags", "quality", "training"):
        assert {row["patient"] for row in rows(out / f"{name}.csv")} == {"A"}, name
    assert [row["patient"] for row in rows(out / "patients.csv")] == ["A", "C"]
    assert [row["patient"] for row in rows(out / "failures.csv")] == ["C"]
    assert not list(out.glob("features_harmonised*"))
    assert not (out / "stability.csv").exists()


def test_features_of_perturbed_contours_give_their_stability(tmp_path: Path) -> None:
    """Three lesions of different size: their volume is stable, and so said; a feature of one lesion only cannot be judged."""
    random = np.random.default_rng(0)
    values = random.normal(-700, 60, (24, 64, 64)).astype(np.int16)
    grid = np.indices(values.shape)
    regions = []
    for number, (centre, radius) in enumerate((((8, 16, 16), 4), ((12, 40, 20), 6), ((13, 24, 46), 8))):
        mask = ((grid - np.array(centre)[:, None, None, None]) ** 2).sum(axis=0) <= radius**2
        values[mask] += 700
        regions.append((f"L{number}.core", RegionMask.from_array("baseline", f"L{number}", "core", mask)))
    volume = sitk.GetImageFromArray(values)
    sitk.WriteImage(volume, tmp_path / "ct.nrrd")
    write_segmentation(
        segmentation_from_regions(regions, volume), tmp_path / "result" / "segmentations" / "baseline.regions.seg.nrrd"
    )
    days = (datetime.date(2024, 1, 1), datetime.date(2024, 3, 1))
    study = Study(
        "A",
        tuple(
            Timepoint(name, day, tmp_path / "ct.nrrd")
            for name, day in zip(("baseline", "followup-1"), days, strict=True)
        ),
    )
    file = tmp_path / "perturbed.csv"
    preset = radiomics.load_preset("ct-lesion-fast")
    write_perturbed(study, tmp_path / "result", file, preset=preset, readings=3, seed=1)
    readings = rows(file)
    assert {(row["lesion"], row["reading"]) for row in readings} == {
        (f"L{lesion}", str(reading)) for lesion in range(3) for reading in range(4)
    }
    write_stability({"A": file}, tmp_path / "stability.csv", readings=3)
    found = {row["feature"]: row for row in rows(tmp_path / "stability.csv")}
    volumes = found["original_shape_MeshVolume"]
    assert float(volumes["icc"]) > 0.95
    assert float(volumes["lower"]) < float(volumes["icc"]) <= float(volumes["upper"])
    assert (volumes["lesions"], volumes["readings"]) == ("3", "4")
    assert all(row["icc"] == "" or -1 <= float(row["icc"]) <= 1 for row in found.values())


def test_a_folder_is_not_taken_without_asking(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.docx").touch()
    with pytest.raises(InputError, match="holds other files"):
        run(listed, tmp_path / "other")
    place_result(listed, tmp_path / "out", "A")
    with pytest.raises(InputError, match="--resume"):
        run(listed, tmp_path / "out")
    with pytest.raises(InputError, match="is a file"):
        run(listed, listed)


@posix_only
def test_two_runs_do_not_share_a_folder(listed: Path, tmp_path: Path) -> None:
    import fcntl

    place_result(listed, tmp_path / "out", "A")
    with (tmp_path / "out" / ".cohort.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another run"):
            run(listed, tmp_path / "out", resume=True)


def test_facts_of_the_list_are_judged_like_those_of_a_study(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "patient: x\ntimepoints:\n- {name: baseline, date: 2024-01-01, ct: a.nrrd}\n"
        "- {name: followup-1, date: 2024-03-01, ct: b.nrrd}\n"
    )
    for name in ("a.nrrd", "b.nrrd"):
        (tmp_path / name).touch()
    (tmp_path / "c.csv").write_text("patient,study,ecog\nA,study.yaml,9\n")
    (patient,) = read_cohort(tmp_path / "c.csv").patients
    outcome = run_patient(Task(patient, tmp_path / "patients" / patient.folder, Settings()))
    assert (outcome.status, outcome.stage) == ("failed", "read")
    assert "ECOG" in outcome.reason
    assert outcome.reason.startswith("row of A")


def test_what_a_library_raises_fails_its_patient_alone_and_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> Study:
        raise gzip.BadGzipFile("not a\ngzipped file")

    monkeypatch.setattr(work, "load_study", load)
    outcome = run_patient(Task(CohortPatient("A", tmp_path / "study.yaml"), tmp_path / "p", Settings()))
    assert (outcome.status, outcome.stage) == ("failed", "read")
    assert outcome.reason == "BadGzipFile: not a gzipped file"
    assert "Traceback" in (tmp_path / "p" / work.FAILURE_FILE).read_text()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library does not keep freed memory in this way"
)
def test_a_worker_gives_back_what_it_has_freed() -> None:
    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    blocks = [bytearray(b"1" * (64 << 10)) for _ in range(3000)]
    kept = blocks[::30]
    del blocks
    before = resident_mib()
    give_back()
    assert before - resident_mib() > 150
    assert all(block[-1] == ord("1") for block in kept)


def test_a_full_disk_ends_the_run_and_leaves_the_tables_alone(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    place_result(listed, out, "A")
    (out / "patients.csv").write_text("old")

    def results(pool: object, work: object, tasks: list[Task]) -> object:
        yield tasks[0], Outcome("B", "failed", "align", "no space", errno=errno.ENOSPC)

    monkeypatch.setattr(LocalPool, "results", results)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        run(listed, out, resume=True)
    assert (out / "patients.csv").read_text() == "old"


@posix_only
def test_an_interrupted_driver_leaves_no_worker(listed: Path, tmp_path: Path) -> None:
    for name in "ab":
        os.mkfifo(tmp_path / f"{name}.nrrd")
        (tmp_path / name / "study.yaml").write_text(
            f"patient: {name}\ntimepoints:\n- {{name: baseline, date: 2024-01-01, ct: ../{name}.nrrd}}\n"
            f"- {{name: followup-1, date: 2024-03-01, ct: ../{name}.nrrd}}\n"
        )
    # A worker that reads a pipe nobody writes to waits until it is ended.
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ImmunoRadiomicsLib",
            "cohort",
            str(listed),
            "--out",
            str(tmp_path / "out"),
            "--jobs",
            "2",
        ],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    process.stderr.readline()
    time.sleep(4)
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 3
    assert "Interrupted. What was finished is kept; the same command with --resume goes on from there." in rest
    assert "Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        wait_until(lambda: os.killpg(process.pid, 0) is not None, 10)


def damage(name: str, folder: Path) -> Path:
    """Damage a copy of a good patient in one way and return the source for the list."""
    study, ct = folder / "study.yaml", folder / "ct_baseline.nrrd"
    text = study.read_text()
    if name == "no study":
        study.unlink()
    elif name == "malformed":
        study.write_text(text.replace("timepoints:", "timepoints: ["))
    elif name == "no image":
        ct.unlink()
    elif name == "truncated":
        ct.write_bytes(ct.read_bytes()[: ct.stat().st_size // 2])
    elif name == "no volume":
        ct.write_text("This is no image.")
    elif name == "other grid":
        volume = sitk.ReadImage(str(folder / "seg_baseline.seg.nrrd"))
        sitk.WriteImage(volume[:, :, : volume.GetSize()[2] // 2], str(folder / "seg_baseline.seg.nrrd"))
    elif name == "one scan":
        study.write_text(text[: text.index("- name: followup-1")] + text[text.index("tumour:") :])
    elif name == "impossible date":
        study.write_text(text.replace("date: 20", "date: 30-20", 1))
    elif name == "no DICOM":
        study.unlink()
        return folder
    elif name == "flat":
        sitk.WriteImage(sitk.ReadImage(str(ct)) * 0, str(ct))
    return study


DAMAGES = {
    "no study": ("read", "the file does not exist"),
    "malformed": ("read", "malformed"),
    "no image": ("read", "ct_baseline.nrrd"),
    "truncated": ("read", "ct_baseline.nrrd"),
    "no volume": ("read", "ct_baseline.nrrd"),
    "other grid": ("read", "seg_baseline.seg.nrrd"),
    "one scan": ("read", "time point"),
    "impossible date": ("read", "date"),
    "no DICOM": ("import", "DICOM"),
    "flat": ("read", "ct_baseline.nrrd"),
}


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny virtual patient and its list."""
    return simulate_cohort(1, 5, tmp_path_factory.mktemp("virtual") / "sim", size="tiny").parent


def test_ten_ways_of_damage_are_each_told_and_the_others_finish(virtual: Path, tmp_path: Path) -> None:
    shutil.copytree(virtual, tmp_path / "sim")
    listed = tmp_path / "sim" / "cohort.csv"
    good = tmp_path / "sim" / "P0001"
    lines = ["patient,study"]
    for name in DAMAGES:
        folder = tmp_path / name.replace(" ", "-")
        shutil.copytree(good, folder, ignore=shutil.ignore_patterns("truth"))
        lines.append(f"{name},{damage(name, folder)}")
    lines.insert(6, f"good,{good / 'study.yaml'}")
    listed.write_text("\n".join([*lines, ""]))
    few = tmp_path / "few.yaml"
    few.write_text("imageType: {Original: {}}\nfeatureClass: {shape: [], firstorder: []}\nsetting: {binWidth: 25}\n")
    result = run(listed, tmp_path / "out", settings=Settings(str(few), str(few), "rigid"), jobs=2)
    failures = {row["patient"]: (row["stage"], row["reason"]) for row in rows(tmp_path / "out" / "failures.csv")}
    assert list(failures) == list(DAMAGES)
    for name, (stage, said) in DAMAGES.items():
        assert failures[name][0] == stage, name
        assert said in failures[name][1], name
        assert "Error" not in failures[name][1], name
    assert [item.patient for item in result.outcomes if item.status == "done"] == ["good"]
    first = rows(tmp_path / "out" / "features.csv")
    assert {row["patient"] for row in first} == {"good"}
    # Another preset computes the features anew, and nothing before them.
    few.write_text(few.read_text().replace("firstorder: []", "firstorder: [], glcm: []"))
    result = run(listed, tmp_path / "out", settings=Settings(str(few), str(few), "rigid"), resume=True)
    (done,) = (item for item in rows(tmp_path / "out" / "patients.csv") if item["status"] == "done")
    record = json.loads((tmp_path / "out" / done["folder"] / RESULT / "provenance.json").read_text())
    reused = {item["name"]: item["reused"] for item in record["stages"]}
    assert {name: reused[name] for name in ("anatomy", "align", "lesions", "extract")} == {
        "anatomy": True,
        "align": True,
        "lesions": True,
        "extract": False,
    }
    more = {
        (row["timepoint"], row["lesion"], row["region"], row["feature"])
        for row in rows(tmp_path / "out" / "features.csv")
    }
    before = {(row["timepoint"], row["lesion"], row["region"], row["feature"]) for row in first}
    assert before < more
    assert any("glcm" in feature for *_, feature in more - before)


class InProcess:
    """A pool of no process: it works through what it has, and what is added on the way."""

    def results(self, work: Callable[[Task], Outcome], items: list[Task]) -> Iterator[tuple[Task, Outcome]]:
        self.waiting = list(items)
        while self.waiting:
            task = self.waiting.pop(0)
            yield task, work(task)

    def add(self, items: list[Task]) -> None:
        self.waiting[:0] = items


def test_a_large_patient_is_aligned_in_parts_that_the_whole_takes_over(
    virtual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(virtual, tmp_path / "sim")
    listed = tmp_path / "sim" / "cohort.csv"
    folder = tmp_path / "sim" / "P0001"
    study = folder / "study.yaml"
    lines = study.read_text().splitlines()
    at = lines.index("- name: followup-1")
    end = next(place for place in range(at + 1, len(lines)) if not lines[place].startswith(" "))
    again = [line.replace("followup-1", "followup-2") for line in lines[at:end]]
    again = [re.sub(r"date: (\d{4})-", lambda found: f"date: {int(found[1]) + 1}-", line) for line in again]
    study.write_text("\n".join([*lines[:end], *again, *lines[end:], ""]))
    for name in ("ct_followup-1.nrrd", "seg_followup-1.seg.nrrd"):
        shutil.copyfile(folder / name, folder / name.replace("followup-1", "followup-2"))
    few = tmp_path / "few.yaml"
    few.write_text("imageType: {Original: {}}\nfeatureClass: {shape: []}\nsetting: {binWidth: 25}\n")
    settings = Settings(str(few), str(few), "rigid")
    (task,) = _tasks(read_cohort(listed), tmp_path / "out", settings, 0)
    small = run_patient(replace(task, folder=tmp_path / "small", divisible=True))
    assert small.status == "done"
    monkeypatch.setattr(work, "LARGE_BYTES", 1)
    seen: list[tuple[str, str]] = []

    def noted(part: Task) -> Outcome:
        outcome = run_patient(part)
        seen.append((part.followup, outcome.status))
        return outcome

    monkeypatch.setattr(sys.modules[run.__module__], "run_patient", noted)
    (outcome,) = _outcomes(InProcess(), [replace(task, divisible=True)])  # type: ignore[arg-type]
    assert outcome.status == "done"
    assert seen == [("", "open"), ("followup-2", "open"), ("", "done")]
    record = json.loads((task.folder / RESULT / "provenance.json").read_text())
    assert {item["name"]: item["reused"] for item in record["stages"]} | {"align": True, "anatomy": True} == {
        item["name"]: item["reused"] for item in record["stages"]
    }
    assert list((task.folder / "ahead").iterdir()) == []
    for name in ("features", "lesions", "delta", "response", "flags"):
        assert (task.folder / RESULT / f"{name}.csv").read_bytes() == (
            tmp_path / "small" / RESULT / f"{name}.csv"
        ).read_bytes()
    study.write_text(study.read_text().replace("ct_followup-2", "missing"))
    (failed,) = _outcomes(InProcess(), [replace(task, divisible=True)])  # type: ignore[arg-type]
    assert (failed.status, failed.stage) == ("failed", "read")


def test_a_failed_part_fails_its_patient_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(CohortPatient("A", tmp_path / "study.yaml"), tmp_path / "out", Settings(), divisible=True)

    def answer(part: Task) -> Outcome:
        if not part.followup:
            return Outcome("A", "open", followups=("followup-2", "followup-3", "followup-4"))
        return Outcome("A", "open") if part.followup == "followup-2" else Outcome("A", "failed", "align", "no")

    monkeypatch.setattr(sys.modules[run.__module__], "run_patient", answer)
    outcomes = list(_outcomes(InProcess(), [task]))  # type: ignore[arg-type]
    assert [(item.patient, item.status, item.reason) for item in outcomes] == [("A", "failed", "no")]


@pytest.mark.parametrize(("jobs", "share"), [(1, 1), (5, 1), (11, 2)])
def test_processes_left_over_share_the_extraction(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, share: int
) -> None:
    asked: list[Task] = []

    def results(pool: object, work: object, tasks: list[Task]) -> Iterator[tuple[Task, Outcome]]:
        asked.extend(tasks)
        yield from ((task, Outcome(task.patient.patient, "failed", "read", "no")) for task in tasks)

    monkeypatch.setattr(LocalPool, "results", results)
    run(listed, tmp_path / "out", jobs=jobs)
    assert [task.settings.jobs for task in asked] == [share] * 5


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(number: int) -> Callable[..., None]:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return flock

    with (tmp_path / "lock").open("w") as stream:
        for number, taken in ((errno.ENOSYS, True), (errno.EOPNOTSUPP, True), (errno.EWOULDBLOCK, False)):
            monkeypatch.setattr(fcntl, "flock", refuse(number))
            assert lock(stream) is taken


def test_a_result_is_known_again_where_the_folders_have_moved(tmp_path: Path) -> None:
    """Another machine sees the same disk under another path."""
    here = tmp_path / "here"
    (here / "images").mkdir(parents=True)
    (here / "images" / "a.nrrd").touch()
    (here / "study.yaml").write_text(
        "patient: x\ntimepoints:\n- {name: baseline, date: 2024-01-01, ct: images/a.nrrd}\n"
    )
    keep(here / "out", "key", stamps_of(here / "study.yaml"))
    there = tmp_path / "there"
    here.rename(there)
    assert is_kept(there / "out", there / "study.yaml", "key")
    (there / "images" / "a.nrrd").write_text("changed")
    assert not is_kept(there / "out", there / "study.yaml", "key")


def test_a_write_that_fails_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"patients\.csv"), whole_file(tmp_path / "patients.csv"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that nobody can write to")
def test_a_folder_that_cannot_be_written_is_said(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cohort", str(listed), "--out", "/proc/self/cohort"]) == 2
    said = capsys.readouterr().err
    assert "/cohort: the folder cannot be written" in said
    assert "Traceback" not in said
