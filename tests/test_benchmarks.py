"""Benchmarks: references compute what viptt_core computes; the runner loses and invents nothing; the page follows."""

import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import fault, lines, page_text
from scipy import ndimage
from tracked import ROOT

if str(ROOT) not in sys.path:  # `benchmarks` is not installed: it belongs to the checkout
    sys.path.insert(0, str(ROOT))

from benchmarks import NotMeasuredError, Result, Row, Target, alternate, inputs, page, reference, rows  # noqa: E402
from benchmarks import __main__ as command  # noqa: E402
from benchmarks import commands as costs  # noqa: E402
from viptt_core.ct import load_volume  # noqa: E402
from viptt_core.synthetic.actions import make_clip  # noqa: E402
from viptt_core.synthetic.folders import encode_avi  # noqa: E402
from viptt_core.training import Trainer  # noqa: E402
from viptt_core.training.device import Engine  # noqa: E402
from viptt_core.video import load_clip  # noqa: E402

# --- References -------------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((40, 40, 20)), 1.5)
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image((-500 + 550 * np.tanh(2 * smooth / smooth.std())).astype(np.int16), np.eye(4)).to_filename(path)
    return path


def test_the_authors_steps_agree_with_ours(scan):
    theirs = reference.authors_preprocess(scan, depth=12, size=24)
    ours = load_volume(scan, depth=12, size=24)
    assert theirs.shape == (12, 24, 24) and theirs.dtype == np.float32
    # scipy's zoom leaves a line of zeros where rounding takes it out of the volume.
    np.testing.assert_allclose(theirs[:, 1:-1, 1:-1], ours[:, 1:-1, 1:-1], atol=1e-5)


def test_monai_agrees_with_ours(scan):
    pytest.importorskip("monai")
    theirs = reference.monai_preprocess(scan, depth=12, size=24)
    np.testing.assert_allclose(theirs, load_volume(scan, depth=12, size=24), atol=1e-5)


def test_a_copy_of_a_scan_is_another_file_of_the_same_content(scan, tmp_path):
    inputs.write_copy(scan, tmp_path / "copy.nii.gz", 7)
    assert scan.read_bytes() != (tmp_path / "copy.nii.gz").read_bytes()
    content = gzip.decompress(scan.read_bytes())
    assert gzip.decompress((tmp_path / "copy.nii.gz").read_bytes()) == content
    assert reference.bare_decompression(scan) == len(content)


def test_the_opencv_loop_agrees_with_ours(tmp_path):
    path = tmp_path / "clip.avi"
    path.write_bytes(encode_avi(make_clip(0, 1, 1, frames=6)))
    theirs = reference.opencv_clip(path, frames=5, size=64)
    assert np.abs(theirs.astype(int) - load_clip(path, frames=5, size=64)).mean() < 1
    with pytest.raises(ValueError, match="6 frames, 7 are needed"):
        reference.opencv_clip(path, frames=7)


@pytest.fixture
def networks(monkeypatch):
    """Ours and the reference's, with the same weights."""
    monkeypatch.setattr(inputs, "DEVICE", "cpu")
    return inputs.models()


@pytest.mark.parametrize("cache", [False, True])
def test_ours_and_the_plain_loop_have_the_same_losses(networks, cache):
    (model, plain), clips = networks, inputs.noise_clips(2, 2, 32)
    task = inputs.plain_task(clips, 1, frozen=True, batch_size=1, epochs=3)
    with inputs.fresh_cache():
        ours = Trainer(model, task, engine=Engine("cpu", "fp32", feature_cache=cache)).run()
    assert ours.engine["feature_cache"] is cache
    for epoch in ours.epochs:
        theirs = reference.plain_frozen_epoch(plain, clips.clips[:1], clips.labels[:1])
        assert [epoch["loss"]] == pytest.approx(theirs, abs=1e-5)
        theirs = reference.plain_validate(plain, clips.clips[1:], clips.labels[1:])
        assert epoch["val_loss"] == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("chunk", [0, 2])
def test_our_step_is_the_plain_step(networks, chunk):
    model, plain = networks
    start = [weight.detach().clone() for weight in model.parameters()]
    clips = inputs.noise_clips(2, 3, 32)
    loss = inputs.full_step(model, clips, precision="fp32", chunk=chunk)()
    optimiser = reference.plain_optimiser(plain.train())
    assert float(loss) == pytest.approx(reference.plain_step(plain, optimiser, clips.clips, clips.labels), abs=1e-5)
    plain_weights = dict(plain.named_parameters())
    for (name, weight), before in zip(model.named_parameters(), start, strict=True):
        theirs = plain_weights[name.replace("temporal.", "lstm.")].reshape(weight.shape)
        torch.testing.assert_close(weight, theirs, atol=1e-6, rtol=0, msg=name)
        assert not torch.equal(weight, before), name
    assert not plain.lstm.bias_hh_l0.any()


