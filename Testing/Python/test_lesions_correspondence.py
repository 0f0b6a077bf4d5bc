"""Which contour is which tumour: simulated cohort members with known links and events, and the properties that must hold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.lesions.correspondence import Contour, Scan, contour, follow
from ImmunoRadiomicsLib.lesions.geometry import crop_of
from ImmunoRadiomicsLib.study import LesionLink
from ImmunoRadiomicsLib.transforms import invert_points, transform_points

TIMEPOINTS = ("baseline", "followup-1", "followup-2")


def volume_ml(radius: float) -> float:
    return 4.0 / 3.0 * np.pi * radius**3 / 1000.0


def blob(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """Points on a 1.5 mm grid in a random ellipsoid of the volume of a ball of the given radius."""
    axes = radius * np.exp(rng.normal(0.0, 0.15, 3))
    axes *= radius / np.prod(axes) ** (1.0 / 3.0)
    reach = np.ceil(axes.max() / 1.5) * 1.5
    line = np.arange(-reach, reach + 0.1, 1.5)
    grid = np.stack(np.meshgrid(line, line, line), axis=-1).reshape(-1, 3)
    inside = grid[((grid / axes) ** 2).sum(axis=1) <= 1.0]
    return (inside if len(inside) else np.zeros((1, 3))) + centre


@dataclass
class Patient:
    scans: list[Scan]
    links: set[tuple[str, int, str, str]] = field(default_factory=set)
    events: dict[tuple[int, str], str] = field(default_factory=dict)


def as_contour(name: str, points: np.ndarray, rng: np.random.Generator, misaligned: float) -> Contour:
    shift = rng.normal(size=3)
    shift *= misaligned * rng.uniform(0.7, 1.1) / np.linalg.norm(shift)
    chosen = rng.permutation(len(points))[:1200]
    return Contour(name, points[chosen] + shift, len(points) * 1.5**3 / 1000.0)


def simulate(seed: int) -> Patient:
    """One patient with 1 to 15 lesions, 20 % of them with an event; truth by a hidden key per lesion."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 16))
    lesions: dict[int, tuple[np.ndarray, float]] = {}
    fates: dict[int, tuple[str, int]] = {}
    key = 0
    while key < count:
        radius = rng.uniform(3.0, 18.0)
        centre = rng.uniform([-130, -90, 0], [130, 90, 280])
        room = all(np.linalg.norm(centre - c) > 1.9 * (radius + r) + 4.0 for c, r in lesions.values())
        if not room:
            continue
        fate = str(rng.choice(["new", "vanished", "split", "merged"])) if rng.random() < 0.2 else "present"
        if fate == "split":
            radius = max(radius, 8.0)
        lesions[key] = (centre, radius)
        fates[key] = (fate, int(rng.integers(1, 3)))
        key += 1
        if fate == "merged":
            direction = rng.normal(size=3)
            partner_radius = radius * rng.uniform(0.6, 0.95)
            offset = direction / np.linalg.norm(direction) * (radius + partner_radius + rng.uniform(1.0, 4.0))
            lesions[key] = (centre + offset, partner_radius)
            fates[key] = ("partner", fates[key - 1][1])
            key += 1
    scans, patient = [], Patient([])
    directions = {key: (v := rng.normal(size=3)) / np.linalg.norm(v) for key in lesions}
    growth = dict.fromkeys(lesions, 1.0)
    for time, timepoint in enumerate(TIMEPOINTS):
        named: list[tuple[str, np.ndarray]] = []
        for key, (centre, radius) in lesions.items():
            fate, when = fates[key]
            if time:
                growth[key] *= float(np.exp(rng.uniform(np.log(0.55), np.log(1.75))))
            size = radius * growth[key] ** (1.0 / 3.0)
            own = f"s{key}-{time}"
            event = "baseline" if time == 0 else "present"
            if fate == "new" and time < when:
                patient.events[(key, timepoint)] = "absent"
                continue
            if fate == "new" and time == when:
                event = "new"
            if fate == "vanished" and time >= when:
                patient.events[(key, timepoint)] = "vanished" if time == when else "absent"
                continue
            if fate == "partner" and time >= when:
                patient.events[(key, timepoint)] = "merged"
                continue
            if fate == "merged" and time >= when:
                other, other_radius = lesions[key + 1]
                scale = max(growth[key] ** (1.0 / 3.0), 1.15)
                bridge = blob(rng, (centre + other) / 2, 0.7 * min(radius, other_radius) * scale)
                whole = [blob(rng, centre, radius * scale), blob(rng, other, other_radius * scale), bridge]
                cells = np.unique(np.round(np.concatenate(whole) / 1.5).astype(int), axis=0) * 1.5
                named.append((own, cells))
                event = "merged" if time == when else "present"
            elif fate == "split" and time >= when:
                for part, side in enumerate((-1.0, 1.0)):
                    named.append(
                        (f"{own}-{part}", blob(rng, centre + side * 0.62 * size * directions[key], 0.52 * size))
                    )
                event = "split" if time == when else "present"
            else:
                named.append((own, blob(rng, centre, size)))
            patient.events[(key, timepoint)] = event
        names = [name for name, _ in named]
        for name in names:
            owner = int(name[1:].split("-")[0])
            if time and patient.events[(owner, TIMEPOINTS[time - 1])] not in ("absent", "vanished"):
                for earlier in (c.name for c in scans[-1].contours if int(c.name[1:].split("-")[0]) == owner):
                    patient.links.add((TIMEPOINTS[time - 1], owner, earlier, name))
        scans.append(Scan(timepoint, tuple(as_contour(n, p, rng, 0.0 if time == 0 else 2.5) for n, p in named)))
    patient.scans = scans
    return patient


