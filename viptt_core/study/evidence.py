"""What the scores of trained models rest on, beside where a phantom's finding truly is: computed once, then kept.

Explained are models on a larger grid than the study's (its cells are too coarse to point with), on phantoms that no
run has seen. An untrained model is explained, too: what it "finds" is chance.
"""

from __future__ import annotations

import numpy as np
import torch
from joblib import Parallel, delayed

from viptt_core.clips import ClipSet, Grid
from viptt_core.datasets import load_for
from viptt_core.experiment import Plan, build_model, compare_starts
from viptt_core.files import artifact_root, available_cores
from viptt_core.prediction.weights import open_weights
from viptt_core.presets import load_preset
from viptt_core.study.arms import Runner
from viptt_core.study.explain import grad_cam, slice_importance
from viptt_core.study.pointing import Evidence, finding_on_grid, write_evidence
from viptt_core.training.inference import predict_logits

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
