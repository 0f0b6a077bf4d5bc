"""Bundles: what is shipped cites its sources and equals them; what is damaged is refused with the reason."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from classifier_cases import case

from ImmunoRadiomicsLib.analysis import Features
from ImmunoRadiomicsLib.classifiers import assess, list_bundles, load_bundle, seal_bundle
from ImmunoRadiomicsLib.classifiers.arm import external_weight
from ImmunoRadiomicsLib.classifiers.bundles import LARGEST_JSON_BYTES, bundle_schemas
from ImmunoRadiomicsLib.classifiers.flags import choose_bundles
from ImmunoRadiomicsLib.classifiers.trained import TRAINED_VERSION, TrainedMember, TrainedModel, types_of
from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.serialise import to_json
from ImmunoRadiomicsLib.training import fit_columns, load_recipe

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "Resources" / "Classifiers"
IDS = ("hyperprogression-evidence", "pneumonitis-evidence", "pseudoprogression-evidence")

SIMULATED = tuple(f"simulated-{flag}-trained" for flag in ("hyperprogression", "pneumonitis", "pseudoprogression"))

# (bundle, term) -> (ratio, lower, upper) as published.
PUBLISHED_RATIOS = {
    ("hyperprogression-evidence", "ldh-nsclc"): (2.285, 1.360, 3.839),
    ("hyperprogression-evidence", "ldh-other"): (2.32, 1.51, 3.58),
    ("hyperprogression-evidence", "liver-nsclc"): (3.173, 1.920, 5.244),
    ("hyperprogression-evidence", "liver-other"): (3.35, 2.09, 5.35),
    ("pneumonitis-evidence", "ild"): (5.78, 3.08, 10.85),
    ("pneumonitis-evidence", "respiratory"): (2.43, 1.45, 4.07),
    ("pneumonitis-evidence", "honeycombing"): (6.11, 2.37, 15.79),
    ("pneumonitis-evidence", "ground-glass"): (11.48, 1.13, 116.74),
    ("pneumonitis-evidence", "ila"): (6.64, 1.78, 24.8),
    ("pneumonitis-evidence", "emphysema"): (1.227, 1.053, 1.430),
    ("pneumonitis-evidence", "thoracic-rt"): (2.07, 1.34, 3.19),
    ("pneumonitis-evidence", "radiation-pneumonitis"): (3.62, 1.53, 8.58),
    ("pneumonitis-evidence", "squamous"): (1.31, 1.18, 1.45),
    ("pneumonitis-evidence", "pd1"): (3.54, 1.05, 11.98),
    ("pneumonitis-evidence", "combination"): (3.47, None, None),
    ("pneumonitis-evidence", "albumin"): (0.889, 0.808, 0.979),
}
PRIOR = {"id": "any", "title": "", "probability": 0.1, "lower": 0.1, "upper": 0.2, "source": "zhao2022"}
PUBLISHED_PRIORS = {
    ("pseudoprogression-evidence", "any"): (0.15, 0.08, 0.26),
    # 14 of 78, with Wilson's interval.
    ("pseudoprogression-evidence", "melanoma"): (0.179, 0.110, 0.279),
    ("pneumonitis-evidence", "trial"): (0.0279, 0.0239, 0.0323),
    ("pneumonitis-evidence", "real-world"): (0.16, 0.14, 0.18),
}


def content(identifier: str, name: str) -> dict[str, Any]:
    return json.loads((SHIPPED / identifier / name).read_text(encoding="utf-8"))


@pytest.fixture
def copy(tmp_path: Path):
    """Copies a shipped bundle, lets a test change its files, and seals it again unless told not to."""

    def make(identifier: str = "hyperprogression-evidence", *, card=None, model=None, seal: bool = True) -> Path:
        folder = tmp_path / identifier
        shutil.copytree(SHIPPED / identifier, folder)
        for name, change in (("card.json", card), ("model.json", model)):
            if change is not None:
                data = json.loads((folder / name).read_text(encoding="utf-8"))
                change(data)
                (folder / name).write_text(json.dumps(data), encoding="utf-8")
        if seal:
            seal_bundle(folder)
        return folder

    return make


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        load_bundle(folder)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_one_evidence_bundle_and_one_trained_on_simulated_patients_per_flag_are_shipped() -> None:
    bundles = list_bundles()
    flags = {"pseudoprogression", "hyperprogression", "pneumonitis"}
    assert tuple(item.card.id for item in bundles if item.card.kind == "evidence") == IDS
    trained = tuple(item for item in bundles if item.card.kind != "evidence")
    assert tuple(item.card.id for item in trained) == SIMULATED
    for group in (bundles[: len(IDS)], trained):
        assert {item.card.flag for item in group} == flags
    assert all(item.folder.name == item.card.id for item in bundles)
    assert not any(item.card.simulated for item in bundles if item.card.kind == "evidence")


@pytest.mark.parametrize("identifier", SIMULATED)
def test_what_was_trained_on_simulated_patients_says_so_and_never_weighs(identifier: str) -> None:
    bundle = load_bundle(SHIPPED / identifier)
    card = bundle.card
    assert card.simulated
    assert "simulation-trained, not for patients" in card.title
    assert any("not" in item and "patients" in item for item in card.limits)
    assert external_weight(card)[0] == 0.0
    # It runs in a Slicer with nothing installed, and takes little room.
    assert card.kind == "linear"
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 300_000
    assert sorted(path.name for path in bundle.folder.iterdir()) == ["card.json", "model.json"]
    assert card.training.events is not None
    assert card.training.events >= 10
    internal = card.validation.internal
    assert internal is not None
    assert 0.5 < internal.auc.lower < internal.auc.value <= internal.auc.upper <= 1.0
    assert "Nested cross-validation" in internal.scheme
    assert card.source("training-table").reference.startswith("sha256:")
    assert bundle.predictor is not None
    distance = bundle.predictor.model.distance
    assert distance is not None
    assert len(distance.held_out) == card.training.patients
    recipe = load_recipe(bundle.predictor.model.recipe)
    assert set(bundle.predictor.model.columns) <= set(fit_columns(recipe, bundle.predictor.model.columns).columns)
    for regions in ("core", "ring-0-5mm", "lungs"):
        assert any(regions in group.regions for group in recipe.features)


@pytest.mark.parametrize("identifier", IDS + SIMULATED)
def test_shipped_files_fit_their_schemas(identifier: str) -> None:
    schemas = bundle_schemas()
    for name, schema in schemas.items():
        written = json.loads((ROOT / "Resources" / "Schemas" / name).read_text(encoding="utf-8"))
        assert written == schema
    model = "evidence-model.schema.json" if identifier in IDS else "trained-model.schema.json"
    jsonschema.Draft202012Validator(schemas["card.schema.json"]).validate(content(identifier, "card.json"))
    jsonschema.Draft202012Validator(schemas[model]).validate(content(identifier, "model.json"))


def numbers_without_source(data: Any, sources: set[str], covered: bool = False, where: str = "") -> list[str]:
    """Places of numbers that neither their object nor one around it gives a listed source for."""
    if isinstance(data, bool) or data is None or isinstance(data, str):
        return []
    if isinstance(data, int | float):
        return [] if covered else [where]
    if isinstance(data, list):
        return [
            place
            for index, item in enumerate(data)
            for place in numbers_without_source(item, sources, covered, f"{where}[{index}]")
        ]
    here = covered or data.get("source") in sources
    return [
        place for key, item in data.items() for place in numbers_without_source(item, sources, here, f"{where}.{key}")
    ]


@pytest.mark.parametrize("identifier", IDS)
def test_every_number_has_a_source(identifier: str) -> None:
    card, model = content(identifier, "card.json"), content(identifier, "model.json")
    sources = {item["id"] for item in card["sources"]}
    assert all(item["citation"] and item["reference"] for item in card["sources"])
    assert numbers_without_source(model, sources) == []
    # The figures of the validation are those that the refit prints on the data of `training`.
    validation = card.pop("validation")
    assert numbers_without_source(card, sources) == []
    assert (validation["internal"] is None) == (card["training"]["patients"] is None)


@pytest.mark.parametrize("identifier", SIMULATED)
def test_every_number_of_a_trained_card_has_its_table_as_source(identifier: str) -> None:
    card = content(identifier, "card.json")
    sources = {item["id"] for item in card["sources"]}
    assert "training-table" in sources
    card.pop("validation")
    assert numbers_without_source(card, sources) == []


@pytest.mark.parametrize(("key", "expected"), PUBLISHED_RATIOS.items(), ids=str)
def test_ratios_are_the_published_ones(key: Any, expected: tuple[float, float | None, float | None]) -> None:
    bundle, term = key
    found = next(item for item in content(bundle, "model.json")["terms"] if item["id"] == term)
    assert (found["ratio"], found["lower"], found["upper"]) == expected


def test_no_other_ratio_or_prior_is_shipped() -> None:
    ratios = {(name, item["id"]) for name in IDS for item in content(name, "model.json")["terms"]}
    priors = {(name, item["id"]) for name in IDS for item in content(name, "model.json")["priors"]}
    assert ratios == set(PUBLISHED_RATIOS)
    assert priors == set(PUBLISHED_PRIORS)


@pytest.mark.parametrize(("key", "expected"), PUBLISHED_PRIORS.items(), ids=str)
def test_priors_are_the_published_ones(key: Any, expected: tuple[float, float, float]) -> None:
    bundle, prior = key
    found = next(item for item in content(bundle, "model.json")["priors"] if item["id"] == prior)
    assert (found["probability"], found["lower"], found["upper"]) == expected


def test_counts_errors_and_limits_are_the_published_ones() -> None:
    pseudo = content("pseudoprogression-evidence", "model.json")
    (ctdna,) = pseudo["tests"]
    assert (ctdna["hits"], ctdna["cases"], ctdna["rejections"], ctdna["others"]) == (9, 9, 18, 20)
    assert pseudo["measurement_error"]["sd_log_diameter"] == 0.120
    assert content("hyperprogression-evidence", "model.json")["measurement_error"]["sd_log_diameter"] == 0.120
    (limit,) = content("pneumonitis-evidence", "model.json")["limits"]
    assert (limit["probability"], limit["lower"], limit["upper"]) == (0.30, 0.24, 0.36)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("1.524 (1.009-2.301)", "nsclc_meta"),
        ("4.556 (2.424-8.561)", "nsclc_meta"),
        ("2.231 (1.321-3.767)", "nsclc_meta"),
        ("1.60 (1.13-2.27)", "all_meta"),
        ("2.80 (1.85-4.23)", "all_meta"),
        ("1.86 (1.33-2.59)", "all_meta"),
        ("13.2 % (11.2-15.4)", "zhao2022"),
        ("20.6 %", "bydef"),
    ],
)
def test_a_figure_in_words_cites_the_publication_it_is_from(text: str, source: str) -> None:
    items = content("hyperprogression-evidence", "model.json")["context"]
    assert {item["source"] for item in items if text in item["text"]} == {source}


def test_what_a_term_takes_from_another_publication_says_so() -> None:
    card, model = (content("pneumonitis-evidence", name) for name in ("card.json", "model.json"))
    notes = {item["id"]: item["note"] for item in model["terms"]}
    healthy = next(item for item in card["sources"] if item["id"] == "healthy_lungs")
    assert healthy["reference"] in notes["emphysema"]
    assert "0.19 %" in healthy["citation"]
    assert "Zhou 2023" in notes["emphysema"]
    assert "Zhou 2023" in notes["combination"]
    assert "35 g/L" in notes["albumin"]


def test_one_shrinkage_serves_both_bundles() -> None:
    hyper, pneumonitis = (content(name, "model.json")["shrinkage"] for name in IDS[:2])
    assert hyper["factor"] == pneumonitis["factor"]
    assert hyper["standard_deviation"] == pneumonitis["standard_deviation"]


def test_lung_diseases_are_one_cause_and_rmh_is_no_term() -> None:
    terms = content("pneumonitis-evidence", "model.json")["terms"]
    groups = {item["id"]: item["group"] for item in terms}
    together = {groups[name] for name in ("ild", "ila", "honeycombing", "ground-glass", "respiratory", "emphysema")}
    assert len(together) == 1
    assert None not in together
    assert groups["thoracic-rt"] == groups["radiation-pneumonitis"] is not None
    assert not [item for item in content("hyperprogression-evidence", "model.json")["terms"] if "rmh" in item["id"]]


def test_the_printed_cards_say_events_beside_figures_and_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0

    def squeezed(text: str) -> str:
        return "".join(text.split())

    printed = squeezed(capsys.readouterr().out)
    wanted = [
        "training: 301 patients, 42 events; First progressions",
        "external validation: AUC 0.760 (0.635-0.872), calibration slope 1.386, intercept 0.733, Brier score 0.102; POPLAR "
        "atezolizumab, 19 of 144 events",
    ]
    for bundle in list_bundles():
        card = bundle.card
        wanted += [card.endpoint, card.licence, *card.limits, *(card.cite(item.id) for item in card.sources)]
    assert [text for text in wanted if squeezed(text) not in printed] == []


def test_a_copy_that_is_sealed_loads(copy) -> None:
    assert load_bundle(copy()).card.id == "hyperprogression-evidence"


def test_a_changed_model_is_refused(copy) -> None:
    folder = copy()
    path = folder / "model.json"
    path.write_text(path.read_text(encoding="utf-8").replace("2.285", "2.286"), encoding="utf-8")
    assert "SHA-256 differs" in refusal(folder)


def test_a_missing_model_is_refused(copy) -> None:
    folder = copy()
    (folder / "model.json").unlink()
    assert "missing" in refusal(folder)


def test_a_link_in_place_of_the_model_is_refused(copy, tmp_path: Path) -> None:
    folder = copy()
    (folder / "model.json").rename(tmp_path / "elsewhere.json")
    (folder / "model.json").symlink_to(tmp_path / "elsewhere.json")
    assert "model.json" in refusal(folder)


@pytest.mark.parametrize("name", ["../model.json", "/etc/hostname", "a\\b.json", ".."])
def test_a_file_outside_the_bundle_is_refused(copy, name: str) -> None:
    folder = copy(card=lambda card: card["sha256"].update({name: "0" * 64}), seal=False)
    assert "plain file name" in refusal(folder)


@pytest.mark.parametrize(("file", "key"), [("card", "card_version"), ("model", "model_version")])
def test_a_later_version_is_refused(copy, file: str, key: str) -> None:
    text = refusal(copy(**{file: lambda data: data.update({key: "1.10"})}))
    assert "reads up to 1.0" in text
    assert "1.10" in text


@pytest.mark.parametrize("version", ["0.9", None, 1.0, "x"])
def test_an_unknown_version_is_refused(copy, version: Any) -> None:
    assert "card_version" in refusal(copy(card=lambda card: card.update(card_version=version)))


def test_an_undeclared_input_is_refused(copy) -> None:
    def drop(card: dict[str, Any]) -> None:
        card["inputs"] = [item for item in card["inputs"] if item["name"] != "ldh_high"]

    assert "'ldh_high', which the card does not declare" in refusal(copy(card=drop))


def test_an_unlisted_source_is_refused(copy) -> None:
    assert "'hearsay'" in refusal(copy(model=lambda model: model["terms"][0].update(source="hearsay")))


@pytest.mark.parametrize(
    ("file", "change", "word"),
    [
        ("card", lambda data: data.pop("endpoint"), "endpoint"),
        ("card", lambda data: data.update(surprise=1), "surprise"),
        ("card", lambda data: data.update(kind="pickle"), "pickle"),
        ("card", lambda data: data.update(flag="pneumonitis"), "the model answers hyperprogression"),
        ("card", lambda data: data["inputs"].append(data["inputs"][0]), "listed twice"),
        ("card", lambda data: data["sources"][0].update(reference=" "), "no reference"),
        ("card", lambda data: data["inputs"][1].update(low=9), "above high"),
        ("model", lambda data: data["terms"][0].update(ratio="2.3"), "a number is needed"),
        ("model", lambda data: data["terms"][0].update(lower=3.0), "in order"),
        ("model", lambda data: data["terms"][0].update(form="per unit"), "origin"),
        ("model", lambda data: data["terms"][0].update(measure="risk ratio"), "at which it was measured"),
        ("model", lambda data: data.update(shrinkage=None), "shrinkage"),
        ("model", lambda data: data["regression"].update(coefficients=[1.0]), "differ in length"),
        ("model", lambda data: data["regression"]["covariance"][0].__setitem__(0, -1.0), "positive definite"),
        ("model", lambda data: data["regression"]["scatter"].pop(), "scatter"),
        ("model", lambda data: data["regression"].update(distance_inputs=["sites", "age"]), "distance input"),
        ("model", lambda data: data["regression"].update(distance_inputs=[], location=[], scatter=[]), "far outside"),
        ("model", lambda data: data["regression"].update(spreads=[0.5, -1.4, 0.6]), "spread"),
        ("model", lambda data: data["shrinkage"].update(standard_deviation=-0.1), "shrinkage"),
        ("model", lambda data: data["shrinkage"].update(factor=5.0), "shrinkage"),
        ("model", lambda data: data["measurement_error"].update(sd_log_diameter=-0.1), "measurement error"),
        ("model", lambda data: data["levels"].update(unlikely_probability=5.0), "levels"),
        ("model", lambda data: data["terms"].append(data["terms"][0]), "'ldh-nsclc' is there twice"),
        ("model", lambda data: data["terms"][0].update(ceiling_ratio=0.0), "ceiling"),
        ("model", lambda data: data["terms"][0].update(measure="risk ratio", at_risk=0.3), "below 1"),
        ("card", lambda data: data["validation"]["external"]["auc"].update(value=1.7, upper=1.9), "external AUC 1.7"),
        ("card", lambda data: data["validation"]["external"].update(brier=2.0), "Brier"),
        ("card", lambda data: data["training"].update(events=-1), "-1 events"),
    ],
)
def test_a_wrong_form_is_refused(copy, file: str, change: Any, word: str) -> None:
    assert word in refusal(copy(**{file: change}))


@pytest.mark.parametrize(
    ("identifier", "change", "word"),
    [
        (IDS[0], lambda model: model.update(regression=None), "a regression with an intercept"),
        (IDS[0], lambda model: model.update(measurement_error=None), "measurement error"),
        (IDS[0], lambda model: model["priors"].append(PRIOR), "both say where the answer starts"),
        (IDS[1], lambda model: model["priors"].pop(), "the prior 'real-world'"),
        (IDS[2], lambda model: model["priors"].pop(), "the prior 'melanoma'"),
        (IDS[2], lambda model: model["regression"]["inputs"].__setitem__(0, "months"), "a regression on 'growth'"),
    ],
)
def test_a_model_without_what_its_question_needs_is_refused(copy, identifier: str, change: Any, word: str) -> None:
    assert word in refusal(copy(identifier, model=change))


def test_a_card_without_the_texture_publication_answers_all_the_same(copy) -> None:
    def drop(card: dict[str, Any]) -> None:
        card["sources"] = [item for item in card["sources"] if item["id"] != "gabrys2022"]

    texture = Features("baseline", "L1", "core", 2000, None, {"original_firstorder_10Percentile": -35.5})
    (_, flag, _), _ = assess(**case(features=(texture,)), bundles=[copy(card=drop)])
    assert flag.status == "assessed"
    assert "Texture of the largest lesion" not in {item.name for item in flag.evidence}


def test_a_huge_card_is_refused_unread(copy) -> None:
    folder = copy()
    with (folder / "card.json").open("r+b") as stream:
        stream.truncate(LARGEST_JSON_BYTES + 1)
    assert "more than 50 MB" in refusal(folder)


def test_a_model_that_swells_when_unpacked_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("skops")
    path = tmp_path / "member.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "{}")
        for number in range(3):
            archive.writestr(f"{number}.npy", b"0" * 1000)
    whole = path.read_bytes()
    # What an archive says of its parts is as long as they may become: three parts of 1 GB each.
    path.write_bytes(whole.replace((1000).to_bytes(4, "little"), (1_000_000_000).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"3\.0 GB when unpacked"):
        types_of(path)


def test_a_pipe_in_place_of_the_card_is_refused(copy) -> None:
    folder = copy()
    (folder / "card.json").unlink()
    os.mkfifo(folder / "card.json")
    assert "is no file" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"card_version": NaN}', '{"card_version": 1e999}', "\xff", "[" * 100_000]
)
def test_a_card_that_is_no_json_object_is_refused(copy, text: str) -> None:
    folder = copy()
    (folder / "card.json").write_bytes(text.encode("latin-1"))
    assert "card.json" in refusal(folder)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


def test_a_given_bundle_takes_the_place_of_the_shipped_one(copy) -> None:
    folder = copy(card=lambda card: card.update(version="9.9.9"))
    chosen = choose_bundles([folder])
    assert chosen.evidence["hyperprogression"].card.version == "9.9.9"
    assert chosen.evidence["pneumonitis"].folder == SHIPPED / "pneumonitis-evidence"


def test_every_unusable_bundle_is_named_at_once(copy, tmp_path: Path) -> None:
    member = TrainedMember("ridge", "ridge", 1.0, 0.0, 1.0, 0.0, (1.0,), None)
    one = (1.0,)
    fitted = TrainedModel(
        TRAINED_VERSION, "r", "1.0", "probability", "patient", "label", ("ecog_1",), one, one, one, one, one,
        (member,), 0.0, 1.0, "1.8",
    )  # fmt: skip

    def replaced(model: dict[str, Any]) -> None:
        model.clear()
        model.update(to_json(fitted))

    trained = copy(card=lambda card: card.update(kind="linear", flag="response"), model=replaced)
    with pytest.raises(InputError) as error:
        choose_bundles([trained, SHIPPED / "pneumonitis-evidence", SHIPPED / "pneumonitis-evidence", tmp_path / "none"])
    assert len(error.value.problems) == 3
    assert "about response answers none" in error.value.problems[0]
    assert "one evidence bundle per flag" in error.value.problems[1]
