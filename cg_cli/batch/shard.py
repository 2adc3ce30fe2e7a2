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
VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_ARRAY_TASK_COUNT",
    "JOB_COMPLETION_INDEX",
    "JOB_COMPLETIONS",
)


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, counted from 0."""

    index: int
    count: int

    def has(self, video: str) -> bool:
        """Whether a file belongs here. All questions on a file go together, and copies of it on other machines go to
        the same
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
            shard, known = _from_environment(environment)
            total = int(count) if slash else known
        else:
            shard, total = int(index), int(count)
    except ValueError:
        raise UsageError(f"--shard {text}: give I/N with I from 0 to N - 1, auto, or auto/N") from None
    if total is None:
        raise UsageError(f"--shard {text}: Kubernetes tells a pod its index but not how many there are: give auto/N")
    if not 0 <= shard < total:
        raise UsageError(f"--shard {text}: there is no shard {shard} of {total}; they count from 0")
    return Shard(shard, total)


def _from_environment(environment: Mapping[str, str]) -> tuple[int, int | None]:
    """Index and count. A job array with several tasks in each of its jobs counts them all."""
    numbers = {name: int(value) for name, value in environment.items() if name in VARIABLES and value}
    if "WORLD_SIZE" in numbers and "RANK" in numbers:  # torchrun
        return numbers["RANK"], numbers["WORLD_SIZE"]
    tasks, task = numbers.get("SLURM_NTASKS", 1), numbers.get("SLURM_PROCID", 0)
    if "SLURM_ARRAY_TASK_ID" in numbers:
        first, step = numbers.get("SLURM_ARRAY_TASK_MIN", 0), numbers.get("SLURM_ARRAY_TASK_STEP", 1)
        job = (numbers["SLURM_ARRAY_TASK_ID"] - first) // step
        if "SLURM_ARRAY_TASK_COUNT" in numbers:
            count = numbers["SLURM_ARRAY_TASK_COUNT"]
        elif "SLURM_ARRAY_TASK_MAX" in numbers:
            count = (numbers["SLURM_ARRAY_TASK_MAX"] - first) // step + 1
        else:
            raise UsageError("--shard auto: SLURM does not say how many jobs the array has; give I/N")
        return job * tasks + task, count * tasks
    if "SLURM_PROCID" in numbers:
        return task, tasks
    if "JOB_COMPLETION_INDEX" in numbers:  # an indexed Job of Kubernetes
        return numbers["JOB_COMPLETION_INDEX"], numbers.get("JOB_COMPLETIONS")
    raise UsageError(
        "--shard auto: neither SLURM, an indexed Kubernetes Job nor torchrun says which shard this is; give I/N"
    )
