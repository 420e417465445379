"""The command line: helps, and says errors in a line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from viptt_core.cli import build_parser, main

ROOT = Path(__file__).resolve().parents[1]


def test_presets_are_listed_and_shown_and_a_mistake_is_one_line_and_exit_code_one(capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["paper", "corrected", "frozen", "demo", "study"]
    assert main(["presets", "paper"]) == 0
    assert json.loads(capsys.readouterr().out)["finetune"]["batch_size"] == 2
    assert main(["presets", "papr"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("viptt: ") and "Did you mean 'paper'" in error and "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [["phantom", "~/my set"], ["data", "get", "ucf50", "--root=~/my set"], ["summary", "~/my set"]]
)
def test_a_tilde_that_the_shell_left_is_the_home_folder(tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = vars(build_parser().parse_args(arguments))
    assert tmp_path / "my set" in options.values()


def test_names_may_stand_behind_options():
    typed = ["study", "run", "synthetic", "image", "--jobs", "2", "video, 60 videos", "--seeds", "3", "baselines"]
    options = build_parser().parse_args(typed)
    assert (options.arms, options.jobs, options.seeds) == (["image", "video, 60 videos", "baselines"], 2, 3)


@pytest.mark.parametrize(
    "typed, command, told",
    [
        ("predict scans --wieghts w", "predict", "the following arguments are required: --weights"),
        ("data check folder d --label-colum=a --labls x", "data check", "--labls x; did you mean '--labels'?"),
        ("data chek folder d", "data", "invalid choice: 'chek' (choose from "),
        ("predct", "", "invalid choice: 'predct' (choose from "),
        ("env now", "env", "not known here: now"),
        ("phantom d --zzz", "phantom", "not known here: --zzz"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_usage_of_its_command(typed, command, told, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(typed.split())
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and told in said and said.startswith(f"usage: viptt {command}".strip())


def test_a_default_stands_in_the_help_and_an_interruption_is_no_traceback(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(["phantom", "--help"])
    assert "(default: 512)" in (said := capsys.readouterr().out) and "(default: 0)" in said and "SUPPRESS" not in said

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("viptt_core.files.provenance", interrupt)
    assert main(["env"]) == 130 and "viptt: interrupted" in capsys.readouterr().err


def test_the_summary_of_an_executed_notebook_is_printed(tmp_path, capsys):
    output = {"output_type": "display_data", "data": {"application/vnd.viptt.summary+json": {"text": "kappa 0.5"}}}
    cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": [{"name": "stdout"}, output]}]
    path = tmp_path / "out.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}}))
    assert main(["summary", str(path)]) == 0
    assert capsys.readouterr().out == "kappa 0.5\n"
    path.write_text(json.dumps({"cells": cells[:1], "metadata": {}}))
    assert main(["summary", str(path)]) == 1
    assert "out.ipynb: holds no result table" in capsys.readouterr().err
    assert main(["summary", str(tmp_path / "none.ipynb")]) == 1


def test_synthetic_folders_are_written_and_say_how_to_read_them(tmp_path, capsys):
    scans, videos = tmp_path / "scans", tmp_path / "videos"
    assert main(["phantom", str(scans), "-n", "2", "--size", "24", "--slices", "6", "--jobs", "1"]) == 0
    assert len(list(scans.glob("TRN_*.nii.gz"))) == 2
    assert main(["actions", str(videos), "--groups", "1", "--clips", "1", "--jobs", "1"]) == 0
    assert len(list(videos.glob("*/v_*_g01_c01.avi"))) == 10
    printed = capsys.readouterr().out
    assert f"-p dataset imageclef -p data_root {scans}" in printed
    assert f"-p pretrain_dataset ucf50 -p pretrain_root {videos}" in printed


def test_a_pipe_that_is_closed_early_is_no_error():
    command = f"{sys.executable} -m viptt_core presets paper | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == ""
