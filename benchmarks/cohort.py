"""What the machinery of a cohort costs: 5,000 patients that take a known time each, on local processes and on a Dask cluster.

Run:  python benchmarks/cohort.py [--patients 5000] [--milliseconds 50] [--workers 2] [--dask]

Each worker sleeps for the given time per patient, so that nothing but the handing out of work remains: the wall time beyond
patients x time / workers is the overhead. The start of the workers is timed apart.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path = [
    str(Path(__file__).resolve().parents[1]),
    *(item for item in sys.path if item != str(Path(__file__).parent)),
]

from ImmunoRadiomicsLib.cohort.pool import DaskPool, LocalPool


def nothing(milliseconds: float) -> float:
    time.sleep(milliseconds / 1000)
    return milliseconds


def measured(pool: LocalPool[float, float] | DaskPool[float, float], patients: int, milliseconds: float) -> float:
    """Return the wall seconds from the first patient that has ended to the last."""
    results = pool.results(nothing, [milliseconds] * patients)
    next(results)
    started = time.perf_counter()
    count = 1 + sum(1 for _ in results)
    assert count == patients
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=5000)
    parser.add_argument("--milliseconds", type=float, default=50.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dask", action="store_true", help="a Dask cluster on loopback as well")
    options = parser.parse_args()
    ideal = options.patients * options.milliseconds / 1000 / options.workers
    say("local processes", measured(LocalPool(options.workers), options.patients, options.milliseconds), ideal)
    if options.dask:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=options.workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            say("Dask", measured(DaskPool(client), options.patients, options.milliseconds), ideal)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the driver: {peak:.0f} MiB")


def say(name: str, seconds: float, ideal: float) -> None:
    print(f"{name}: {seconds:.2f} s, without overhead {ideal:.2f} s, overhead {seconds / ideal - 1:.2%}")


if __name__ == "__main__":
    main()
