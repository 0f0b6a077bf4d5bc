"""The radiomics arm: what a trained bundle may weigh, how it is read on a patient, and that simulated patients never weigh."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifier_cases import case, study
from factories import example_analysis

from ImmunoRadiomicsLib.analysis import FeatureDelta, Features
from ImmunoRadiomicsLib.classifiers import assess, load_bundle, seal_bundle
from ImmunoRadiomicsLib.classifiers.arm import MOST_MISSING, clinical_numbers, external_weight, read_arm
from ImmunoRadiomicsLib.classifiers.bundles import (
    CARD_VERSION,
    Card,
    Figure,
    InputSpec,
    Performance,
    Source,
    Training,
    Validation,
)
from ImmunoRadiomicsLib.classifiers.case import Case
from ImmunoRadiomicsLib.classifiers.distance import JointDistance, fit_joint_distance
from ImmunoRadiomicsLib.classifiers.trained import TRAINED_VERSION, TrainedMember, TrainedModel
from ImmunoRadiomicsLib.cohort.summary import write_summary
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.report import write_tables
from ImmunoRadiomicsLib.serialise import to_json
from ImmunoRadiomicsLib.study import Clinical

COLUMNS = ("delta.core.original_firstorder_Mean", "baseline.lungs.original_firstorder_Mean", "age")


def performance(auc: float, lower: float, upper: float, slope: float | None) -> Performance:
    return Performance(Figure(auc, lower, upper), slope, 0.0, 0.1, "another table")


def card(external: Performance | None = None, *, simulated: bool = False, flag: Any = "hyperprogression") -> Card:
    return Card(
        CARD_VERSION, "own", "1.0", "Own model", flag, "linear", "p", "e", "own patients",
        tuple(InputSpec(name, name, "as extracted", -2000.0, 100.0, True, "t") for name in COLUMNS),
        (Source("t", "own table", "sha256:0"),), Training(200, 40, "rows", "t"), Validation(None, external),
        "", (), "own", {}, (), simulated,
    )  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path):
    """Writes a trained bundle whose log-odds are -1.4 plus a hundredth of the change of the mean and of a lung value, per HU."""

    def make(
        external: Performance | None = None,
        *,
        unit: Any = "patient",
        distance: JointDistance | None = None,
        **changes: Any,
    ) -> Path:
        folder = tmp_path / f"own-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        zeros, ones = (0.0,) * 3, (1.0,) * 3
        member = TrainedMember("ridge", "ridge", 1.0, 0.0, 1.0, -1.4, (0.5, 0.01, 0.0), None)
        model = TrainedModel(
            TRAINED_VERSION, "own", "1.0", "probability", unit, "label", COLUMNS, zeros, (-5000.0,) * 3, (5000.0,) * 3,
            zeros, ones, (member,), 0.0, 1.0, "1.8", distance=distance,
        )  # fmt: skip
        (folder / "model.json").write_text(json.dumps(to_json(model)))
        (folder / "card.json").write_text(json.dumps(to_json(card(external, **changes))))
        seal_bundle(folder)
        return folder

    return make


def measured(changes: dict[str, float], lungs_hu: float | None = -50.0) -> dict[str, Any]:
    """What ``assess`` takes, with a change of the core's mean by lesion, and a mean of the lungs."""
    volumes = {lesion: 1000.0 * (number + 1) for number, lesion in enumerate(changes)}
    cores = [
        Features("baseline", lesion, "core", 500, None, {"original_shape_MeshVolume": volumes[lesion]})
        for lesion in changes
    ]
    if lungs_hu is not None:
        cores.append(Features("baseline", None, "lungs", 9000, None, {"original_firstorder_Mean": lungs_hu}))
    deltas = tuple(
        FeatureDelta(
            lesion, "core", "baseline", "followup-1", 62, None, {"original_firstorder_Mean": (9.0, value, 1.0)}
        )
        for lesion, value in changes.items()
    )
    return case(features=tuple(cores), deltas=deltas, study=study(age=60.0))


def asked(facts: dict[str, Any]) -> Case:
    return Case(**facts)


GOOD = performance(0.80, 0.70, 0.90, 0.9)


@pytest.mark.parametrize(
    ("external", "weight", "said"),
    [
        (None, 0.0, "not validated"),
        (performance(0.60, 0.48, 0.72, 1.0), 0.0, "not surely above chance"),
        (performance(0.80, 0.70, 0.90, None), 0.0, "slope is not known"),
        (GOOD, 0.6 * 0.9, "weight 0.54"),
        (performance(0.80, 0.70, 0.90, 1.7), 0.6, "slope 1.70"),
        (performance(0.80, 0.70, 0.90, -0.2), 0.0, "slope -0.20"),
        (performance(1.0, 1.0, 1.0, 1.0), 1.0, "weight 1.00"),
    ],
)
def test_the_weight_depends_on_the_external_validation(external: Any, weight: float, said: str) -> None:
    found, why = external_weight(card(external))
    assert found == pytest.approx(weight)
    assert said in why
    assert external_weight(card(external, simulated=True)) == (0.0, "weight 0: simulation-trained, not for patients")


