"""Answers to the questions on a clip: of the whole of it, once more in another batch, and at every rung."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from cg_cli.engine import pipeline
from cg_cli.engine.inputs import AnswerInputs
from cg_cli.engine.pipeline import Encoded, Prefilled
from cg_cli.engine.session import Reading, Session
from cg_cli.engine.setup import make_pruner, session_on
from cg_cli.errors import ItemError
from cg_cli.evals.calibration.answers import Answers
from cg_cli.evals.calibration.clips import Sample
from cg_cli.evals.calibration.ladder import Rung
from cg_cli.media import DecodeWorker
from cg_cli.settings import models
from cg_cli.settings.resolve import changed
from cg_cli.settings.table import NO_PRUNER, Settings

ALONE, AGAIN = "alone", "again"  # how it was asked: by itself, and beside itself in one batch
WHOLE = Rung(NO_PRUNER, 1.0)


@dataclass(frozen=True)
class Model:
    """A loaded model with the session of every rung, WHOLE among them; all share its weights."""

    sessions: Mapping[Rung, Session]
    inputs: Mapping[Rung, AnswerInputs]

    @property
    def whole(self) -> Session:
        return self.sessions[WHOLE]

    def keys(self, clip: Sample, rung: Rung) -> list[str]:
        """Of the records of the clip's questions."""
        return self.inputs[rung].keys(clip.content, [question.text for question in clip.questions])


def rung_settings(settings: Settings, rung: Rung) -> Settings:
    """``settings`` with the pruner and keep of ``rung``; options are those of the preset's pruner."""
    own = dict(settings.pruner_options) if rung.pruner == settings.pruner else {}
    return replace(changed(settings, {"pruner": rung.pruner, "keep": rung.keep}), pruner_options=own, certificate=None)


def load(settings: Settings, rungs: Sequence[Rung]) -> Model:
    """Load the model once, and the predictor of every pruner. UsageError as for ``setup.open_session``."""
    for rung in rungs:
        make_pruner(rung_settings(settings, rung))  # says what is wrong with it before anything is loaded
    backbone = models.load_chosen(settings)
    of_pruner: dict[str, Session] = {}
    for rung in rungs:
        if rung.pruner not in of_pruner:
            of_pruner[rung.pruner] = session_on(backbone, rung_settings(settings, rung))
    sessions = {rung: replace(of_pruner[rung.pruner], keep=rung.keep) for rung in rungs}
    sessions = {WHOLE: of_pruner[rungs[0].pruner].whole, **sessions}
    return Model(sessions, {rung: session.inputs for rung, session in sessions.items()})


def clip(
    model: Model, sample: Sample, reading: Reading, answers: Answers, fault: Callable[[Rung, str], None]
) -> list[dict[str, Any]]:
    """The cells, as for ``Answers.add``, that ``answers`` does not have of a clip; ``fault`` is told of a rung that
    failed.

    Raises:
        ItemError: the whole clip cannot be answered.
    """
    missing = [rung for rung in model.sessions if answers.get(model.keys(sample, rung), ALONE) is None]
    again = answers.get(model.keys(sample, WHOLE), AGAIN) is None
    if isinstance(reading.clip, ItemError):
        raise reading.clip
    texts = [question.text for question in sample.questions]
    encoded = pipeline.encode(model.whole.backbone, reading.clip)
    cells = []
    for rung in [WHOLE, *missing] if again and WHOLE not in missing else missing:
        session = model.sessions[rung]
        try:
            prefilled, cell = _ask(session, encoded, texts)
            cell["seconds"]["media"] = reading.seconds
            cells += [{"how": ALONE, "keys": model.keys(sample, rung), **cell}] if rung in missing else []
            if rung == WHOLE and again:
                cells.append({"how": AGAIN, "keys": model.keys(sample, rung), **_ask_again(session, prefilled, texts)})
        except ItemError as error:
            if rung == WHOLE:
                raise
            fault(rung, str(error))
    return cells


def _ask(session: Session, encoded: Encoded, texts: Sequence[str]) -> tuple[Prefilled, dict[str, Any]]:
    """The clip as this session prunes it, and the answers to all questions side by side with the seconds of stages."""
    backbone = session.backbone
    prefilled = pipeline.prune_and_prefill(backbone, encoded, session.pruner, session.keep)
    started = time.perf_counter()
    decoded = pipeline.decode(backbone, prefilled, texts, session.sampling)
    seconds = {
        "encode": encoded.seconds,
        "prune": prefilled.pruned.seconds,
        "prefill": prefilled.seconds,
        "decode": time.perf_counter() - started,  # of pruners that read the question with their prefill
    }
    return prefilled, {"answers": [each.generation.text.strip() for each in decoded], "seconds": seconds}


def _ask_again(session: Session, prefilled: Prefilled, texts: Sequence[str]) -> dict[str, Any]:
    """The same questions as ``cg batch`` asks them: in one batch with another clip, here with this one once more."""
    started = time.perf_counter()
    questions = [(row, text) for row in (0, 1) for text in texts]
    answered = dict(pipeline.decode_batch(session.backbone, [prefilled, prefilled], questions, session.sampling))
    answers = [answered[number].generation.text.strip() for number in range(len(texts))]
    return {"answers": answers, "seconds": {"decode": time.perf_counter() - started}}


def missing_any(model: Model, sample: Sample, answers: Answers) -> bool:
    """Whether something of a clip is not measured yet."""
    asked = [(rung, ALONE) for rung in model.sessions] + [(WHOLE, AGAIN)]
    return any(answers.get(model.keys(sample, rung), how) is None for rung, how in asked)


def readings(session: Session, clips: Sequence[Sample]) -> Iterator[tuple[Sample, Reading]]:
    """The clips, read one ahead of the model, in a process of its own."""
    with ThreadPoolExecutor(1) as pool, DecodeWorker() as worker:  # the worker ends first, and the thread with it
        ahead = [pool.submit(session.read, clip.video, worker.decode) for clip in clips[:1]]
        for number, sample in enumerate(clips):
            reading = ahead.pop().result()
            ahead += [pool.submit(session.read, clip.video, worker.decode) for clip in clips[number + 1 : number + 2]]
            yield sample, reading
