"""The submission file: written as it must be, and every fault of one found in a single reading."""

import numpy as np
import pytest

from viptt_core.errors import DataError
from viptt_core.submission import (
    counts_text,
    expected_names,
    find_faults,
    validate_submission,
    write_submission,
)

NAMES = expected_names(6)
SOUND = [f"{name},{number}" for name, number in zip(NAMES, (1, 2, 3, 4, 5, 1), strict=True)]
GONE = object()


# --- Writing --------------------------------------------------------------------------------------


def test_a_written_file_is_plain_in_the_order_given_and_sound(tmp_path):
    path = write_submission(tmp_path / "new" / "s.txt", NAMES[::-1], np.array([5, 4, 3, 2, 1, 1]))
    assert (
        path.read_bytes() == b"TST_0006.nii.gz,5\nTST_0005.nii.gz,4\nTST_0004.nii.gz,3\n"
        b"TST_0003.nii.gz,2\nTST_0002.nii.gz,1\nTST_0001.nii.gz,1\n"
    )
    assert [p.name for p in path.parent.iterdir()] == ["s.txt"]
    assert list(validate_submission(path, NAMES).values()) == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "names, classes, message",
    [
        ([NAMES[0], NAMES[1], NAMES[0]], [1, 2, 3], "'TST_0001.nii.gz': more than one scan is named so"),
        (["scans/TST_0001.nii.gz"], [1], "'scans/TST_0001.nii.gz': is not the bare name"),
        (["a.nii.gz", "TST_0001.nii"], [1, 1], "'TST_0001.nii': is not the bare name"),
        (["a,b.nii.gz"], [1], "bare name"),
        (["a.nii.gz\n"], [1], "bare name"),
    ],
)
def test_what_makes_no_sound_file_is_not_written(tmp_path, names, classes, message):
    path = tmp_path / "s.txt"
    path.write_text("the older one")
    with pytest.raises(DataError, match=f"(?s){message}"):
        write_submission(path, names, classes)
    assert path.read_text() == "the older one" and len(list(tmp_path.iterdir())) == 1


# --- Checking -------------------------------------------------------------------------------------


def written(tmp_path, rows, ends="\n", beginning=""):
    path = tmp_path / "s.txt"
    path.write_bytes((beginning + "".join(row + ends for row in rows)).encode())
    return path


def changed(line, row):
    """The sound file with another line (from 1), or without it."""
    return [*SOUND[: line - 1], *([] if row is GONE else [row]), *SOUND[line:]]


def check(path, names=NAMES):
    return find_faults(path.read_bytes(), names, path)


def told(path):
    return [(line_of(fault), fault.kind, f"{fault.what} {fault.remedy}") for fault in check(path)]


def line_of(fault):
    """The line that a fault names, None for one of the whole file."""
    _, _, line = fault.where.partition("s.txt:")
    return int(line) if line else None


def assert_only(found, *expected):
    """Line, kind and some words of every problem."""
    assert [(line, kind) for line, kind, _ in found] == [(line, kind) for line, kind, _ in expected], found
    for (*_, text), (*_, words) in zip(found, expected, strict=True):
        assert words in text


@pytest.mark.parametrize("row", ["TST_0003.nii.gz;3", "TST_0003.nii.gz", "3,TST_0003.nii.gz,3", " TST_0003.nii.gz,3"])
def test_a_line_of_another_form_is_named_and_its_scan_is_not_called_missing(tmp_path, row):
    words = f"is {row!r}. Write one name, a comma and the class, without spaces: TST_0003.nii.gz,2"
    assert_only(told(written(tmp_path, changed(3, row))), (3, "malformed line", words))


@pytest.mark.parametrize("number", ["", "2.0", "02", "Focal", "\uff12", "6"])
def test_what_is_no_class_is_named_with_those_that_are_and_its_scan_is_not_called_missing(tmp_path, number):
    words = f"has the class {number!r}. Write 1 for Infiltrative, 2 for Focal, "
    assert_only(told(written(tmp_path, changed(3, f"TST_0003.nii.gz,{number}"))), (3, "no such class", words))


@pytest.mark.parametrize("name", ["tst_0003.nii.gz", "TST_0003", "test/TST_0003.nii.gz", "TRN_0003.nii.gz"])
def test_a_wrong_name_is_told_of_and_the_scan_is_missing(tmp_path, name):
    faults = told(written(tmp_path, changed(3, f"{name},3")))
    words = f"names {name!r}, which is not expected. Expected: TST_0001.nii.gz to TST_0006.nii.gz."
    assert_only(faults, (3, "unknown name", words), (None, "missing", "1 of 6 scans: TST_0003.nii.gz."))


