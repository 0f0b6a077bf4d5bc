"""Objects between the stages survive JSON, and the schema says what is written."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Literal

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.serialise import from_json, json_schema, to_json


@dataclasses.dataclass(frozen=True)
class Inner:
    """An inner part."""

    point: tuple[float, float, float]
    word: Literal["a", "b"]


@dataclasses.dataclass(frozen=True)
class Outer:
    """A whole."""

    name: str
    count: int
    share: float | None
    flag: bool
    day: datetime.date
    path: Path | None
    parts: tuple[Inner, ...]
    values: dict[str, float | None]
    ends: tuple[Inner, Inner] | None = None


finite = st.floats(allow_nan=False, allow_infinity=False)
inner = st.builds(Inner, point=st.tuples(finite, finite, finite), word=st.sampled_from(["a", "b"]))
outer = st.builds(
    Outer,
    name=st.text(),
    count=st.integers(-(10**12), 10**12),
    share=st.none() | finite,
    flag=st.booleans(),
    day=st.dates(),
    path=st.none() | st.just(Path("a/b.nrrd")),
    parts=st.lists(inner, max_size=3).map(tuple),
    values=st.dictionaries(st.text(max_size=5), st.none() | finite, max_size=3),
    ends=st.none() | st.tuples(inner, inner),
)


@given(outer)
def test_round_trip_and_schema(value: Outer) -> None:
    text = json.dumps(to_json(value), allow_nan=False)
    assert from_json(Outer, json.loads(text)) == value
    schema = json_schema(Outer, title="outer", description="test")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(text), schema)


def test_numpy_and_not_a_number() -> None:
    assert to_json({"a": np.float32(0.5), "b": np.int64(3), "c": float("nan"), "d": np.float64("inf")}) == {
        "a": 0.5,
        "b": 3,
        "c": None,
        "d": None,
    }
    assert isinstance(to_json(np.int64(3)), int)
    assert isinstance(to_json(3.0), float)


VALID = to_json(Outer("n", 1, 0.5, True, datetime.date(2024, 1, 2), None, (Inner((1, 2, 3), "a"),), {}))


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("count", 1.5, "count"),
        ("count", True, "count"),
        ("flag", 1, "flag"),
        ("day", "2024-02-31", "day"),
        ("parts", [{"point": [1, 2], "word": "a"}], "parts[0].point"),
        ("parts", [{"point": [1, 2, 3], "word": "c"}], "parts[0].word"),
        ("unknown", 1, "unknown"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(key: str, value: object, where: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(Outer, {**VALID, key: value})
    assert where in str(caught.value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {**VALID, key: value},
            json_schema(Outer, title="", description=""),
            format_checker=jsonschema.FormatChecker(),
        )


def test_a_missing_entry_is_refused() -> None:
    data = {key: value for key, value in VALID.items() if key != "name"}
    with pytest.raises(InputError, match="name is missing"):
        from_json(Outer, data)