def test_plain_prediction_of_a_folder(scan):
    prepare = partial(reference.authors_preprocess, depth=3, size=32)
    network = reference.PlainViPTTNet(2)
    probabilities = reference.plain_predict_folder(network, [scan, scan], preprocess=prepare)
    assert probabilities.shape == (2, 2) and np.array_equal(*probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_the_references_do_not_import_viptt_core():
    assert not re.search(r"^\s*(from|import) viptt_core", Path(reference.__file__).read_text("utf-8"), re.M)


# --- Measuring --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "ours, theirs, target, missed, values",
    [
        # medians 2 and 20; pair by pair 30, 10, 5
        ([1.0, 2.0, 4.0], [30.0, 20.0, 20.0], Target("at least", 10), 10.1, (10.0, 5.0, 30.0)),
        # the other way round: 0.1; pairs 1/30, 1/10, 1/5
        ([1.0, 2.0, 4.0], [30.0, 20.0, 20.0], Target("at most", 0.1), 0.09, (0.1, 1 / 30, 0.2)),
        ([3e9, 5e9, 4e9], [], Target("at most", 4e9), 3.9e9, (4e9, 3e9, 5e9)),
    ],
)
def test_values_by_hand_and_a_bound_that_is_just_reached(ours, theirs, target, missed, values):
    result = Result(ours, theirs, target=target)
    assert result.values() == pytest.approx(values) and result.met is True
    assert Result(ours, theirs, target=Target(target.kind, missed)).met is False
    assert Result(ours, theirs).met is None


def test_ours_and_the_reference_take_turns():
    calls = []
    seconds = alternate(partial(calls.append, "a"), partial(calls.append, "b"), 2, times=2)
    assert "".join(calls) == "ab" + "aabb" * 2  # warm-up, then two measurements of two calls
    assert [len(side) for side in seconds] == [2, 2] and min(map(min, seconds)) >= 0


def test_the_cache_of_the_reader_is_left_alone(monkeypatch):
    monkeypatch.setenv("VIPTT_CACHE", "before")
    with inputs.fresh_cache() as folder:
        assert os.environ["VIPTT_CACHE"] == str(folder) and folder.is_dir()
    assert os.environ["VIPTT_CACHE"] == "before" and not folder.exists()


def test_shares_of_a_profile_add_up():
    layer, pixels = torch.nn.Conv2d(1, 4, 3), torch.zeros(1, 1, 32, 32)
    shares = rows.parts_of(lambda: layer(pixels).relu())
    assert sum(shares.values()) == pytest.approx(1) and {"convolution forward", "ReLU"} <= set(shares)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert rows.group_of("aten::convolution_backward") == "convolution backward"
    assert rows.group_of("Optimizer.step#SGD.step") == "optimiser" and rows.group_of("aten::nll_loss") == "other"


def test_what_a_step_prints_is_what_a_row_reads(monkeypatch):
    def in_here(command, **_):
        exec(command[-1])
        return subprocess.CompletedProcess(command, 0, stdout="a line before\n" + printed.pop())

    printed = []
    monkeypatch.setattr(rows, "SIZE", 32)
    monkeypatch.setattr("builtins.print", printed.append)
    monkeypatch.setattr(rows.subprocess, "run", in_here)
    step = rows.step_memory.__wrapped__(2, 1)
    assert step["peak"] > 100e6 and step["seconds"] > 0 and 0 < step["loss"] < 10


