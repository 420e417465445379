"""Tables as people have them: what is wrong with one is said before a scan is read, and nothing is joined wrongly."""

import os
import subprocess
import sys
import unicodedata

import pytest
from files import write_labels, write_scan, write_video

from viptt_core.check import check_dataset
from viptt_core.datasets import list_dataset, load_dataset
from viptt_core.errors import DataError, SettingError

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}
HEADER = "FileName,Label,Patient"


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Six files that only a lister looks at; s00 to s05."""
    monkeypatch.setattr("viptt_core.ct.load_volume", lambda *_, **__: pytest.fail("read a scan"))
    folder = tmp_path / "own"
    for k in range(6):
        (folder / "ct").mkdir(parents=True, exist_ok=True)
        (folder / "ct" / f"s0{k}.nii.gz").write_bytes(b"")
    return folder


def sound_rows(n=6):
    return [f"s0{k}.nii.gz,{'ill' if k % 2 else 'well'},p{k}" for k in range(n)]


def write_table(folder, *rows, header=HEADER, name="labels.csv", encoding="utf-8"):
    (folder / name).write_bytes(("\n".join([header, *rows]) + "\n").encode(encoding))
    return folder / name


def labels_of(listing):
    """Class by name of the file, without its ending."""
    return {item.source.name.split(".")[0]: listing.class_names[item.label] for item in listing.items}


def groups_of(listing):
    return {item.source.name.split(".")[0]: item.group for item in listing.items}


def faults(listing, level="set"):
    return [fault for fault in listing.faults if fault.level == level]


def test_a_sound_table_has_no_faults(scans):
    write_table(scans, *sound_rows())
    listing = list_dataset("folder", scans, patient_column="Patient")
    assert listing.faults == () and listing.class_names == ("ill", "well")
    assert groups_of(listing) == {f"s0{k}": f"p{k}" for k in range(6)}


# --- Structure ---


@pytest.mark.parametrize(
    "text, kind, words",
    [
        ("FileName,Label,Label\ns00,ill,well\n", "columns of one name", "2 columns 'Label' in line 1"),
        ("FileName,Label\ns00,ill\ns01,well, early\ns02,ill\n", "ragged row", "2 columns.*in line 3"),
        ("FileName,Label,Note\ns00,ill,\ns01,well\n", "ragged row", "3 columns.*in line 3"),
        ('"FileName","Label"\n"1","s00","ill"\n"2","s01","well"\n', "ragged row", "in line 2, 3"),  # R's write.table
        ('FileName,Label\ns00,"ill\ns01,well\ns02,ill\n', "unclosed quote", "from line 2"),
        ('FileName,Label\ns00,ill\ns01,"well\ns02,"ill"\ns03,ill\n', "unclosed quote", "from line 3"),
        (
            'FileName,Label,Note\ns00,ill,\ns01,"well,late", \ns02,well,a\ns03,we"ll,"a\n',
            "unclosed quote",
            "from line 5",
        ),
        ('FileName,Label,Note\ns00,ill,a\ns01,well,"' + "x\n" * 70_000, "unclosed quote", "from line 3"),
        ('FileName,Label\ns00,ill\n"\n', "unclosed quote", "from line 3"),
        ("FileName,Label\ns00,ill\ns00.nii.gz,well\n", "duplicate row", "'s00' in line 2, 's00.nii.gz' in line 3"),
        ("FileName,Label\n./ct/s00,ill\ns01,ill\ns00,ill\n", "duplicate row", "'./ct/s00' in line 2, 's00' in line 4"),
        ("FileName,Label\ns00,ill\n,well\n", "row without a file", "line 3 names no file"),
        (f"FileName,Label\ns00,ill\ns01,{'x' * 200_000}\n", "long cell", "line 3 has a cell of 200000 characters"),
        ("FileName,Label\ns00,ill\ns01,w\0ell\n", "damaged file", "holds a NUL byte in line 3"),
    ],
)
def test_a_table_of_the_wrong_structure_is_refused_with_its_lines(scans, text, kind, words):
    (scans / "labels.csv").write_text(text)
    listing = list_dataset("folder", scans)
    assert [fault.kind for fault in faults(listing)] == [kind]
    with pytest.raises(DataError, match=f"(?s)labels.csv.*{words}"):
        load_dataset("folder", scans, **GRID)


UNUSUAL = {
    "several lines": 'FileName,Label,Note\ns00,ill,"two\nlines, s05 is better"\ns01,well,"a ""quote"""\n',
    "inch": 'FileName,Label,Note\ns00,ill,5" nodule\ns01,well,\n',
    "empty cells": "FileName,Label,Note,Note\r\ns00,ill,a,b\r\ns01,well,,,,\r\n\r\n,,,\r\n",
    "blanks": '"FileName" ; "Label"\n"s00" ; "ill"\n"s01" ; "well"\n',
    "tabs, old line ends": "\N{BYTE ORDER MARK}FileName\tLabel\rs00\till\rs01\twell\r",
    "sep=": "sep=;\nFileName;Label;Note\ns00;ill;a, b, c\ns01;well;\n",
    "sep=tab": '"sep=\t"\r\nFileName\tLabel\r\ns00\till\r\ns01\twell\r\n',
    "blank lines": "\n,,\n\nFileName;Label\ns00;ill\ns01;well\n",
    "commas in the header": "FileName;Label;Note (kind, side, size)\ns00;ill;a, b\ns01;well;\n",
    "commas in quotes": 'FileName;"Age, years, or more, if known";Label\ns00;8;ill\ns01;9;well\n',
    "long note": f"FileName,Label,Note\ns00,ill,{'x' * 200_000}\ns01,well,\n",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_table_that_means_one_thing_is_read(scans, name):
    (scans / "labels.csv").write_bytes(UNUSUAL[name].encode())
    listing = list_dataset("folder", scans)
    assert labels_of(listing) == {"s00": "ill", "s01": "well"} and not faults(listing)


