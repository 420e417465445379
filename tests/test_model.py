"""The model: sizes the authors' Keras model has, start values, transfer."""

import io
from email.message import Message
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.special import expit

from viptt_core.backbones import BACKBONES
from viptt_core.errors import DataError, SettingError
from viptt_core.files import file_digest
from viptt_core.model import KerasLSTM, ViPTTNet, count_parameters


def small(num_classes=5, **settings):
    return ViPTTNet(num_classes, backbone="small", hidden_size=8, feature_size=6, **settings)


@pytest.fixture(scope="module")
def paper_model():
    return ViPTTNet(10)


@pytest.mark.parametrize(
    "part, parameters",
    [("stem", 6), ("backbone", 14_714_688), ("temporal", 787_456), ("feature", 263_168), ("classifier", 10_250)],
)
def test_each_layer_has_as_many_weights_as_in_keras(paper_model, part, parameters):
    assert count_parameters(getattr(paper_model, part)) == parameters


def test_start_values_are_keras(paper_model):
    stem_bound = (6 / (1 + 3)) ** 0.5
    assert paper_model.stem.weight.abs().max() <= stem_bound
    dense = paper_model.feature.weight.detach()
    bound = (6 / (256 + 1024)) ** 0.5
    assert 0.99 * bound < dense.abs().max() <= bound and abs(float(dense.std()) - bound / 3**0.5) < 1e-3
    kernel = paper_model.temporal.weight_ih_l0.detach()
    bound = (6 / (512 + 1024)) ** 0.5
    assert 0.99 * bound < kernel.abs().max() <= bound
    recurrent = paper_model.temporal.weight_hh_l0.detach()  # [4 x hidden, hidden]: orthonormal columns
    torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(256), atol=1e-5, rtol=0)
    bias = paper_model.temporal.bias_ih_l0.detach().reshape(4, 256)  # gates i, f, c, o
    assert (bias[1] == 1).all() and (bias[[0, 2, 3]] == 0).all()
    assert (paper_model.classifier.bias == 0).all()


def test_lstm_equals_the_keras_equations():
    generator = torch.Generator().manual_seed(0)
    lstm = KerasLSTM(5, 3)
    for weight in lstm.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    steps = torch.randn(1, 7, 5, generator=generator)
    kernel, recurrent, bias = (w.detach().double().numpy() for w in lstm.parameters())
    state, cell = np.zeros(3), np.zeros(3)
    for step in steps[0].double().numpy():
        i, f, c, o = (kernel @ step + recurrent @ state + bias).reshape(4, 3)
        cell = expit(f) * cell + expit(i) * np.tanh(c)
        state = expit(o) * np.tanh(cell)
    np.testing.assert_allclose(lstm(steps)[0][0, -1].detach(), state, atol=1e-6)


def test_transfer_takes_everything_but_the_last_layer():
    pretrained, model = small(10), small(5)
    last = model.classifier.weight.clone()
    model.load_pretrained(pretrained.state_dict())
    for name, tensor in model.state_dict().items():
        if name.startswith("classifier"):
            assert tensor.shape != pretrained.state_dict()[name].shape
        else:
            assert torch.equal(tensor, pretrained.state_dict()[name])
    assert torch.equal(model.classifier.weight, last)


def test_weights_of_another_shape_are_refused_by_name():
    other = ViPTTNet(5, backbone="small", hidden_size=9, feature_size=6)
    with pytest.raises(DataError, match="feature.weight.*hidden_size"):
        small().load_pretrained(other.state_dict())


@pytest.mark.parametrize(
    "bad, hint",
    [
        ({"backbone": "vgg61"}, "vgg16"),
        ({"temporal": "lstn"}, "lstm"),
        ({"stem": "x"}, "glorot"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"backbone": "small", "backbone_weights": "IMAGENET1K_FEATURES"}, "small"),
    ],
)
def test_settings_that_do_not_exist_are_refused(bad, hint):
    with pytest.raises(SettingError, match=hint):
        ViPTTNet(2, **bad)


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """Where torch.hub keeps files; made by the first download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_weights_out_of_reach_say_where_to_put_them(checkpoints, monkeypatch):
    def no_network(*_, **__):
        raise URLError("no network in tests")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(DataError, match=rf"amdegroot.*no network in tests.*put this file into {checkpoints}"):
        ViPTTNet(2, backbone_weights="IMAGENET1K_FEATURES")
    assert not list(checkpoints.iterdir())


class Answer(io.BytesIO):
    """What a server sends."""

    def info(self):
        return Message()


def test_a_download_that_is_not_the_weights_leaves_no_file(checkpoints, monkeypatch):
    monkeypatch.setattr("torch.hub.urlopen", lambda request: Answer(b"half of the wei"))
    with pytest.raises(DataError, match="amdegroot.*invalid hash.*88682ab5"):
        ViPTTNet(2, backbone_weights="IMAGENET1K_FEATURES")
    assert not list(checkpoints.iterdir())


def test_imagenet_weights_fill_the_backbone_and_are_downloaded_once(checkpoints, tmp_path, monkeypatch):
    state = {f"features.{k}": v for k, v in ViPTTNet(2).backbone.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "published.pth")
    digest, asked = file_digest(tmp_path / "published.pth", "sha256"), []
    monkeypatch.setitem(BACKBONES["vgg16"].weights, "IMAGENET1K_FEATURES", digest)

    def answer(request):
        asked.append(request.full_url)
        return Answer((tmp_path / "published.pth").read_bytes())

    monkeypatch.setattr("torch.hub.urlopen", answer)
    for _ in range(2):
        model = ViPTTNet(2, backbone_weights="IMAGENET1K_FEATURES")
        assert all(torch.equal(v, state[f"features.{k}"]) for k, v in model.backbone.state_dict().items())
    assert len(asked) == 1 and asked[0].startswith("https:")
