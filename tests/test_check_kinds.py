"""The check knows every kind of fault that people's own files have, and finds none in sound sets."""

import pytest
from planted import NOT_THE_WHOLE_IMAGECLEF
from planted_kinds import KINDS, SORTS

from viptt_core.check import check_dataset
from viptt_core.errors import SettingError

# Settings without use, by the sort of set.
REFUSED = {"scans": ("label_column",), "table": ("group_pattern",)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folder, name and settings of a sound set of each sort."""
    made = {}
    for sort, write in SORTS.items():
        root = tmp_path_factory.mktemp(sort)
        made[sort] = (root, *write(root))
    return made


def check(name, root, preset="paper", **settings):
    return check_dataset(name, root, preset=preset, n_jobs=1, progress=False, **settings)


@pytest.mark.parametrize("preset", ["paper", "corrected"])
@pytest.mark.parametrize("sort", SORTS)
def test_a_sound_set_has_no_fault(sound, sort, preset):
    root, name, settings = sound[sort]
    report = check(name, root, preset, **settings)
    faults = {(fault.kind, fault.where, fault.level) for fault in report.faults}
    assert faults - NOT_THE_WHOLE_IMAGECLEF == set() and not report.spoils
    assert str(report).startswith("SOUND")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_check_reports_each_kind_of_fault_and_takes_what_is_right(tmp_path, kind):
    root = tmp_path / "set"
    name, settings = SORTS[kind.sort](root)
    settings = settings | (kind.plant(root) or {})
    if kind.sort in REFUSED and kind.found in REFUSED[kind.sort]:
        with pytest.raises(SettingError, match=kind.found):
            check(name, root, **settings)
        return
    report = check(name, root, **settings)
    said = str(report)
    said.encode()  # whatever the names of the files, it can be printed
    if kind.found:
        assert kind.found in said and report.faults
    else:
        assert [str(fault) for fault in report.faults if fault.spoils] == []
        assert report.counts["listed"] >= 12
