"""video-SALMONN 2+: picture and text against transformers' Qwen2.5-VL, sound against plain torch, layout against
loops."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from math import ceil, floor

import huggingface_hub
import numpy as np
import pytest
import torch
from helpers import SAMPLES, official, tiny, tiny_video_salmonn2
from helpers.official import generate, logits_of
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from cg_cli import backbones
from cg_cli.backbones import registry
from cg_cli.backbones.layout import MediaShape
from cg_cli.backbones.video_salmonn2 import audio_tower
from cg_cli.backbones.video_salmonn2 import model as video_salmonn2
from cg_cli.backbones.video_salmonn2.model import INFERENCE, TRAINING, prefix_layout
from cg_cli.errors import UsageError
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO
from cg_cli.settings.resolve import decode_options, resolve_settings

pytestmark = pytest.mark.slow

NEW = 12
TOLERANCE = 1e-4
QUESTION = "What do you see?"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@pytest.fixture
def backbone(families):
    return families("video_salmonn2")


@pytest.fixture(scope="module")
def weights(family_dir):
    return load_file(family_dir("video_salmonn2") / "model-00002-of-00002.safetensors")


@pytest.fixture
def copied(family_dir, tmp_path):
    return shutil.copytree(family_dir("video_salmonn2"), tmp_path / "copy")


def load(source, **options):
    return backbones.load(str(source), device="cpu", dtype="float32", offline=True, **options)


def rewrite(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "clip", [tiny.clip(6, 56, 84, None), tiny.clip(5, 84, 56, None, seconds_per_frame=0.05)], ids=["2 fps", "20 fps"]
)
def test_picture_and_text_equal_generate(backbone, clip):
    """transformers' own model on the raw inputs; the positions are given, as its own rule is Qwen2.5-VL's."""
    grid = [(len(clip.frames) + 1) // 2, clip.frames.shape[1] // 14, clip.frames.shape[2] // 14]
    media = f"<|vision_start|>{'<|video_pad|>' * (int(np.prod(grid)) // 4)}<|vision_end|>"
    text = f"{SYSTEM}<|im_start|>user\n{media}\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    ids = backbone.tokenizer(text, return_tensors="pt")["input_ids"]
    stream = backbone.encode(clip)
    question = ids.shape[1] - len(stream)
    after = (torch.arange(question) + stream.next_position).expand(3, -1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": torch.tensor(official.patches(clip.frames), dtype=torch.float32),
        "video_grid_thw": torch.tensor([grid]),
        "position_ids": torch.cat([stream.positions, after], dim=1)[:, None],
    }
    tokens, logits = generate(backbone, inputs, NEW)
    prefix = backbone.prefill(stream)
    assert len(backbone.question_ids(QUESTION)) == question  # the prompt's text is the same
    assert backbone.answer(prefix, QUESTION, max_new_tokens=NEW).token_ids == tuple(tokens)
    assert logits.std() > 0.5
    torch.testing.assert_close(
        logits_of(backbone, prefix, QUESTION, tokens), logits[: len(tokens)], atol=TOLERANCE, rtol=0
    )


def attention(states, source, weights, name, heads):
    """BERT's attention with its output and norm, from the published weights."""
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
    part = lambda kind, x: split(linear(x, weights[f"{name}.self.{kind}.weight"], weights[f"{name}.self.{kind}.bias"]))
    mixed = scaled_dot_product_attention(part("query", states), part("key", source), part("value", source))
    return output_block(mixed.transpose(1, 2).flatten(2), states, weights, f"{name}.output")


def output_block(x, states, weights, name):
    """The end of each of BERT's blocks: a projection, the sum with what came in, a norm."""
    out = linear(x, weights[f"{name}.dense.weight"], weights[f"{name}.dense.bias"]) + states
    return layer_norm(
        out, out.shape[-1:], weights[f"{name}.LayerNorm.weight"], weights[f"{name}.LayerNorm.bias"], 1e-12
    )


