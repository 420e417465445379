"""The page Performance reads what the benchmarks wrote, and says what was not measured."""

import json
import re
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `benchmarks` is not installed: it belongs to the checkout
    sys.path.insert(0, str(ROOT))

from benchmarks import MEASURED, NO_TARGET, NOT_MEASURED, Record, at_least, at_most, profiling, summarise  # noqa: E402
from viptt_core.book import publish  # noqa: E402
from viptt_core.errors import DataError  # noqa: E402
from viptt_core.figures import Picture  # noqa: E402
from viptt_core.figures.performance import PARTS, profile_chart, ratio_chart, scaling_chart  # noqa: E402
from viptt_core.performance import load_results, profile_table, results_table  # noqa: E402

MACHINE = {
    "cpu": "Some CPU",
    "cores": 2,
    "threads": 2,
    "flags": ["avx2"],
    "system": "Linux x86_64",
    "python": "3.12.1",
    "torch": "2.15.0",
    "gpu": None,
}
ORIGIN = {"commit": "0123456789abcdef+", "date": "2026-11-25T10:00:00+00:00"}
BASE = {"clips": 1, "frames": 8, "size": 112}


def record(name, target, ours, reference=(), **fields):
    value, low, high = summarise(ours, list(reference), target)
    return Record(
        name,
        f"do {name}",
        "a <plain> loop",
        target,
        MEASURED,
        ours=ours,
        reference_values=list(reference),
        value=value,
        low=low,
        high=high,
        met=target.met(value),
        **ORIGIN,
        **fields,
    )


def rows():
    series = [["clips", n, 0.5 * n] for n in (1, 2, 4)] + [["frames", n, 0.0625 * n] for n in (4, 8, 16)]
    series += [["size", n, 0.5 * (n / 112)] for n in (56, 112, 224)]  # half as steep as linear in pixels
    return [
        record("fast", at_least(10), [1.0, 2.0, 4.0], [20.0, 40.0, 60.0], notes=["one & only"]),
        record("slow", at_least(3), [1.0, 1.0], [2.0, 2.0]),
        record("near", at_most(2.5), [2.0, 2.0], [1.0, 1.0]),
        record("memory", at_most(4e9, "bytes"), [2.5e9], unit="bytes"),
        record("growth", NO_TARGET, [1.0], unit="slope", series=series, settings={"base": BASE}),
        Record("card", "do card", "none", NO_TARGET, NOT_MEASURED, reason="no CUDA device on this machine", **ORIGIN),
    ]


