"""The submission file: written as it must be, and every fault of one found in a single reading."""

import numpy as np
import pytest

from viptt_core.errors import DataError
from viptt_core.submission import counts_text, expected_names, find_faults, validate_submission, write_submission

NAMES = expected_names(6)
SOUND = [f"{name},{number}" for name, number in zip(NAMES, (1, 2, 3, 4, 5, 1), strict=True)]


# --- Writing --------------------------------------------------------------------------------------


def test_a_written_file_is_plain_in_the_order_given_and_sound(tmp_path):
    path = write_submission(tmp_path / "new" / "s.txt", NAMES[::-1], np.array([5, 4, 3, 2, 1, 1]))
    assert path.read_bytes() == text(f"TST_000{n}.nii.gz,{max(n - 1, 1)}" for n in (6, 5, 4, 3, 2, 1))
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


def text(rows, ends="\n"):
    return "".join(row + ends for row in rows).encode()


def changed(row):
    """The sound file with another third line."""
    return text([*SOUND[:2], row, *SOUND[3:]])


FORM = "Write one name, a comma and the class, without spaces: TST_0003.nii.gz,2"
BY_ONE = [f"{name},1" for name in expected_names(30)]


@pytest.mark.parametrize(
    "content, expected",
    [
        *[
            (changed(row), [(3, "malformed line", f"is {row!r}. {FORM}")])  # and its scan is not called missing
            for row in ("TST_0003.nii.gz;3", "TST_0003.nii.gz", "3,TST_0003.nii.gz,3", " TST_0003.nii.gz,3")
        ],
        *[
            (
                changed(f"TST_0003.nii.gz,{number}"),
                [(3, "no such class", f"has the class {number!r}. Write 1 for ")],
            )
            for number in ("", "2.0", "02", "Focal", "\uff12", "6")
        ],
        *[
            (
                changed(f"{name},3"),
                [
                    (
                        3,
                        "unknown name",
                        f"names {name!r}, which is not expected. Expected: TST_0001.nii.gz to ",
                    ),
                    (None, "missing", "1 of 6 scans: TST_0003.nii.gz."),
                ],
            )
            for name in ("tst_0003.nii.gz", "TST_0003", "test/TST_0003.nii.gz", "TRN_0003.nii.gz")
        ],
        (text(["", *SOUND]), [(1, "malformed line", "is ''.")]),
        (text([*SOUND, ""]), [(7, "malformed line", "is ''.")]),
        (text(["FileName,TypeOfTB", *SOUND]), [(1, "no such class", "has the class 'TypeOfTB'. Write 1 for Infil")]),
        (
            text([*SOUND, "TST_0002.nii.gz,5", "TST_0002.nii.gz;5"]),
            [
                (7, "double", "TST_0002.nii.gz is there again, first in line 2"),
                (8, "malformed line", ""),
                (8, "double", "first in line 2"),
            ],
        ),
        (text(SOUND, "\r\n"), [(1, "line ends", "Use Unix line ends")]),
        (text(SOUND, "\r"), [(1, "line ends", "carriage return")]),
        (changed("TST_0003.nii.gz,3\r"), [(3, "line ends", "carriage return")]),
        (SOUND[0].encode() + b"\n\xff\xfe\n" + text(SOUND[2:]), [(2, "not text", "Save it as plain text in UTF-8")]),
        ("\n".join(SOUND).encode("utf-16"), [(1, "not text", "UTF-8")]),
        (
            b"\xef\xbb\xbf"  # all at once
            + text(["FileName,TypeOfTB", "TST_0001.nii.gz;2", " tst_0002.nii.gz,7", "", "TST_0003.nii.gz,3,3"], "\r\n")
            + text(["TST_0003.nii.gz,3", "TST_0005.nii.gz,1"], "\r\n"),
            [
                (1, "byte-order mark", ""),
                (1, "line ends", ""),
                (1, "no such class", ""),
                (2, "malformed line", ""),
                (3, "malformed line", ""),
                (4, "malformed line", ""),
                (5, "malformed line", ""),
                (6, "double", ""),
                (None, "missing", "3 of 6 scans: TST_0002.nii.gz, TST_0004.nii.gz, TST_0006.nii.gz."),
            ],
        ),
    ],
)
def test_each_fault_is_told_with_its_line_and_what_to_do_in_one_reading(content, expected):
    faults = find_faults(content, NAMES, "s.txt")
    lines = [int(line) if (line := fault.where[len("s.txt:") :]) else None for fault in faults]
    found = [(line, fault.kind) for line, fault in zip(lines, faults, strict=True)]
    assert found == [(line, kind) for line, kind, _ in expected], faults
    for fault, (*_, words) in zip(faults, expected, strict=True):
        assert words in f"{fault.what} {fault.remedy}"


@pytest.mark.parametrize("there, ends", [(20, "20 of 30 scans: TST_0001"), (23, "TST_0020.nii.gz and 3 more.")])
def test_missing_scans_are_listed_up_to_twenty_and_then_counted(there, ends):
    (fault,) = find_faults(text(BY_ONE[there:]), expected_names(30), "s.txt")
    assert fault.where == "s.txt" and ends in fault.what and ("TST_0020.nii.gz." in fault.what) == (there == 20)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_file_that_is_not_there_is_named(tmp_path, make):
    make(tmp_path / "s.txt")
    with pytest.raises(DataError, match="s.txt: cannot be read.*Name the submission file"):
        validate_submission(tmp_path / "s.txt", NAMES)


def test_an_unsound_file_is_refused_with_twenty_problems_and_a_count(tmp_path):
    names = expected_names(25)
    path = tmp_path / "s.txt"
    path.write_bytes(text(f"{name},9" for name in names))
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
