"""What the import says of every DICOM test file: imported, or left out with a reason; anything else is a defect.

    python benchmarks/dicom_files.py [FOLDER ...]

The files that come with pydicom are taken, and those below the folders given, such as `data/test_files` of highdicom's sources, which its package
does not hold. Each file is imported alone, and then all of them together beside a good patient.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydicom.data import get_testdata_files

from ImmunoRadiomicsLib.dicom import import_folder
from ImmunoRadiomicsLib.errors import InputError


def said_of(folder: Path, out: Path) -> list[str]:
    """Return what the import says of the series of a folder, a text for each; a refusal of the whole folder is one too."""
    try:
        result = import_folder(folder, out)
    except InputError as error:
        return list(error.problems)
    return [row.reason or f"{row.use or 'used'} without a word" for row in result.rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    options = parser.parse_args()
    files = [Path(name) for name in get_testdata_files() if Path(name).is_file()]
    for folder in options.folders:
        files += sorted(path for path in folder.rglob("*") if path.is_file())
    defects, reasons = 0, Counter[str]()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = Path(name) / "together"
        for number, path in enumerate(files):
            alone = Path(name) / "alone"
            shutil.rmtree(alone, ignore_errors=True)
            shutil.rmtree(Path(name) / "out", ignore_errors=True)
            alone.mkdir()
            shutil.copy(path, alone)
            (together / str(number)).mkdir(parents=True)
            shutil.copy(path, together / str(number))
            try:
                said = said_of(alone, Path(name) / "out")
            except Exception as error:  # any exception but a refusal is what this looks for
                said = []
                print(f"DEFECT {path.name}: {type(error).__name__}: {error}")
            if not said or any("without a word" in text for text in said):
                defects += 1
            reasons.update(said)
            print(f"{path.name}: {' | '.join(said)[:200].replace(str(alone), '')}")
        said = said_of(together, Path(name) / "out")
        print(f"\nall together: {len(said)} series, {sum('without a word' in text for text in said)} without a word")
    print(f"{len(files)} files, {len(reasons)} different answers, {defects} defects (demanded: 0)")
    raise SystemExit(min(defects, 1))


if __name__ == "__main__":
    main()