def audio_tokens(audio: np.ndarray, weights) -> torch.Tensor:
    """The audio tokens [A, hidden] of ``audio``, from the published weights, one window of 25 states at a time."""
    extractor = WhisperFeatureExtractor(
        feature_size=tiny_video_salmonn2.MEL, sampling_rate=16_000, hop_length=160, chunk_length=30
    )
    sizes = {
        k: v
        for k, v in tiny_video_salmonn2.AUDIO.items()
        if k not in ("qformer_config", "second_per_window", "second_stride")
    }
    encoder = WhisperEncoder(WhisperConfig(**sizes)).eval()
    encoder.load_state_dict(
        {k.removeprefix("audio."): v for k, v in weights.items() if k.removeprefix("audio.") in encoder.state_dict()}
    )
    out, root = [], "audio.qformer.bert"
    for start in range(0, len(audio), 480_000):
        mel = extractor(audio[start : start + 480_000], sampling_rate=16_000, return_tensors="pt")["input_features"]
        states = encoder(mel).last_hidden_state
        for first in range(0, 1500, 25):
            window, query = states[:, first : first + 25], weights["audio.q_tokens"]
            norm = (weights[f"{root}.embeddings.LayerNorm.weight"], weights[f"{root}.embeddings.LayerNorm.bias"])
            query = layer_norm(query, query.shape[-1:], *norm, 1e-12)
            for n in range(2):
                layer = f"{root}.encoder.layer.{n}"
                query = attention(query, query, weights, f"{layer}.attention", 3)
                query = attention(query, window, weights, f"{layer}.crossattention", 3)
                wide = gelu(
                    linear(
                        query,
                        weights[f"{layer}.intermediate_query.dense.weight"],
                        weights[f"{layer}.intermediate_query.dense.bias"],
                    )
                )
                query = output_block(wide, query, weights, f"{layer}.output_query")
            out.append(linear(query[0], weights["audio.audio_proj.weight"], weights["audio.audio_proj.bias"]))
    return torch.cat(out)


@pytest.mark.parametrize("seconds", [0.4, 3.0, 31.0])
def test_sound_equals_plain_torch(backbone, weights, seconds):
    clip = tiny.clip(None, seconds=seconds)
    stream = backbone.encode(clip)
    tokens = stream.embeddings[stream.modality == AUDIO]
    with torch.no_grad():
        expected = audio_tokens(clip.audio, weights)
    assert len(tokens) == 60 * ceil(seconds / 30)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-4)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-2  # windows differ


def test_segments_in_pieces_equal_one_piece(backbone, monkeypatch):
    clip = tiny.clip(None, seconds=61.0)
    whole = backbone.encode(clip)
    monkeypatch.setattr(audio_tower, "SEGMENTS", 2)
    torch.testing.assert_close(backbone.encode(clip).embeddings, whole.embeddings, atol=1e-5, rtol=0)


