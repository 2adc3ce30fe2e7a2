"""From a model's name to a directory with its files: local, or fetched from the Hugging Face hub.

A full Omni checkpoint also holds a talker and a vocoder, which this tool never runs. Of such a checkpoint on the hub
only the shards with weights under the family's prefix are fetched; a trimmed index beside links to them makes a
directory that transformers can load. Of one without such weights everything is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_cli.backbones import generation, registry
from cg_cli.backbones.family import Family
from cg_cli.backbones.generation import GENERATION, GenerationSettings
from cg_cli.errors import UsageError
from cg_cli.util.atomic import atomic_path, write_atomic
from cg_cli.util.bounded import read_json
from cg_cli.util.folders import cache_dir
from cg_cli.util.hashing import cached_sha256
from cg_cli.util.hub import hub_errors, quiet_hub

if TYPE_CHECKING:
    from cg_cli.backbones.adapter import Adapter

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
OPTIONAL_FILES = (  # which of them a checkpoint has depends on the transformers release that saved it
    GENERATION,
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
ADAPTER = "adapter_config.json"  # beside weights that are changes to another model's
# What transformers reads of a directory: weights, and settings and tokenizers of any release.
CONTENT_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".jinja", ".model", ".tiktoken"})
CONTENT_NAMES = frozenset({"merges.txt", "vocab.txt"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})  # reading one can run code
SHARD = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)  # a file of weights in the folder itself
GB = 10**9  # as downloads are given


@dataclass(frozen=True)
class Checkpoint:
    """A model's files. ``revision`` is a commit hash or, for a local directory, ``local-`` and a content hash; with an
    adapter that is to be merged, ``+`` and that of the adapter. ``towers_only`` leaves the language model's layers
    out."""

    id: str
    directory: Path
    config: Mapping[str, Any]
    revision: str
    adapter: Adapter | None = None
    towers_only: bool = False

    def with_adapter(self, adapter: Adapter) -> Checkpoint:
        """The same with an adapter to merge."""
        return replace(self, adapter=adapter, revision=joint_revision(self.revision, adapter))


def joint_revision(revision: str, adapter: Adapter) -> str:
    """Tells a model with an adapter merged from the model and from others."""
    return f"{revision}+{adapter.revision}"


def find(path_or_id: str, *, offline: bool, revision: str | None = None, check: Callable[[Family], None]) -> Checkpoint:
    """Find or fetch a checkpoint.

    Args:
        path_or_id: a directory, or ``owner/name`` on the hub.
        offline: never touch the network.
        revision: hub branch, tag or commit.
        check: given the family before any weights are fetched; raises when it is of no use.

    Raises:
        UsageError: nothing usable there; the message says what to do.
    """
    directory = _local_directory(path_or_id, revision)
    if directory:
        config = _local_config(path_or_id, directory)
        _match(config, check)
        return Checkpoint(path_or_id, directory, config, content_hash(directory))
    hub = _Hub(path_or_id, revision, offline)
    config = read_config(hub.fetch(CONFIG))
    family = _match(config, check)
    return Checkpoint(path_or_id, hub.directory(family), config, hub.commit)


def fetch(path_or_id: str, *, check: Callable[[Family], None], tell: Callable[[str], None]) -> None:
    """Have a checkpoint on this machine: of one on the hub that is not here yet, what is needed is downloaded, after
    ``tell`` was told how much that is and where it goes.

    Raises:
        UsageError: as ``find``; or there is not enough room for it.
    """
    if _local_directory(path_or_id, None):
        return
    try:
        find(path_or_id, offline=True, check=check)
    except UsageError:
        hub = _Hub(path_or_id, None, offline=False)
        hub.directory(_match(read_config(hub.fetch(CONFIG)), check), tell)


def _match(config: Mapping[str, Any], check: Callable[[Family], None]) -> Family:
    """The family of a config, checked."""
    family = registry.match(config)
    check(family)
    return family


def find_config(path_or_id: str, *, offline: bool) -> dict[str, Any]:
    """The config of a checkpoint, for which no weights are read. UsageError as for ``find``."""
    directory = _local_directory(path_or_id, None)
    if directory:
        return _local_config(path_or_id, directory)
    return read_config(_Hub(path_or_id, None, offline).fetch(CONFIG))


def inspect_config(path_or_id: str, *, offline: bool, revision: str | None = None) -> tuple[dict[str, Any], str]:
    """The config and the revision of a checkpoint, of which nothing else is fetched. UsageError as for ``find``."""
    directory = _local_directory(path_or_id, revision)
    if directory:
        return _local_config(path_or_id, directory), content_hash(directory)
    hub = _Hub(path_or_id, revision, offline)
    return read_config(hub.fetch(CONFIG)), hub.commit


def inspect_generation(path_or_id: str, *, offline: bool, revision: str | None = None) -> GenerationSettings:
    """What a checkpoint says about choosing tokens; no weights are fetched. UsageError as for ``find``."""
    directory = _local_directory(path_or_id, revision)
    if directory:
        return checkpoint_generation(directory, _local_config(path_or_id, directory), path_or_id)
    hub = _Hub(path_or_id, revision, offline)
    config = read_config(hub.fetch(CONFIG))
    try:
        return checkpoint_generation(hub.fetch(GENERATION).parent, config, path_or_id)
    except FileNotFoundError:
        return GenerationSettings()


def checkpoint_generation(directory: Path, config: Mapping[str, Any], name: str) -> GenerationSettings:
    """What generation_config.json in ``directory`` says, if there is one. UsageError as ``generation.read``."""
    path = directory / GENERATION
    return generation.read(config, read_config(path) if path.exists() else {}, name)


def _local_directory(path_or_id: str, revision: str | None) -> Path | None:
    """The directory that a name means; None for a model on the hub. UsageError if it can be neither."""
    directory = Path(os.path.expanduser(path_or_id))  # of nobody's home, or too long: no directory, and no error
    if os.path.isdir(directory):
        if revision is not None:
            raise UsageError(f"{path_or_id} is a directory; a revision is for a model on the hub. Leave it out")
        return directory
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", path_or_id):
        raise UsageError(
            f"no model directory {path_or_id}; give a directory with config.json, or OWNER/NAME on the hub"
        )
    return None


def adapter_error(name: str) -> UsageError:
    """The error for LoRA weights that are not merged into their model."""
    merged = [repository for family in registry.families() for repository in family.merged_checkpoints]
    return UsageError(
        f"{name} is a LoRA adapter, not a whole model: use a merged checkpoint, such as {' or '.join(merged)}, or name "
        f"the model that it was made for with --model and this one with --adapter"
    )


def _local_config(name: str, directory: Path) -> dict[str, Any]:
    """The config of a local checkpoint. UsageError, also for an adapter."""
    if (directory / ADAPTER).exists():
        raise adapter_error(name)
    config = read_config(directory / CONFIG)
    if (directory / INDEX).exists():
        read_index(directory / INDEX)
    _refuse_pickles(name, directory)
    return config


def _refuse_pickles(name: str, directory: Path) -> None:
    """UsageError for a folder with weights in a pickle, and none in safetensors."""
    suffixes = {path.suffix: path.name for path in sorted(directory.iterdir())}
    pickles = [suffixes[suffix] for suffix in sorted(PICKLES & suffixes.keys())]
    if pickles and ".safetensors" not in suffixes:
        raise UsageError(
            f"{name} has its weights in {pickles[0]}, a pickle, which can run code when it is read; only .safetensors "
            "files are taken"
        )


def read_index(path: Path) -> dict[str, Any]:
    """The index of a checkpoint in several files. UsageError if it is none, or names a file outside of its folder."""
    index = read_config(path)
    shards = index.get("weight_map")
    if not isinstance(shards, dict):
        raise UsageError(f"{path} is no index of weights: it has no weight_map")
    for shard in shards.values():
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            raise UsageError(f"{path} names {shard!r}: weights have to be .safetensors files in its own folder")
    return index


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a config file, or a UsageError."""
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise UsageError(f"{path.parent} has no {path.name}: not a model directory") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path} is not a model config")
    return config