def found_links(tracks) -> set[tuple[str, int, str, str]]:
    links = set()
    for track in tracks:
        for before, after in zip(track.sightings, track.sightings[1:], strict=False):
            for first in before.segments:
                for second in after.segments:
                    links.add((before.timepoint, int(first[1:].split("-")[0]), first, second))
    return links


def test_cohort_links_and_events():
    right = wrong = missed = events = events_right = 0
    for seed in range(100):
        patient = simulate(seed)
        tracks = follow(patient.scans, "baseline")
        links = found_links(tracks)
        for track in tracks:
            first = next(number for number, item in enumerate(track.sightings) if item.segments)
            for item in track.sightings[first + 1 :]:
                if item.segments or item.merged_into is not None:
                    assert item.confidence is not None
                    assert 0.0 <= item.confidence <= 1.0
        right += len(links & patient.links)
        wrong += len(links - patient.links)
        missed += len(patient.links - links)
        # A track's owner is the hidden key in the name of its first segment.
        for track in tracks:
            first = next(item for item in track.sightings if item.segments)
            owner = int(first.segments[0][1:].split("-")[0])
            for sighting in track.sightings:
                truth = patient.events.get((owner, sighting.timepoint))
                events += 1
                events_right += truth == sighting.event
        seen = {int(t.id[1:].split("-")[0]) for t in tracks}
        events += sum(1 for (key, _), _ in patient.events.items() if key not in seen)
    f1 = 2 * right / (2 * right + wrong + missed)
    assert f1 >= 0.98, (right, wrong, missed)
    assert events_right / events >= 0.95, (events_right, events)


def renamed(scans: list[Scan], seed: int) -> tuple[list[Scan], dict[tuple[str, str], str]]:
    rng = np.random.default_rng(seed)
    names: dict[tuple[str, str], str] = {}
    result = []
    for scan in scans:
        order = rng.permutation(len(scan.contours))
        items = []
        for number, index in enumerate(order):
            old = scan.contours[index]
            new = f"Segment_{number}"
            names[scan.timepoint, new] = old.name
            items.append(Contour(new, old.points, old.volume_ml))
        result.append(Scan(scan.timepoint, tuple(items)))
    return result, names


@pytest.mark.parametrize("seed", [1, 7, 13, 39])
def test_order_and_names_play_no_part(seed):
    patient = simulate(seed)
    shuffled, names = renamed(patient.scans, seed)

    def shape(tracks, back):
        return {
            tuple(
                (s.timepoint, s.status, s.event, frozenset(back(s.timepoint, name) for name in s.segments))
                for s in track.sightings
            )
            for track in tracks
        }

    plain = shape(follow(patient.scans, "baseline"), lambda _, name: name)
    assert shape(follow(shuffled, "baseline"), lambda timepoint, name: names[timepoint, name]) == plain


def at(name: str, x: float, radius: float = 6.0, y: float = 0.0) -> Contour:
    points = blob(np.random.default_rng(0), np.array([x, y, 0.0]), radius)
    return Contour(name, points, len(points) * 1.5**3 / 1000.0)


def events(track) -> list[str]:
    return [item.event for item in track.sightings]


def test_ids_are_unique_and_stay():
    scans = [
        Scan("baseline", (at("L1", 0.0), at("L2", 60.0))),
        Scan("followup-1", (at("L2", 0.0), at("L1", 120.0))),
        Scan("followup-2", (at("L1", 60.0), at("L2", 120.0))),
    ]
    tracks = {track.id: track for track in follow(scans, "baseline")}
    assert set(tracks) == {"L1", "L2", "L1 (followup-1)"}
    assert events(tracks["L1"]) == ["baseline", "present", "vanished"]
    assert events(tracks["L2"]) == ["baseline", "vanished", "present"]
    assert "seen again" in tracks["L2"].at("followup-2").check
    assert events(tracks["L1 (followup-1)"]) == ["absent", "new", "present"]


