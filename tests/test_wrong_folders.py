"""Folders as people have them: links, missing rights, odd names, other formats, classes too small to split."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from files import write_labels, write_scan, write_video
from forked import in_child

from viptt_core.check import check_dataset
from viptt_core.check.judge import Checked, judge
from viptt_core.datasets import list_dataset, load_dataset, load_for
from viptt_core.errors import DataError, SettingError
from viptt_core.presets import load_preset

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}
QUIET = {"n_jobs": 1, "progress": False}


def kinds(listing):
    return [(fault.kind, fault.where, fault.level) for fault in listing.faults]


def names(listing):
    return [item.name for item in listing.items]


def write_classes(root, medium="video", classes=("a", "b"), files=2):
    write, ending = (write_video, ".avi") if medium == "video" else (write_scan, ".nii.gz")
    for name in classes:
        for number in range(files):
            write(root / name / f"{name}{number}{ending}")
    return root


# --- Class folders that are called as something else ---


@pytest.mark.parametrize("name", ["masks", "masks1", "masks2", "findings", "seg"])
def test_a_class_folder_may_have_any_name(tmp_path, name):
    listing = list_dataset("folder", write_classes(tmp_path, "scan", ("healthy", name)))
    assert listing.class_names == tuple(sorted(("healthy", name))) and len(listing.items) == 4
    told = [fault for fault in listing.faults if fault.where == name]
    assert [fault.kind for fault in told] == ["class of masks"]
    assert all("classes='healthy'" in fault.remedy and fault.level == "note" for fault in told)


@pytest.mark.parametrize("name", ["findings", "masks"])
def test_scans_of_a_table_may_lie_in_a_folder_of_any_name(tmp_path, name):
    for number in range(2):
        write_scan(tmp_path / "healthy" / f"h{number}.nii.gz")
        write_scan(tmp_path / name / f"f{number}.nii.gz")
    write_labels(tmp_path, "h0,0", "h1,0", "f0,1", "f1,1", header="FileName,Label")
    listing = list_dataset("folder", tmp_path)
    assert sorted(names(listing)) == ["f0.nii.gz", "f1.nii.gz", "h0.nii.gz", "h1.nii.gz"] and listing.faults == ()


@pytest.mark.parametrize("place", ["masks", "seg", "deeper/masks1"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_masks_beside_the_scans_of_a_table_are_no_scans(tmp_path, place, ending):
    for number in range(3):
        write_scan(tmp_path / "ct" / f"s{number}.nii.gz")
        write_scan(tmp_path / place / f"s{number}{ending}")
    write_labels(tmp_path, "s0,0", "s1,1", "s2,1", header="FileName,Label")
    listing = list_dataset("folder", tmp_path)
    assert names(listing) == ["s0.nii.gz", "s1.nii.gz", "s2.nii.gz"] and listing.faults == ()


def test_a_folder_with_a_plus_in_its_name_is_a_class_and_none_is_named_twice(tmp_path):
    write_classes(tmp_path, classes=("a", "b", "a+b"))
    assert list_dataset("folder", tmp_path).class_names == ("a", "a+b", "b")
    assert len(list_dataset("folder", tmp_path, classes="a+b, a").items) == 4
    for classes in ("a, a", "a, b, b", "b+b, a"):
        with pytest.raises(SettingError, match="name a folder twice"):
            list_dataset("folder", tmp_path, classes=classes)


# --- Links, rights, names ---


@pytest.mark.parametrize("medium", ["video", "scan"])
def test_links_to_folders_and_files_are_followed(tmp_path, medium):
    store = write_classes(tmp_path / "store", medium)
    root = tmp_path / "set"
    root.mkdir()
    (root / "a").symlink_to(store / "a")
    (root / "b").mkdir()
    for path in (store / "b").iterdir():
        (root / "b" / path.name).symlink_to(os.path.relpath(path, root / "b"))
    listing, plain = list_dataset("folder", root), list_dataset("folder", store)
    assert names(listing) == names(plain) and len(names(listing)) == 4 and listing.faults == ()
    assert np.array_equal(load_dataset("folder", root, **GRID).clips, load_dataset("folder", store, **GRID).clips)
    if medium == "scan":
        write_labels(root, "a0,0", "a1,0", "b0,1", "b1,1", header="FileName,Label")
        assert len(list_dataset("folder", root).items) == 4


def test_links_in_a_circle_end_and_are_named(tmp_path):
    root = write_classes(tmp_path)
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "self").symlink_to(".")
    (root / "again").symlink_to("a")
    listing = list_dataset("folder", root)
    assert len(listing.items) == 4 and listing.class_names == ("a", "b")
    assert kinds(listing) == [("folder linked twice", where, "left out") for where in ("a/up", "again", "b/self")]


def plant_dangling(root, ending):
    (root / "b" / f"gone{ending}").symlink_to(root / "nowhere" / f"gone{ending}")
    return f"b/gone{ending}", "links to .*nowhere.*No such file"


def plant_circular(root, ending):
    (root / "b" / f"self{ending}").symlink_to(f"self{ending}")
    return f"b/self{ending}", "Too many levels of symbolic links"


def plant_lost_folder(root, ending):
    (root / "c").symlink_to(root / "nowhere")
    return "c", "links to .*nowhere.*No such file"


@pytest.mark.parametrize("plant", [plant_dangling, plant_circular, plant_lost_folder])
@pytest.mark.parametrize("medium", ["video", "scan", "table"])
def test_what_a_link_leads_to_is_read_or_named_and_can_be_left_out(tmp_path, plant, medium):
    root = write_classes(tmp_path, "video" if medium == "video" else "scan")
    if medium == "table":
        write_labels(root, "a0,0", "a1,0", "b0,1", "b1,1", header="FileName,Label")
    where, what = plant(root, ".avi" if medium == "video" else ".nii.gz")
    with pytest.raises(DataError, match=f"(?s){where}: .*{what}.*on_error='skip'"):
        load_dataset("folder", root, **GRID)
    clips = load_dataset("folder", root, on_error="skip", **GRID)
    assert len(clips) == 4 and [fault.where for fault in clips.faults if fault.level != "note"] == [where]
    report = check_dataset("folder", root, **QUIET)
    assert report.spoils and ("unreadable file", where, "file") in kinds(report)


def test_faults_of_classes_that_are_not_asked_for_and_of_what_is_no_data_stop_nothing(tmp_path):
    root = write_classes(tmp_path, classes=("a", "b", "c"))
    (root / "c" / "gone.avi").symlink_to("nowhere")
    (root / "a" / "notes.txt").symlink_to("nowhere")
    os.mkfifo(root / "a" / "pipe.avi")  # to open one waits for ever
    (root / "lost+found").mkdir()
    clips = load_dataset("folder", root, classes="a, b", **GRID)
    assert len(clips) == 4 and sorted(fault.where for fault in clips.faults) == ["a/notes.txt", "a/pipe.avi"]


@pytest.fixture
def open_folder():
    """A folder that another user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def bound_by_rights(function):
    """Call it as a user whom the modes of files bind."""
    if os.getuid():
        function()
    else:
        nobody = 65534
        assert in_child(lambda: (os.setgid(nobody), os.setuid(nobody), function())) == 0


