"""Weights with their card: what is saved comes back bit for bit; what does not fit is refused with the reason."""

import errno
import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from files import write_noise_scan, write_weights
from keras_reference import write_keras_file
from loopback import file, serve
from safetensors.torch import load_file, save_file
from tracked import tracked_files

from viptt_core import files
from viptt_core.backbones import lite0_file
from viptt_core.cli import main
from viptt_core.constants import TB_CLASSES, UCF_CLASSES
from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.experiment import compare_starts, plan_experiment
from viptt_core.metrics import cohen_kappa
from viptt_core.model import ViPTTNet
from viptt_core.prediction import weights as released
from viptt_core.prediction.scans import predict_scans
from viptt_core.prediction.weights import (
    DEMO,
    get_released,
    import_keras,
    open_weights,
    pack_weights,
    save_weights,
    weights_root,
)
from viptt_core.presets import load_preset
from viptt_core.results import predicted_classes
from viptt_core.splits import make_split
from viptt_core.training.checkpoint import read_tensors
from viptt_core.training.inference import predict_logits

ROOT = Path(__file__).resolve().parents[1]


def small(num_classes=3, **settings):
    return ViPTTNet(num_classes, backbone="small", hidden_size=8, feature_size=6, **settings)


def test_a_disk_that_fills_up_while_weights_are_written_leaves_the_old_files(tmp_path, monkeypatch):
    path = write_weights(tmp_path / "w.safetensors")
    before, card = {p.name: p.read_bytes() for p in tmp_path.iterdir()}, open_weights(path).card
    assert set(before) == {"w.safetensors", "w.json"}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="w.safetensors.*No space left"):
        save_weights(path, small(5), card)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "no whole file of weights"),
        (b"not weights", "no whole file of weights"),
        (None, "no whole file of weights"),
        (b"PK\x03\x04" + bytes(300), "a zip archive, such as a PyTorch file.*Ask for safetensors"),
        (b"\x80\x02}q\x00." + bytes(300), "a Python pickle.*Ask for safetensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(300), "Keras 2 writes.*viptt weights get"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused_and_told_by_its_beginning(tmp_path, content, message):
    path = write_weights(tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(DataError, match=f"w.safetensors.*{message}"):
        open_weights(path)


# --- The card -----------------------------------------------------------------------------------------


def test_save_and_load_give_the_same_logits_bit_for_bit_and_the_card_beside_says_the_same(tmp_path):
    path = write_weights(tmp_path / "w.safetensors")
    first = open_weights(path)
    save_weights(tmp_path / "again.safetensors", first.model(), first.card)
    again = open_weights(tmp_path / "again.safetensors")
    clips = np.random.default_rng(0).integers(0, 256, (3, 6, 16, 16)).astype(np.uint8)
    logits = [predict_logits(weights.model(), clips, np.arange(3), pixel_range="0..1") for weights in (first, again)]
    assert np.array_equal(*logits) and np.ptp(logits[0]) > 1
    assert again.card == first.card and again.sha256 == first.sha256
    beside = json.loads((tmp_path / "w.json").read_text())
    assert beside == json.loads(json.dumps(first.to_dict()))
    assert beside["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert beside["classes"] == list(TB_CLASSES) and beside["architecture"]["backbone"] == "small"
    assert "not a medical device" in beside["use"]


def nested(depth):
    return {"a": nested(depth - 1)} if depth else {}


GONE = object()


@pytest.mark.parametrize(
    "where, value, message",
    [
        ("", "{", "card that cannot be used"),
        ("", "[" * 100_000, "card that cannot be used"),
        ("card", GONE, "there is none"),
        ("card", "text", "there is none"),
        ("card about", GONE, "lacks about"),
        ("card abuot", "", "Did you mean 'about'"),
        ("card format", 9, "format 9, not 1"),
        ("card format", GONE, "format None, not 1"),
        ("card classes", ["a", "b", "c", "d"], "names 4 classes for 5 logits"),
        ("card classes", [1, 2, 3, 4, 5], "different names"),
        ("card data", nested(400), "nested more than 32 deep"),
        ("card training", {"grey_levels": ["dark", "light"]}, "grey_levels"),
        ("card metrics", 3, "metrics"),
        ("card preprocessing", GONE, "lacks preprocessing"),
        ("card preprocessing frames", 0, "frames is 0"),
        ("card preprocessing size", 10**9, "size is 1000000000"),
        ("card preprocessing kind", "x-ray", "kind of input"),
        ("card preprocessing pixel_range", "0..2", "pixel_range"),
        ("card preprocessing orientation", "up", "orientation"),
        ("card preprocessing hu_window", [400, -1000], "hu_window"),
        ("card preprocessing hu_window", [float("nan"), 400], "hu_window"),
        ("architecture", 3, "no architecture"),
        ("architecture hidden_size", 10**9, r"feature.weight is \[8, 8\]"),
        ("architecture backbone", "vgg61", "Did you mean 'vgg16'"),
        ("architecture colour", 1, "colour"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, where, value, message):
    path = write_weights(tmp_path / "w.safetensors")
    path.with_suffix(".json").unlink()
    content = place = json.loads(read_tensors(path)[1]["viptt"])
    *above, last = where.split() or [""]
    for name in above:
        place = place[name]
    place.pop(last, None) if value is GONE else place.update({last: value})
    save_file(load_file(path), path, metadata={"viptt": json.dumps(content) if where else value})
    with pytest.raises(DataError, match=f"w.safetensors: .*{message}"):
        open_weights(path).model()


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    weights = open_weights(write_weights(tmp_path / "w.safetensors"))
    model = weights.model()
    with torch.no_grad():
        model.feature.bias[2] = torch.nan
    save_weights(weights.path, model, weights.card)
    with pytest.raises(DataError, match="not finite, first in 'feature.bias'"):
        open_weights(weights.path)


def test_a_run_saves_a_card_whose_scores_are_those_of_its_predictions(make_clip_set, monkeypatch):
    plan = plan_experiment("study", epochs=2, pretrain_epochs=1, device="cpu", starts="video")
    source = {"set": "phantom", "hu_window": [-1000, 400]}
    scans = make_clip_set(n=40, frames=4, classes=2, synthetic=True, source=source)
    brightness = np.linspace(0, 1, 40)[:, None, None, None]  # the darkest and the brightest are not all in one part
    scans = replace(scans, clips=np.rint(scans.clips[:] * (0.2 + 0.8 * brightness)).astype(np.uint8))
    run = compare_starts(plan, scans, make_clip_set(seed=1), progress=False).runs["video"]
    weights = open_weights(run.folder)
    card = weights.card
    assert open_weights(run.folder.name).sha256 == weights.sha256  # by its name
    assert card.classes == scans.class_names and card.preprocessing.orientation == "canonical"
    assert (card.preprocessing.kind, card.preprocessing.frames, card.preprocessing.size) == ("scan", 4, 16)
    assert card.data["clips"] == {"train": 24, "validation": 8, "test": 8}
    assert card.data["synthetic"] and card.licence == "MIT"
    assert "knows nothing about patients" in card.about and card.made["commit"] == run.provenance["commit"]
    for scores in card.metrics:
        rows = run.predictions[run.predictions["part"] == scores["part"]]
        kappa = cohen_kappa(rows["label"].to_numpy(), predicted_classes(rows))
        assert scores["n"] == len(rows) and scores["kappa"] == pytest.approx(kappa, abs=1e-4)
        assert scores["kappa_low"] <= scores["kappa"] <= scores["kappa_high"]
    assert [scores["part"] for scores in card.metrics] == ["validation", "test"]
    train = make_split(plan.preset.splits, scans, stage="finetune", seed=plan.seed).train
    levels = scans.clips[train].mean(axis=(1, 2, 3)) / 255
    assert card.training["grey_levels"] == pytest.approx([levels.min(), levels.max()], abs=1e-4)


@pytest.mark.parametrize(
    "source, kind, details",
    [
        (
            {"set": "imageclef", "hu_window": [-1000, 400], "orientation": "file"},
            "scan",
            {"orientation": "file", "hu_window": (-1000, 400)},
        ),
        ({"set": "ucf50", "stride": 2, "fit": "crop"}, "video", {"stride": 2, "fit": "crop"}),
        ({"set": "medmnist3d"}, "volume", {}),
    ],
)
def test_the_card_says_how_input_is_prepared(make_clip_set, source, kind, details):
    plan = plan_experiment("study", epochs=1, device="cpu", starts="random")
    clips = make_clip_set(n=30, source=source)
    run = compare_starts(plan, clips, clips, progress=False).runs["random"]
    found = open_weights(run.folder).card.preprocessing
    assert found.kind == kind
    for name, value in details.items():
        assert getattr(found, name) == value


# --- Files that are not as they were written, and references ------------------------------------------


def test_a_flipped_bit_in_the_weights_of_a_run_is_told_by_every_way_of_reading_them(tmp_path, private_root, capsys):
    path = write_weights(private_root / "runs" / "RUN" / "weights.safetensors")
    scan = write_noise_scan(tmp_path / "scan.nii.gz")
    commands = (["predict", str(scan), "--weights", "RUN", "--device", "cpu"], ["weights", "list", "RUN"])
    assert [main(command) for command in commands] == [0, 0]
    assert '"hu_window": [\n   -1000,\n   400' in capsys.readouterr().out  # the card as JSON
    content = bytearray(path.read_bytes())
    content[-2] ^= 0x40
    path.write_bytes(content)
    for command in commands:
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "weights.safetensors: was changed after it was written: weights.json beside it" in said


def test_weights_written_over_others_are_described_by_no_older_json(tmp_path):
    path = write_weights(tmp_path / "w.safetensors")
    write_weights(path, classes=("ill", "well"))
    assert open_weights(path).classes == ("ill", "well")
    assert json.loads(path.with_suffix(".json").read_text())["classes"] == ["ill", "well"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_a_json_beside_weights_that_states_no_checksum_is_refused(tmp_path, content):
    path = write_weights(tmp_path / "w.safetensors")
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(DataError, match=r"w\.(json|safetensors)"):
        open_weights(path)


@pytest.mark.parametrize(
    "reference, message", [("nothing", "viptt weights list"), (".", "holds no weights.safetensors")]
)
def test_a_reference_to_nothing_says_what_to_do(reference, message):
    with pytest.raises(DataError, match=message):
        open_weights(reference)


# --- Weights without their backbone ---------------------------------------------------------------


@pytest.fixture
def frozen(tmp_path):
    """Weights of a network whose backbone is as ImageNet left it."""
    model = ViPTTNet(5, backbone="lite0_3", backbone_weights="IMAGENET", hidden_size=8, feature_size=6, stem="imagenet")
    return write_weights(tmp_path / "w.safetensors", model=model, training={"preset": {"backbone_weights": "IMAGENET"}})


def test_weights_without_their_backbone_are_small_and_give_the_same_logits(frozen, tmp_path, capsys):
    target = tmp_path / "packed.safetensors"
    assert main(["weights", "get", str(frozen), str(target)]) == 0
    assert f"viptt predict SCANS --weights {target}" in capsys.readouterr().out
    assert not any(name.startswith("backbone") for name in load_file(target)) and target.stat().st_size < 50_000
    whole, packed = open_weights(frozen), open_weights(target)
    assert packed.card == replace(whole.card, backbone=packed.card.backbone)
    assert packed.card.backbone["sha256"] == hashlib.sha256(lite0_file().read_bytes()).hexdigest()
    clips = np.random.default_rng(0).integers(0, 256, (2, 6, 32, 32)).astype(np.uint8)
    logits = [predict_logits(each.model(), clips, np.arange(2), pixel_range="0..255") for each in (whole, packed)]
    assert np.array_equal(*logits)


def test_a_backbone_that_was_trained_is_not_left_out(frozen, tmp_path):
    weights = open_weights(frozen)
    model = weights.model()
    with torch.no_grad():
        model.backbone.conv_stem.weight[0] += 1e-6
    save_weights(tmp_path / "trained.safetensors", model, weights.card)
    for path in (tmp_path / "trained.safetensors", write_weights(tmp_path / "small.safetensors")):
        with pytest.raises(SettingError, match=f"backbone of {path.stem} is not the pretrained one"):
            pack_weights(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    "backbone, message",
    [
        ({"weights": "IMAGENET", "sha256": "0"}, "trained on other weights 'IMAGENET' of lite0_3.*SHA-256"),
        ({"weights": "IMAGENET21K", "sha256": "0"}, "leaves out its backbone.*Did you mean 'IMAGENET'"),
        ({"weights": "IMAGENET"}, "says weights and sha256"),
        ({"weights": ["IMAGENET"], "sha256": "0"}, "says weights and sha256"),
    ],
)
def test_a_backbone_that_is_left_out_must_be_the_one_of_the_training(frozen, tmp_path, backbone, message):
    content = json.loads(read_tensors(frozen)[1]["viptt"])
    content["card"]["backbone"] = backbone
    save_file(load_file(frozen), path := tmp_path / "other.safetensors", metadata={"viptt": json.dumps(content)})
    with pytest.raises(DataError, match=f"other.safetensors: .*{message}"):
        open_weights(path)


# --- What comes with the package ---------------------------------------------------------------------


def test_the_demo_weights_are_here_before_anybody_has_trained_and_say_that_they_are_synthetic(capsys):
    assert main(["weights", "list"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("demo-")]
    assert sorted(line.split()[0] for line in listed) == ["demo-synthetic", "demo-synthetic-image"]
    assert all("Synthetic data: it knows nothing about patients" in line for line in listed)
    for name, start in (("demo-synthetic", "video"), ("demo-synthetic-image", "image")):
        weights, preset = open_weights(name), load_preset("demo")
        card = weights.card
        assert weights.synthetic and card.training["start"] == start and weights.classes == TB_CLASSES
        assert (card.preprocessing.frames, card.preprocessing.size) == (preset.frames, preset.size)
        assert card.backbone["weights"] == preset.backbone_weights and card.metrics[-1]["n"] > 0
        assert weights.model().architecture["backbone"] == preset.backbone


def test_the_demo_weights_are_small_and_part_of_the_wheel():
    packed = sorted(DEMO.iterdir())
    assert len(packed) == 4 and sum(path.stat().st_size for path in packed) < 1_000_000
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["*"]  # from the folder of each package, and demo is none
    assert set(packed) <= {path for pattern in patterns for path in DEMO.parent.glob(pattern)}
    assert set(packed) <= set(tracked_files("viptt_core/prediction/demo/*"))


# --- Keras files -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_keras_file_becomes_weights_that_predict_scans(tmp_path, capsys):
    write_keras_file(tmp_path / "tbt.h5", num_classes=5, seed=1)
    target = tmp_path / "tbt.safetensors"
    assert main(["weights", "get", str(tmp_path / "tbt.h5"), str(target)]) == 0
    assert ", ".join(TB_CLASSES) in capsys.readouterr().out
    weights = open_weights(target)
    grid = weights.card.preprocessing
    assert (grid.kind, grid.frames, grid.size, grid.orientation, grid.pixel_range) == ("scan", 70, 224, "file", "0..1")
    assert weights.card.about.endswith("converted from tbt.h5") and not weights.card.metrics
    assert weights.card.made["sha256_of_it"] == hashlib.sha256((tmp_path / "tbt.h5").read_bytes()).hexdigest()
    found = predict_scans(target, write_noise_scan(tmp_path / "scan.nii.gz", shape=(24, 24, 10)), progress=False)
    assert np.isfinite(found.probabilities).all()


def test_the_network_after_videos_is_no_network_for_scans(tmp_path):
    write_keras_file(tmp_path / "ucf.h5", num_classes=10, holes=True)
    weights = import_keras(tmp_path / "ucf.h5", tmp_path / "ucf.safetensors")
    assert weights.classes == UCF_CLASSES and weights.card.preprocessing.pixel_range == "0..255"
    with pytest.raises(DataError, match="was trained on videos.*fine-tuned on CT scans"):
        predict_scans(weights, write_noise_scan(tmp_path / "scan.nii.gz"), progress=False)


def test_a_keras_file_with_other_outputs_than_the_papers_is_refused(tmp_path):
    write_keras_file(tmp_path / "three.h5", num_classes=3, holes=True)
    with pytest.raises(DataError, match="has 3 outputs.*ten activities or five types"):
        import_keras(tmp_path / "three.h5", tmp_path / "out.safetensors")
    with pytest.raises(SettingError, match="does not end in .safetensors"):
        import_keras(tmp_path / "three.h5", tmp_path / "out.pt")


def test_the_authors_weights_are_got_converted_and_kept(tmp_path, monkeypatch, capsys):
    write_keras_file(tmp_path / "ViPTT-Net-CLEF-TBT.h5", num_classes=5, holes=True)
    with serve() as server:
        server.script(file((tmp_path / "ViPTT-Net-CLEF-TBT.h5").read_bytes()))
        monkeypatch.setitem(released.RELEASED, "authors-tbt", f"{server.url}/ViPTT-Net-CLEF-TBT.h5")
        assert main(["weights", "list"]) == 0
        assert "authors-tbt  [viptt weights get authors-tbt]" in capsys.readouterr().out
        assert main(["weights", "get", "authors-tbt"]) == 0
        assert "viptt predict SCANS --weights authors-tbt" in capsys.readouterr().out
        converted = (weights_root() / "authors-tbt.safetensors").stat()
        assert get_released("authors-tbt", progress=False).classes == TB_CLASSES and len(server.paths) == 1
    assert (weights_root() / "authors-tbt.safetensors").stat() == converted  # not written again
    assert open_weights("authors-tbt").card.licence.startswith("That of the Keras file, MIT")
    assert main(["weights", "list"]) == 0
    assert "authors-tbt  [scans, 5 classes]" in capsys.readouterr().out
    assert main(["weights", "get", "authors-tbc"]) == 1
    assert "Did you mean 'authors-tbt'" in capsys.readouterr().err