def test_merged_partners_come_apart_again():
    whole = Contour("M", np.concatenate([at("", 0.0).points, at("", 13.0).points, at("", 6.5, 4.0).points]), 1.9)
    scans = [
        Scan("baseline", (at("A", 0.0, 6.5), at("B", 13.0))),
        Scan("followup-1", (whole,)),
        Scan("followup-2", (whole,)),
        Scan("followup-3", (at("x", 0.0, 6.5), at("y", 13.0))),
    ]
    first, second = follow(scans, "baseline")
    assert [first.id, second.id] == ["A", "B"]
    assert events(first)[1] == "merged"
    assert first.at("followup-1").segments == ("M",)
    assert [item.status for item in second.sightings] == ["measured", "merged", "merged", "measured"]
    assert second.at("followup-2").merged_into == "A"
    assert first.at("followup-3").segments == ("x",)
    assert second.at("followup-3").segments == ("y",)


def test_edits_override_geometry_and_survive():
    scans = [Scan("baseline", (at("A", 0.0), at("B", 40.0))), Scan("followup-1", (at("c", 1.0), at("d", 41.0)))]
    edits = [LesionLink("followup-1", "c", "B"), LesionLink("followup-1", "d", None)]
    for _ in range(2):
        tracks = {track.id: track for track in follow(scans, "baseline", edits=edits)}
        assert tracks["B"].at("followup-1").segments == ("c",)
        assert tracks["B"].at("followup-1").confidence == 1.0
        assert tracks["A"].at("followup-1").event == "vanished"
        assert tracks["d"].at("followup-1").event == "new"
    joined = [LesionLink("followup-1", "c", "A"), LesionLink("followup-1", "c", "B")]
    tracks = {track.id: track for track in follow(scans, "baseline", edits=joined)}
    assert sorted(track.at("followup-1").event for track in tracks.values()) == ["merged", "merged", "new"]


def test_edits_that_cannot_be_are_named_together():
    scans = [Scan("baseline", (at("A", 0.0), at("B", 40.0))), Scan("followup-1", (at("c", 1.0), at("d", 41.0)))]
    edits = [
        LesionLink("followup-9", "c", "A"),
        LesionLink("followup-1", "nothing", "A"),
        LesionLink("followup-1", "c", "Z"),
        LesionLink("followup-1", "d", "B"),
        LesionLink("followup-1", "d", None),
    ]
    with pytest.raises(InputError) as error:
        follow(scans, "baseline", edits=edits)
    assert len(error.value.problems) == 4
    for word, problem in zip(("followup-9", "nothing", "own", "`Z`"), error.value.problems, strict=True):
        assert word in problem
    crossed = [
        LesionLink("followup-1", "c", "A"),
        LesionLink("followup-1", "d", "B"),
        LesionLink("followup-1", "d", "A"),
    ]
    with pytest.raises(InputError, match="segment of its own"):
        follow(scans, "baseline", edits=crossed)


def test_segments_of_the_first_scan_can_be_joined_by_hand():
    scans = [
        Scan("baseline", (at("A", 0.0), at("B", 40.0), at("C", 90.0))),
        Scan("followup-1", (at("c", 1.0), at("d", 41.0), at("e", 90.0))),
    ]
    edits = [LesionLink("baseline", "B", "A")]
    tracks = {track.id: track for track in follow(scans, "baseline", edits=edits)}
    assert set(tracks) == {"A", "C"}
    assert set(tracks["A"].at("baseline").segments) == {"A", "B"}
    assert set(tracks["A"].at("followup-1").segments) == {"c", "d"}
    assert events(tracks["A"]) == ["baseline", "present"]
    # A cycle is one lesion, not a hang.
    cycle = [LesionLink("baseline", "B", "A"), LesionLink("baseline", "A", "B")]
    assert sum(len(track.at("baseline").segments) for track in follow(scans, "baseline", edits=cycle)) == 3


def test_a_segment_joined_with_one_that_is_linked_goes_where_that_goes():
    scans = [
        Scan("baseline", (at("A", 0.0),)),
        Scan("followup-1", (at("c", 1.0), at("d", 60.0), at("e", 90.0))),
    ]
    edits = [LesionLink("followup-1", "e", "d"), LesionLink("followup-1", "d", "c"), LesionLink("followup-1", "c", "A")]
    for order in (edits, edits[::-1], edits[1:] + edits[:1]):
        (track,) = follow(scans, "baseline", edits=order)
        assert sorted(track.at("followup-1").segments) == ["c", "d", "e"]
    torn = [LesionLink("followup-1", "d", "A"), LesionLink("followup-1", "d", "e")]
    with pytest.raises(InputError, match="`d` is said to be a part of `A` and of `e`"):
        follow(scans, "baseline", edits=torn)


