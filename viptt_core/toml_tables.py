"""TOML tables as frozen dataclasses: an unknown, missing or mistyped field is refused by name."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from viptt_core.errors import SettingError, check_choice


def build(kind: type, values: dict[str, Any], where: str, file: str):
    """Make the dataclass `kind` out of the values of a table.

    Args:
        kind: A dataclass; fields without a default must be there.
        values: As parsed. Lists become tuples; values that are dataclasses already stay.
        where: Name of the table, for messages.
        file: Name of the file, for messages.

    Raises:
        SettingError: a field is unknown, missing or of another type.
    """
    types = get_type_hints(kind)
    for name in values:
        check_choice(f"field of [{where}]", name, tuple(types))
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise SettingError(f"[{where}] lacks {', '.join(missing)}.", remedy=f"Add it to {file}.")
    made = {name: _plain(value) for name, value in values.items()}
    for name, value in made.items():
        if not _fits(value, types[name]):
            raise SettingError(
                f"{name} of [{where}] is {values[name]!r}.", remedy=f"Write a value of type {_named(types[name])}."
            )
    return kind(**made)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a file.

    Raises:
        SettingError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"{path} cannot be read as TOML ({error})."
        raise SettingError(what, remedy="Correct the path or the file.") from error


def _plain(value):
    """Lists as tuples, and text without the line ends that a multi-line string of TOML brings along."""
    return tuple(value) if isinstance(value, list) else value.strip("\n") if isinstance(value, str) else value


def _fits(value, wanted) -> bool:
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    # bool is an int to Python, not to a reader; 1 where 1.0 is meant is a slip that stays without harm.
    return any(
        kind is Any
        or type(value) is (get_origin(kind) or kind)
        or (kind is float and type(value) is int)
        or (kind not in (int, float) and isinstance(value, get_origin(kind) or kind))
        for kind in kinds
    )


def _named(kind) -> str:
    return getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