# --- Words for "missing", near-equal words ---

MISSING = ["", "nan", "NaN", "NA", "None", "n/a", "N/A", "NULL", "<NA>", "#N/A", "-", "\u2013", ".", "  ", "\u200b"]
MISSING += ["#REF!", "#VALUE!", "#DIV/0!", "NA_character_", "N.A.", "N / A", "--", "?", "(blank)", "1.#IND"]


@pytest.mark.parametrize("word", MISSING)
def test_a_label_or_patient_that_is_missing_is_a_fault_before_work(scans, word):
    write_table(scans, *sound_rows(5), f"s05,{word},p5")
    with pytest.raises(DataError, match=r"labels.csv.*'s05' has no label \(line 7"):
        load_dataset("folder", scans, **GRID)
    write_table(scans, *sound_rows(5), f"s05,ill,{word}")
    with pytest.raises(DataError, match=r"labels.csv.*'s05' has no patient \(line 7"):
        load_dataset("folder", scans, patient_column="Patient", **GRID)
    assert len(list_dataset("folder", scans).items) == 6  # nobody asked for patients


def test_a_class_that_is_called_like_a_missing_value_can_be_asked_for(scans):
    write_table(scans, *sound_rows(4), "s04,None,p", "s05,NA,p")
    listing = list_dataset("folder", scans, classes="well, NA, ill, None")
    assert not listing.faults and listing.class_names == ("well", "NA", "ill", "None")
    assert labels_of(listing)["s04"] == "None" and labels_of(listing)["s05"] == "NA"
    with pytest.raises(DataError, match="write 'NA' just so in the setting classes"):
        load_dataset("folder", scans, classes="well, na, ill, None", **GRID)


def test_the_order_of_classes_does_not_depend_on_hashing(scans):
    write_table(scans, "s00,b,p", "s01,10,p", "s02,nan,p", "s03,inf,p", "s04,2,p", "s05,a,p")
    code = "import sys, viptt_core.datasets as d; print(d.list_dataset('folder', sys.argv[1]).class_names)"
    command, orders = [sys.executable, "-c", code, str(scans)], set()
    for seed in (1, 2):
        orders.add(subprocess.check_output(command, env=os.environ | {"PYTHONHASHSEED": str(seed)}, text=True).strip())
    assert orders == {"('2', '10', 'a', 'b', 'inf')"}