@pytest.mark.parametrize("seed", range(12))
def test_every_edit_is_honoured(seed: int):
    """Any assignment of contours to lesions that a person makes is what comes out, whatever the geometry says."""
    rng = np.random.default_rng(seed)
    patient = simulate(seed + 200)
    before = follow(patient.scans, "baseline")
    scan = patient.scans[1]
    known = [track.id for track in before if track.at("baseline").segments]
    chosen = [item.name for item in scan.contours if rng.random() < 0.5]
    edits = [
        LesionLink(scan.timepoint, name, str(rng.choice(known)) if rng.random() < 0.8 else None) for name in chosen
    ]
    tracks = {track.id: track for track in follow(patient.scans, "baseline", edits=edits)}
    placed = [name for track in tracks.values() for name in track.at(scan.timepoint).segments]
    assert sorted(placed) == sorted(item.name for item in scan.contours)
    for edit in edits:
        owner = next(track for track in tracks.values() if edit.segment in track.at(scan.timepoint).segments)
        assert owner.id == edit.lesion if edit.lesion is not None else owner.at("baseline").status == "absent"


def test_a_lesion_outside_the_field_of_view_has_not_vanished():
    image = sitk.Image(20, 20, 20, sitk.sitkInt16)
    image.SetOrigin((-20.0, -20.0, -20.0))
    image.SetSpacing((2.0, 2.0, 2.0))
    scans = [Scan("baseline", (at("A", 0.0), at("B", 200.0))), Scan("followup-1", (), image)]
    tracks = {track.id: track for track in follow(scans, "baseline")}
    assert tracks["A"].at("followup-1").event == "vanished"
    assert tracks["B"].at("followup-1").event == "not evaluated"


def test_an_unreadable_scan_says_nothing():
    scans = [
        Scan("baseline", (at("A", 0.0),)),
        Scan("followup-1", (), readable=False),
        Scan("followup-2", (at("q", 1.0),)),
    ]
    (track,) = follow(scans, "baseline")
    assert events(track) == ["baseline", "not evaluated", "present"]


def test_confidence_falls_where_links_are_ambiguous():
    clear = follow([Scan("baseline", (at("A", 0.0),)), Scan("followup-1", (at("a", 1.0),))], "baseline")
    crowded = follow(
        [Scan("baseline", (at("A", 0.0, 4.0), at("B", 9.0, 4.0))), Scan("followup-1", (at("a", 4.5, 4.0),))], "baseline"
    )
    sure = clear[0].at("followup-1").confidence
    unsure = next(t.at("followup-1").confidence for t in crowded if t.at("followup-1").segments)
    assert sure > 0.95
    assert unsure < 0.75


@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1.0, -1.0, 1.0]), np.eye(3)[[2, 0, 1]]])
def test_contours_are_carried_to_the_reference(direction):
    """A follow-up moved by a rotation, a shift and a smooth field lands on the baseline again."""
    turn = sitk.Euler3DTransform((10.0, 5.0, 0.0), 0.1, -0.15, 0.2, (12.0, -7.0, 25.0))
    grid = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 16)] * 3), axis=-1)
    warp = sitk.GetImageFromArray(8.0 * np.sin(2.0 * grid), isVector=True)
    warp.SetOrigin((-120.0, -120.0, -120.0))
    warp.SetSpacing((16.0, 16.0, 16.0))
    transform = sitk.CompositeTransform(
        [turn, sitk.DisplacementFieldTransform(sitk.Cast(warp, sitk.sitkVectorFloat64))]
    )
    points = np.random.default_rng(3).uniform(-50.0, 50.0, (200, 3))
    back = invert_points(transform_points(points, transform), transform)
    assert np.abs(back - points).max() < 0.1
    ct = sitk.Image(40, 44, 48, sitk.sitkInt16)
    ct.SetDirection(direction.ravel().tolist())
    ct.SetSpacing((1.0, 1.5, 2.0))
    mask = np.zeros((48, 44, 40), dtype=bool)
    mask[20:26, 10:16, 12:20] = True
    carried = contour("L", crop_of(mask), ct, None)
    index = [(20 + 25) / 2, (10 + 15) / 2, (12 + 19) / 2]
    assert np.allclose(carried.centre, ct.TransformContinuousIndexToPhysicalPoint(index[::-1]))
    assert carried.volume_ml == pytest.approx(6 * 6 * 8 * 3.0 / 1000.0)
