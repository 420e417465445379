"""Backbones: each equals torchvision's own network on the same input, and meets it as it was trained."""

import pickle
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model, get_model_weights

from viptt_core.backbones import BACKBONES, find_backbone, imagenet_features
from viptt_core.errors import DataError, SettingError
from viptt_core.files import file_digest
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, fit
from viptt_core.training.device import Engine

CPU = torch.device("cpu")
NEW = ("efficientnet_b3", "r3d_18")
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


def theirs(backbone, model):
    """torchvision's own network with our weights, in evaluation mode."""
    with torch.device("meta"):  # takes no memory: the weights are ours, the head has none
        network = get_model(backbone).eval()
    facts = BACKBONES[backbone]
    named = {facts.prefix + name: tensor for name, tensor in model.backbone.state_dict().items()}
    missing, unexpected = network.load_state_dict(named, strict=False, assign=True)
    assert not unexpected and all(name.startswith(facts.head) for name in missing)
    return network


def settle(model, momentum=0.1):
    """Statistics of normalisation part of the way to those of data; with the first ones hardly anything gets through.

    All the way, rounding is amplified by so many layers of so few cells.
    """
    normalisations = [part for part in model.backbone.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for part in normalisations:
        part.momentum = momentum
    with torch.no_grad():
        for seed in (3, 4):
            model.train()(noise(2, 9, 64, 64, seed=seed))
    for part in normalisations:
        part.momentum = 0.1
    return model.eval()


@pytest.fixture(scope="module")
def models():
    return {name: settle(build(name, seed=2, stem="imagenet")) for name in NEW}


@pytest.mark.parametrize("name", BACKBONES)
def test_the_registry_says_the_width_and_the_number_of_steps(name):
    model = build(name).eval()
    assert model.temporal.input_size == BACKBONES[name].width
    with torch.no_grad():
        for frames in (1, 2, 9) if BACKBONES[name].sees_clips else (2,):
            clips = noise(2, frames, 32, 32)
            assert model.features(clips).shape == (2, BACKBONES[name].steps(frames), BACKBONES[name].width)
            assert model(clips).shape == (2, 3)


@pytest.mark.parametrize("name", ["vgg16", "efficientnet_b3", "r3d_18"])
def test_weights_have_the_names_and_the_scale_torchvision_gives_them(name):
    facts, members = BACKBONES[name], get_model_weights(name)
    assert set(facts.weights) == {member.name for member in members}
    for member in members:  # torchvision publishes the first eight digits of the SHA-256 in the name of the file
        assert facts.weights[member.name].startswith(member.url.rsplit("-", 1)[1].removesuffix(".pth"))
        assert len(facts.weights[member.name]) in (8, 64)
    transforms = members[list(facts.weights)[-1]].transforms()
    assert facts.means == pytest.approx([255 * value for value in transforms.mean], abs=0.01)
    assert facts.deviations == pytest.approx([255 * value for value in transforms.std], abs=1e-4)


def test_efficientnet_sees_each_frame_normalised_as_in_torchvision(models):
    model, clips = models["efficientnet_b3"], noise(2, 3, 64, 64)
    network, transforms = theirs("efficientnet_b3", model), get_model_weights("efficientnet_b3").DEFAULT.transforms()
    pictures = (clips / 255).reshape(6, 1, 64, 64).repeat(1, 3, 1, 1)
    pictures = (pictures - torch.tensor(transforms.mean).view(3, 1, 1)) / torch.tensor(transforms.std).view(3, 1, 1)
    network.classifier = nn.Identity()
    torch.testing.assert_close(model.stem(clips.reshape(6, 1, 64, 64)), pictures, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        expected, features = network(pictures).reshape(2, 3, 1536), model.features(clips)
    assert expected.std() > 0.01
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)


def test_r3d_sees_the_whole_clip_normalised_as_in_torchvision(models):
    model, clips = models["r3d_18"], noise(2, 17, 48, 48)
    network, transforms = theirs("r3d_18", model), get_model_weights("r3d_18").DEFAULT.transforms()
    pictures = (clips / 255).unsqueeze(1).repeat(1, 3, 1, 1, 1)
    means, deviations = (torch.tensor(values).view(3, 1, 1, 1) for values in (transforms.mean, transforms.std))
    network.fc, network.avgpool = nn.Identity(), nn.AdaptiveAvgPool3d((None, 1, 1))
    with torch.no_grad():
        expected = network((pictures - means) / deviations).reshape(2, 512, 3)  # flattened from [B, F, T', 1, 1]
        features = model.features(clips)
    assert expected.std() > 0.01 and (expected[..., 0] - expected[..., 1]).abs().max() > 0.01
    torch.testing.assert_close(features, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NEW)
def test_the_seed_decides_the_weights_and_the_global_generator_stays(name):
    before = torch.get_rng_state()
    weights = []
    for seed in (3, 3, 4):
        backbone = BACKBONES[name].build(torch.Generator().manual_seed(seed))
        weights.append(next(weight for weight in backbone.parameters() if weight.ndim > 3).detach().clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("chunk, entries", [(0, [2, 1]), (1, [1, 1, 1]), (17, [1, 1, 1]), (18, [2, 1]), (99, [3])])
def test_chunks_never_cut_a_clip_that_is_seen_whole(models, monkeypatch, chunk, entries):
    monkeypatch.setattr("viptt_core.model.INFERENCE_CHUNK", 26)  # two clips of nine frames, not three
    model, clips, seen = models["r3d_18"], noise(3, 9, 32, 32), []
    with torch.no_grad():
        alone = torch.cat([model.features(clip[None]) for clip in clips])
    hook = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    model.frames_per_chunk = chunk
    try:
        with torch.no_grad():
            features = model.features(clips)
    finally:
        hook.remove()
        model.frames_per_chunk = 0
    assert seen == [(n, 3, 9, 32, 32) for n in entries]
    torch.testing.assert_close(features, alone, atol=1e-5, rtol=1e-5)


def test_gradients_through_chunks_of_clips_are_those_of_the_batch(models):
    # In double precision: rounding decides which of so many ReLUs are on.
    model, clips, gradients = deepcopy(models["r3d_18"]).double(), noise(2, 9, 32, 32).double(), []
    model.backbone.requires_grad_(False)
    for chunk in (0, 9):
        model.frames_per_chunk = chunk
        model.zero_grad()
        model.features(clips).square().sum().backward()
        gradients.append(model.stem.weight.grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-8, atol=0)


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


@pytest.mark.parametrize("name, frozen", [("efficientnet_b3", False), ("r3d_18", True)])
def test_a_training_epoch_moves_what_it_may(make_clip_set, name, frozen):
    model = settle(build(name, stem="imagenet"), momentum=1.0)
    clips = make_clip_set(n=8, frames=4, size=32, classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    history = fit(
        model, Task(clips, SPLIT, replace(STAGE, freeze_backbone=frozen)), engine=Engine(device="cpu", precision="fp32")
    )
    assert np.isfinite(history.epochs[0]["loss"])
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"stem.weight", "classifier.weight"} <= moved
    in_backbone = {key for key in moved if key.startswith("backbone.")}
    if frozen:
        assert not in_backbone  # nor the statistics of its normalisation
    else:
        assert any("running_mean" in key for key in in_backbone) and any(key.endswith("weight") for key in in_backbone)


@pytest.mark.parametrize("name", NEW)
def test_training_draws_nothing_from_the_global_generator_and_statistics_are_those_of_the_batch(name):
    statistics = []
    for chunk in (0, 1):
        model = build(name)
        model.frames_per_chunk = chunk
        before = torch.get_rng_state()
        assert model.train().updates_statistics
        model(noise(2, 4, 32, 32)).sum().backward()
        assert torch.equal(torch.get_rng_state(), before)  # else a resumed training would not end as an unbroken one
        statistics.append(torch.cat([values.flatten() for values in model.backbone.buffers()]))
        model.backbone.eval()
        assert not model.updates_statistics
    assert torch.equal(*statistics)


def test_published_weights_fill_the_backbone_unless_a_bit_flips(models, tmp_path, monkeypatch):
    name, weights = "efficientnet_b3", "IMAGENET1K_V1"
    state = {BACKBONES[name].prefix + key: tensor for key, tensor in models[name].backbone.state_dict().items()}
    state[f"{BACKBONES[name].head}weight"] = torch.zeros(1)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / get_model_weights(name)[weights].url.rsplit("/", 1)[1]
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    monkeypatch.setitem(BACKBONES[name].weights, weights, file_digest(path, "sha256"))
    model = build(name, seed=9, backbone_weights=weights)
    for key, value in models[name].backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value)
    with open(path, "r+b") as file:
        file.seek(1_000_000)
        (byte,) = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("opened before its checksum was compared"))
    with pytest.raises(DataError, match=f"{path.name}.*SHA-256"):  # at every use, not only while downloading
        imagenet_features(weights, name)


@pytest.mark.parametrize(
    "backbone, weights, hint",
    [
        ("efficientnet_b3", "IMAGENET1K_FEATURES", "IMAGENET1K_V1"),
        ("r3d_18", "IMAGENET1K_V1", "KINETICS400_V1"),
        ("small", "IMAGENET1K_V1", "small"),
    ],
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