def write(folder, name, *, profile="quick", gpu=None, records=None):
    records = rows() if records is None else records
    content = {
        "format": 1,
        "profile": profile,
        "machine": MACHINE | {"gpu": gpu},
        "provenance": ORIGIN,
        "rows": [each.to_json() for each in records],
    }
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def write_profile(folder):
    work = {
        "name": "step",
        "title": "one step",
        "seconds": 0.05,
        "settings": {},
        "parts": [
            {"name": "convolution backward", "share": 0.7, "operators": ["convolution_backward"]},
            {"name": "LSTM", "share": 0.3, "operators": ["lstm"]},
        ],
    }
    content = {"format": 1, "machine": MACHINE, "provenance": ORIGIN, "work": [work]}
    (folder / "profile-cpu.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "quick-cpu.json")
    write_profile(tmp_path)
    return tmp_path


# --- Tables -----------------------------------------------------------------------------------------------


def test_the_table_shows_ratios_targets_and_what_was_not_measured(folder):
    shown = results_table(load_results(folder=folder))
    table = shown.table.set_index("what")
    assert table.loc["do fast", "ratio or value (range)"] == "20x (15x to 20x)"
    assert table.loc["do fast", ["ours / theirs", "target", "met"]].tolist() == ["2 s / 40 s", "at least 10x", "yes"]
    assert table.loc["do slow", "met"] == "no" and table.loc["do near", "ratio or value (range)"] == "2x (2x to 2x)"
    assert table.loc["do memory", "ratio or value (range)"].startswith("2.50 GB")
    assert table.loc["do card", "met"] == "not measured"
    assert "no CUDA device on this machine" in str(load_results(folder=folder).verdict())
    assert set(table["GPU"]) == {"not measured"} and "no result file of a GPU" in str(shown)
    page = shown._repr_mimebundle_()["text/html"]
    assert "overflow-x:auto" in page and "a &lt;plain&gt; loop" in page and "one &amp; only" in page


def test_files_of_other_profiles_and_of_a_gpu_become_columns(folder):
    write(folder, "full-cpu.json", profile="full", records=rows()[:1])
    write(folder, "quick-some-gpu.json", gpu="Some GPU", records=rows()[1:])
    results = load_results(folder=folder)
    table = results_table(results).table.set_index("what")
    assert table.loc["do fast", "full profile, CPU"] == "20x (15x to 20x), met: yes"
    assert table.loc["do slow", "full profile, CPU"] == "not measured"
    assert table.loc["do slow", "quick profile, Some GPU"].endswith("met: no") and "GPU" not in table
    assert "GPU: Some GPU" in str(results.machines())
    assert [row["name"] for row in load_results("full", folder=folder).main["rows"]] == ["fast"]


def test_the_machine_and_the_verdict_are_told(folder):
    results = load_results(folder=folder)
    told = str(results.machines())
    assert all(word in told for word in ("Some CPU", "2 cores", "avx2", "torch 2.15.0", "2026-11-25", "0123456 with"))
    verdict = str(results.verdict())
    assert verdict.startswith("Targets met: 3 of 4 measured. Missed: do slow (2x, target at least 3x).")
    assert "do card (not measured: no CUDA device on this machine)" in verdict


# --- Pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chart", [ratio_chart, scaling_chart, profile_chart])
def test_charts_are_vector_pictures_narrow_enough_for_a_telephone(folder, chart):
    picture = chart(load_results(folder=folder))
    assert isinstance(picture, Picture) and picture.vector
    width = float(re.search(rb'<svg [^>]*width="([\d.]+)pt"', picture.encode("svg", dpi=72), re.DOTALL).group(1))
    assert width < 300  # points: on 375 pixels a letter of 8.5 points is 10 pixels high


def test_alternatives_hold_the_numbers(folder):
    results = load_results(folder=folder)
    assert "do fast 20x, at least 10x" in ratio_chart(results).alt and "do memory" not in ratio_chart(results).alt
    assert "more clips: slope 1.00" in scaling_chart(results).alt
    assert "larger frames: slope 0.50" in scaling_chart(results).alt
    assert "one step: convolution backward 70%, LSTM 30%" in profile_chart(results).alt
    shown = profile_table(results)
    assert "One step: 50 ms, mostly convolution backward (70%) and LSTM (30%)." in str(shown)
    assert shown.table["share"].tolist() == ["70.0%", "30.0%"]


def test_what_is_absent_is_said_in_words(tmp_path):
    write(tmp_path, "quick-cpu.json", records=rows()[-1:])
    results = load_results(folder=tmp_path)
    for show in (ratio_chart, scaling_chart, profile_chart, profile_table):
        assert "not measured" in str(show(results))


# --- Bad files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, what",
    [
        (None, "is not there"),
        ("{", "cannot be read"),
        ("[]", "no results of this"),
        ('{"format": 2, "rows": [1]}', "no results of this"),
        ('{"format": 1, "rows": []}', "no results of this"),
    ],
)
def test_a_missing_or_damaged_file_is_named_with_the_remedy(tmp_path, text, what):
    if text is not None:
        (tmp_path / "quick-cpu.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=what) as caught:
        load_results(folder=tmp_path)
    assert "quick-cpu.json" in str(caught.value) and "make bench" in str(caught.value)


def test_a_damaged_profile_names_its_own_command(folder):
    (folder / "profile-cpu.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="python -m benchmarks.profiling"):
        load_results(folder=folder)


# --- Stale pages ------------------------------------------------------------------------------------------


def test_the_page_is_stale_when_a_result_file_changes(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    write(results, "quick-cpu.json")
    before = publish.read_version("06_performance", tmp_path)
    assert publish.read_version("06_performance", tmp_path) == before
    assert publish.read_version("00_data", tmp_path) == ""
    write_profile(results)
    after = publish.read_version("06_performance", tmp_path)
    write(results, "quick-cpu.json", records=rows()[:2])
    assert len({before, after, publish.read_version("06_performance", tmp_path)}) == 3


# --- The profile itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, group",
    [
        (("aten::mkldnn_convolution", "aten::conv2d"), "convolution forward"),
        (("aten::convolution_backward", "ConvolutionBackward0"), "convolution backward"),
        (("aten::copy_", "aten::convolution_backward"), "data movement"),
        (("aten::copy_", "Optimizer.step#SGD.step"), "optimiser"),
        (("aten::fill_", "aten::max_pool2d_with_indices_backward"), "pooling"),
        (("aten::threshold_backward", "ReluBackward0"), "ReLU"),
        (("aten::mm", "aten::lstm"), "LSTM"),
        (("aten::addmm", "aten::linear"), "stem and dense layers"),
        (("aten::nll_loss_forward",), "other"),
    ],
)
def test_operators_are_grouped_by_their_own_name_and_their_callers(names, group):
    assert profiling.group_of(names) == group


def test_every_group_has_a_colour_of_its_own():
    assert set(PARTS) >= {*profiling.GROUPS, profiling.OTHER, "decompression", "in-plane resampling"}
    assert len({colour for colour, _ in PARTS.values()}) == len(PARTS)


def test_shares_of_a_real_profile_add_up():
    layer, pixels = torch.nn.Conv2d(1, 4, 3), torch.zeros(1, 1, 32, 32)
    parts = profiling.profile_operators(lambda: layer(pixels).relu(), times=3)
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert {"convolution forward", "ReLU", "other"} <= {part["name"] for part in parts}
    assert [part["share"] for part in parts] == sorted((part["share"] for part in parts), reverse=True)


def test_the_stages_of_a_scan_add_up(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 400, (64, 64, 20)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), tmp_path / "scan.nii.gz")
    parts = {part["name"]: part["share"] for part in profiling.profile_scan(tmp_path / "scan.nii.gz")}
    assert set(parts) == {"decompression", "in-plane resampling", "other"}
    assert sum(parts.values()) == pytest.approx(1) and min(parts.values()) > 0


def test_the_command_writes_what_the_page_reads(tmp_path, monkeypatch, capsys):
    def all_work(frames, size):
        work = profiling.measure(
            "relu",
            "a small step",
            lambda: torch.zeros(8).relu(),
            lambda: profiling.profile_operators(lambda: torch.zeros(8).relu()),
            frames=frames,
            size=size,
            precision="fp32",
        )
        return [work]

    monkeypatch.setattr(profiling, "all_work", all_work)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert profiling.main(["--results", str(tmp_path), "--frames", "4"]) == 0
    assert "profile-cpu.json" in capsys.readouterr().out
    write(tmp_path, "quick-cpu.json")
    assert "Clips of 4 frames of 224 x 224, fp32." in str(profile_table(load_results(folder=tmp_path)))
