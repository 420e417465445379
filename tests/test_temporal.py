"""What stands in for the LSTM, against PyTorch's own layers and the equations written out."""

import pytest
import torch

from viptt_core.errors import SettingError
from viptt_core.model import (
    GRU,
    TEMPORALS,
    AttentionPooling,
    BidirectionalLSTM,
    MeanPooling,
    ViPTTNet,
    initialise_as_keras,
)

ORDERED = ("lstm", "projected lstm", "gru", "bilstm")


@pytest.fixture
def features():
    return torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))


def network(temporal, **settings):
    generator = torch.Generator().manual_seed(1)
    settings = {"backbone": "small", "hidden_size": 6, "feature_size": 8, "generator": generator} | settings
    return ViPTTNet(3, temporal=temporal, **settings)


def seeded(layer):
    initialise_as_keras(layer, torch.Generator().manual_seed(2))
    for parameter in layer.parameters():  # biases count too
        torch.nn.init.normal_(parameter, std=0.4, generator=torch.Generator().manual_seed(3))
    return layer


def test_the_gru_is_that_of_keras(features):
    layer = seeded(GRU(5, 4))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w, u, b, c = (getattr(layer, name).detach() for name in names)
    state = torch.zeros(3, 4)
    for step in features.unbind(1):
        inputs, recurrent = (step @ w.T + b).chunk(3, 1), (state @ u.T + c).chunk(3, 1)
        reset, update = (torch.sigmoid(inputs[k] + recurrent[k]) for k in (0, 1))
        candidate = torch.tanh(inputs[2] + reset * recurrent[2])  # reset after the product
        state = update * state + (1 - update) * candidate
    torch.testing.assert_close(layer.summary(features).detach(), state)


def test_the_bidirectional_lstm_is_pytorchs(features):
    layer = seeded(BidirectionalLSTM(5, 6))
    theirs = torch.nn.LSTM(5, 3, batch_first=True, bidirectional=True)
    for end, part in (("", layer.upward), ("_reverse", layer.downward)):
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
            getattr(theirs, name + end).data.copy_(getattr(part, name).data)
        getattr(theirs, f"bias_hh_l0{end}").data.zero_()
    states = theirs(features)[0]
    expected = torch.cat([states[:, -1, :3], states[:, 0, 3:]], dim=1)
    torch.testing.assert_close(layer.summary(features), expected)
    with pytest.raises(SettingError, match="hidden_size is 7.*even"):
        BidirectionalLSTM(5, 7)


def test_attention_is_a_weighted_mean_of_the_frames(features):
    layer = seeded(AttentionPooling(5, 4))
    weights = layer.weights(features)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    values = features @ layer.value.weight.T + layer.value.bias
    scores = torch.tanh(values) @ layer.score.weight.T
    expected = (scores.softmax(dim=1) * values).sum(dim=1)
    torch.testing.assert_close(layer.summary(features), expected)
    with torch.no_grad():
        layer.score.weight.zero_()  # no preference
    mean = MeanPooling(5, 4)
    mean.load_state_dict({name: tensor for name, tensor in layer.state_dict().items() if name.startswith("value")})
    torch.testing.assert_close(layer.summary(features), mean.summary(features))


@pytest.mark.parametrize("temporal", TEMPORALS)
def test_only_recurrent_layers_see_the_order_of_frames(temporal, features):
    layer = seeded(TEMPORALS[temporal](5, 6))
    assert layer.summary(features).shape == (3, 6) and (layer.input_size, layer.hidden_size) == (5, 6)
    shuffled = features[:, torch.randperm(7, generator=torch.Generator().manual_seed(4))]
    assert torch.allclose(layer.summary(features), layer.summary(shuffled), atol=1e-5) == (temporal not in ORDERED)


def test_features_of_any_size_are_standardised_before_the_lstm_that_they_would_saturate():
    layer = seeded(TEMPORALS["projected lstm"](5, 6)).train()
    features = torch.randn(3, 4, 5)
    torch.testing.assert_close(layer.summary(300 + 50 * features), layer.summary(features), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("temporal", TEMPORALS)
def test_the_start_is_drawn_from_the_seed_and_every_weight_learns(temporal):
    model, twin = network(temporal), network(temporal)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    model(torch.rand(2, 4, 16, 16)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not [name for name in still if name.startswith("temporal")]
