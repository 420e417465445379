"""Backbones: each equals torchvision's own network on the same input, and meets it as it was trained."""

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from viptt_core.backbones import BACKBONES, imagenet_features
from viptt_core.errors import DataError, SettingError
from viptt_core.files import file_digest
from viptt_core.model import ViPTTNet, count_parameters
from viptt_core.presets import Stage
from viptt_core.splits import Split
from viptt_core.study.evidence import grad_cam, slice_importance
from viptt_core.training import Task, fit
from viptt_core.training.device import Engine, activation_bytes, pick_chunk, pick_precision
from viptt_core.training.inference import cached_features, frame_features, predict_logits

CPU = torch.device("cpu")
NEW = ("efficientnet_b3", "r3d_18")
STAGE = Stage(
    epochs=1,
    batch_size=2,
    optimiser="sgd",
    learning_rate=0.01,
    freeze_backbone=False,
    freeze_stem=False,
    class_weights=False,
    rotate=False,
    pixel_range="0..255",
    shuffle="samples",
    stop_patience=8,
    plateau_patience=5,
    plateau_factor=0.1,
)
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


def test_a_long_clip_has_an_eighth_of_its_frames_as_steps():
    assert [BACKBONES["r3d_18"].steps(t) for t in (1, 8, 9, 16, 17, 70)] == [1, 1, 2, 2, 3, 9]
    assert BACKBONES["efficientnet_b3"].steps(70) == BACKBONES["vgg16"].steps(70) == 70


@pytest.mark.parametrize("name", [name for name, facts in BACKBONES.items() if facts.weights])
def test_weights_have_the_names_and_the_scale_torchvision_gives_them(name):
    facts, members = BACKBONES[name], get_model_weights(name)
    assert set(facts.weights) == {member.name for member in members}
    for member in members:  # torchvision publishes the first eight digits of the SHA-256 in the name of the file
        assert facts.weights[member.name].startswith(member.url.rsplit("-", 1)[1].removesuffix(".pth"))
        assert len(facts.weights[member.name]) in (8, 64)
    transforms = members[list(facts.weights)[-1]].transforms()
    assert facts.means == pytest.approx([255 * value for value in transforms.mean], abs=0.01)
    assert facts.deviations == pytest.approx([255 * value for value in transforms.std], abs=1e-4)


@pytest.mark.parametrize("name", NEW)
def test_all_of_torchvisions_network_but_its_head_is_there(name, models):
    with torch.device("meta"):
        network = get_model(name)
    head = count_parameters(network.get_submodule(BACKBONES[name].head.rstrip(".")))
    assert count_parameters(models[name].backbone) == count_parameters(network) - head
    published = get_model_weights(name)[next(iter(BACKBONES[name].weights))].meta["num_params"]
    assert count_parameters(network) == published


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


@pytest.mark.parametrize("name", NEW)
def test_the_backbone_starts_as_in_torchvision_and_all_else_as_in_keras(name):
    model = build(name)
    last = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)][-1]
    deviation = (2 / (last.out_channels * last.weight[0, 0].numel())) ** 0.5
    assert float(last.weight.detach().std()) == pytest.approx(deviation, rel=0.02)
    assert last.weight.abs().max() > 3 * deviation  # normal, where Glorot's is uniform
    bound = (6 / (8 + 6)) ** 0.5  # Glorot's
    assert model.feature.weight.abs().max() <= bound and (model.feature.bias == 0).all()
    assert (model.temporal.bias_ih_l0.reshape(4, 8)[1] == 1).all()


def test_chunks_of_frames_change_no_feature(models):
    model, clips = models["efficientnet_b3"], noise(2, 5, 32, 32)
    with torch.no_grad():
        whole = model.features(clips)
        model.frames_per_chunk = 3
        torch.testing.assert_close(model.features(clips), whole, atol=1e-5, rtol=1e-5)
    model.frames_per_chunk = 0


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


def test_memory_of_a_frame_is_measured_in_clips_as_long_as_a_step(monkeypatch):
    model, frame = build("r3d_18").eval(), noise(32, 32)
    model.backbone.requires_grad_(False)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = model.features(frame.expand(1, 64, 32, 32))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    activations = sum(size for place, size in kept.items() if place not in weights)
    assert features.requires_grad
    assert activation_bytes(model, frame, "fp32") == pytest.approx(activations / 64, rel=0.05)
    monkeypatch.setattr("viptt_core.training.device.free_memory", lambda device: 1)
    assert pick_chunk(model, 18, frame, "fp32") == 1