@pytest.mark.parametrize("where", ["b/b0.avi", "b"])
def test_files_and_folders_without_rights_are_named_and_can_be_left_out(open_folder, where):
    root = write_classes(open_folder, classes=("a", "b", "c"))
    judge(Checked(list_dataset("folder", root), [], load_preset("study")))  # imports
    kind = "unreadable folder" if where == "b" else "unreadable file"
    (root / where).chmod(0)

    def look():
        listing = list_dataset("folder", root)
        assert kinds(listing) == [(kind, where, "file")]
        with pytest.raises(DataError, match=f"(?s){where}: cannot be read .Permission denied.*on_error='skip'"):
            listing.check_usable("raise")
        listing.check_usable("skip")
        checked = Checked(listing, [], load_preset("study"))
        assert where not in {fault.where for fault in judge(checked) if fault.level == "note"}

    bound_by_rights(look)
    (root / where).chmod(0o755)


def test_a_set_without_rights_is_named(open_folder):
    root = write_classes(open_folder / "set")
    root.chmod(0)

    def look():
        with pytest.raises(DataError, match="set: cannot be read .Permission denied"):
            list_dataset("folder", root)

    bound_by_rights(look)
    root.chmod(0o755)


@pytest.mark.parametrize("medium", ["video", "scan"])
@pytest.mark.parametrize("folder", [False, True])
def test_names_that_are_not_utf_8_are_refused_in_words_that_can_be_written(tmp_path, medium, folder):
    root = write_classes(tmp_path, medium)
    path = next((root / "b").iterdir())
    name = "\udcfc"  # a byte 0xFC, ü in Latin-1
    path.parent.rename(root / f"b{name}") if folder else path.rename(path.with_name(f"{name}{path.name}"))
    listing = list_dataset("folder", root, classes="a, b" if folder else None)
    fault = next(fault for fault in listing.faults if fault.kind == "name not UTF-8")
    assert fault.level == "file" and r"\xfc" in fault.where and json.dumps(fault.where).isascii()
    str(fault).encode()
    with pytest.raises(DataError, match="not UTF-8") as caught:
        load_dataset("folder", root, **GRID)
    str(caught.value).encode()
    if not folder:
        clips = load_dataset("folder", root, on_error="skip", **GRID)
        assert len(clips) == 3
        clips.report().encode()
    str(check_dataset("folder", root, **QUIET)).encode()


