"""What every family promises, on the small checkpoints of ``families.py``: pruning, prefixes, pruners, predictor,
FLOPs, records."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers import SAMPLES
from helpers.attention import causal_attention
from helpers.families import FAMILIES
from helpers.official import logits_of
from helpers.pruner_matrix import CASES, DECODER_CASES
from safetensors.torch import load_file, save_file
from test_checkpoint import COMMIT, FakeHub
from test_cost import counted, counted_one_by_one
from test_layerwise_prefill import Scripted

from cg_cli import backbones
from cg_cli.backbones import decoder_attention
from cg_cli.errors import UsageError
from cg_cli.predictors import corpus, training
from cg_cli.predictors.features import open_clip
from cg_cli.pruning.budget import plan
from cg_cli.pruning.predictor import WORDS, PredictorMetadata
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Merge, Selection, apply
from cg_cli.settings import models

pytestmark = pytest.mark.slow

NEW = 10
TOLERANCE = 1e-4
QUESTIONS = ["What do you see?", " hear the bell", "How many red balls are there?"]
SAMPLE = SAMPLES / "dog.mp4"


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(name, families):
    return families(name)


@pytest.fixture(scope="module")
def stream(name, backbone):
    return backbone.encode(FAMILIES[name].clip())


def whole_sequence(backbone, stream, ids: list[int]):
    """Rows, positions and deepstack rows of the stream and the tokens ``ids`` after it."""
    rows = torch.cat([stream.embeddings, backbone.model.get_input_embeddings()(torch.tensor(ids)).detach()])
    positions = torch.cat([stream.positions, (torch.arange(len(ids)) + stream.next_position).expand(3, -1)], dim=1)
    deepstack = stream.carry.get("deepstack", torch.zeros(len(stream), 0, backbone.hidden_size))
    return rows, positions, torch.cat([deepstack, deepstack.new_zeros(len(ids), *deepstack.shape[1:])])


def reference(backbone, stream, remaining: torch.Tensor, drops: dict[int, int], answer: list[int]) -> torch.Tensor:
    """Logits after the question and each token of ``answer``, layer by layer with a mask over the full sequence, no
    cache.

    Args:
        remaining: [L] bool, rows of the stream that are attended to from the start.
        drops: after which layers every how-manieth row of the media is dropped.
    """
    decoder = backbone.model.model.language_model
    ids = backbone.question_ids(QUESTIONS[0]) + answer
    rows, positions, deepstack = whole_sequence(backbone, stream, ids)
    rotary = decoder.rotary_emb(rows[None], positions[:, None])
    media = torch.cat([stream.modality != TEXT, torch.zeros(len(ids), dtype=torch.bool)])
    remaining = torch.cat([remaining, torch.ones(len(ids), dtype=torch.bool)])
    for number, layer in enumerate(decoder.layers):
        mask = remaining & torch.ones(len(remaining), len(remaining), dtype=torch.bool).tril()
        mask |= torch.eye(len(mask), dtype=torch.bool)  # a dropped row attends to itself: nothing is undefined
        rows = layer(rows[None], attention_mask=mask[None, None], position_embeddings=rotary)[0]
        if number < deepstack.shape[1]:
            rows = rows + deepstack[:, number]
        if number in drops:
            remaining = remaining & ~(media & remaining & ((media & remaining).cumsum(0) % drops[number] == 0))
    return backbone.model.lm_head(decoder.norm(rows[-len(answer) - 1 :]))


def test_dropping_half_equals_masking_the_same_keys(backbone, stream):
    random = torch.Generator().manual_seed(1)
    kept = (stream.modality == TEXT) | (torch.rand(len(stream), generator=random) < 0.5)
    prefix = backbone.prefill(apply(stream, Selection(kept.nonzero()[:, 0])))
    assert prefix.length == int(kept.sum()) < len(stream)
    tokens = list(backbone.answer(prefix, QUESTIONS[0], max_new_tokens=NEW).token_ids)
    ours = logits_of(backbone, prefix, QUESTIONS[0], tokens)
    with torch.no_grad():
        expected = reference(backbone, stream, kept, {}, tokens[:-1])
        everything = reference(backbone, stream, torch.ones_like(kept), {}, tokens[:-1])
    assert expected.std() > 0.3
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    assert (ours - everything).abs().max() > 100 * TOLERANCE


def merged(stream):
    """``stream`` with every second video row folded into the one before it."""
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    into, dropped = video[::2][: len(video) // 2], video[1::2]
    kept = torch.tensor([i for i in range(len(stream)) if i not in set(dropped.tolist())])
    return apply(stream, Selection(kept, Merge(dropped, into, torch.ones(len(dropped)))))


@pytest.mark.parametrize("shrink", [lambda stream: stream, merged], ids=["whole", "merged"])
def test_questions_on_one_prefix_equal_fresh_runs_one_by_one_and_side_by_side(backbone, stream, shrink):
    stream = shrink(stream)
    shared = backbone.prefill(stream)
    one_by_one = [backbone.answer(shared, q, max_new_tokens=NEW).token_ids for q in QUESTIONS]
    fresh = [backbone.answer(backbone.prefill(stream), q, max_new_tokens=NEW).token_ids for q in QUESTIONS]
    together = [g.token_ids for g in backbone.answer_all(shared, QUESTIONS, max_new_tokens=NEW)]
    other = backbone.prefill(backbone.encode(FAMILIES[backbone.family].clip(5, picture=False)))
    asked = [(row, question) for question in QUESTIONS for row in (0, 1)]
    batch = {at: g.token_ids for at, g, _ in backbone.answer_batch([shared, other], asked, max_new_tokens=NEW)}
    assert [batch[2 * number] for number in range(len(QUESTIONS))] == fresh
    assert batch[1] == backbone.answer(other, QUESTIONS[0], max_new_tokens=NEW).token_ids
    assert one_by_one == fresh == together and len(set(fresh)) > 1


def test_a_merged_prefix_is_read_with_the_log_of_its_merge_sizes_in_the_logits(backbone, stream, monkeypatch):
    stream, calls = merged(stream), []
    ours = logits_of(backbone, backbone.prefill(stream), QUESTIONS[0], [7])

    def plain(query, key, value, bias, scaling):
        calls.append(bias)
        return causal_attention(query, key, value, bias[0, 0, 0], scaling)

    monkeypatch.setattr(decoder_attention, "_causal_with_bias", plain)
    expected = logits_of(backbone, backbone.prefill(stream), QUESTIONS[0], [7])
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    # All layers get one tensor, from which features are made once.
    assert len(calls) == backbone.model.config.text_config.num_hidden_layers and len(calls[0][0, 0, 0]) == len(stream)
    assert all(bias is calls[0] for bias in calls)


def test_layerwise_prefill_that_drops_nothing_is_the_plain_one(backbone, stream):
    prefilled = backbone.prefill_layerwise(stream, QUESTIONS[0], Scripted({}), plan(stream, 1.0))
    prefix = backbone.prefill(stream)
    expected = backbone.answer(prefix, QUESTIONS[0], max_new_tokens=NEW)
    assert backbone.answer_layerwise(prefilled, QUESTIONS[0], max_new_tokens=NEW).token_ids == expected.token_ids
    torch.testing.assert_close(
        prefilled.logits, logits_of(backbone, prefix, QUESTIONS[0], [7])[0], atol=TOLERANCE, rtol=0
    )
    question = len(backbone.question_ids(QUESTIONS[0]))
    assert sum(backbone.layer_flops(n, 0) for n in prefilled.rows) == backbone.decoder_flops(
        len(stream) + question, 0, 0
    )


def test_dropping_between_layers_equals_masking_from_there_on(backbone, stream):
    drops = {0: 3, 1: 2}
    prefilled = backbone.prefill_layerwise(stream, QUESTIONS[0], Scripted(drops), plan(stream, 1.0))
    first = prefilled.logits
    second = backbone.extend([int(first.argmax())], prefilled.next_position, prefilled.cache)
    with torch.no_grad():
        expected = reference(backbone, stream, torch.ones(len(stream), dtype=torch.bool), drops, [int(first.argmax())])
    torch.testing.assert_close(torch.stack([first, second]), expected, atol=TOLERANCE, rtol=0)


def test_the_attention_that_a_pruner_sees_is_the_layers_own(backbone, stream):
    """Against the values of the second layer, whose output would be another with other weights."""
    views = []

    class Watching(Scripted):
        def after(self, view, budget):
            views.append((view.hidden, view.attention(torch.arange(len(view.modality)))))

    backbone.prefill_layerwise(stream, QUESTIONS[0], Watching({}), plan(stream, 1.0))
    decoder = backbone.model.model.language_model
    rows, positions, _ = whole_sequence(backbone, stream, backbone.question_ids(QUESTIONS[0]))
    rotary = decoder.rotary_emb(rows[None], positions[:, None])
    layer, before = decoder.layers[1], views[0][0][None]
    config, outputs = layer.self_attn.config, []
    kind, config._attn_implementation = config._attn_implementation, "eager"
    hook = layer.self_attn.register_forward_hook(lambda module, inputs, out: outputs.append(out[1]))
    try:
        with torch.no_grad():
            layer(
                before,
                attention_mask=torch.full((1, 1, len(rows), len(rows)), -1e9).triu(1),
                position_embeddings=rotary,
            )
    finally:
        hook.remove()
        config._attn_implementation = kind
    torch.testing.assert_close(views[1][1], outputs[0][0].mean(0), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_pruner_before_the_model_keeps_its_contract(backbone, stream, case):
    kinds = stream.modality.tolist()
    for keep in (1.0,) if case.whole_only else (1.0, 0.45, 0.1):
        budget = plan(stream, keep)
        chosen = case.make(backbone.hidden_size).select(stream, budget)
        indices = chosen.indices.tolist()
        assert indices == sorted(set(indices))
        kept, counts = case.counts(stream, budget), Counter(kinds[i] for i in indices)
        assert counts[TEXT] == kinds.count(TEXT) and counts[VIDEO] + counts[AUDIO] == budget.count
        if case.name != "contextguard-online":  # which divides the sum window by window
            assert (counts[VIDEO], counts[AUDIO]) == (kept.video, kept.audio)
        pruned = apply(stream, chosen)
        if keep == 1:
            assert pruned is stream
        else:
            assert (
                torch.equal(pruned.positions, stream.positions[:, chosen.indices])
                and pruned.embeddings.isfinite().all()
            )
            assert {key: len(rows) for key, rows in pruned.carry.items()} == dict.fromkeys(stream.carry, len(pruned))


@pytest.mark.parametrize("case", DECODER_CASES, ids=str)
def test_every_pruner_between_layers_keeps_its_budget(backbone, stream, case):
    pruner, budget = case.make(), plan(stream, 0.45)
    prefilled = backbone.prefill_layerwise(apply(stream, pruner.select(stream, budget)), QUESTIONS[0], pruner, budget)
    assert sum(pruner.kept(prefilled.media)) == budget.count


def test_the_predictor_trains_on_its_streams(name, backbone, tmp_path):
    clips = []
    for seed in range(24):
        cut = corpus.split_windows(backbone.encode(FAMILIES[name].clip(seed)), 1.0)
        assert len(cut.video_mean) >= 2 and cut.audio.isfinite().all()
        cut.save(tmp_path / f"{seed}.safetensors")
        clips.append(open_clip(tmp_path / f"{seed}.safetensors"))
    sizes = {"hidden": 16, "queries": 2, "components": 8, "kind": WORDS}
    card = PredictorMetadata(name, "revision", name, backbone.hidden_size, **sizes)
    predictor = training.fit(clips, card, steps=20, seed=0, device=backbone.device, state=tmp_path / "state").predictor
    assert predictor.metadata.windows > 0 and all(value.isfinite().all() for value in predictor.state_dict().values())


def test_flops_equal_the_counter(name, backbone, monkeypatch):
    clip = FAMILIES[name].clip()
    module, _, function = FAMILIES[name].log_mel.rpartition(".")
    real = getattr(importlib.import_module(module), function)
    monkeypatch.setattr(FAMILIES[name].log_mel, _cached(real))  # its filter bank is no work of the model
    for part in (clip, FAMILIES[name].clip(sound=False), FAMILIES[name].clip(picture=False)):
        backbone.encode(part)
        vision, audio = backbone.encode_flops(part)
        assert (vision > 0, audio > 0) == (part.frames is not None, part.audio is not None)
        assert vision + audio == counted(backbone.encode, part)
    stream = backbone.encode(clip)
    pruned = apply(stream, Selection((stream.modality != VIDEO).nonzero()[:, 0]))
    for entered in (stream, pruned):
        assert counted(backbone.prefill, entered) == backbone.decoder_flops(len(entered), 0, 0)
    prefix = backbone.prefill(pruned)
    assert counted_one_by_one(backbone, [5, 6, 7], prefix) == backbone.decoder_flops(3, len(pruned), 1)


def _cached(real):
    """``real``, which computes the same thing only once."""
    known = {}

    def cached(audio, extractor, device):
        key = audio.tobytes()
        if key not in known:
            known[key] = real(audio, extractor, device)
        return known[key]

    return cached


def test_token_counts_are_known_before_encoding(name, backbone):
    for clip in (FAMILIES[name].clip(), FAMILIES[name].clip(sound=False), FAMILIES[name].clip(picture=False)):
        stream = backbone.encode(clip)
        frames, height, width = (0, 0, 0) if clip.frames is None else clip.frames.shape[:3]
        known = type(backbone).media_tokens(frames, height, width, 0 if clip.audio is None else len(clip.audio))
        kinds = Counter(stream.modality.tolist())
        assert known == (int(stream.grid.max()) + 1, kinds[VIDEO], kinds[AUDIO])


def test_bfloat16_runs_and_stays_close(name, family_dir, stream):
    half = backbones.load(str(family_dir(name)), device="cpu", dtype="bfloat16", offline=True)
    coarse = half.encode(FAMILIES[name].clip())
    assert coarse.embeddings.dtype == half.dtype == torch.bfloat16
    assert (coarse.embeddings.float() - stream.embeddings).norm() < 0.05 * stream.embeddings.norm()
    assert half.answer(half.prefill(merged(coarse)), "x", max_new_tokens=3).token_ids


def test_cg_ask_answers_about_a_real_clip(name, family_dir, backbone, cg):
    directory = str(family_dir(name))
    options = ("--json", "--max-new-tokens", "5", "--max-pixels", "10000", "--fps", "1", "--offline", "-q")
    code, out, err = cg("ask", str(SAMPLE), "What is happening?", "Who?", "--model", directory, *options)
    assert code == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    for record in records:
        media, tokens = record["media"], record["tokens"]
        samples = round(media["audio_s"] * 16_000)
        _, video, audio = type(backbone).media_tokens(media["frames"], media["height"], media["width"], samples)
        assert record["ok"] and record["model"]["family"] == name and media["width"] % backbone.side_multiple == 0
        assert (tokens["video"], tokens["audio"]) == (video, audio) and video > 0 < audio
        assert tokens["video_kept"] + tokens["audio_kept"] == round(0.45 * (video + audio))
        assert record["flops"]["prefill_full"] == backbone.decoder_flops(video + audio + tokens["text"], 0, 0)
    assert [record["prefix_reused"] for record in records] == [False, True]


def test_from_the_hub_only_what_is_run_is_fetched(name, family_dir, backbone, stream, tmp_path, monkeypatch):
    hub = FakeHub(family_dir(name), tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    loaded = backbones.load("someone/model", device="cpu", dtype="float32", offline=False)
    assert loaded.revision == COMMIT
    assert torch.equal(loaded.encode(FAMILIES[name].clip()).embeddings, stream.embeddings)
    index = json.loads((family_dir(name) / "model.safetensors.index.json").read_text())["weight_map"]
    run = {shard for key, shard in index.items() if not key.startswith(("talker.", "code2wav."))}
    assert {path for path, _ in hub.requests if path.endswith(".safetensors")} == run


def test_a_built_in_shape_runs_with_random_weights(name, monkeypatch):
    """The published towers, cut to a layer, before a small language model."""
    size = next(iter(FAMILIES[name].sizes))
    small = {key: min(value, 512) for key, value in FAMILIES[name].sizes[size].items()}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096}
    monkeypatch.setitem(FAMILIES[name].sizes, size, small)
    random = backbones.random_init(name, size, 1, device="cpu", dtype="bfloat16", tokenizer=Path(models.NANO.source))
    stream = random.encode(FAMILIES[name].clip())
    assert (random.id, random.dtype, len(stream.carry.get("deepstack", ()))) == (
        f"random {name} {size}",
        torch.bfloat16,
        0,
    )
    assert random.answer(random.prefill(stream), QUESTIONS[0], max_new_tokens=2).token_ids


def test_missing_weights_fail(name, family_dir, tmp_path):
    for path in family_dir(name).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for part in FAMILIES[name].essential:
        shard = next(path for path in tmp_path.glob("*.safetensors") if any(part in key for key in load_file(path)))
        before = shard.read_bytes()
        weights = load_file(shard)
        del weights[next(key for key in weights if part in key)]
        save_file(weights, shard, metadata={"format": "pt"})
        with pytest.raises(UsageError, match="incomplete.*missing") as caught:
            backbones.load(str(tmp_path), device="cpu", dtype="float32", offline=True)
        assert "\n" not in str(caught.value)
        shard.write_bytes(before)


def test_a_grid_that_repeats_another_is_not_encoded(name, backbone):
    clip = FAMILIES[name].clip()
    of_a_grid = backbone.frame_multiple
    frames = clip.frames.copy()
    frames[of_a_grid : 2 * of_a_grid] = frames[:of_a_grid]  # the second grid is the first one again
    looked, once = replace(clip, frames=frames), replace(clip, frames=frames, look_once=0)
    shown = []
    hook = backbone.model.model.visual.register_forward_pre_hook(lambda module, args: shown.append(len(args[0])))
    whole, stream = backbone.encode(looked), backbone.encode(once)
    hook.remove()
    grids = len(frames) // of_a_grid
    assert shown[1] == shown[0] * (grids - 1) // grids
    torch.testing.assert_close(stream.embeddings, whole.embeddings, atol=1e-5, rtol=1e-5)
    assert whole.same_as is None
    video = (stream.modality == VIDEO).nonzero()[:, 0].view(grids, -1)
    assert torch.equal(stream.same_as[video[1]], video[0])
    others = torch.ones(len(stream), dtype=torch.bool).index_fill(0, video[1], False)
    assert torch.equal(stream.same_as[others], torch.arange(len(stream))[others])
    assert torch.equal(stream.embeddings[video[1]], stream.embeddings[video[0]])
    for key, rows in stream.carry.items():
        torch.testing.assert_close(rows, whole.carry[key], atol=1e-5, rtol=1e-5)
    assert backbone.encode_flops(once)[0] * grids == backbone.encode_flops(looked)[0] * (grids - 1)