@pytest.mark.parametrize(
    "labels, expected",
    [
        (("1", "2", "1", "2.0", "1", "2"), {"1": 3, "2": 3}),
        (("Focal", "focal ", "Focal", "Miliary", "FOCAL", "miliary\u00a0"), {"Focal": 4, "Miliary": 2}),
        (("lung cancer", "lung  cancer", "lung cancer", "no", "no", "No"), {"lung cancer": 3, "no": 3}),
        ((unicodedata.normalize("NFD", "gesünder"), "gesünder", "krank", "krank", "krank", "krank"), {"gesünder": 2}),
        (("1", "01", "1_0", "10", "1.5", "1.50"), {"01": 2, "1_0": 1, "10": 1, "1.5": 2}),
        (("T-1", "T\u20111", "T\u20131", "T\u22121", "T-1", "t-1"), {"T-1": 6}),
        (("ill", "i\u200bll", "well", "\u2060ill", "we\u00adll", "ill"), {"ill": 4, "well": 2}),
        (("fibro-cavernous", "fibro cavernous", "fibro_cavernous", "no", "-1", "1"), {"fibro cavernous": 3, "-1": 1}),
        (("1", "+1", "1e0", "+1.0", "ill", "\u201cill\u201d"), {"+1": 4, "ill": 2}),
        (("HER2+", "HER2-", "her2+", "HER2 +", "b", "b"), {"HER2+": 2, "HER2-": 1, "HER2 +": 1}),
        (("lung cancer", "lung\u00a0cancer", "lung\u2009cancer", "no", "no", "no"), {"lung cancer": 3, "no": 3}),
    ],
)
def test_labels_that_differ_in_spelling_alone_are_one_class(scans, labels, expected):
    write_table(scans, *(f"s0{k},{label},p{k}" for k, label in enumerate(labels)))
    listing = list_dataset("folder", scans)
    counts = [labels_of(listing).values()]
    assert {name: list(*counts).count(name) for name in expected} == expected and not faults(listing)
    other = {label.strip() for label in labels} - set(listing.class_names) - {unicodedata.normalize("NFD", "gesünder")}
    assert sorted(fault.what for fault in faults(listing, "note")) == sorted(
        fault.what for label in other for fault in faults(listing, "note") if f"label {label!r} " in fault.what
    )
    assert len(faults(listing, "note")) == len(other)


def test_spellings_that_were_asked_for_stay_two_classes(scans):
    write_table(scans, *(f"s0{k},{label},p" for k, label in enumerate(("T", "t", "T", "t", "T", "t"))))
    assert list_dataset("folder", scans, classes="t,T").class_names == ("t", "T")
    assert list_dataset("folder", scans, classes="t,T").faults == ()


def test_one_patient_is_not_two_for_a_spelling(scans):
    write_table(scans, "s00,ill,1", "s01,well,1.0", "s02,ill,P2", "s03,well,p2", "s04,ill,P2", "s05,well,01")
    listing = list_dataset("folder", scans, patient_column="Patient")
    assert list(groups_of(listing).values()) == ["01", "01", "P2", "P2", "P2", "01"]
    assert {fault.what.split("'")[1] for fault in faults(listing, "note")} == {"1", "1.0", "p2"}
    many = [f"12345678901234567{k}" for k in range(6)]
    write_table(scans, *(f"s0{k},ill,{patient}" for k, patient in enumerate(many)))
    assert list(groups_of(list_dataset("folder", scans, patient_column="Patient")).values()) == many


def test_numbers_with_a_point_are_the_types_of_imageclef(scans):
    write_labels(scans, "s00,1.0", "s01,2.0", "s02,5", "s03,3.0", "s04,4.0", "s05,1")
    listing = list_dataset("imageclef", scans)
    assert [item.label for item in listing.items] == [0, 1, 4, 2, 3, 0] and not faults(listing)