# --- Formats ---


@pytest.mark.parametrize(
    "ending, container, codec",
    [
        (".MOV", "mov", "mpeg4"),
        (".m4v", "mp4", "mpeg4"),
        (".mpg", "mpeg", "mpeg1video"),
        (".MPEG", "mpeg", "mpeg1video"),
        (".m2v", "mpeg2video", "mpeg2video"),
        (".wmv", "asf", "wmv2"),
        (".asf", "asf", "wmv2"),
        (".flv", "flv", "flv"),
        (".3gp", "3gp", "mpeg4"),
        (".ts", "mpegts", "mpeg2video"),
        (".MTS", "mpegts", "mpeg2video"),
        (".vob", "mpeg", "mpeg2video"),
        (".divx", "avi", "mpeg4"),
    ],
)
def test_videos_of_any_common_ending_are_read(tmp_path, ending, container, codec):
    for level, name in ((60, "a"), (180, "b")):
        (tmp_path / name).mkdir()
        with av.open(str(tmp_path / name / f"clip{ending}"), "w", format=container) as file:
            stream = file.add_stream(codec, rate=25, width=48, height=32, pix_fmt="yuv420p")
            for _ in range(6):
                frame = np.full((32, 48, 3), level, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            file.mux(stream.encode())
    clips = load_dataset("folder", tmp_path, **GRID)
    assert clips.class_names == ("a", "b") and clips.faults == ()
    assert np.abs(clips.clips[:].mean(axis=(1, 2, 3)) - (60, 180)).max() < 8


@pytest.mark.parametrize(
    "files, words",
    [
        (["a/c1/0001.jpg", "a/c1/0002.jpg", "b/c2/0001.jpg"], "found: 3 .jpg.*ffmpeg .*CLIP/.*.jpg.* CLIP.avi"),
        (["a/c1/0001.PNG", "b/c2/0001.PNG", "notes.txt"], "found: 2 .PNG, 1 .txt.*ffmpeg .*CLIP/.*.PNG"),
        (["a/s1/1.dcm", "a/s1/2.dcm", "b/s2/1.dcm"], "found: 3 .dcm.*DICOM.*dcm2niix"),
        (["a/s1/IM1", "b/s2/IM1"], "found: 2 without an ending.*DICOM.*dcm2niix"),
        (["notes.txt", "more.txt", "a/c1/1.jpg"], "found: 2 .txt, 1 .jpg.*ffmpeg"),
        (["set.zip"], "found: 1 .zip.*Unpack"),
        (["a/x.mha", "b/y.mha"], "found: 2 .mha"),
        ([], "found: nothing"),
    ],
)
@pytest.mark.parametrize("name", ["folder", "ucf50"])
def test_a_folder_of_other_files_is_told_what_it_holds_and_what_to_do(tmp_path, files, words, name):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(bytes(128) + b"DICM" if "/IM" in file else b"?")
    with pytest.raises(DataError, match=f"(?s)holds no videos.*{words}") as caught:
        load_dataset(name, tmp_path, **GRID)
    assert "CSV" not in str(caught.value)
    assert any(fault.kind == "no videos" for fault in check_dataset(name, tmp_path, **QUIET).faults)


@pytest.mark.parametrize(
    "file, words",
    [
        ("worse/p1/IM1", "holds 1 without an ending. Convert DICOM"),
        ("worse/1.dcm", "holds 1 .dcm. Convert DICOM"),
        ("worse/s.nrrd", "holds 1 .nrrd"),
        ("worse/s.nii.gz.part", "holds 1 .part"),
        ("worse/set.zip", "holds 1 .zip. Unpack"),
        ("worse/v01/1.jpg", "holds 1 .jpg. Make a video"),
        ("worse/p0/s{ending}", "holds 1 {ending}. Lay files out as CLASS/FILE"),
    ],
)
@pytest.mark.parametrize("medium, ending", [("video", ".avi"), ("scan", ".nii.gz")])
def test_a_class_folder_of_which_nothing_is_read_is_a_fault(tmp_path, file, words, medium, ending):
    path = write_classes(tmp_path, medium) / file.format(ending=ending)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(128) + b"DICM" if "IM" in file else b"?")
    assert kinds(list_dataset("folder", tmp_path)) == [("folder not read", "worse", "file")]
    with pytest.raises(DataError, match=f"worse: is not read; it {words.format(ending=ending)}.*classes='a, b'"):
        load_dataset("folder", tmp_path, **GRID)
    assert not any(fault.spoils for fault in list_dataset("folder", tmp_path, classes="a,b").faults)
    path.rename(path.with_name("notes.pdf"))
    assert list_dataset("folder", tmp_path).faults == ()


