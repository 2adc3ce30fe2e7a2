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
from cg_cli.nano.things import AUDIBLE, COLOURS, KINDS, SILENT
from cg_cli.nano.training import auxiliary, batches, decoder, evidence, features, recipe, towers
from cg_cli.nano.training.lessons import OF_THINGS

pytestmark = pytest.mark.slow

CLIP = (7, 3, write_script(7, 3, longest=7).duration)  # world, index, seconds
PAIRS = [
    batches.Pair("What is happening?", "A red bell rings."),
    batches.Pair("Where is the key?", "top left"),
    batches.Pair("Which number is written?", "47"),
]


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
    logits = batches.forward(model, batch).logits[0]
    prefix = engine.prefill(engine.encode(clip))
    for number, (question, _, _) in enumerate(PAIRS):
        asked = engine.question_ids(question)
        expected = engine.extend(asked, prefix.next_position, prefix.cache)
        prefix.cache.crop(-len(asked))
        start = int((batch["pair"][0] == number).nonzero()[0, 0])
        torch.testing.assert_close(logits[start + len(asked) - 1], expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("parts", ["av", "v", "a"])
def test_a_pair_does_not_see_its_neighbours(blank, parts):
    model, reader, _, _ = blank
    first = batches.forward(model, reader.batch([CLIP], [PAIRS], parts)).logits[0]
    asked = [PAIRS[0], batches.Pair("What do you hear?", "dog"), PAIRS[2]]
    other = batches.forward(model, reader.batch([CLIP], [asked], parts)).logits[0]
    length = len(reader.tok(PAIRS[0][0]).input_ids)
    torch.testing.assert_close(first[:length], other[:length], atol=2e-4, rtol=1e-4)
    assert (first - other[: len(first)] if len(first) <= len(other) else first[: len(other)] - other).abs().max() > 0.1


def test_targets_are_the_answers_and_only_they_are_scored(blank):
    _, reader, _, _ = blank
    batch = reader.batch([CLIP], [PAIRS], "av")
    scored = batch["weight"][0] > 0
    text = reader.tok.decode(batch["target"][0][scored])
    assert text == "".join(answer + "<|im_end|>" for _, answer, _ in PAIRS)


@pytest.mark.parametrize("parts", ["v", "a"])
def test_half_a_clip_is_asked_only_what_it_can_answer(parts):
    rng = np.random.default_rng(0)
    for index in range(30):
        for question in OF_THINGS.choose(write_script(7, index), parts, rng):
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


def test_evidence_lies_on_what_the_answer_says():
    for index in range(40):
        script = write_script(7, index)
        kind, colour = (x.flatten().numpy() for x in evidence.cell_labels(script))
        sounds = towers.sound_labels(script).numpy()
        for question in questions(script):
            parts = evidence.evidence(script, question)
            assert "".join(part for part, _ in parts) == question.answer
            for part, told in parts:
                cells, moments = np.split(told.numpy(), [len(kind)])
                assert told.any() or part == "."
                seen_now = cells & (kind > 0)
                if question.phrase in ("what_at", "what_large", "dubbed_seen", "brief_kind", "seen_first_of"):
                    assert {KINDS[k - 1] for k in kind[seen_now]} == {part}
                    assert not moments.any() or question.phrase == "seen_first_of"
                if question.phrase in ("colour_heard", "colour_silent", "brief_colour"):
                    assert {list(COLOURS)[c - 1] for c in colour[seen_now]} == {part} and not moments.any()
                if question.phrase in ("what_sound", "sound_with", "first", "last_of", "off_screen", "dubbed_sound"):
                    assert {AUDIBLE[k - 1] for k in sounds[moments]} == {part} and not cells.any()
                if question.phrase == "count_heard":
                    assert {AUDIBLE[k - 1] for k in sounds[moments]} == {dict(question.fills)["a"]} and cells.any()
                if question.phrase == "sentence" and moments.any() and part != "nothing is heard":
                    assert all(AUDIBLE[k - 1] in part for k in sounds[moments])


@torch.no_grad()
def test_each_word_of_an_answer_is_told_where_it_is_predicted(blank):
    model, reader, _, _ = blank
    script = write_script(*CLIP[:2], longest=7)
    asked = [[batches.Pair(q.phrase, q.answer, tuple(evidence.evidence(script, q))) for q in questions(script)[:6]]]
    batch = reader.batch([CLIP], asked, "av")
    clip, place, shown = reader.evidence(asked, batch)
    assert (clip == 0).all() and (batch["weight"][0, place] > 0).all()
    said = {int(p): reader.tok.decode(batch["target"][0, p]) for p in place}
    for number, pair in enumerate(asked[0]):
        words = [said[int(p)] for p in place if batch["pair"][0, p] == number]
        assert pair.answer.startswith("".join(words)) and len(words) > 0
        rows = shown[batch["pair"][0, place] == number]
        assert (rows[0][torch.cat([batch["video"], batch["audio"]])] == pair.parts[0][1]).all()
    looks = batches.forward(model, batch).pointing
    torch.testing.assert_close(looks.sum(-1), torch.ones(looks.shape[:-1]), atol=1e-4, rtol=0)


def test_the_pointing_loss_falls_as_the_heads_look_at_the_evidence():
    shown = torch.tensor([[True, True, False, False]])
    loss = lambda *weights: auxiliary.pointing_loss(torch.tensor([[weights]]), shown).item()
    assert loss(0.5, 0.5, 0.0, 0.0) == pytest.approx(0, abs=1e-4)
    assert loss(0.25, 0.25, 0.25, 0.25) == pytest.approx(np.log(2), abs=1e-3)
    assert loss(0.0, 0.0, 0.5, 0.5) > 5


def test_hints_tell_what_shows_and_what_has_shown():
    for index in range(40):
        script = write_script(7, index)
        known = auxiliary.token_labels(script)
        earlier = set()
        for number, scene in enumerate(script.scenes, start=1):
            middle = round((scene.start + scene.end) / 2 * 25)
            assert known["count"][middle] == len(scene.large) and known["scene"][middle] == number
            assert bool(known["place"][middle]) == (len(scene.large) == 1)
            assert {SILENT[k] for k in known["small_before"][middle].nonzero()[:, 0]} == earlier
            earlier |= {t.kind for t in scene.things if t.kind in SILENT}
            if scene.number:
                shown = round((scene.number.start + scene.number.end) / 2 * 25)
                assert f"{known['tens'][shown] - 1}{known['units'][shown] - 1}" == scene.number.text
        told = {SILENT[k - 1] for k in known["fleeting"][known["fleeting"] > 0]}
        assert told <= {s.brief.kind for s in script.scenes if s.brief}


def test_what_is_brief_is_known_once_it_came_or_left():
    known = 0
    for index in range(60):
        script = write_script(7, index)
        for scene in script.scenes:
            came, left = evidence.brief_cells(script, scene)
            kind = evidence.cell_labels(script)[0]
            assert (
                not (came & left).any()
                and (kind[came] == (KINDS.index(scene.brief.kind) + 1 if scene.brief else 0)).all()
            )
            for grid, times in enumerate(evidence.grid_times(script)):
                if left[grid].any():
                    assert scene.brief.end <= min(times) and max(times) < scene.end
                    known += 1
    assert known > 20


def test_training_worlds_are_not_held_out():
    from cg_cli.nano.world import HELD_OUT

    assert {world for world, _, _ in decoder.jobs()} <= set(range(HELD_OUT))


def test_random_initialization_leaves_the_callers_random_state():
    state = torch.get_rng_state()
    one, two, other = (recipe.blank(seed)[0].lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(one, two) and not torch.equal(one, other)
