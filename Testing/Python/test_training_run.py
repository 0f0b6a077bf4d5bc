"""From a table to a bundle: every recipe, the card, what is refused, resuming, external validation."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from ImmunoRadiomicsLib import cli
from ImmunoRadiomicsLib.classifiers import load_bundle
from ImmunoRadiomicsLib.classifiers.arm import external_weight
from ImmunoRadiomicsLib.errors import CancelledError, InputError
from ImmunoRadiomicsLib.files import sha256_of
from ImmunoRadiomicsLib.training import (
    Effort,
    Recipe,
    Table,
    check_recipes,
    fit_columns,
    load_recipe,
    recipe_names,
    train,
    validate,
)
from ImmunoRadiomicsLib.training.listing import recipes_page
from ImmunoRadiomicsLib.training.recipes import MODALITY_PREFIX, Scheme

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = ROOT.parent / "shared" / "PUBLISHED_SYSTEMS.md"
SCHEMAS = ROOT / "Resources" / "Schemas"
LITTLE = Effort(repeats=1, bootstraps=0, learning_curve=False)


def table_for(recipe: Recipe, path: Path, *, patients: int = 60, seed: int = 0) -> Path:
    """A simulated cohort with every column that the recipe names, one of which tells the outcome."""
    rng = np.random.default_rng(seed)
    names: list[str] = []
    for group in recipe.features:
        features = list(group.names)
        for family in group.families:
            features += (
                ["vessels_TortuosityMean"] if family == "vessels" else [f"original_{family}_A", f"original_{family}_B"]
            )
        for timepoint in group.timepoints:
            names += [
                f"{timepoint}.{region}.{MODALITY_PREFIX[group.modality]}{name}"
                for region in group.regions
                for name in features
            ]
    names += [item.name for item in (*recipe.clinical, *recipe.columns)]
    names = list(dict.fromkeys(names)) or [f"baseline.core.original_glcm_{number}" for number in range(8)]
    values = rng.normal(size=(patients, len(names)))
    score = 2.0 * values[:, 0] + rng.normal(size=patients)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        outcome = ["time", "event"] if recipe.task == "survival" else [recipe.label]
        writer.writerow(["patient", "lesion", "centre", *outcome, *names])
        for number in range(patients):
            told = (
                [f"{rng.exponential(np.exp(-score[number])) + 0.01:.4f}", int(number % 4 != 0)]
                if recipe.task == "survival"
                else [int(score[number] > 0)]
            )
            writer.writerow([f"P{number}", "L1", "AB"[number % 2], *told, *(f"{item:.6f}" for item in values[number])])
    return path


def small(name: str) -> Recipe:
    return replace(load_recipe(name), scheme=Scheme(2, 2, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("trained")
    recipe = small("default")
    table = table_for(recipe, folder / "t.csv")
    train(table, folder / "bundle", recipe=recipe, label="label", effort=LITTLE)
    return folder / "bundle", table


def test_every_system_has_a_recipe_of_the_right_form() -> None:
    schema = json.loads((SCHEMAS / "recipe.schema.json").read_text())
    for name in recipe_names():
        jsonschema.validate(yaml.safe_load((ROOT / "Resources" / "Recipes" / f"{name}.yaml").read_text()), schema)
        assert load_recipe(name).id == name
    if not SYSTEMS.exists():
        pytest.skip("the list of systems is not beside the checkout")
    rows = [
        line for line in SYSTEMS.read_text().splitlines() if line.startswith("| ") and "**" not in line.split("|")[1]
    ]
    ids = {item.strip() for line in rows for item in line.split("|")[1].split(",")} - {"id", "---"}
    assert len(ids) >= 30
    assert ids <= set(recipe_names())


def test_the_documentation_is_that_of_the_recipes() -> None:
    assert (ROOT / "Docs" / "RECIPES.md").read_text(encoding="utf-8") == recipes_page()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_and_finds_the_signal(name: str, tmp_path: Path) -> None:
    recipe = small(name)
    table = table_for(recipe, tmp_path / "t.csv")
    result = train(table, tmp_path / "b", recipe=recipe, effort=LITTLE, force=True)
    assert result.performance.discrimination.value > (0.45 if "anomaly" in recipe.members else 0.6)
    bundle = load_bundle(tmp_path / "b")
    assert recipe.reported.text in bundle.card.reported
    jsonschema.validate(
        json.loads((tmp_path / "b" / "card.json").read_text()), json.loads((SCHEMAS / "card.schema.json").read_text())
    )
    assert bundle.predictor is not None
    row = dict.fromkeys(bundle.predictor.model.columns, 0.5)
    found = bundle.predictor.predict_row(row)
    assert np.isfinite(found)
    assert recipe.task == "survival" or 0 < found < 1
    with pytest.raises(InputError, match="is not there"):
        bundle.predictor.predict_row({})


def test_the_files_of_a_bundle(trained: tuple[Path, Path]) -> None:
    folder, _ = trained
    for name, schema in (("validation.json", "validation"), ("model.json", "trained-model")):
        jsonschema.validate(
            json.loads((folder / name).read_text()), json.loads((SCHEMAS / f"{schema}.schema.json").read_text())
        )
    found = json.loads((folder / "validation.json").read_text())
    assert {item["name"] for item in found["centres"]} == {"A", "B"}
    bundle = load_bundle(folder)
    assert bundle.predictor is not None
    distance = bundle.predictor.model.distance
    assert distance is not None
    assert 0 < len(distance.held_out) <= 200
    lists = json.loads((folder / "checklists.json").read_text())
    weights = [item["weight"] for item in lists["items"] if item["checklist"] == "METRICS"]
    assert len(weights) == 30
    assert sum(weights) == pytest.approx(1.0, abs=1e-3)
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 4
    assert "http://" not in page
    assert "https://" not in page


def test_external_validation_and_prediction_agree(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = trained
    other = table_for(small("default"), tmp_path / "u.csv", seed=9)
    result = validate(folder, other, tmp_path / "v", label="label")
    assert result.kind == "external"
    assert result.performance.discrimination.value > 0.7
    assert {item.name for item in result.centres} == {"A", "B"}
    assert (tmp_path / "v" / "report.html").exists()
    card = load_bundle(tmp_path / "v" / "bundle").card
    external = card.validation.external
    assert external is not None
    assert external.auc.value == result.performance.discrimination.value
    assert card.validation.internal == load_bundle(folder).card.validation.internal
    assert card.source("external-table").reference == f"sha256:{sha256_of(other)}"
    weight, why = external_weight(card)
    slope = min(max(external.calibration_slope or 0.0, 0.0), 1.0)
    assert weight == pytest.approx((2 * external.auc.value - 1) * slope)
    assert "external AUC" in why
    text = other.read_text().replace("original_glcm_3", "original_glcm_other")
    other.write_text(text)
    with pytest.raises(InputError, match="original_glcm_3`, which the model reads"):
        validate(folder, other, tmp_path / "w", label="label")


def test_the_table_that_it_was_fitted_to_validates_nothing(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder, table = trained
    result = validate(folder, table, tmp_path / "v", label="label")
    assert any("no external validation" in item for item in result.notes)
    assert not (tmp_path / "v" / "bundle").exists()


def change(folder: Path, target: Path, name: str, **entries: object) -> Path:
    """Copy a bundle, change a JSON of it, and seal it again."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    data = json.loads((target / name).read_text())
    data.update(entries)
    (target / name).write_text(json.dumps(data))
    seal(target)
    return target


