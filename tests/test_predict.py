"""Scan files -> probabilities, against the steps done one by one."""

import nibabel as nib
import numpy as np
import pytest
import torch

from viptt_core.ct import load_volume
from viptt_core.engine import Engine
from viptt_core.errors import DataError
from viptt_core.model import ViPTTNet
from viptt_core.predict import predict_scans

SETTINGS = {"frames": 6, "size": 16, "pixel_range": "0..1", "engine": Engine(device="cpu", precision="fp32"),
            "n_jobs": 1, "progress": False}  # fmt: skip


@pytest.fixture
def scans(tmp_path):
    """Three scans, stored in three orientations."""
    rng = np.random.default_rng(0)
    paths = []
    for k, signs in enumerate(((-1, 1, 1), (1, 1, 1), (-1, -1, -1))):
        voxels = rng.integers(-1000, 400, (18, 20, 9)).astype(np.int16)
        paths.append(tmp_path / f"{k}.nii.gz")
        nib.Nifti1Image(voxels, np.diag([*signs, 1.0])).to_filename(paths[-1])
    return paths


@pytest.mark.parametrize("orientation", ["file", "canonical"])
def test_probabilities_are_those_of_the_steps_done_one_by_one(scans, orientation):
    model = ViPTTNet(4, backbone="small", hidden_size=8, feature_size=8, generator=torch.Generator().manual_seed(0))
    found = predict_scans(model, scans, orientation=orientation, **SETTINGS)
    assert found.shape == (3, 4) and np.allclose(found.sum(axis=1), 1)
    volumes = [load_volume(path, depth=6, size=16, orientation=orientation) for path in scans]
    levels = torch.from_numpy(np.rint(np.stack(volumes) * 255)) / 255
    with torch.no_grad():
        expected = model.eval()(levels).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_orientation_changes_what_a_turned_scan_gives(scans):
    model = ViPTTNet(4, backbone="small", hidden_size=8, feature_size=8, generator=torch.Generator().manual_seed(0))
    stored, turned = (predict_scans(model, scans, orientation=o, **SETTINGS) for o in ("file", "canonical"))
    assert np.allclose(stored[0], turned[0], atol=1e-6)  # stored canonically
    assert not np.allclose(stored[1], turned[1], atol=1e-6) and not np.allclose(stored[2], turned[2], atol=1e-6)


def test_a_scan_that_cannot_be_read_is_named(scans):
    scans[1].write_bytes(b"")
    model = ViPTTNet(4, backbone="small", hidden_size=8, feature_size=8)
    with pytest.raises(DataError, match="1.nii.gz: is empty"):
        predict_scans(model, scans, **SETTINGS)
