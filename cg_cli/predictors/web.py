"""One file from a web address: what was cut off goes on, what may pass is tried again, and the length is checked.

The client is huggingface_hub's, with its proxies, certificates and offline switch. No token goes along: that is for the
hub.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cg_cli.errors import CgError, UsageError
from cg_cli.predictors.sources import Source, plain

PAUSES_S = (0.5, 1.0, 2.0)  # before each further try
TIMEOUT_S = 30.0  # without a byte
MOST = 1 << 30  # bytes; a predictor takes a few MiB
PASSING = (408, 429, 500, 502, 503, 504)  # HTTP statuses
T = TypeVar("T")


class Listener(Protocol):
    """Who is told how a fetch goes."""

    @property
    def bar(self) -> Callable[..., Any]:
        """Makes a progress bar, as ``tqdm.tqdm`` does."""

    def note(self, message: str) -> None: ...


class Passing(Exception):
    """A fault that a moment may mend; the message is what people are told."""


def persist(what: str, call: Callable[[], T], listener: Listener) -> T:
    """``call()``, again after each pause while it raises Passing. CgError, which begins with ``what``, when it does so
    still."""
    for pause in PAUSES_S:
        try:
            return call()
        except Passing as error:
            listener.note(f"{what}: {error}; trying again")
            time.sleep(pause)
    try:
        return call()
    except Passing as error:
        raise CgError(
            f"{what}: {error}, {len(PAUSES_S) + 1} times: check the network or try later; what is here already is kept"
        ) from error


def download(source: Source, part: Path, listener: Listener) -> None:
    """What a URL answers, into ``part``, which an earlier call may have begun.

    Raises:
        UsageError: there is no such file, it is not for everybody, it is no predictor by its size, or the way to it is
            not safe.
        CgError: it could not be had.
    """
    _check_way(source, [source.where])
    persist(source.shown, lambda: _once(source, part, listener), listener)


def _once(source: Source, part: Path, listener: Listener) -> None:
    import httpx2
    from huggingface_hub import get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    have = part.stat().st_size if part.exists() else 0
    tag = part.with_suffix(".tag")  # which version of the file this is a part of
    version = tag.read_text(encoding="utf-8") if tag.exists() else ""
    headers = {"Accept-Encoding": "identity"}  # lengths and offsets are those of the file
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        with get_session().stream("GET", source.where, headers=headers, timeout=TIMEOUT_S) as response:
            if response.status_code == 416:  # all of it is here already, or the file has become shorter
                part.unlink()
                raise Passing("the server has nothing more of it, so it is read anew")
            _check(source, response)
            length = int(response.headers.get("Content-Length") or 0)
            begin = 0
            if response.status_code == 206:
                begin = have
                if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    part.unlink()
                    raise Passing("the server went on at the wrong place")
            else:
                tag.unlink(missing_ok=True)
                part.write_bytes(b"")
                tag.write_text(_version(response.headers), encoding="utf-8")
            _check_size(source, part, begin + length)
            bar = listener.bar(total=begin + length or None, initial=begin, desc=source.name, unit="B", unit_scale=True)
            with part.open("ab") as file, bar:
                for chunk in response.iter_raw():  # as it comes: pieces of a set size would be lost when it is cut
                    file.write(chunk)
                    file.flush()  # a kill loses nothing
                    bar.update(len(chunk))
                    _check_size(source, part, file.tell())
    except OfflineModeIsEnabled as error:
        raise UsageError(
            f"{source.shown}: offline (--offline or HF_HUB_OFFLINE): fetch it where there is a network"
        ) from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise UsageError(f"{source.shown}: no URL that can be followed: {error}") from error
    except httpx2.TooManyRedirects as error:
        raise CgError(f"{source.shown}: redirected without end") from error
    except httpx2.TransportError as error:
        raise Passing(" ".join(str(error).split()) or type(error).__name__) from error
    if length and part.stat().st_size != begin + length:
        raise Passing(f"{part.stat().st_size:,} bytes came of {begin + length:,}")


def _check(source: Source, response: Any) -> None:
    """That ``response`` brings the file, or what is wrong."""
    _check_way(source, [str(hop.url) for hop in (*response.history, response)])
    status = response.status_code
    if status in PASSING:
        raise Passing(f"HTTP {status}")
    if status in (401, 403):
        raise UsageError(
            f"{source.shown} is not for everybody (HTTP {status}); of a private hub repository give OWNER/NAME, after `hf auth login`"
        )
    if status in (404, 410):
        raise UsageError(f"{source.shown}: no such file (HTTP {status}); check the address")
    if status not in (200, 206):
        raise CgError(f"{source.shown}: HTTP {status}")


def _check_way(source: Source, urls: Sequence[str]) -> None:
    """That nobody on the way can change the file, or else that its hash would tell."""
    if not source.sha256 and any(map(plain, urls)):
        raise UsageError(
            f"{source.shown} comes over plain http, where anybody on the way can change it: use https, or give its --sha256"
        )


def _check_size(source: Source, part: Path, size: int) -> None:
    if size > MOST:
        part.unlink()  # nobody will go on with it
        raise UsageError(f"{source.shown} is no predictor: it is larger than {MOST >> 30} GiB")


def _version(headers: Mapping[str, str]) -> str:
    """What tells this version of a file from others, as ``If-Range`` takes it; empty if nothing does."""
    etag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
