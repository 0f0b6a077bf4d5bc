"""The choices of a protocol by name: every field of the settings can be given as ``name=value``."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError
from .engine import ResponseSettings
from .irecist import IrecistSettings
from .recist import BestResponseSettings, RecistSettings

_TRUE, _FALSE = ("yes", "y", "true", "on", "1"), ("no", "n", "false", "off", "0")


def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {
        item.name: hints[item.name]
        for item in dataclasses.fields(kind)
        if not dataclasses.is_dataclass(hints[item.name]) and item.name != "criterion"
    }


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings in alphabetical order; what each does is said where it is defined."""
    kinds = (RecistSettings, IrecistSettings, BestResponseSettings, ResponseSettings)
    return tuple(sorted({name for kind in kinds for name in _fields(kind)}))


def with_settings(settings: ResponseSettings, choices: Sequence[str]) -> ResponseSettings:
    """Return settings with choices such as ``sticky_pr=no`` or ``confirmation_reference=lowest`` applied.

    Raises
    ------
    InputError
        With every choice whose name is not known or whose value does not fit.
    """
    problems: list[str] = []
    values: dict[str, str] = {}
    for choice in choices:
        name, _, value = choice.partition("=")
        name = name.strip().replace("-", "_")
        if name in setting_names():
            values[name] = value.strip()
        else:
            problems.append(
                f"setting '{choice}': there is no such setting. Use NAME=VALUE with one of {', '.join(setting_names())}."
            )

    def chosen(kind: type) -> dict[str, Any]:
        result = {}
        for name, hint in _fields(kind).items():
            if name in values:
                try:
                    result[name] = _value(values[name], hint)
                except ValueError as error:
                    problems.append(f"setting '{name}={values[name]}': {error}")
        return result

    recist = replace(settings.irecist.recist, **chosen(RecistSettings))
    irecist = replace(settings.irecist, recist=recist, **chosen(IrecistSettings))
    best = replace(settings.best, **chosen(BestResponseSettings))
    result = replace(settings, irecist=irecist, best=best, **chosen(ResponseSettings))
    if problems:
        raise InputError(problems)
    return result


def _value(text: str, hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        allowed = typing.get_args(hint)
        if text not in allowed:
            raise ValueError(f"use one of {', '.join(allowed)}.")
        return text
    if hint is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError("use yes or no.")
        return text.lower() in _TRUE
    try:
        number = hint(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"use {'a whole number' if hint is int else 'a number'} of at least 0.")
    return number