def seal(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    card["sha256"] = {name: sha256_of(folder / name) for name in card["sha256"]}
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("name", "entries", "said"),
    [
        ("card.json", {"types": []}, "the card does not name"),
        ("card.json", {"types": ["os.system"]}, "no part of any model"),
        ("card.json", {"kind": "linear"}, "no weighted sum"),
        ("model.json", {"model_version": "9.0"}, "newer version"),
        ("model.json", {"columns": ["a"]}, "1 columns"),
        ("model.json", {"extra": 1}, "unknown entry"),
    ],
)
def test_what_does_not_fit_is_refused(
    trained: tuple[Path, Path], tmp_path: Path, name: str, entries: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        load_bundle(change(trained[0], tmp_path / "b", name, **entries))


def test_a_changed_a_damaged_and_a_foreign_model_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder = change(trained[0], tmp_path / "b", "card.json")
    model = next(folder.glob("*.skops"))
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="SHA-256 differs"):
        load_bundle(folder)
    seal(folder)
    with pytest.raises(InputError, match="no readable skops file"):
        load_bundle(folder)
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr(
            "schema.json",
            json.dumps(
                {
                    "__class__": "Popen",
                    "__module__": "subprocess",
                    "__loader__": "ObjectNode",
                    "__id__": 1,
                    "content": None,
                    "protocol": 2,
                    "_skops_version": "0.16",
                }
            ),
        )
    seal(folder)
    with pytest.raises(InputError, match=r"not loaded|readable|cannot be loaded"):
        load_bundle(folder)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    recipe = replace(load_recipe("jiang_immunoscore"), scheme=Scheme(4, 2, 1))
    table = table_for(recipe, tmp_path / "t.csv")

    def stop(fraction: float, message: str) -> None:
        if message.startswith("fold 2"):
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        train(table, tmp_path / "b", recipe=recipe, effort=LITTLE, progress=stop)
    assert not (tmp_path / "b").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".b.partial" / "cache").glob("*.json")}
    assert len(kept) >= 2
    again = train(table, tmp_path / "b", recipe=recipe, effort=LITTLE)
    whole = train(table, tmp_path / "c", recipe=recipe, effort=LITTLE, jobs=2)
    assert again == whole
    assert not (tmp_path / ".b.partial").exists()
    assert train(table, tmp_path / "b", recipe=recipe, effort=LITTLE) == again