@pytest.mark.parametrize("name, frozen", [("efficientnet_b3", False), ("r3d_18", True)])
def test_a_training_epoch_moves_what_it_may(make_clip_set, name, frozen):
    model = settle(build(name, stem="imagenet"), momentum=1.0)
    clips = make_clip_set(n=8, frames=4, size=32, classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stage = STAGE if not frozen else Stage(**STAGE.__dict__ | {"freeze_backbone": True})
    history = fit(model, Task(clips, SPLIT, stage), engine=Engine(device="cpu", precision="fp32"))
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


def test_cached_features_of_whole_clips_have_fewer_steps(models, make_clip_set):
    model, clips = models["r3d_18"], make_clip_set(n=8, frames=9, size=32, classes=3)
    features = cached_features(model, clips, "0..255", precision="fp32")
    assert features.shape == (8, 2, 512)
    pixels = torch.from_numpy(np.array(clips.clips)).float()
    torch.testing.assert_close(
        torch.from_numpy(np.array(features)), frame_features(model, pixels, "fp32"), atol=1e-5, rtol=1e-5
    )
    logits = predict_logits(model, features, np.arange(8), pixel_range="0..255")
    direct = predict_logits(model, clips.clips, np.arange(8), pixel_range="0..255")
    assert direct.std() > 1e-3
    np.testing.assert_allclose(logits, direct, atol=1e-5)


@pytest.mark.parametrize("explain", [slice_importance, grad_cam])
def test_slices_of_a_backbone_of_clips_are_not_explained(explain, models):
    if explain is grad_cam:
        pytest.importorskip("captum")
    clips = noise(1, 9, 32, 32).numpy().astype(np.uint8)
    with pytest.raises(SettingError, match="r3d_18 sees whole clips.*vgg16"):
        explain(models["r3d_18"], clips, np.array([0]), pixel_range="0..255")


def test_grad_cam_of_efficientnet_equals_the_one_by_hand(models):
    pytest.importorskip("captum")
    model, clips = models["efficientnet_b3"], noise(1, 2, 64, 64).numpy().astype(np.uint8)
    rectified, largest = [], []
    hook = model.backbone.register_forward_hook(lambda *call: rectified.append(call[2]))
    scores = model(torch.from_numpy(clips).float())[0]
    hook.remove()
    (cells,) = rectified  # [T, F, 2, 2]
    for known in range(3):
        (gradient,) = torch.autograd.grad(scores[known], cells, retain_graph=True)
        raw = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * cells).sum(dim=1)).detach().numpy()
        maps = grad_cam(model, clips, np.array([known]), pixel_range="0..255")[0]
        largest.append(raw.max())
        np.testing.assert_allclose(maps[:, ::32, ::32], raw / (raw.max() or 1), atol=1e-5)
    assert max(largest) > 0


def test_precision_on_a_cpu_is_read_from_the_registry(monkeypatch):
    monkeypatch.setattr("viptt_core.training.device.cpu_has_bf16", lambda: True)
    assert [pick_precision("auto", CPU, name) for name in BACKBONES] == ["bf16", "fp32", "bf16", "bf16"]


def published(state, backbone, folder, monkeypatch):
    """Name of weights of a backbone, and the file in torch.hub's folder under the folder that holds this state."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    name = list(BACKBONES[backbone].weights)[-1]
    path = folder / "hub" / "checkpoints" / get_model_weights(backbone)[name].url.rsplit("/", 1)[1]
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    monkeypatch.setitem(BACKBONES[backbone].weights, name, file_digest(path, "sha256"))
    return name, path


def test_published_weights_fill_the_backbone_unless_a_bit_flips(models, tmp_path, monkeypatch):
    name = "efficientnet_b3"
    state = {BACKBONES[name].prefix + key: tensor for key, tensor in models[name].backbone.state_dict().items()}
    state[f"{BACKBONES[name].head}weight"] = torch.zeros(1)
    weights, path = published(state, name, tmp_path, monkeypatch)
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


def test_the_registry_can_be_read_without_torch():
    code = "import sys, viptt_core.backbones; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
