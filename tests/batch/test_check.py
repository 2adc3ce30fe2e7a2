"""``cg batch --check``: which clips are drawn, what their records and the end of a run say, and that a check costs no
answer."""

from __future__ import annotations

import io
import json
import queue
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from helpers import made
from helpers.made import CLIPS, lines
from rich.console import Console

from cg_cli.batch.answerer import Answerer
from cg_cli.batch.check import UNCHECKED, agreement, check_share, drawn, with_check
from cg_cli.batch.job import Job
from cg_cli.batch.loop import Loop
from cg_cli.batch.pool import Outcome
from cg_cli.batch.run import Plan, Totals, run
from cg_cli.console.batch import BatchProgress, report
from cg_cli.console.reporter import Reporter
from cg_cli.engine.certificate import DOUBT
from cg_cli.engine.inputs import AnswerInputs, video_content
from cg_cli.errors import UsageError
from cg_cli.pruning.methods.none import KeepAll
from cg_cli.questions import GOLD, Collected, Item, Question
from cg_cli.records import Answer, from_line
from cg_cli.settings.resolve import resolve_settings

INPUTS = AnswerInputs("", "", "p", "m", "w", "f", "none", "p", 1, {}, 0.5, None, {}, 1, 1, 1, {})
QUESTIONS = (Question("a?"), Question("which?", more={"choices": ["dog", "cat"], GOLD: "dog"}))
CLIPS_OF_A_RUN, SHARE = 40, 0.3


def says(video: str, question: str, text: str = "A dog.") -> Answer:
    record = made.answer(video, question, INPUTS.keys(video_content(video), [question])[0])
    media = record.media.model_copy(update={"content": video_content(video)})
    return record.model_copy(update={"answer": text, "media": media})


class Engine:
    """Answers everything with "A dog.", and of the whole clip with ``whole``, by its name; None: it cannot. A clip
    without sound loses its check, as one does whose worker died. Stops after ``most`` jobs."""

    def __init__(self, whole: dict[str, str | None] | None = None, most: int = 1000, lost: str = ""):
        self.whole, self.most, self.lost, self.jobs = whole or {}, most, lost, []

    def start(self):
        return {"facts": {"model": {"id": "m"}}, "inputs": asdict(INPUTS)}

    def run(self, jobs):
        for job in jobs:
            self.jobs.append(job)
            whole, name = None, Path(job.video).name
            if job.check and name != self.lost:
                text = self.whole.get(name, "the dog")
                whole = {q: "no room" if text is None else says(job.video, q, text) for q in job.questions}
            yield Outcome(job.number, tuple(with_check(says(job.video, q), whole) for q in job.questions))
            if len(self.jobs) == self.most:
                return

    def prepare(self, tell):
        pass

    def stop(self):
        pass

    close = stop


class Listener:
    def ignore(self, *_):
        pass

    note = fault = loaded = clip = skipped = settled = ignore


@pytest.fixture
def plan(tmp_path):
    items = []
    for number in range(CLIPS_OF_A_RUN):
        (tmp_path / f"{number}.mp4").write_text(str(number))
        items.append(Item(str(tmp_path / f"{number}.mp4"), QUESTIONS))
    return Plan(resolve_settings({"model": "nano"}), Collected(items, []), str(tmp_path / "o.jsonl"), check=SHARE)


def checks(plan: Plan) -> dict[tuple[str, str], bool]:
    """By the name of a clip and the question, whether the answers agree."""
    records = lines(Path(plan.file))
    return {(Path(r["video"]).name, r["question"]): r["check"]["agrees"] for r in records if r["check"]}


def certified(plan: Plan, risk: float) -> Plan:
    return replace(plan, settings=replace(plan.settings, preset="mine", certificate={"risk": risk}))


def shown(plan: Plan, done) -> str:
    text = io.StringIO()
    report(Reporter(err=Console(file=text, width=200)), plan, done)
    return text.getvalue()


