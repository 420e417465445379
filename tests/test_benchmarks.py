"""Benchmarks: references compute what viptt_core computes; the runner loses and invents nothing; the page follows."""

import gzip
import json
import os
import re
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

import benchmarks  # noqa: E402
from benchmarks import Result, Row, Target, inputs, page, reference, rows  # noqa: E402
from benchmarks import __main__ as command  # noqa: E402
from benchmarks import commands as costs  # noqa: E402
from viptt_core.ct import load_volume  # noqa: E402
from viptt_core.errors import DataError  # noqa: E402
from viptt_core.model import ViPTTNet  # noqa: E402
from viptt_core.synthetic.actions import make_clip  # noqa: E402
from viptt_core.synthetic.folders import encode_avi  # noqa: E402
from viptt_core.training import fit  # noqa: E402
from viptt_core.training.device import Engine  # noqa: E402
from viptt_core.video import load_clip  # noqa: E402

# --- References -------------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((40, 40, 20)), 1.5)
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image((-400 + 900 * smooth / smooth.std()).astype(np.int16), np.eye(4)).to_filename(path)
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


@pytest.mark.parametrize("cache", [False, True])
def test_ours_and_the_plain_loop_have_the_same_losses(cache):
    model, clips = ViPTTNet(10, generator=torch.Generator().manual_seed(0)), inputs.noise_clips(2, 2, 32)
    plain = reference.PlainViPTTNet(10).copy_from(model)
    task = inputs.plain_task(clips, 1, frozen=True, batch_size=1, epochs=3)
    with inputs.fresh_cache():
        ours = fit(model, task, engine=Engine("cpu", "fp32", feature_cache=cache))
    assert ours.engine["feature_cache"] is cache
    for epoch in ours.epochs:
        theirs = reference.plain_train_epoch(plain, clips.clips[:1], clips.labels[:1], frozen=True)
        assert [epoch["loss"]] == pytest.approx(theirs, abs=1e-5)
        theirs = reference.plain_validate(plain, clips.clips[1:], clips.labels[1:])
        assert epoch["val_loss"] == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("chunk", [0, 2])
def test_our_step_is_the_plain_step(monkeypatch, chunk):
    monkeypatch.setattr(inputs, "device", lambda: "cpu")
    model, plain = inputs.models()
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
    "ours, theirs, target, values",
    [
        # medians 2 and 20; pair by pair 30, 10, 5
        ([1.0, 2.0, 4.0], [30.0, 20.0, 20.0], Target("at least", 10), (10.0, 5.0, 30.0)),
        # the other way round: 0.1; pairs 1/30, 1/10, 1/5
        ([1.0, 2.0, 4.0], [30.0, 20.0, 20.0], Target("at most", 0.1), (0.1, 1 / 30, 0.2)),
        ([3e9, 5e9, 4e9], [], Target("at most", 4e9, "bytes"), (4e9, 3e9, 5e9)),
        ([1.0, 2.0, 4.0], [], Target(), (2.0, 1.0, 4.0)),
    ],
)
def test_values_by_hand_and_a_bound_that_is_just_reached(ours, theirs, target, values):
    result = Result(ours, theirs, target=target)
    assert result.values() == pytest.approx(values)
    assert result.met is (None if target.value is None else True)
    worse = Target(
        target.kind, target.value and target.value * (1.01 if target.kind == "at least" else 0.99), target.unit
    )
    assert Result(ours, theirs, target=worse).met is (None if target.value is None else False)


def test_ours_and_the_reference_take_turns():
    calls = []
    seconds = benchmarks.alternate(partial(calls.append, "a"), partial(calls.append, "b"), 2, times=2)
    assert "".join(calls) == "ab" + "aabb" * 2  # warm-up, then two measurements of two calls
    assert [len(side) for side in seconds] == [2, 2] and min(map(min, seconds)) >= 0


# Two processes of 60 MB each at one time, the second below the first; both go on until a file is there.
TREE = """
import os, subprocess, sys
held = bytearray(60_000_000)
for i in range(0, len(held), 4096): held[i] = 1
if len(sys.argv) > 1:
    below = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
while not os.path.exists("seen"): pass
if len(sys.argv) > 1: below.wait()
print("end")
"""


