"""Files and data sets from the network: resumed after any interruption, visible only when whole and verified."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.sources.registry import DataSource, RemoteFile, remote_files
from viptt_core.sources.unpack import unpack

TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5  # requests in a row that may bring nothing new
PAUSE, LONGEST_PAUSE = 4.0, 60.0  # seconds before the next one, doubled each time
# urllib3 says HTTPError of a body that breaks off, and so do we of one that is not all.
_PASSING = requests.ConnectionError, requests.Timeout, HTTPError


def fetch(
    source: DataSource, root: Path | None = None, *, subset: str = "", pixels: int = 28, progress: bool = True
) -> Path:
    """Download and unpack what is missing of a data set; archives are kept, and can be deleted.

    It is put into `root`, by default `data/NAME`; for `subset` and `pixels` see `remote_files`.

    Returns:
        The file or folder to give as data_root.

    Raises:
        DataError: this set cannot be downloaded (the message tells how to get it), or a download failed.
        StorageError: the disk is too full; what has come is kept.
    """
    if source.access != "download":
        steps = (f"\n  {number}. {step}" for number, step in enumerate(source.steps, 1))
        what = f"{source.title} cannot be fetched by a command."
        raise DataError(what, remedy=f"This is how you get it:{''.join(steps)}")
    root = source.default_root if root is None else Path(root).expanduser()
    wanted = remote_files(source, subset=subset, pixels=pixels)
    if missing := [file for file in wanted if not (root / file.result).exists()]:
        come = [path for file in missing for path in (root / file.name, *_parts(root / file.name)) if path.is_file()]
        # Clips and scans are compressed already: an archive grows by little.
        needed = (source.size or 0) * (2.1 if any(file.unpack for file in missing) else 1)
        files.check_space(root, int(needed) - sum(path.stat().st_size for path in come))
    for file in wanted:
        if file.unpack and (root / file.result).exists():
            continue  # its archive may be gone
        path = download(file, root, progress=progress)
        if file.unpack:
            unpack(path, root / file.result, progress=progress)
    return root / wanted[0].result if len(wanted) == 1 else root


def download(file: RemoteFile, folder: Path, *, progress: bool = True) -> Path:
    """Download a file unless it is there, from where an earlier call stopped; verify it in either case, give its path.

    Of several processes one downloads and the others wait. Without a checksum the SHA-256 of the first download is
    written to `NAME.sha256` and holds from then on. Only https is asked, or this machine.

    Raises:
        DataError: it cannot be had or is not what it should be, be it the file that was there or the new one.
        StorageError: it cannot be written; what has come is kept.
    """
    path = Path(folder) / file.name
    if not path.exists():
        with files.one_at_a_time(path, f"{path.name}: another process downloads it, waiting for it."):
            if not path.exists():  # by now
                _Transfer(file, path, progress).run()
                return path
    _verify(file, path, path)
    return path


def _parts(path: Path) -> list[Path]:
    """What has come so far of a file, each of another version."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.????????.part"))


def _verify(file: RemoteFile, path: Path, content: Path) -> None:
    """Compare what is, or is to become, `path` with its checksum; where none is known, the SHA-256 is recorded."""
    algorithm, _, expected = (file.checksum or "sha256:").partition(":")
    record = path.with_name(f"{path.name}.sha256")
    try:
        if not file.checksum and record.exists():
            expected = record.read_text("utf-8", "replace").partition(" ")[0] or "empty"
        digest = files.file_digest(content, algorithm)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}).", path=path, remedy="Check who may read it.") from error
    if not expected:
        files.write_file(record, f"{digest}  {path.name}\n")
    elif digest != expected:
        kind = files.kind_of(content) or "another file"
        what = f"is not what was expected but {kind}: its {algorithm} is {digest}, not {expected}."
        mend = "correct the checksum" if file.checksum else f"delete {record}"
        again = "Delete it and start again" if content == path else "Start again"
        if content != path:
            content.unlink()
        raise DataError(what, path=path, remedy=f"{again}. If it has rightly changed at its source, {mend}.")


