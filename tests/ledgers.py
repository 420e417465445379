"""Small results of studies, and which numbers of a page they explain, for the tests of ledger and recheck."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd

from viptt_core.study.claims import FILE, load_claims
from viptt_core.study.ledger import DATA
from viptt_core.study.outcomes import read_committed, read_table
from viptt_core.study.plan import PLANS, load_study

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)")
ESTIMATE = re.compile(r"([-+]?\d+\.\d+) \(([-+]?\d+\.\d+) to ([-+]?\d+\.\d+)\)")
TRIPLES = (
    ("kappa", "kappa_low", "kappa_high"),
    ("difference", "low", "high"),
    ("points", "low", "high"),
    ("accuracy", "low", "high"),
)


def write_record(root: Path, name: str, **changes) -> Path:
    """A study's plan and its `study.json` below a root, without tables; returns `results/NAME`."""
    plan = root / "plans" / f"{name}.toml"
    plan.parent.mkdir(parents=True, exist_ok=True)
    if not plan.exists():
        shutil.copy(PLANS / f"{name}.toml", plan)
    folder = root / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    record = {"plan": load_study(str(plan)).digest, "plan_file": f"plans/{name}.toml", "plan_commit": "0123abc"}
    (folder / "study.json").write_text(json.dumps(record | changes))
    return folder


def write_arms(folder: Path, **arms: tuple) -> None:
    """`arms.csv`: by arm its kappa with low and high."""
    rows = [
        {
            "experiment": "e",
            "arm": arm,
            "start": "image",
            "seeds": 3,
            "n": 184,
            "kappa": kappa,
            "kappa_low": low,
            "kappa_high": high,
        }
        for arm, (kappa, low, high) in arms.items()
    ]
    pd.DataFrame(rows).to_csv(folder / "arms.csv", index=False)


def write_contrasts(folder: Path, *rows: tuple) -> None:
    """`contrasts.csv`: rows of family, measure, arm, baseline, difference, low, high, and arm2 and baseline2 if any."""
    made = []
    for family, measure, arm, baseline, difference, low, high, *second in rows:
        arm2, baseline2 = second or ("", "")
        made.append(
            {
                "family": family,
                "question": f"About {family}?",
                "measure": measure,
                "arm": arm,
                "baseline": baseline,
                "arm2": arm2,
                "baseline2": baseline2,
                "seeds": 3,
                "difference": difference,
                "low": low,
                "high": high,
                "t": 2.5,
                "p": 0.01234,
                "p_holm": 0.03702,
            }
        )
    pd.DataFrame(made).to_csv(folder / "contrasts.csv", index=False)


def unexplained(page: str, root: Path) -> list[str]:
    """Numbers of a page that are no rounding of a value in the results, plans or claims below a root.

    An estimate must be the value and both ends of one row of a table; other numbers must stand in the part of the
    results that can give them.
    """
    page = re.sub(r"```.*?```", "", page, flags=re.S)
    page = re.sub(r"`[^`\n]*`|\]\([^)]*\)|95 %", " ", page)
    head, *own = page.split("\n### ")
    titles = {title: name for name, title in DATA.items()}
    published = _toml_numbers() | {claim.value for claim in load_claims().values() if claim.value is not None}
    wrong = _unexplained(head, list(DATA), published, root)
    for section in own:
        name = titles[section.split("\n")[0]]
        wrong += _unexplained(section, [name], set(), root)
    return wrong


def _unexplained(text: str, names: list[str], known: set[float], root: Path) -> list[str]:
    known, triples, small = known | {0.0}, [], False
    for name in names:
        committed = read_committed(name, root)
        plan = committed.study
        known |= {plan.primary.width, plan.primary.most} | {float(n) for n in NUMBER.findall(plan.about)}
        for path in committed.folder.glob("*.csv"):
            table = read_table(path)
            for columns in TRIPLES:
                if set(columns) <= set(table):
                    triples += list(table[list(columns)].itertuples(index=False, name=None))
            for column in {"n", "seeds", "p", "p_holm", "percent"} & set(table):
                known |= set(table[column].dropna())
            small |= bool((table[list({"p", "p_holm"} & set(table))] < 0.001).any(axis=None))
    wrong = [
        found.group()
        for found in ESTIMATE.finditer(text)
        if not any(all(map(_rounds, found.groups(), triple)) for triple in triples)
    ]
    rest = ESTIMATE.sub(" ", text)
    rest = rest.replace("< 0.001", " ") if small else rest
    return wrong + [n for n in NUMBER.findall(rest) if not any(_rounds(n, value) for value in known)]


def _rounds(shown: str, value: float) -> bool:
    digits = len(shown.partition(".")[2])
    return f"{round(value, digits) + 0:.{digits}f}" == shown.lstrip("+")


def _toml_numbers() -> set[float]:
    text = (Path(__file__).resolve().parents[1] / "viptt_core" / "study" / FILE).read_text(encoding="utf-8")
    return {float(number) for number in NUMBER.findall(text)}