@pytest.mark.parametrize("table", [True, False])
def test_a_series_of_dicom_among_the_scans_is_told(tmp_path, table):
    path = write_classes(tmp_path, "scan") / "a" / "series" / "1.dcm"
    path.parent.mkdir()
    path.write_bytes(b"?")
    if table:
        write_labels(tmp_path, "a0,0", "a1,0", "b0,1", "b1,1", header="FileName,Label")
    assert kinds(list_dataset("folder", tmp_path)) == [("folder not read", "a/series", "left out")]


@pytest.mark.parametrize("above", ["", "data/", "data/train/x/"])
def test_videos_in_no_class_folders_are_told_how_to_lie(tmp_path, above):
    write_video(tmp_path / f"{above}v.avi") if above != "data/" else write_classes(tmp_path / above)
    with pytest.raises(DataError, match="none of them in a folder of its class: .*avi. Lay them out as CLASS/FILE"):
        load_dataset("folder", tmp_path, **GRID)


@pytest.mark.parametrize("other", ["A", " a", "\u201ca\u201d"])
def test_class_folders_that_differ_in_spelling_alone_are_noted(tmp_path, other):
    listing = list_dataset("folder", write_classes(tmp_path, classes=("a", "b", other)))
    (fault,) = listing.faults
    assert (fault.kind, fault.level) == ("near-equal values", "note") and len(listing.class_names) == 3
    assert repr(other) in f"{fault.what} {fault.where!r}" and "'a'" in f"{fault.what} {fault.where!r}"


@pytest.mark.parametrize("medium", ["video", "scan"])
def test_a_csv_beside_class_folders_is_noted(tmp_path, medium):
    write_classes(tmp_path, medium)
    rows = ["a0,0", "b0,1"] if medium == "video" else ["x,1"]
    write_labels(tmp_path, *rows, header="FileName,Label" if medium == "video" else "one,two")
    listing = list_dataset("folder", tmp_path)
    assert kinds(listing) == [("table not read", "labels.csv", "note")] and len(listing.items) == 4


# --- Classes too small to split ---


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    def decoded(*_, **__):
        pytest.fail("decoded a file")

    monkeypatch.setattr("viptt_core.video.load_clip", decoded)
    monkeypatch.setattr("viptt_core.ct.load_volume", decoded)
    monkeypatch.setattr("viptt_core.synthetic.actions.make_clip", decoded)
    monkeypatch.setattr("viptt_core.synthetic.phantom.make_phantom", decoded)


