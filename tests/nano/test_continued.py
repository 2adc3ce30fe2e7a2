"""Training on both worlds: labels that agree with the script, a vocabulary that grows at its end, runs that resume."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Tokenizer

from cg_cli import nano
from cg_cli.nano.ambience.questions import questions
from cg_cli.nano.ambience.script import write_script
from cg_cli.nano.ambience.surfaces import HEARD, SURFACES
from cg_cli.nano.questions import PHRASES
from cg_cli.nano.questions import questions as things_questions
from cg_cli.nano.script import write_script as things_script
from cg_cli.nano.things import COLOURS, DIGITS, KINDS, SILENT
from cg_cli.nano.training import ambience, continued, decoder, evidence, features, recipe, vocabulary
from cg_cli.nano.training.lessons import OF_AMBIENCE, OF_THINGS
from cg_cli.nano.world import HELD_OUT

pytestmark = pytest.mark.slow

WEIGHTS = Path(nano.__file__).parent / "weights"
SCRIPTS = [write_script(7, index) for index in range(30)]


@pytest.fixture(scope="module")
def tokenizers():
    old = Qwen2Tokenizer.from_pretrained(WEIGHTS)
    return old, vocabulary.extended(old, vocabulary.ambience_texts())


def test_old_words_keep_their_ids_and_old_texts_read_as_before(tokenizers, tmp_path):
    old, new = tokenizers
    words = new.get_vocab()
    assert all(words[word] == i for word, i in old.get_vocab().items())
    # Those of the weights that knew the world of things only.
    first = {"Ġthe": 258, "Ġpicture": 408, "assistant": 762, "<|im_end|>": 763, "<|VIDEO|>": 767, "<|im_start|>": 772}
    assert first.items() <= words.items()
    assert sorted(new.get_vocab().values()) == list(range(len(new)))
    texts = [phrase for same in PHRASES.values() for phrase in same]
    for index in range(40):
        for question in things_questions(things_script(7, index)):
            texts += [question.answer, question.text(np.random.default_rng(index))]
    assert all(old(text).input_ids == new(text).input_ids for text in texts)
    for surface in SURFACES:
        assert len(new(surface).input_ids) == len(new(f" {surface}").input_ids) == 1
    new.save_pretrained(tmp_path)
    read = Qwen2Tokenizer.from_pretrained(tmp_path)
    for text in ("<|im_start|>user\nWhich surface is beside the sea?<|im_end|>\n", " rain", "keyboards"):
        assert read(text).input_ids == new(text).input_ids and read.decode(read(text).input_ids) == text
    assert vocabulary.extended(read, vocabulary.ambience_texts()).get_vocab() == new.get_vocab()


def test_a_grown_model_keeps_its_rows(tokenizers):
    old, new = tokenizers
    with recipe.seeded(0):
        model = vocabulary.Thinker(recipe.config(old))
    grown = vocabulary.grown(model, old, new)
    for before, after in (
        (model.get_input_embeddings().weight, grown.get_input_embeddings().weight),
        (model.lm_head.weight, grown.lm_head.weight),
    ):
        assert torch.equal(after[: len(old)], before) and len(after) == len(new)
    row = new(" sea").input_ids[0]
    mean = model.lm_head.weight[old(" sea").input_ids].mean(0)
    torch.testing.assert_close(grown.lm_head.weight[row], mean)


def test_labels_of_tokens_agree_with_the_script():
    for script in SCRIPTS[:10]:
        known = ambience.token_labels(script)
        kind = evidence.cell_labels(script)[0].flatten()
        assert ((kind > 0) == (known["covered"] > 0)).all() and known["ground"].shape == kind.shape
        for number, scene in enumerate(script.scenes, start=1):
            middle = round((scene.start + scene.end) / 2 * 25) + 12
            assert known["scene"][middle] == number
            sounding = {s.kind for s in scene.sounds if s.start <= (middle + 0.5) / 25 < s.end}
            assert {HEARD[i] for i in known["heard"][middle].nonzero()[:, 0]} == sounding
            assert {SURFACES[i] for i in known["surfaces"][middle].nonzero()[:, 0]} == {b.surface for b in scene.bands}
            here = known["ground"][known["cell_scene"] == number].unique().tolist()
            assert {SURFACES[i - 1] for i in here} == {b.surface for b in scene.bands}
        briefs = {scene.brief.kind for scene in script.scenes if scene.brief}
        assert {SILENT[k - 1] for k in known["fleeting"][known["fleeting"] > 0]} <= briefs


def test_evidence_lies_on_what_the_answer_says():
    for script in SCRIPTS:
        kind, colour = (x.flatten().numpy() for x in evidence.cell_labels(script))
        ground = ambience.token_labels(script)["ground"].numpy()
        sounds = ambience.sound_labels(script).numpy()
        for question in questions(script):
            ((part, told),) = ambience.evidence(script, question)
            cells, moments = np.split(told.numpy(), [len(kind)])
            assert part == question.answer and told.any()
            free, things = cells & (kind == 0), cells & (kind > 0)
            if question.phrase in ("kind_on", "brief_kind", "brief_on"):
                assert {KINDS[k - 1] for k in kind[things]} == {part}
            if question.phrase in ("colour_on", "brief_colour"):
                assert {list(COLOURS)[c - 1] for c in colour[things]} == {part}
            if question.phrase in ("surface_with", "surface_under", "without_sound"):
                assert {SURFACES[g - 1] for g in ground[free & (ground > 0)]} <= {part} and free.any()
            if question.phrase in ("what_sound", "sound_with", "beside", "starts"):
                assert sounds[moments][:, HEARD.index(part)].all() and not cells.any()
            if question.category == "digits":
                assert {KINDS[k - 1] for k in kind[things]} == set(part) and set(part) <= set(DIGITS)


@pytest.mark.parametrize(("parts", "categories"), [("v", OF_AMBIENCE.video_alone), ("a", None)])
def test_half_a_clip_is_asked_only_what_it_can_answer(parts, categories):
    for script in SCRIPTS:
        for question in OF_AMBIENCE.choose(script, parts, np.random.default_rng(0)):
            if categories:
                assert question.category in categories
            else:
                assert question.phrase in ("what_sound", "beside")


def test_the_colours_of_quarters_are_those_of_the_pixels():
    frames = torch.randint(0, 256, (4, 224, 224, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = continued.quarters(frames).view(2, 8, 8, 2, 2, 2, 3)  # grid, row, column, frame, half, half, colour
    plain = torch.stack(
        [
            frames[2 * grid + frame, 28 * 5 + 14 : 28 * 6, 28 * 2 : 28 * 2 + 14].float().mean((0, 1))
            for grid in range(2)
            for frame in range(2)
        ]
    ).view(2, 2, 3)
    every = torch.stack(
        [frames.view(2, 2, 8, 2, 14, 8, 2, 14, 3)[:, frame, :, 1, :, :, 0].float().mean((2, 4)) for frame in range(2)],
        dim=3,
    )  # grid, row, column, frame, colour
    mean, std = every.flatten(0, 2).mean(0), every.flatten(0, 2).std(0)
    torch.testing.assert_close(found[:, 5, 2, :, 1, 0], (plain - mean) / std, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.flatten(0, 2).std(0), torch.ones(2, 2, 2, 3))


class _AtOnce:
    """A process that does its work when it starts."""

    def __init__(self, target, args, daemon):
        self.work = lambda: target(*args)

    def start(self):
        self.work()


@pytest.fixture
def tiny(monkeypatch):
    """A training of a few seconds: few clips, few questions, no process beside it."""
    for module, values in (
        (continued, {"THINGS_SCRIPTS": 1, "AMBIENCE_SCRIPTS": 1, "THINGS_CHUNKS": 3, "AMBIENCE_CHUNKS": 3, "CLIPS": 2}),
        (continued, {"SAVED_EVERY": 1, "HEADS_ONLY": 1, "AMBIENCE_SHARE": 0.5, "produce": produce}),
        (decoder, {"POOL_START": 2, "VALIDATION_CLIPS": 1, "TOKENS": 600, "used_clips": lambda: (0, 1, 2, 3)}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    blank, loaded = recipe.blank(0), continued._load(WEIGHTS)
    monkeypatch.setattr(features, "blank", lambda _: blank)
    monkeypatch.setattr(continued, "_load", lambda _: copy.deepcopy(loaded))
    continued._long_clips.cache_clear()
    monkeypatch.setattr(continued.multiprocessing, "get_context", lambda _: type("At", (), {"Process": _AtOnce}))
    yield
    continued._long_clips.cache_clear()


def produce(towers, jobs):
    """``features.produce`` with this process's threads as they are."""
    threads = torch.get_num_threads()
    features.produce(towers, jobs)
    torch.set_num_threads(threads)


