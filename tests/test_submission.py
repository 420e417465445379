"""The submission file: written as it must be."""

import numpy as np
import pytest

from viptt_core.errors import DataError
from viptt_core.submission import count_classes, counts_text, write_submission

NAMES = [f"TST_{number:04d}.nii.gz" for number in range(1, 7)]


def test_a_written_file_is_plain_in_the_order_given_and_sound(tmp_path):
    path = write_submission(tmp_path / "new" / "s.txt", NAMES[::-1], np.array([5, 4, 3, 2, 1, 1]))
    assert path.read_text() == "".join(f"TST_000{n}.nii.gz,{max(n - 1, 1)}\n" for n in (6, 5, 4, 3, 2, 1))
    assert [p.name for p in path.parent.iterdir()] == ["s.txt"]


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


def test_classes_are_counted_by_name():
    counts = (181, 117, 45, 53, 25)  # of what the authors handed in
    found = count_classes(np.repeat(np.arange(6), (3, *counts)).tolist())  # 0: a scan that could not be read
    assert tuple(found.values()) == counts and counts_text(found).startswith("Infiltrative 181, Focal 117, ")
