"""Whole virtual patients: what is drawn, what is written, and whether the truth says the same as the images."""

from __future__ import annotations

import csv
import datetime
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.errors import CancelledError, InputError
from ImmunoRadiomicsLib.images import Anatomy, read_segmentation, read_volume
from ImmunoRadiomicsLib.serialise import from_json
from ImmunoRadiomicsLib.simulation import (
    LesionPlan,
    Lungs,
    Motion,
    Scenario,
    TimepointPlan,
    Truth,
    VirtualPatient,
    demo_scenario,
    random_scenario,
    simulate_cohort,
    simulate_patient,
    write_patient,
)
from ImmunoRadiomicsLib.simulation.patient import _baseline_scan
from ImmunoRadiomicsLib.simulation.thorax import build_thorax
from ImmunoRadiomicsLib.simulation.truth import truth_schema
from ImmunoRadiomicsLib.simulation.tumours import plan_tumours
from ImmunoRadiomicsLib.study import load_study

ROOT = Path(__file__).resolve().parents[2]
MOTION = Motion(
    breathing_mm=-16.0, rotation_degrees=(2.0, -1.5, 3.0), translation_mm=(7.0, -6.0, 11.0), frame_offset_mm=(0, 0, 40)
)
EVERYTHING = Scenario(
    timepoints=(
        TimepointPlan("baseline", datetime.date(2024, 1, 10)),
        TimepointPlan("followup-1", datetime.date(2024, 3, 12), MOTION, ground_glass_ml=150.0, consolidation_ml=20.0),
    ),
    lesions=(
        LesionPlan("lung", 30.0, "grow", 2.0),
        LesionPlan("lung", 26.0, "split"),
        LesionPlan("lung", 18.0, "merge"),
        LesionPlan("lung", 14.0, "merge"),
        LesionPlan("lung", 12.0, "vanish"),
        LesionPlan("lung", 14.0, "new"),
        LesionPlan("lymph node", 20.0, "stable", 1.0),
        LesionPlan("liver", 24.0, "shrink", 0.5),
        LesionPlan("pleura", 24.0, "stable", 1.1),
        LesionPlan("mediastinum", 26.0, "stable", 1.1),
    ),
    course="mixed",
)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayViewFromImage(image)


@pytest.fixture(scope="module")
def patient() -> VirtualPatient:
    return simulate_patient(11, size="small", scenario=EVERYTHING)


def test_the_scan_is_a_ct(patient: VirtualPatient) -> None:
    ct = patient.at("baseline").ct
    assert ct.GetSize() == (192, 160, 120)
    assert ct.GetSpacing() == (2.0, 2.0, 2.5)
    assert ct.GetPixelID() == sitk.sitkInt16
    values, anatomy = array(ct), array(patient.at("baseline").anatomy)
    assert np.median(values[anatomy == Anatomy.OUTSIDE]) == pytest.approx(-1000, abs=15)
    for side in (Anatomy.RIGHT_LUNG, Anatomy.LEFT_LUNG):
        assert -890 < np.median(values[anatomy == side]) < -780
        assert 1200 < (anatomy == side).sum() * 0.01 < 3600
    assert np.median(values[anatomy == Anatomy.AIRWAYS]) < -900
    body = values[anatomy == Anatomy.BODY]
    assert ((body > -125) & (body < -75)).mean() > 0.1
    assert ((body > 20) & (body < 90)).mean() > 0.2
    assert ((body > 200) & (body < 900)).mean() > 0.01


def test_lungs_weigh_more_at_the_back(patient: VirtualPatient) -> None:
    values, anatomy = array(patient.at("baseline").ct), array(patient.at("baseline").anatomy)
    lung = ndimage.binary_erosion((anatomy == Anatomy.RIGHT_LUNG) | (anatomy == Anatomy.LEFT_LUNG), iterations=2)
    rows = np.nonzero(lung)[1]
    front, back = np.quantile(rows, (0.15, 0.85)).astype(int)
    there = np.median(values[:, back][lung[:, back]]) - np.median(values[:, front][lung[:, front]])
    assert 15 < there < 120


def test_the_right_lung_is_on_the_right(patient: VirtualPatient) -> None:
    anatomy = array(patient.at("baseline").anatomy)
    right, left = (np.nonzero(anatomy == side)[2].mean() for side in (Anatomy.RIGHT_LUNG, Anatomy.LEFT_LUNG))
    assert right < left


