"""From a model's name to a directory with its files: local, or fetched from the Hugging Face hub.

A full Omni checkpoint also holds a talker and a vocoder, which this tool never runs. Of such a checkpoint on the hub
only the shards with ``thinker.*`` weights are fetched; a trimmed index beside links to them makes a directory that
transformers can load. Of one without such weights everything is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cg_cli.backbones import MERGED
from cg_cli.errors import UsageError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
OPTIONAL_FILES = (  # which of them a checkpoint has depends on the transformers release that saved it
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
PART = "thinker."  # of a full checkpoint, the keys that are needed
ADAPTER = "adapter_config.json"  # beside weights that are changes to another model's
MIB = 1 << 20
GB = 10**9  # as downloads are given


@dataclass(frozen=True)
class Checkpoint:
    """A model's files. ``revision`` is a commit hash or, for a local directory, ``local-`` and a content hash."""

    id: str
    directory: Path
    config: Mapping[str, Any]
    revision: str


def find(
    path_or_id: str, *, offline: bool, revision: str | None = None, check: Callable[[Mapping[str, Any]], Any]
) -> Checkpoint:
    """Find or fetch a checkpoint.

    Args:
        path_or_id: a directory, or ``owner/name`` on the hub.
        offline: never touch the network.
        revision: hub branch, tag or commit.
        check: given config.json before any weights are fetched; raises when the model is of no use.

    Raises:
        UsageError: nothing usable there; the message says what to do.
    """
    directory = _named(path_or_id, revision)
    if directory:
        config = _local_config(path_or_id, directory)
        check(config)
        return Checkpoint(path_or_id, directory, config, content_hash(directory))
    hub = _Hub(path_or_id, revision, offline)
    config = read_config(hub.fetch(CONFIG))
    check(config)
    return Checkpoint(path_or_id, hub.directory(), config, hub.commit)


def fetch(path_or_id: str, *, check: Callable[[Mapping[str, Any]], Any], tell: Callable[[str], None]) -> None:
    """Have a checkpoint on this machine: of one on the hub that is not here yet, what is needed is downloaded, after
    ``tell`` was told how much that is and where it goes.

    Raises:
        UsageError: as ``find``; or there is not enough room for it.
    """
    if _named(path_or_id, None):
        return
    try:
        find(path_or_id, offline=True, check=check)
    except UsageError:
        hub = _Hub(path_or_id, None, offline=False)
        check(read_config(hub.fetch(CONFIG)))
        hub.directory(tell)


def inspect_config(path_or_id: str, *, offline: bool, revision: str | None = None) -> tuple[dict[str, Any], str]:
    """The config and the revision of a checkpoint, of which nothing else is fetched. UsageError as for ``find``."""
    directory = _named(path_or_id, revision)
    if directory:
        return _local_config(path_or_id, directory), content_hash(directory)
    hub = _Hub(path_or_id, revision, offline)
    return read_config(hub.fetch(CONFIG)), hub.commit


def _named(path_or_id: str, revision: str | None) -> Path | None:
    """The local directory that a name stands for; None if it stands for a model on the hub. UsageError if for
    neither."""
    directory = Path(path_or_id).expanduser()
    if directory.is_dir():
        if revision is not None:
            raise UsageError(f"{path_or_id} is a directory; a revision is for a model on the hub. Leave it out")
        return directory
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", path_or_id):
        raise UsageError(
            f"no model directory {path_or_id}; give a directory with config.json, or OWNER/NAME on the hub"
        )
    return None


def unmerged(name: str) -> UsageError:
    """The error for LoRA weights that are not merged into their model."""
    return UsageError(
        f"{name} is a LoRA adapter, not a whole model: use a merged checkpoint, such as {' or '.join(MERGED)}"
    )


def _local_config(name: str, directory: Path) -> dict[str, Any]:
    """The config of a local checkpoint. UsageError, also for an adapter."""
    if (directory / ADAPTER).exists():
        raise unmerged(name)
    return read_config(directory / CONFIG)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a config file, or a UsageError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path.parent} has no {path.name}: not a model directory") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path} is not a model config")
    return config


