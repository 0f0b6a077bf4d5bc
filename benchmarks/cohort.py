"""What the machinery of a cohort costs and withstands: overhead, workers that share the work, and processes that are killed.

    python benchmarks/cohort.py overhead [--patients 5000] [--milliseconds 200] [--workers 2]
    python benchmarks/cohort.py workers COHORT.csv --out DIR [--quick] [--which one two dask] [--against RUN]
    python benchmarks/cohort.py kills COHORT.csv --out DIR --undisturbed RUN [--quick] [--workers-killed 20] [--drivers-killed 5]

`overhead` runs a whole cohort in which a patient takes a known time: it copies a result that was made before and sleeps for the rest, so
that what goes beyond patients x time / workers is the listing, the handing out, the keeping and the joining of the tables, on local
processes and on a Dask cluster on loopback. `workers` analyses the patients of a list (see `simulate --size tiny`) with one worker, with
two, and on two Dask workers, compares the tables byte for byte, and watches the memory of the workers. `kills` does the same while workers and
drivers are killed at random moments. `--quick` measures few features and aligns rigidly.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path = [str(ROOT), *(item for item in sys.path if item != str(Path(__file__).parent))]

from ImmunoRadiomicsLib.cohort import read_cohort
from ImmunoRadiomicsLib.cohort import run as run_cohort
from ImmunoRadiomicsLib.cohort import work as cohort_work
from ImmunoRadiomicsLib.cohort.kept import keep, stamps_of
from ImmunoRadiomicsLib.cohort.summary import SUMMARY_FILE, TRAINING_FILE
from ImmunoRadiomicsLib.cohort.tables import JOINED
from ImmunoRadiomicsLib.pipeline import Settings

FEW_FEATURES = """imageType: {Original: {}}
featureClass: {shape: [], firstorder: []}
setting: {binWidth: 25, resampledPixelSpacing: [3, 3, 3], interpolator: sitkLinear}
"""
SAMPLE_SECONDS = 0.25
TEMPLATE, MILLISECONDS = "COHORT_BENCHMARK_TEMPLATE", "COHORT_BENCHMARK_MILLISECONDS"


def verdict(passed: bool) -> str:
    return "pass" if passed else "MISS"


def trivial_patient(task: cohort_work.Task) -> cohort_work.Outcome:
    """Leave what a patient leaves, after a known time."""
    end = time.monotonic() + float(os.environ[MILLISECONDS]) / 1000
    template = Path(os.environ[TEMPLATE])
    (task.folder / cohort_work.RESULT).mkdir(parents=True)
    for name in (
        SUMMARY_FILE,
        TRAINING_FILE,
        *(f"{cohort_work.RESULT}/{table}.csv" for table in JOINED),
        f"{cohort_work.RESULT}/provenance.json",
    ):
        shutil.copyfile(template / name, task.folder / name)
    keep(task.folder, task.key, stamps_of(task.patient.source))
    time.sleep(max(0.0, end - time.monotonic()))
    return cohort_work.Outcome(task.patient.patient, "done")


def measure_overhead(options: argparse.Namespace) -> None:
    from distributed import Client, LocalCluster

    with tempfile.TemporaryDirectory(dir=options.scratch) as made:
        scratch = Path(made)
        (scratch / "few.yaml").write_text(FEW_FEATURES)
        quick = Settings(str(scratch / "few.yaml"), str(scratch / "few.yaml"), "rigid")
        simulate = [sys.executable, "-m", "ImmunoRadiomicsLib", "simulate", "--patients", "1", "--size", "tiny"]
        # By another process: the memory of this one is measured.
        subprocess.run([*simulate, "--out", str(scratch / "one"), "--progress", "off"], cwd=ROOT, check=True)
        one = scratch / "one" / "cohort.csv"
        run_cohort(one, scratch / "template", settings=quick)
        (patient,) = read_cohort(one).patients
        os.environ[TEMPLATE] = str(scratch / "template" / "patients" / patient.folder)
        os.environ[MILLISECONDS] = str(options.milliseconds)
        table = scratch / "cohort.csv"
        table.write_text(
            "patient,study\n" + "".join(f"P{number:05d},{patient.source}\n" for number in range(options.patients))
        )
        # The driver asks its own module for the work of a patient.
        sys.modules[run_cohort.__module__].run_patient = trivial_patient  # type: ignore[attr-defined]
        ideal = options.patients * options.milliseconds / 1000 / options.workers
        print(f"{options.patients} patients of {options.milliseconds:.0f} ms, {options.workers} workers")
        if "local" in options.which:
            measure_how(table, scratch, "local processes", ideal, {"jobs": options.workers})
        if "dask" in options.which:
            # Made only now: the scheduler of this cluster lives in this process.
            cluster = LocalCluster(n_workers=options.workers, threads_per_worker=1, dashboard_address=None)
            with cluster, Client(cluster) as client:
                measure_how(table, scratch, "Dask", ideal, {"client": client})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of the driver: {peak:.0f} MiB")


def measure_how(table: Path, scratch: Path, name: str, ideal: float, how: dict[str, object]) -> None:
    out = scratch / name
    for what in ("all anew", "all there already"):
        wall, cpu = time.perf_counter(), time.process_time()
        result = run_cohort(table, out, resume=out.exists(), **how)  # type: ignore[arg-type]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert not result.failed
        said = ""
        if what == "all anew":
            over = wall / ideal - 1
            said = (
                f", without overhead {ideal:.1f} s, overhead {over:.2%} (demanded: below 2 %: {verdict(over < 0.02)})"
            )
        each = 1000 * cpu / len(result.outcomes)
        print(
            f"{name}, {what}: {wall:.1f} s wall, {cpu:.1f} s CPU of the driver, {each:.2f} ms a patient{said}",
            flush=True,
        )
    shutil.rmtree(out)


@dataclass
class Watched:
    """The memory of the processes below this one, as a thread sees it again and again."""

    mebibytes: list[tuple[float, float]] = field(default_factory=list)

    def halves(self) -> tuple[float, float]:
        """Return the largest memory of any worker in the first and in the second half of the time."""
        middle = (self.mebibytes[0][0] + self.mebibytes[-1][0]) / 2
        early = max(size for moment, size in self.mebibytes if moment <= middle)
        return early, max(size for moment, size in self.mebibytes if moment > middle)


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    """Sample the resident memory of the largest process below this one."""
    found, stop = Watched(), threading.Event()
    page = os.sysconf("SC_PAGE_SIZE") / 2**20

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            sizes = []
            for process in below(os.getpid()):
                with contextlib.suppress(OSError, IndexError):
                    sizes.append(int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page)
            if sizes:
                found.mebibytes.append((time.monotonic(), max(sizes)))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def below(parent: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]), []).append(
                    int(entry.name)
                )
    found, open_ = [], [parent]
    while open_:
        found += (some := children.get(open_.pop(), []))
        open_ += some
    return found


def tables_of(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def compare(name: str, first: dict[str, str], other: dict[str, str]) -> None:
    differing = sorted(table for table in first | other if first.get(table) != other.get(table))
    print(
        f"{name}: {len(first)} tables and pages, {len(differing)} differ {', '.join(differing)}: {verdict(not differing)}",
        flush=True,
    )


def compare_workers(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    settings = chosen_settings(options)
    seconds: dict[str, float] = {}
    tables: dict[str, dict[str, str]] = {}

    def measure(name: str, how: dict[str, object]) -> None:
        out = options.out / name.replace(" ", "-")
        if not options.resume:
            shutil.rmtree(out, ignore_errors=True)
        with watched() as memory:
            started, cpu = time.perf_counter(), os.times()
            result = run_cohort(options.cohort, out, settings=settings, resume=options.resume, **how)  # type: ignore[arg-type]
            seconds[name] = time.perf_counter() - started
        worked = os.times().children_user - cpu.children_user
        early, late = memory.halves()
        tables[name] = tables_of(out)
        print(
            f"{name}: {len(result.outcomes)} patients, {len(result.failed)} failed, {seconds[name]:.0f} s wall, {worked:.0f} s CPU of ended "
            f"workers; largest worker {early:.0f} MiB in the first half, {late:.0f} MiB in the last "
            f"(demanded: at most 1.1 times: {verdict(late <= 1.1 * early)})",
            flush=True,
        )

    local = {"two": ("two workers", 2), "one": ("one worker", 1)}
    for name, jobs in (local[key] for key in ("two", "one") if key in options.which):
        measure(name, {"jobs": jobs})
    if {"one", "two"} <= set(options.which) and not options.resume:
        share = seconds["two workers"] / seconds["one worker"]
        print(f"two workers take {share:.2f} of the time of one (demanded: at most 0.6: {verdict(share <= 0.6)})")
    if "dask" in options.which:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            measure("two Dask workers", {"client": client})
    first, *others = tables
    for name in others:
        compare(f"{name} against {first}", tables[first], tables[name])
    if options.against is not None:
        compare(f"{first} against {options.against}", tables_of(options.against), tables[first])


def chosen_settings(options: argparse.Namespace) -> Settings:
    if not options.quick:
        return Settings("ct-lesion-fast")
    # Beside the runs, and not in them: a preset is told by its content, but its path goes into the settings.
    few = options.out / "few.yaml"
    few.parent.mkdir(parents=True, exist_ok=True)
    few.write_text(FEW_FEATURES)
    return Settings(str(few), str(few), "rigid")


def kill_processes(options: argparse.Namespace) -> None:
    settings, out = chosen_settings(options), options.out / "killed"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "ImmunoRadiomicsLib", "cohort", str(options.cohort), "--out", str(out)]
    command += ["--jobs", "2", "--resume", "--preset", settings.preset, "--lung-preset", settings.lung_preset]
    command += ["--engine", settings.engine, "--progress", "off"]
    draw = random.Random(options.seed)
    total = len(read_cohort(options.cohort).patients)
    workers, drivers, starts = options.workers_killed, options.drivers_killed, 0
    # Spread over the run: the expected time of all patients, shared among the deaths.
    pause = options.seconds_per_patient * total / 2 / (workers + drivers + 1)
    while True:
        starts += 1
        driver = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        while driver.poll() is None and workers + drivers:
            time.sleep(draw.uniform(0.2, 1.8) * pause)
            if driver.poll() is not None:
                break
            if draw.random() < drivers / (workers + drivers):
                drivers -= 1
                driver.kill()
                break
            at_work = [item for item in below(driver.pid) if "spawn_main" in command_line(item)]
            if at_work:
                workers -= 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(at_work), signal.SIGKILL)
        code = driver.wait()
        # A patient whose worker was killed again and again is given up until the next start.
        if code != -signal.SIGKILL and (code == 0 or starts > options.drivers_killed + 2):
            break
    print(
        f"{options.workers_killed - workers} workers and {options.drivers_killed - drivers} drivers killed, {starts} starts, last exit code {code}"
    )
    compare("killed against undisturbed", tables_of(options.undisturbed), tables_of(out))


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    overhead = commands.add_parser("overhead")
    overhead.add_argument("--patients", type=int, default=5000)
    overhead.add_argument("--milliseconds", type=float, default=200.0)
    overhead.add_argument("--workers", type=int, default=2)
    overhead.add_argument("--which", nargs="+", choices=("local", "dask"), default=("local", "dask"))
    overhead.add_argument("--scratch", type=Path, help="where the made-up cohort lies for the time of the run")
    overhead.set_defaults(run=measure_overhead)
    workers = commands.add_parser("workers")
    workers.add_argument(
        "--which",
        nargs="+",
        choices=("one", "two", "dask"),
        default=("two", "one"),
        help="one or two processes here, two workers of a Dask cluster on loopback",
    )
    workers.add_argument("--resume", action="store_true", help="go on with runs that were stopped; no time is compared")
    workers.add_argument("--against", type=Path, help="an earlier run of the same list to compare the tables with")
    workers.set_defaults(run=compare_workers)
    kills = commands.add_parser("kills")
    kills.add_argument(
        "--undisturbed", type=Path, required=True, help="the output folder of a run that nothing disturbed"
    )
    kills.add_argument("--workers-killed", type=int, default=20)
    kills.add_argument("--drivers-killed", type=int, default=5)
    kills.add_argument("--seconds-per-patient", type=float, default=8.0, help="on one worker, about")
    kills.add_argument("--seed", type=int, default=0)
    kills.set_defaults(run=kill_processes)
    for command in (workers, kills):
        command.add_argument("cohort", type=Path)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--quick", action="store_true", help="few features, rigid alignment")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