def test_a_continued_training_resumes_and_its_model_has_both_vocabularies(tiny, monkeypatch, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    save = continued.save_checkpoint

    def save_and_copy(state, path):
        save(state, path)
        if state["step"] == 1:
            shutil.copy(path, tmp_path / path.name)

    monkeypatch.setattr(continued, "save_checkpoint", save_and_copy)
    continued.train(WEIGHTS, whole, 2, 2, seed=0)
    # As it is after a kill: in the first part, then in the second, its features made.
    shutil.copytree(whole, torn)
    (torn / "decoder.pt").unlink()
    shutil.copy(tmp_path / "towers.pt", torn / "towers.pt")
    model, tok = continued._load(WEIGHTS)
    continued.train_towers(model, torn, 2, seed=0)
    shutil.copy(tmp_path / "decoder.pt", torn / "decoder.pt")
    continued.train_decoder(model, tok, torn, 2, seed=0)
    recipe.save(model, tok, torn / "model")
    files = [folder / "model" / "model.safetensors" for folder in (whole, torn)]
    assert files[0].read_bytes() == files[1].read_bytes() and files[0].stat().st_size < 15e6
    assert len(Qwen2Tokenizer.from_pretrained(whole / "model")) == len(tok) > 900
    assert (model.lm_head.weight[-1] != continued._load(WEIGHTS)[0].lm_head.weight[-1]).any()


def test_the_features_of_every_clip_that_is_drawn_are_made(tmp_path):
    courses = [continued.Course(3000, 0, lessons) for lessons in (OF_THINGS, OF_AMBIENCE)]
    jobs = continued._jobs(tmp_path, courses)
    assert len(set(jobs)) == len(jobs) and {job.seed for job in jobs} <= set(range(HELD_OUT))
    for course in courses:
        name = course.lessons.world.name
        made = {job.index for job in jobs if (job.world, job.seed) == (name, decoder.WORLD)}
        assert made == set(course.clips) and course.pool(2999) == len(course.clips)
        checked = [job for job in jobs if (job.world, job.seed) == (name, decoder.VALIDATION_WORLD)]
        assert {job.longest for job in checked} == {course.lessons.world.seconds[1]}