@pytest.mark.parametrize("at", [0, 6])
def test_blank_lines_and_headers_are_told_of_wherever_they_are(tmp_path, at):
    assert_only(told(written(tmp_path, [*SOUND[:at], "", *SOUND[at:]])), (at + 1, "malformed line", "is ''."))
    found = told(written(tmp_path, [*SOUND[:at], "FileName,TypeOfTB", *SOUND[at:]]))
    assert_only(found, (at + 1, "no such class", "has the class 'TypeOfTB'. Write 1 for Infiltrative"))


def test_a_scan_named_again_is_told_of_with_its_first_line(tmp_path):
    found = told(written(tmp_path, [*SOUND, "TST_0002.nii.gz,5", "TST_0002.nii.gz;5"]))
    assert_only(
        found,
        (7, "double", "TST_0002.nii.gz is there again, first in line 2"),
        (8, "malformed line", ""),
        (8, "double", "first in line 2"),
    )


def test_missing_scans_are_listed_up_to_twenty_and_then_counted(tmp_path):
    names = expected_names(30)
    (few,) = check(written(tmp_path, [f"{name},1" for name in names[20:]]), names)
    assert line_of(few) is None and "20 of 30 scans: TST_0001" in few.what and few.what.endswith("TST_0020.nii.gz.")
    (many,) = check(written(tmp_path, [f"{name},1" for name in names[23:]]), names)
    assert "23 of 30" in many.what and many.what.endswith("TST_0020.nii.gz and 3 more.")


def test_windows_line_ends_are_one_problem(tmp_path):
    path = written(tmp_path, SOUND, ends="\r\n")
    assert_only(told(path), (1, "line ends", "Use Unix line ends"))
    path.write_bytes("\n".join([*SOUND[:4], SOUND[4] + "\r", SOUND[5]]).encode())
    assert_only(told(path), (5, "line ends", "carriage return"))
    assert_only(told(written(tmp_path, SOUND, ends="\r")), (1, "line ends", "carriage return"))


def test_what_is_not_text_is_told_of_by_its_first_line(tmp_path):
    path = tmp_path / "s.txt"
    path.write_bytes(SOUND[0].encode() + b"\n\xff\xfe\n" + SOUND[2].encode())
    assert_only(told(path), (2, "not text", "Save it as plain text in UTF-8"))
    path.write_bytes("\n".join(SOUND).encode("utf-16"))
    assert_only(told(path), (1, "not text", "UTF-8"))


def test_all_problems_are_found_in_one_reading(tmp_path):
    rows = [
        "FileName,TypeOfTB",
        "TST_0001.nii.gz;2.0",
        " tst_0002.nii.gz,7",
        "",
        "TST_0003.nii.gz,3,3",
        "TST_0003.nii.gz,3",
        "TST_0005.nii.gz,1",
    ]
    found = told(written(tmp_path, rows, ends="\r\n", beginning="\ufeff"))
    assert [(line, kind) for line, kind, _ in found] == [
        (1, "byte-order mark"),
        (1, "line ends"),
        (1, "no such class"),
        (2, "malformed line"),
        (3, "malformed line"),
        (4, "malformed line"),
        (5, "malformed line"),
        (6, "double"),
        (None, "missing"),
    ]
    assert "3 of 6 scans: TST_0002.nii.gz, TST_0004.nii.gz, TST_0006.nii.gz." in found[-1][2]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_file_that_is_not_there_is_named(tmp_path, make):
    make(tmp_path / "s.txt")
    with pytest.raises(DataError, match="s.txt: cannot be read.*Name the submission file"):
        validate_submission(tmp_path / "s.txt", NAMES)


def test_an_unsound_file_is_refused_with_twenty_problems_and_a_count(tmp_path):
    names = expected_names(25)
    path = written(tmp_path, [f"{name},9" for name in names])
    with pytest.raises(DataError) as caught:
        validate_submission(path, names)
    lines = str(caught.value).split("\n")
    assert lines[0] == "25 faults:" and len(lines) == 1 + 20 + 2
    assert lines[20].startswith(f"  {path}:20: has the class '9'")
    assert lines[21] == "  ... and 5 more" and "viptt submit" in lines[22]


def test_a_sound_submission_is_summed_up_by_class(tmp_path):
    # What the authors handed in had these counts.
    counts = (181, 117, 45, 53, 25)
    path = write_submission(tmp_path / "s.txt", expected_names(), np.repeat(np.arange(1, 6), counts))
    found = validate_submission(path, expected_names(421))
    assert tuple(found.values()) == counts
    assert counts_text(found).startswith("Infiltrative 181, Focal 117, ")
