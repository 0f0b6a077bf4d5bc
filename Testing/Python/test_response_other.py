"""Criteria beside RECIST, target selection and the cohort plots."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ImmunoRadiomicsLib.organs import organ_group
from ImmunoRadiomicsLib.response import Measurement, respond
from ImmunoRadiomicsLib.response.burden import CRITERIA as RULES
from ImmunoRadiomicsLib.response.burden import assess_burden, best_burden, burden_response, confirmed_progression
from ImmunoRadiomicsLib.response.pet import PetLesion, PetVisit, impercist5, ipercist, pecrit, percimt, percist
from ImmunoRadiomicsLib.response.plots import cohort_plots
from ImmunoRadiomicsLib.response.recist import BestResponseSettings
from ImmunoRadiomicsLib.response.selection import Candidate, propose_targets, smallest_measurable_mm

CRITERIA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "criteria"
needs_vectors = pytest.mark.skipif(not CRITERIA.is_dir(), reason=f"no reference vectors at {CRITERIA}")


def target(
    day: int, long: float | None, short: float | None = None, lesion: str = "T1", role: str = "target"
) -> Measurement:
    status = "not evaluated" if long is None else "absent" if long == 0 else "measured"
    return Measurement("P", day, lesion, role, "lung", False, long, long if short is None else short, status)


def other(day: int, status: str, lesion: str = "N1", role: str = "non-target") -> Measurement:
    return Measurement("P", day, lesion, role, "bone", status=status)


def letters(items, name: str, **more) -> list[str]:
    return [visit.letter for visit in assess_burden(items, RULES[name], **more)]


@needs_vectors
def test_table_2_of_irrc():
    """Every row: the burden at its value and beyond it, the non-index lesions and new lesions as it says."""
    with (CRITERIA / "irrc_table2.csv").open(newline="") as file:
        table = list(csv.reader(file))[1:]
    assert len(table) == 8
    changes = {"-100": [-100.0], "<=-50": [-50.0, -99.9], ">-50 to <+25": [-49.9, 0.0, 24.9], ">=+25": [25.0, 300.0]}
    states = {"absent": ["absent"], "stable": ["stable"], "unequivocal progression": ["progressed"],
              "absent/stable": ["absent", "stable"], "any": ["absent", "stable", "progressed"]}  # fmt: skip
    news = {"absent": [False], "any": [False, True]}
    count = 0
    for burden, non_index, new, expected, _ in table:
        for change in changes[burden]:
            for state in states[non_index]:
                for fresh in news[new]:
                    found = burden_response(
                        change, change, RULES["irrc"], gone=change == -100, non_index=state, new_non_measurable=fresh
                    )
                    assert f"ir{found}" == expected, (burden, non_index, new, change)
                    count += 1
    assert count > 30


def test_irrc_measures_products_and_adds_new_lesions():
    base = [target(0, 40, 25)]
    assert letters([*base, target(56, 25, 20)], "irrc") == ["irPR"]
    assert letters([*base, target(56, 25.1, 20)], "irrc") == ["irSD"]
    assert letters([*base, target(56, 50, 25)], "irrc") == ["irPD"]
    assert letters([*base, target(56, 49.9, 25)], "irrc") == ["irSD"]
    new = target(56, 10, 10, "L1", "new-target")
    assert letters([*base, target(56, 46, 25), new], "irrc") == ["irPD"]
    assert letters([*base, target(56, 45.9, 25), new], "irrc") == ["irSD"]
    assert letters([*base, other(0, "present"), target(56, 30, 25), other(56, "progressed")], "irrc") == ["irSD"]
    assert letters([*base, target(56, 0), other(56, "present", "L2", "new-non-target")], "irrc") == ["irPR"]
    assert letters([*base, target(56, 0)], "irrc") == ["irCR"]
    assert letters([*base, target(56, None)], "irrc") == ["irNE"]


def test_the_two_irrecist_differ_in_non_target_lesions():
    items = [target(0, 50), other(0, "present"), target(56, 45), other(56, "progressed")]
    assert letters(items, "irrecist") == ["irSD"]
    assert letters(items, "irrecist-bohnsack") == ["irPD"]
    new = [target(0, 50), target(56, 48), target(56, 12, lesion="L1", role="new-target")]
    assert letters(new, "irrecist") == letters(new, "irrecist-bohnsack") == ["irPD"]
    assert letters([target(0, 14), target(56, 9.8)], "irrecist") == ["irPR"]
    assert letters([target(0, 14), target(56, 9.9)], "irrecist") == ["irSD"]
    assert letters([target(0, 20), target(56, 24.9)], "irrecist") == ["irSD"]
    assert letters([target(0, 20), target(56, 25)], "irrecist") == ["irPD"]


def test_a_new_lesion_alone_is_no_progression_for_imrecist():
    items = [
        target(0, 100),
        target(56, 95),
        target(56, 12, lesion="L1", role="new-target"),
        other(56, "present", "L2", "new-non-target"),
    ]
    assert letters(items, "imrecist") == ["imSD"]
    assert respond(items).visits[0].recist == "PD"


def test_progression_is_negated_by_a_later_scan():
    settings = BestResponseSettings()
    items = [target(0, 50), target(56, 66), target(91, 30), target(133, 30)]
    for name, best in (("irrc", "irPR"), ("irrecist", "irPR"), ("imrecist", "imPR")):
        visits = assess_burden(items, RULES[name])
        assert visits[0].letter.endswith("PD")
        assert best_burden(visits, RULES[name], settings) == best
        assert confirmed_progression(visits, RULES[name]) is None
    lasting = assess_burden(
        [target(0, 50), target(56, 66), target(91, 66), target(140, 30), target(180, 30)], RULES["irrecist"]
    )
    assert confirmed_progression(lasting, RULES["irrecist"]) == 56
    assert best_burden(lasting, RULES["irrecist"], settings) == "irPD"
    later = assess_burden(
        [target(0, 50), target(56, 66), target(91, 66), target(140, 30), target(180, 30)], RULES["imrecist"]
    )
    assert best_burden(later, RULES["imrecist"], settings) == "imPR"
    early = assess_burden([target(0, 50), target(56, 66), target(70, 50)], RULES["irrecist"])
    assert best_burden(early, RULES["irrecist"], settings) == "irSD"


def test_volumes_use_the_thresholds_of_spheres():
    items = [target(0, 30), target(56, 30)]
    for volume, expected in ((3.43, "vPR"), (3.44, "vSD"), (17.27, "vSD"), (17.28, "vPD")):
        assert letters(items, "volumetric", volumes_ml={("T1", 0): 10.0, ("T1", 56): volume}) == [expected]
    assert letters(items, "volumetric", volumes_ml={("T1", 0): 10.0}) == ["vNE"]
    # A sphere whose diameter changes by -30 or +20 %.
    assert pytest.approx(-65.7) == 100 * (0.7**3 - 1)
    assert pytest.approx(72.8) == 100 * (1.2**3 - 1)


def pet(day: int, *suls: float, new: tuple[float, ...] = (), sizes: tuple[float, ...] = ()) -> PetVisit:
    lesions = [PetLesion(f"T{index}", sul) for index, sul in enumerate(suls)]
    lesions += [
        PetLesion(f"L{index}", sul, True, sizes[index] if index < len(sizes) else None) for index, sul in enumerate(new)
    ]
    return PetVisit(day, tuple(lesions), 2.0, 0.3)


def test_percist():
    base = pet(0, 8.0, 5.0)
    assert percist(base, pet(56, 5.6)).letter == "PMR"
    assert percist(base, pet(56, 5.7)).letter == "SMD"
    assert percist(base, pet(56, 2.0, 10.4)).letter == "PMD"
    assert percist(base, pet(56)).letter == "CMR"
    assert percist(base, pet(56, 4.0, new=(3.0,))).letter == "PMD"
    assert percist(pet(0, 3.5), pet(56, 2.0)).letter == "NE"
    faint = PetVisit(0, (PetLesion("T1", 2.0),))
    assert percist(faint, PetVisit(56, (PetLesion("T1", 1.3),))).letter == "SMD"


def test_impercist5_counts_new_lesions_into_the_sum():
    base = pet(0, 8.0, 6.0, 4.0)
    assert impercist5(base, pet(56, 8.0, 6.0, 4.0, new=(3.0,))).letter == "SMD"
    assert impercist5(base, pet(56, 8.0, 6.0, 4.0, new=(5.4,))).letter == "PMD"
    assert impercist5(base, pet(56, 6.0, 4.0, 2.6)).letter == "PMR"
    assert impercist5(base, pet(56, 8.0, 6.0, 4.0, 1, 1, 1, 1, 1, 1)).letter == "SMD"


def test_ipercist_waits_for_confirmation():
    base = pet(0, 8.0)

    def of(*visits: PetVisit) -> list[str]:
        return [item.letter for item in ipercist(base, visits)]

    assert of(pet(56, 12), pet(70, 13), pet(90, 13), pet(120, 4)) == ["UPMD", "UPMD", "CPMD", "CPMD"]
    assert of(pet(56, 12), pet(90, 5), pet(130, 12)) == ["UPMD", "PMR", "UPMD"]
    assert "later than the window" in ipercist(base, [pet(56, 12), pet(113, 12)])[1].rule


def test_percimt_counts_new_lesions_by_size():
    base = pet(0, 8.0, 5.0)
    assert percimt(base, pet(56, 8, 5, new=(3,) * 3, sizes=(8, 8, 8))).letter == "SMD"
    assert percimt(base, pet(56, 8, 5, new=(3,) * 4, sizes=(8,) * 4)).letter == "PMD"
    assert percimt(base, pet(56, 8, 5, new=(3,) * 3, sizes=(11,) * 3)).letter == "PMD"
    assert percimt(base, pet(56, 8, 5, new=(3,) * 2, sizes=(16, 15))).letter == "SMD"
    assert percimt(base, pet(56, 8, 5, new=(3,) * 2, sizes=(16, 16))).letter == "PMD"
    assert percimt(base, pet(56, 8)).letter == "PMR"
    assert percimt(base, pet(56)).letter == "CMR"


def test_pecrit_reads_stable_disease_by_uptake():
    base = pet(0, 10.0)
    assert pecrit("SD", base, pet(25, 11.56)).letter == "benefit"
    assert pecrit("SD", base, pet(25, 11.5)).letter == "no benefit"
    assert pecrit("PD", base, pet(25, 20)).letter == "no benefit"
    assert pecrit("PR", base, pet(25, 5)).letter == "benefit"
    assert pecrit("NE", base, pet(25, 5)).letter == "NE"


def lesion(name: str, size: float | None, organ: str = "lung", node: bool = False, **more) -> Candidate:
    return Candidate(name, organ, node, None if node else size, size if node else None, **more)


def test_targets_are_the_largest_but_every_organ_has_its_turn():
    candidates = [
        lesion("A", 60), lesion("B", 55, "left upper lobe of lung"), lesion("C", 50, "right lung"), lesion("D", 20, "liver"),
        lesion("E", 18, "mediastinal lymph node", True), lesion("F", 16, "axillary lymph node", True),
        lesion("G", 15.5, "cervical lymph node", True), lesion("H", 12, "liver"), lesion("I", 11, "adrenal"),
    ]  # fmt: skip
    proposal = propose_targets(candidates, slice_thickness_mm=1.25)
    assert [item.lesion for item in proposal] == list("ABCDEFGHI")
    roles = {item.lesion: item.role for item in proposal}
    # One of lung, liver, nodes and adrenal, then the largest that is left: the second of the lung.
    assert {name for name, role in roles.items() if role == "target"} == {"A", "B", "D", "E", "I"}
    assert {name for name, role in roles.items() if role == "non-target"} == {"C", "F", "G", "H"}
    reasons = {item.lesion: item.reason for item in proposal}
    assert reasons["C"] == "measurable (50.0 mm long axis), but 2 of lung are targets"
    assert reasons["F"] == "measurable (16.0 mm short axis), but 5 lesions are targets"
    assert reasons["E"] == "largest measurable lesion of lymph nodes (18.0 mm short axis)"


@pytest.mark.parametrize(
    ("candidate", "thickness", "role"),
    [
        (lesion("A", 10), 5, "target"),
        (lesion("A", 9.9), 5, "non-target"),
        (lesion("A", 14), 8, "non-target"),
        (lesion("A", 16), 8, "target"),
        (lesion("A", 15, node=True), 5, "target"),
        (lesion("A", 14.9, node=True), 5, "non-target"),
        (lesion("A", 10, node=True), 5, "non-target"),
        (lesion("A", 9.9, node=True), 5, "normal"),
        (lesion("A", 30, tissue="blastic bone"), 5, "non-target"),
        (lesion("A", 30, tissue="lytic bone with soft tissue"), 5, "target"),
        (lesion("A", 30, irradiated=True), 5, "non-target"),
        (lesion("A", None), 5, "non-target"),
    ],
)
def test_measurability(candidate, thickness, role):
    assert propose_targets([candidate], slice_thickness_mm=thickness)[0].role == role
    as_new = propose_targets([candidate], slice_thickness_mm=thickness, new=True)[0].role
    assert as_new == (role if role == "normal" else f"new-{role}")


def test_solid_and_reproducible_lesions_go_first():
    candidates = [
        lesion("A", 30, tissue="cystic"),
        lesion("B", 20),
        lesion("C", 40, reproducible=False),
        lesion("D", 15),
    ]
    roles = [item.role for item in propose_targets(candidates, slice_thickness_mm=1)]
    assert roles == ["non-target", "target", "non-target", "target"]


def test_twice_the_slice_thickness_always_is_an_option():
    assert smallest_measurable_mm(node=False, slice_thickness_mm=5.5) == 11
    assert smallest_measurable_mm(node=False, slice_thickness_mm=5) == 10
    assert smallest_measurable_mm(node=False, slice_thickness_mm=5.0, always_twice=True) == 10
    assert smallest_measurable_mm(node=True, slice_thickness_mm=8) == 16
    assert organ_group("Kidney, left", node=False) == organ_group("right kidney", node=False) == "kidney"


def test_cohort_plots_are_valid_pictures_of_every_patient():
    patients = []
    for index, (size, name) in enumerate(((30, "A & B"), (66, "C"), (500, "D<"))):
        items = [target(0, 50), target(56, size), target(112, size + index)]
        patients.append((name, 0, respond(items)))
    patients.append(("E", 0, respond([target(0, 50)])))
    plots = cohort_plots(patients)
    assert set(plots) == {"spider", "waterfall", "swimmer"}
    space = "{http://www.w3.org/2000/svg}"
    for svg in plots.values():
        root = ElementTree.fromstring(svg)
        width, height = (float(value) for value in root.get("viewBox").split()[2:])
        for circle in root.iter(f"{space}circle"):
            assert 0 <= float(circle.get("cx")) <= width
            assert 0 <= float(circle.get("cy")) <= height
    spider = ElementTree.fromstring(plots["spider"])
    assert len(list(spider.iter(f"{space}polyline"))) == 3
    bars = [item for item in ElementTree.fromstring(plots["waterfall"]).iter(f"{space}rect") if len(item)]
    assert [item[0].text.split(":")[0] for item in bars] == ["D<", "C", "A & B"]


def test_the_best_change_is_that_up_to_a_confirmed_progression():
    sizes = {0: 50, 56: 70, 112: 80, 168: 10}
    result = respond([target(day, size) for day, size in sizes.items()])
    assert [visit.irecist for visit in result.visits] == ["iUPD", "iCPD", "iCPD"]
    long_name = "a name of more than forty characters, in full"
    plots = cohort_plots([(long_name, 0, result)])
    space = "{http://www.w3.org/2000/svg}"
    (bar,) = [item for item in ElementTree.fromstring(plots["waterfall"]).iter(f"{space}rect") if len(item)]
    assert bar[0].text == f"{long_name}: +40 %, iCPD"
    names = [item for item in ElementTree.fromstring(plots["swimmer"]).iter(f"{space}text") if item.text == long_name]
    assert float(names[0].get("x")) >= 6 * len(long_name)
