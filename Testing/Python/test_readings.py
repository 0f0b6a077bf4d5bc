"""From followed lesions to measurements."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ImmunoRadiomicsLib.analysis import Lesion, LesionObservation
from ImmunoRadiomicsLib.readings import measurements_of
from ImmunoRadiomicsLib.study import Study, Timepoint

START = datetime.date(2024, 1, 1)
STUDY = Study(
    "P",
    tuple(
        Timepoint(name, START + datetime.timedelta(day), Path("ct.nrrd"))
        for name, day in (("baseline", 0), ("followup-1", 60), ("followup-2", 120))
    ),
)
NAMES = [timepoint.name for timepoint in STUDY.timepoints]


def lesion(
    name: str, volumes: list[float | None], role: str = "non-target", statuses: list[str] | None = None
) -> Lesion:
    observations = tuple(
        LesionObservation(
            timepoint,
            (statuses[index] if statuses else "absent" if volume == 0 else "measured"),
            "present",
            long_axis_mm=12.0 if volume else None,
            short_axis_mm=9.0 if volume else None,
            volume_ml=volume,
        )
        for index, (timepoint, volume) in enumerate(zip(NAMES, volumes, strict=True))
    )
    return Lesion(name, "lung", "given", role, "", False, observations)


def statuses(*lesions: Lesion) -> dict[str, list[str]]:
    rows = measurements_of(STUDY, lesions)
    return {item.id: [row.status for row in rows if row.lesion == item.id] for item in lesions}


def test_targets_keep_their_numbers() -> None:
    rows = measurements_of(STUDY, [lesion("L1", [1.0, 2.0, 0.0], role="target")])
    assert [(row.day, row.long_mm, row.short_mm, row.status) for row in rows] == [
        (0, 12.0, 9.0, "measured"),
        (60, 12.0, 9.0, "measured"),
        (120, 0.0, 0.0, "absent"),
    ]


def test_a_merged_partner_counts_as_zero() -> None:
    rows = measurements_of(STUDY, [lesion("L1", [1.0, None, None], "target", ["measured", "merged", "merged"])])
    assert [(row.long_mm, row.status) for row in rows][1:] == [(0.0, "absent"), (0.0, "absent")]


@pytest.mark.parametrize(("second", "expected"), [(1.72, "present"), (1.74, "progressed")])
def test_a_non_target_progresses_at_73_percent_of_volume(second: float, expected: str) -> None:
    assert statuses(lesion("L1", [1.0, second, second])) == {"L1": ["present", expected, expected]}


def test_one_growing_non_target_among_large_stable_ones_is_not_unequivocal() -> None:
    assert statuses(lesion("L1", [1.0, 3.0, 3.0]), lesion("L2", [20.0, 20.0, 20.0]))["L1"] == ["present"] * 3


def test_growth_counts_from_the_smallest_volume() -> None:
    assert statuses(lesion("L1", [4.0, 1.0, 2.0])) == {"L1": ["present", "present", "progressed"]}


def test_a_visit_that_was_not_read_is_no_nadir() -> None:
    result = statuses(
        lesion("L1", [4.0, None, 4.2], statuses=["measured", "not evaluated", "measured"]),
        lesion("L2", [1.0, 1.0, 1.0]),
    )
    assert result == {"L1": ["present", "not evaluated", "present"], "L2": ["present"] * 3}