def test_the_same_arguments_give_the_same_patient(patient: VirtualPatient) -> None:
    again = simulate_patient(11, size="small", scenario=EVERYTHING)
    for name in ("baseline", "followup-1"):
        assert np.array_equal(array(again.at(name).ct), array(patient.at(name).ct))
    assert again.truth == patient.truth


def test_two_scans_of_a_patient_who_lies_still_differ_by_independent_noise_alone() -> None:
    still = TimepointPlan("followup-1", datetime.date(2024, 3, 12))
    scenario = replace(EVERYTHING, timepoints=(EVERYTHING.timepoints[0], still), lesions=())
    quiet = simulate_patient(11, size="small", scenario=scenario)
    first, second = (array(item.ct).astype(float) for item in quiet.timepoints)
    body = array(quiet.at("baseline").anatomy) == Anatomy.BODY
    difference = (second - first)[body]
    # Interpolation moves edges a little; the bulk differs by the two noises, which are independent of each other.
    spread = np.subtract(*np.quantile(difference, (0.75, 0.25))) / 1.349
    assert abs(np.median(difference)) < 1.0
    assert 0.7 * 2**0.5 * scenario.noise_hu < spread < 1.6 * 2**0.5 * scenario.noise_hu
    fat = ndimage.binary_erosion(body & (np.abs(0.5 * (first + second) + 104.0) < 40.0), iterations=2)
    assert abs(np.corrcoef(first[fat], second[fat])[0, 1]) < 0.35


def test_the_truth_displacement_carries_the_baseline_onto_the_follow_up(patient: VirtualPatient) -> None:
    baseline, followup = patient.at("baseline"), patient.at("followup-1")
    record = patient.truth.timepoints[1]
    assert record.displacement_error_mm < 0.05
    assert record.smallest_jacobian > 0.3
    field = sitk.Cast(followup.deformation.displacement_image(), sitk.sitkVectorFloat64)
    carry = sitk.DisplacementFieldTransform(field)
    warped = sitk.Resample(followup.ct, baseline.ct, carry, sitk.sitkLinear, -1000.0)
    anatomy = array(baseline.anatomy)
    lung = (anatomy == Anatomy.RIGHT_LUNG) | (anatomy == Anatomy.LEFT_LUNG)
    moved = sitk.Resample(followup.anatomy, baseline.ct, carry, sitk.sitkNearestNeighbor)
    other = array(moved)
    other_lung = (other == Anatomy.RIGHT_LUNG) | (other == Anatomy.LEFT_LUNG)
    dice = 2 * (lung & other_lung).sum() / (lung.sum() + other_lung.sum())
    # Two nearest-neighbour samplings at 2 mm: half a voxel of the surface each.
    assert dice > 0.97
    fixed, moving = array(baseline.ct)[lung].astype(float), array(warped)[lung].astype(float)
    unaligned = array(sitk.Resample(followup.ct, baseline.ct, sitk.Transform(), sitk.sitkLinear, -1000.0))[lung]
    best = np.corrcoef(fixed, moving)[0, 1]
    assert best > np.corrcoef(fixed, unaligned.astype(float))[0, 1] + 0.2
    # Nothing is off by even a millimetre: any shift of the field makes it worse.
    for shift in np.vstack([np.eye(3), -np.eye(3)]):
        both = sitk.CompositeTransform([sitk.TranslationTransform(3, shift.tolist()), carry])
        shifted = array(sitk.Resample(followup.ct, baseline.ct, both, sitk.sitkLinear, -1000.0))[lung]
        assert np.corrcoef(fixed, shifted.astype(float))[0, 1] < best - 0.005


def test_a_deeper_breath_dilutes_the_lungs() -> None:
    deep = TimepointPlan("followup-1", datetime.date(2024, 3, 12), Motion(breathing_mm=30.0, irregular_mm=0.0))
    scenario = replace(EVERYTHING, timepoints=(EVERYTHING.timepoints[0], deep), lesions=())
    patient = simulate_patient(4, size="small", scenario=scenario)
    ratio = patient.truth.timepoints[1].lung_volume_ratio
    assert 1.08 < ratio < 1.25
    density = []
    for item in patient.timepoints:
        anatomy = array(item.anatomy)
        lung = (anatomy == Anatomy.RIGHT_LUNG) | (anatomy == Anatomy.LEFT_LUNG)
        density.append(float(np.median(array(item.ct)[lung])) + 1000.0)
    # The mass of the parenchyma is kept.
    assert density[0] / density[1] == pytest.approx(ratio, abs=0.06)