def test_clips_are_drawn_by_their_key():
    contents = [f"{number:064x}" for number in range(1000)]
    few, more = ({c for c in contents if drawn(INPUTS, c, share)} for share in (0.02, 0.25))
    assert few < more and len(few) == pytest.approx(20, abs=14) and len(more) == pytest.approx(250, abs=60)
    assert all(drawn(INPUTS, c, 1.0) for c in contents) and not any(drawn(INPUTS, c, None) for c in contents)
    assert few == {c for c in contents if drawn(replace(INPUTS, question="other?"), c, 0.02)}


def test_records_say_what_the_whole_clip_says_and_a_resumed_run_comes_to_the_same(plan):
    whole = {f"{number}.mp4": "B" for number in range(0, CLIPS_OF_A_RUN, 2)}  # the cat, or "b" to who has no choices
    engine = Engine(whole)
    done = run(plan, engine, Listener())
    drawn_clips = {Path(job.video).name for job in engine.jobs if job.check}
    assert 5 < len(drawn_clips) < 20 and {name for name, _ in checks(plan)} == drawn_clips
    for (name, question), agrees in checks(plan).items():
        assert agrees == (name not in whole), (name, question)
    changed = sum(name in whole for name in drawn_clips)
    assert (done.check.clips, done.check.questions, done.check.changed) == (
        len(drawn_clips),
        2 * len(drawn_clips),
        2 * changed,
    )
    assert done.check.mean == pytest.approx(changed / len(drawn_clips))
    assert done.check.interval[0] < done.check.mean < done.check.interval[1]
    sidecar = json.loads(Path(plan.file).with_suffix(".run.json").read_text())
    assert sidecar["check"] == json.loads(json.dumps({**asdict(done.check), "contradicts": False}))

    before = checks(plan)
    Path(plan.file).unlink()
    first = run(plan, Engine(whole, most=11), Listener())
    assert first.check.clips < len(drawn_clips)
    again = Engine(whole)
    assert run(plan, again, Listener()).check == done.check and checks(plan) == before
    assert len(again.jobs) == CLIPS_OF_A_RUN - 11


def test_a_choice_is_compared_as_a_choice(plan):
    done = run(plan, Engine({f"{number}.mp4": "A" for number in range(CLIPS_OF_A_RUN)}), Listener())
    assert {question: agrees for (_, question), agrees in checks(plan).items()} == {"a?": False, "which?": True}
    assert done.check.mean == pytest.approx(0.5)


def test_the_end_warns_where_a_certificate_is_contradicted(plan):
    everything = {f"{number}.mp4": "a cat" for number in range(CLIPS_OF_A_RUN)}
    bad = certified(plan, 0.05)
    done = run(bad, Engine(everything), Listener())
    text = shown(bad, done)
    assert done.check.contradicts and "preset mine is certified for 5 % of answers that change" in text
    assert "answers as of the whole" in text and "0.0%" in text
    good = replace(certified(plan, 0.05), overwrite=True)
    done = run(good, Engine({"0.mp4": "a cat", "1.mp4": "a cat"}), Listener())
    assert not done.check.contradicts and "certified" not in shown(good, done)
    nobody = replace(good, check=None)
    done = run(nobody, Engine(), Listener())
    assert done.check is None and "whole" not in shown(nobody, done) and not checks(nobody)


def test_a_check_that_fails_is_a_warning(plan):
    names = [f"{number}.mp4" for number in range(CLIPS_OF_A_RUN)]
    engine = Engine(dict.fromkeys(names), most=1000)
    done = run(plan, engine, Listener())
    assert done.totals.failed == 0 and done.check.clips == 0 and "no clip was drawn" in shown(plan, done)
    drawn_clips = {job.video for job in engine.jobs if job.check}
    for record in lines(Path(plan.file)):
        told = [line for line in record["warnings"] if line.startswith(UNCHECKED)]
        assert told == ([f"{UNCHECKED}: no room"] if record["video"] in drawn_clips else [])


def test_a_check_whose_worker_died_is_missed(plan):
    name = next(Path(i.video).name for i in plan.items if drawn(INPUTS, video_content(i.video), SHARE))
    run(plan, Engine(lost=name), Listener())
    of_clip = [r for r in lines(Path(plan.file)) if Path(r["video"]).name == name]
    assert [r["warnings"] for r in of_clip] == [[f"{UNCHECKED}: its worker ended at the first try"]] * 2
    assert all(r["check"] is None for r in of_clip)