def content_hash(directory: Path) -> str:
    """``local-`` and 12 hex digits over config.json and each weight file's name, size, and first and last MiB."""
    digest = hashlib.sha256((directory / CONFIG).read_bytes())
    for path in sorted(directory.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"\0{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(MIB))
            file.seek(max(0, size - MIB))
            digest.update(file.read(MIB))
    return f"local-{digest.hexdigest()[:12]}"


def trim_index(index: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Cut a shard index down to the thinker's weights.

    Returns:
        The index with only ``thinker.*`` keys (all keys, if none has that prefix: a thinker saved alone), and the
        sorted names of the shards it still needs.
    """
    weights = index["weight_map"]
    kept = {key: shard for key, shard in weights.items() if key.startswith(PART)} or dict(weights)
    return {"metadata": {}, "weight_map": kept}, sorted(set(kept.values()))


def cache_root() -> Path:
    """Where this tool keeps what it can make again: ``$XDG_CACHE_HOME/cg``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cg"


class _Hub:
    """Files of one model on the hub, at one commit once the first file is there."""

    def __init__(self, repo: str, revision: str | None, offline: bool):
        self.repo, self.offline = repo, offline
        self.revision = revision
        self.commit = ""

    def fetch(self, name: str) -> Path:
        """Path of a file in the hub's cache, downloaded if need be and allowed.

        Raises:
            FileNotFoundError: the model has no such file (or, offline, it is not in the cache).
            UsageError: anything else.
        """
        import httpx2
        from huggingface_hub import errors, hf_hub_download, utils

        utils.logging.set_verbosity_error()  # what goes wrong is said here, in one line
        where = f"model {self.repo}"
        try:
            path = Path(
                hf_hub_download(self.repo, name, revision=self.commit or self.revision, local_files_only=self.offline)
            )
        except errors.GatedRepoError:
            raise UsageError(f"{where} is gated: ask for access on its hub page, then run `hf auth login`") from None
        except errors.RepositoryNotFoundError:
            raise UsageError(
                f"no {where} on the hub, and no such directory; check the name (a private one needs `hf auth login`)"
            ) from None
        except errors.RevisionNotFoundError:
            raise UsageError(f"{where} has no revision {self.revision}") from None
        except errors.LocalEntryNotFoundError as error:
            if self.commit and self.offline:
                raise FileNotFoundError(name) from error
            raise UsageError(
                f"{where} is not in the local cache; run once without --offline"
                if self.offline
                else f"cannot reach the hub for {name} of {where}: check the network, or give a local directory"
            ) from error
        except errors.EntryNotFoundError as error:
            if name == CONFIG:
                self._refuse_adapter()
                raise UsageError(f"{where} has no {CONFIG}: not a transformers model") from error
            raise FileNotFoundError(name) from error
        except httpx2.TransportError as error:
            raise UsageError(
                f"the download of {name} of {where} broke off ({_first_line(error)}): run again, what is whole stays"
            ) from error
        except (OSError, errors.HFValidationError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise UsageError(
                    f"no space left for {name} of {where}: make room and run again, or set HF_HOME to a folder on another disk"
                ) from error
            raise UsageError(f"cannot fetch {name} of {where}: {_first_line(error)}") from error
        # The hub's cache files a snapshot under its commit: .../snapshots/<commit>/<name>.
        self.commit = self.commit or path.parent.name
        return path

    def _refuse_adapter(self) -> None:
        """UsageError if there is an adapter where a model was looked for."""
        try:
            self.fetch(ADAPTER)
        except FileNotFoundError:
            return
        raise unmerged(self.repo)

    def _announce(self, shards: Sequence[str], tell: Callable[[str], None]) -> None:
        """Tell how much of ``shards`` is to be downloaded. UsageError if there is no room for it."""
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            plans = [hf_hub_download(self.repo, shard, revision=self.commit, dry_run=True) for shard in shards]
        except (EntryNotFoundError, OSError):
            return  # the download itself says what is wrong
        coming = [plan.file_size for plan in plans if plan.will_download]
        cache = Path(constants.HF_HUB_CACHE)
        free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
        if sum(coming) > free:
            raise UsageError(
                f"model {self.repo} takes {sum(coming) / GB:.1f} GB more, and {cache} has {free / GB:.1f} GB free: make room, or set HF_HOME to "
                f"a folder on another disk"
            )
        if coming:
            tell(
                f"downloading {self.repo}: {sum(coming) / GB:.1f} GB in {len(coming)} file{'s' * (len(coming) > 1)} to {cache}"
            )

    def directory(self, tell: Callable[[str], None] | None = None) -> Path:
        """A directory with links to the files needed; a full checkpoint's index is trimmed.

        Raises:
            UsageError: no weights, or not all of them; or, where there is somebody to ``tell``, no room for them.
        """
        files = {CONFIG: self.fetch(CONFIG)}
        for name in OPTIONAL_FILES:
            try:
                files[name] = self.fetch(name)
            except FileNotFoundError:
                continue
        index = None
        try:
            index, shards = trim_index(json.loads(self.fetch(INDEX).read_text(encoding="utf-8")))
        except FileNotFoundError:
            shards = [WEIGHTS]
        if tell:
            self._announce(shards, tell)
        try:
            files |= {shard: self.fetch(shard) for shard in shards}
        except FileNotFoundError as error:
            self._refuse_adapter()
            hint = "run once without --offline" if self.offline else "only safetensors checkpoints can be loaded"
            raise UsageError(f"model {self.repo} has no {error}: {hint}") from None
        target = cache_root() / "models" / self.repo.replace("/", "--") / self.commit
        target.mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            _replace(target / name, lambda path, source=source: path.symlink_to(source.absolute()))
        if index is not None:
            text = json.dumps(index, indent=1)
            _replace(target / INDEX, lambda path: path.write_text(text, encoding="utf-8"))
        return target


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Make ``path`` with ``write(temporary path)``, in one step for other processes that do the same."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    write(temporary)
    os.replace(temporary, path)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
