"""`viptt data`: what it prints, what it hands on, and its exit codes."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from loopback import file, serve
from planted import write_video
from rar_writer import Item, rar4

from viptt_core.cli import main
from viptt_core.sources.registry import RemoteFile, data_source, load_registry


@pytest.fixture
def check(monkeypatch):
    """Stands in for viptt_core.check; `calls` keeps what it was given, `spoils` decides its verdict."""
    stand_in = SimpleNamespace(calls=[], spoils=False)

    class Report:
        spoils = property(lambda self: stand_in.spoils)

        def __str__(self):
            return "the report"

    def check_dataset(name, root, **settings):
        print("reading")  # must not get into the report
        stand_in.calls.append((name, root, settings))
        return Report()

    stand_in.check_dataset = check_dataset
    monkeypatch.setitem(sys.modules, "viptt_core.check", stand_in)
    return stand_in


@pytest.fixture
def no_network(monkeypatch):
    """Downloads copy nothing and unpack nothing: they write what they would have fetched."""
    asked = []

    def download(file, folder, *, progress=True):
        asked.append((file.url, file.checksum))
        path = folder / file.name
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rar4(Item("TOY/a/1.avi", b"one")) if path.suffix == ".rar" else b"content")
        return path

    monkeypatch.setattr("viptt_core.sources.fetch.download", download)
    return asked


def test_list_names_every_set_and_what_is_here(private_root, capsys):
    (private_root / "data" / "imageclef").mkdir(parents=True)
    (private_root / "data" / "imageclef" / "TRN_0001.nii.gz").write_bytes(b"x")
    (private_root / "data" / "ucf50").mkdir()
    (private_root / "data" / "ucf50" / ".UCF50.rar.0123abcd.part").write_bytes(b"x")
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(load_registry())
    here = {line.split()[0]: line[lines[0].index("HERE") :].split("  ")[0] for line in lines}
    assert here["imageclef"] == "yes" and here["ucf50"] == "no" and here["phantom"] == "built in"
    assert "3.2 GB" in lines[1] and "CC BY-NC-ND 3.0" in "\n".join(lines)


@pytest.mark.parametrize("name", list(load_registry()))
def test_of_one_set_all_there_is_is_said(name, capsys):
    assert main(["data", "list", name]) == 0
    text, source = capsys.readouterr().out, data_source(name)
    for part in (source.about, source.licence, source.citation, source.page, *source.notes, *source.steps):
        assert part in text
    assert all(line.strip() in text for line in source.layout.split("\n"))
    assert "{root}" not in text and ("papermill" in text) == (source.kind != "example")


def test_get_fetches_checks_and_says_what_to_type(private_root, check, no_network, capsys):
    assert main(["data", "get", "medmnist3d", "--subset", "fracturemnist3d", "--pixels", "64", "--jobs", "1"]) == 0
    place = private_root / "data" / "medmnist3d" / "fracturemnist3d_64.npz"
    ((url, checksum),) = no_network
    assert url.endswith("fracturemnist3d_64.npz?download=1") and checksum == "md5:f01d7e6316aedf4210da0da5b7437b42"
    ((name, root, settings),) = check.calls
    assert (name, root) == ("medmnist3d", place) and settings["n_jobs"] == 1 and settings["preset"] == "paper"
    text = capsys.readouterr().out
    assert "the report" in text and f"-p dataset medmnist3d -p data_root {place}" in text


def test_get_names_archives_that_can_go(tmp_path, check, no_network, stored_rars, monkeypatch, capsys):
    files = (RemoteFile("https://example.org/Toy.rar", unpack=True),)
    toy = replace(data_source("ucf50"), files=files, size=10)
    monkeypatch.setattr("viptt_core.cli.data.data_source", lambda name: toy)
    assert main(["data", "get", "ucf50", "--root", str(tmp_path), "--no-check"]) == 0
    text = capsys.readouterr().out
    assert f"No longer needed: rm {tmp_path / 'Toy.rar'}" in text and not check.calls
    assert f"-p dataset ucf50 -p data_root {tmp_path / 'Toy'}" in text
    assert (tmp_path / "Toy" / "a" / "1.avi").read_bytes() == b"one"


def test_get_of_a_restricted_set_says_how_until_files_are_there(private_root, check, capsys):
    assert main(["data", "get", "imageclef"]) == 1
    error = capsys.readouterr().err
    assert "1. Register at https://www.aicrowd.com" in error and "5. Run: viptt data check imageclef" in error
    assert not check.calls and "Traceback" not in error
    root = private_root / "data" / "imageclef"
    root.mkdir(parents=True)
    assert main(["data", "get", "imageclef"]) == 1  # still empty
    (root / "TRN_0001.nii.gz").write_bytes(b"x")
    assert main(["data", "get", "imageclef"]) == 0
    assert check.calls[0][:2] == ("imageclef", root)
    assert f"-p dataset imageclef -p data_root {root}" in capsys.readouterr().out
    assert main(["data", "get", "lungpetctdx", "--root", str(root)]) == 1  # only ever shown


@pytest.mark.parametrize("name", ["phantom", "actions"])
def test_a_built_in_set_needs_nothing_and_says_how_it_becomes_files(name, check, capsys):
    assert main(["data", "get", name]) == 0
    text = capsys.readouterr().out
    assert "nothing to get" in text and f"`viptt {name} DIR`" in text and f"-p dataset {name}" in text
    assert not check.calls


def test_one_command_from_a_server_to_a_checked_clip_set(tmp_path, stored_rars, monkeypatch, capsys):
    """UCF50's own way: a RAR behind http, cut off once; its content and the program that unpacks it are stand-ins."""
    for seed, (name, group) in enumerate((name, group) for name in ("Mixing", "Rowing") for group in range(1, 7)):
        write_video(tmp_path / "UCF50" / name / f"v_{name}_g{group:02d}_c01.avi", seed, frames=70)
    files = sorted((tmp_path / "UCF50").rglob("*.avi"))
    content = rar4(*(Item(path.relative_to(tmp_path).as_posix(), path.read_bytes()) for path in files))
    with serve() as server:
        monkeypatch.setattr("viptt_core.sources.fetch.PAUSE", 0.0)
        server.script(file(content, sent=len(content) // 2), file(content))
        remote = RemoteFile(f"{server.url}/UCF50.rar", unpack=True)
        toy = replace(data_source("ucf50"), files=(remote,), size=None)
        monkeypatch.setattr("viptt_core.cli.data.data_source", lambda name: toy)
        root = tmp_path / "there"
        assert main(["data", "get", "ucf50", "--root", str(root), "--jobs", "1"]) == 0
        assert [asked for asked, _ in server.asked] == [None, None, f"bytes={len(content) // 2}-"]
    text = capsys.readouterr().out
    assert "SOUND" in text and f"-p data_root {root / 'UCF50'}" in text
    assert [path.read_bytes() for path in sorted((root / "UCF50").rglob("*.avi"))] == [p.read_bytes() for p in files]
    assert {path.name for path in root.iterdir() if path.name[0] != "."} == {"UCF50", "UCF50.rar", "UCF50.rar.sha256"}


def test_check_hands_its_settings_on_and_prints_the_report_alone(tmp_path, check, capsys):
    own = {"labels": "l.csv", "file_column": "f", "label_column": "d", "patient_column": "p", "group_pattern": "(g)"}
    own |= {"classes": "a,b"}
    typed = [f"--{name.replace('_', '-')}={value}" for name, value in own.items()]
    assert main(["data", "check", "folder", str(tmp_path), "--jobs", "2", *typed]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("the report\n", "reading\n")
    ((name, root, settings),) = check.calls
    assert (name, root) == ("folder", tmp_path)
    given = {key: value for key, value in settings.items() if value is not None}
    assert given == {"preset": "paper", "n_jobs": 2} | own


@pytest.mark.parametrize(
    "typed, told",
    [
        (["get", "medmnist3d"], "the report\n"),
        (["check", "ucf50", "DIR"], "the report\n"),
    ],
)
def test_a_set_with_something_that_spoils_exits_with_one(check, no_network, capsys, typed, told):
    check.spoils = True
    assert main(["data", *typed]) == 1
    out, err = capsys.readouterr()
    assert told in out and "Next" not in out and ("Mend this first" in err) == (typed[0] == "get")


@pytest.mark.parametrize("arguments", [["check", "ucf5", "x"], ["get", "ucf5"], ["list", "ucf5"]])
def test_an_unknown_set_names_the_near_one(arguments, capsys):
    assert main(["data", *arguments]) == 1
    assert "Did you mean 'ucf50'" in capsys.readouterr().err
    assert main(["data", "check", "lungpetctdx", "x"]) == 1  # nothing is trained on it
