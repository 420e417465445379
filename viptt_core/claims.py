"""What the paper says: every published number with its source, out of `claims.toml` beside this file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources

from viptt_core.errors import SettingError
from viptt_core.presets import check_choice

SOURCES = {"P": "the paper's abstract", "C": "the authors' public notebooks"}


@dataclass(frozen=True)
class Claim:
    """A published statement.

    Attributes:
        name: Its key.
        claim: In words.
        source: A key of SOURCES.
        value: The number; None where the statement has none.
        unit: Of the value.
        run: What the training log says beside the value: gpu, epochs, best_epoch (from 1), accuracy or micro_auc at
            that epoch, seconds_per_epoch (median), hours.
    """

    name: str
    claim: str
    source: str
    value: float | None = None
    unit: str = ""
    run: dict[str, str | float] = field(default_factory=dict)


def load_claims() -> dict[str, Claim]:
    """All published statements by name, in the file's order.

    Raises:
        SettingError: an unknown or missing field, or a source that is none.
    """
    text = resources.files("viptt_core").joinpath("claims.toml").read_text(encoding="utf-8")
    return {name: parse_claim(name, table) for name, table in tomllib.loads(text).items()}


def parse_claim(name: str, table: dict) -> Claim:
    """Build one claim out of its parsed TOML table."""
    for key in table:
        check_choice(f"field of [{name}]", key, [f.name for f in fields(Claim)])
    if lacking := [key for key in ("claim", "source") if key not in table]:
        raise SettingError(f"[{name}] lacks {', '.join(lacking)}.", remedy="Add it to claims.toml.")
    check_choice(f"source of [{name}]", table["source"], tuple(SOURCES))
    return Claim(name, **table)
