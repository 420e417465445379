"""What the paper says: every published number with its source, out of `claims.toml` beside this file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from importlib import resources

from viptt_core.errors import check_choice
from viptt_core.presets import build

FILE = "claims.toml"
SOURCES = {"P": "the paper's abstract", "C": "the authors' public notebooks"}


@dataclass(frozen=True)
class Answer:
    """Where a number stands in the tables of a study: `results/STUDY/TABLE.csv`.

    Attributes:
        table: Its name.
        column: Of the number.
        row: What the other columns must hold; exactly one row does.
        study: Name of the plan; "paper" is the one on the data of the claims.
        of: Which published number is meant: "" is the value of the claim, else a key of its `run`.
    """

    table: str
    column: str
    row: dict[str, str]
    study: str = "paper"
    of: str = ""


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
        difference_of: Two claims whose difference is the value, which is then not published but computed here.
        needs: The data set it is about, a name of the registry.
        command: What reproduces it, in the top folder of the repository; "" where there is none, then see `why`.
        answer: Where our number for it stands, as an `Answer`; None where no table holds it.
        beside: Answers on other data. They are shown and never count.
        why: Why there is no command or no answer.
    """

    name: str
    claim: str
    source: str
    value: float | None = None
    unit: str = ""
    run: dict[str, str | float] = field(default_factory=dict)
    difference_of: tuple = ()
    needs: str = ""
    command: str = ""
    answer: Answer | None = None
    beside: tuple = ()
    why: str = ""


def load_claims() -> dict[str, Claim]:
    """All published statements by name, in the file's order.

    Raises:
        SettingError: an unknown or missing field, or a source that is none.
    """
    text = resources.files("viptt_core.study").joinpath(FILE).read_text(encoding="utf-8")
    claims = {name: parse_claim(name, table) for name, table in tomllib.loads(text).items()}
    for name, claim in claims.items():
        if claim.difference_of:
            first, second = (claims[other].value for other in claim.difference_of)
            claims[name] = replace(claim, value=round(first - second, 10))
    return claims


def parse_claim(name: str, table: dict) -> Claim:
    """Build one claim out of its parsed TOML table."""
    made = {"name": name} | table
    if "answer" in made:
        made["answer"] = build(Answer, made["answer"], f"{name}.answer", FILE)
    made["beside"] = [build(Answer, entry, f"{name}.beside", FILE) for entry in made.get("beside", [])]
    claim = build(Claim, made, name, FILE)
    check_choice(f"source of [{name}]", claim.source, tuple(SOURCES))
    return claim