@pytest.mark.usefixtures("nothing_is_decoded")
@pytest.mark.parametrize(
    "name, n, words",
    [
        ("actions", 40, "(?s)10 faults.*Mixing: this class has 4 groups; 5 are needed"),
        ("phantom", 40, "Fibro-cavernous: this class has 3 groups; 5 are needed"),
    ],
)
def test_too_few_simulated_groups_are_named_before_any_is_simulated(name, n, words):
    with pytest.raises(DataError, match=f"{words}.*simulate more"):
        load_for(load_preset("study"), name, n=n, **QUIET)


@pytest.mark.usefixtures("nothing_is_decoded")
@pytest.mark.parametrize("medium", ["video", "scan", "table"])
def test_too_few_groups_of_ones_own_are_named_before_any_is_decoded_and_by_a_check(tmp_path, medium, monkeypatch):
    settings = {"group_pattern": r"(p\d+)"}
    write, ending = (write_video, ".avi") if medium == "video" else (write_scan, ".nii.gz")
    rows = []
    for name, groups in (("few", 3), ("many", 6)):
        for number in range(6):
            path = write(tmp_path / name / f"{name}p{number % groups}_{number}{ending}")
            rows.append(f"{path.name},{name},{name}{number % groups}")
    if medium == "table":
        write_labels(tmp_path, *rows, header="FileName,Label,Patient")
        settings = {"patient_column": "Patient"}
    with pytest.raises(DataError, match="few: this class has 3 groups; 5 are needed") as caught:
        load_for(load_preset("study"), "folder", tmp_path, **settings, **QUIET)
    report = check_dataset("folder", tmp_path, preset="study", **settings, **QUIET)
    (fault,) = (fault for fault in report.faults if fault.kind == "too few groups")
    assert fault.what in str(caught.value) and fault.where == "few"


def test_enough_groups_and_the_authors_splits_are_not_refused(tmp_path):
    root = write_classes(tmp_path, files=5)
    assert len(load_for(load_preset("study"), "folder", root, **(GRID | {"stride": 1}))) == 10
    few = write_classes(tmp_path / "few", files=2)
    assert len(load_for(load_preset("paper"), "folder", few, **GRID)) == 4
    (few / "a" / "a0.avi").unlink()
    with pytest.raises(DataError, match="a: this class has 1 clip; 2 are needed"):
        load_for(load_preset("paper"), "folder", few, **GRID)


def test_a_class_of_clips_that_are_all_too_short_is_named_by_a_run_and_by_a_check(tmp_path):
    for name, frames in (("run", 6), ("walk", 45)):
        for number in range(6):
            write_video(tmp_path / name / f"{name}_{number}.avi", frames=frames)
    with pytest.raises(DataError, match="run: this class has 0 groups.*6 clips are too short") as caught:
        load_for(load_preset("study"), "folder", tmp_path, **QUIET)
    report = check_dataset("folder", tmp_path, preset="study", **QUIET)
    told = {fault.where: fault.what for fault in report.faults if fault.kind == "too few groups"}
    assert told["run"] in str(caught.value)


@pytest.mark.parametrize("form", ["folders", "table", "joined"])
def test_a_set_of_one_class_is_refused_in_every_form(tmp_path, form):
    settings = {}
    for number in range(6):
        write_scan(tmp_path / "ill" / f"s{number}.nii.gz")
    if form != "folders":
        write_labels(tmp_path, "s0,a", "s1,b", "s2,a", "s3,b", "s4,a", "s5,b", header="FileName,Label")
        settings = {"classes": "a" if form == "table" else "a+b"}
    for preset in ("study", "paper"):
        with pytest.raises(DataError, match="two classes|one class"):
            load_for(load_preset(preset), "folder", tmp_path, **settings, **QUIET)
    report = check_dataset("folder", tmp_path, preset="study", **settings, **QUIET)
    assert "fewer than two classes" in {fault.kind for fault in report.faults if fault.spoils}
