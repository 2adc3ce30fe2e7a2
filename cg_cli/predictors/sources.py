"""What a SOURCE of a predictor may be: a known name, a hub repository, a URL, or a file or folder. Imports nothing
heavy."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from cg_cli.errors import UsageError
from cg_cli.predictors.installed import WEIGHTS
from cg_cli.settings import models, presets
from cg_cli.util.text import closest

BUILT_IN, FILE, HUB, URL = "built in", "file", "hub", "url"  # kinds of sources
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".zip")
REPOSITORY = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<ref>[\w.][\w./-]*))?", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """Where a predictor comes from.

    Attributes:
        name: what it is installed as.
        kind: BUILT_IN, FILE, HUB or URL.
        location: the path, repository or URL.
        ref: of a repository: branch, tag or commit; None is its main branch.
        sha256: what the weights have to hash to, where that is known.
        backbone: the model that it is for, where that is known.
        size: bytes of the weights, where they are known.
    """

    name: str
    kind: str
    location: str
    ref: str | None = None
    sha256: str | None = None
    backbone: str = ""
    size: int | None = None

    @property
    def display(self) -> str:
        """``location`` without what may be secret: a URL's user, password and query."""
        if self.kind != URL:
            return self.location
        parts = urlsplit(self.location)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def known() -> dict[str, Source]:
    """The predictors that have a name here."""
    out = {}
    for name, entry in presets.known("predictors")["predictors"].items():
        location, backbone = entry["source"], entry["backbone"]
        if location == BUILT_IN:
            path = Path(models.KNOWN[backbone].predictor)
            out[name] = Source(name, BUILT_IN, str(path), backbone=backbone, size=path.stat().st_size)
        else:
            kind = URL if "://" in location else HUB
            out[name] = Source(name, kind, location, entry.get("revision"), entry["sha256"], backbone, entry["size"])
    return out


def parse(text: str) -> Source:
    """What ``text`` means.

    Raises:
        UsageError: nothing; the message says what to give instead.
    """
    names = known()
    if text in names:
        return names[text]
    if "://" in text:
        return _url_source(text)
    path = Path(os.path.expanduser(text))
    try:
        if path.exists():
            return _file_source(path)
    except OSError as error:  # a folder that may not be looked into, a name too long
        raise UsageError(f"{text}: {error.strerror}") from error
    if text.startswith((".", "/", "~")) or text.endswith((".safetensors", *PICKLES)):
        raise UsageError(f"no predictor file or folder {text}")
    if _is_model(text):
        raise UsageError(no_predictor_for(text))
    match = REPOSITORY.fullmatch(text)
    if match and "--" not in text:  # a hub name has none, and folders of predictors use it
        return Source(match["repo"], HUB, match["repo"], match["ref"])
    raise UsageError(
        f"no predictor '{text}'{closest(text, names)}; known: {', '.join(names)} (`cg fetch-predictor` lists them); "
        "or give a hub repository OWNER/NAME, an https URL, or a file or folder"
    )


def no_predictor_for(model: str) -> str:
    """That nobody has published a predictor for ``model``, and the ways out."""
    return (
        f"no predictor for {model} is published today: train one from your own clips (`cg train-predictor --help`), "
        "or give a repository OWNER/NAME that you trust"
    )


def is_plain_http(url: str) -> bool:
    """Whether anybody on the way could change what ``url`` answers: it is neither https nor on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True


def _is_model(text: str) -> bool:
    """Whether ``text`` is a model, by alias or hub id, rather than a predictor."""
    prefixes = tuple(presets.known("predictors")["unpublished"])
    name = text.lower().replace("_", "-")
    return name.startswith(prefixes) or name in {known.source.lower() for known in models.KNOWN.values()}


def check_name(source: Source) -> None:
    """UsageError unless ``source`` can be installed under its name."""
    if source.kind in (FILE, URL) and (not NAME.fullmatch(source.name) or "--" in source.name):
        raise UsageError(
            f"{source.display}: '{source.name}' cannot be the name of a predictor (letters, digits, '.', '_' and "
            "single '-'): rename the file"
        )
    if source.kind in (FILE, URL) and source.name in known():
        raise UsageError(
            f"{source.display}: '{source.name}' is the name of another predictor (`cg fetch-predictor` lists them): "
            "rename the file"
        )


def _url_source(url: str) -> Source:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"that is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{parts.scheme}://...: give an https URL, a hub repository OWNER/NAME, or a file or folder")
    source = Source("", URL, url)
    return replace(source, name=_weights_name(unquote(parts.path), source.display))


def _file_source(path: Path) -> Source:
    path = path.absolute()
    if path.is_dir() and not (path / WEIGHTS).is_file():
        raise UsageError(
            f"{path} has no {WEIGHTS}: give a folder that `cg train-predictor --publish-dir` wrote, or a .safetensors "
            "file"
        )
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise UsageError(f"{path} is neither a file nor a folder")
    return Source(_weights_name(str(weights), str(path)), FILE, str(weights))


def _weights_name(path: str, display: str) -> str:
    """What the weights at ``path`` are called: as the file is, or the folder if the file has the usual name."""
    file = PurePosixPath(path)
    if file.suffix.lower() in PICKLES:
        raise UsageError(
            f"{display}: {file.suffix} files can run code when they are read; only .safetensors files are taken"
        )
    return file.parent.name if file.name == WEIGHTS and file.parent.name else file.name.removesuffix(".safetensors")
