"""A predictor's files in a repository on the hub, through huggingface_hub and its cache: endpoint, token, proxies and
offline switch are its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cg_cli.errors import CgError, UsageError
from cg_cli.predictors.installed import ABOUT, WEIGHTS, digest
from cg_cli.predictors.sources import SHA256, Source
from cg_cli.predictors.web import MOST, PASSING, Listener, Passing, persist

T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """What a repository holds: the weights, in the hub's cache, and the commit."""

    weights: Path
    commit: str


def fetch(source: Source, offline: bool, listener: Listener) -> Files:
    """The files of a repository, downloaded unless the cache has those of its present commit.

    Raises:
        UsageError: no such repository, revision or predictor, or no access; or, offline, nothing in the cache.
        CgError: the hub cannot be reached, or fails; or the weights are not what it says they are.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, utils

    utils.logging.set_verbosity_error()  # what goes wrong is said here, in one line
    what = f"predictor {source.where}"
    if offline or constants.is_offline_mode():
        weights = _asked(source, WEIGHTS, lambda: _get(source, WEIGHTS, source.ref, listener, offline=True))
        return Files(weights, weights.parent.name)
    url = hf_hub_url(source.where, WEIGHTS, revision=source.ref)
    head = persist(what, lambda: _asked(source, WEIGHTS, lambda: get_hf_file_metadata(url)), listener)
    if not head.commit_hash:
        raise CgError(f"{what}: {constants.ENDPOINT} does not answer as a hub does: check HF_ENDPOINT and the proxies")
    if (head.size or 0) > MOST:
        raise UsageError(f"{what}: its {WEIGHTS} is no predictor: it is larger than {MOST >> 30} GiB")

    def get(name: str) -> Path:
        path = _asked(source, name, lambda: _get(source, name, source.ref, listener))
        if path.parent.name != head.commit_hash:  # huggingface_hub falls back to what it has when the hub fails
            raise Passing("the hub failed, or changed, in between")
        return path

    weights = persist(what, lambda: get(WEIGHTS), listener)
    promised = [head.etag] if head.etag and SHA256.fullmatch(head.etag) else []  # of a large file, its hash
    try:
        promised.append(promise(persist(what, lambda: get(ABOUT), listener)))
    except FileNotFoundError:  # weights may be published alone
        pass
    found = digest(weights)
    for wanted in promised:
        if wanted != found:
            cached = weights.resolve()
            raise CgError(
                f"{what} has SHA-256 {found}, not {wanted}: published wrongly, or damaged in the cache (remove {cached} and run again)"
            )
    return Files(weights, head.commit_hash)


def promise(about: Path) -> str:
    """The hash that a ``predictor.json`` beside published weights gives them. UsageError if it gives none."""
    try:
        return str(json.loads(about.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{about} is damaged: publish the predictor again, or take its {WEIGHTS} alone") from error


def _get(source: Source, name: str, ref: str | None, listener: Listener, offline: bool = False) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source.where, name, revision=ref, local_files_only=offline, tqdm_class=listener.bar))


def _asked(source: Source, name: str, call: Callable[[], T]) -> T:
    """``call()``, which asks the hub for the file ``name``, its faults in our words.

    Raises:
        Passing: a fault of the hub or the way to it.
        FileNotFoundError: there is no such file, and it is not the weights.
        UsageError, CgError: as ``fetch``.
    """
    import httpx2
    from huggingface_hub import constants, errors

    what = f"predictor {source.where}"
    try:
        return call()
    except errors.GatedRepoError:
        raise UsageError(f"{what} is gated: ask for access on its hub page, then run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"no repository {source.where} on the hub; check the name (a private one needs `hf auth login`)"
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{what} has no revision {source.ref}") from None
    except errors.LocalEntryNotFoundError as error:
        cause = error.__cause__
        if cause is None:
            raise UsageError(
                f"{what} is not in the local cache; run once without --offline and HF_HUB_OFFLINE"
            ) from error
        raise Passing(f"cannot reach {constants.ENDPOINT} ({type(cause).__name__})") from error
    except errors.EntryNotFoundError as error:
        if name == WEIGHTS:
            raise UsageError(
                f"repository {source.where} has no {WEIGHTS}: no predictor, or not one published by `cg train-predictor --publish-dir`"
            ) from error
        raise FileNotFoundError(name) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in PASSING:
            raise Passing(f"HTTP {status} from {constants.ENDPOINT}") from error
        if status in (401, 403):
            raise UsageError(
                f"{what} is not for everybody (HTTP {status}): run `hf auth login`, or check HF_TOKEN"
            ) from error
        raise CgError(f"{what}: HTTP {status} from {constants.ENDPOINT}") from error
    except httpx2.TransportError as error:
        raise Passing(
            f"cannot reach {constants.ENDPOINT} ({' '.join(str(error).split()) or type(error).__name__})"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(f"{source.where} cannot be a repository: {' '.join(str(error).split())}") from error
    except OSError as error:
        if error.errno is None and "Consistency check" in str(error):  # of a length; it is a plain OSError there
            raise Passing("the file came incomplete") from error
        raise
