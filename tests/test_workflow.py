"""The graph of all runs: what is in it, what a failure or a crash costs; and what a study will take."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from planted import write_sound_scans, write_video

from viptt_core.constants import UCF_CLASSES
from viptt_core.files import available_cores
from viptt_core.study.cost import estimate
from viptt_core.study.plan import load_study
from viptt_core.training.device import Engine

CHECKOUT = Path(__file__).resolve().parents[1]
TINY = "--preset study --seeds 1 --epochs 1 --pretrain-epochs 1 --device cpu"
PLAN = """
about = "A plan of five arms"
preset = "study"
seeds = 1
[scans]
dataset = "phantom"
[sources.videos]
dataset = "actions"
"""
FAMILY = '[[families]]\nname = "f"\nquestion = "?"\ncontrasts = [["video", "image"]]\n'
ARMS = {"image": "image", "video": "video", "video, mean": "video", "random": "random", "it's broken": "random"}
# Stands in for viptt: keeps what it was asked for, fails for arms that are broken.
VIPTT = """
import os, sys
from pathlib import Path
step, arms = sys.argv[2], [word for word in sys.argv[4:] if not word.startswith("-")]
with open(os.environ["CALLS"], "a") as calls:
    print(os.environ["OMP_NUM_THREADS"], *sys.argv[2:], sep="|", file=calls)
if "it's broken" in arms and not Path(os.environ["CALLS"] + ".mended").exists():
    sys.exit("this arm is broken")
"""


@pytest.fixture(autouse=True)
def _needs_snakemake():
    pytest.importorskip("snakemake")


def workflow(*arguments, **settings):
    """Run the graph; settings are Snakemake's config."""
    return subprocess.run(workflow_command(*arguments, **settings), capture_output=True, text=True, timeout=900)


