"""``cg fetch-predictor``: from what a person asked for to an installed predictor, in five numbered stages.

Nothing takes its final name before its hash and its content are checked. A lock a predictor lets one process at a time
fetch it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cg_cli.errors import CgError, NothingToDo, UsageError
from cg_cli.predictors import hub, installed, sources, web
from cg_cli.predictors.installed import ABOUT, WEIGHTS, Installed
from cg_cli.predictors.sources import BUILT_IN, HUB, SHA256, URL, Source
from cg_cli.predictors.web import Listener


def fetch(asked: str, *, sha256: str | None, offline: bool, listener: Listener) -> dict[str, Any]:
    """Install the predictor ``asked``: a known name, a hub repository, a URL, a file or a folder.

    Args:
        sha256: what its weights have to hash to.
        offline: use only what is on this machine.

    Returns:
        What ``listing`` says of it.

    Raises:
        UsageError: there is no such predictor, or it is none.
        CgError: it could not be had whole, or could not be written.
        NothingToDo: an installed one, by its own name.
    """
    # 1. what is meant
    here = installed.find(asked) if sources.NAME.fullmatch(asked) else None
    if here and asked not in sources.known() and not Path(asked).exists():
        raise NothingToDo(f"{asked} is installed already; to have it anew, name where it came from: {here.source}")
    source = _pinned(sources.parse(asked), sha256)
    if source.kind == BUILT_IN:
        if source.sha256 not in (None, installed.digest(Path(source.where))):
            raise CgError(f"{source.name}, which is built in, does not have the SHA-256 {source.sha256}")
        return _row(source, source.where)
    sources.check_name(source)
    folder = installed.folder(source.name)
    try:
        with _locked(folder, source, listener):
            before = _before(source)
            if before:
                listener.note(f"{source.name} is installed already")
                return _described(before)

            # 2. the weights, under a name that nobody reads
            part = folder / f".{hashlib.sha256(source.where.encode()).hexdigest()[:12]}.part"
            revision, promised = _bring(source, part, offline, listener)

            try:
                # 3. their hash
                found = installed.digest(part)
                for wanted in (source.sha256, promised):
                    if wanted not in (None, found):
                        raise CgError(
                            f"{source.shown} has SHA-256 {found}, not {wanted}: damaged on the way, or changed; nothing was installed"
                        )

                # 4. their content
                card = check(part, source.shown)
            except CgError:
                _drop(part)
                raise

            # 5. their place
            at = datetime.now(UTC).isoformat(timespec="seconds")
            new = Installed(source.name, source.shown, source.ref, revision, found, part.stat().st_size, at, card)
            os.replace(part, new.path)
            _drop(part)
            installed.record(new)
            return _described(new)
    except OSError as error:
        raise CgError(
            f"cannot install {source.name} in {folder}: {error.strerror or error}; nothing of it is used"
        ) from error


def check(path: Path, name: str) -> dict[str, Any]:
    """The card of the predictor in ``path``, which messages call ``name``. UsageError if it is anything else."""
    from cg_cli.pruning import predictor as a2v

    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] != b"{" and head.startswith(
        (b"PK", b"\x80", b"\x1f\x8b")
    ):  # safetensors: eight bytes of length, then JSON
        raise UsageError(
            f"{name} holds a pickle or an archive, which can run code when it is read; only safetensors are taken"
        )
    return asdict(a2v.load(path, name).card)


def listing() -> list[dict[str, Any]]:
    """The known and the installed predictors, by name, each as a JSON object. UsageError if one cannot be read."""
    out = {
        name: _row(source, source.where if source.kind == BUILT_IN else None)
        for name, source in sources.known().items()
    }
    out |= {found.name: _described(found) for found in installed.everything()}
    return [out[name] for name in sorted(out)]


def _row(source: Source, path: str | None) -> dict[str, Any]:
    where = BUILT_IN if source.kind == BUILT_IN else source.shown
    row = {
        "name": source.name,
        "backbone": source.backbone,
        "size": source.size,
        "source": where,
        "revision": source.ref,
    }
    return row | {"sha256": source.sha256, "installed": path is not None, "path": path}


def _described(found: Installed) -> dict[str, Any]:
    row = {
        "name": found.name,
        "backbone": found.card["backbone"],
        "size": found.size,
        "source": found.source,
        "revision": found.revision,
    }
    return row | {"sha256": found.sha256, "installed": True, "path": str(found.path), "card": dict(found.card)}


def _pinned(source: Source, sha256: str | None) -> Source:
    """``source`` with the hash that was given on the command line. UsageError if it is none, or another is known."""
    if sha256 is None:
        return source
    wanted = sha256.lower()
    if not SHA256.fullmatch(wanted):
        raise UsageError(f"--sha256 {sha256}: give 64 hex digits")
    if source.sha256 not in (None, wanted):
        raise UsageError(f"--sha256 {sha256}: {source.name} is known to have {source.sha256}")
    return replace(source, sha256=wanted)


@contextlib.contextmanager
def _locked(folder: Path, source: Source, listener: Listener) -> Iterator[None]:
    """``folder``, for this process alone."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        listener.note(f"another cg is fetching {source.name}: waiting for it")
        held = lock.acquire()
    with held:
        yield


def _before(source: Source) -> Installed | None:
    """What is installed under the name, if it is sure to be what was asked for. UsageError if it came from
    elsewhere."""
    found = installed.find(source.name)
    if found is None:
        return None
    if found.source != source.shown:
        raise UsageError(
            f"{source.shown}: a predictor {source.name} is installed already, from {found.source}: rename the file, or remove "
            f"{installed.folder(source.name)} first"
        )
    by_hash, by_commit = source.sha256 == found.sha256, source.kind == HUB and source.ref == found.revision
    return found if (by_hash or (by_commit and not source.sha256)) and found.intact else None


def _bring(source: Source, part: Path, offline: bool, listener: Listener) -> tuple[str | None, str | None]:
    """The weights of ``source``, into ``part``; a repository's commit, and the hash that a published folder gives its
    weights."""
    if source.kind == HUB:
        files = hub.fetch(source, offline, listener)
        _copy(files.weights, part)
        return files.commit, None
    if source.kind == URL:
        if offline:
            raise UsageError(f"{source.shown} cannot be fetched offline: leave --offline out, or give a file")
        web.download(source, part, listener)
        return None, None
    path = Path(source.where)
    if path.stat().st_size > web.MOST:
        raise UsageError(f"{path} is no predictor: it is larger than {web.MOST >> 30} GiB")
    _copy(path, part)
    about = path.with_name(ABOUT)
    return None, hub.promise(about) if path.name == WEIGHTS and about.exists() else None


def _copy(path: Path, part: Path) -> None:
    try:
        shutil.copyfile(path, part)
    except OSError:
        part.unlink(missing_ok=True)  # unlike a download, it need not go on from there
        raise


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".tag").unlink(missing_ok=True)
