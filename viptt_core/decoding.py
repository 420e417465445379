"""Sources decoded into the rows of an array file, by worker processes, with what went wrong with each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from viptt_core.errors import ClipTooShortError, DataError, DataWarning
from viptt_core.rows import RowFile, write_row


def decode_missing(
    rows: RowFile,
    sources: Sequence,
    decode: Callable[[object], np.ndarray],
    *,
    on_error: str,
    n_jobs: int,
    progress: bool,
) -> dict[int, DataError]:
    """Decode what has no row yet, by worker processes.

    A row gets the note "notes": the DataWarnings of its decoder. A row left out because its file is broken
    has "broken" in its note too.

    Args:
        rows: To be filled, open.
        sources: Argument for `decode`, one a row.
        decode, on_error, n_jobs, progress: See `store.build_clip_set`.

    Returns:
        index -> error of what cannot be used and was not left out.
    """
    from tqdm import tqdm

    todo = [i for i in range(len(sources)) if i not in rows.done and i not in rows.left]
    if not todo:
        return {}
    decoder = _Decoder(decode, rows.array, rows.dtype.name)
    broken: dict[int, DataError] = {}
    with tqdm(
        total=len(sources),
        initial=len(sources) - len(todo),
        desc="decoding",
        unit="clip",
        disable=not progress,
        mininterval=1,
    ) as bar:
        for outcome in _outcomes(rows, decoder, [(i, sources[i]) for i in todo], n_jobs):
            index, error, notes = outcome.index, outcome.error, {"notes": outcome.notes}
            if error is None:
                rows.record(index, outcome.crc, notes)
            elif isinstance(error, ClipTooShortError):
                rows.leave_out(index, error.what, notes)
            elif on_error == "skip":
                rows.leave_out(index, error.what, notes | {"broken": True})
            else:
                broken[index] = error
            bar.update()
    return broken


@dataclass(frozen=True)
class _Decoder:
    """What a worker process needs beside the item: how to decode, and where the clip goes."""

    decode: Callable[[object], np.ndarray]
    array: Path
    dtype: str

    def row(self, index: int, source: object, shape: tuple[int, ...]) -> _Outcome:
        """Decode a clip and write it to its place, so that no clip travels between processes."""
        clip, error, notes = self.clip(source, shape)
        return _Outcome(index, None if clip is None else write_row(self.array, index, clip), error, notes)

    def clip(self, source: object, shape: tuple[int, ...] | None):
        """Decode a clip; returns it (or None), the error (or None), and the warnings about it."""
        clip, error = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            try:
                clip = self.decode(source)
                if clip.dtype != self.dtype or shape not in (None, clip.shape):
                    what = f"is {clip.dtype} {clip.shape} when decoded, not {self.dtype} {shape or ''}".strip()
                    raise DataError(
                        f"{what}.",
                        path=source if isinstance(source, Path) else None,
                        remedy="All clips of a set are alike.",
                    )
            except DataError as broken:
                clip, error = None, broken
        return clip, error, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]


@dataclass(frozen=True)
class _Outcome:
    """What came of an item: the CRC of the row that is now written, or an error; and notes."""

    index: int
    crc: int | None
    error: DataError | None
    notes: list[str]


def _outcomes(rows: RowFile, decoder: _Decoder, todo: list[tuple[int, object]], n_jobs: int) -> Iterator[_Outcome]:
    """Decode and write, by worker processes; outcomes come as they are ready."""
    todo = list(todo)
    if rows.shape is not None:
        rows.allocate(rows.shape)
    while rows.shape is None and todo:  # the first clip tells the shape
        index, source = todo.pop(0)
        clip, error, notes = decoder.clip(source, None)
        if clip is not None:
            rows.allocate(clip.shape)
        yield _Outcome(index, None if clip is None else write_row(rows.array, index, clip), error, notes)
    clip = None  # its memory is wanted
    if min(n_jobs, len(todo)) <= 1:
        yield from (decoder.row(index, source, rows.shape) for index, source in todo)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:
        yield from Parallel(n_jobs=min(n_jobs, len(todo)), return_as="generator_unordered", pre_dispatch="3*n_jobs")(
            delayed(decoder.row)(index, source, rows.shape) for index, source in todo
        )
    except BaseException:
        # None may write any more once this process gives the lock back.
        get_reusable_executor(kill_workers=True).shutdown()
        raise
    get_reusable_executor().shutdown()  # idle workers would keep their memory during training
