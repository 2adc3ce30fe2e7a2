"""The training sees what the engine sees: packed questions are questions asked alone, and nothing is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cg_cli import backbones
from cg_cli.media.clip import Clip
from cg_cli.nano.questions import questions
from cg_cli.nano.render import frame_clock, picture, soundtrack
from cg_cli.nano.script import write_script
from cg_cli.nano.things import KINDS, SILENT
from cg_cli.nano.training import batches, decoder, features, hints, recipe, towers

CLIP = (7, 3, write_script(7, 3, longest=7).duration)  # world, index, seconds
PAIRS = [("What is happening?", "A red bell rings."), ("Where is the key?", "top left"), ("Which number is written?", "47")]


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """An untrained nano on disk, the same in memory, and the features of one clip."""
    folder = tmp_path_factory.mktemp("nano")
    model, tok = recipe.blank(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(3)  # fresh weights give flat logits
            weight.copy_(weight.bfloat16())  # what the file can hold
    batches.use_packed_attention(model)  # as it is when training ends
    recipe.save(model, tok, folder / "model")
    script = write_script(*CLIP[:2], longest=7)
    frames = torch.from_numpy(np.stack([picture(script, t) for t in frame_clock(script.duration)]))
    clip = Clip("x.mp4", frames.numpy(), None, 0.5, soundtrack(script), "used", script.duration, 224, 224)
    engine = backbones.load(str(folder / "model"), device="cpu", dtype="float32", offline=True)
    stream = engine.encode(clip)
    rows = {"video": stream.embeddings[stream.modality == 1], "audio": stream.embeddings[stream.modality == 2]}
    torch.save(rows, features.feature_file(folder, *CLIP[:2]))
    return model, batches.Reader(model, tok, folder), engine, clip


@torch.no_grad()
def test_packed_questions_equal_the_engine_asked_one_by_one(blank):
    model, reader, engine, clip = blank
    batch = reader.batch([CLIP], [PAIRS], "av")
    logits = batches.read(model, batch)[0][0]
    prefix = engine.prefill(engine.encode(clip))
    for number, (question, _) in enumerate(PAIRS):
        asked = engine.question_ids(question)
        expected = engine.step(asked, prefix.next_position, prefix.cache)
        prefix.cache.crop(-len(asked))
        start = int((batch["pair"][0] == number).nonzero()[0, 0])
        torch.testing.assert_close(logits[start + len(asked) - 1], expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("parts", ["av", "v", "a"])
def test_a_pair_does_not_see_its_neighbours(blank, parts):
    model, reader, _, _ = blank
    first = batches.read(model, reader.batch([CLIP], [PAIRS], parts))[0][0]
    asked = [PAIRS[0], ("What do you hear?", "dog"), PAIRS[2]]
    other = batches.read(model, reader.batch([CLIP], [asked], parts))[0][0]
    length = len(reader.tok(PAIRS[0][0]).input_ids)
    torch.testing.assert_close(first[:length], other[:length], atol=2e-4, rtol=1e-4)
    assert (first - other[: len(first)] if len(first) <= len(other) else first[: len(other)] - other).abs().max() > 0.1


def test_targets_are_the_answers_and_only_they_are_scored(blank):
    _, reader, _, _ = blank
    batch = reader.batch([CLIP], [PAIRS], "av")
    scored = batch["weight"][0] > 0
    text = reader.tok.decode(batch["target"][0][scored])
    assert text == "".join(answer + "<|im_end|>" for _, answer in PAIRS)


@pytest.mark.parametrize("parts", ["v", "a"])
def test_half_a_clip_is_asked_only_what_it_can_answer(parts):
    rng = np.random.default_rng(0)
    for index in range(30):
        for question in decoder.choose(questions(write_script(7, index)), parts, rng):
            heard = question.phrase in ("what_sound", "sounds", "first", "last", "first_of", "last_of")
            assert heard if parts == "a" else question.category in ("seen_kind", "silent", "brief", "digits")


def test_labels_of_a_grid_agree_with_the_cells():
    script = write_script(7, 0)
    times = tuple(frame_clock(script.duration)[:2])
    kind, colour, _ = towers.grid_labels(script, times)
    assert kind.shape == (64,) and ((kind > 0) == (colour > 0)).all() and (kind > 0).any() and (kind == 0).any()


def test_the_left_digit_of_a_number_is_left_of_the_right_one():
    for index in range(40):
        script = write_script(7, index)
        number = next((s.number for s in script.scenes if s.number), None)
        if number is None or number.text[0] == number.text[1]:
            continue
        kind, _, side = towers.grid_labels(script, (number.start + 0.1, number.start + 0.6))
        for place, digit in enumerate(number.text, start=1):
            assert set(kind[side == place]) == {KINDS.index(digit) + 1}
        columns = np.arange(64) % 8
        assert columns[side == 1].max() < columns[side == 2].min()


def test_hints_tell_what_shows_and_what_has_left():
    for index in range(40):
        script = write_script(7, index)
        known = hints.moments(script)
        for scene in script.scenes:
            middle = round((scene.start + scene.end) / 2 * 25)
            assert known["count"][middle] == len(scene.large)
            assert bool(known["place"][middle]) == (len(scene.large) == 1)
            if scene.number:
                shown = round((scene.number.start + scene.number.end) / 2 * 25)
                assert f"{known['tens'][shown] - 1}{known['units'][shown] - 1}" == scene.number.text
            if scene.brief and scene.brief.end + 1.1 < scene.end:
                after = round((scene.brief.end + 1.1) * 25)
                assert SILENT[known["gone"][after] - 1] == scene.brief.kind
                assert not known["small"][after, SILENT.index(scene.brief.kind)]


def test_training_worlds_are_not_held_out():
    from cg_cli.nano.world import HELD_OUT

    assert {world for world, _, _ in decoder.jobs()} <= set(range(HELD_OUT))
