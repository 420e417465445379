"""Small results of studies, for the tests of the ledger and of withdrawn studies."""

import json
import shutil
from pathlib import Path

import pandas as pd

from viptt_core.study.plan import PLANS, load_study


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