def reference_layout(header: int, shape: MediaShape, rule: str) -> tuple[str, list[tuple[int, int, int]], int]:
    """Order and positions by the published rules, token by token: the kinds, (time, height, width), and the question's
    first."""
    clock = [int(torch.tensor(float(i)) * shape.seconds_per_grid * 2) for i in range(shape.grids + 1)]
    kinds, positions, left = "", [], shape.audio
    for i in range(shape.grids):
        kinds += "V" * (shape.rows * shape.columns)
        now = left if i == shape.grids - 1 else min(left, clock[i + 1] - clock[i])
        kinds += "A" * now
        left -= now
    kinds += "A" * left
    video = audio = 0
    for at, kind in enumerate(kinds):
        as_video = kind == "V" if rule == TRAINING else at < shape.video
        if as_video:
            grid, cell = divmod(video, shape.rows * shape.columns)
            time = clock[grid] if rule == TRAINING else 2 * grid
            positions.append((time, cell // shape.columns, cell % shape.columns))
            video += 1
        elif rule == TRAINING:
            positions.append((audio, 0, audio) if shape.video else (audio, audio, 0))
            audio += 1
        else:
            positions.append((max(max(p) for p in positions) + 1 if positions else 0,) * 3)
    latest = max(p[0] for p in positions) if rule == TRAINING and shape.audio else max(max(p) for p in positions)
    start = header + 1
    listed = (
        [(i,) * 3 for i in range(start)]
        + [tuple(x + start for x in p) for p in positions]
        + [(latest + 1 + start,) * 3]
    )
    return "T" * start + kinds + "T", listed, latest + 2 + start


@pytest.mark.parametrize("rule", [TRAINING, INFERENCE])
@pytest.mark.parametrize("seed", range(40))
def test_order_and_positions_follow_the_published_rules(rule, seed):
    rng = random.Random(seed)
    kind = rng.choice(["both", "both", "both", "video", "audio"])
    grids = 0 if kind == "audio" else rng.randint(1, 9)
    shape = MediaShape(
        grids=grids,
        rows=rng.choice([1, 2, 5]) if grids else 0,
        columns=rng.choice([1, 3, 40]) if grids else 0,
        audio=0 if kind == "video" else rng.choice([1, 7, 60, 120]),
        seconds_per_grid=rng.choice([0.2, 0.37, 1.0, 1.001, 3.7, 9.25]) if grids else 0.0,
    )
    layout = prefix_layout(4, shape, rule)
    kinds, positions, question = reference_layout(4, shape, rule)
    assert "".join("TVA"[k] for k in layout.modality.tolist()) == kinds
    assert list(map(tuple, layout.positions.T.tolist())) == positions
    assert layout.next_position == question


def test_rows_tell_grid_place_and_time(backbone):
    stream = backbone.encode(tiny.clip(6, 28, 56, 8.0))
    kinds = "".join("TVA"[k] for k in stream.modality.tolist()).strip("T")
    assert kinds == "VVAAVVAAVV" + "A" * 56  # 44 of them are the silence that fills the half minute
    audio, video = stream.modality == AUDIO, stream.modality == VIDEO
    assert stream.time_s[audio][:4].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert stream.time_s[video].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert stream.column[video].tolist() == [0, 1] * 3 and (stream.grid[stream.modality == TEXT] == -1).all()
    assert floor(stream.next_position) == stream.next_position


@pytest.mark.parametrize(("asked", "rule"), [("auto", TRAINING), ("training", TRAINING), ("inference", INFERENCE)])
def test_the_set_of_positions_is_an_option(backbone, family_dir, asked, rule):
    other = load(family_dir("video_salmonn2"), positions=asked)
    clip = tiny.clip(6, 28, 56, 8.0)
    ours, theirs = backbone.encode(clip), other.encode(clip)
    assert torch.equal(ours.embeddings, theirs.embeddings) and other.revision == backbone.revision
    assert torch.equal(ours.positions, theirs.positions) == (rule == TRAINING)
    shape, header = (
        MediaShape(grids=3, rows=1, columns=2, audio=60, seconds_per_grid=1.0),
        len(other._ids(other.header)),
    )
    assert torch.equal(theirs.positions, prefix_layout(header, shape, rule).positions)
    assert (other.positions, other.encode(clip).next_position) == (rule, theirs.next_position)


def test_the_line_in_the_config_that_it_was_before_is_refused(copied):
    rewrite(copied, positions=INFERENCE)
    with pytest.raises(UsageError, match='has "positions": take it out, and give --positions instead'):
        load(copied)


def test_the_flat_config_is_read(backbone):
    text = backbone.model.model.language_model.config
    assert (text.rope_parameters["rope_theta"], text.rope_parameters["mrope_section"]) == (1e6, [2, 3, 3])
    assert (text.rms_norm_eps, text.num_hidden_layers, backbone.context_length) == (1e-6, 2, 128_000)


def test_sound_is_part_of_what_tells_the_family(copied):
    rewrite(copied, audio_config=None)
    with pytest.raises(UsageError, match="qwen2_5_vl without sound is not supported; .*qwen2_5_vl with audio_config"):
        load(copied)


@pytest.mark.parametrize("changes", [{"second_stride": 0.25}, {"qformer_config": {"query_length": 4}}])
def test_other_windows_are_refused(copied, changes):
    rewrite(copied, audio_config=tiny_video_salmonn2.AUDIO | changes)
    with pytest.raises(UsageError, match="is supported: use a published checkpoint"):
        load(copied)


def test_what_the_config_leaves_out_is_whisper_large_and_the_published_q_former():
    with torch.device("meta"):
        tower = audio_tower.AudioTower({"model_type": "whisper"}, 2048, torch.bfloat16)
    names = {name: tuple(weight.shape) for name, weight in tower.state_dict().items()}
    assert names["encoder.layers.31.fc1.weight"] == (5120, 1280) and names["encoder.conv1.weight"] == (1280, 128, 3)
    assert names["qformer.encoder.layer.1.crossattention.attention.key.weight"] == (3072, 1280)
    assert names["q_tokens"] == (1, 1, 3072) and names["audio_proj.weight"] == (2048, 3072)


MERGED = "LoRA adapter, not a whole model: use a merged checkpoint, such as tsinghua-ee/video-SALMONN2_plus_3B_full or "


@pytest.mark.parametrize("config", [True, False], ids=["with config", "without"])
def test_an_adapter_folder_is_refused_with_the_name_of_the_merged_one(copied, config):
    (copied / "adapter_config.json").write_text("{}")
    if not config:
        (copied / "config.json").unlink()
    with pytest.raises(UsageError, match=MERGED) as caught:
        load(copied)
    assert "\n" not in str(caught.value)


def test_adapter_weights_are_refused_with_the_name_of_the_merged_one(copied):
    path = copied / "model-00001-of-00002.safetensors"
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    save_file(load_file(path) | {key: torch.zeros(2, 2)}, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=MERGED):
        load(copied)


def test_an_adapter_on_the_hub_is_refused_with_the_name_of_the_merged_one(tmp_path, monkeypatch):
    adapter = tmp_path / "snapshots" / "0" / "adapter_config.json"
    adapter.parent.mkdir(parents=True)
    adapter.write_text("{}")

    def download(repo, name, **_):
        if name != adapter.name:
            raise errors.EntryNotFoundError(name)
        return str(adapter)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UsageError, match=f"someone/lora is a {MERGED}"):
        backbones.load("someone/lora", device="cpu", dtype="float32", offline=False)


@pytest.mark.parametrize(("size", "billions"), [("3b", 3.75), ("7b", 8.29)])
def test_the_published_shapes(size, billions):
    config, audio = video_salmonn2.shape_config(size, None)
    with torch.device("meta"):
        model = video_salmonn2.Qwen2_5_VLForConditionalGeneration._from_config(config)
        tower = audio_tower.AudioTower(audio, config.text_config.hidden_size, torch.bfloat16)
    assert model.num_parameters() / 1e9 == pytest.approx(billions, rel=0.01)  # as Qwen2.5-VL
    assert sum(w.numel() for w in tower.parameters()) / 1e9 == pytest.approx(0.637 + 0.28, rel=0.02)


def test_the_model_notices_wrong_rows_and_positions(backbone):
    """Else the equalities here would prove nothing."""
    stream, tokens = backbone.encode(tiny.clip(6, 56, 84, 3.0)), [7, 8, 9]
    media = stream.modality != TEXT
    later = stream.positions.clone()
    later[0, media] += 1
    swapped = stream.embeddings.clone()
    swapped[media] = swapped[media].flip(0)
    right = logits_of(backbone, backbone.prefill(stream), QUESTION, tokens)
    for wrong in (replace(stream, positions=later), replace(stream, embeddings=swapped)):
        assert (logits_of(backbone, backbone.prefill(wrong), QUESTION, tokens) - right).abs().max() > 10 * TOLERANCE


def test_the_preset_reads_frames_and_sound_as_its_own_code_does(backbone, family_dir, cg):
    options = ("--preset", "video-salmonn2", "--pruner", "none", "--max-frames", "33", "--max-pixels", "5000")
    model = ("--model", str(family_dir("video_salmonn2")), "--offline", "--json", "-q", "--max-new-tokens", "3")
    code, out, err = cg("ask", str(SAMPLES / "dog.mp4"), "What is happening?", *options, *model)
    assert code == 0, err
    record = json.loads(out)
    media, tokens = record["media"], record["tokens"]
    assert media["frames"] == 33 and media["width"] * media["height"] <= 5000
    samples = round(media["audio_s"] * 16_000)
    grids, video, audio = type(backbone).media_tokens(33, media["height"], media["width"], samples)
    assert (grids, video, audio) == (17, tokens["video_kept"], tokens["audio_kept"])
    assert (media["options"]["frames"], media["options"]["audio_on_clock"]) == ("linspace", False)
    assert media["options"]["stereo_gain"] == pytest.approx(0.7071, abs=1e-4)


@pytest.mark.parametrize("name", ["qwen2_5_omni", "qwen3_omni"])
def test_the_other_families_keep_sound_on_the_clock(name):
    options = decode_options(resolve_settings({}, config_files=False), registry.find(name).load_class())
    assert (options.audio_on_clock, options.stereo_gain, options.frames) == (True, 0.5, "uniform")