def test_memory_of_processes_below_counts(tmp_path, monkeypatch):
    look, looks = benchmarks._memory, []

    def watched(process):
        looks.append(look(process))
        if looks[-1] > 120e6 or len(looks) > 500:  # the second: it never will be
            (tmp_path / "seen").touch()
        return looks[-1]

    monkeypatch.setattr(benchmarks, "_memory", watched)
    monkeypatch.setattr(benchmarks, "EVERY", 0.02)
    seconds, peak, printed = benchmarks.run_process(
        [sys.executable, "-c", TREE, TREE], log=tmp_path / "log", cwd=tmp_path
    )
    assert peak > 120e6 and seconds > 0 and printed == "end\nend\n"


def test_a_failing_command_is_told_with_its_last_words(tmp_path):
    words = [sys.executable, "-c", "print('why'); exit(3)"]
    with pytest.raises(RuntimeError, match="exit code 3: why"):
        benchmarks.run_process(words, log=tmp_path / "log")
    assert benchmarks.run_process(words, log=tmp_path / "log", accept=(3,))[2] == "why\n"


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
        raise benchmarks.NotMeasuredError("no CUDA device on this machine")

    return {
        name: Row(name, f"do {name}", "a loop", Target("at least", 10), function)
        for name, function in (("fast", fast), ("slow", slow), ("absent", absent))
    }


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A root of its own; a machine and a version of the code that a test can change: call it to run the command."""
    machine = dict.fromkeys(benchmarks.describe_machine(), "x") | {"gpu": None, "bf16": True}
    monkeypatch.setattr(command, "describe_machine", lambda: dict(machine))
    monkeypatch.setattr(command, "code_version", lambda: world.code)

    def world(*arguments, calls=None, second=None):
        code = command.main(list(arguments), fake_rows([] if calls is None else calls, second=second), tmp_path)
        path = tmp_path / page.RESULTS / "quick-cpu.json"
        return code, {row.name: row for row in page.read_file(path)["rows"]}

    world.code, world.machine, world.root = "one", machine, tmp_path
    return world


def test_finished_rows_are_kept(world, capsys):
    calls = []
    code, kept = world("--rows", "fast", calls=calls)
    assert code == 0 and kept["fast"].values() == (10.0, 5.0, 30.0) and kept["fast"].met
    assert kept["fast"].settings == {"frames": 16} and kept["fast"].commit and kept["fast"].date
    assert list(world(calls=calls)[1]) == ["fast", "slow", "absent"]
    assert calls == ["fast", "slow"] and "kept from" in capsys.readouterr().out
    world("--rows", "fast", calls=calls)
    assert calls.pop() == "fast" and calls == ["fast", "slow"]
    world.code = "another"  # what older code or another machine gave does not pass for this one's
    assert list(world("--rows", "slow", calls=calls)[1]) == ["slow"]
    world(calls=calls)
    world.machine["threads"] = 7
    assert list(world("--rows", "slow", calls=calls)[1]) == ["slow"]


def test_a_failing_row_is_said_and_loses_nothing(world, capsys):
    calls = []
    code, kept = world("--rows", "slow", "fast", calls=calls, second=OSError("the disk went away"))
    shown = capsys.readouterr()
    assert code == 1 and "failed: OSError: the disk went away" in shown.out and "failed: slow" in shown.err
    assert [kept[name].status for name in ("fast", "slow")] == ["measured", "failed"]
    assert world(calls=calls)[0] == 0 and calls == ["slow", "fast", "slow"]  # mended: only what failed is measured
    shown = capsys.readouterr().out
    assert "3x, target at least 10x: MISSED" in shown and "not measured: no CUDA device on this machine" in shown


def test_an_interruption_keeps_what_is_finished(world, capsys):
    code, kept = world(second=KeyboardInterrupt())
    assert code == 130 and "interrupted" in capsys.readouterr().err and list(kept) == ["fast"]


def test_the_list_and_unknown_rows(capsys):
    assert command.main(["--list"]) == 0
    listed = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(benchmarks.ROWS) and "preprocess_scan" in listed
    with pytest.raises(SystemExit):
        command.main(["--rows", "preproces_scan"])
    assert "preproces_scan" in capsys.readouterr().err


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
    assert (
        "Targets met: 1 of 2 measured. Missed: do slow (3x, target at least 10x). Without a measurement: do absent"
        in text
    )
    assert "Measured on: x, x threads, bf16 units, no GPU" in text and "- do fast: a note." in text
    assert "do fast 10x, at least 10x; do slow 3x, at least 10x." in text  # in words for the chart


def test_results_of_a_gpu_are_a_section_of_their_own(world):
    world()
    world.machine["gpu"] = "Some GPU 80GB"
    world("--rows", "fast", "--profile", "full")
    assert (world.root / page.RESULTS / "full-some-gpu-80gb.json").is_file()
    text = (world.root / page.PAGE).read_text("utf-8")
    assert text.index("### Quick profile, CPU") < text.index("### Full profile, Some GPU 80GB")


@pytest.mark.parametrize(
    "text, what",
    [(None, "is not there"), ("{", "cannot be read"), ("[]", "cannot be read"), ('{"format": 1}', "of this version")],
)
def test_a_missing_or_damaged_file_is_named_with_the_remedy(tmp_path, capsys, text, what):
    if text is not None:
        (tmp_path / page.RESULTS).mkdir(parents=True)
        (tmp_path / page.RESULTS / "quick-cpu.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=what):
        page.write_page(tmp_path)
    assert command.main(["--page"], root=tmp_path) == 2
    told = capsys.readouterr().err
    assert "quick-cpu.json" in told and "make bench" in told


# --- What commands cost -----------------------------------------------------------------------------------
def test_a_checkout_is_clean_and_goes_away():
    if not (ROOT / ".git").exists():
        pytest.skip("no Git here")
    with benchmarks.worktree("HEAD") as folder:
        assert (folder / "viptt_core" / "ct.py").is_file() and not (folder / "_build").exists()
        before = costs.disk_bytes(folder)
        (folder / "runs").mkdir()
        (folder / "runs" / "x").write_bytes(bytes(1000))
        (folder / ".venv").symlink_to(sys.prefix)
        assert costs.disk_bytes(folder) - before == 1000
    assert not folder.exists()


def test_commands_that_are_named_are_measured_with_those_beside_them(monkeypatch, tmp_path, capsys):
    typed, machine = [], {"processor": "A", "gpu": None, "system": "Linux", "python": "3.12", "torch": "2"}
    measured = {"seconds": 200.0, "memory": 1_500_000_000, "disk": 300_000}
    monkeypatch.setattr(costs, "measure", lambda command, folder: typed.append((command.typed, folder)) or measured)
    monkeypatch.setattr(costs, "describe_machine", lambda: dict(machine))
    monkeypatch.setattr(
        benchmarks.subprocess,
        "run",
        lambda arguments, **_: arguments[-2].mkdir(exist_ok=True) if "add" in arguments else None,
    )
    costs.run(["submission"], tmp_path)
    assert [words for words, _ in typed] == [command.typed for command in costs.GROUPS[0]]
    assert len({folder for _, folder in typed}) == 1
    costs.run(["recheck"], tmp_path)
    text = (tmp_path / page.RESULTS / "commands.md").read_text("utf-8")
    assert "| `viptt summary out.ipynb`<br>its table | 3 min | 1.5 GB | < 1 MB |" in text
    assert "| `make recheck`<br>every number again from the predictions | 3 min |" in text
    assert "<br>pretraining | not measured |  |  |" in text and "Measured on: A, no GPU, Linux, Python 3.12" in text
    machine["processor"] = "B"
    costs.run(["recheck"], tmp_path)
    assert "<br>its table | not measured" in (tmp_path / page.RESULTS / "commands.md").read_text("utf-8")


def test_numbers_are_for_people():
    assert [costs.duration(s) for s in (0.2, 89, 90, 4200)] == ["1 s", "89 s", "2 min", "1 h 10 min"]
    assert [costs.size(b) for b in (0, 3e5, 12.4e6, 6e9)] == ["0", "< 1 MB", "12 MB", "6.0 GB"]


def test_the_table_of_the_page_is_that_of_the_committed_numbers():
    content = json.loads((ROOT / page.RESULTS / "commands.json").read_text("utf-8"))
    assert (ROOT / page.RESULTS / "commands.md").read_text("utf-8") == costs.table(content)
    assert "```{include} ../benchmarks/results/commands.md\n```" in page_text(ROOT / "book" / "reproduce.md")


def test_what_is_measured_can_be_typed():
    for command_ in (each for group in costs.GROUPS for each in group):
        assert not any(fault(words) for words in lines(command_.typed)), command_.typed