def test_a_validated_bundle_moves_the_answer_by_its_weight(bundle) -> None:
    facts = measured({"L1": 0.4, "L2": 3.0})
    (_, without, _), _ = assess(**facts)
    (_, flag, _), _ = assess(**facts, bundles=[bundle(GOOD)])
    item = next(item for item in flag.evidence if "Own model" in item.name)
    # L2 is the larger lesion: 0.5 * 3 - 0.01 * 50 - 1.4; 40 of 200 patients had the event.
    chance = 1.0 / (1.0 + math.exp(0.4))
    assert item.use == "used"
    assert item.log_odds == pytest.approx(0.54 * (-0.4 - math.log(0.25)))
    assert "read on L2" in item.note
    assert item.value == f"{100 * chance:.0f} %"
    moved = math.log(flag.probability / (1 - flag.probability)) - math.log(
        without.probability / (1 - without.probability)
    )
    assert moved == pytest.approx(item.log_odds)
    assert item.lower < item.log_odds < item.upper
    # What the shipped arm says is gone, and the counterfactuals count the arm too.
    assert not [entry for entry in flag.evidence if "simulat" in entry.name]
    assert flag.counterfactuals != without.counterfactuals


def test_without_external_validation_it_is_context(bundle) -> None:
    facts = measured({"L1": 0.4})
    (_, without, _), _ = assess(**facts)
    (_, flag, _), _ = assess(**facts, bundles=[bundle()])
    assert (flag.probability, flag.lower, flag.upper) == (without.probability, without.lower, without.upper)
    item = next(item for item in flag.evidence if "Own model" in item.name)
    assert (item.use, item.log_odds) == ("context", 0.0)
    assert "not validated" in item.note


def test_a_simulated_bundle_never_weighs_and_says_so(bundle) -> None:
    facts = measured({"L1": 0.4})
    (_, without, _), _ = assess(**facts)
    (_, flag, _), _ = assess(**facts, bundles=[bundle(GOOD, simulated=True)])
    assert flag.probability == without.probability
    item = next(item for item in flag.evidence if "Own model" in item.name)
    assert item.use == "context"
    assert "simulation-trained, not for patients" in item.value


def test_a_bundle_about_lesions_is_read_on_each_and_the_highest_counts(bundle) -> None:
    arm = read_arm(asked(measured({"L1": 4.0, "L2": 0.4})), load_bundle(bundle(GOOD, unit="lesion")))
    assert "highest on L1" in arm.contributions[0].note


def test_lesions_are_compared_with_the_median_lesion(bundle) -> None:
    """40 events among the lesions of 200 patients are no share of lesions."""
    arm = read_arm(asked(measured({"L1": 4.0, "L2": 0.4})), load_bundle(bundle(GOOD, unit="lesion")))
    # Log-odds of 0.5 * 4 - 0.01 * 50 - 1.4 against the -1.4 of a lesion whose inputs are all at their medians, which are 0.
    assert arm.contributions[0].point == pytest.approx(0.54 * 1.5)


def test_missing_inputs_are_said_and_too_many_silence_it(bundle) -> None:
    read = load_bundle(bundle(GOOD))
    some = read_arm(asked(measured({"L1": 0.4}, lungs_hu=None)), read)
    assert "1 of 3 inputs are not known" in some.contributions[0].note
    assert MOST_MISSING == 0.5
    facts = measured({"L1": 0.4}, lungs_hu=None)
    most = read_arm(asked({**facts, "deltas": ()}), read)
    assert not most.contributions
    assert most.context[0].value == "not read: 2 of its 3 inputs are not known"
    assert read_arm(asked(case()), read).context[0].value == "not read: no lesion was measured"


def test_a_patient_outside_the_training_range_silences_it(bundle) -> None:
    read = load_bundle(bundle(GOOD))
    arm = read_arm(asked(measured({"L1": 900.0})), read)
    assert "1 of its 3 inputs lie outside" in arm.context[0].value


def correlated(rows: int, columns: int, seed: int) -> np.ndarray:
    """Rows of long-tailed columns that follow from two hidden ones, as radiomics features of one lesion do."""
    mixing = np.random.default_rng(1).normal(size=(2, columns))
    random = np.random.default_rng(seed)
    return np.exp(0.5 * (random.normal(size=(rows, 2)) @ mixing + 0.3 * random.normal(size=(rows, columns))))