@dataclass(frozen=True)
class _Transfer:
    """A file on its way; its bytes are in `.NAME.VERSION.part`, so that those of two versions never mix."""

    file: RemoteFile
    path: Path
    progress: bool

    def run(self) -> None:
        """Fetch the whole file, verify it, and give it its name."""
        part, failures, most = None, 0, 0
        while part is None:
            try:
                part = self.request()
            except (requests.RequestException, HTTPError) as error:
                if not isinstance(error, _PASSING) or isinstance(error, requests.exceptions.SSLError):
                    raise self.refusal(str(error)) from error
                # Only a new record counts: a server that cuts each answer at the same place must come to an end.
                kept = sum(path.stat().st_size for path in _parts(self.path))
                failures, most = 0 if kept > most else failures + 1, max(kept, most)
                if failures >= ATTEMPTS:
                    what = f"could not be downloaded ({error}); {kept} bytes are kept."
                    remedy = "Start again later: where the server can, it goes on from there."
                    raise DataError(what, path=self.file.url, remedy=remedy) from error
                time.sleep(min(PAUSE * 2 ** max(failures - 1, 0), LONGEST_PAUSE))
        _verify(self.file, self.path, part)
        with files.storing(self.path):
            os.replace(part, self.path)

    def request(self) -> Path:
        """Ask which version the server has, and write it to its part file, from where this ends; returns that."""
        url, is_https = self.file.url, self.file.url.startswith("https://")
        if not (is_https or urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")):
            raise self.refusal("without https, what comes could not be trusted")
        with requests.Session() as session:
            if is_https:
                del session.adapters["http://"]  # so that no redirect leads away from https
            session.headers["Accept-Encoding"] = "identity"  # a part of something compressed is of no use
            ask = functools.partial(session.get, url, stream=True, timeout=TIMEOUT)
            with ask() as response:
                version, total = self.vetted(response)
                key = hashlib.sha256(repr((url, version, total)).encode()).hexdigest()[:8]
                part = self.path.with_name(f".{self.path.name}.{key}.part")
                for other in set(_parts(self.path)) - {part}:
                    other.unlink()
                offset = part.stat().st_size if version and total and part.exists() else 0
                if offset == 0:
                    self.write(response, part, total)
            if 0 < offset != total:
                with ask(headers={"Range": f"bytes={offset}-", "If-Range": version}) as response:
                    status, place = response.status_code, response.headers.get("Content-Range")
                    if status != 206 or place != f"bytes {offset}-{total - 1}/{total}":
                        if status in (200, 206, 416):
                            part.unlink()
                        raise HTTPError(f"the server does not go on where it stopped, but answers {status}")
                    self.write(response, part, total)
        return part

    def vetted(self, response: requests.Response) -> tuple[str, int | None]:
        """What tells this version from others ("" if nothing does) and its length; refused if it is something else."""
        status, told = response.status_code, response.headers
        if status != 200:
            answer = f"the server answers {status} {response.reason}"
            raise HTTPError(answer) if status in (408, 429) or status >= 500 else self.refusal(answer)
        total = int(told["Content-Length"]) if told.get("Content-Length", "").isdecimal() else None
        if not self.file.checksum:
            if told.get("Content-Type", "").startswith("text/html"):
                raise self.refusal("the server sends a web page in place of the file")
            if told.get("Content-Encoding", "identity") != "identity":
                raise self.refusal("the server sends the file only in a compressed form")
            if total is None and "chunked" not in told.get("Transfer-Encoding", ""):
                raise self.refusal("the server does not say where the file ends")
        etag = told.get("ETag", "")  # a weak one says "about the same", which will not do for a part
        return etag if etag.startswith('"') else told.get("Last-Modified", ""), total

    def write(self, response: requests.Response, part: Path, total: int | None) -> None:
        name, hidden, mode = self.path.name, not self.progress, "wb" if response.status_code == 200 else "ab"
        with files.storing(part, hint="what has come is kept"), open(part, mode) as out:
            start = out.tell()
            files.check_space(part.parent, (total or 0) - start)
            with tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=hidden) as bar:
                # As soon as there are some bytes: `iter_content` waits for more, and loses them when it breaks.
                while data := response.raw.read1(1 << 18, decode_content=False):
                    out.write(data)
                    bar.update(len(data))
            out.flush()
            os.fsync(out.fileno())
        if total not in (None, part.stat().st_size):
            raise HTTPError(f"{part.stat().st_size} of {total} bytes came")

    def refusal(self, why: str) -> DataError:
        remedy = "Check the address, and whether it asks for a login or a licence; a browser shows what is there."
        return DataError(f"not downloaded: {why}.", path=self.file.url, remedy=remedy)
