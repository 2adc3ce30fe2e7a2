"""Shards: every file in exactly one, the same one on every machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cg_cli.batch.shard import Shard, parse
from cg_cli.errors import UsageError


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_file_is_in_exactly_one_shard_and_shards_are_alike(count):
    videos = [f"/gone/{i}.mp4" for i in range(2000)]
    sizes = [sum(Shard(i, count).has(video) for video in videos) for i in range(count)]
    assert sum(sizes) == 2000 and max(sizes) < 2 * 2000 / count + 20
    for video in videos[:50]:
        assert sum(Shard(i, count).has(video) for i in range(count)) == 1


def test_a_copy_elsewhere_goes_to_the_same_shard_and_a_missing_file_to_one(tmp_path):
    for number in range(10):
        first, second = tmp_path / f"{number}.mp4", tmp_path / f"copy of {number}.mp4"
        first.write_bytes(bytes([number]) * (3 << 20))
        shutil.copy(first, second)
        os.utime(second, (1e9, 1e9))
        assert [Shard(i, 5).has(str(first)) for i in range(5)] == [Shard(i, 5).has(str(second)) for i in range(5)]
    missing = [f"/x/{i}.mp4" for i in range(40)]
    assert len({tuple(Shard(i, 5).has(m) for i in range(5)) for m in missing}) == 5


def test_each_shard_has_its_own_file():
    assert Shard(3, 64).file(Path("d/out.jsonl")) == Path("d/out.00003-of-00064.jsonl")
    assert Shard(3, 64).file(Path("out")) == Path("out.00003-of-00064")


@pytest.mark.parametrize(
    "text, environment, shard",
    [
        ("2/5", {}, (2, 5)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "13", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "4"}, (3, 4)),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "8",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "12",
                "SLURM_ARRAY_TASK_STEP": "4",
            },
            (2, 4),
        ),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
            (7, 8),
        ),
        ("auto", {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, (1, 4)),
        ("auto", {"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 2)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"}, (5, 6)),
        ("auto", {"JOB_COMPLETION_INDEX": "5", "JOB_COMPLETIONS": "6"}, (5, 6)),
    ],
)
def test_what_a_scheduler_says(text, environment, shard):
    assert parse(text, environment) == Shard(*shard)


@pytest.mark.parametrize(
    "text, environment",
    [("2/2", {}), ("-1/2", {}), ("x/2", {}), ("1", {}), ("auto", {}), ("auto", {"JOB_COMPLETION_INDEX": "1"})],
)
def test_what_is_no_shard(text, environment):
    with pytest.raises(UsageError, match="--shard"):
        parse(text, environment)
