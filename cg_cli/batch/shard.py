"""Which part of a batch is this machine's: ``--shard I/N``, or from what SLURM, Kubernetes or torchrun tell a
process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cg_cli.errors import UsageError

AUTO = "auto"
MIB = 1 << 20


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, counted from 0."""

    index: int
    count: int

    def has(self, video: str) -> bool:
        """Whether a file belongs here. All questions on a file go together, and copies of it on other machines go to the same
        shard: its size, first and last MiB tell, since each machine would read all files whole for a full hash."""
        digest = hashlib.blake2b(_sample(video), digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.index

    def file(self, out: Path) -> Path:
        """This shard's own file, e.g. ``answers.00003-of-00064.jsonl``."""
        return out.with_name(f"{out.stem}.{self.index:05d}-of-{self.count:05d}{out.suffix}")


def _sample(video: str) -> bytes:
    """Size, first and last MiB of a file, hashed; of what is no readable file, its path."""
    try:
        if not Path(video).is_file():
            return os.fsencode(video)
        with open(video, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = hashlib.blake2b(file.read(MIB))
            file.seek(max(0, size - MIB))
            digest.update(file.read(MIB))
    except OSError:
        return os.fsencode(video)
    return f"{size}:{digest.hexdigest()}".encode()


def parse(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard in ``I/N``, ``auto``, or ``auto/N`` (the index from ``environment``, N given).

    Raises:
        UsageError: it is none of these, or ``environment`` does not say.
    """
    index, slash, count = text.partition("/")
    try:
        if index == AUTO:
            found, total = _from_environment(environment)
            shard = found, int(count) if slash else total
        else:
            shard = int(index), int(count)
    except ValueError:
        raise UsageError(f"--shard {text}: give I/N with I from 0 to N - 1, auto, or auto/N") from None
    if shard[1] is None:
        raise UsageError(f"--shard {text}: Kubernetes tells a pod its index but not how many there are: give auto/N")
    if not 0 <= shard[0] < shard[1]:
        raise UsageError(f"--shard {text}: there is no shard {shard[0]} of {shard[1]}; they count from 0")
    return Shard(*shard)


def _from_environment(environment: Mapping[str, str]) -> tuple[int, int | None]:
    """Index and count. A job array with several tasks in each of its jobs counts them all."""

    def number(name: str, default: int | None = None) -> int | None:
        return int(environment[name]) if environment.get(name) else default

    if number("WORLD_SIZE") is not None and number("RANK") is not None:  # torchrun
        return number("RANK"), number("WORLD_SIZE")
    tasks, task = number("SLURM_NTASKS", 1), number("SLURM_PROCID", 0)
    if number("SLURM_ARRAY_TASK_ID") is not None:
        step = number("SLURM_ARRAY_TASK_STEP", 1)
        job = (number("SLURM_ARRAY_TASK_ID") - number("SLURM_ARRAY_TASK_MIN", 0)) // step
        count = number("SLURM_ARRAY_TASK_COUNT")
        if count is None:
            count = (number("SLURM_ARRAY_TASK_MAX") - number("SLURM_ARRAY_TASK_MIN", 0)) // step + 1
        return job * tasks + task, count * tasks
    if number("SLURM_PROCID") is not None:
        return task, tasks
    if number("JOB_COMPLETION_INDEX") is not None:  # an indexed Job of Kubernetes
        return number("JOB_COMPLETION_INDEX"), number("JOB_COMPLETIONS")
    raise UsageError(
        "--shard auto: neither SLURM, an indexed Kubernetes Job nor torchrun says which shard this is; give I/N"
    )
