"""Bad training tables get a clear message or a documented treatment."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.training.table import read_table, without_unstable

ROWS = 30
FEATURE = "baseline.core.original_glcm_F{}"


def columns(seed: int = 0) -> dict[str, list[object]]:
    rng = np.random.default_rng(seed)
    made: dict[str, list[object]] = {
        "patient": [f"P{number}" for number in range(ROWS)],
        "label": [number % 2 for number in range(ROWS)],
        "age": [50 + number for number in range(ROWS)],
    }
    for number in range(6):
        made[FEATURE.format(number)] = [float(value) for value in rng.normal(size=ROWS)]
    return made


def write(path: Path, made: dict[str, list[object]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(made)
        writer.writerows(zip(*made.values(), strict=True))
    return path


def refusal(tmp_path: Path, made: dict[str, list[object]], **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_table(write(tmp_path / "t.csv", made), **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_good_table(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", columns()))
    assert table.values.shape == (ROWS, 7)
    assert table.clinical == ("age",)
    assert len(table.features) == 6
    assert table.labels.sum() == ROWS // 2
    assert table.notes == ()


def test_compressed_table_with_other_names_is_read(tmp_path: Path) -> None:
    made = columns()
    plain = {"ID": made["patient"], "Target": made["label"], "a": made[FEATURE.format(0)], "b": made[FEATURE.format(1)]}
    path = write(tmp_path / "t.csv", plain)
    packed = tmp_path / "t.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_table(packed).features == ("a", "b")


def test_one_class_is_refused(tmp_path: Path) -> None:
    assert "Both classes" in refusal(tmp_path, {**columns(), "label": [1] * ROWS})


@pytest.mark.parametrize("invert", [False, True])
def test_leak_is_refused_and_can_be_left_out(tmp_path: Path, invert: bool) -> None:
    made = columns()
    made["baseline.core.leak"] = [5 * (value if not invert else 1 - value) for value in made["label"]]  # type: ignore[operator]
    assert "`baseline.core.leak` tells the label" in refusal(tmp_path, made)
    table = read_table(tmp_path / "t.csv", exclude=["baseline.core.leak"])
    assert "baseline.core.leak" not in table.columns


def test_a_column_that_parts_all_rows_is_said(tmp_path: Path) -> None:
    made = columns()
    made["baseline.core.near"] = [10 * int(value) + number / ROWS for number, value in enumerate(made["label"])]  # type: ignore[call-overload]
    table = read_table(write(tmp_path / "t.csv", made))
    (note,) = table.notes
    assert "baseline.core.near" in note
    assert "--exclude" in note


def test_a_column_that_parts_nearly_all_rows_is_said(tmp_path: Path) -> None:
    made = columns()
    made["baseline.core.near"] = [
        1 - int(value) if number != 3 else value for number, value in enumerate(made["label"])
    ]  # type: ignore[call-overload]
    (note,) = read_table(write(tmp_path / "t.csv", made)).notes
    assert "baseline.core.near (AUC 0.97)" in note


@pytest.mark.parametrize(("delimiter", "decimal"), [(";", ","), (";", "."), ("\t", ",")])
def test_spreadsheets_of_other_countries_are_read(tmp_path: Path, delimiter: str, decimal: str) -> None:
    plain = read_table(write(tmp_path / "t.csv", columns()))
    other = tmp_path / "other.csv"
    text = (tmp_path / "t.csv").read_text().replace(",", delimiter)
    head, rest = text.split("\n", 1)
    other.write_text("\ufeff" + head + "\n" + rest.replace(".", decimal), encoding="utf-8")
    read = read_table(other)
    assert read.columns == plain.columns
    assert np.array_equal(read.values, plain.values)


def test_constant_duplicate_and_sparse_columns_are_left_out_and_said(tmp_path: Path) -> None:
    made = columns()
    made["baseline.core.constant"] = [3.5] * ROWS
    made["baseline.core.twin"] = made[FEATURE.format(2)]
    made["baseline.core.sparse"] = [
        value if number % 5 < 2 else "" for number, value in enumerate(made[FEATURE.format(1)])
    ]
    table = read_table(write(tmp_path / "t.csv", made))
    assert len(table.features) == 6
    said = " ".join(table.notes)
    assert "same value in every row: baseline.core.constant" in said
    assert f"baseline.core.twin (as {FEATURE.format(2)})" in said
    assert "baseline.core.sparse (60%)" in said


def test_text_in_a_number_column_is_refused_with_its_line(tmp_path: Path) -> None:
    made = columns()
    made[FEATURE.format(3)][4] = "n.d."
    text = refusal(tmp_path, made)
    assert FEATURE.format(3) in text
    assert "'n.d.' in line 6" in text


def test_rows_of_a_patient_share_a_group_whatever_the_given_folds(tmp_path: Path) -> None:
    made = columns()
    made["patient"] = [f"P{number // 2}" for number in range(ROWS)]
    made["lesion"] = [f"L{number}" for number in range(ROWS)]
    made["fold"] = [number % 2 for number in range(ROWS)]
    table = read_table(write(tmp_path / "t.csv", made))
    assert len(set(table.groups.tolist())) == ROWS // 2
    assert "fold" not in table.columns
    assert any("parts the rows of 15 patients" in note for note in table.notes)


def test_the_same_patient_under_two_codes_is_one_group(tmp_path: Path) -> None:
    made = columns()
    for values in list(made.values())[2:]:
        values[7] = values[3]
    table = read_table(write(tmp_path / "t.csv", made))
    assert table.groups[7] == table.groups[3]
    assert any("P3 and P7" in note for note in table.notes)


def test_outcomes_are_never_features(tmp_path: Path) -> None:
    made = {**columns(), "hyperprogression": [number % 3 == 0 for number in range(ROWS)], "bor": ["PD"] * ROWS}
    table = read_table(write(tmp_path / "t.csv", made))
    assert not {"hyperprogression", "bor"} & set(table.columns)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": ["maybe"] * ROWS}, "30 of 30 cells that are neither 0 nor 1 ('maybe' in line 2"),
        ({"patient": ["P1"] * ROWS}, "one class of `label` has rows of a single patient"),
        ({"patient": [""] * ROWS}, "there is no patient"),
        ({"lesion": ["L1"] * ROWS, "patient": ["P1"] * ROWS}, "has 30 rows"),
    ],
)
def test_other_refusals(tmp_path: Path, change: dict[str, list[object]], said: str) -> None:
    assert said in refusal(tmp_path, {**columns(), **change})


def test_missing_label_column_names_the_remedy(tmp_path: Path) -> None:
    made = columns()
    del made["label"]
    assert "--label" in refusal(tmp_path, made)


def test_features_that_do_not_hold_still_are_left_out(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", columns()))
    judged = {
        "feature": [f"original_glcm_F{number}" for number in range(4)],
        "icc": [0.9, 0.74, 0.75, ""],
        "lower": ["", "", "", ""],
    }
    rest, text = without_unstable(table, write(tmp_path / "stability.csv", judged), 0.75)
    assert set(table.columns) - set(rest.columns) == {FEATURE.format(1)}
    assert "1 of 3 measured columns" in text
    assert "3 were not judged" in text
    for change, said in (
        ({"icc": ["x"] * 4}, "line 2"),
        ({"feature": ["a"] * 4}, "another preset"),
        ({"icc": None}, "needed"),
    ):
        made = {name: cells for name, cells in {**judged, **change}.items() if cells is not None}
        with pytest.raises(InputError, match=said):
            without_unstable(table, write(tmp_path / "bad.csv", made), 0.75)


def test_patients_are_grouped_by_clinical_columns(tmp_path: Path) -> None:
    made = {
        **columns(),
        "sex": ["female", "male", ""] * 10,
        "tumour": ["NSCLC", "melanoma"] * 15,
        "agents": [f"a{number}" for number in range(ROWS)],
        "smoking": ["never"] * ROWS,
    }
    table = read_table(write(tmp_path / "t.csv", made))
    found = {item.name: item.levels for item in table.attributes}
    assert set(found) == {"age", "sex", "tumour"}
    assert set(found["age"]) == {"up to 64.5", "above 64.5"}
    assert found["sex"][:3] == ("female", "male", "")
    part = table.rows(np.array([5, 0]))
    assert {item.name: item.levels for item in part.attributes}["tumour"] == ("melanoma", "NSCLC")


def test_a_batch_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "`scanner`, over which" in refusal(tmp_path, columns(), batch="scanner")
    made = {**columns(), "scanner": ["S1", "S2", ""] * 10}
    table = read_table(write(tmp_path / "t.csv", made), batch="scanner")
    assert table.batches[:3] == ("S1", "S2", "not stated")
    assert "scanner" not in table.columns


@pytest.mark.parametrize("cell", ["1e300", "inf", "-Infinity"])
def test_numbers_that_nothing_can_be_reckoned_with_are_refused(tmp_path: Path, cell: str) -> None:
    made = columns()
    made[FEATURE.format(2)][4] = cell
    said = refusal(tmp_path, made)
    assert "1 of 30 cells that are no numbers below 1e+100" in said
    assert f"{cell!r} in line 6" in said
    plain = {name.split("_")[-1]: cells for name, cells in columns().items()}
    plain["F3"] = [f"{cell}"] * ROWS
    assert "`F3` has 30 of 30 cells" in refusal(tmp_path, plain)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    made = columns()
    made[FEATURE.format(2)][4] = "much"
    path = write(tmp_path / "t.csv", made)
    path.write_text(path.read_text().replace("\n", "\n\n", 2))
    with pytest.raises(InputError, match="'much' in line 8"):
        read_table(path)


def test_columns_without_a_name_and_running_numbers_are_left_out_and_said(tmp_path: Path) -> None:
    made = columns()
    made["baseline.core.number"] = list(range(7, 7 + ROWS))
    made["label"][3] = ""
    path = write(tmp_path / "t.csv", made)
    path.write_text(
        "".join(f"{line},,{'x' if number else ''}\n" for number, line in enumerate(path.read_text().split()))
    )
    table = read_table(path)
    notes = " ".join(table.notes)
    assert "a running number of the rows: baseline.core.number." in notes
    assert "no name for it: 1 column." in notes
    assert len(table.features) == 6
    assert table.clinical == ("age",)


def test_an_empty_cell_hides_no_leak(tmp_path: Path) -> None:
    made = columns()
    made["baseline.core.leak"] = [None, *made["label"][1:]]
    assert "`baseline.core.leak` tells the label" in refusal(tmp_path, made)


def survival(events: list[object]) -> dict[str, list[object]]:
    made = columns()
    del made["label"]
    return {**made, "time": [5 + (7 * number) % ROWS for number in range(ROWS)], "event": events}


def test_survival_needs_an_event_and_nobody_without_one(tmp_path: Path) -> None:
    assert "every `event` is 0" in refusal(tmp_path, survival([0] * ROWS), survival=True)
    assert read_table(write(tmp_path / "t.csv", survival([1] * ROWS)), survival=True).labels.all()
    wrong = survival([1] * ROWS)
    wrong["time"][2] = -3
    assert "line 4: `time` is '-3'; a number above 0" in refusal(tmp_path, wrong, survival=True)


def test_a_column_that_is_the_time_is_said(tmp_path: Path) -> None:
    made = survival([int(number % 4 > 0) for number in range(ROWS)])
    made["baseline.core.until"] = [30 - 2 * float(str(item)) for item in made["time"]]
    table = read_table(write(tmp_path / "t.csv", made), survival=True)
    assert any("baseline.core.until (C 1.00)" in note for note in table.notes)
