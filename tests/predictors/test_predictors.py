"""The predictor learns what sound tells about the picture, and nothing where it tells nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.synthetic_stream import make_stream

from cg_cli.errors import ItemError, UsageError
from cg_cli.predictors import corpus, files, publish, training
from cg_cli.pruning.predictor import A2VPredictor, PredictorMetadata
from cg_cli.pruning.stream import AUDIO, VIDEO

pytestmark = pytest.mark.slow

DIM, KINDS = 24, 6
METADATA = PredictorMetadata("model", "rev", "family", DIM, hidden=32, queries=2, components=16)


def clips(count: int, seed: int = 0, related: bool = True) -> list[corpus.ClipWindows]:
    """Clips of three windows; the sound of kind k goes with the picture of kind k (or with none, if not
    ``related``)."""
    world = torch.Generator().manual_seed(99)
    looks, sounds = torch.randn(2, KINDS, DIM, generator=world)
    generator = torch.Generator().manual_seed(seed)
    noise = lambda *shape: torch.randn(*shape, generator=generator)
    out = []
    for _ in range(count):
        kind = torch.randint(KINDS, (3,), generator=generator)
        audio_kind = kind if related else torch.randint(KINDS, (3,), generator=generator)
        length = torch.randint(3, 6, (3,), generator=generator)
        window = torch.repeat_interleave(torch.arange(3), length)
        audio = 5 + sounds[audio_kind][window] + 0.3 * noise(len(window), DIM)
        picture = -4 + looks[kind] + 0.3 * noise(3, DIM)
        sample = picture.repeat(4, 1) + 0.5 * noise(12, DIM)
        out.append(corpus.ClipWindows(audio.half(), window, picture.half(), sample.half()))
    return out


def fit(tmp_path, data, steps=150, name="state.pt", **more) -> A2VPredictor:
    return training.fit(data, METADATA, steps=steps, seed=0, state_file=tmp_path / name, **more)


def test_sound_that_tells_the_picture_is_learned(tmp_path):
    predictor = fit(tmp_path, clips(80))
    figures = predictor.metadata.validation
    assert figures["recall_at_1"] > 0.4 > 2 * figures["chance"]  # eight rivals of six kinds: most cannot be told apart
    assert figures["cosine"] > 0.8 > 0.3 > figures["cosine_shuffled"]
    assert (predictor.metadata.clips, predictor.metadata.windows) == (72, 216)


@pytest.mark.parametrize("control", ["unrelated clips", "shuffled sound"])
def test_sound_that_tells_nothing_teaches_nothing(tmp_path, control):
    related = control == "shuffled sound"
    predictor = fit(tmp_path, clips(80, related=related), shuffled=related)
    figures = predictor.metadata.validation
    assert abs(figures["cosine"] - figures["cosine_shuffled"]) < 0.25


def test_confidence_is_high_where_the_picture_agrees_with_the_sound(tmp_path):
    predictor = fit(tmp_path, clips(80))
    fresh = training.concatenate(clips(20, seed=5))
    audio, of, picture = fresh.batch(torch.arange(len(fresh.clip)))
    predicted, actual = predictor(audio, of, len(picture)), predictor.coarse(picture)
    cosine = torch.nn.functional.cosine_similarity(predicted, actual)
    matching = predictor.confidence(cosine)
    assert matching.min() >= 0 and matching.max() <= 1 and matching.mean() > 0.8
    opposite = predictor.confidence(-cosine)
    assert opposite.max() < 0.05


def test_an_interrupted_training_ends_where_an_undisturbed_one_does(tmp_path):
    data = clips(40)
    whole = fit(tmp_path, data, steps=150, name="whole.pt")

    class Stop(Exception):
        pass

    def stop(step, figures):
        if step == 100:
            raise Stop

    with pytest.raises(Stop):
        fit(tmp_path, data, steps=150, name="part.pt", on_check=stop)
    assert (tmp_path / "part.pt").exists()
    resumed = fit(tmp_path, data, steps=150, name="part.pt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_the_same_seed_trains_the_same_predictor(tmp_path):
    data = clips(40)
    first, second = (fit(tmp_path, data, steps=60, name=name) for name in "ab")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_a_training_leaves_the_global_random_state_alone(tmp_path):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    fit(tmp_path, clips(20), steps=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_too_few_clips_are_refused(tmp_path):
    with pytest.raises(UsageError, match="3 clips"):
        fit(tmp_path, clips(3))


def test_pooling_by_windows_equals_pooling_each_alone():
    torch.manual_seed(0)
    predictor = A2VPredictor(METADATA)
    audio, of = torch.randn(20, DIM), torch.tensor([0] * 5 + [2] * 9 + [3] * 6)
    together = predictor(audio, of, 5)
    for window in (0, 2, 3):
        alone = predictor(audio[of == window], torch.zeros(int((of == window).sum()), dtype=torch.int64), 1)
        torch.testing.assert_close(together[window], alone[0])
    assert (together[[1, 4]] == 0).all()  # silence predicts nothing


def test_a_file_keeps_weights_and_card_and_refuses_other_models(tmp_path):
    predictor = fit(tmp_path, clips(40), steps=50)
    files.save(predictor, tmp_path / "p.safetensors")
    loaded = files.load(tmp_path / "p.safetensors")
    assert loaded.metadata == predictor.metadata
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in predictor.state_dict().items())
    files.check_fits(loaded, "model", "elsewhere", DIM, "p")
    files.check_fits(loaded, "renamed", "rev", DIM, "p")
    for backbone, revision, width in (("model", "rev", 99), ("other", "other", DIM)):
        with pytest.raises(UsageError, match="trained for model"):
            files.check_fits(loaded, backbone, revision, width, "p")


@pytest.mark.parametrize("content", [b"", b"not a predictor", b"\x10\0\0\0\0\0\0\0{}              "])
def test_a_broken_file_is_one_line(tmp_path, content):
    file = tmp_path / "p.safetensors"
    file.write_bytes(content)
    with pytest.raises(UsageError) as error:
        files.load(file)
    assert "\n" not in str(error.value) and "p.safetensors" in str(error.value)
    with pytest.raises(UsageError, match="no predictor file"):
        files.load(tmp_path / "nowhere.safetensors")


def test_a_stream_is_cut_into_windows_that_have_both():
    stream = make_stream(grids=5, height=2, width=3, audio_per_chunk=10, dim=DIM)
    late = (stream.modality == AUDIO) & (stream.time_s >= 4)
    out = corpus.split_windows(replace(stream, time_s=torch.where(late, stream.time_s + 10, stream.time_s)), 1.0)
    assert len(out.video_mean) == 4 and out.audio_window.tolist() == sorted(out.audio_window.tolist())
    third = stream.embeddings[(stream.modality == VIDEO) & (stream.grid == 2)]
    torch.testing.assert_close(out.video_mean[2].float(), third.mean(0), atol=1e-2, rtol=1e-2)
    expected = stream.embeddings[(stream.modality == AUDIO) & (stream.time_s >= 2) & (stream.time_s < 3 - 1e-4)]
    torch.testing.assert_close(out.audio[out.audio_window == 2].float(), expected, atol=1e-2, rtol=1e-2)


def test_a_stream_without_sound_has_nothing_to_learn_from():
    with pytest.raises(ItemError, match="both sound and picture"):
        corpus.split_windows(make_stream(audio_per_chunk=0), 1.0)


def test_a_video_that_cannot_be_read_is_reported_and_left_out(tmp_path):
    faults = []
    backbone = SimpleNamespace(id="model", revision="rev")
    encoded = corpus.encode_all([tmp_path / "gone.mp4"], backbone, None, 1.0, tmp_path / "cache", faults.append)
    assert list(encoded) == [None] and len(faults) == 1 and "gone.mp4: cannot be read: No such file" in faults[0]


def test_videos_are_found_in_folders_each_once(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "deep/a.MKV", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    paths = corpus.find_videos([tmp_path, tmp_path / "b.mp4"])
    assert [f.name for f in paths] == ["b.mp4", "a.MKV"]
    with pytest.raises(UsageError, match="does not exist"):
        corpus.find_videos([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no video"):
        corpus.find_videos([tmp_path / "empty"])


@pytest.mark.parametrize(
    "clips, words", [(2, "too few to tell (2 clips"), (9, "too few"), (10, "100.0% among 10 clips")]
)
def test_recall_on_few_clips_is_no_share(clips, words):
    assert publish.recall_in_words({"recall_at_1": 1.0, "chance": 1 / clips}).startswith(words)