@pytest.mark.parametrize(("rows", "columns"), [(120, 6), (100, 300)])
def test_the_joint_distance_tells_what_no_range_tells(rows: int, columns: int) -> None:
    """One of twenty new rows of the same kind counts as far out; rows of possible values in impossible company do."""
    known = correlated(rows, columns, 2)
    distance = fit_joint_distance(known, np.arange(rows))
    assert distance is not None
    alike = correlated(2000, columns, 3)
    assert 0.02 <= np.mean(distance.share_farther_out(alike) < 0.05) <= 0.09
    assert distance.beyond_all(alike).mean() < 0.03
    shuffled = np.stack([np.random.default_rng(n).permutation(column) for n, column in enumerate(alike.T)], axis=1)
    assert np.mean(distance.share_farther_out(shuffled) < 0.05) > 0.6
    # Five wrong rows among those that it is fitted to change little.
    spoilt = known.copy()
    spoilt[:5] = 1e4
    robust = fit_joint_distance(spoilt, np.arange(rows))
    assert robust is not None
    assert np.median(robust.distances(alike)) == pytest.approx(np.median(distance.distances(alike)), rel=0.3)


def test_rows_of_a_patient_are_held_out_together() -> None:
    """Copies of a row would else find themselves among the rows fitted to, and nobody would ever be far out."""
    known = np.repeat(correlated(12, 40, 4), 8, axis=0)
    distance = fit_joint_distance(known, np.repeat(np.arange(12), 8))
    assert distance is not None
    parted = fit_joint_distance(known, np.arange(96))
    assert parted is not None
    assert np.median(distance.held_out) > 1.5 * np.median(parted.held_out)
    assert fit_joint_distance(known[:16], np.repeat(np.arange(2), 8)) is None


def test_a_patient_unlike_all_of_the_training_data_silences_it(bundle) -> None:
    """A change of +2 and lungs at -90 are both usual; together nobody had them."""
    random = np.random.default_rng(5)
    change = random.normal(0.0, 1.0, 200)
    known = np.stack(
        [change, -50.0 + 20.0 * change + random.normal(0.0, 2.0, 200), random.normal(60.0, 8.0, 200)], axis=1
    )
    read = load_bundle(bundle(GOOD, distance=fit_joint_distance(known, np.arange(200))))
    usual = read_arm(asked(measured({"L1": 2.0}, lungs_hu=-10.0)), read)
    assert usual.contributions
    assert not usual.doubts
    assert "together" not in usual.contributions[0].note
    far = read_arm(asked(measured({"L1": 2.0}, lungs_hu=-90.0)), read)
    assert not far.contributions
    assert far.context[0].value == "not read: its inputs together are unlike those of every patient it was trained on"
    odd = read_arm(asked(measured({"L1": 1.5}, lungs_hu=-28.5)), read)
    assert "its inputs together are unusual" in odd.contributions[0].note
    assert [item.severity for item in odd.doubts] == ["caution"]


def test_a_joint_distance_that_does_not_fit_its_model_is_refused(bundle) -> None:
    known = correlated(30, 2, 6)
    folder = bundle(GOOD, distance=fit_joint_distance(known, np.arange(30)))
    with pytest.raises(InputError, match="joint distance has 2 numbers for 3 columns"):
        load_bundle(folder)


def test_nothing_is_said_without_a_bundle() -> None:
    arm = read_arm(asked(case()), None)
    assert (arm.contributions, arm.context, arm.doubts) == ((), (), ())


def test_clinical_facts_are_the_numbers_of_a_training_table() -> None:
    found = clinical_numbers(Clinical(age=61.0, sex="male", smoking="former", ild=True, ecog=2, histology="squamous"))
    assert found == {"age": 61.0, "sex": 1.0, "smoking": 1.0, "ild": 1.0, "ecog": 2.0}


def test_a_patient_is_read_as_its_row_of_the_training_table_was_written(bundle, tmp_path: Path) -> None:
    """Also with a scan before the baseline, whose change to the baseline is no change of the follow-up."""
    from ImmunoRadiomicsLib.classifiers.arm import _cells

    analysis = example_analysis()
    (tmp_path / "result").mkdir()
    write_tables(analysis, tmp_path / "result")
    (tmp_path / "result" / "analysis.json").write_text(json.dumps(to_json(analysis)))
    write_summary(tmp_path / "result", tmp_path)
    with (tmp_path / "training.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    facts = case(
        features=analysis.features, deltas=analysis.deltas, timepoints=analysis.timepoints, lesions=analysis.lesions
    )
    patient = replace(asked(facts), study=study())
    columns = [name for name in rows[0] if name != "lesion"]
    assert any(name.startswith("delta.") for name in columns)
    assert not any(name.startswith("delta-baseline") for name in columns)
    for row in rows:
        cells = _cells(patient, row["lesion"], columns)
        for name in columns:
            expected = float(row[name]) if row[name] else None
            assert cells[name] == (None if expected is None else pytest.approx(expected, rel=1e-5)), name
    assert np.any([bool(row[name]) for row in rows for name in columns if name.startswith("delta.")])
