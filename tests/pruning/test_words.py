"""ContextGuard with a predictor of visual words: what is heard makes room for what is not, and sound that says nothing
of the picture changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.heard_world import DIM, Clip, World
from helpers.synthetic_stream import make_stream
from torch.utils.flop_counter import FlopCounterMode

from cg_cli.errors import UsageError
from cg_cli.predictors import corpus, training
from cg_cli.predictors.features import open_clip
from cg_cli.pruning import budget as budgets
from cg_cli.pruning.methods.contextguard import REASONS, ContextGuard
from cg_cli.pruning.methods.contextguard_online import ContextGuardOnline
from cg_cli.pruning.ops.grids import table
from cg_cli.pruning.ops.recoverability import FEW, MARGIN, HeardWords
from cg_cli.pruning.ops.rows import rows_of
from cg_cli.pruning.predictor import WORDS, A2VPredictor, PredictorMetadata, WordPredictor
from cg_cli.pruning.stream import AUDIO, VIDEO

KEEP = 0.25
METADATA = PredictorMetadata("m", "r", "f", DIM, hidden=16, queries=2, components=32, kind=WORDS)
TRAINED: dict[float, tuple[World, A2VPredictor, A2VPredictor]] = {}


def trained(tmp_path_factory, shared: float) -> tuple[World, A2VPredictor, A2VPredictor]:
    """A world, a predictor trained in it, and its control."""
    if shared not in TRAINED:
        folder, world = tmp_path_factory.mktemp("words"), World(shared)
        clips = []
        for seed in range(90):
            file = folder / f"{seed}.safetensors"
            corpus.split_windows(world.clip(1000 + seed).stream, 1.0).save(file)
            clips.append(open_clip(file))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # of so little work, more are slower
        fitted = training.fit(clips, METADATA, steps=150, seed=0, device=torch.device("cpu"), state=folder / "state")
        torch.set_num_threads(threads)
        TRAINED[shared] = world, fitted.predictor, fitted.control
    return TRAINED[shared]


def recoverability(predictor: WordPredictor, clip: Clip) -> torch.Tensor:
    """Of each video token [V]."""
    stream = clip.stream
    video, audio = stream.modality == VIDEO, stream.modality == AUDIO
    word = predictor.words_of(predictor.coarse(stream.embeddings[video]))
    window = (stream.time_s + 1e-4).long()
    told = predictor(stream.embeddings[audio], window[audio], int(window.max()) + 1)
    return told[window[video], word]


def area_under_curve(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """How often one of ``positive`` is above one of ``negative``."""
    above = torch.searchsorted(negative.sort().values, positive)
    return float(above.double().mean() / len(negative))


def kept(pruner: ContextGuard, clips: list[Clip]) -> float:
    """Share of the silent objects that stay."""
    stay = total = 0
    for clip in clips:
        stay += int(video_kept(pruner, clip)[clip.silent].sum())
        total += int(clip.silent.sum())
    return stay / total


def video_kept(pruner: ContextGuard, clip: Clip) -> torch.Tensor:
    selection = pruner.select(clip.stream, budgets.plan(clip.stream, KEEP))
    out = torch.zeros(len(clip.stream), dtype=torch.bool).scatter_(0, selection.indices, True)
    return out[clip.stream.modality == VIDEO]


@pytest.mark.slow
@pytest.mark.parametrize(("shared", "gain"), [(0.8, 0.02), (0.3, 0.1)])
def test_silent_objects_stay_where_sound_tells_the_rest(tmp_path_factory, shared, gain):
    world, predictor, control = trained(tmp_path_factory, shared)
    clips = [world.clip(seed) for seed in range(12)]
    told = [recoverability(predictor, clip) for clip in clips]
    heard, unheard = (
        torch.cat([values[getattr(clip, part)] for values, clip in zip(told, clips)]) for part in ("heard", "unheard")
    )
    assert area_under_curve(heard, unheard) > 0.9
    with_sound, shuffled = (kept(ContextGuard().with_predictor(each), clips) for each in (predictor, control))
    off = kept(ContextGuard(recover=False).with_predictor(predictor), clips)
    assert with_sound >= shuffled + gain and with_sound >= off + gain and abs(shuffled - off) < 0.02
    assert predictor.metadata.validation["bits"] > 0.4 and abs(predictor.metadata.validation["bits_control"]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.8, 0.3])
def test_without_its_sound_or_with_another_a_scene_loses_nothing_that_is_only_seen(tmp_path_factory, shared):
    world, predictor, _ = trained(tmp_path_factory, shared)
    with_sound = ContextGuard().with_predictor(predictor)
    off = ContextGuard(recover=False).with_predictor(predictor)
    mute = [world.clip(seed, "none") for seed in range(6)]
    assert all(torch.equal(video_kept(with_sound, clip), video_kept(off, clip)) for clip in mute)
    dubbed = [world.clip(seed, "another class's") for seed in range(12)]
    assert kept(with_sound, dubbed) >= kept(off, dubbed) - 0.01


def word_world(recovered: float) -> tuple[WordPredictor, torch.Tensor]:
    """A predictor of two words, on axis 0 and axis 1, that says of any sound that the first is ``exp(recovered)`` times
    as likely as usual."""
    predictor = WordPredictor(
        PredictorMetadata("m", "r", "f", 8, hidden=4, queries=1, components=8, kind=WORDS, words=4)
    )
    predictor.basis.copy_(torch.eye(8))
    predictor.codebook.copy_(torch.eye(4, 8) * 3)
    predictor.marginal.fill_(-torch.log(torch.tensor(4.0)))
    share = torch.tensor(0.25).mul(torch.tensor(recovered).exp())
    rest = (1 - share) / 3
    with torch.no_grad():
        predictor.up.bias.copy_(torch.stack([share, rest, rest, rest]).log())
    return predictor.requires_grad_(False), torch.eye(4, 8) * 3


def test_recoverability_is_the_log_of_how_much_likelier_sound_makes_a_word():
    predictor, _ = word_world(1.0)
    told = predictor(torch.randn(3, 8), torch.tensor([0, 0, 2]), 3)
    assert told[0, 0] == pytest.approx(1.0, abs=1e-5) and (told[:, 1:] <= 0).all() and (told[1] == 0).all()
    assert (0.25 * told[0].exp()).sum() == pytest.approx(1.0, abs=1e-5)


def heard_words(recovered: float, score: torch.Tensor) -> tuple[torch.Tensor, HeardWords]:
    """``score`` [G, P] as sound leaves it, where each token is of the first word, or, in the last column, the second;
    grids 0 and 1 share a window."""
    stream = make_stream(3, 1, score.shape[1], audio_per_chunk=4, dim=8)
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    word = torch.zeros_like(score, dtype=torch.int64)
    word[:, -1] = 1
    told = torch.tensor([[recovered, -recovered]] * 2)
    heard = HeardWords(word, torch.tensor([0, 0, 1]), told)
    return heard.weigh(score, score, grids), heard


def test_the_first_few_that_sound_tells_of_count_in_full_and_the_others_by_how_expected_they_are():
    score = torch.tensor([[5.0, 1.0, 2.0, 9.0], [4.0, 4.0, 3.0, 9.0], [1.0, 1.0, 1.0, 9.0]])
    weighed, _ = heard_words(MARGIN + 1, score)
    less = torch.tensor(-1.0).exp()
    assert FEW == 2
    expected = torch.tensor([[5.0, less, 2 * less, 9.0], [4.0, 4 * less, 3 * less, 9.0], [1.0, 1.0, less, 9.0]])
    torch.testing.assert_close(weighed, expected)  # among equals the earlier


@pytest.mark.parametrize("recovered", [-3.0, 0.0, 0.5, MARGIN])
def test_sound_that_tells_little_or_the_opposite_takes_nothing(recovered):
    score = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    weighed, _ = heard_words(recovered, score)
    assert torch.equal(weighed[:, :-1], score[:, :-1])
    if abs(recovered) <= MARGIN:
        assert torch.equal(weighed, score)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_equal_those_that_are_counted_one_by_one(seed):
    generator = torch.Generator().manual_seed(seed)
    stream = make_stream(4, 2, 3, dim=8, seed=seed)
    grids = table(stream, rows_of(stream), stream.embeddings[stream.modality == VIDEO])
    order = (torch.rand(4, 6, generator=generator) * 5).round()  # with ties
    word = torch.randint(3, (4, 6), generator=generator)
    window = torch.tensor([0, 0, 1, 2])
    told = torch.rand(3, 3, generator=generator) * 2
    heard = HeardWords(word, window, told)
    rank = heard.rank(order, grids)
    tokens = [(g, p) for g in range(4) for p in range(6) if told[window[g], word[g, p]] > MARGIN]
    for g, p in tokens:
        rivals = [at for at in tokens if window[at[0]] == window[g]]
        before = [at for at in rivals if (-order[at], at) < (-order[g, p], (g, p))]
        assert rank[g, p] == len(before)


def words_stream(seed: int = 0, seconds: int = 6) -> tuple:
    """A stream that shows the first word all over and some of the others, and its predictor."""
    predictor, look = word_world(1.3)
    generator = torch.Generator().manual_seed(seed)
    kind = torch.where(torch.rand(seconds * 30, generator=generator) < 0.7, 0, torch.randint(4, (seconds * 30,)))
    video = look[kind] + 0.4 * torch.randn(seconds * 30, 8, generator=generator)
    return make_stream(seconds, 5, 6, dim=8, video=video, seed=seed), predictor


def test_explain_says_what_was_recoverable_and_how_much_of_each_grid():
    stream, predictor = words_stream()
    pruner = ContextGuard().with_predictor(predictor)
    budget = budgets.plan(stream, 0.4)
    selection = pruner.select(stream, budget)
    told = pruner.explain(stream, budget, selection)
    kept_rows = torch.zeros(len(stream), dtype=torch.bool).scatter_(0, selection.indices, True)
    video = stream.modality == VIDEO
    word = predictor.words_of(predictor.coarse(stream.embeddings))
    recoverable = told.reason == REASONS.index("recoverable")
    assert recoverable.any() and (word[recoverable] == 0).all() and not (recoverable & kept_rows).any()
    share = (1 - torch.tensor(MARGIN - 1.3).exp()) * torch.stack(
        [(word[video & (stream.grid == grid)] == 0).float().mean() for grid in range(6)]
    )
    torch.testing.assert_close(told.recoverable, share)
    # What is kept by score is what has the highest ones.
    ordinary = told.reason == REASONS.index("ordinary")
    by_score = video & ~ordinary
    assert told.score[by_score & kept_rows].min() >= told.score[by_score & ~kept_rows].max()


def test_its_operations_are_those_that_torch_counts():
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(36, 96, generator=generator).repeat(8, 1)
    stream = make_stream(
        8, 6, 6, audio_per_chunk=20, dim=96, video=still + 0.01 * torch.randn(288, 96, generator=generator)
    )
    predictor = WordPredictor(PredictorMetadata("m", "r", "f", 96, hidden=64, components=32, kind=WORDS, words=48))
    predictor.basis.copy_(torch.randn(96, 32, generator=generator))
    predictor.codebook.copy_(torch.randn(48, 32, generator=generator))
    pruner = ContextGuard().with_predictor(predictor.requires_grad_(False))
    budget = budgets.plan(stream, 0.3)
    with FlopCounterMode(display=False) as counter:
        pruner.select(stream, budget)
    compared = 2 * 32 * 8 * 36 * 36  # by cdist, which torch does not count
    assert pruner.flops(budget, 80, 288, 8, 96) == pytest.approx(counter.get_total_flops() + compared, rel=0.02)


def test_online_what_is_kept_of_a_window_does_not_depend_on_what_follows():
    stream, predictor = words_stream(seconds=8)
    pruner = ContextGuardOnline().with_predictor(predictor)
    whole = pruner.select(stream, budgets.plan(stream, 0.3)).indices.tolist()
    changed = replace(
        stream,
        embeddings=torch.where((stream.time_s >= 4)[:, None], stream.embeddings.roll(3, 1), stream.embeddings),
    )
    other = pruner.select(changed, budgets.plan(changed, 0.3)).indices.tolist()
    early = [i for i in range(len(stream)) if 0 <= stream.time_s[i] < 4]
    assert [i for i in whole if i in early] == [i for i in other if i in early] and whole != other


def test_the_control_of_raw_sound_is_not_for_words():
    _, predictor = words_stream()
    with pytest.raises(UsageError, match="control for predictors of directions"):
        ContextGuard(prediction="audio").with_predictor(predictor)


def test_a_clip_without_sound_is_pruned_as_if_there_were_none():
    stream, predictor = words_stream()
    silent = replace(stream, modality=stream.modality.masked_fill(stream.modality == AUDIO, 0))
    budget = budgets.plan(silent, 0.3)
    kept_rows = ContextGuard().with_predictor(predictor).select(silent, budget).indices
    off = ContextGuard(recover=False).with_predictor(predictor).select(silent, budget).indices
    assert torch.equal(kept_rows, off)