EVENTS = {
    "L1": ("grow", "present", 1),
    "L2": ("split", "split", 2),
    "L3": ("merge", "present", 1),
    "L4": ("merge", "merged", 0),
    "L5": ("vanish", "vanished", 0),
    "L6": ("new", "new", 1),
    "L7": ("stable", "present", 1),
    "L8": ("shrink", "present", 1),
}


def test_every_lesion_meets_its_fate(patient: VirtualPatient) -> None:
    for lesion in patient.truth.lesions:
        if lesion.id in EVENTS:
            fate, event, segments = EVENTS[lesion.id]
            observation = lesion.at("followup-1")
            assert (lesion.fate, observation.event, len(observation.segments)) == (fate, event, segments), lesion.id
        first = lesion.at("baseline")
        assert first.event == ("absent" if lesion.id == "L6" else "baseline")
        assert first.segments == (() if lesion.id == "L6" else (lesion.id,))
    assert patient.truth.lesions[3].at("followup-1").merged_into == "L3"


def test_segments_are_whole_apart_and_as_large_as_the_truth_says(patient: VirtualPatient) -> None:
    for item in patient.timepoints:
        regions = dict(item.segments)
        total = np.zeros(array(item.ct).shape, dtype=int)
        for region in regions.values():
            mask = region.paste(total.shape)
            assert ndimage.label(mask, structure=np.ones((3, 3, 3)))[1] == 1
            total += mask
        assert total.max() == 1
        for lesion in patient.truth.lesions:
            observation = lesion.at(item.plan.name)
            if observation.volume_ml is None:
                continue
            voxels = sum(regions[name].count for name in observation.segments)
            assert voxels * 0.01 == pytest.approx(observation.volume_ml, rel=1e-9)
            if lesion.organ == "lung" and lesion.fate != "merge":
                grown = observation.viable_ml + observation.inflamed_ml
                assert observation.volume_ml == pytest.approx(grown, rel=0.08), lesion.id


def test_diameters_agree_with_the_mask_within_a_voxel(patient: VirtualPatient) -> None:
    item = patient.at("baseline")
    for lesion in patient.truth.lesions:
        observation = lesion.at("baseline")
        if observation.long_axis_mm is None or observation.short_axis_mm is None:
            continue
        mask = dict(item.segments)[observation.segments[0]].voxels
        longest = 0.0
        for plane in mask:
            at = np.argwhere(plane) * 2.0
            if len(at):
                longest = max(longest, float(np.linalg.norm(at[:, None] - at[None], axis=-1).max()))
        # Between the outermost voxel centres and the outermost corners.
        assert longest <= observation.long_axis_mm + 1e-6 <= longest + 2.0 * 2.0**0.5 + 1e-6
        assert 0.3 * observation.long_axis_mm < observation.short_axis_mm <= observation.long_axis_mm + 0.3


def test_what_is_in_the_mask_is_what_was_drawn(patient: VirtualPatient) -> None:
    item = patient.at("baseline")
    values = array(item.ct)
    for name, region in item.segments:
        mask = region.paste(values.shape)
        core = ndimage.binary_erosion(mask)
        assert 0 < np.median(values[core if core.any() else mask]) < 130, name
    grown = dict(item.segments)["L1"].paste(values.shape)
    shell = ndimage.binary_dilation(grown, iterations=3) & ~ndimage.binary_dilation(grown, iterations=1)
    assert np.median(values[shell]) < -500


def test_opacities_have_the_volume_and_look_that_were_asked_for(patient: VirtualPatient) -> None:
    record = patient.truth.timepoints[1]
    assert record.ground_glass_ml == pytest.approx(150.0, rel=0.15)
    assert record.consolidation_ml == pytest.approx(20.0, rel=0.3)
    assert record.new_opacity_ml == pytest.approx(record.ground_glass_ml + record.consolidation_ml)
    item = patient.at("followup-1")
    opacities, values = array(item.opacities), array(item.ct)
    assert -750 < np.median(values[opacities == 1]) < -450
    assert -100 < np.median(values[opacities == 2]) < 80
    assert patient.at("baseline").opacities is None
    assert patient.truth.label("pneumonitis")