def test_too_few_events_are_refused_unless_forced(tmp_path: Path) -> None:
    recipe = small("colen2018")
    table = table_for(recipe, tmp_path / "t.csv", patients=14)
    with pytest.raises(InputError, match="--force"):
        train(table, tmp_path / "b", recipe=recipe, effort=LITTLE)
    assert not (tmp_path / "b").exists()


def test_the_slower_checks(tmp_path: Path) -> None:
    recipe = replace(load_recipe("gabrys2022"), scheme=Scheme(2, 2, 1))
    recipe = replace(recipe, clinical=load_recipe("yoon2020").clinical[:1])
    table = table_for(recipe, tmp_path / "t.csv", patients=80)
    text = table.read_text().splitlines()
    centres = [line.replace(",A,", ",C,", 1) if number % 3 == 0 else line for number, line in enumerate(text)]
    table.write_text("\n".join(centres) + "\n")
    result = train(
        table,
        tmp_path / "b",
        recipe=recipe,
        effort=Effort(repeats=2, bootstraps=4, permutations=9, learning_curve=True),
    )
    assert result.optimism is not None
    assert result.optimism.brier_632_plus is not None
    assert 0.5 < result.optimism.estimate_632_plus <= result.optimism.apparent
    assert -0.02 < result.optimism.optimism < 0.2
    assert result.permutation_p == pytest.approx(0.1)
    assert np.mean(result.permutation_figures) == pytest.approx(0.5, abs=0.12)
    assert len(result.learning_curve) == 4
    assert {item.name for item in result.centres} == {"A", "B", "C"}
    assert result.comparison is not None
    assert result.comparison.difference.value > 0.1
    assert result.comparison.net_reclassification is not None
    assert len(result.repeats) == 2


def test_harmonised_filtered_and_in_subgroups(tmp_path: Path) -> None:
    recipe = replace(load_recipe("gabrys2022"), scheme=Scheme(2, 2, 1))
    path = table_for(recipe, tmp_path / "t.csv", patients=90)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    first = next(index for index, name in enumerate(lines[0]) if name.count(".") >= 2)
    for number, line in enumerate(lines[1:]):
        # The scanner shifts what tells the outcome by far more than patients differ.
        line[first] = f"{float(line[first]) + (40 if number % 3 else 0)}"
        line += ["S1" if number % 3 else "S2", "male" if number % 2 else "female"]
    lines[0] += ["scanner", "sex"]
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    unstable = lines[0][first + 1]
    judged = tmp_path / "stability.csv"
    judged.write_text(f"feature,icc\n{lines[0][first].split('.', 2)[2]},0.9\n{unstable.split('.', 2)[2]},0.3\n")
    plain = train(path, tmp_path / "plain", recipe=recipe, effort=LITTLE)
    result = train(path, tmp_path / "b", recipe=recipe, effort=LITTLE, harmonise="scanner", stability=judged)
    assert result.performance.discrimination.value > plain.performance.discrimination.value + 0.05
    assert "Harmonised over `scanner`" in result.harmonisation
    assert "1 of 2 measured columns" in result.stability_filter
    assert unstable not in {item.name for item in result.columns}
    assert unstable in {item.name for item in plain.columns}
    assert {(item.attribute, item.level) for item in result.subgroups} == {
        ("sex", "female"), ("sex", "male"), ("scanner", "S1"), ("scanner", "S2"),
    }  # fmt: skip
    assert {item.rows for item in result.subgroups if item.attribute == "sex"} == {45}
    assert all(item.discrimination is not None for item in result.subgroups)
    met = {
        item["item"]: item["status"]
        for item in json.loads((tmp_path / "b" / "checklists.json").read_text())["items"]
        if item["checklist"] == "METRICS"
    }
    assert met["14"] == met["19"] == "met"
    assert ">Subgroups<" in (tmp_path / "b" / "report.html").read_text()
    bundle = load_bundle(tmp_path / "b")
    assert bundle.predictor is not None
    assert bundle.predictor.model.batch_column == "scanner"
    row = dict.fromkeys(bundle.predictor.model.columns, 1.0)
    assert bundle.predictor.predict_row(row, "S1") != bundle.predictor.predict_row(row)
    assert bundle.predictor.predict_row(row, "S9") == bundle.predictor.predict_row(row)
    again = validate(tmp_path / "b", path, tmp_path / "v")
    assert again.performance.discrimination.value > 0.7
    assert again.subgroups
    path.write_text(path.read_text().replace(",S2,", ",S8,"))
    assert any("S8" in note for note in validate(tmp_path / "b", path, tmp_path / "w").notes)
    with pytest.raises(InputError, match="factors"):
        load_bundle(
            change(
                tmp_path / "b",
                tmp_path / "c",
                "model.json",
                correction={"batches": ["S1"], "factors": [], "shifts": []},
            )
        )


