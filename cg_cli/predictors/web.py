"""One file from a web address: an interrupted download is resumed, a transient fault is retried, the length is checked.

The client is huggingface_hub's, with its proxies, certificates and offline switch; no token goes along: that is for the
hub. Its ``http_get`` is not used: it loses up to 10 MiB, more than a predictor, when a download breaks off, resumes
without asking whether the file is still the same (If-Range), and follows a redirect wherever it leads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cg_cli.errors import CgError, UsageError
from cg_cli.predictors.sources import Source, is_plain_http
from cg_cli.util.hub import TRANSIENT, HubUnreachable
from cg_cli.util.text import one_line

RETRY_PAUSES_S = (0.5, 1.0, 2.0)
TIMEOUT_S = 30.0  # without a byte
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
    try:
        retry(lambda: _download_once(source, part, listener), listener)
    except TransientError as error:
        raise CgError(
            f"{error}, {len(RETRY_PAUSES_S) + 1} times: check the network or try later; what was received is kept"
        ) from error


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


def _download_once(source: Source, part: Path, listener: Listener) -> None:
    import httpx2
    from huggingface_hub import get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    offset = part.stat().st_size if part.exists() else 0
    tag = part.with_suffix(".tag")  # the version of the file that this is a part of
    version = tag.read_text(encoding="utf-8") if tag.exists() else ""
    headers = {"Accept-Encoding": "identity"}  # lengths and offsets are those of the file
    if offset and version:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    try:
        with get_session().stream("GET", source.location, headers=headers, timeout=TIMEOUT_S) as response:
            _check_transport(source, (str(hop.url) for hop in (*response.history, response)))
            if response.status_code == 416:  # the part is whole already, or the file has become shorter
                discard(part)
                raise TransientError(f"{source.display}: nothing more of the file, so it is read anew")
            _check_status(source, response.status_code)
            if response.status_code == 200:
                offset = 0
                tag.unlink(missing_ok=True)
                part.write_bytes(b"")
                tag.write_text(_version(response.headers), encoding="utf-8")
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                discard(part)
                raise TransientError(f"{source.display}: resumed at the wrong place")
            length = int(response.headers.get("Content-Length") or 0)
            total = offset + length if length else None
            check_size(total or 0, source.display, part)
            bar = listener.bar(total=total, initial=offset, desc=source.name, unit="B", unit_scale=True)
            with part.open("ab") as file, bar:
                for chunk in response.iter_raw():  # as it comes: an incomplete chunk of a fixed size would be lost
                    file.write(chunk)
                    file.flush()  # a kill loses nothing
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


def _version(headers: Any) -> str:
    """The strong validator of a version of a file, as ``If-Range`` takes it; empty if there is none."""
    etag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
