"""Explanations: occlusion against the plain loop, Grad-CAM by hand, pointing against chance counted by hand."""

import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from viptt_core.clips import Grid
from viptt_core.errors import SettingError
from viptt_core.model import ViPTTNet
from viptt_core.study import evidence
from viptt_core.study.evidence import finding_on_grid, grad_cam, slice_importance
from viptt_core.study.pointing import mass_on_finding, pointing_game
from viptt_core.synthetic.phantom import make_phantom
from viptt_core.training.device import to_pixels

needs_captum = pytest.mark.skipif(find_spec("captum") is None, reason="captum, of the extra 'explain', is not here")


def small(classes=3, seed=0, backbone="small", reaction=10):
    generator = torch.Generator().manual_seed(seed)
    model = ViPTTNet(classes, backbone=backbone, hidden_size=8, feature_size=6, generator=generator)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # as after training: not the identity
            torch.nn.init.uniform_(layer.running_mean, -0.3, 0.3, generator=generator)
            torch.nn.init.uniform_(layer.bias, -0.3, 0.3, generator=generator)
    with torch.no_grad():
        model.classifier.weight *= reaction
    return model.eval()


def noise(n=3, frames=5, size=16, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, (n, frames, size, size)) * rng.random((n, frames, 1, 1))).astype(np.uint8)


CLASSES = np.array([2, 0, 1])


# --- Slices -----------------------------------------------------------------------------------------------
def test_importance_of_slices_equals_the_loop_that_hides_them_in_the_clip(monkeypatch):
    monkeypatch.setattr(evidence, "FEATURES_TOGETHER", 12)  # two clips at once, then one
    model, clips = small(), noise()
    expected = np.empty((3, 5))
    for i, clip in enumerate(clips):
        pixels = to_pixels(torch.from_numpy(clip[None]), "0..255")[0]

        def score(pixels, k=CLASSES[i]):
            logits = model(pixels[None])[0]
            return float(logits[k].detach())

        for t in range(5):
            without = pixels.clone()
            without[t] = pixels.mean(0)
            expected[i, t] = score(pixels) - score(without)
    found = slice_importance(model, clips, CLASSES, pixel_range="0..255")
    assert found.shape == (3, 5) and found.dtype == np.float32
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, atol=2e-5)


# --- Grad-CAM ---------------------------------------------------------------------------------------------
def cam_by_hand(model, rectifier, clip, k):
    """ReLU of the channels weighted with their mean gradient, of one clip: [T, h, w]."""
    kept = []
    handle = rectifier.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = model(to_pixels(torch.from_numpy(clip[None]), "0..1"))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, k], kept[-1])
    return torch.relu((gradient.mean((2, 3), keepdim=True) * kept[-1]).sum(1)).detach()


@needs_captum
def test_grad_cam_of_vgg16_equals_the_one_by_hand():
    model, clips = small(backbone="vgg16"), noise(n=2, frames=2, size=64)
    found = grad_cam(model, clips, CLASSES[:2], pixel_range="0..1")
    assert found.dtype == np.float32
    for i in range(2):
        cells = cam_by_hand(model, model.backbone[29], clips[i], CLASSES[i])
        assert cells.shape == (2, 4, 4) and cells.max() > 0  # before the last pooling
        fine = F.interpolate(cells[None], size=(64, 64), mode="bilinear", align_corners=False)[0]
        np.testing.assert_allclose(found[i], fine / fine.max(), atol=1e-5)


@needs_captum
def test_grad_cam_does_without_gradients_around_it_whole_batches_and_trained_weights():
    model, clips = small(), noise()
    expected = grad_cam(model, clips, CLASSES, pixel_range="0..1")
    model.requires_grad_(False)
    model.frames_per_chunk = 1
    clips.setflags(write=False)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(grad_cam(model, clips, CLASSES, pixel_range="0..1"), expected, atol=1e-6)
        slice_importance(model, clips, CLASSES, pixel_range="0..1")


@needs_captum
def test_only_the_recurrent_layer_is_in_training_mode_on_the_way_back():
    # cuDNN refuses to go back through a recurrent layer in evaluation mode.
    model, modes = small(), []
    model.temporal.register_forward_hook(
        lambda *_: modes.append({name for name, part in model.named_modules() if part.training})
    )
    grad_cam(model, noise(), CLASSES, pixel_range="0..1")
    assert modes and all(mode == {"temporal"} for mode in modes)


