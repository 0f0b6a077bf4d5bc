"""Make the shipped bundles of the radiomics arm: simulate a cohort, analyse it, and train one bundle for each flag.

    python benchmarks/simulated_arm.py --work build/simulated_arm --jobs 2
    python benchmarks/simulated_arm.py --table build/simulated_arm/run/training.csv      train only, on a table that is there

The first command is the whole way from nothing to Resources/Classifiers/simulated-*-trained: 100 virtual patients (seed 11,
tiny), the preset `ct-lesion-fast`, and the recipes Resources/Recipes/simulated-*.yaml, seed 0. It takes about half an hour of two
processors. The same table gives the same bundles. The figures that it prints are those on the cards: they say that the way
from images to a bundle works, and nothing about patients.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from ImmunoRadiomicsLib.cli import main as command
from ImmunoRadiomicsLib.simulation import simulate_cohort
from ImmunoRadiomicsLib.training import train

FLAGS = ("pseudoprogression", "hyperprogression", "pneumonitis")
BUNDLES = CHECKOUT / "Resources" / "Classifiers"
# What a bundle is; report.html, checklists.json and validation.json of the run stay in the work folder.
SHIPPED = ("card.json", "model.json")
LARGEST_BYTES = 300_000


def analysed(work: Path, patients: int, jobs: int) -> Path:
    """Simulate and analyse the cohort, going on where an earlier call was stopped, and return its training table."""
    listed = work / "sim" / "cohort.csv"
    if not listed.is_file():
        simulate_cohort(patients, 11, work / "sim", size="tiny")
    asked = ["cohort", str(listed), "--out", str(work / "run"), "--resume", "--jobs", str(jobs)]
    if command([*asked, "--preset", "ct-lesion-fast"]) == 2:
        raise SystemExit("The cohort could not be analysed.")
    return work / "run" / "training.csv"


def main() -> None:
    """Make the bundles and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("build") / "simulated_arm")
    parser.add_argument("--table", type=Path, help="the training table, where it is there already")
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    table = options.table or analysed(options.work, options.patients, options.jobs)
    for flag in FLAGS:
        identifier = f"simulated-{flag}-trained"
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / identifier
            result = train(table, made, recipe=f"simulated-{flag}")
            target = BUNDLES / identifier
            target.mkdir(exist_ok=True)
            for name in SHIPPED:
                shutil.copyfile(made / name, target / name)
        found = result.performance.discrimination
        size = sum((target / name).stat().st_size for name in SHIPPED)
        columns = json.loads((target / "model.json").read_text(encoding="utf-8"))["columns"]
        print(
            f"{identifier}: {result.events} events in {result.patients} patients; nested AUC {found.value:.3f} "
            f"[{found.lower:.3f}-{found.upper:.3f}]; {len(columns)} of {result.candidates} columns; {size:,} bytes, demanded below "
            f"{LARGEST_BYTES:,}: {'met' if size < LARGEST_BYTES else 'missed'}"
        )


if __name__ == "__main__":
    main()
