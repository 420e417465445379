"""Benchmarks: the references compute what viptt_core computes, and the harness loses and invents nothing."""

import gzip
import json
import sys
from functools import partial
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `benchmarks` is not installed: it belongs to the checkout
    sys.path.insert(0, str(ROOT))

import benchmarks  # noqa: E402
from benchmarks import __main__ as command  # noqa: E402
from benchmarks import reference, rows  # noqa: E402
from viptt_core.ct import load_volume  # noqa: E402
from viptt_core.model import ViPTTNet  # noqa: E402
from viptt_core.synthetic.actions import make_clip  # noqa: E402
from viptt_core.synthetic.folders import encode_avi  # noqa: E402
from viptt_core.video import load_clip  # noqa: E402

# --- References -------------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((40, 40, 20)), 1.5)
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image((-400 + 900 * smooth / smooth.std()).astype(np.int16), np.eye(4)).to_filename(path)
    return path


@pytest.fixture(scope="module")
def networks():
    """A ViPTTNet, the plain model with the same weights, and two clips."""
    model = ViPTTNet(3, generator=torch.Generator().manual_seed(0))
    plain = reference.PlainViPTTNet(3).copy_from(model)
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    return model, plain, clips, np.array([2, 0])


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


def test_bare_decompression_reads_all(scan):
    assert reference.bare_decompression(scan) == len(gzip.decompress(scan.read_bytes()))


def test_the_opencv_loop_agrees_with_ours(tmp_path):
    path = tmp_path / "clip.avi"
    path.write_bytes(encode_avi(make_clip(0, 1, 1, frames=6)))
    theirs = reference.opencv_clip(path, frames=5, size=64)
    assert np.array_equal(theirs, reference.opencv_clip(path, frames=5, size=64, threads=1))
    assert np.abs(theirs.astype(int) - load_clip(path, frames=5, size=64)).mean() < 1
    with pytest.raises(ValueError, match="6 frames, 7 are needed"):
        reference.opencv_clip(path, frames=7)


def test_the_plain_network_computes_the_same(networks):
    model, plain, clips, _ = networks
    pixels = torch.from_numpy(clips).float() / 255
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels), model(pixels), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_plain_step_changes_the_same_weights(networks, frozen):
    model, plain, clips, labels = networks
    plain.copy_from(model)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    lr = 0.1  # large, so that a missing gradient would be seen
    losses = reference.plain_train_epoch(plain, clips, labels, batch_size=2, lr=lr, frozen=frozen)
    model.stem.requires_grad_(not frozen)
    model.backbone.requires_grad_(not frozen)
    loss = F.cross_entropy(model(torch.from_numpy(clips).float() / 255), torch.from_numpy(labels))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    changes = zip(trained, torch.autograd.grad(loss, trained), strict=True)
    with torch.no_grad():
        for weight, gradient in changes:
            weight -= lr * gradient
    assert losses == pytest.approx([loss.item()], abs=1e-5)
    pairs = reference.paired_weights(plain, model)
    assert {name for name, _, _ in pairs} == set(start)
    for name, mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0, msg=name)
        still = frozen and name.startswith(("stem.", "backbone."))
        if still or name.startswith("classifier."):
            assert torch.equal(theirs, start[name]) == still, name
    assert not plain.lstm.bias_hh_l0.any()