@pytest.mark.parametrize(
    ("course", "expected"),
    [("pseudoprogression", (True, False)), ("hyperprogression", (False, True)), ("response", (False, False))],
)
def test_the_course_decides_the_labels(course: str, expected: tuple[bool, bool]) -> None:
    scenario = replace(
        EVERYTHING,
        timepoints=(
            EVERYTHING.timepoints[0],
            replace(EVERYTHING.timepoints[1], ground_glass_ml=0.0, consolidation_ml=0.0),
        ),
        lesions=(LesionPlan("lung", 24.0), LesionPlan("lung", 18.0)),
        course=course,
    )
    truth = simulate_patient(21, size="small", scenario=scenario).truth
    assert (truth.label("pseudoprogression"), truth.label("hyperprogression")) == expected
    assert not truth.label("pneumonitis")
    rise = truth.timepoints[1].sum_of_diameters_mm / truth.timepoints[0].sum_of_diameters_mm
    assert rise > 1.2 if any(expected) else rise < 0.9


def test_sick_lungs_keep_their_outline(patient: VirtualPatient) -> None:
    scenario = replace(EVERYTHING, lesions=(), lungs=Lungs(emphysema=0.15, effusion_ml=(300.0, 0.0), fibrosis=0.6))
    sick = simulate_patient(11, size="small", scenario=scenario)
    well, ill = patient.truth.timepoints[0], sick.truth.timepoints[0]
    assert well.right_lung_ml - ill.right_lung_ml == pytest.approx(300.0, rel=0.15)
    assert ill.left_lung_ml == pytest.approx(well.left_lung_ml, rel=0.01)
    anatomy, values = array(sick.at("baseline").anatomy), array(sick.at("baseline").ct)
    lung = (anatomy == Anatomy.RIGHT_LUNG) | (anatomy == Anatomy.LEFT_LUNG)
    holes = (values[lung] < -950).mean()
    without_air = array(sick.at("baseline").anatomy) == Anatomy.BODY
    anatomy, values = array(patient.at("baseline").anatomy), array(patient.at("baseline").ct)
    lung = (anatomy == Anatomy.RIGHT_LUNG) | (anatomy == Anatomy.LEFT_LUNG)
    fluid = array(sick.at("baseline").ct)[ndimage.binary_erosion(without_air & lung, iterations=2)]
    assert fluid.size > 500
    assert np.median(fluid) == pytest.approx(12.5, abs=6.0)
    # Noise and the size of a voxel take their share of small holes.
    assert holes > 0.04
    assert holes > 5.0 * (values[lung] < -950).mean()


def test_what_is_written_can_be_read(patient: VirtualPatient, tmp_path: Path) -> None:
    path = write_patient(patient, tmp_path / "P")
    study = load_study(path)
    assert [item.name for item in study.timepoints] == ["baseline", "followup-1"]
    assert {item.segment for item in study.lesions} == {f"L{k}" for k in (1, 2, 3, 4, 5, 7, 8, 9, 10)}
    for item in study.timepoints:
        ct = read_volume(item.ct)
        assert np.array_equal(array(ct), array(patient.at(item.name).ct))
        assert item.segmentation is not None
        segmentation = read_segmentation(item.segmentation, ct)
        assert [segment.name for segment in segmentation.segments] == [
            name for name, _ in patient.at(item.name).segments
        ]
    written = json.loads((path.parent / "truth" / "truth.json").read_text(encoding="utf-8"))
    jsonschema.validate(written, json.loads((ROOT / "Resources/Schemas/truth.schema.json").read_text(encoding="utf-8")))
    assert from_json(Truth, written) == patient.truth
    field = sitk.ReadImage(str(path.parent / "truth" / "displacement_followup-1.nrrd"))
    assert field.GetNumberOfComponentsPerPixel() == 3
    assert field.GetPixelID() == sitk.sitkVectorFloat32


