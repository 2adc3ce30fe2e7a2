"""Encoding a training set: what is loaded, kept, and told before it begins."""

from __future__ import annotations

import pytest
import torch
from helpers import SAMPLES

from cg_cli.errors import UsageError
from cg_cli.media.clip import DecodeOptions
from cg_cli.predictors import corpus, job
from cg_cli.predictors.corpus import Corpus
from cg_cli.settings import models

pytestmark = pytest.mark.slow

CLIPS = [SAMPLES / "dog.mp4", SAMPLES / "drum.mp4"]


@pytest.fixture(scope="module")
def towers():
    return models.load("nano", device="cpu", dtype="float32", offline=True, towers_only=True)


class Listener:
    def __init__(self):
        self.notes, self.faults = [], []

    def fault(self, message):
        self.faults.append(message)

    def note(self, message):
        self.notes.append(message)

    def encoded(self, done, total):
        self.done = done, total

    def checked(self, role, step, figures):
        pass


def test_the_towers_alone_encode_what_the_whole_model_does(towers):
    whole = models.load("nano", device="cpu", dtype="float32", offline=True)
    assert (towers.id, towers.revision, towers.hidden_size) == (whole.id, whole.revision, whole.hidden_size)
    (video,) = CLIPS[:1]
    (one,) = Corpus([video], towers, DecodeOptions(), 1.0, None).streams([video])
    (other,) = Corpus([video], whole, DecodeOptions(), 1.0, None).streams([video])
    assert torch.equal(one.embeddings, other.embeddings)
    count = lambda backbone: sum(weight.numel() for weight in backbone.model.model.language_model.layers.parameters())
    assert count(towers) == 0 < count(whole)


def test_room_is_told_before_anything_is_encoded_and_is_enough(towers, tmp_path):
    videos = list(CLIPS[:2])
    asked = Corpus(videos, towers, DecodeOptions(), 1.0, tmp_path / "cache")
    listener = Listener()
    clips = job._encode(asked, listener)
    size = sum(clip.path.stat().st_size for _, clip in clips)
    needed = corpus.disk_bytes(towers, corpus.stated_seconds(videos), 1.0)
    assert 0.5 * needed < size < 1.1 * needed + 4096 * len(videos)
    assert len(clips) == 2 and listener.done == (2, 2) and "2 videos of" in listener.notes[0]
    # Again, nothing is left to encode or to say.
    again = Listener()
    assert [clip.path for _, clip in job._encode(asked, again)] == [clip.path for _, clip in clips] and not again.notes
    # A file that a kill or a full disk left half done is made anew.
    path = clips[0][1].path
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert job._encode(asked, Listener())[0][1].path.read_bytes() == whole


def test_a_disk_without_room_is_said_in_a_line(towers, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "disk_bytes", lambda *_: 1 << 62)
    with pytest.raises(UsageError, match="make room"):
        job._encode(Corpus(list(CLIPS[:1]), towers, DecodeOptions(), 1.0, tmp_path), Listener())
