"""Shards, for any file and any request."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.batch.shard import Shard, parse
from cg_cli.errors import UsageError

properties = settings(derandomize=True, deadline=None, max_examples=200)
file_names = st.binary(max_size=30).map(os.fsdecode)  # as Linux has them: any bytes
identities = st.one_of(
    st.builds("unread:{}".format, file_names),
    st.builds("{}:{}:{:032x}".format, st.integers(0, 2**50), st.integers(0, 2**63), st.integers(0, 2**128 - 1)),
    file_names,
)
counts = st.integers(1, 200)


@properties
@given(identities, counts)
def test_every_file_belongs_to_exactly_one_shard(identity, count):
    assert sum(Shard(index, count).has(identity) for index in range(count)) == 1


@properties
@given(counts, st.data())
def test_a_shard_comes_back_from_its_text(count, data):
    index = data.draw(st.integers(0, count - 1))
    assert parse(f"{index}/{count}", {}) == Shard(index, count)
    assert parse("auto", {"RANK": str(index), "WORLD_SIZE": str(count)}) == Shard(index, count)


@properties
@given(st.text(max_size=20) | st.from_regex(r"-?[0-9]{1,3}/-?[0-9]{1,3}", fullmatch=True))
def test_any_other_text_is_a_usage_error(text):
    try:
        shard = parse(text, {})
    except UsageError as error:
        assert "--shard" in str(error)
    else:
        assert 0 <= shard.index < shard.count


@properties
@given(st.integers(1, 99_999))
def test_the_shards_of_a_run_have_different_files(count):
    files = [Shard(index, count).file(Path("out.jsonl")) for index in {0, count // 2, count - 1}]
    assert len(set(files)) == len(files)
