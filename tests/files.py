"""Small video, scan and label files that tests write."""

import hashlib

import cv2
import nibabel as nib
import numpy as np

from viptt_core.constants import TB_CLASSES


def write_video(path, frames=6, level=100):
    """A video of one grey level, 48 x 32 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"XVID"), 25, (48, 32))
    for _ in range(frames):
        writer.write(np.full((32, 48, 3), level, np.uint8))
    writer.release()
    return path


def write_nifti(path, voxels, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def write_scan(path, hu=-500, nan_voxels=0):
    """A scan of one density beside air and soft tissue, with a voxel of bone and some that are not finite."""
    volume = np.full((12, 12, 5), hu, np.float32)
    volume[0], volume[-1] = np.linspace(-1000, -900, 60).reshape(12, 5), 40
    volume.flat[0], volume.flat[1] = -1000, 400
    volume.flat[2 : 2 + nan_voxels] = np.nan
    return write_nifti(path, volume, np.eye(4))


def publish(monkeypatch, path, classes=("benign", "malignant")):
    """Let a file count as one that MedMNIST published under its name."""
    entry = {
        "MD5": hashlib.md5(path.read_bytes()).hexdigest(),
        "label": {str(k): name for k, name in enumerate(classes)},
    }
    monkeypatch.setattr("viptt_core.datasets.arrays.medmnist_sets", lambda: {path.stem: entry})
    return path


def write_labels(root, *rows, header="FileName,TypeOfTB"):
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n")


def write_weights(path, *, classes=TB_CLASSES, seed=0, data=None, training=None, model=None, **preprocessing):
    """Weights of a model, else of a small one far from equal probabilities; their card: scans, grid of 6 x 16 x 16."""
    import torch

    from viptt_core.model import ViPTTNet
    from viptt_core.prediction.card import Card, Preprocessing
    from viptt_core.prediction.weights import save_weights

    if model is None:
        generator = torch.Generator().manual_seed(seed)
        model = ViPTTNet(len(classes), backbone="small", hidden_size=8, feature_size=8, generator=generator)
        torch.nn.init.normal_(model.classifier.weight, std=100, generator=generator)
    grid = {"kind": "scan", "frames": 6, "size": 16, "pixel_range": "0..1", "hu_window": (-1000, 400)}
    grid |= {"orientation": "canonical"} | preprocessing
    card = Card("a small model", tuple(classes), Preprocessing(**grid), data or {}, training or {}, (), {}, "MIT")
    save_weights(path, model, card)
    return path


def write_noise_scan(path, seed=0, signs=(-1, 1, 1), shape=(18, 20, 12), mm=(16.0, 14.4, 25.0)):
    """A scan of noise in HU that measures as much as a chest, its axes running by `signs`; canonical by default."""
    voxels = np.random.default_rng(seed).integers(-1000, 400, shape).astype(np.int16)
    return write_nifti(path, voxels, np.diag([*(np.array(signs) * mm), 1.0]))