# --- The runner -------------------------------------------------------------------------------------------
def fake_rows(calls, *, second=None):
    def fast(profile):
        calls.append("fast")
        return Result([1.0, 2.0, 4.0], [30.0, 20.0, 20.0], settings={"frames": profile.frames}, notes=["a note"])

    def slow(profile):
        calls.append("slow")
        if second is not None:
            raise second
        return Result([1.0], [3.0])

    def absent(profile):
        raise NotMeasuredError("no such part on this machine")

    return {
        name: Row(f"do {name}", "a loop", Target("at least", 10), function)
        for name, function in (("fast", fast), ("slow", slow), ("absent", absent))
    }


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A root of its own; a machine and a commit that a test can change: call it to run the command."""
    machine = dict.fromkeys(command.describe_machine(), "x") | {"gpu": None, "bf16": True}
    monkeypatch.setattr(command, "describe_machine", lambda: dict(machine))
    monkeypatch.setattr(command, "git_commit", lambda: world.commit)

    def world(*arguments, calls=None, second=None):
        code = command.main(list(arguments), fake_rows([] if calls is None else calls, second=second), tmp_path)
        path = tmp_path / page.RESULTS / "quick-cpu.json"
        return code, {row.name: row for row in page.read_file(path)["rows"]}

    world.commit, world.machine, world.root = "one", machine, tmp_path
    return world


def test_finished_rows_are_kept(world, capsys):
    calls = []
    code, kept = world("--rows", "fast", calls=calls)
    assert code == 0 and kept["fast"].values() == (10.0, 5.0, 30.0) and kept["fast"].met
    assert kept["fast"].settings == {"frames": 16} and kept["fast"].commit == "one" and kept["fast"].date
    assert list(world(calls=calls)[1]) == ["fast", "slow", "absent"]
    assert calls == ["fast", "slow"] and "kept from" in capsys.readouterr().out
    world("--rows", "fast", calls=calls)
    assert calls.pop() == "fast" and calls == ["fast", "slow"]
    for commit in ("another", "another+", "another+"):  # with changes: nobody knows with which
        world.commit, calls = commit, []
        assert {row.commit for row in world(calls=calls)[1].values()} == {commit} and calls == ["fast", "slow"]
    world.machine["threads"] = 7  # what another machine gave does not pass for this one's
    assert list(world("--rows", "slow", calls=calls)[1]) == ["slow"]


def test_a_failing_row_is_said_and_loses_nothing(world, capsys):
    calls = []
    code, kept = world("--rows", "slow", "fast", calls=calls, second=OSError("the disk went away"))
    shown = capsys.readouterr()
    assert code == 1 and "failed: OSError: the disk went away" in shown.out and "failed: slow" in shown.err
    assert [kept[name].missing for name in ("fast", "slow")] == ["", "failed: OSError: the disk went away"]
    assert world(calls=calls)[0] == 0 and calls == ["slow", "fast", "slow"]  # mended: only what failed is measured
    shown = capsys.readouterr().out
    assert "3x, target at least 10x: MISSED" in shown and "not measured: no such part on this machine" in shown


def test_an_interruption_keeps_what_is_finished(world, capsys):
    code, kept = world(second=KeyboardInterrupt())
    assert code == 130 and "interrupted" in capsys.readouterr().err and list(kept) == ["fast"]


def test_an_unknown_row_is_refused_and_help_names_all(capsys):
    for arguments in (["--rows", "preproces_scan"], ["--help"]):
        with pytest.raises(SystemExit):
            command.main(arguments)
    shown = capsys.readouterr()
    assert "preproces_scan" in shown.err and "preprocess_scan" in shown.out


# --- The page ---------------------------------------------------------------------------------------------
def test_the_committed_page_is_what_the_committed_results_say(tmp_path):
    remedy = "not up to date: python -m benchmarks --page"
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / page.RESULTS).symlink_to(ROOT / page.RESULTS)
    assert page.write_page(tmp_path).read_text("utf-8") == (ROOT / page.PAGE).read_text("utf-8"), remedy
    words = [re.findall(r"<!-- (.*?) -->", (root / page.CHART).read_text("utf-8")) for root in (ROOT, tmp_path)]
    assert words[0] == words[1] and len(words[0]) > 20, remedy


def test_the_page_tells_machine_ratios_targets_and_what_is_missing(world):
    world()
    text = (world.root / page.PAGE).read_text("utf-8")
    assert "| do fast | a loop | 2\xa0s / 20\xa0s | 10x (5x to 30x) | at least 10x | yes |" in text
    assert "| do slow | a loop | 1\xa0s / 3\xa0s | 3x | at least 10x | **no** |" in text
    assert "| do absent | a loop |  |  |  | not measured |" in text
    assert (
        "Targets met: 1 of 2 measured. Missed: do slow (3x, target at least 10x). Without a measurement: do absent"
        in text
    )
    assert "Measured on: x, x threads, bf16 units, no GPU" in text and "- do fast: a note." in text
    assert "do fast 10x, at least 10x; do slow 3x, at least 10x." in text  # in words for the chart


def test_the_page_begins_with_its_ratios_whatever_was_measured():
    content = page.read_file(ROOT / page.RESULTS / "quick-cpu.json")
    known = {row.name for row in content["rows"]}
    assert all(known >= set(rows) for rows in page.HEADLINES.values())
    text = (ROOT / page.PAGE).read_text("utf-8")
    assert text.partition("\n# ")[2].split("\n")[2] == page.headline(content)
    (row,) = (row for row in content["rows"] if row.name == "decode_clip")
    told = "On A: decoding a video clip **2x** as fast as the authors' code."
    half = dataclasses.replace(row, ours=[1.0, 1.0], theirs=[2.0, 2.0])
    assert page.headline({"machine": {"processor": "A"}, "rows": [half]}) == told
    assert page.headline({"machine": {"processor": "A"}, "rows": []}) == "On A: not measured."


def test_results_of_a_gpu_are_a_section_of_their_own(world):
    world()
    world.machine["gpu"] = "Some GPU 80GB"
    world("--rows", "fast", "--profile", "full")
    assert (world.root / page.RESULTS / "full-some-gpu-80gb.json").is_file()
    text = (world.root / page.PAGE).read_text("utf-8")
    assert text.index("### Quick profile, CPU") < text.index("### Full profile, Some GPU 80GB")


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 1}', '{"format": 3, "rows": [{}]}'])
def test_a_missing_or_damaged_file_is_named_with_the_remedy(tmp_path, capsys, text):
    if text is not None:
        (tmp_path / page.RESULTS).mkdir(parents=True)
        (tmp_path / page.RESULTS / "quick-cpu.json").write_text(text, encoding="utf-8")
    assert command.main(["--page"], root=tmp_path) == 2
    told = capsys.readouterr().err
    assert "quick-cpu.json" in told and "can be read" in told and "make bench" in told


# --- What commands cost -----------------------------------------------------------------------------------
# Two processes of 60 MB each at one time, the second below the first; then 100 kB on the disk.
TREE = """
import subprocess, sys, time
held = bytearray(60_000_000)
for i in range(0, len(held), 4096): held[i] = 1
if len(sys.argv) > 1: subprocess.run([sys.executable, *sys.argv[1:]])
time.sleep(0.3)
open("left", "wb").write(bytes(100_000))
print("why")
"""


def test_memory_of_processes_below_counts_and_a_failure_is_told(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "tree.py").write_text(TREE)
    (folder / "link").symlink_to(sys.executable)
    taken = costs.measure("python tree.py tree.py", folder)
    assert 120e6 < taken["memory"] < 400e6 and taken["seconds"] > 0.5 and taken["disk"] == 100_000
    with pytest.raises(RuntimeError, match="exit 3: exit code 3: why"):
        costs.measure("python tree.py; exit 3", folder)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no Git here")
def test_commands_that_are_named_are_measured_with_those_beside_them(monkeypatch, tmp_path):
    typed, machine = [], {"processor": "A", "gpu": None, "system": "Linux", "python": "3.12", "torch": "2"}

    def measure(words, folder):
        assert (folder / "viptt_core" / "ct.py").is_file() and not (folder / "_build").exists()
        typed.append((words, folder))
        return {"seconds": 200.0, "memory": 1_500_000_000, "disk": 300_000}

    def shown():
        return (tmp_path / page.RESULTS / "commands.md").read_text("utf-8")

    monkeypatch.setattr(costs, "measure", measure)
    monkeypatch.setattr(costs, "describe_machine", lambda: dict(machine))
    costs.run(["submission"], tmp_path)
    assert [words for words, _ in typed] == [words for words, _ in costs.GROUPS[0]]
    assert len({folder for _, folder in typed}) == 1 and not typed[0][1].exists()
    costs.run(["recheck"], tmp_path)
    assert "| `viptt summary out.ipynb`<br>prints its table | 3 min | 1.5 GB | 300.0 kB |" in shown()
    assert "| `make recheck`<br>every number again from the predictions | 3 min |" in shown()
    assert "<br>pretraining | not measured |  |  |" in shown() and "Measured on: A, no GPU, Linux, Python" in shown()
    machine["processor"] = "B"
    costs.run(["recheck"], tmp_path)
    assert "<br>prints its table | not measured" in shown()


def test_the_table_of_the_page_is_that_of_the_committed_numbers():
    content = json.loads((ROOT / page.RESULTS / "commands.json").read_text("utf-8"))
    assert (ROOT / page.RESULTS / "commands.md").read_text("utf-8") == costs.table(content)
    assert "```{include} ../benchmarks/results/commands.md\n```" in page_text(ROOT / "book" / "reproduce.md")


def test_what_is_measured_can_be_typed():
    for typed, _ in (each for group in costs.GROUPS for each in group):
        assert not any(fault(words) for words in lines(typed)), typed