def test_notes_about_a_table_are_in_the_report_of_the_set(tmp_path):
    for k in range(3):
        write_scan(tmp_path / "own" / f"s0{k}.nii.gz")
    write_table(tmp_path / "own", "s00,Focal,p", "s01,focal,q", "s02,Miliary,r")
    assert "Note: labels.csv: the label 'focal'" in load_dataset("folder", tmp_path / "own", **GRID).report()


# --- Settings ---


def test_classes_choose_order_and_join_the_labels_of_a_table(scans):
    write_table(scans, *(f"s0{k},{label},p" for k, label in enumerate(("a", "b", "c", "HER2+", "b", "a"))))
    listing = list_dataset("folder", scans, classes="c, HER2+, b+a")
    assert listing.class_names == ("c", "HER2+", "b+a") and listing.faults == ()
    assert [item.label for item in listing.items] == [2, 2, 0, 1, 2, 2]
    chosen = list_dataset("folder", scans, classes=("b", "a"))
    assert labels_of(chosen) == {"s00": "a", "s01": "b", "s04": "b", "s05": "a"} and chosen.faults == ()
    assert len(list_dataset("folder", scans, classes="all").class_names) == 4
    with pytest.raises(SettingError, match="name a label twice"):
        list_dataset("folder", scans, classes="a, b+a")


def test_a_class_that_no_row_has_is_named(scans):
    write_table(scans, *sound_rows())
    with pytest.raises(DataError, match="labels.csv: has no label 'sick'. There are: ill, well"):
        load_dataset("folder", scans, classes="sick,well", **GRID)


def test_a_group_pattern_groups_the_scans_of_a_table_without_patients(scans):
    write_table(scans, *sound_rows())
    listing = list_dataset("folder", scans, group_pattern=r"^(s0[0-2]|s0)")
    assert list(groups_of(listing).values()) == ["s00", "s01", "s02", "s0", "s0", "s0"]
    with pytest.raises(DataError, match=r"s00.nii.gz.*the group pattern 'x\(\.\)' does not match its name"):
        load_dataset("folder", scans, group_pattern="x(.)", **GRID)
    with pytest.raises(SettingError, match="patient_column and group_pattern both say what belongs together"):
        list_dataset("folder", scans, group_pattern="(s.)", patient_column="Patient")


@pytest.mark.parametrize("medium", ["scan", "video"])
@pytest.mark.parametrize("setting", ["file_column", "label_column", "patient_column"])
def test_columns_beside_class_folders_without_a_table_are_refused(tmp_path, setting, medium):
    for name in ("ill", "well"):
        path = tmp_path / "own" / name / {"scan": "a.nii.gz", "video": "a.avi"}[medium]
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    why = "there is no CSV in" if medium == "scan" else "videos take no label table"
    with pytest.raises(SettingError, match=f"{setting} is 'X', and {why}"):
        list_dataset("folder", tmp_path / "own", **{setting: "X"})
    with pytest.raises((DataError, SettingError), match="no such file" if medium == "scan" else why):
        list_dataset("folder", tmp_path / "own", labels="none.csv")


@pytest.mark.parametrize("settings", [{"hu_window": (-100, 100)}, {"stride": 2}, {"frame": 3}])
def test_a_setting_without_use_is_refused_whoever_loads(tmp_path, settings):
    from viptt_core.datasets import load_for
    from viptt_core.presets import load_preset

    write_video(tmp_path / "a" / "x_g1.avi")
    write_video(tmp_path / "b" / "x_g2.avi")
    name, root = ("folder", tmp_path) if "stride" not in settings else ("phantom", "")
    for load in (load_dataset, lambda *given, **more: load_for(load_preset("demo"), *given, **more)):
        with pytest.raises(SettingError, match=next(iter(settings))):
            load(name, root, **settings)
    with pytest.raises(SettingError, match=next(iter(settings))):
        list_dataset(name, root, **settings)


# --- Paths ---


