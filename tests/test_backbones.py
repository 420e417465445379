"""Backbones: what the table says of each is so, and networks of timm meet pictures as they were trained."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torchvision.models import get_model_weights

from viptt_core.backbones import BACKBONES, find_backbone, imagenet_features
from viptt_core.errors import DataError, SettingError
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, Trainer
from viptt_core.training.device import Engine

STAGE = replace(load_preset("corrected").finetune, epochs=1, batch_size=2, optimiser="sgd", learning_rate=0.01)
STAGE = replace(STAGE, class_weights=False, rotate=False)
SPLIT = Split(train=np.arange(4), validation=np.arange(4, 6), test=np.arange(6, 8))


def build(backbone, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return ViPTTNet(3, backbone=backbone, hidden_size=8, feature_size=6, generator=generator, **settings)


def noise(*shape, seed=1):
    """Blobs of 8 x 8 pixels, 0..255, and some grain: of grain alone all pictures are alike, and normalisation would
    amplify rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    grain, blobs = torch.rand(*shape, generator=generator), torch.rand(*shape, generator=generator)[..., ::8, ::8]
    blobs = blobs.repeat_interleave(8, -1).repeat_interleave(8, -2)
    return (0.1 * grain + 0.9 * blobs) * 255


@pytest.mark.parametrize("name", BACKBONES)
def test_the_registry_says_the_width(name):
    model = build(name).eval()
    assert model.temporal.input_size == BACKBONES[name].width
    with torch.no_grad():
        clips = noise(2, 2, 32, 32)
        assert model.features(clips).shape == (2, 2, BACKBONES[name].width)
        assert model(clips).shape == (2, 3)


def test_weights_have_the_names_and_the_scale_torchvision_gives_them():
    facts, members = BACKBONES["vgg16"], get_model_weights("vgg16")
    assert set(facts.weights) == {member.name for member in members}
    for member in members:  # torchvision publishes the first eight digits of the SHA-256 in the name of the file
        assert facts.weights[member.name].startswith(member.url.rsplit("-", 1)[1].removesuffix(".pth"))
        assert len(facts.weights[member.name]) in (8, 64)
    transforms = members[list(facts.weights)[-1]].transforms()
    assert facts.means == pytest.approx([255 * value for value in transforms.mean], abs=0.01)
    assert facts.deviations == pytest.approx([255 * value for value in transforms.std], abs=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_bytes_of_a_pixel_are_those_that_autograd_keeps(name):
    model, kept = build(name).train(), []
    for frames in (8, 16):  # weights are kept once, however many frames
        sizes = {}

        def note(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()  # an output that its own graph holds would never be freed

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            features = model.features(noise(1, frames, 64, 64))
        assert features.requires_grad
        kept.append(sum(sizes.values()))
    assert BACKBONES[name].kept_bytes == pytest.approx((kept[1] - kept[0]) / (8 * 64 * 64), rel=0.01)


def test_training_draws_nothing_from_the_global_generator_and_statistics_are_those_of_the_batch():
    statistics = []
    for chunk in (0, 1):
        model = build("lite0_3")
        model.frames_per_chunk = chunk
        before = torch.get_rng_state()
        assert model.train().updates_statistics
        model(noise(2, 4, 32, 32)).sum().backward()
        assert torch.equal(torch.get_rng_state(), before)  # else a resumed training would not end as an unbroken one
        statistics.append(torch.cat([values.flatten() for values in model.backbone.buffers()]))
        model.backbone.eval()
        assert not model.updates_statistics
    assert torch.equal(*statistics)


def test_a_training_epoch_moves_the_weights_and_statistics_of_a_backbone_that_learns(make_clip_set):
    model, clips = build("lite0_3", stem="imagenet"), make_clip_set(n=8, frames=4, size=32, classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    history = Trainer(model, Task(clips, SPLIT, STAGE), engine=Engine(device="cpu", precision="fp32")).run()
    assert np.isfinite(history.epochs[0]["loss"])
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"stem.weight", "classifier.weight"} <= moved
    in_backbone = {key for key in moved if key.startswith("backbone.")}
    assert any("running_mean" in key for key in in_backbone) and any(key.endswith("weight") for key in in_backbone)


@pytest.mark.parametrize(
    "backbone, weights, hint", [("lite0", "IMAGENET1K_FEATURES", "IMAGENET"), ("small", "IMAGENET1K_V1", "small")]
)
def test_weights_of_another_backbone_are_refused(backbone, weights, hint):
    with pytest.raises(SettingError, match=hint):
        build(backbone, backbone_weights=weights)


# --- Networks of timm ------------------------------------------------------------------------------------------------

TINY = "timm:test_efficientnet"  # 100,000 weights


@pytest.fixture
def hub(monkeypatch):
    """Stands for the hub: gives a file, or raises."""
    asked, answer = [], {}

    def download(repository, file, **_):
        asked.append((repository, file))
        if "error" in answer:
            raise answer["error"]
        return str(answer["file"])

    monkeypatch.setattr("viptt_core.backbones.by_timm.hf_hub_download", download)
    answer["asked"] = asked
    return answer


def test_a_network_of_timm_gives_its_features_normalised_as_it_was_trained():
    model, clips = build(TINY, stem="imagenet").eval(), noise(2, 3, 64, 64)
    theirs = timm.create_model("test_efficientnet", num_classes=0).eval()
    theirs.load_state_dict(model.backbone.state_dict())
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = theirs(((clips / 255).reshape(6, 1, 64, 64).repeat(1, 3, 1, 1) - mean) / std).reshape(2, 3, -1)
        torch.testing.assert_close(model.features(clips), expected, atol=1e-4, rtol=1e-4)
    assert find_backbone(TINY).width == expected.shape[-1] == 256
    assert torch.equal(build(TINY).backbone.conv_stem.weight, model.backbone.conv_stem.weight)  # the seed's
    assert not torch.equal(build(TINY, seed=1).backbone.conv_stem.weight, model.backbone.conv_stem.weight)


def test_its_weights_come_from_the_hub_as_safetensors_only(hub, tmp_path):
    theirs = timm.create_model("test_efficientnet")
    hub["file"] = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), hub["file"])
    model = build(TINY, backbone_weights="pretrained")
    assert hub["asked"] == [("timm/test_efficientnet.r160_in1k", "model.safetensors")]
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])
    hub["file"].write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match="model.safetensors.*something else than weights"):
        build(TINY, backbone_weights="pretrained")


def test_weights_that_cannot_be_had_say_why(hub):
    hub["error"] = LocalEntryNotFoundError("no connection")
    with pytest.raises(DataError, match="could not be downloaded.*no connection.*Connect"):
        imagenet_features("pretrained", TINY)
    hub["error"] = EntryNotFoundError("404")
    with pytest.raises(DataError, match="timm/test_efficientnet.*holds no model.safetensors"):
        imagenet_features("pretrained", TINY)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_a_network_without_a_feature_map_is_refused_by_name(name):
    with pytest.raises(SettingError, match=f"timm:{name}.*no feature map.*convolutional"):
        build(f"timm:{name}")


def test_a_network_that_timm_does_not_have_is_refused():
    with pytest.raises(SettingError, match="no network 'resnt18'.*timm:resnet18"):
        find_backbone("timm:resnt18")
    with pytest.raises(SettingError, match="no network 'hf-hub:a/b'"):
        find_backbone("timm:hf-hub:a/b")


def test_training_a_network_of_timm_draws_nothing_from_the_global_generator():
    model, before = build(TINY).train(), torch.get_rng_state()
    model(noise(2, 2, 32, 32)).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
