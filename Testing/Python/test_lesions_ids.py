"""A lesion keeps its id whatever else changes: the order of segments, other names, a scan more, links of other lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_lesions_correspondence import at, simulate

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.lesions.correspondence import Scan, Track, follow
from ImmunoRadiomicsLib.study import LesionLink

SEEDS = range(300, 325)


def numbered(seed: int) -> list[Scan]:
    """A simulated patient whose segments have the same few names at each time point, for any lesion, as when drawn by hand.

    Two lesions more are new at each follow-up, and come first there, so that all of them share their names.
    """
    rng = np.random.default_rng(seed)
    scans = []
    for time, scan in enumerate(simulate(seed).scans):
        new = [at("", 300.0 + 100.0 * number) for number in range(2 * time)]
        known = [scan.contours[index] for index in rng.permutation(len(scan.contours))]
        named = (replace(item, name=f"L{number}") for number, item in enumerate([*new[::-1], *known], start=1))
        scans.append(replace(scan, contours=tuple(named)))
    return scans


def ids_of(tracks: tuple[Track, ...]) -> dict[tuple[str, str], str]:
    """The id of each lesion by the time point and the segment in which it is first seen."""
    assert len({track.id for track in tracks}) == len(tracks)
    firsts = [next(item for item in track.sightings if item.segments) for track in tracks]
    return {(item.timepoint, item.segments[0]): track.id for item, track in zip(firsts, tracks, strict=True)}


def moved(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """The lesions, first seen where they were, that have another id."""
    return [first for first, identity in before.items() if after.get(first, identity) != identity]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_segments_and_a_scan_more_leave_ids(seed: int) -> None:
    scans = numbered(seed)
    whole = follow(scans, "baseline")
    ids = ids_of(whole)
    rng = np.random.default_rng(seed)
    mixed = [replace(scan, contours=tuple(rng.permutation(np.array(scan.contours, dtype=object)))) for scan in scans]
    assert follow(mixed, "baseline") == whole
    for count in (1, 2):
        earlier = ids_of(follow(scans[:count], "baseline"))
        assert earlier == {first: ids[first] for first in earlier}


@pytest.mark.parametrize("seed", SEEDS)
def test_other_names_after_the_baseline_leave_the_ids_of_its_lesions(seed: int) -> None:
    scans = numbered(seed)
    rng = np.random.default_rng(seed)
    other = [scans[0]]
    back: dict[tuple[str, str], str] = {}
    for scan in scans[1:]:
        names = [f"L{number}" for number in rng.permutation(2 * len(scan.contours))[: len(scan.contours)]]
        back |= {(scan.timepoint, name): item.name for name, item in zip(names, scan.contours, strict=True)}
        renamed = (replace(item, name=name) for name, item in zip(names, scan.contours, strict=True))
        other.append(replace(scan, contours=tuple(renamed)))
    tracks = {track.id: track for track in follow(scans, "baseline")}
    for track in follow(other, "baseline"):
        if track.at("baseline").segments:
            places = [[back.get((item.timepoint, name), name) for name in item.segments] for item in track.sightings]
            assert places == [list(item.segments) for item in tracks[track.id].sightings]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_link_of_another_lesion_leaves_ids(seed: int) -> None:
    """A lesion that is new at the first follow-up, and has namesakes before and after, is given to one of the baseline."""
    scans = numbered(seed)
    before = follow(scans, "baseline")
    ids = ids_of(before)
    rng = np.random.default_rng(seed)
    known = [track.id for track in before if track.sightings[0].segments]
    name = str(rng.choice(["L1", "L2"]))
    assert ids["followup-1", name] == f"{name} (followup-1)"
    assert ids["followup-2", name] == f"{name} (followup-2)"
    after = ids_of(follow(scans, "baseline", edits=[LesionLink("followup-1", name, str(rng.choice(known)))]))
    assert ("followup-1", name) not in after
    assert after["followup-2", name] == f"{name} (followup-2)"
    assert moved(ids, after) == []


def test_a_link_of_the_first_of_two_namesakes_leaves_the_id_of_the_second() -> None:
    scans = [
        Scan("baseline", (at("L1", 0.0),)),
        Scan("followup-1", (at("L1", 60.0), at("x", 1.0))),
        Scan("followup-2", (at("L1", 120.0), at("x", 1.0), at("y", 60.0))),
    ]
    names = {track.id: track for track in follow(scans, "baseline")}
    assert set(names) == {"L1", "L1 (followup-1)", "L1 (followup-2)"}
    assert names["L1 (followup-1)"].at("followup-2").segments == ("y",)
    edits = [LesionLink("followup-1", "L1", "L1"), LesionLink("followup-1", "x", None)]
    again = {track.id: track for track in follow(scans, "baseline", edits=edits)}
    assert set(again) == {"L1", "x", "L1 (followup-2)"}
    assert again["L1 (followup-2)"] == names["L1 (followup-2)"]


def test_an_id_that_is_made_up_never_meets_the_name_of_a_segment() -> None:
    scans = [
        Scan("baseline", (at("L1", 0.0), at("L1 (followup-1)", 60.0))),
        Scan("followup-1", (at("L1", 120.0), at("L1 (followup-1)", 180.0))),
        Scan("followup-2", (at("L1 (followup-1) (followup-1)", 240.0),)),
    ]
    ids = ids_of(follow(scans, "baseline"))
    assert len(set(ids.values())) == 5
    assert ids["baseline", "L1 (followup-1)"] == "L1 (followup-1)"
    assert ids == {**ids, **ids_of(follow(scans[:2], "baseline"))}


def test_a_new_lesion_is_linked_by_its_id_where_it_is_first_seen() -> None:
    scans = [
        Scan("baseline", (at("L1", 0.0),)),
        Scan("followup-1", (at("a", 1.0), at("L1", 60.0), at("c", 90.0))),
    ]
    edits = [LesionLink("followup-1", "c", "L1 (followup-1)"), LesionLink("followup-1", "L1", "L1 (followup-1)")]
    for order in (edits, edits[::-1], edits[:1]):
        tracks = {track.id: track for track in follow(scans, "baseline", edits=order)}
        assert set(tracks) == {"L1", "L1 (followup-1)"}
        assert tracks["L1"].at("followup-1").segments == ("a",)
        assert tracks["L1 (followup-1)"].at("followup-1").segments == ("L1", "c")


def test_the_order_of_links_plays_no_part() -> None:
    scans = [Scan("baseline", (at("A", 0.0), at("B", 40.0, 5.0))), Scan("followup-1", (at("c", 1.0), at("d", 41.0)))]
    torn = [LesionLink("followup-1", name, lesion) for name, lesion in (("c", "A"), ("d", "A"), ("d", "B"))]
    for order in (torn, torn[::-1], torn[1:] + torn[:1], torn[2:] + torn[:2]):
        with pytest.raises(InputError, match="`A` has a segment of its own and shares `d` with `B`"):
            follow(scans, "baseline", edits=order)
    shared = [LesionLink("followup-1", "c", "B"), LesionLink("followup-1", "c", "A")]
    first, second = (follow(scans, "baseline", edits=order) for order in (shared, shared[::-1]))
    assert first == second
    assert first[0].at("followup-1").segments == ("c",)
    assert first[1].at("followup-1").merged_into == "A"
