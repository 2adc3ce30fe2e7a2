"""The time that is left is told by the seconds of media that are left."""

from __future__ import annotations

import shutil

import pytest
from helpers.made import CLIPS
from helpers.media_files import steady, write
from helpers.processes import wait_until

from cg_cli.batch.remaining import Remaining
from cg_cli.errors import ItemError
from cg_cli.media import DecodeWorker


@pytest.fixture
def videos(tmp_path) -> list[str]:
    """Of 4, 40 and 8 seconds, and one that is no media."""
    short, long, broken = tmp_path / "short.mp4", tmp_path / "long.mp4", tmp_path / "broken.mp4"
    write(short, times=steady(4, 2))
    write(long, times=steady(40, 2))
    broken.write_bytes(b"junk")
    return [str(short), str(long), shutil.copy(CLIPS[0], tmp_path / "own.mp4"), str(broken)]


def test_seconds_of_media_count_not_clips(videos):
    remaining = Remaining(videos)
    wait_until(lambda: len(remaining._lengths) == 4)
    assert remaining.seconds(0, 0) is None  # nothing is done yet
    remaining.remove(videos[0])
    assert remaining.seconds(4, 2) == pytest.approx((40 + 6) / 2, rel=0.02)
    remaining.remove(videos[1])
    assert remaining.seconds(44, 22) == pytest.approx(3, rel=0.1)
    remaining.remove(videos[2])
    assert remaining.seconds(52, 26) == 0  # what is no media fails at once
    remaining.close()


def test_a_file_that_was_not_looked_at_counts_as_the_mean(videos):
    remaining = Remaining(videos[:2])
    wait_until(lambda: len(remaining._lengths) == 2)
    remaining._left["later.mp4"] = None
    assert remaining.seconds(1, 1) == pytest.approx(4 + 40 + 22, rel=0.05)
    remaining.close()


def test_the_length_that_a_header_states(tmp_path):
    with DecodeWorker() as worker:
        assert worker.stated_duration(str(CLIPS[0])) == pytest.approx(6, abs=0.1)
        with pytest.raises(ItemError, match="does not exist"):
            worker.stated_duration(str(tmp_path / "gone.mp4"))