@pytest.mark.parametrize("method", [slice_importance, pytest.param(grad_cam, marks=needs_captum)])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_came(method, fails):
    model = small().train()
    model.backbone[1].eval()
    model.freeze(backbone=True, stem=False)
    model.frames_per_chunk = 2
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    flags = [weight.requires_grad for weight in model.parameters()]
    if fails:
        model.feature.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            method(model, noise(), CLASSES, pixel_range="0..1")
    else:
        method(model, noise(), CLASSES, pixel_range="0..1")
    assert [part.training for part in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert model.frames_per_chunk == 2 and all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not any(part._forward_hooks for part in model.modules())


def test_without_captum_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(SettingError, match="captum.*explain"):
        grad_cam(small(), noise(), CLASSES, pixel_range="0..1")


@pytest.mark.parametrize(
    "clips, classes, settings",
    [
        (noise(), CLASSES, {"pixel_range": "0..2"}),
        (noise(), CLASSES[:2], {}),
        (noise()[0], CLASSES, {}),
        (noise(), CLASSES + 1, {}),
        (noise(), CLASSES - 1, {}),
        (noise(), CLASSES * 0.5, {}),
    ],
)
def test_impossible_requests_are_refused(clips, classes, settings):
    with pytest.raises(SettingError):
        slice_importance(small(), clips, classes, **{"pixel_range": "0..1"} | settings)


# --- The finding ------------------------------------------------------------------------------------------
def test_the_finding_is_turned_and_resampled_as_scipy_does_it():
    finding = make_phantom((5, 0), 4, size=64).finding.astype(float)
    turned = ndimage.rotate(finding, 90, axes=(1, 0), order=1)
    factors = (32 / 64, 32 / 64, 12 / finding.shape[2])
    part = ndimage.zoom(turned, factors, order=1).transpose(2, 0, 1)
    found = finding_on_grid(5, 0, 4, Grid(12, 32))
    assert found.shape == (12, 32, 32) and found.dtype == bool and found.any()
    sure = np.abs(part) > 1e-5  # rounding decides elsewhere
    np.testing.assert_array_equal(found[sure], (part > 0)[sure])


# --- Evidence on the finding ------------------------------------------------------------------------------
def lines(*rows):
    return np.array(rows, float)


MAPS = lines([9, 1, 0, 0], [0, 2, 6, 0], [1, 1, 5, 1])
FINDINGS = lines([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]) > 0


def test_pointing_counted_by_hand():
    found = pointing_game(MAPS, FINDINGS)
    assert found["observed"] == pytest.approx(2 / 3)  # the second map points at the third finding
    assert found["chance"] == pytest.approx((0 + 1 / 2 + 0) / 3)
    assert found["gain"] == pytest.approx(2 / 3 - 1 / 6)
    assert found["clips"] == 3


def test_mass_counted_by_hand():
    found = mass_on_finding(MAPS - 1, FINDINGS)  # what is below 0 counts nothing
    assert found["observed"] == pytest.approx((8 / 8 + 1 / 6 + 4 / 4) / 3)
    assert found["chance"] == pytest.approx(((0 + 0) / 2 + (0 + 5 / 6) / 2 + (0 + 0) / 2) / 3)


def test_the_finding_is_widened_by_the_tolerance_along_each_axis():
    maps, findings = np.zeros((2, 3, 5, 5)), np.zeros((2, 3, 5, 5), bool)
    maps[:, 1, 2, 4] = 1
    findings[0, 1, 2, 2] = findings[1, 0, 0, 0] = True
    for tolerance, hits in [((), 0), ((1, 1, 1), 0), ((2, 2, 2), 1), ((0, 0, 2), 1), ((0, 2, 0), 0), ((2, 2, 1), 0)]:
        assert pointing_game(maps, findings, tolerance=tolerance)["observed"] == hits / 2, tolerance


def test_clips_without_finding_evidence_or_another_patient_do_not_count():
    maps = np.concatenate([MAPS, MAPS[:1], -MAPS[:2], MAPS[:1]])
    findings = np.concatenate([FINDINGS, 0 * FINDINGS[:1] > 0, FINDINGS[:1], 0 * FINDINGS[:1] > 0, FINDINGS[:1]])
    found = pointing_game(maps, findings, classes=np.array([0, 0, 0, 0, 0, 0, 1]))
    assert found == pointing_game(MAPS, FINDINGS)


def test_intervals_are_those_of_a_bootstrap_in_which_no_clip_meets_its_copy():
    rng = np.random.default_rng(3)
    n, classes = 9, np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    maps, findings = rng.random((n, 12)), rng.random((n, 12)) < 0.4
    found = mass_on_finding(maps, findings, classes=classes, seed=7)
    on = (maps[:, None] * findings).sum(2) / maps.sum(1, keepdims=True)
    observed, gains = [], []
    for counts in np.random.default_rng(7).multinomial(n, [1 / n] * n, 2000):
        drawn = np.repeat(np.arange(n), counts)
        observed.append(np.mean([on[i, i] for i in drawn]))
        others = {i: [on[i, j] for j in drawn if j != i and classes[j] == classes[i]] for i in drawn}
        paired = [on[i, i] - np.mean(others[i]) for i in drawn if others[i]]
        gains.append(np.mean(paired) if paired else np.nan)
    np.testing.assert_allclose([found["observed_low"], found["observed_high"]], np.percentile(observed, [2.5, 97.5]))
    np.testing.assert_allclose([found["gain_low"], found["gain_high"]], np.nanpercentile(gains, [2.5, 97.5]))


@pytest.mark.parametrize(
    "maps, findings, options",
    [
        (MAPS, FINDINGS[:2], {}),
        (MAPS * np.nan, FINDINGS, {}),
        (MAPS[:0], FINDINGS[:0], {}),
        (MAPS, FINDINGS, {"classes": [0, 1]}),
        (MAPS, FINDINGS, {"classes": [0, 1, 2]}),  # nobody to compare with
        (MAPS[:1], FINDINGS[:1], {}),
        (0 * MAPS, FINDINGS, {}),
    ],
)
def test_evidence_that_cannot_be_compared_is_refused(maps, findings, options):
    for game in (pointing_game, mass_on_finding):
        with pytest.raises(SettingError):
            game(maps, findings, **options)