def test_a_copy_of_a_clip_has_its_check_and_counts_once(plan):
    original = next(i.video for i in plan.items if drawn(INPUTS, video_content(i.video), SHARE))
    copy = Path(original).with_name("copy.mp4")
    copy.write_bytes(Path(original).read_bytes())
    both = replace(plan, collected=Collected([*plan.items, Item(str(copy), QUESTIONS)], []))
    done = run(both, Engine(), Listener())
    alone = run(replace(plan, overwrite=True), Engine(), Listener())
    assert done.check == alone.check


def test_a_stream_is_summed_up_too(plan, capsys):
    done = run(replace(plan, out="-"), Engine(), Listener())
    printed = [from_line(line) for line in capsys.readouterr().out.splitlines()]
    assert done.check.clips == len({r.video for r in printed if r.check}) > 5


def test_nothing_checked_says_nothing():
    assert agreement([], set(), None).interval == (0.0, 1.0)


@pytest.mark.parametrize(
    "share, keep, reason", [(0, 0.5, "--check 0"), (1.5, 0.5, "--check 1.5"), (0.1, 1, "--keep 1")]
)
def test_a_share_that_makes_no_sense(share, keep, reason):
    with pytest.raises(UsageError, match=reason):
        check_share(share, resolve_settings({"model": "nano", "keep": keep}))


@pytest.mark.slow
def test_on_nano_with_groups_in_flight(monkeypatch):
    answerer = Answerer(resolve_settings({"model": "nano", "keep": 0.3, "offline": True}))
    questions = ("What is happening?", "What do you hear?")
    events: list[dict] = []
    ready: queue.SimpleQueue = queue.SimpleQueue()
    jobs = [Job(number, str(clip), questions, check=number < 2) for number, clip in enumerate(CLIPS[:3])]
    for job in jobs:
        ready.put((job, answerer.session.read(job.video)))
    ready.put(None)

    prune, whole_clips = KeepAll.prune, []

    def out_of_memory_at_the_second(self, stream, budget):
        whole_clips.append(len(stream))
        if len(whole_clips) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prune(self, stream, budget)

    expected = [record.answer for record in answerer.session.whole.answer(jobs[0].video, questions, together=True)]
    monkeypatch.setattr(KeepAll, "prune", out_of_memory_at_the_second)
    Loop(answerer, 8, lambda **event: events.append(event)).run(ready, threading.Event())
    records = [(e["number"], from_line(e["record"])) for e in events if e["event"] == "record"]
    assert [number for number, _ in records] == [0, 0, 1, 1, 2, 2] and all(r.ok for _, r in records)
    assert all(r.tokens.keep < 0.31 for _, r in records)
    by_job = {job.number: [r for number, r in records if number == job.number] for job in jobs}
    assert [r.check.answer for r in by_job[0]] == expected and not any(r.check for r in by_job[1] + by_job[2])
    assert all(f"{UNCHECKED}: out of memory" in " ".join(r.warnings) for r in by_job[1])
    assert not any(UNCHECKED in " ".join(r.warnings) for r in by_job[0] + by_job[2])
    assert {r.answered_together for r in by_job[2]} == {4}


def test_that_a_certificate_does_not_hold_is_said_once():
    text = io.StringIO()
    progress = BatchProgress(Reporter(err=Console(file=text, width=200)))
    progress.loaded({"model": {"id": "m"}, "device_name": "d", "dtype": "f", "warnings": []})
    doubt, odd = f"{DOUBT} mine does not hold: keep 0.45, now 0.1", "the file is odd"
    for name in ("a.mp4", "b.mp4"):
        record = made.answer(name).model_copy(update={"warnings": (odd, doubt)})
        progress.clip(Totals(clips=2), Item(name, (Question("q?"),)), [record])
    assert text.getvalue().count(doubt) == 1 and text.getvalue().count(odd) == 2
