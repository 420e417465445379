"""Errors name the file and the remedy, and faults found together are raised together."""

import copy

import pytest

from viptt_core.errors import LISTED, DataError, Fault, SettingError, check_choice, raise_faults


def fault(where: str, **changes) -> Fault:
    return Fault(**({"kind": "missing file", "where": where, "what": "is not there.", "remedy": "Copy it."} | changes))


def test_no_fault_raises_nothing():
    raise_faults([])


@pytest.mark.parametrize("where, path", [("a.nii", "set/a.nii"), (".", "set"), ("", "set"), ("/b.nii", "set: /b.nii")])
def test_a_single_fault_names_its_file_and_both_remedies(where, path):
    with pytest.raises(DataError) as caught:
        raise_faults([fault(where)], "set", remedy="Or skip it.")
    assert str(caught.value) == f"{path}: is not there. Copy it. Or skip it."
    assert caught.value.kind == "missing file"


def test_many_faults_are_listed_and_the_rest_counted():
    with pytest.raises(DataError) as caught:
        raise_faults([fault(f"{n}.nii") for n in range(LISTED + 3)], "set", remedy="Or skip them.")
    message = str(caught.value)
    assert message.startswith(f"set: {LISTED + 3} faults:\n  0.nii: is not there. Copy it.\n")
    assert f"{LISTED - 1}.nii" in message and f"{LISTED}.nii" not in message
    assert message.endswith("... and 3 more\n Or skip them.")


def test_a_mistyped_choice_is_told_the_near_match():
    with pytest.raises(
        SettingError, match="start 'vidoe' does not exist. Did you mean 'video'\\? Known: image, video."
    ):
        check_choice("start", "vidoe", ("image", "video"))


def test_an_error_arrives_whole_from_a_worker_process():
    # Copied by `__reduce__`, as between processes.
    error = copy.copy(DataError("is empty.", path="a.nii", remedy="Copy it.", kind="empty file"))
    assert (str(error), error.kind) == ("a.nii: is empty. Copy it.", "empty file")
