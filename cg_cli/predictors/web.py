"""One file from a web address: an interrupted download is resumed, a transient fault is retried, the length is checked.

The client is huggingface_hub's, with its proxies, certificates and offline switch; no token goes along: that is for the
hub. Its ``http_get`` is not used: it loses up to 10 MiB, more than a predictor, when a download breaks off, resumes
without asking whether the file is still the same (If-Range), and follows a redirect wherever it leads.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from cg_cli.errors import CgError, UsageError
from cg_cli.predictors.sources import Source, is_plain_http
from cg_cli.util.hub import TRANSIENT, HubUnreachable
from cg_cli.util.text import one_line, printable

RETRY_PAUSES_S = (0.5, 1.0, 2.0)
TIMEOUT_S = 30.0  # without a byte
HEAD_S = 60.0  # until an answer begins, redirects included
PROGRESS_S, PROGRESS_BYTES = 60.0, 60 << 10  # a body brings so much in so long, or the server is given up
OVERALL_S = 1800.0  # for a file, with all tries
MAX_BYTES = 1 << 30  # a predictor takes a few MiB
T = TypeVar("T")


class Listener(Protocol):
    """Receives the progress of a fetch."""

    @property
    def bar(self) -> Callable[..., Any]:
        """Makes a progress bar, as ``tqdm.tqdm`` does."""

    def note(self, message: str) -> None: ...


class TransientError(Exception):
    """A fault of the network or the server that a retry may not meet; the message is one line."""


def retry(call: Callable[[], T], listener: Listener) -> T:
    """``call()``, again after each of RETRY_PAUSES_S while it raises TransientError or HubUnreachable, then raised."""
    for pause in RETRY_PAUSES_S:
        try:
            return call()
        except (TransientError, HubUnreachable) as error:
            listener.note(f"{error}; trying again")
            time.sleep(pause)
    return call()


def download(source: Source, part: Path, listener: Listener) -> None:
    """Download a URL into ``part``, which an earlier call may have begun.

    Raises:
        UsageError: there is no such file, it is not for everybody, it is no predictor by its size, or the way to it is
            not safe.
        CgError: it could not be had.
    """
    _check_transport(source, [source.location])
    deadline = time.monotonic() + OVERALL_S
    try:
        retry(lambda: _download_once(source, part, listener, deadline), listener)
    except TransientError as error:
        raise CgError(
            f"{error}, {len(RETRY_PAUSES_S) + 1} times: check the network or try later; what was received is kept"
        ) from error


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """``call()``, in a thread of its own that is left alone after ``seconds``: no timeout of a socket ends a read that
    gets a byte now and then. TransientError, which begins with ``what``, if it takes longer."""
    outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = outcome.get(timeout=max(seconds, 0))
    except queue.Empty:
        raise TransientError(f"{what}: no answer in {seconds:.0f} s") from None
    if error:
        raise error
    return cast("T", value)


def discard(part: Path) -> None:
    """Remove a partial download."""
    part.unlink(missing_ok=True)
    part.with_suffix(".tag").unlink(missing_ok=True)


def check_size(size: int, name: str, part: Path | None = None) -> None:
    """UsageError, which begins with ``name``, for a file too large to be a predictor; ``part`` of it is removed."""
    if size > MAX_BYTES:
        if part:
            discard(part)
        raise UsageError(f"{name} is no predictor: it is larger than {MAX_BYTES >> 30} GiB")


def _download_once(source: Source, part: Path, listener: Listener, deadline: float) -> None:
    import httpx2
    from huggingface_hub import get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    offset = part.stat().st_size if part.exists() else 0
    tag = part.with_suffix(".tag")  # the version of the file that this is a part of
    version = tag.read_text(encoding="utf-8") if tag.exists() else ""
    headers = {"Accept-Encoding": "identity"}  # lengths and offsets are those of the file
    if offset and version:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    else:
        offset = 0
    try:
        session = get_session()
        request = session.build_request("GET", source.location, headers=headers, timeout=TIMEOUT_S)
        begin = lambda: session.send(request, stream=True)
        with contextlib.closing(within(min(HEAD_S, deadline - time.monotonic()), begin, source.display)) as response:
            _check_transport(source, (str(hop.url) for hop in (*response.history, response)))
            if response.status_code == 416:  # the part is whole already, or the file has become shorter
                discard(part)
                raise TransientError(f"{source.display}: nothing more of the file, so it is read anew")
            _check_status(source, response.status_code)
            if response.status_code == 206 and not _continues(response.headers, offset, version):
                discard(part)
                raise TransientError(f"{source.display}: a part of the file, and not the one that was asked for")
            if response.status_code == 200 or not offset:
                offset = 0
                tag.unlink(missing_ok=True)
                part.write_bytes(b"")
                tag.write_text(_version(response.headers), encoding="utf-8")
            length = int(response.headers.get("Content-Length") or 0)
            total = offset + length if length else None
            check_size(total or 0, source.display, part)
            bar = listener.bar(total=total, initial=offset, desc=printable(source.name), unit="B", unit_scale=True)
            with part.open("ab") as file, bar:
                pace = _Pace(source, deadline)
                for chunk in response.iter_raw():  # as it comes: an incomplete chunk of a fixed size would be lost
                    file.write(chunk)
                    file.flush()  # a kill loses nothing
                    pace.check(len(chunk))
                    bar.update(len(chunk))
                    check_size(file.tell(), source.display, part)
    except OfflineModeIsEnabled as error:
        raise UsageError(
            f"{source.display}: offline (--offline or HF_HUB_OFFLINE): fetch it where there is a network"
        ) from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise UsageError(f"{source.display}: no URL that can be followed: {error}") from error
    except httpx2.TooManyRedirects as error:
        raise CgError(f"{source.display}: redirected without end") from error
    except httpx2.TransportError as error:
        raise TransientError(f"{source.display}: {one_line(error)}") from error
    if total is not None and part.stat().st_size != total:
        raise TransientError(f"{source.display}: {part.stat().st_size:,} bytes came of {total:,}")


class _Pace:
    """Gives up on a body that comes too slowly, or for too long."""

    def __init__(self, source: Source, deadline: float):
        self._source, self._deadline = source, deadline
        self._since, self._bytes = time.monotonic(), 0

    def check(self, size: int) -> None:
        """Of a chunk of ``size`` bytes. TransientError, or CgError after the deadline."""
        self._bytes += size
        now = time.monotonic()
        if now > self._deadline:
            raise CgError(f"{self._source.display}: not whole in {OVERALL_S / 60:.0f} minutes; run again to go on")
        if now - self._since > PROGRESS_S:
            if self._bytes < PROGRESS_BYTES:
                seconds = now - self._since
                raise TransientError(f"{self._source.display}: {self._bytes:,} bytes in {seconds:.0f} s are too few")
            self._since, self._bytes = now, 0


def _check_status(source: Source, status: int) -> None:
    """That a response brings the file, or what is wrong."""
    if status in TRANSIENT:
        raise TransientError(f"{source.display}: HTTP {status}")
    if status in (401, 403):
        raise UsageError(
            f"{source.display} is not for everybody (HTTP {status}); of a private hub repository give OWNER/NAME, "
            "after `hf auth login`"
        )
    if status in (404, 410):
        raise UsageError(f"{source.display}: no such file (HTTP {status}); check the address")
    if status not in (200, 206):
        raise CgError(f"{source.display}: HTTP {status}")


def _check_transport(source: Source, urls: Iterable[str]) -> None:
    """UsageError if anybody on the way could change the file, and no known hash would tell."""
    if not source.sha256 and any(map(is_plain_http, urls)):
        raise UsageError(
            f"{source.display} comes over plain http, where anybody on the way can change it: use https, or give its "
            "--sha256"
        )


def _continues(headers: Any, offset: int, version: str) -> bool:
    """Whether a 206 brings the rest of the file from ``offset`` on, and of the same ``version`` of it."""
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", headers.get("Content-Range", "").strip(), re.ASCII)
    if not match:
        return False
    first, last, size = map(int, match.groups())
    same = not offset or _version(headers) in ("", version)
    return first == offset and last == size - 1 and same


def _version(headers: Any) -> str:
    """The strong validator of a version of a file, as ``If-Range`` takes it; empty if there is none."""
    etag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