SPELLINGS = ["{name}", "{stem}", "./{name}", "./ct/{stem}", "ct/{name}", r"ct\{name}", r".\ct\{stem}", "own/ct/{name}"]
SPELLINGS += ["{root}/ct/{name}", "{root}/ct/../ct/{stem}", "{upper}", "../own/ct/{name}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("place", [".", "../tables"])
def test_a_row_names_its_scan_in_any_of_these_ways(scans, spelling, place):
    (scans / place).mkdir(exist_ok=True)
    write_table(scans / place, "x,y", header="one,two", name="notes.csv")
    rows = []
    for k in range(6):
        name = f"s0{k}.nii.gz"
        row = spelling.format(name=name, stem=name[:3], upper=f"s0{k}.NII.GZ", root=scans)
        rows.append(f"{row},{'ill' if k % 2 else 'well'},p")
    table = write_table(scans / place, *rows)
    listing = list_dataset("folder", scans, labels=table)
    assert labels_of(listing) == {f"s0{k}": "ill" if k % 2 else "well" for k in range(6)} and not listing.faults


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_letters_are_the_same(tmp_path, forms):
    on_disk, in_table = (unicodedata.normalize(form, "Müller") for form in forms)
    (tmp_path / "own").mkdir()
    for name in (on_disk, "s00"):
        (tmp_path / "own" / f"{name}.nii.gz").write_bytes(b"")
    write_table(tmp_path / "own", f"{in_table}.nii.gz,ill,p", "s00,well,q")
    listing = list_dataset("folder", tmp_path / "own")
    assert len(listing.items) == 2 and not listing.faults


@pytest.mark.parametrize("row", ["D:\\ct\\s05.nii.gz", "/elsewhere/s05.nii.gz", "S05", "s_05", "s05.nii", "s5"])
def test_a_row_that_only_comes_near_means_no_file(scans, row):
    write_table(scans, *sound_rows(5), f"{row},ill,p")
    with pytest.raises(DataError, match="line 7 of labels.csv names it, but there is no such file"):
        load_dataset("folder", scans, **GRID)


def test_a_row_with_a_fault_is_told_once(scans):
    write_table(scans, *sound_rows(5), "s05,ill,")
    listing = list_dataset("folder", scans, patient_column="Patient")
    assert [(fault.kind, fault.where) for fault in listing.faults] == [("no patient", "labels.csv")]


@pytest.mark.parametrize("place", ["../tables", "tables", "."])
def test_a_fault_names_the_table_where_it_lies(scans, place):
    (scans / place).mkdir(exist_ok=True)
    table = write_table(scans / place, "s00,ill")
    with pytest.raises(DataError) as refused:
        load_dataset("folder", scans, labels=table, **GRID)
    assert f"{os.path.normpath(table)}: has 3 columns" in str(refused.value)


def test_a_file_in_another_folder_is_not_taken_for_the_one_meant(scans):
    write_table(scans, *sound_rows(5), "p2/s05.nii.gz,ill,p")
    listing = list_dataset("folder", scans)
    assert [fault.kind for fault in faults(listing, "file")] == ["missing file"] and len(listing.items) == 5


def test_the_nearer_of_two_paths_is_meant(tmp_path):
    for place in ("b", "a/b"):
        (tmp_path / "own" / place).mkdir(parents=True)
        (tmp_path / "own" / place / "s.nii.gz").write_bytes(b"")
    write_table(tmp_path / "own", "b/s.nii.gz,ill,p", "a/b/s.nii.gz,well,p")
    listing = list_dataset("folder", tmp_path / "own")
    assert {item.name: listing.class_names[item.label] for item in listing.items} == {
        "b/s.nii.gz": "ill",
        "a/b/s.nii.gz": "well",
    }


# --- Encodings, names of columns ---


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "cp1252"])
@pytest.mark.parametrize("settings", [{}, {"labels": "labels.csv"}])
def test_a_table_that_is_not_utf_8_says_so(scans, encoding, settings):
    words = f"but {encoding.upper()}" if "utf" in encoding else "but Windows-1252 or the like"
    write_table(scans, *sound_rows(5), "s05,völlig gesund,p", encoding=encoding)
    with pytest.raises(DataError, match=f"labels.csv: is not UTF-8 text, {words}"):
        load_dataset("folder", scans, **settings, **GRID)