class Tiny(torch.nn.Module):
    """Brightness -> logits [B,2]; stands in for the network where only the loop is tested."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)

    def freeze(self, frozen):
        self.frozen = frozen

    def forward(self, clips):
        return self.layer(clips.mean(dim=(1, 2, 3))[:, None])


def test_plain_fit_trains_and_validates_each_epoch():
    clips = np.zeros((3, 2, 4, 4), np.uint8)
    clips[1] = 255
    labels, model = np.array([0, 1, 0]), Tiny()
    history = reference.plain_fit(model, (clips, labels), (clips, labels), epochs=30, frozen=True, batch_size=2, lr=0.5)
    assert model.frozen and len(history.losses) == len(history.val_losses) == 30
    # Zero weights: log 2 a clip in the first step, and validation after the epoch is already better.
    assert history.val_losses[0] < np.log(2) and history.val_losses[-1] < history.val_losses[0]
    assert reference.plain_validate(Tiny(), clips, labels) == pytest.approx(np.log(2), abs=1e-6)
    assert reference.plain_validate(model, clips, labels, batch_size=2) == pytest.approx(history.val_losses[-1])


def test_plain_prediction_of_a_folder(scan):
    prepare = partial(reference.authors_preprocess, depth=3, size=8)
    probabilities = reference.plain_predict_folder(Tiny(), [scan, scan], preprocess=prepare)
    np.testing.assert_allclose(probabilities, np.full((2, 2), 0.5))


def test_the_references_do_not_import_viptt_core():
    assert "viptt_core" not in {
        line.split()[1].split(".")[0]
        for line in Path(reference.__file__).read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(("import ", "from "))
    }


# --- Files to measure on ----------------------------------------------------------------------------------
def test_noise_is_measured_in_soft_tissue_only():
    rng = np.random.default_rng(0)
    hu = np.full((40, 40, 20), -1000.0)  # silent air around it
    hu[10:30, 10:30] = rng.normal(0, 20, (20, 20, 20))
    assert rows.noise_sd(hu.astype(np.int16)) == pytest.approx(20, rel=0.05)


def test_the_cache_of_the_reader_is_left_alone(monkeypatch):
    import os

    monkeypatch.setenv("VIPTT_CACHE", "before")
    with rows.fresh_cache() as folder:
        assert os.environ["VIPTT_CACHE"] == str(folder) and folder.is_dir()
    assert os.environ["VIPTT_CACHE"] == "before" and not folder.exists()


# --- Rows that run the network ----------------------------------------------------------------------------
@pytest.mark.parametrize("cache", [False, True])
def test_ours_and_the_plain_loop_have_the_same_losses(cache):
    from viptt_core.training import Task, fit
    from viptt_core.training.device import Engine

    model, clips = ViPTTNet(10, generator=torch.Generator().manual_seed(0)), rows.noise_clips(3, 2, 32)
    plain, split = reference.PlainViPTTNet(10).copy_from(model), rows.first_and_last(2, 1)
    stage = rows.plain_stage(frozen=True, batch_size=2, epochs=3)  # all clips in a batch: their order does not matter
    with rows.fresh_cache():
        ours = fit(model, Task(clips, split, stage), engine=Engine("cpu", "fp32", feature_cache=cache))
    parts = [(clips.clips[part], clips.labels[part]) for part in (split.train, split.validation)]
    theirs = reference.plain_fit(plain, *parts, epochs=3, frozen=True, batch_size=2)
    assert ours.engine["feature_cache"] is cache
    assert [epoch["loss"] for epoch in ours.epochs] == pytest.approx(theirs.losses, abs=1e-5)
    assert [epoch["val_loss"] for epoch in ours.epochs] == pytest.approx(theirs.val_losses, abs=1e-5)


@pytest.mark.parametrize("chunk", [0, 2])
def test_our_step_is_the_plain_step(monkeypatch, chunk):
    monkeypatch.setattr(rows, "_device", lambda: "cpu")
    model, plain = rows.models()
    start = [weight.detach().clone() for weight in model.parameters()]
    clips = rows.noise_clips(2, 3, 32)
    loss = rows.full_step(model, clips, precision="fp32", chunk=chunk)()
    optimiser = reference.plain_optimiser(plain.train())
    assert float(loss) == pytest.approx(reference.plain_step(plain, optimiser, clips.clips, clips.labels), abs=1e-5)
    for (name, mine, theirs), before in zip(reference.paired_weights(plain, model), start, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0, msg=name)
        assert not torch.equal(theirs, before), name


def test_operations_are_counted_as_by_hand():
    # VGG16: (height and width as shares of the frame's, channels in, channels out) of its 3 x 3 convolutions
    layers = [
        (1, 3, 64),
        (1, 64, 64),
        (2, 64, 128),
        (2, 128, 128),
        (4, 128, 256),
        (4, 256, 256),
        (4, 256, 256),
        (8, 256, 512),
        (8, 512, 512),
        (8, 512, 512),
        (16, 512, 512),
        (16, 512, 512),
        (16, 512, 512),
    ]
    by_hand = sum(2 * 9 * before * after * (32 // share) ** 2 for share, before, after in layers)
    stem = 2 * 3 * 32**2
    assert rows.step_flops(5, 32) == 3 * 5 * (by_hand + stem)


def test_the_code_of_a_row_includes_what_it_uses():
    source = benchmarks._source_with_helpers(rows.finetune_memory)
    for part in ("def step_memory", "def prepare_step", "def full_step", "def noise_clips", "CHUNK: 10"):
        assert part in source, part
    assert "def launch" not in source


# --- Arithmetic -------------------------------------------------------------------------------------------
def test_ratios_by_hand():
    ours, theirs = [1.0, 2.0, 4.0], [30.0, 20.0, 20.0]
    # medians 2 and 20; pair by pair 30, 10, 5
    assert benchmarks.summarise(ours, theirs, benchmarks.at_least(10)) == (10.0, 5.0, 30.0)
    # the other way round: 0.1; pairs 1/30, 1/10, 1/5
    assert benchmarks.summarise(ours, theirs, benchmarks.at_most(2.5)) == pytest.approx((0.1, 1 / 30, 0.2))
    assert benchmarks.summarise([3e9, 5e9, 4e9], [], benchmarks.at_most(4e9, "bytes")) == (4e9, 3e9, 5e9)
    assert benchmarks.summarise(ours, [], benchmarks.NO_TARGET) == (2.0, 1.0, 4.0)
    assert benchmarks.summarise([0.4, 0.5, 0.6], [], benchmarks.at_least(0.5, "of the rate")) == (0.5, 0.4, 0.6)


def test_a_bound_counts_as_met():
    assert benchmarks.at_least(10).met(10.0) is True and benchmarks.at_least(10).met(9.99) is False
    assert benchmarks.at_most(2.5).met(2.5) is True and benchmarks.at_most(2.5).met(2.51) is False
    assert benchmarks.NO_TARGET.met(1.0) is None


def test_ours_and_the_reference_take_turns():
    calls = []
    seconds = benchmarks.alternate(partial(calls.append, "a"), partial(calls.append, "b"), 2, times=2)
    assert "".join(calls) == "ab" + "aabb" * 2  # warm-up, then two measurements of two calls
    assert [len(side) for side in seconds] == [2, 2] and min(map(min, seconds)) >= 0


HOLD_MEMORY = """
import numpy as np

