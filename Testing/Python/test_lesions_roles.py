"""Targets are proposed by RECIST 1.1, and what a person said wins."""

from __future__ import annotations

import pytest

from ImmunoRadiomicsLib.lesions.roles import Candidate, propose_roles
from ImmunoRadiomicsLib.organs import is_node


def lesion(name, size, organ="lung", *, node=False, new=False, thickness=1.25, given=None, short=None) -> Candidate:
    return Candidate(name, organ, node, new, size, size * 0.7 if short is None else short, thickness, given)


def roles(*items: Candidate) -> dict[str, str]:
    return {name: proposal.role for name, proposal in propose_roles(items).items()}


def test_two_per_organ_five_in_all_largest_first():
    items = [lesion(f"{organ}{n}", 50.0 - 4 * n - k, organ) for k, organ in enumerate("abcd") for n in range(3)]
    found = roles(*items)
    assert [name for name, role in found.items() if role == "target"] == ["a0", "b0", "c0", "d0", "a1"]
    assert found["a2"] == "non-target"


@pytest.mark.parametrize(
    ("item", "role"),
    [
        (lesion("x", 9.9), "non-target"),
        (lesion("x", 10.0), "target"),
        (lesion("x", 30.0, node=True, short=14.9), "non-target"),
        (lesion("x", 30.0, node=True, short=15.0), "target"),
        (lesion("x", 15.0, thickness=8.0), "non-target"),
        (lesion("x", 16.0, thickness=8.0), "target"),
        (lesion("x", 12.0, new=True), "new-target"),
        (lesion("x", 8.0, new=True), "new-non-target"),
    ],
)
def test_what_is_measurable(item, role):
    assert roles(item) == {"x": role}


def test_nodes_are_one_organ_and_new_lesions_have_places_of_their_own():
    nodes = [lesion(f"n{k}", 40.0, f"station {k}", node=True, short=20.0 + k) for k in range(3)]
    old = [lesion(f"o{k}", 30.0, f"organ {k}") for k in range(3)]
    found = roles(*nodes, *old, lesion("fresh", 20.0, new=True))
    assert [found[f"n{k}"] for k in range(3)] == ["non-target", "target", "target"]
    assert found["fresh"] == "new-target"


@pytest.mark.parametrize(
    ("organ", "node"),
    [
        ("lymph node", True),
        ("Mediastinal lymph nodes", True),
        ("Node, 4R", True),
        ("lung nodule", False),
        ("lung", False),
    ],
)
def test_a_node_is_known_by_the_words_of_its_organ(organ, node):
    assert is_node(organ) == node


def test_sides_lobes_and_capitals_are_one_organ():
    found = roles(
        lesion("a", 40.0, "Left lung"), lesion("b", 39.0, "lung"), lesion("c", 38.0, "Right lower lobe of lung")
    )
    assert found == {"a": "target", "b": "target", "c": "non-target"}


def test_given_roles_win_and_take_their_place():
    found = propose_roles(
        [
            lesion("small", 6.0, given="target"),
            lesion("big", 60.0, given="non-target"),
            lesion("a", 20.0),
            lesion("b", 15.0),
        ]
    )
    assert {name: item.role for name, item in found.items()} == {
        "small": "target",
        "big": "non-target",
        "a": "target",
        "b": "non-target",
    }
    assert found["big"].reason == "given"
    assert "2 larger or given targets" in found["b"].reason