def test_large_tables_are_repeated_less() -> None:
    recipe = load_recipe("default")
    patients = tuple(f"P{number}" for number in range(40))
    labels, values = np.tile([0, 1], 20), np.zeros((40, 5))
    table = Table("t", "", "label", patients, (), (), np.arange(40), labels, None, tuple("abcde"), values, ())
    assert Effort().settled(recipe, table).repeats == 10
    large = replace(table, values=np.zeros((1000, 1500)))
    assert Effort().settled(recipe, large).repeats == 1
    assert Effort(repeats=4).settled(recipe, large).repeats == 4


def test_check_says_what_a_table_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_for(load_recipe("jiang_immunoscore"), tmp_path / "t.csv")
    assert cli.main(["recipes", "--check", str(table), "--json"]) == 0
    fits = {item["recipe"]: item for item in json.loads(capsys.readouterr().out)}
    assert not fits["jiang_immunoscore"]["problems"]
    assert any("PET" in item for item in fits["petct_pdl1"]["problems"])
    assert any("egfr_score" in item for item in fits["mu2021_egfr"]["problems"])
    assert cli.main(["recipes"]) == 0
    assert "vaidya2020" in capsys.readouterr().out


def test_columns_are_told_apart_by_image_and_region() -> None:
    recipe = load_recipe("basler2020")
    fit = fit_columns(
        recipe,
        (
            "baseline.core.wavelet-HHH_glcm_Contrast",
            "baseline.core.suv_original_glcm_Contrast",
            "baseline.lungs.original_glcm_Contrast",
            "ldh",
        ),
    )
    assert set(fit.columns) == {
        "baseline.core.wavelet-HHH_glcm_Contrast",
        "baseline.core.suv_original_glcm_Contrast",
        "ldh",
    }


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_for(load_recipe("velcheti_vessel"), tmp_path / "t.csv")
    judged = tmp_path / "stability.csv"
    judged.write_text("feature,icc\nvessels_TortuosityMean,0.8\n")
    options = ["--harmonise", "centre", "--stability", str(judged), "--repeats", "1"]
    code = cli.main(
        [
            "train",
            str(table),
            "--recipe",
            "velcheti_vessel",
            "--out",
            str(tmp_path / "b"),
            "--bootstraps",
            "0",
            "--progress",
            "off",
            *options,
        ]
    )
    said = capsys.readouterr().err
    assert code == 0, said
    assert "auc 0." in said
    assert "Harmonised over `centre`" in said
    assert "0 of 1 measured columns were left out" in said
    refused = ["train", str(table), "--recipe", "velcheti_vessel", "--out", str(tmp_path / "d"), "--progress", "off"]
    assert cli.main([*refused, "--stability", str(judged), "--min-icc", "0.9"]) == 2
    said = capsys.readouterr().err
    assert "no column for" in said
    assert "1 of 1 measured columns were left out" in said
    assert (
        cli.main(["validate", str(tmp_path / "b"), str(table), "--out", str(tmp_path / "v"), "--progress", "off"]) == 0
    )
    assert (
        cli.main(["train", str(table), "--recipe", "none-such", "--out", str(tmp_path / "c"), "--progress", "off"]) == 2
    )
    assert not (tmp_path / "c").exists()


