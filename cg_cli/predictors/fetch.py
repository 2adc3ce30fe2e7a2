"""``cg fetch-predictor``: from a source to an installed predictor, in five numbered stages; and its removal.

Nothing takes its final name before its hash and its content are checked. A lock a predictor lets one process at a time
install or remove it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cg_cli.errors import CgError, NothingToDo, UsageError
from cg_cli.predictors import hub, installed, sources, web
from cg_cli.predictors.installed import MANIFEST, WEIGHTS, InstalledPredictor, published_sha256
from cg_cli.predictors.sources import BUILT_IN, HUB, SHA256, URL, Source
from cg_cli.predictors.web import Listener
from cg_cli.util.atomic import atomic_path
from cg_cli.util.hashing import file_sha256
from cg_cli.util.text import closest


def install(
    text: str, *, sha256: str | None, offline: bool, listener: Listener, default: bool = False
) -> dict[str, Any]:
    """Install a predictor: a known name, a hub repository, a URL, a file or a folder.

    Args:
        sha256: what its weights have to hash to.
        offline: use only what is on this machine.
        default: mark it as the default of the model it was trained for; of an installed one, do only that. With the
            one built into a model, no other stays marked.

    Returns:
        Its row of ``listing``.

    Raises:
        UsageError: there is no such predictor, or it is none.
        CgError: it could not be had whole, or could not be written.
        NothingToDo: an installed one, by its own name, and not to be marked.
    """
    # 1. the source
    predictor = _installed_as(text)
    if predictor and default and sha256 in (None, predictor.sha256):
        installed.set_default(predictor.backbone, predictor.name)
        return _installed_row(predictor)
    if predictor and sources.NAME.fullmatch(text):
        raise NothingToDo(
            f"{text} is installed already; to have it anew, name where it came from: {predictor.source}; "
            f"`cg fetch-predictor {text} --default` makes it the default of {predictor.backbone}"
        )
    source = _pinned(sources.parse(text), sha256)
    if source.kind == BUILT_IN:
        if source.sha256 not in (None, file_sha256(source.location)):
            raise CgError(f"{source.name}, which is built in, does not have the SHA-256 {source.sha256}")
        if default:
            installed.set_default(source.backbone, None)
        return _known_row(source)
    sources.check_name(source)
    folder = installed.folder(source.name)
    try:
        with installed.locked(source.name, listener.note):
            predictor = _same_installed(source)
            if predictor:
                listener.note(f"{source.name} is installed already")
            else:
                folder.mkdir(exist_ok=True)
                predictor = _install(source, folder, offline, listener)
            if default:
                installed.set_default(predictor.backbone, predictor.name)
    except OSError as error:
        raise CgError(
            f"cannot install {source.name} in {folder}: {error.strerror or error}; nothing of it is used"
        ) from error
    return _installed_row(predictor)


def _install(source: Source, folder: Path, offline: bool, listener: Listener) -> InstalledPredictor:
    # 2. the weights, under a name that nobody reads
    part = folder / f".{hashlib.sha256(source.location.encode()).hexdigest()[:12]}.part"
    commit, published = _fetch_weights(source, part, offline, listener)
    try:
        # 3. their hash
        actual = file_sha256(part)
        for expected in (source.sha256, published):
            if expected not in (None, actual):
                raise CgError(
                    f"{source.display} has SHA-256 {actual}, not {expected}: damaged on the way, or changed; "
                    "nothing was installed"
                )
        # 4. their content
        metadata = _read_metadata(part, source.display)
    except CgError:
        web.discard(part)
        raise
    # 5. their place
    now = datetime.now(UTC).isoformat(timespec="seconds")
    size = part.stat().st_size
    predictor = InstalledPredictor(source.name, source.display, source.ref, commit, actual, size, now, metadata)
    os.replace(part, predictor.path)
    web.discard(part)
    installed.record(predictor)
    return predictor


def remove(name: str, listener: Listener) -> None:
    """Remove the installed predictor ``name``, and its mark as a default.

    Raises:
        UsageError: it is not installed, or built in.
        CgError: its files cannot be removed.
    """
    known = sources.known().get(name)
    if known and known.kind == BUILT_IN:
        raise UsageError(f"predictor {name} is built in and cannot be removed")
    try:
        if (sources.NAME.fullmatch(name) or sources.REPOSITORY.fullmatch(name)) and installed.folder(name).is_dir():
            with installed.locked(name, listener.note):
                if installed.remove(name):
                    return
    except OSError as error:
        raise CgError(f"cannot remove {installed.folder(name)}: {error.strerror or error}") from error
    names = [predictor.name for predictor in installed.installed_predictors()]
    raise UsageError(
        f"no predictor '{name}' is installed{closest(name, names)}; installed: {', '.join(names) or 'none'}"
    )


def listing() -> list[dict[str, Any]]:
    """The known and the installed predictors, by name, each as a JSON object. UsageError if one cannot be read."""
    rows = {name: _known_row(source) for name, source in sources.known().items()}
    rows |= {predictor.name: _installed_row(predictor) for predictor in installed.installed_predictors()}
    return [rows[name] for name in sorted(rows)]


def _known_row(source: Source) -> dict[str, Any]:
    built_in = source.kind == BUILT_IN
    return {
        "name": source.name,
        "backbone": source.backbone,
        "size": source.size,
        "source": BUILT_IN if built_in else source.display,
        "revision": source.ref,
        "sha256": source.sha256,
        "installed": built_in,
        "default": built_in and installed.default_of(source.backbone) is None,
        "path": source.location if built_in else None,
    }


def _installed_row(predictor: InstalledPredictor) -> dict[str, Any]:
    return {
        "name": predictor.name,
        "backbone": predictor.backbone,
        "size": predictor.size,
        "source": predictor.source,
        "revision": predictor.revision,
        "sha256": predictor.sha256,
        "installed": True,
        "default": predictor.is_default,
        "path": str(predictor.path),
        "card": dict(predictor.card),
    }


def _installed_as(text: str) -> InstalledPredictor | None:
    """The installed predictor that ``text`` names, rather than a source to fetch."""
    match = sources.REPOSITORY.fullmatch(text)
    if text in sources.known() or not (match or sources.NAME.fullmatch(text)):
        return None
    predictor = installed.find(match["repo"] if match else text)
    if predictor is None or Path(text).exists() or not predictor.is_at(match["ref"] if match else None):
        return None
    return predictor


def _pinned(source: Source, sha256: str | None) -> Source:
    """``source`` with the hash from the command line. UsageError if it is none, or another is known."""
    if sha256 is None:
        return source
    expected = sha256.lower()
    if not SHA256.fullmatch(expected):
        raise UsageError(f"--sha256 {sha256}: give 64 hex digits")
    if source.sha256 not in (None, expected):
        raise UsageError(f"--sha256 {sha256}: {source.name} is known to have {source.sha256}")
    return replace(source, sha256=expected)


def _same_installed(source: Source) -> InstalledPredictor | None:
    """The predictor installed under the name of ``source``, if it is sure to be the same. UsageError if it came from
    elsewhere."""
    predictor = installed.find(source.name)
    if predictor is None:
        return None
    if predictor.source != source.display:
        raise UsageError(
            f"{source.display}: a predictor {source.name} is installed already, from {predictor.source}: rename the "
            f"file, or run `cg fetch-predictor --remove {source.name}` first"
        )
    same_commit = source.kind == HUB and source.ref == predictor.revision
    same = source.sha256 == predictor.sha256 or (same_commit and not source.sha256)
    return predictor if same and predictor.intact else None


def _fetch_weights(source: Source, part: Path, offline: bool, listener: Listener) -> tuple[str | None, str | None]:
    """The weights of ``source``, into ``part``; a repository's commit, and the hash that a published folder gives its
    weights."""
    if source.kind == URL:
        if offline:
            raise UsageError(f"{source.display} cannot be fetched offline: leave --offline out, or give a file")
        web.download(source, part, listener)
        return None, None
    commit = published = None
    path = Path(source.location)
    if source.kind == HUB:
        path, commit = hub.download(source, offline, listener)
    else:
        web.check_size(path.stat().st_size, str(path))
        manifest = path.with_name(MANIFEST)
        published = published_sha256(manifest) if path.name == WEIGHTS and manifest.exists() else None
    with atomic_path(part) as temporary:
        shutil.copyfile(path, temporary)
    return commit, published


def _read_metadata(path: Path, name: str) -> dict[str, Any]:
    """The metadata of the predictor in ``path``, which messages call ``name``. UsageError if it is anything else."""
    from cg_cli.predictors import files

    with path.open("rb") as file:
        head = file.read(9)
    is_safetensors = head[8:] == b"{"  # eight bytes of length, then JSON
    if not is_safetensors and head.startswith((b"PK", b"\x80", b"\x1f\x8b")):
        raise UsageError(
            f"{name} holds a pickle or an archive, which can run code when it is read; only safetensors are taken"
        )
    return asdict(files.load(path, name).metadata)