def hold_memory(megabytes):
    wasted = np.ones(200 << 17)  # 200 MiB while preparing, which must not count
    del wasted
    return lambda: float(np.ones(megabytes << 17).sum())  # 2^17 float64 are 1 MiB
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak can be started anew on Linux only")
def test_memory_is_that_of_the_work_in_a_fresh_process(monkeypatch, tmp_path):
    (tmp_path / "light_work.py").write_text(HOLD_MEMORY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ballast = np.ones(300 << 17)  # the parent's memory must not count either
    memory = benchmarks.memory_of("light_work:hold_memory", megabytes=100)
    assert memory.result == 100 << 17 and ballast.any()
    assert 95 << 20 < memory.extra_bytes < 130 << 20
    assert memory.extra_bytes < memory.peak_bytes < 250 << 20 and memory.seconds > 0
    with pytest.raises(RuntimeError, match="no_such_function"):
        benchmarks.memory_of("light_work:no_such_function")


# --- Rows, the results file, the command --------------------------------------------------------------------
def fake_rows(calls, *, broken=False):
    def fast(profile):
        calls.append("fast")
        return benchmarks.Comparison(
            [1.0, 2.0, 4.0], [30.0, 20.0, 20.0], {"frames": profile.frames}, ["a note"], series=[("clips", 2, 0.5)]
        )

    def second(profile):
        calls.append("second")
        if broken:
            raise OSError("the disk went away")
        return benchmarks.Comparison([1.0], [3.0])

    def gpu_row(profile):
        calls.append("gpu_row")
        return benchmarks.Comparison([1.0], [3.0])

    functions = ((fast, False), (second, False), (gpu_row, True))
    return {
        function.__name__: benchmarks.Row(function.__name__, "ours", "theirs", benchmarks.at_least(10), function, gpu)
        for function, gpu in functions
    }


@pytest.fixture
def small_world(monkeypatch):
    """No hashing of sources, a fixed machine without a GPU."""
    monkeypatch.setattr(benchmarks, "_measured_code", lambda: "one state of the code")
    monkeypatch.setattr(benchmarks, "_why_no_gpu", lambda: "no CUDA device on this machine")
    machine = {"cpu": "A", "cores": 2, "threads": 2, "torch": "2", "gpu": None}
    monkeypatch.setattr(command, "describe_machine", lambda: dict(machine))
    return machine


def test_a_record_survives_the_file(small_world, tmp_path):
    rows_here = fake_rows([])
    path, records = command.run(rows_here, ["fast"], "quick", folder=tmp_path)
    assert path == tmp_path / "quick-cpu.json"
    assert command.read_records(path, small_world) == {"fast": records[0]}
    record = json.loads(path.read_text())["rows"][0]
    assert (record["value"], record["low"], record["high"], record["met"]) == (10.0, 5.0, 30.0, True)
    assert record["ours"] == [1.0, 2.0, 4.0] and record["settings"] == {"frames": 16} and record["notes"] == ["a note"]
    assert record["series"] == [["clips", 2, 0.5]] and record["commit"] and record["date"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["quick-cpu.json"]  # nothing half-written beside it


def test_finished_rows_are_kept(small_world, tmp_path, capsys, monkeypatch):
    calls, arguments = [], ["--results", str(tmp_path)]
    assert command.main([*arguments, "--rows", "fast"], fake_rows(calls)) == 0
    assert command.main(arguments, fake_rows(calls)) == 0
    assert calls == ["fast", "second"] and "kept from" in capsys.readouterr().out
    assert command.main([*arguments, "--rows", "fast", "--again"], fake_rows(calls)) == 0
    assert calls == ["fast", "second", "fast"]
    names = [row["name"] for row in json.loads((tmp_path / "quick-cpu.json").read_text())["rows"]]
    assert names == ["fast", "second", "gpu_row"]
    monkeypatch.setattr(benchmarks, "_measured_code", lambda: "another state")
    assert command.main([*arguments, "--rows", "second"], fake_rows(calls)) == 0
    assert calls[3:] == ["second"]
    names = [row["name"] for row in json.loads((tmp_path / "quick-cpu.json").read_text())["rows"]]
    assert names == ["second"]  # what older code gave does not pass for this code's
    small_world["cpu"] = "B"
    monkeypatch.setattr(command, "describe_machine", lambda: dict(small_world))
    assert command.main([*arguments, "--rows", "second"], fake_rows(calls)) == 0
    assert calls[4:] == ["second"]


def test_a_failing_row_is_said_and_loses_nothing(small_world, tmp_path, capsys):
    calls, arguments = [], ["--results", str(tmp_path)]
    assert command.main([*arguments, "--rows", "second", "fast"], fake_rows(calls, broken=True)) == 1
    shown = capsys.readouterr()
    assert "failed: OSError: the disk went away" in shown.out and "failed: second" in shown.err
    found = {row["name"]: row for row in json.loads((tmp_path / "quick-cpu.json").read_text())["rows"]}
    assert found["fast"]["status"] == "measured" and found["second"]["status"] == "failed"
    assert command.main(arguments, fake_rows(calls)) == 0  # mended: only what failed is measured
    assert calls == ["second", "fast", "second"]


def test_a_missed_target_is_no_error(small_world, tmp_path, capsys):
    assert command.main(["--results", str(tmp_path), "--rows", "second"], fake_rows([])) == 0
    shown = capsys.readouterr().out
    assert "3x (3x to 3x), target at least 10x: MISSED" in shown and "target missed: second" in shown


def test_a_target_may_depend_on_the_machine(small_world):
    def fits(profile):
        return benchmarks.Comparison([1.0], [3.0], target=benchmarks.at_least(2))

    record = benchmarks.Row("fits", "", "", benchmarks.at_least(10), fits).measure(benchmarks.PROFILES["quick"])
    assert record.met and record.target == benchmarks.at_least(2)


def test_gpu_rows_say_why_they_are_not_measured(small_world, tmp_path, capsys):
    calls = []
    assert command.main(["--results", str(tmp_path), "--rows", "gpu_row"], fake_rows(calls)) == 0
    assert not calls and "not measured: no CUDA device on this machine" in capsys.readouterr().out


def test_interrupted(small_world, tmp_path, capsys):
    def interrupt(profile):
        raise KeyboardInterrupt

    with_stop = fake_rows([]) | {"stop": benchmarks.Row("stop", "", "", benchmarks.NO_TARGET, interrupt)}
    assert command.main(["--results", str(tmp_path), "--rows", "fast", "stop"], with_stop) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [row["name"] for row in json.loads((tmp_path / "quick-cpu.json").read_text())["rows"]] == ["fast"]


def test_the_list_and_unknown_rows(capsys):
    assert command.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(benchmarks.ROWS) and "preprocess_scan" in listed
    assert command.main(["--rows", "preproces_scan"]) == 2
    assert "no row is named preproces_scan" in capsys.readouterr().err


def test_registered_rows_are_written_and_have_a_reference():
    for name, row in benchmarks.ROWS.items():
        assert row.function.__doc__ and row.reference and row.title, name
        assert "NotImplementedError" not in row.function.__code__.co_names, name
    with pytest.raises(ValueError, match="two rows"):
        benchmarks.row("again", reference="itself")(rows.preprocess_scan)


def test_results_of_a_gpu_have_a_file_of_their_own(tmp_path):
    assert command.results_path(tmp_path, "full", {"gpu": "NVIDIA H100 80GB HBM3"}).name == (
        "full-nvidia-h100-80gb-hbm3.json"
    )


def test_the_machine_is_described():
    machine = benchmarks.describe_machine()
    assert machine["cpu"] and machine["cores"] >= 1 and machine["threads"] >= 1
    assert json.loads(json.dumps(machine)) == machine
    assert cv2.getNumThreads() >= 1
