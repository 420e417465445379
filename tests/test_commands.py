"""Every command that a page shows can be typed, and those that small files are enough for run at reduced parameters."""

import itertools
import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import (
    PAGES,
    PROGRAMS,
    all_commands,
    fault,
    inline_code,
    is_run,
    page_text,
    parameters_fault,
    parameters_of,
    reduced,
    run,
)
from files import write_noise_scan, write_weights
from keras_reference import write_keras_file
from planted import chest, write_scan, write_sound_scans, write_video
from test_lidc import content
from tracked import ROOT, tracked_files

from viptt_core.book.publish import PUBLISHED
from viptt_core.constants import UCF_CLASSES

# A page whose commands its own test runs from the first to the last, each on what the one before left.
WALKED = ("book/own_data.md",)
# What a page's placeholder stands for here.
STANDS_FOR = dict.fromkeys(("DIR", "FOLDER"), "data/imageclef") | {"NAME": "imageclef", "SCANS": "data/new"}
STANDS_FOR |= {"RUN1": "one", "RUN2": "two", "RUN3": "three", "runs/RUN": "runs/one"}
FRAMES = 46  # of a video; the preset `study` takes every third of 45


def typed_here(words):
    """A command at reduced parameters, with this test's files for its placeholders."""
    words = [STANDS_FOR.get(word, word) for word in reduced(list(words))]
    return ["run.ipynb" if word == "out.ipynb" and words[0] == "papermill" else word for word in words]


def to_run():
    """Commands of blocks to run here, once each; those that train, which tests of notebooks do every day, are slow."""
    found = {}
    for shown in all_commands():
        if "medmnist3d" in shown.words:  # only the published files will do
            continue
        if not shown.within and shown.page not in WALKED and is_run(list(shown.words)):
            words = typed_here(shown.words)
            found.setdefault(tuple(sorted(words)), words)  # README and page may give the same options in another order
    for words in found.values():
        slow = words[0] == "papermill" and "--help-notebook" not in words
        yield pytest.param(words, marks=[pytest.mark.slow] * slow, id=" ".join(words)[:90])


# --- They can be typed ----------------------------------------------------------------------------


def test_every_command_of_every_page_is_what_its_program_takes():
    faults = [f"{shown}: {what}" for shown in all_commands() if (what := fault(shown.words, within=shown.within))]
    assert not faults, "\n".join(faults)
    assert len(all_commands()) > 100


def test_parameters_within_a_line_exist():
    """`-p epochs 5` in a sentence: of the notebooks, or of the one that the page is."""
    everywhere = set.union(*map(parameters_of, PUBLISHED))
    seen = 0
    for path in filter(Path.is_file, PAGES):
        known = parameters_of(path.stem) if path.suffix == ".py" else everywhere
        for code in inline_code(page_text(path)):
            if code.startswith(("-p ", "-r ")) and "NAME" not in code:
                seen += 1
                what = parameters_fault(shlex.split(code), known)
                assert not what or code.split()[1:] == code.split()[1:2], f"{path.name}: {code}: {what}"
    assert seen > 10


def test_the_lines_of_the_makefile_are_what_their_programs_take():
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    recipes = [" ".join(shlex.split(line)[1:]) for line in text.splitlines() if "@$(IN_VENV) " in line]
    typed = [command.split() for recipe in recipes for command in recipe.split("; ")]
    typed = [words for words in typed if words and words[0] in PROGRAMS and "$" not in "".join(words)]
    assert len(typed) > 10
    for words in typed:
        assert not fault(words), words


def test_a_wrong_command_is_told():
    for typed in (
        "viptt data chek DIR",
        "python -m viptt_core train --epoch 0",
        "papermill notebooks/02_finetune.py out.ipynb -p epoch 5",
        "papermill notebooks/02_finetune.py out.ipynb -p preset papr",
        "make dmo",
        "pytest tests/test_none.py",
        "unheard of",
    ):
        assert fault(shlex.split(typed)), typed
    assert not fault(["viptt", "phantom", "--patients"], within=True)
    assert fault(["viptt", "phantom", "--patient"], within=True)


def test_messages_that_the_page_explains_are_those_of_the_program():
    page = (ROOT / "book" / "reproduce.md").read_text(encoding="utf-8")
    table = page.split("| it says |")[1].split("\n\n")[0]
    said = [code for row in table.splitlines()[2:] for code in inline_code(row.split(" | ")[0])]
    of_the_system = {"viptt: command not found", "No space left on device", "Killed"}
    sources = [ROOT / "Makefile", *tracked_files("viptt_core/**/*.py"), *tracked_files("workflow/*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert len(said) > 6 and of_the_system < set(said)
    assert all(message in text for message in set(said) - of_the_system)


# --- They run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A reader's folder with every set that a page names, each as small as its splits allow."""
    root = tmp_path_factory.mktemp("reader")
    (root / "notebooks").symlink_to(ROOT / "notebooks")
    rows = write_sound_scans(root / "data/imageclef", 40)
    for row in rows:
        name, label = row.split(",")
        write_scan(root / "data/own" / name, chest(int(name[4:8])))
        write_scan(root / f"data/mosmed/CT-{int(label) - 1}" / name, chest(int(name[4:8])))
    (root / "data/own/labels.csv").write_text(
        "FileName,diagnosis,patient\n" + "".join(f"{row},P{number}\n" for number, row in enumerate(rows))
    )
    for number, (name, group) in enumerate(itertools.product(UCF_CLASSES, range(1, 6))):
        write_video(root / f"data/ucf50/UCF50/{name}/v_{name}_g{group:02d}_c01.avi", number, FRAMES)
    for number, (name, clip) in enumerate(itertools.product(("jumping", "rowing"), range(6))):
        write_video(root / f"data/own_videos/{name}/clip_{clip:03d}_seq{number:02d}.avi", number, FRAMES)
    for number in range(1, 4):
        write_noise_scan(root / f"data/imageclef/test/TST_{number:04d}.nii.gz", number)
        write_noise_scan(root / f"data/new/scan_{number}.nii.gz", number)
    for name, place in itertools.product(("one", "two", "three"), ("runs/{}/weights", "data/weights/authors-tbt")):
        write_weights(root / f"{place.format(name)}.safetensors", seed=len(name))
    (root / "data/lidc").mkdir()
    nodules = content()
    many = {name: np.concatenate([array] * 5) for name, array in nodules.items() if name != "attr_names"}
    many["volumes"] = np.concatenate([np.roll(nodules["volumes"], k, axis=1) for k in range(5)])
    many["patient"] = np.array([f"P{n}" for n in range(len(many["names"]))])
    many["names"] = np.array([f"N{n}" for n in range(len(many["names"]))])
    np.savez(root / "data/lidc/FILE.npz", **(nodules | many))
    write_keras_file(root / "FILE.h5", num_classes=5, holes=True)
    (root / "out.ipynb").write_text((ROOT / "book/notebooks/02_finetune.ipynb").read_text(encoding="utf-8"))
    return root


@pytest.mark.parametrize("words", list(to_run()))
def test_a_command_runs_at_reduced_parameters(files, words, monkeypatch):
    monkeypatch.setenv("VIPTT_ROOT", str(files))
    monkeypatch.chdir(files)
    code, printed = run(words)
    assert code == 0, f"{shlex.join(words)}: {printed}"
    assert printed.strip() or words[0] == "papermill"
