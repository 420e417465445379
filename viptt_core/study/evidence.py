"""What the scores of trained models rest on: occlusion and Grad-CAM, beside where a phantom's finding truly is.

A model is explained as it is, in evaluation mode; mode, flags and gradients are left as they were. A study explains
models on a larger grid than its own (its cells are too coarse to point with), on phantoms that no run has seen, and an
untrained model, too: what it "finds" is chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from viptt_core import ct
from viptt_core.clips import ClipSet, Grid
from viptt_core.datasets import load_for
from viptt_core.datasets.simulated import PHANTOM_OVERSAMPLING
from viptt_core.errors import SettingError, check_choice
from viptt_core.experiment import Plan, build_model, compare_starts
from viptt_core.files import artifact_root, available_cores
from viptt_core.model import INFERENCE_CHUNK, ViPTTNet
from viptt_core.prediction.weights import open_weights
from viptt_core.presets import load_preset
from viptt_core.study.arms import Runner
from viptt_core.study.pointing import Evidence, write_evidence
from viptt_core.training.device import PIXEL_SCALES, to_pixels
from viptt_core.training.inference import FEATURES_TOGETHER, predict_logits

POOLED = 2  # maps are kept at half the grid's height and width: still finer than the cells they come from
SHOWN = 2  # examples a class that are kept with their pixels
UNTRAINED = "untrained"


def gather_evidence(runner: Runner) -> str:
    """Train or find the models, explain them, write `results/STUDY/evidence.npz`.

    Returns:
        A line for the reader.
    """
    settings = runner.study.evidence
    if not settings:
        return f"Study '{runner.study.name}' asks for no evidence."
    preset = load_preset(settings["preset"])
    plan = Plan(preset, tuple(settings["starts"]), settings["seed"], runner.engine)
    scans = load_for(preset, "phantom", seed=settings["seed"])
    videos = load_for(preset, "actions", seed=settings["seed"])
    runs = compare_starts(plan, scans, videos).runs
    unseen = load_for(preset, "phantom", n=settings["n"], seed=settings["cohort"])
    models = {UNTRAINED: build_model(preset, len(unseen.class_names), seed=settings["seed"])}
    for start, run in runs.items():
        models[start] = open_weights(run.folder).model()
    evidence = explain_models(models, unseen, pixel_range=preset.finetune.pixel_range, cohort=settings["cohort"])
    path = artifact_root() / "results" / runner.study.name / "evidence.npz"
    write_evidence(path, evidence)
    return f"{path}: {len(unseen)} phantoms, models: {', '.join(models)}"


def finding_on_grid(seed: int, index: int, label: int, grid: Grid) -> np.ndarray:
    """The true finding of a phantom of the set "phantom", on the grid of its clip.

    Args:
        seed, index, label: Seed of the set, the phantom's place in it (0..n-1), and its class.
        grid: As given to the set.

    Returns:
        bool [frames, size, size], True in all voxels that the finding reaches; all False where no slice of the clip
        meets it.
    """
    from viptt_core.synthetic.phantom import make_phantom  # slow to import

    finding = make_phantom((seed, index), label, size=round(PHANTOM_OVERSAMPLING * grid.size)).finding
    return ct.resample_volume(finding, depth=grid.frames, size=grid.size) > 0


def explain_models(models: dict, scans: ClipSet, *, pixel_range: str, cohort: int) -> Evidence:
    """Occlusion and Grad-CAM of each model for the class it predicts, on every phantom of a cohort.

    Args:
        models: ViPTTNets by arm.
        scans: Phantoms of `datasets.phantom(seed=cohort)`.
        pixel_range: As in training.
        cohort: Their seed.
    """
    n, frames, size, _ = scans.clips.shape
    grid = Grid(frames, size)
    findings = np.stack(
        Parallel(n_jobs=available_cores())(
            delayed(finding_on_grid)(cohort, i, label, grid) for i, label in enumerate(scans.labels.tolist())
        )
    )
    importance, maps, predicted = {}, {}, {}
    for arm, model in models.items():
        model.to(memory_format=torch.channels_last).eval()
        logits = predict_logits(model, scans.clips, np.arange(n), pixel_range=pixel_range)
        predicted[arm] = logits.argmax(axis=1)
        importance[arm] = slice_importance(model, scans.clips, predicted[arm], pixel_range=pixel_range)
        fine = grad_cam(model, scans.clips, predicted[arm], pixel_range=pixel_range)
        maps[arm] = np.rint(255 * _pool(fine, np.mean)).astype(np.uint8)
    shown = np.concatenate([np.flatnonzero(scans.labels == k)[:SHOWN] for k in range(len(scans.class_names))])
    return Evidence(
        names=scans.names,
        labels=scans.labels,
        class_names=scans.class_names,
        findings=_pool(findings, np.max),
        slice_importance=importance,
        grad_cam=maps,
        predicted=predicted,
        shown=shown,
        clips=scans.clips[shown],
        synthetic=scans.synthetic,
    )


def _pool(volumes: np.ndarray, how) -> np.ndarray:
    """[N, T, H, W] to [N, T, H / POOLED, W / POOLED]."""
    n, frames, height, width = volumes.shape
    blocks = volumes.reshape(n, frames, height // POOLED, POOLED, width // POOLED, POOLED)
    return how(blocks, axis=(3, 5))


# --- Explaining a model ---


def slice_importance(model: ViPTTNet, clips: np.ndarray, classes: np.ndarray, *, pixel_range: str) -> np.ndarray:
    """How much the logit of a class drops when one slice after another is replaced by the clip's mean slice.

    The backbone sees each slice once; only the recurrent part runs again for each hidden slice.

    Args:
        model: On its device.
        clips: uint8 [N, T, H, W].
        classes: int [N], the class explained of each clip, such as the predicted one.
        pixel_range: "0..1" or "0..255", as in training.

    Returns:
        float32 [N, T], logit of the whole clip minus logit without the slice: above 0 where it speaks for the class.

    Raises:
        SettingError: an argument is out of range, the shapes do not fit, or the backbone sees whole clips: its
            features are not of single slices.

    Source:
        Zeiler & Fergus (2014), ECCV, 818-833: occlusion, there by patches of a picture.
    """
    targets = _check_clips(model, clips, classes, pixel_range)
    frames = clips.shape[1]
    hidden = torch.eye(frames + 1, frames, dtype=torch.bool).roll(1, 0).to(targets.device)  # row 0: the whole clip
    drops = []
    with _held_still(model), torch.inference_mode():
        for part in _parts(len(clips), FEATURES_TOGETHER // (frames + 1)):
            pixels = _pixels(clips[part], targets.device, pixel_range)
            features = model.features(torch.cat([pixels, pixels.mean(dim=1, keepdim=True)], dim=1))[:, None]
            variants = torch.where(hidden[..., None], features[:, :, -1:], features[:, :, :-1])  # [B, T + 1, T, F]
            logits = model(variants.flatten(0, 1)).unflatten(0, (-1, frames + 1))  # [B, T + 1, K]
            logits = logits[torch.arange(len(pixels)), :, targets[part]]
            drops.append(logits[:, :1] - logits[:, 1:])
    return torch.cat(drops).cpu().numpy()


def grad_cam(model: ViPTTNet, clips: np.ndarray, classes: np.ndarray, *, pixel_range: str) -> np.ndarray:
    """Where in each slice the evidence for a class lies: Grad-CAM, through the recurrent part.

    Of the rectified output of the backbone's last convolution, each slice with channel weights of its own: slices of
    a clip can be compared. No finer than the cells of that layer (8 pixels with "small", 16 with "vgg16", 32 with
    "efficientnet_b3"). These are put where their receptive fields lie: plain resizing would shift those of "small"
    by half a cell.

    Which slice matters is for `slice_importance` to say: the gradient can be small at the very slice that decides, once
    a recurrent layer is sure of it, and the map then peaks in another.

    Args:
        model, clips, classes, pixel_range: See `slice_importance`.

    Returns:
        float32 [N, T, H, W] in 0..1, the largest of each clip 1; all 0 where nothing speaks for the class.

    Raises:
        SettingError: as `slice_importance`, or captum is not installed.

    Source:
        Selvaraju et al. (2017), ICCV, 618-626.
    """
    try:
        from captum.attr import LayerGradCam  # slow to import, and nothing else here needs it
    except ImportError as error:
        remedy = "Install the extra that brings it: pip install -c constraints.txt -e '.[explain]'"
        raise SettingError("Grad-CAM needs captum, which is not installed.", remedy=remedy) from error
    targets = _check_clips(model, clips, classes, pixel_range)
    layer, first, step = _last_convolution(model.backbone)
    maps = np.empty(clips.shape, np.float32)
    with _held_still(model), torch.enable_grad():
        for part in model.modules():
            if isinstance(part, nn.RNNBase):
                part.train()  # cuDNN goes back through no other; a single layer has no dropout and stays the same
        explain = LayerGradCam(model, layer).attribute
        for part in _parts(len(clips), INFERENCE_CHUNK // clips.shape[1]):
            pixels = _pixels(clips[part], targets.device, pixel_range)
            cells = explain(pixels, target=targets[part], relu_attributions=True).detach()[:, 0]  # [B * T, h, w]
            rows, columns = (
                _interpolation(n, m, first, step).to(cells)
                for n, m in zip(pixels.shape[2:], cells.shape[1:], strict=True)
            )
            fine = (rows @ cells @ columns.T).reshape(pixels.shape)
            largest = fine.amax(dim=(1, 2, 3), keepdim=True)
            maps[part] = (fine / largest.where(largest > 0, 1)).cpu().numpy()
    return maps


def _check_clips(model: ViPTTNet, clips: np.ndarray, classes, pixel_range: str) -> Tensor:
    """The classes int64 [N] on the model's device."""
    if model.sees_clips:
        raise SettingError(
            f"the backbone {model.backbone_name} sees whole clips: no feature is of one slice alone.",
            remedy="Explain a model whose backbone sees each slice alone, such as vgg16.",
        )
    check_choice("pixel_range", pixel_range, PIXEL_SCALES)
    classes, known = np.asarray(classes), model.classifier.out_features
    if clips.ndim != 4 or not clips.size or classes.shape != clips.shape[:1]:
        what = f"clips have shape {clips.shape}, classes {classes.shape}."
        raise SettingError(what, remedy="Give [N, T, H, W] and [N].")
    if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0 or classes.max() >= known:
        raise SettingError(f"classes are {np.unique(classes)}.", remedy=f"Give whole numbers from 0 to {known - 1}.")
    return torch.from_numpy(classes.astype(np.int64)).to(next(model.parameters()).device)


