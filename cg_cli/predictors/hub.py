"""A predictor's files in a repository on the hub, through huggingface_hub and its cache: endpoint, token, proxies and
offline switch are its own."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cg_cli.errors import CgError, UsageError
from cg_cli.predictors import web
from cg_cli.predictors.installed import MANIFEST, WEIGHTS, published_sha256
from cg_cli.predictors.sources import SHA256, Source
from cg_cli.predictors.web import RETRY_PAUSES_S, Listener, check_size, retry, within
from cg_cli.util.hashing import file_sha256
from cg_cli.util.hub import HubUnreachable, hub_errors


def download(source: Source, offline: bool, listener: Listener) -> tuple[Path, str]:
    """The weights of a repository, in the hub's cache, and their commit; downloaded unless the cache has those of the
    repository's present commit.

    Raises:
        UsageError: no such repository, revision or predictor, or no access; or, offline, nothing in the cache.
        CgError: the hub cannot be reached, or fails; or the weights are not what it says they are.
    """
    try:
        tries = lambda: retry(lambda: _download_once(source, offline, listener), listener)
        return within(web.OVERALL_S, tries, f"repository {source.location}")
    except web.TransientError as error:
        raise CgError(f"{error}: check the network or try later") from error
    except HubUnreachable as error:
        raise CgError(f"{error} (tried {len(RETRY_PAUSES_S) + 1} times; check the network or try later)") from error


def _download_once(source: Source, offline: bool, listener: Listener) -> tuple[Path, str]:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    repository = f"repository {source.location}"
    offline = offline or constants.is_offline_mode()
    commit = None

    def get(file: str) -> Path:
        with hub_errors(repository, file, revision=source.ref, offline=offline):
            path = Path(
                hf_hub_download(
                    source.location,
                    file,
                    revision=source.ref,
                    local_files_only=offline,
                    tqdm_class=listener.bar,
                )
            )
        if commit not in (None, path.parent.name):  # huggingface_hub falls back to its cache when the hub fails
            raise HubUnreachable(f"{constants.ENDPOINT} failed, or {repository} changed in between")
        return path

    try:
        if not offline:
            with hub_errors(repository, WEIGHTS, revision=source.ref):
                metadata = get_hf_file_metadata(hf_hub_url(source.location, WEIGHTS, revision=source.ref))
            commit = metadata.commit_hash
            if not commit:
                raise CgError(
                    f"{repository}: {constants.ENDPOINT} does not answer as a hub does: check HF_ENDPOINT and the "
                    "proxies"
                )
            check_size(metadata.size or 0, f"{repository}: its {WEIGHTS}")
        weights = get(WEIGHTS)
    except FileNotFoundError as error:
        raise UsageError(
            f"{repository} has no {WEIGHTS}: no predictor, or not one published by `cg train-predictor --publish-dir`"
        ) from error
    if not offline:
        with contextlib.suppress(FileNotFoundError):  # weights may be published alone
            get(MANIFEST)
    _check(weights, repository)
    return weights, weights.parent.name


def _check(weights: Path, repository: str) -> None:
    """CgError unless the hash of the weights is the one that the hub gives them (a large file's name in the cache), and
    the one that the repository's manifest gives them."""
    manifest = weights.with_name(MANIFEST)
    blob = Path(os.readlink(weights)).name if weights.is_symlink() else ""
    expected = [blob] if SHA256.fullmatch(blob) else []
    expected += [published_sha256(manifest)] if manifest.exists() else []
    actual = file_sha256(weights)
    for sha256 in expected:
        if sha256 != actual:
            raise CgError(
                f"{repository} has SHA-256 {actual}, not {sha256}: published wrongly, or damaged in the cache (remove "
                f"{weights.resolve()} and run again)"
            )