def rewritten(path: Path, change: dict[str, list[object]]) -> Path:
    """The table with other cells in some columns, which may be new."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name, cells in change.items():
        for row, cell in zip(rows, cells, strict=True):
            row[name] = str(cell)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_label_of_another_question_is_answered_as_that(tmp_path: Path) -> None:
    recipe = replace(small("he2020"), members=("ridge",))
    table = table_for(recipe, tmp_path / "t.csv")
    table.write_text(table.read_text().replace("pseudoprogression", "hyperprogression", 1))
    result = train(table, tmp_path / "b", recipe=recipe, label="hyperprogression", effort=LITTLE, force=True)
    card = load_bundle(tmp_path / "b").card
    assert card.flag == "hyperprogression"
    assert card.endpoint.startswith("`hyperprogression`: Hyperprogression")
    assert "are not compared" in result.reported
    assert any("in place of `pseudoprogression`" in note for note in result.notes)


def test_a_card_counts_lesions_where_events_are_those_of_lesions(tmp_path: Path) -> None:
    recipe = replace(small("gabrys2022"), members=("ridge",))
    table = rewritten(
        table_for(recipe, tmp_path / "t.csv"),
        {"patient": [f"P{number // 3}" for number in range(60)], "lesion": [f"L{number % 3}" for number in range(60)]},
    )
    result = train(table, tmp_path / "b", recipe=recipe, effort=LITTLE, force=True)
    training = load_bundle(tmp_path / "b").card.training
    assert (result.patients, result.rows) == (20, 60)
    assert (training.patients, training.events) == (60, result.events)
    assert training.description.startswith("60 lesions of 20 patients, ")


@pytest.mark.parametrize("name", ["rcc_response", "colen2018"])
def test_folds_inside_folds_need_a_patient_each(name: str, tmp_path: Path) -> None:
    recipe = small(name)
    path = table_for(recipe, tmp_path / "t.csv", patients=32)
    table = rewritten(path, {recipe.label: [int(number < 2) for number in range(32)]})
    if name == "colen2018":
        result = train(table, tmp_path / "b", recipe=recipe, effort=LITTLE, force=True)
        assert result.events == 2
    else:
        with pytest.raises(InputError, match="the smaller class has 2 patients"):
            train(table, tmp_path / "b", recipe=recipe, effort=LITTLE, force=True)
        assert [item.name for item in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("censored", [0, 1])
def test_survival_with_hardly_anybody_censored(censored: int, tmp_path: Path) -> None:
    recipe = replace(load_recipe("skewness_survival"), scheme=Scheme(3, 2, 1))
    path = table_for(recipe, tmp_path / "t.csv")
    table = rewritten(path, {"event": [int(number >= censored) for number in range(60)]})
    result = train(table, tmp_path / "b", recipe=recipe, effort=Effort(1, 2, 0, True))
    assert result.scheme.startswith("Nested cross-validation, 3 outer")
    assert result.performance.discrimination.value > 0.6
    assert result.optimism is not None
    assert len(result.learning_curve) == 4
    assert {item.name for item in result.centres} == {"A", "B"}


@pytest.mark.parametrize("name", ["trebeschi2019", "colen2018"])
def test_threads_leave_no_mark_on_the_bundle(name: str, tmp_path: Path) -> None:
    recipe = small(name)
    table = table_for(recipe, tmp_path / "t.csv")
    for jobs in (1, 2):
        train(table, tmp_path / str(jobs), recipe=recipe, effort=LITTLE, jobs=jobs, force=True)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes(), path.name


def test_check_says_why_the_outcome_does_not_do(tmp_path: Path) -> None:
    recipe = load_recipe("jiang_immunoscore")
    path = table_for(recipe, tmp_path / "t.csv")
    fits = {item.recipe: item for item in check_recipes(path)}
    assert len(fits["jiang_immunoscore"].columns) == 14
    assert any("no column `event`" in item for item in fits["skewness_survival"].problems)
    assert any("no column `label` or `target`" in item for item in fits["rcc_response"].problems)
    table = rewritten(path, {recipe.label: [int(number < 5) for number in range(60)]})
    fits = {item.recipe: item for item in check_recipes(table)}
    assert any("the smaller class has 5 patients" in item for item in fits["jiang_immunoscore"].problems)
