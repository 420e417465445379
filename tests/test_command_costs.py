"""What commands cost: processes below a command count, rows are kept, the table of the page is that of the numbers."""

import json
import sys
from pathlib import Path

import pytest
from commands import fault, lines, page_text

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import commands as costs  # noqa: E402

MACHINE = {
    "machine": {"cpu": "A", "cores": 2, "gpu": None, "system": "Linux", "python": "3.12", "torch": "2"},
    "commit": "0123abc",
    "date": "2026-01-01",
}
# Two processes of 60 MB each at one time, the second below the first; both go on until a file is there.
TREE = """
import os, subprocess, sys
held = bytearray(60_000_000)
for i in range(0, len(held), 4096): held[i] = 1
if len(sys.argv) > 1:
    below = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
while not os.path.exists("seen"): pass
if len(sys.argv) > 1: below.wait()
"""


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """No command is run, and no copy made: (folder of the results, what was asked for)."""
    asked = []

    def in_copy(command, folder):
        asked.append((command.name, folder.name))
        if command.name == "03":
            raise RuntimeError("exit code 1")
        return costs.Row(command.typed, 200.0, 300.0, 1500.0, 0.3, command.what)

    monkeypatch.setattr(costs, "in_copy", in_copy)
    monkeypatch.setattr(costs, "clean_copy", lambda folder, **_: folder.mkdir() or folder)
    monkeypatch.setattr(costs, "describe_machine", lambda: dict(MACHINE["machine"]))
    return tmp_path, asked


def test_memory_and_work_of_processes_below_count(tmp_path, monkeypatch):
    look, looks = costs._look, []

    def watched(process, cpu):
        looks.append(look(process, cpu))
        if looks[-1] > 120e6 or len(looks) > 500:  # the second: it never will be
            (tmp_path / "seen").touch()
        return looks[-1]

    monkeypatch.setattr(costs, "_look", watched)
    monkeypatch.setattr(costs, "EVERY", 0.02)
    code, wall, cpu, peak = costs.measure([sys.executable, "-c", TREE, TREE], cwd=tmp_path, log=tmp_path / "log")
    assert code == 0, (tmp_path / "log").read_text()
    assert peak > 120e6 and cpu > 0 and wall > 0


def test_an_exit_code_is_handed_on_and_what_was_printed_kept(tmp_path):
    code, *_ = costs.measure([sys.executable, "-c", "print('why'); exit(3)"], cwd=tmp_path, log=tmp_path / "log")
    assert code == 3 and (tmp_path / "log").read_text() == "why\n"


def test_a_failing_command_is_told_with_its_last_words(tmp_path):
    (tmp_path / "copy").mkdir()
    with pytest.raises(RuntimeError, match="exit 3': exit code 3: why"):
        costs.in_copy(costs.Command("x", "bash -c 'echo why; exit 3'", ""), tmp_path / "copy")


def test_a_copy_holds_what_git_would_commit_and_this_environment(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no Git here")
    copy = costs.clean_copy(tmp_path / "copy")
    assert (copy / "viptt_core" / "ct.py").read_bytes() == (ROOT / "viptt_core" / "ct.py").read_bytes()
    assert (copy / ".venv").resolve() == Path(sys.prefix).resolve() and not (copy / "_build").exists()
    before = costs.disk_bytes(copy)
    (copy / "runs").mkdir()
    (copy / "runs" / "x").write_bytes(bytes(1000))
    assert costs.disk_bytes(copy) - before == 1000


def test_commands_that_follow_others_share_a_copy_and_the_rest_have_one_each(measured):
    folder, asked = measured
    assert costs.run(["demo", "demo again", "predict", "00"], folder=folder) == []
    places = dict(asked)
    assert [name for name, _ in asked] == ["demo", "demo again", "phantom", "predict", "00"]
    assert places["demo"] == places["predict"] == places["phantom"] != places["00"]


def test_finished_rows_are_kept_named_ones_measured_anew_and_failures_told(measured, capsys, monkeypatch):
    folder, asked = measured
    results = ["--results", str(folder)]
    assert costs.main(["summary", *results]) == 0 and [name for name, _ in asked] == ["demo", "summary"]
    assert costs.main(results) == 1
    captured = capsys.readouterr()
    assert "summary: kept, 3 min" in captured.out and "03: failed: exit code 1" in captured.err
    assert {name for name, _ in asked[2:]} == {n for n, c in costs.COMMANDS.items() if not c.why_not} - {"summary"}
    rows = costs.read_rows(folder)
    assert rows["04"].wall_s == 200 and rows["03"].wall_s is None
    del asked[:]
    assert costs.main(["04", *results]) == 0 and [name for name, _ in asked] == ["04"]
    monkeypatch.setattr(costs, "describe_machine", lambda: MACHINE["machine"] | {"cpu": "B"})
    assert costs.main(["04", *results]) == 0 and costs.read_rows(folder)["00"].wall_s is None
    assert costs.main(["none"]) == 2 and "no row is named none" in capsys.readouterr().err


def test_what_was_not_measured_says_why_and_numbers_are_for_people(measured):
    folder, _ = measured
    costs.run(["01"], folder=folder)
    text = (folder / "commands.md").read_text()
    assert "| `papermill notebooks/01_pretrain.py out.ipynb`<br>pretraining | 3 min | 1.5 GB | < 1 MB |" in text
    assert "(not measured: downloads 6 GB: `--setup`) |  |  |  |" in text
    assert "Measured on: A, 2 cores, no GPU, Linux, Python 3.12, PyTorch 2, " in text
    assert [costs.duration(s) for s in (0.2, 89, 90, 4200)] == ["1 s", "89 s", "2 min", "1 h 10 min"]
    assert [costs.size(mb) for mb in (0, 0.3, 12.4, 6000)] == ["0", "< 1 MB", "12 MB", "6.0 GB"]


def test_the_table_of_the_page_is_that_of_the_committed_numbers():
    machine = json.loads((costs.RESULTS / "machine.json").read_text(encoding="utf-8"))
    assert (costs.RESULTS / "commands.md").read_text("utf-8") == costs.shown(costs.read_rows(), machine)
    assert "```{include} ../benchmarks/results/commands/commands.md\n```" in page_text(ROOT / "book" / "reproduce.md")


def test_what_is_measured_can_be_typed():
    for command in costs.COMMANDS.values():
        assert command.name == "setup" or not any(fault(words) for words in lines(command.typed)), command.typed
        assert set(command.after) <= set(costs.COMMANDS)