@pytest.mark.parametrize(
    "header, encoding, words",
    [
        ("Dateiname,Diagnose,Patienten-Nr.", "utf-8", r"Befunde.csv \(UTF-8\) has: Dateiname, Diagnose, Patienten-Nr"),
        ("Datei;Prüfung;Größe", "cp1252", r"Befunde.csv \(Windows-1252 or the like\) has: Datei, Prüfung, Größe"),
        ("Datei\tPrüfung", "utf-16", r"Befunde.csv \(UTF-16\) has: Datei, Prüfung"),
        ("filename,label", "utf-8-sig", r"Befunde.csv \(UTF-8\) has: filename, label"),
    ],
)
def test_a_table_with_other_columns_is_described_before_any_scan_is_read(scans, header, encoding, words):
    write_table(scans, "s00,krank,1", header=header, name="Befunde.csv", encoding=encoding)
    remedies = {"folder": "file_column, label_column, patient_column", "imageclef": "Call its columns FileName and Ty"}
    for name, remedy in remedies.items():
        with pytest.raises(DataError, match=f"(?s)holds no CSV.*{words}.*{remedy}"):
            load_dataset(name, scans, **GRID)


@pytest.mark.parametrize(
    "plant, words",
    [
        (lambda root: (root / "labels.csv").symlink_to("nowhere"), "labels.csv links to nowhere"),
        (lambda root: (root / "labels.xlsx").write_bytes(b""), "also: labels.xlsx.*'CSV UTF-8'"),
        (lambda root: (root / "labels.tsv").write_text("FileName\tLabel\n"), "also: labels.tsv"),
        (lambda root: None, "one folder a class, the files directly in it"),
    ],
)
def test_a_label_table_that_is_not_read_is_named_among_those_there(tmp_path, plant, words):
    (tmp_path / "train" / "ill").mkdir(parents=True)
    (tmp_path / "train" / "ill" / "s0.nii.gz").write_bytes(b"")
    plant(tmp_path)
    with pytest.raises(DataError, match=f"holds no CSV .*{words}"):
        list_dataset("folder", tmp_path)


def test_a_file_that_may_not_be_read_is_named(scans):
    table = write_table(scans, *sound_rows())
    table.unlink()
    table.mkdir()
    with pytest.raises(DataError, match="labels.csv: cannot be read"):
        load_dataset("folder", scans, labels=table, **GRID)


def test_dicom_is_called_so_and_the_command_that_converts_is_given(tmp_path):
    for place in ("ill/series", "well/series"):
        (tmp_path / "own" / place).mkdir(parents=True)
        for k in range(3):
            (tmp_path / "own" / place / f"IM{k}").write_bytes(bytes(128) + b"DICM" + bytes(200))
    for name in ("folder", "imageclef", "mosmed"):
        with pytest.raises(DataError, match=r"(?s)no .*DICOM.*dcm2niix") as refused:
            load_dataset(name, tmp_path / "own", **GRID)
        report = check_dataset(name, tmp_path / "own", n_jobs=1, progress=False)
        assert [f.what for f in report.faults if f.what in str(refused.value) and "dcm2niix" in f.remedy]


# --- Groups of files in class folders ---