def workflow_command(*arguments, **settings):
    config = [f"{name}={value}" for name, value in ({"notebooks": "", "gpu": 0} | settings).items()]
    return [sys.executable, str(CHECKOUT / "workflow" / "run.py"), *arguments, "--cores", "2", "--config", *config]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Settings of a small plan whose steps are done by a stand-in, and a reader of what it was asked for."""
    arms = "".join(
        f'[[arms]]\nname = "{name}"\nexperiment = "e"\nstart = "{start}"\n'
        + ('temporal = "mean"\n' if "mean" in name else "")
        for name, start in ARMS.items()
    )
    (tmp_path / "small.toml").write_text(PLAN + arms + FAMILY)
    (tmp_path / "viptt.py").write_text(VIPTT)
    calls = tmp_path / "calls"
    monkeypatch.setenv("CALLS", str(calls))

    def asked():
        lines = calls.read_text().splitlines()
        calls.write_text("")
        return [line.split("|") for line in lines]

    settings = {"studies": tmp_path / "small.toml", "viptt": f"{sys.executable} {tmp_path / 'viptt.py'}"}
    return settings, asked, calls.with_name("calls.mended")


# --- What is in it ------------------------------------------------------------------------------------


def jobs_of(text):
    """Jobs a rule, as a dry run lists them."""
    table = text.split("Job stats:")[1].split("\n\n")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, flags=re.M)}


def test_the_graph_has_a_job_an_arm_and_one_for_the_baselines():
    study = load_study("synthetic")
    done = workflow("-n", studies="synthetic", settings="--epochs 3")
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    expected = {"all": 1, "book": 1, "data": 1, "ledger": 1, "run": len(study.arms) + 1, "tables": 1}
    assert jobs_of(text) == expected | {"total": sum(expected.values())}
    assert "viptt study run synthetic 'video, 60 videos' --jobs=1 --epochs 3" in text
    assert "viptt study run synthetic baselines" in text


def test_real_sets_run_the_papers_plan_under_the_profile_of_slurm(tmp_path):
    (tmp_path / "my scans").mkdir()
    chosen = "--workflow-profile", str(CHECKOUT / "workflow" / "profiles" / "slurm")
    done = workflow("ledger", "-n", *chosen, scans_root=tmp_path / "my scans", videos_root=tmp_path)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert jobs_of(text) == {"data": 1, "ledger": 1, "run": 5, "tables": 1, "total": 8}
    roots = f"'--scans-root={tmp_path / 'my scans'}' --videos-root=videos={tmp_path}"
    assert f"viptt study data paper {roots}" in text


def test_a_missing_folder_is_told_before_anything_starts(tmp_path):
    done = workflow("-n", scans_root=tmp_path)
    assert done.returncode == 1
    assert "needs the folder of its real sets (--videos-root=videos). Give both: make" in done.stdout + done.stderr


def test_make_plan_starts_nothing():
    def make(*arguments):
        return subprocess.run(
            ["make", "-n", "-o", ".venv/.installed", *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    planned = make("paper", "UCF50=/a b", "IMAGECLEF=/c", "PLAN=1", "SETTINGS=--seeds 1")
    assert "for study in paper;" in planned and "run.py" not in planned
    assert 'viptt study estimate $study --videos-root "/a b" --scans-root "/c" --seeds 1' in planned
    assert "run.py --cores 3" in make("paper", "CORES=3") and 'studies="synthetic"' in make("paper")
    assert "--cores" not in make("paper", "PROFILE=slurm")  # the profile says how many jobs at once
    assert "viptt recheck synthetic paper" in make("recheck", "STUDIES=synthetic,paper")


# --- How it runs ---------------------------------------------------------------------------------------


def test_an_arm_that_fails_keeps_the_others_and_is_all_that_is_repeated(small, private_root):
    settings, asked, mended = small
    first = workflow("ledger", **settings)
    text = first.stdout + first.stderr
    assert first.returncode == 1 and "this arm is broken" in text
    calls = asked()
    plan = str(settings["studies"])
    assert calls[0] == [str(min(2, available_cores())), "data", plan]  # decoding takes all cores
    assert all(call[0] == "1" for call in calls[1:])  # all else a thread a job
    order = [(call[1], *call[3:]) for call in calls]
    wanted = Counter([("data",), *(("run", name, "--jobs=1") for name in ARMS)])
    assert Counter(order) == wanted and order[0] == ("data",)  # and no tables: an arm is missing

    mended.touch()
    again = workflow("ledger", **settings)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [call[1] for call in asked()] == ["run", "pack", "ledger"]
    assert not (private_root / "results").exists()  # no result decides what is run

    settings |= {"settings": "--epochs 2"}  # other settings: everything anew
    assert workflow("ledger", **settings).returncode == 0
    assert len(asked()) == len(calls) + 2


def test_two_runs_do_not_meet_in_one_folder(private_root):
    (private_root / "runs").mkdir(parents=True)
    with FileLock(private_root / "runs" / ".workflow.lock"):
        done = workflow("-n", studies="synthetic")
    assert done.returncode == 1 and "another run of the workflow is at work here" in done.stderr


def write_true_layouts(root):
    """A small UCF50 and a small ImageCLEF; returns their folders by setting."""
    for seed, (name, group) in enumerate((name, group) for name in UCF_CLASSES for group in range(1, 6)):
        write_video(root / "UCF50" / name / f"v_{name}_g{group:02d}_c01.avi", seed, frames=46)
    write_sound_scans(root / "ImageCLEF", 40)
    return {"videos_root": root / "UCF50", "scans_root": root / "ImageCLEF"}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_repeats_no_finished_run(tmp_path, private_root):
    settings = write_true_layouts(tmp_path) | {"settings": TINY}

    def finished():
        return {path: path.stat().st_mtime_ns for path in private_root.glob("runs/studies/paper-*/cells/*/*.npz")}

    killed = subprocess.Popen(
        workflow_command("ledger", **settings),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(finished()) < 3 and killed.poll() is None:
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    before = finished()
    done = workflow("ledger", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    after = finished()
    assert len(before) < len(after) and before.items() <= after.items()
    packed = {path.name for path in (private_root / "results" / "paper").glob("*.npz")}
    assert packed == {"primary.npz", "authors.npz", "source-videos.npz", "baselines.npz"}
    once_more = workflow("ledger", **settings)
    assert "Nothing to be done" in once_more.stdout + once_more.stderr and finished() == after


# --- What it will take ----------------------------------------------------------------------------------


@pytest.fixture
def timed(monkeypatch):
    """A second a step, without taking any."""
    monkeypatch.setattr("viptt_core.study.cost._seconds_a_step", lambda *_: 1.0)


@pytest.mark.usefixtures("timed")
def test_an_estimate_counts_fits_steps_and_hours(private_root, tmp_path):
    arms = {"random": "", "image": "", "video": "", "shuffled": 'videos = "shuffled labels"'}
    plan = PLAN.replace("[scans]", "rates = [0.1, 0.2]\nn_test = 50\n[scans]")
    (tmp_path / "p.toml").write_text(
        plan
        + "".join(
            f'[[arms]]\nname = "{name}"\nexperiment = "e"\nstart = "{"video" if extra else name}"\nseeds = 2\n{extra}\n'
            for name, extra in arms.items()
        )
        + FAMILY
    )
    study = load_study(str(tmp_path / "p.toml"))
    study = replace(study, scans={"dataset": "phantom", "n": 150}, sources={"videos": {"dataset": "actions", "n": 250}})
    table, preset = estimate(study, Engine()).set_index("training"), study.preset_of(study.arms[0])
    # two kinds of videos, 2 seeds, 2 rates
    pretrained = table.loc["pretraining, study: small trained, lstm"]
    assert pretrained["fits"] == 8 and pretrained["steps"] == 8 * preset.pretrain.epochs * 32
    # 4 arms, 2 seeds, 2 rates
    finetuned = table[table.index.str.startswith("fine-tuning")]
    assert finetuned["fits"].sum() == 16 and finetuned["steps"].sum() == 16 * preset.finetune.epochs * 13
    assert table["hours"].sum() == pytest.approx(table["steps"].sum() / 3600)
    assert not private_root.exists()


def test_an_estimate_times_real_steps_and_leaves_nothing(private_root, tmp_path):
    study = load_study("synthetic")
    one = replace(study, arms=(study.arm("video"), study.arm("image")))
    found = estimate(one, Engine(device="cpu")).set_index("training")
    assert (found["seconds a step"] > 0).all() and len(found) == 2
    assert not private_root.exists() and not (tmp_path / "cache").exists()
