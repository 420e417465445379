"""What studies conclude: the rule, a sentence for each contrast, and all of them in `results/verdict.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from viptt_core.constants import PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_SCRATCH
from viptt_core.errors import DataError
from viptt_core.shown import arm_label, interval, label, with_interval
from viptt_core.study.cells import pretraining_of
from viptt_core.study.plan import SEEDS_OF_A_VERDICT, Arm, Study

VERDICTS = "results/verdict.json"
HARMS, HELPS, NO_GAIN, UNDECIDED = "harms", "helps", "no gain of 0.10 or more", "undecided"
GAIN = 0.10  # kappa points that would matter
PAPER_GAIN = PAPER_KAPPA_PRETRAINED - PAPER_KAPPA_SCRATCH
CLASSES = 5  # from which on a kappa is held against GAIN
CONTRAST = ("arm", "baseline", "arm2", "baseline2")
NUMBERS = ("difference", "low", "high", "level")
COLUMNS = ("family", "question", *CONTRAST, "measure", *NUMBERS, "seeds", "n", "verdict")


def decide(low: float, high: float, *, measure: str, classes: int, seeds: int) -> str:
    """The verdict on a difference in one of `plan.MEASURES` by its interval, whose ends are nan where there is none.

    Returns:
        HARMS, HELPS, NO_GAIN or UNDECIDED, the first that holds; "" for too few seeds (not folds) or no interval.
    """
    if seeds < SEEDS_OF_A_VERDICT or np.isnan(low) or np.isnan(high):
        return ""
    if high < 0 or low > 0:
        return HARMS if high < 0 else HELPS
    return NO_GAIN if high < GAIN and measure == "kappa" and classes >= CLASSES else UNDECIDED


def unlearned(study: Study, sources: pd.DataFrame, arms: Sequence[Arm]) -> list[str]:
    """Sources that some arms were pretrained on and did not learn, or whose pretraining was not tested.

    Controls whose videos were changed are not asked: they are not meant to learn. Nobody is, in a plan without a gate.
    """
    rows = sources[sources["learned"]] if len(sources) else pd.DataFrame({"arm": [], "source": []})
    learned = set(zip(rows["arm"], rows["source"], strict=True))  # named by the first arm of a pretraining
    asked = [arm for arm in arms if arm.videos == "sound"] if study.gate else []
    asked = [(pretraining_of(study, arm), name) for arm in asked for name in study.sources_of(arm)]
    return list(dict.fromkeys(name for first, name in asked if (first.name, name) not in learned))


def make_verdicts(study: Study, tables: dict[str, pd.DataFrame], *, synthetic: bool) -> list[dict[str, Any]]:
    """A record for each contrast that has an interval in the tables of `tables.make_tables`, computed or committed.

    It has COLUMNS of the row, `study` (the plan's name), `data` ("synthetic" or "real"), `sentence`, and `primary`:
    whether the study was made for it.
    """
    rows, sources = tables.get("contrasts", pd.DataFrame()), tables.get("sources", pd.DataFrame())
    rows = rows.dropna(subset="low").to_dict("records") if len(rows) else []
    closed = [unlearned(study, sources, [study.arm(row[key]) for key in CONTRAST if row[key]]) for row in rows]
    primary, planned = _primary(study, rows, closed), {family.name: family.verdict for family in study.families}
    data, made = "synthetic" if synthetic else "real", []
    for row, failed in zip(rows, closed, strict=True):
        why = f"fewer than {SEEDS_OF_A_VERDICT} seeds" if planned[row["family"]] else "the plan asks for none"
        seeds = min(study.seeds_of(study.arm(row[key])) for key in CONTRAST if row[key])
        why = f"{row['seeds']} of {seeds} seeds have run" if row["seeds"] < seeds else why
        why = f"not learned: {' and '.join(map(label, failed))}" if failed else why
        # Twelve digits, as in the tables: the same file on every machine.
        record = {"study": study.name, "data": data} | {name: row[name] for name in COLUMNS}
        record |= {name: float(f"{row[name]:.12g}") for name in NUMBERS}
        made.append(record | {"sentence": _sentence(study, row, data, why), "primary": row is primary})
    return made


def _primary(study: Study, rows: list[dict], closed: list[list[str]]) -> dict | None:
    """The plan's primary contrast; where the gate closes it, the one with the most of its sources that passes."""
    wanted = set(study.sources_of(study.arm(study.primary[0])))
    ranks = []
    for row, failed in zip(rows, closed, strict=True):
        given = set(study.sources_of(study.arm(row["arm"])))
        if row["family"] == study.families[0].name:
            ranks.append(1 if failed else len(wanted) + 2)
        else:
            alike = (row["baseline"], row["arm2"], row["measure"]) == (study.primary[1], "", study.families[0].measure)
            sound = study.arm(row["arm"]).videos == "sound" and not failed
            ranks.append(1 + len(given) if alike and sound and given and given < wanted else 0)
    return rows[int(np.argmax(ranks))] if any(ranks) else None


def _sentence(study: Study, row: dict, data: str, why: str) -> str:
    says = row["verdict"] or f"no verdict ({why})"
    as_the_paper = [study.arm(row[key]).start for key in CONTRAST if row[key]] == ["video", "image"]
    if row["verdict"] == HELPS and row["measure"] == "kappa" and as_the_paper:
        says += f", and the paper's gain of {PAPER_GAIN:.2f} lies {'inside' if row['has_018'] else 'outside'}"
    difference = with_interval(row["difference"], np.nan, np.nan, signed=True)
    ends = interval(row["low"], row["high"], signed=True)
    return (
        f"{says[0].upper()}{says[1:]}. {contrast_name(row)}: {label(row['measure'])} {difference} "
        f"({100 * row['level']:.3g} % interval {ends}; {row['seeds']} seed{'' if row['seeds'] == 1 else 's'}, "
        f"{row['n']:,} {data} test cases)."
    )


def contrast_name(row) -> str:
    """A contrast, or a difference of differences, in words; `row` is a record, or a row of the table."""
    arm, baseline, arm2, baseline2 = (arm_label(row[key]) for key in CONTRAST)
    plain = f"{arm} against {baseline}"
    return f"({plain}) against ({arm2} against {baseline2})" if row["arm2"] else plain


def by_question(records: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """What some records say, below the question that it answers."""
    said: dict[str, list[str]] = {}
    for record in records:
        said.setdefault(record["question"], []).append(record["sentence"])
    return said


def verdicts_json(records: Sequence[dict[str, Any]]) -> str:
    """The text of `results/verdict.json`."""
    return json.dumps({"questions": list(records)}, indent=1) + "\n"


def read_verdicts(root: Path) -> list[dict[str, Any]]:
    """The records of `results/verdict.json` below a root, none without that file; a DataError where it is damaged."""
    path = root / VERDICTS
    try:
        return json.loads(path.read_text(encoding="utf-8"))["questions"] if path.is_file() else []
    except (OSError, ValueError, KeyError) as error:
        remedy = "Take it from the repository again, or make it: viptt study pack STUDY"
        raise DataError(f"cannot be read ({error!r}).", path=path, remedy=remedy) from error