@pytest.fixture
def clips(tmp_path):
    """Two classes of four videos each; the table says that two by two are of one source."""
    for name in ("fight", "calm"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for k in range(4):
            (tmp_path / "own" / name / f"{name}{k}.mp4").write_bytes(b"")
    rows = [f"{name}/{name}{k}.mp4,{name},{name}-{k // 2}" for name in ("fight", "calm") for k in range(4)]
    return tmp_path / "own", rows


@pytest.mark.parametrize("lister", ["folder", "ucf50"])
@pytest.mark.parametrize("columns", [3, 2])
def test_a_table_names_the_groups_of_videos(clips, lister, columns):
    root, rows = clips
    rows = [row if columns == 3 else f"{row.split(',')[0].split('/')[1]};{row.split(',')[2]}" for row in rows]
    write_table(root, *rows, header="file,class,source" if columns == 3 else "clip;recording", name="groups.csv")
    for given in ("groups.csv", root / "groups.csv"):
        listing = list_dataset(lister, root, groups=given)
        assert listing.faults == () and listing.class_names == ("calm", "fight")
        assert list(groups_of(listing).values()) == [f"{c}-{k}" for c in ("calm", "fight") for k in (0, 0, 1, 1)]


@pytest.mark.parametrize(
    "change, level, kind, words",
    [
        (lambda rows: rows[1:], "file", "no group", "fight/fight0.mp4.*no group in groups.csv"),
        (lambda rows: [*rows, "fight/x.mp4,fight,s"], "file", "missing file", "x.mp4.*there is no such file"),
        (lambda rows: [*rows, rows[0]], "set", "duplicate row", "is there twice"),
        (lambda rows: [], "set", "empty table", "Add one row a file: file,source"),
        (lambda rows: [rows[0].replace("fight-0", "NA"), *rows[1:]], "set", "no group", "has no group .line 2: 'NA'"),
        (lambda rows: [f"{row},x" for row in rows], "set", "ragged row", "3 columns"),
    ],
)
def test_a_table_of_groups_is_checked_as_labels_are(clips, change, level, kind, words):
    root, rows = clips
    write_table(root, *change(rows), header="file,class,source", name="groups.csv")
    listing = list_dataset("folder", root, groups="groups.csv")
    assert kind in [fault.kind for fault in faults(listing, level)]
    with pytest.raises(DataError, match=f"(?s){words}"):
        load_dataset("folder", root, groups="groups.csv", **GRID)


@pytest.mark.parametrize(
    "header, words",
    [
        ("file,class,source,day", "has the columns file, class, source, day"),
        ("file", "has the columns file"),
    ],
)
def test_a_table_of_groups_with_other_columns_is_refused(clips, header, words):
    root, rows = clips
    write_table(root, *rows, header=header, name="groups.csv")
    with pytest.raises(DataError, match=f"groups.csv: {words}"):
        load_dataset("folder", root, groups="groups.csv", **GRID)


def test_a_table_of_groups_beside_other_settings_or_not_asked_for_is_told(clips):
    root, rows = clips
    write_table(root, *rows, header="file,class,source", name="groups.csv")
    with pytest.raises(DataError, match="no such file"):
        load_dataset("folder", root, groups="none.csv", **GRID)
    for lister in ("folder", "ucf50"):
        with pytest.raises(SettingError, match="groups and group_pattern both say"):
            list_dataset(lister, root, groups="groups.csv", group_pattern="(.)")
    with pytest.raises(SettingError, match="patient_column and groups both say"):
        list_dataset("folder", root, groups="groups.csv", patient_column="P")
    listing = list_dataset("folder", root)
    assert [(f.kind, f.where) for f in listing.faults] == [("table not read", "groups.csv")]


def test_groups_of_other_classes_are_no_fault_where_some_are_chosen(clips):
    root, rows = clips
    (root / "dance").mkdir()
    (root / "dance" / "d.mp4").write_bytes(b"")
    write_table(root, *rows, "dance/d.mp4,dance,d", header="file,class,source", name="groups.csv")
    assert list_dataset("folder", root, groups="groups.csv", classes="fight,calm").faults == ()


def test_groups_beside_a_label_table_are_refused(scans):
    write_table(scans, *sound_rows())
    write_table(scans, *sound_rows(), name="groups.csv", header="file,class,source")
    with pytest.raises(SettingError, match="groups is for one folder a class.*patient_column"):
        list_dataset("folder", scans, groups="groups.csv")


def test_real_videos_are_grouped_by_their_table(shared_data):
    root = shared_data / "videos" / "fight_cctv"
    listing = list_dataset("folder", root, groups="groups.csv")
    lines = (root / "groups.csv").read_text().splitlines()[1:]
    assert {item.name: item.group for item in listing.items} == {
        line.split(",")[0]: line.split(",")[2] for line in lines
    }
    assert len(listing.items) == 300 and not [fault for fault in listing.faults if fault.spoils]
