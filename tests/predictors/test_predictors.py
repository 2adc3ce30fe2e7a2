"""The predictor learns what sound tells about the picture, and nothing where it tells nothing."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.synthetic_stream import make_stream

from cg_cli.errors import ItemError, UsageError
from cg_cli.predictors import card as cards
from cg_cli.predictors import codebook, corpus, effects, files, publish, training
from cg_cli.predictors.features import ClipWindows, WindowSet, open_clip
from cg_cli.pruning.predictor import (
    DIRECTION,
    WORDS,
    A2VPredictor,
    DirectionPredictor,
    PredictorMetadata,
    WordPredictor,
)
from cg_cli.pruning.stream import AUDIO, VIDEO

pytestmark = pytest.mark.slow

DIM, KINDS = 24, 6
METADATA = PredictorMetadata("model", "rev", "family", DIM, hidden=32, queries=2, components=16)
KINDS_OF_PREDICTORS = {DIRECTION: METADATA, WORDS: replace(METADATA, kind=WORDS)}
CPU = torch.device("cpu")


def clips(count: int, seed: int = 0, related: bool = True) -> list[ClipWindows]:
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
        token = picture.repeat_interleave(8, 0) + 0.5 * noise(24, DIM)
        start = torch.cat([torch.zeros(1, dtype=torch.int64), length.cumsum(0)])
        out.append(ClipWindows(audio.half(), start, token.half(), torch.arange(4) * 8, picture.half()))
    return out


def on_disk(folder, data) -> list:
    """The files of clips."""
    folder.mkdir(exist_ok=True)
    for number, clip in enumerate(data):
        clip.save(folder / f"{number}.safetensors")
    return [open_clip(folder / f"{number}.safetensors") for number in range(len(data))]


def fit(tmp_path, data, steps=150, name="state", kind=DIRECTION, **more) -> A2VPredictor:
    files_of_clips = on_disk(tmp_path / f"clips-{name}", data)
    card = KINDS_OF_PREDICTORS[kind]
    return training.fit(files_of_clips, card, steps=steps, seed=0, device=CPU, state=tmp_path / name, **more).predictor


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> dict[str, A2VPredictor]:
    """A predictor of each kind for sound that tells the picture."""
    folder = tmp_path_factory.mktemp("taught")
    return {kind: fit(folder, clips(80), name=kind, kind=kind) for kind in KINDS_OF_PREDICTORS}


def test_sound_that_tells_the_picture_is_learned(taught):
    predictor = taught[DIRECTION]
    figures = predictor.metadata.validation
    assert figures["recall_at_1"] > 0.4 > 2 * figures["chance"]  # eight rivals of six kinds: most cannot be told apart
    assert figures["recall_within"] > 0.6 > 1.5 * figures["chance_within"]
    assert figures["cosine"] > 0.8 > 0.3 > figures["cosine_shuffled"]
    assert figures["cosine_control"] < 0.3
    assert (predictor.metadata.clips, predictor.metadata.windows) == (72, 216)


def test_words_that_sound_tells_are_learned_and_their_bits_are_those_there_are(taught):
    predictor = taught[WORDS]
    figures = predictor.metadata.validation
    assert figures["recall_at_1"] > 0.4 > 2 * figures["chance"] and figures["recall_within"] > 0.6
    # Six kinds, as likely as each other: sound that tells the kind tells log2(6) bits of a token.
    assert 0.5 * 2.585 < figures["bits"] < 2.585 + 0.1
    assert figures["bits_shuffled"] < 0 and abs(figures["bits_control"]) < 0.1
    assert predictor.marginal.exp().sum() == pytest.approx(1.0, abs=1e-4)
    assert predictor.metadata.words == codebook.size(72 * 24)


@pytest.mark.parametrize("kind", KINDS_OF_PREDICTORS)
@pytest.mark.parametrize("control", ["unrelated clips", "shuffled sound"])
def test_sound_that_tells_nothing_teaches_nothing(tmp_path, control, kind):
    related = control == "shuffled sound"
    predictor = fit(tmp_path, clips(60, related=related), steps=100, shuffled=related, kind=kind)
    figures = predictor.metadata.validation
    if kind == DIRECTION:
        assert abs(figures["cosine"] - figures["cosine_shuffled"]) < 0.25
    else:
        assert abs(figures["bits"]) < 0.1


def test_an_untrained_predictor_of_words_says_that_sound_tells_nothing():
    predictor = WordPredictor(replace(METADATA, kind=WORDS, words=10))
    predictor.marginal.copy_(torch.rand(10).softmax(0).log())
    told = predictor(torch.randn(6, DIM), torch.tensor([0, 0, 1, 1, 3, 3]), 4)
    torch.testing.assert_close(told, torch.zeros(4, 10), atol=1e-6, rtol=0)


def test_confidence_is_high_where_the_picture_agrees_with_the_sound(tmp_path, taught):
    predictor = taught[DIRECTION]
    fresh = WindowSet(on_disk(tmp_path / "fresh", clips(20, seed=5)))
    audio, of = fresh.audio(torch.arange(len(fresh)))
    picture = torch.cat([mean for (mean,) in fresh.by_clip("video_mean")])
    predicted, actual = predictor(audio.float(), of, len(picture)), predictor.coarse(picture)
    cosine = torch.nn.functional.cosine_similarity(predicted, actual)
    matching = predictor.confidence(cosine)
    assert matching.min() >= 0 and matching.max() <= 1 and matching.mean() > 0.8
    opposite = predictor.confidence(-cosine)
    assert opposite.max() < 0.05


@pytest.mark.parametrize("kind", KINDS_OF_PREDICTORS)
@pytest.mark.parametrize("killed", ["control", "predictor"])
def test_an_interrupted_training_ends_where_an_undisturbed_one_does(tmp_path, kind, killed):
    data = clips(20)
    whole = fit(tmp_path, data, steps=101, name="whole", kind=kind)

    class Stop(Exception):
        pass

    def stop(role, step, figures):
        if (role, step) == (killed, 100):
            raise Stop

    with pytest.raises(Stop):
        fit(tmp_path, data, steps=101, name="part", kind=kind, on_check=stop)
    assert (tmp_path / "part" / f"{killed}.pt").exists()
    resumed = fit(tmp_path, data, steps=101, name="part", kind=kind)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)
    assert resumed.metadata == whole.metadata


@pytest.mark.parametrize("kind", KINDS_OF_PREDICTORS)
def test_the_same_seed_trains_the_same_predictor(tmp_path, kind):
    data = clips(20)
    first, second = (fit(tmp_path, data, steps=20, name=name, kind=kind) for name in "ab")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_kmeans_finds_clusters_that_are_there_whatever_the_seed():
    centre = torch.eye(6, 8) * 5
    kind = torch.arange(600) % 6
    point = centre[kind] + 0.2 * torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        found = codebook.kmeans(point, 6, seed)
        nearest = torch.cdist(centre, found).min(1)
        assert nearest.values.max() < 0.3 and len(set(nearest.indices.tolist())) == 6
        assert torch.equal(found, codebook.kmeans(point, 6, seed))


@pytest.mark.parametrize(("tokens", "words"), [(1, 1), (80, 10), (2048, 256), (100_000, 256)])
def test_few_tokens_make_few_words(tokens, words):
    assert codebook.size(tokens) == words


def test_the_words_of_points_are_their_nearest_ones():
    predictor = WordPredictor(replace(METADATA, kind=WORDS, words=9))
    generator = torch.Generator().manual_seed(0)
    predictor.codebook.copy_(torch.randn(9, 16, generator=generator))
    point = torch.randn(4, 5, 16, generator=generator)
    assert torch.equal(predictor.words_of(point), torch.cdist(point, predictor.codebook.expand(4, -1, -1)).argmin(-1))


def test_what_a_predictor_changes_is_measured_against_no_sound():
    streams = [make_stream(height=8, width=9, seed=seed, dim=DIM) for seed in range(3)]
    torch.manual_seed(0)
    control = WordPredictor(replace(METADATA, kind=WORDS, words=9))
    control.basis.normal_()
    control.codebook.normal_()
    control.marginal.fill_(-math.log(9))
    predictor = copy.deepcopy(control)
    with torch.no_grad():
        predictor.up.bias[:2] = 5.0
        changed = effects.changes(predictor, control, streams)
    assert set(changed) == {f"changed_at_{keep:.2f}{end}" for keep in cards.KEEPS for end in ("", "_control")}
    assert all(value == 0 for name, value in changed.items() if name.endswith("_control"))
    assert 0 < max(changed.values()) <= 1


CHANGED = {f"changed_at_{keep:.2f}": 0.2 for keep in cards.KEEPS}
CONTROL = {f"changed_at_{keep:.2f}_control": 0.01 for keep in cards.KEEPS}


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"bits": 0.9, "bits_control": 0.0} | dict.fromkeys(CHANGED, 0.019), "will not matter: under 2 % of the kept"),
        ({"bits": 0.9, "bits_control": 0.88} | CHANGED, "knows nothing"),
        ({"bits": 0.9, "bits_control": 0.0} | CHANGED, "up to 20 % of the kept tokens change"),
        ({"bits": 0.9, "bits_control": 0.0, "held_out_clips": 2.0} | CHANGED, "2 clips, which is too few to tell"),
        ({"bits": 0.9}, ""),
    ],
)
def test_a_verdict_says_in_words_what_the_figures_mean(figures, says):
    verdict = cards.verdict(WORDS, figures)
    assert says in verdict and bool(verdict) == bool(says) and verdict.isprintable() | (verdict == "")


def test_a_card_shows_each_figure_beside_that_of_one_that_knows_nothing():
    figures = {"bits": 0.91, "bits_shuffled": -0.4, "bits_control": 0.02, "recall_at_1": 0.5, "chance": 0.1}
    rows = cards.rows({"kind": WORDS, "validation": figures | CHANGED | CONTROL})
    text = "\n".join(" ".join(row) for row in rows)
    for part in ("0.910", "-0.400 (another clip's sound)", "+0.890", "50.0% 10.0%", "at keep 0.1 20.0% 1.0%"):
        assert part in text
    old = cards.rows({"validation": {"cosine": 0.47, "cosine_shuffled": 0.02, "recall_at_1": 0.2, "chance": 0.01}})
    assert [row[1] for row in old] == ["0.470", "20.0%"]


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
    predictor = DirectionPredictor(METADATA)
    audio, of = torch.randn(20, DIM), torch.tensor([0] * 5 + [2] * 9 + [3] * 6)
    together = predictor(audio, of, 5)
    for window in (0, 2, 3):
        alone = predictor(audio[of == window], torch.zeros(int((of == window).sum()), dtype=torch.int64), 1)
        torch.testing.assert_close(together[window], alone[0])
    assert (together[[1, 4]] == 0).all()  # silence predicts nothing


@pytest.mark.parametrize("kind", KINDS_OF_PREDICTORS)
def test_a_file_keeps_weights_and_card_and_refuses_other_models(tmp_path, taught, kind):
    predictor = taught[kind]
    files.save(predictor, tmp_path / "p.safetensors")
    loaded = files.load(tmp_path / "p.safetensors")
    assert loaded.metadata == predictor.metadata and type(loaded) is type(predictor)
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
    assert len(out.video_mean) == 4 and out.token_start.tolist() == [0, 6, 12, 18, 24]
    third = stream.embeddings[(stream.modality == VIDEO) & (stream.grid == 2)]
    torch.testing.assert_close(out.video_mean[2].float(), third.mean(0), atol=1e-2, rtol=1e-2)
    expected = stream.embeddings[(stream.modality == AUDIO) & (stream.time_s >= 2) & (stream.time_s < 3 - 1e-4)]
    heard = out.audio[out.audio_start[2] : out.audio_start[3]]
    torch.testing.assert_close(heard.float(), expected, atol=1e-2, rtol=1e-2)
    shown = out.token[out.token_start[2] : out.token_start[3]].float()
    assert torch.cdist(third, shown).min(1).values.max() < 1e-2  # all of them, in any order


def test_of_a_large_window_some_tokens_are_kept_from_all_over_the_picture():
    stream = make_stream(grids=2, height=8, width=20, dim=DIM)
    columns = stream.embeddings[stream.modality == VIDEO].view(2, 8, 20, DIM)
    out = corpus.split_windows(stream, 1.0)
    assert out.token_start.tolist() == [0, corpus.TOKENS, 2 * corpus.TOKENS]
    nearest = torch.cdist(out.token[: corpus.TOKENS].float(), columns[0].reshape(-1, DIM)).argmin(1)
    assert (
        len(nearest.unique()) == corpus.TOKENS
        and len((nearest % 20).unique()) > 10
        and len((nearest // 20).unique()) == 8
    )


def test_windows_are_read_from_the_disk_as_they_were(tmp_path):
    data = clips(5)
    windows = WindowSet(on_disk(tmp_path / "clips", data))
    asked = torch.tensor([13, 0, 4, 4])
    audio, of = windows.audio(asked)
    for place, window in enumerate(asked.tolist()):
        clip, own = data[window // 3], window % 3
        assert torch.equal(audio[of == place], clip.audio[clip.audio_start[own] : clip.audio_start[own + 1]])
    assert windows.spaced(2).tolist() == [0, 2, 3, 5, 6, 8, 9, 11, 12, 14] and len(windows) == 15
    drawn = windows.one_each(4, torch.Generator().manual_seed(0))
    assert len(set(windows.clip[drawn].tolist())) == 4


def test_a_file_of_features_that_is_half_there_counts_as_none(tmp_path):
    (file,) = on_disk(tmp_path / "clips", clips(1))
    file.path.write_bytes(file.path.read_bytes()[:200])
    assert open_clip(file.path) is None and open_clip(tmp_path / "gone") is None


def test_a_stream_without_sound_has_nothing_to_learn_from():
    with pytest.raises(ItemError, match="both sound and picture"):
        corpus.split_windows(make_stream(audio_per_chunk=0), 1.0)


def test_a_video_that_cannot_be_read_is_reported_and_left_out(tmp_path):
    faults = []
    backbone = SimpleNamespace(id="model", revision="rev")
    encoded = corpus.Corpus([tmp_path / "gone.mp4"], backbone, None, 1.0, tmp_path / "cache").encode(faults.append)
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