@contextmanager
def _held_still(model: ViPTTNet) -> Iterator[None]:
    """Evaluation mode, fixed weights, frames not in chunks; on leaving, all is as it was."""
    modes = [(part, part.training) for part in model.modules()]
    trained, chunk = [weight for weight in model.parameters() if weight.requires_grad], model.frames_per_chunk
    try:
        model.eval().requires_grad_(False)
        model.frames_per_chunk = 0  # captum would see the last chunk only
        yield
    finally:
        model.frames_per_chunk = chunk
        for part, training in modes:
            part.training = training
        for weight in trained:
            weight.requires_grad_(True)


def _last_convolution(backbone: nn.Module) -> tuple[nn.Module, float, float]:
    """The layer that rectifies the last convolution, and where its cells lie: centre of the first, step, pixels.

    Branches, as EfficientNet's, count as if in a row: their kernels are odd and padded by half, and shift nothing.
    """
    parts = [part for part in backbone.modules() if not any(part.children())]
    last = max(i for i, part in enumerate(parts) if isinstance(part, nn.Conv2d))
    last = next((i for i in range(last, len(parts)) if isinstance(parts[i], nn.ReLU | nn.SiLU)), last)
    first, step = 0.0, 1.0
    for part in parts[: last + 1]:
        if isinstance(part, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (
                value if isinstance(value, int) else value[0] for value in (part.kernel_size, part.stride, part.padding)
            )
            first += step * ((kernel - 1) / 2 - padding)
            step *= stride
    return parts[last], first, step


def _interpolation(pixels: int, cells: int, first: float, step: float) -> Tensor:
    """Linear interpolation between cells as a matrix [pixels, cells]; beyond the outer cells their value stays."""
    position = ((torch.arange(pixels) - first) / step).clamp(0, cells - 1)
    return torch.relu(1 - (position[:, None] - torch.arange(cells)).abs())


def _pixels(clips: np.ndarray, device: torch.device, pixel_range: str) -> Tensor:
    return to_pixels(torch.from_numpy(np.array(clips)).to(device), pixel_range)  # a copy: stored sets are read-only


def _parts(n: int, together: int) -> Iterator[slice]:
    together = max(1, together)
    return (slice(start, start + together) for start in range(0, n, together))
