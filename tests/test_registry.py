"""The registry of data sets: complete, well formed, and its sets fetched from a server on this machine."""

import hashlib
import re
from pathlib import Path

import pytest
from loopback import file as sent
from loopback import serve
from rar_writer import Item, rar5

from viptt_core.constants import TB_TRAIN_COUNTS
from viptt_core.errors import DataError, SettingError
from viptt_core.files import format_size
from viptt_core.sources import registry
from viptt_core.sources.fetch import fetch
from viptt_core.sources.registry import DataSource, RemoteFile, data_source, load_registry, parse_source, remote_files

# How a reader gets a set, as the tables of the pages say it.
ACCESS = {
    "download": "`viptt data get`",
    "registration": "registration",
    "request": "by hand",
    "yours": "you have it",
    "built in": "built in",
}
NAMES = ("ucf50", "imageclef", "medmnist3d", "mosmed", "folder", "phantom", "actions")
TABLE = {
    "title": "T",
    "about": "A",
    "kind": "scan",
    "role": "fine-tuning",
    "licence": "L",
    "access": "download",
    "steps": ["S"],
    "layout": "x",
}
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def server():
    with serve() as loopback:
        yield loopback


def archived(**files: bytes) -> bytes:
    return rar5(*(Item(f"{name.replace('__', '/')}.avi", content) for name, content in files.items()))


def source_of(*files: RemoteFile, **fields) -> DataSource:
    values = {**TABLE, "name": "toy", "steps": tuple(TABLE["steps"]), "files": files}
    return DataSource(**(values | fields))


def test_every_adapter_has_an_entry():
    from viptt_core.datasets import LISTERS

    assert set(LISTERS) <= set(load_registry())


@pytest.mark.parametrize("source", load_registry().values(), ids=lambda source: source.name)
def test_an_entry_is_whole_and_well_formed(source):
    assert source.kind in ("video", "scan", "volume", "any", "example")
    assert set(source.role.split(" or ")) <= {"pretraining", "fine-tuning", "example"}
    assert source.access in ACCESS
    assert source.steps and source.layout
    for url in (source.page, source.licence_url, *(file.url for file in source.files)):
        assert not url or url.startswith("https://")
    if source.access in ("download", "registration", "request"):
        assert source.page and source.citation
    if source.access == "download" and source.name != "medmnist3d":
        assert source.files and source.size > 1e9
    for file in source.files:
        assert re.fullmatch("|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum)


def test_the_registry_agrees_with_the_constants():
    assert data_source("imageclef").n_files == sum(TB_TRAIN_COUNTS)
    assert set(NAMES) <= set(load_registry())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"licnce": "MIT"}, "Did you mean 'licence'"),
        ({"n_files": "5"}, "n_files of .toy. is '5'"),
        ({"steps": "one"}, "steps of .toy. is 'one'"),
    ],
)
def test_a_faulty_entry_is_rejected(change, message):
    with pytest.raises(SettingError, match=message):
        parse_source("toy", TABLE | change)
    assert parse_source("toy", TABLE).steps == ("S",)


def test_medmnist_files_come_with_the_packages_address_and_md5():
    (small,) = remote_files(data_source("medmnist3d"))
    assert small.name == "nodulemnist3d.npz" and small.url.startswith("https://zenodo.org/records/10519652/")
    assert small.checksum == "md5:8755a7e9e05a4d9ce80a24c3e7a256f3"
    (large,) = remote_files(data_source("medmnist3d"), subset="nodulemnist3d", pixels=64)
    assert large.name == "nodulemnist3d_64.npz" and large.checksum == "md5:c47c5b7d457bf6332200d2ea6d64ecd8"
    assert len(registry.medmnist_sets()) == 6
    with pytest.raises(SettingError):
        remote_files(data_source("medmnist3d"), subset="nodulemnist")
    with pytest.raises(SettingError, match="no subsets"):
        remote_files(data_source("ucf50"), subset="nodulemnist3d")


def test_a_set_is_downloaded_unpacked_and_not_asked_for_again(server, tmp_path, stored_rars):
    server.script(sent(archived(Toy__a__1=b"one", Toy__b__2=b"two")), sent(archived(x=b"x", y=b"y")))
    files = (
        RemoteFile(f"{server.url}/set.rar", unpack=True),
        RemoteFile(f"{server.url}/lists.rar", unpack=True),
    )
    root = tmp_path / "new" / "toy"
    assert fetch(source_of(*files), root, progress=False) == root
    assert (root / "set" / "a" / "1.avi").read_bytes() == b"one"  # the archive's only folder got its name
    assert sorted(path.name for path in (root / "lists").iterdir()) == ["x.avi", "y.avi"]
    assert (root / "set.rar").is_file() and not list(root.glob(".*.part"))

    assert server.paths == ["/set.rar", "/lists.rar"]
    (root / "set.rar").unlink()  # the reader is told that it may go
    assert fetch(source_of(files[0]), root, progress=False) == root / "set"
    assert fetch(source_of(*files), root, progress=False) == root
    assert server.paths == ["/set.rar", "/lists.rar"]


def test_a_single_file_is_verified_and_given_as_the_data_root(server, tmp_path):
    server.script(sent(b"content"))
    digest = hashlib.md5(b"content").hexdigest()
    good = RemoteFile(f"{server.url}/toy.npz?download=1", checksum=f"md5:{digest}")
    assert fetch(source_of(good), tmp_path, progress=False) == tmp_path / "toy.npz"
    bad = RemoteFile(f"{server.url}/toy.npz", checksum=f"md5:{'0' * 32}")
    with pytest.raises(DataError):
        fetch(source_of(bad), tmp_path / "other", progress=False)
    assert not (tmp_path / "other" / "toy.npz").exists()


@pytest.mark.parametrize("name", ["imageclef", "folder"])
def test_what_cannot_be_downloaded_says_how_to_get_it(name, tmp_path):
    with pytest.raises(DataError, match="cannot be fetched") as stopped:
        fetch(data_source(name), tmp_path / "x")
    for number, step in enumerate(data_source(name).steps, 1):
        assert f"{number}. {step}" in str(stopped.value)
    assert not (tmp_path / "x").exists()


def registry_table() -> str:
    """The sets as `data/README.md` and the book list them."""
    rows = ["| name | what | files | size | licence | access |", "|---|---|---:|---:|---|---|"]
    for source in load_registry().values():
        title = f"[{source.title}]({source.page})" if source.page else source.title
        licence = f"[{source.licence}]({source.licence_url})" if source.licence_url else source.licence
        count = f"{source.n_files:,}" if source.n_files else ""
        size = format_size(source.size).replace(" ", "\N{NO-BREAK SPACE}")
        cells = (f"`{source.name}`", f"{title}: {source.about}", count, size, licence, ACCESS[source.access])
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


@pytest.mark.parametrize("page", ["data/README.md", "book/data.md"])
def test_the_tables_of_the_pages_are_the_registrys(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert registry_table() in text, f"paste this table into {page}:\n{registry_table()}"