def content_hash(directory: Path) -> str:
    """``local-`` and 12 hex digits over names and all bytes of the files that loading may read: weights, configs,
    tokenizer. UsageError if one cannot be read."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        matters = path.suffix in CONTENT_SUFFIXES or path.name in CONTENT_NAMES
        if not matters or path.name.startswith(".") or path.is_dir() or not path.exists():
            continue
        try:
            digest.update(f"{path.name}\0{cached_sha256(path)}\n".encode())
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error}") from error
    return f"local-{digest.hexdigest()[:12]}"


def trim_index(index: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Cut a shard index down to the weights under ``prefix``.

    Returns:
        The index with only these keys (all keys, if none has that prefix: a thinker saved alone), and the sorted names
        of the shards it still needs.
    """
    weights = index["weight_map"]
    kept = {key: shard for key, shard in weights.items() if key.startswith(prefix)} or dict(weights)
    return {"metadata": {}, "weight_map": kept}, sorted(set(kept.values()))


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
        from huggingface_hub import errors, hf_hub_download

        try:
            with hub_errors(
                f"model {self.repo}",
                name,
                revision=self.revision,
                offline=self.offline,
                otherwise="give a local directory",
            ):
                path = Path(
                    hf_hub_download(
                        self.repo, name, revision=self.commit or self.revision, local_files_only=self.offline
                    )
                )
        except FileNotFoundError:
            if name != CONFIG:
                raise
            self._refuse_adapter()
            raise UsageError(f"model {self.repo} has no {CONFIG}: not a transformers model") from None
        except UsageError as error:
            if self.commit and self.offline and isinstance(error.__cause__, errors.LocalEntryNotFoundError):
                raise FileNotFoundError(name) from error
            raise
        # The hub's cache files a snapshot under its commit: .../snapshots/<commit>/<name>.
        self.commit = self.commit or path.parent.name
        return path

    def _refuse_adapter(self) -> None:
        """UsageError if there is an adapter where a model was looked for."""
        try:
            self.fetch(ADAPTER)
        except FileNotFoundError:
            return
        raise adapter_error(self.repo)

    def _announce(self, shards: Sequence[str], tell: Callable[[str], None]) -> None:
        """Tell how much of ``shards`` is to be downloaded. UsageError if there is no room for it."""
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            with quiet_hub():
                plans = [hf_hub_download(self.repo, shard, revision=self.commit, dry_run=True) for shard in shards]
        except (EntryNotFoundError, OSError):
            return  # the download itself says what is wrong
        coming = [plan.file_size for plan in plans if plan.will_download]
        cache = Path(constants.HF_HUB_CACHE)
        free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
        if sum(coming) > free:
            raise UsageError(
                f"model {self.repo} takes {sum(coming) / GB:.1f} GB more, and {cache} has {free / GB:.1f} GB free: "
                "make room, or set HF_HOME to a folder on another disk"
            )
        if coming:
            files = f"{len(coming)} file{'s' * (len(coming) > 1)}"
            tell(f"downloading {self.repo}: {sum(coming) / GB:.1f} GB in {files} to {cache}")

    def directory(self, family: Family, tell: Callable[[str], None] | None = None) -> Path:
        """A directory with links to the files that ``family`` needs; a full checkpoint's index is trimmed.

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
            index, shards = trim_index(read_index(self.fetch(INDEX)), family.weights_prefix)
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
        target = cache_dir() / "models" / self.repo.replace("/", "--") / self.commit
        target.mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            with atomic_path(target / name) as link:
                link.unlink()
                link.symlink_to(source.absolute())
        if index is not None:
            write_atomic(target / INDEX, json.dumps(index, indent=1))
        return target
