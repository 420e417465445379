"""Small results of studies, for the tests of the ledger and of withdrawn studies."""

import json
import shutil
from pathlib import Path

import pandas as pd

from viptt_core.study.plan import PLANS, load_study


def write_record(root: Path, name: str, **changes) -> Path:
    """A study's plan and its `study.json` below a root, without tables; returns `results/NAME`."""
    plan, folder = root / "plans" / f"{name}.toml", root / "results" / name
    for made in (plan.parent, folder):
        made.mkdir(parents=True, exist_ok=True)
    shutil.copy(PLANS / f"{name}.toml", plan)
    record = {"plan": load_study(str(plan)).digest, "plan_file": f"plans/{name}.toml", "plan_commit": "0123abc"}
    (folder / "study.json").write_text(json.dumps(record | changes))
    return folder


def write_arms(folder: Path, **arms: tuple) -> None:
    """`arms.csv`: by arm its kappa with low and high."""
    table = pd.DataFrame.from_dict(arms, orient="index", columns=["kappa", "kappa_low", "kappa_high"])
    table = table.rename_axis("arm").reset_index().assign(experiment="e", start="image", seeds=3, n=184)
    table.to_csv(folder / "arms.csv", index=False)


def write_contrasts(folder: Path, *rows: tuple) -> None:
    """`contrasts.csv`: rows of family, measure, arm, baseline, difference, low, high, and arm2 and baseline2 if any."""
    columns = ["family", "measure", "arm", "baseline", "difference", "low", "high", "arm2", "baseline2"]
    table = pd.DataFrame([(*row, "", "")[: len(columns)] for row in rows], columns=columns)
    table = table.assign(question="About " + table["family"] + "?", seeds=3, t=2.5, p=0.01234, p_holm=0.03702)
    table.to_csv(folder / "contrasts.csv", index=False)
