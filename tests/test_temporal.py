"""The parts that bring frames together: which see their order, and that all of them learn."""

import pytest
import torch

from viptt_core.model import TEMPORALS, ViPTTNet, initialise_as_keras

ORDERED = ("lstm", "projected lstm")


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
