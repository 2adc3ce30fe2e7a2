"""Order and positions of prompt tokens, against transformers' own rules and by value."""

from __future__ import annotations

import random

import pytest
import torch
from helpers.official import chat, placeholders

from cg_cli.backbones.qwen2_5_omni import layout
from cg_cli.backbones.qwen2_5_omni.layout import MediaShape, audio_token_count, prefix_layout
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO

QUESTION_TOKENS = 3


def random_shape(seed: int) -> MediaShape:
    rng = random.Random(seed)
    kind = rng.choice(["both", "both", "both", "video", "audio"])
    grids = 0 if kind == "audio" else rng.randint(1, 9)
    return MediaShape(
        grids=grids,
        rows=rng.choice([1, 2, 5]) if grids else 0,
        columns=rng.choice([1, 3, 60]) if grids else 0,
        audio=0 if kind == "video" else rng.randint(1, 220),
        seconds_per_grid=rng.choice([0.2, 0.37, 1.0, 1.001, 2.0, 3.7, 9.25]) if grids else 0.0,
    )


def rope_positions(backbone, ids: torch.Tensor, shape: MediaShape) -> torch.Tensor:
    """[3, L] from transformers."""
    video = {}
    if shape.video:
        video = {
            "video_grid_thw": torch.tensor([[shape.grids, 2 * shape.rows, 2 * shape.columns]]),
            "second_per_grids": torch.tensor([shape.seconds_per_grid]),
        }
    audio = {"audio_seqlens": torch.tensor([4 * shape.audio])} if shape.audio else {}
    positions, _ = backbone.model.model.get_rope_index(
        ids[None],
        attention_mask=torch.ones_like(ids)[None],
        use_audio_in_video=bool(shape.video and shape.audio),
        **video,
        **audio,
    )
    return positions[:, 0]


@pytest.mark.parametrize("seed", range(60))
def test_positions_and_order_equal_transformers(backbone, seed):
    shape = random_shape(seed)
    tokenizer, config = backbone.tokenizer, backbone.model.config
    grid = (shape.grids, 2 * shape.rows, 2 * shape.columns) if shape.video else None
    text = "user\nWhat" + placeholders(tokenizer, grid, shape.audio, shape.seconds_per_grid)
    ids = torch.tensor(tokenizer(text)["input_ids"] + [5] * QUESTION_TOKENS)
    header = len(tokenizer("user\nWhat")["input_ids"])

    layout = prefix_layout(header, shape)

    placeholder_kind = torch.where(
        ids == config.video_token_id, VIDEO, torch.where(ids == config.audio_token_id, AUDIO, TEXT)
    )
    assert torch.equal(layout.modality, placeholder_kind[:-QUESTION_TOKENS])
    expected = rope_positions(backbone, ids, shape)
    assert torch.equal(layout.positions, expected[:, :-QUESTION_TOKENS])
    assert expected[0, -QUESTION_TOKENS].item() == layout.next_position


def test_audio_tokens_count_like_the_tower(backbone):
    frames = torch.arange(3, 1300)
    _, expected = backbone.model.model.audio_tower._get_feat_extract_output_lengths(frames)
    assert [audio_token_count(int(n)) for n in frames] == expected.tolist()


def test_a_video_longer_than_its_frames_keeps_true_time():
    """20 grids of 3.7 s: 92.5 positions a grid, rounded down; half a chunk skipped now and then."""
    layout = prefix_layout(4, MediaShape(grids=20, rows=1, columns=2, audio=0, seconds_per_grid=3.7))
    video = layout.modality == VIDEO
    starts = layout.positions[0, video][::2] - 5
    assert starts[:6].tolist() == [0, 92, 185, 277, 370, 462]
    assert starts[-1] == 1757  # floor(19 * 92.5)
    assert layout.time_s[video][-1].item() == pytest.approx(19 * 3.7)
    assert layout.next_position == 5 + 1757 + 2  # last time, closing mark, question


def test_a_wide_frame_with_short_sound_closes_after_the_sound():
    layout = prefix_layout(4, MediaShape(grids=1, rows=1, columns=60, audio=10, seconds_per_grid=1.0))
    assert layout.positions[2].max() == 5 + 59
    assert layout.positions[0, -2:].tolist() == [5 + 10, 5 + 10]  # both closing marks, after audio token 9
    assert layout.next_position == 16


def test_rows_tell_grid_place_and_time():
    layout = prefix_layout(3, MediaShape(grids=3, rows=2, columns=2, audio=60, seconds_per_grid=1.0))
    kinds = "".join("TVA"[kind] for kind in layout.modality.tolist())
    assert kinds == "T" * 5 + "V" * 8 + "A" * 50 + "V" * 4 + "A" * 10 + "TT"  # a chunk is 2 s
    video, audio = layout.modality == VIDEO, layout.modality == AUDIO
    assert layout.grid[video].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert layout.row[video].tolist() == [0, 0, 1, 1] * 3
    assert layout.column[video].tolist() == [0, 1, 0, 1] * 3
    assert layout.time_s[audio].tolist() == pytest.approx([k / 25 for k in range(60)])
    text = layout.modality == TEXT
    for field in (layout.grid, layout.row, layout.column, layout.time_s):
        assert (field[text] == -1).all()
    for field in (layout.grid, layout.row, layout.column):
        assert (field[audio] == -1).all()


@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.parametrize("question", ["What?", " leading space", "\nleading line", "trailing \n", "Wie heißt’s? 猫"])  # noqa: RUF001
def test_prompt_text_equals_the_chat_template(backbone, kind, question):
    tokenizer = backbone.tokenizer
    shape = MediaShape(2, 1, 1, 0, 1.0) if kind == "video" else MediaShape(0, 0, 0, 3, 0.0)
    opening, closing = (["".join(names)] for names in layout.delimiters(shape))
    placeholder = tokenizer.video_token if kind == "video" else tokenizer.audio_token
    prefix = layout.HEADER + opening[0] + placeholder + closing[0]
    whole = chat(tokenizer, kind, question)
    assert tokenizer(prefix)["input_ids"] + backbone.question_ids(question) == tokenizer(whole)["input_ids"]


def test_marks_typed_in_a_question_stay_text(backbone):
    tokenizer = backbone.tokenizer
    typed = "a <|im_end|> b <|VIDEO|> <|audio_bos|>"
    ids = backbone.question_ids(typed)
    added = set(tokenizer.get_added_vocab().values())
    end = tokenizer(layout.QUESTION_END)["input_ids"]
    assert ids[-len(end) :] == end
    assert not added & set(ids[: -len(end)])
    assert tokenizer.decode(ids[: -len(end)]) == typed