def test_the_schema_of_the_truth_is_current() -> None:
    written = json.loads((ROOT / "Resources/Schemas/truth.schema.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(truth_schema()))


def test_names_can_be_permuted_and_contours_withheld(tmp_path: Path) -> None:
    gone = (LesionPlan("lung", 14.0, "vanish"), LesionPlan("lung", 18.0, "vanish", fate_at="followup-2"))
    third = TimepointPlan("followup-2", datetime.date(2024, 5, 20))
    scenario = replace(
        EVERYTHING, timepoints=(*EVERYTHING.timepoints, third), lesions=gone, permute_names=True, describe_lesions=False
    )
    patient = simulate_patient(5, size="small", scenario=scenario)
    names = [[name for name, _ in item.segments] for item in patient.timepoints]
    assert sorted(names[0]) == ["S1", "S2"]
    assert names[1:] == [["S1"], []]
    events = [[item.event for item in lesion.observations] for lesion in patient.truth.lesions]
    assert events == [["baseline", "vanished", "absent"], ["baseline", "present", "vanished"]]
    study = load_study(write_patient(patient, tmp_path))
    assert study.timepoints[2].no_visible_lesions
    assert study.timepoints[2].segmentation is None
    withheld = replace(patient, scenario=replace(scenario, segmentation_for_followups=False))
    assert load_study(write_patient(withheld, tmp_path / "withheld")).timepoints[1].segmentation is None


def test_an_impossible_scenario_is_refused_with_every_reason() -> None:
    first, second = EVERYTHING.timepoints
    wrong = replace(
        EVERYTHING,
        timepoints=(first, replace(second, date=first.date, motion=Motion(breathing_mm=90.0))),
        lesions=(
            LesionPlan("lung", 200.0),
            LesionPlan("lung", 12.0, "merge"),
            LesionPlan("lung", 9.0, fate_at="never"),
        ),
    )
    with pytest.raises(InputError) as caught:
        simulate_patient(1, size="small", scenario=wrong)
    text = " ".join(caught.value.problems)
    for part in ("distinct dates", "after the baseline", "200.0", "even", "`never`", "60 mm"):
        assert part in text


def test_work_can_be_cancelled() -> None:
    def stop(fraction: float, message: str) -> None:
        raise CancelledError(message)

    with pytest.raises(CancelledError):
        simulate_patient(1, size="small", scenario=demo_scenario(), progress=stop)


def test_random_scenarios_are_possible_and_follow_their_seed() -> None:
    for seed in range(300):
        scenario = random_scenario(np.random.default_rng(seed), lesions=(1, 15), followups=2)
        assert scenario == random_scenario(np.random.default_rng(seed), lesions=(1, 15), followups=2)
        assert 1 <= len(scenario.lesions) <= 15
        assert any(plan.fate != "new" for plan in scenario.lesions)


def test_a_cohort_is_a_table_of_studies(tmp_path: Path) -> None:
    seen: list[float] = []
    table = simulate_cohort(2, 9, tmp_path, progress=lambda fraction, _: seen.append(fraction))
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["patient"] for row in rows] == ["P0001", "P0002"]
    for row in rows:
        study = load_study(tmp_path / row["study"])
        assert study.patient == row["patient"]
        truth = json.loads((tmp_path / row["patient"] / "truth" / "truth.json").read_text(encoding="utf-8"))
        for label in truth["labels"]:
            assert int(row[label["question"]]) == int(label["answer"])
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_cohort_is_not_mixed_with_other_files(tmp_path: Path) -> None:
    def run(out: Path) -> int:
        return main(["simulate", "--patients", "1", "--out", str(out), "--progress", "off"])

    (tmp_path / "thesis.docx").touch()
    assert run(tmp_path) == 2
    assert run(tmp_path / "thesis.docx") == 2
    (tmp_path / "cohort.csv").write_text("name,value\n")
    assert run(tmp_path) == 2
    assert sorted(item.name for item in tmp_path.iterdir()) == ["cohort.csv", "thesis.docx"]
    empty = tmp_path / "cohort"
    empty.mkdir()
    assert run(empty) == 0
    table = (empty / "cohort.csv").read_bytes()
    assert run(empty) == 0
    assert (empty / "cohort.csv").read_bytes() == table


def test_fifteen_tumours_find_room_where_the_first_draw_of_places_has_none() -> None:
    room = _baseline_scan("small", np.random.default_rng([0, 6]))
    thorax = build_thorax(room, np.random.default_rng([0, 1]), margin_mm=50.0, lungs=Lungs(), contrast=1.0)
    scenario = random_scenario(np.random.default_rng([0, 69, 99]), course="pseudoprogression", lesions=(15, 15))
    drawn = [plan_tumours(scenario, thorax, np.random.default_rng([0, 69, 2]), room) for _ in range(2)]
    assert len(drawn[0]) == 15
    assert all(np.array_equal(a.anchor, b.anchor) for a, b in zip(*drawn, strict=True))
    days = [scenario.day(item) for item in scenario.timepoints]
    for i, one in enumerate(drawn[0]):
        for other in drawn[0][i + 1 :]:
            if one.partner is None or drawn[0][one.partner] is not other:
                apart = np.linalg.norm(one.anchor - other.anchor)
                # Anchors are moved by up to 1 mm along each axis after they are found.
                assert apart > one.reach_over(days) + other.reach_over(days) + 3.0 - 2 * 3**0.5
