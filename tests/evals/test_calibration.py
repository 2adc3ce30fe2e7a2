"""``cg calibrate``: certificates worked out by hand, on a model whose answers are made up; runs that were killed; and
once the real thing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from helpers.made import CLIPS, folder_of

from cg_cli.engine.certificate import DOUBT, Certificate
from cg_cli.engine.inputs import AnswerInputs, Sampling, conditions
from cg_cli.engine.session import Reading
from cg_cli.errors import ItemError, NotCertified, UsageError
from cg_cli.evals.calibration import bounds, measure, run
from cg_cli.evals.calibration.ladder import Rung, ladders
from cg_cli.evals.calibration.run import Calibration
from cg_cli.profiling.calibration_plot import plot
from cg_cli.questions import GOLD, Item, Question
from cg_cli.settings import presets
from cg_cli.settings.resolve import resolve_settings

KEEPS = ".65,.45,.25"
ONE = (Question("q?"),)
Says = Callable[[str, str, Rung, str], str]  # the answer: of a video's name, a question, at a rung, asked so


class Listener:
    def __init__(self):
        self.faults, self.notes, self.seen = [], [], []

    def fault(self, message):
        self.faults.append(message)

    def note(self, message):
        self.notes.append(message)

    def planned(self, plan, samples):
        self.samples = samples

    def loaded(self, facts):
        self.facts = facts

    def measured(self, done, total, now_measured):
        self.seen.append((done, total))


class Fake:
    """A model that says what ``says`` says. ``asked`` counts what it was asked, by rung and how."""

    def __init__(self, says: Says, predictor: str = "a", weights: str = "w"):
        self.says, self.predictor, self.weights, self.asked = says, predictor, weights, Counter()

    def inputs(self, rung: Rung) -> AnswerInputs:
        predictor = self.predictor if rung.pruner == "contextguard" else None
        return AnswerInputs("", "", "p", "m", self.weights, "float32", "none", rung.pruner, 1, {}, rung.keep,
                            predictor, {"fps": 2.0}, 1, 1, 1, vars(Sampling(16, repetition_penalty=1.0)))  # fmt: skip

    def load(self, settings, rungs) -> measure.Model:
        backbone = SimpleNamespace(id="m", revision=self.weights, adapter=None, device=torch.device("cpu"),
                                   dtype=torch.float32)  # fmt: skip
        sessions = {
            rung: SimpleNamespace(backbone=backbone, predictor=None, warnings=(), rung=rung)
            for rung in [measure.WHOLE, *rungs]
        }
        return measure.Model(sessions, {rung: self.inputs(rung) for rung in sessions})

    def ask(self, session, encoded, texts, how=measure.ALONE):
        self.asked[session.rung, how] += 1
        answers = [self.says(encoded, text, session.rung, how) for text in texts]
        return encoded, {"answers": answers, "seconds": {"decode": session.rung.keep}}


def yes(*_) -> str:
    return "yes"


def changing(counts: dict[float, int], answer: str = "no") -> Says:
    """Answers that differ from the whole clip's on the first clips, as many as ``counts`` has of a keep."""
    return lambda video, text, rung, how: answer if int(Path(video).stem) < counts.get(rung.keep, 0) else "yes"


@pytest.fixture
def calibrate(tmp_path, monkeypatch):
    """Run a calibration in ``tmp_path`` on ``clips`` files with a fake: the certificate, and who listened."""

    def go(fake: Fake, clips: int = 100, questions=ONE, keeps=KEEPS, pruners="contextguard", **more):
        monkeypatch.setattr(measure, "load", fake.load)
        monkeypatch.setattr(measure, "_ask", fake.ask)
        monkeypatch.setattr(
            measure, "_ask_again", lambda session, clip, texts: fake.ask(session, clip, texts, measure.AGAIN)[1]
        )
        monkeypatch.setattr(measure.pipeline, "encode", lambda backbone, clip: clip)

        def readings(session, samples):
            for sample in samples:
                broken = ItemError("media", "it is broken") if "broken" in sample.video else sample.video
                yield sample, Reading(broken, sample.content, 0.0)

        monkeypatch.setattr(measure, "readings", readings)
        items = []
        for number in range(clips):
            path = tmp_path / f"{number}.mp4"
            if not path.exists():
                path.write_text(str(number))
            items.append(Item(str(path), tuple(questions)))
        plan = Calibration(
            settings=more.pop("settings", resolve_settings({"model": "nano"})),
            items=more.pop("items", items),
            ladders=ladders(pruners, keeps),
            out=tmp_path / "mine.yaml",
            **{"risk": 0.05, "confidence": 0.9, **more},
        )
        run.check(plan, [])
        listener = Listener()
        return run.run(plan, listener), listener

    return go


def told(certificate: dict) -> dict:
    """What has to be the same however a calibration came to its end."""
    rows = [{**row, "latency": None} for row in certificate["ladder"]]
    return {**certificate, "created": None, "ladder": rows}


def test_a_certificate_worked_out_by_hand(calibrate, tmp_path):
    certificate, listener = calibrate(Fake(changing({0.45: 1, 0.25: 2})))
    assert certificate["certified"] == {"pruner": "contextguard", "keep": 0.45, "bound": pytest.approx(0.0383395)}
    assert [(row["keep"], row["changed"], row["mean"], row["certified"]) for row in certificate["ladder"]] == [
        (0.65, 0, 0.0, True),
        (0.45, 1, 0.01, True),
        (0.25, 2, 0.02, False),
    ]
    assert [row["latency"] for row in certificate["ladder"]] == pytest.approx([0.65, 0.45, 0.25])
    assert certificate["noise"]["mean"] == 0 and certificate["asked"] == ["q?"] and not listener.faults
    assert certificate["test"]["bound"] == "binomial" and certificate["earlier_tests"] == 0

    preset = presets.load(str(tmp_path / "mine.yaml"))
    assert (preset.keep, preset.pruner, preset.certificate) == (0.45, "contextguard", certificate)
    settings = resolve_settings({"model": "nano", "preset": str(tmp_path / "mine.yaml")})
    assert settings.keep == 0.45 and settings.certificate == certificate and settings.preset == "mine"
    shapes = ElementTree.fromstring(plot(certificate).split("<!--")[0])
    texts = [node.text for node in shapes.iter("{http://www.w3.org/2000/svg}text")]
    assert "risk 5 %" in texts and any("100 clips" in text for text in texts)


def test_a_lucky_smaller_keep_after_a_failure_does_not_count(calibrate):
    certificate, _ = calibrate(Fake(changing({0.65: 1, 0.45: 2, 0.25: 0})))
    assert certificate["certified"]["keep"] == 0.65
    assert [row["certified"] for row in certificate["ladder"]] == [True, False, False]


def test_what_cannot_be_certified_says_what_would_help(calibrate, tmp_path):
    certificate, _ = calibrate(Fake(changing({0.65: 3, 0.45: 3, 0.25: 3})))
    assert certificate["certified"] is None and not (tmp_path / "mine.yaml").exists()
    assert "3 % of answers changed on 100 clips" in certificate["failure"]
    assert "about 282 clips" in certificate["failure"] and "--risk 0.066" in certificate["failure"]
    assert bounds.p_value(0.03 * 282, 282, 0.05, "binomial") <= 0.1 < bounds.p_value(3, 100, 0.05, "binomial")
    wider, _ = calibrate(Fake(changing({0.65: 3, 0.45: 3, 0.25: 3})), risk=0.066)
    assert wider["certified"]["keep"] == 0.25 and wider["earlier_tests"] == 1  # the second look is no secret
    again, _ = calibrate(Fake(changing({0.65: 3, 0.45: 3, 0.25: 3})), risk=0.066)
    assert again["earlier_tests"] == 1
    hopeless, _ = calibrate(Fake(changing({0.65: 100, 0.45: 100, 0.25: 100}), weights="x"))
    assert hopeless["failure"].endswith("What would do: ratios above 0.65; on clips that are all new")


@pytest.mark.parametrize("clips", [1, 44])
def test_too_few_clips_are_refused_before_anything_is_loaded(calibrate, clips):
    with pytest.raises(UsageError, match=f"{clips} clips? cannot certify 5 % .* 45 or more"):
        calibrate(Fake(yes), clips)
    assert calibrate(Fake(yes), 45)[0]["certified"]["keep"] == 0.25


def test_one_clip_certifies_what_one_clip_can(calibrate):
    assert calibrate(Fake(yes), 1, risk=0.9)[0]["certified"]["bound"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "change, reason",
    [({"risk": 0.0}, "--risk 0"), ({"confidence": 1.0}, "--confidence 1"), ({"out": Path("mine.txt")}, "mine.yaml"),
     ({"settings": resolve_settings({"model": "nano", "temperature": 0.5})}, "temperature 0.5")],
)  # fmt: skip
def test_a_request_that_cannot_be_carried_out(tmp_path, change, reason):
    plan = Calibration(resolve_settings({"model": "nano"}), [Item("a.mp4", ())] * 50, ladders("random", KEEPS), 0.05,
                       0.9, tmp_path / "mine.yaml")  # fmt: skip
    run.check(plan, [])
    with pytest.raises(UsageError, match=reason):
        run.check(replace(plan, **change), [])


def test_somebody_elses_files_are_not_written_over(tmp_path):
    plan = Calibration(resolve_settings({"model": "nano"}), [Item("a.mp4", ())] * 50, ladders("random", KEEPS), 0.05,
                       0.9, tmp_path / "mine.yaml")  # fmt: skip
    for name, text in [("mine.yaml", "name: mine\nkeep: 0.3\npruner: random\n"), ("mine.svg", "<svg/>"),
                       ("mine.calibration.jsonl", '{"schema": "other"}\n')]:  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="cg did not write it"):
            run.check(plan, [])
        (tmp_path / name).unlink()


def test_a_run_that_was_killed_goes_on_to_the_same_certificate(calibrate, tmp_path):
    says = changing({0.45: 1, 0.25: 2})
    whole, _ = calibrate(Fake(says))
    file = tmp_path / "mine.calibration.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:30]) + b"not json\n" + lines[31][:50])
    (tmp_path / "mine.yaml").unlink()
    fake = Fake(says)
    resumed, listener = calibrate(fake)
    assert told(resumed) == told(whole) and set(fake.asked.values()) == {70}
    assert listener.seen[0] == (30, 100) and listener.seen[-1] == (100, 100) and "damaged" in listener.notes[0]
    finished = Fake(says)
    assert told(calibrate(finished)[0]) == told(whole) and not finished.asked


def test_another_predictor_or_model_voids_what_was_measured(calibrate):
    calibrate(Fake(yes))
    other = Fake(changing({0.25: 9}), predictor="b")
    certificate, _ = calibrate(other)
    assert certificate["certified"]["keep"] == 0.45 and certificate["earlier_tests"] == 1  # by its own answers
    assert other.asked == {(Rung("contextguard", keep), "alone"): 100 for keep in (0.65, 0.45, 0.25)}
    model = Fake(yes, weights="x")
    assert calibrate(model)[0]["earlier_tests"] == 0  # nobody chooses among its answers
    assert len(model.asked) == 5 and set(model.asked.values()) == {100}
    more = Fake(yes)
    calibrate(more, keeps=".65,.3")
    assert more.asked == {(Rung("contextguard", 0.3), "alone"): 100}


def test_a_clip_that_fails_is_left_out_and_a_ratio_that_fails_counts_as_changed(calibrate, tmp_path):
    (tmp_path / "broken.mp4").write_text("b")

    def says(video, text, rung, how):
        if Path(video).stem in ("7", "8") and rung.keep == 0.25:
            raise ItemError("prune", "no")
        if Path(video).stem == "9":
            raise ItemError("encode", "too long")
        return "yes"

    items = [Item(str(tmp_path / name), (Question("q?"),)) for name in ["broken.mp4", *(f"{n}.mp4" for n in range(80))]]
    certificate, listener = calibrate(Fake(says), 80, items=items)
    assert certificate["clips"] == 79 and certificate["failed"] == 2 and certificate["certified"]["keep"] == 0.45
    assert certificate["ladder"][2]["changed"] == 2
    assert sum("left out" in fault for fault in listener.faults) == 2
    assert sum("counts as changed" in fault for fault in listener.faults) == 2
    with pytest.raises(NotCertified, match="44 clips are left, and 45 are needed"):
        calibrate(Fake(says), 45)


def test_a_copy_of_a_clip_is_no_second_clip(calibrate, tmp_path):
    (tmp_path / "copy.mp4").write_text("3")
    items = [Item(str(tmp_path / f"{number}.mp4"), (Question("q?"),)) for number in range(60)]
    copy = Item(str(tmp_path / "copy.mp4"), (Question("q?"), Question("r?")))
    certificate, listener = calibrate(Fake(yes), 60, items=[*items, copy])
    assert certificate["clips"] == 60 and certificate["questions"] == 61 and "copy of" in listener.notes[0]
    assert certificate["test"]["bound"] == "hoeffding-bentkus" and certificate["asked"] is None


def test_the_whole_clips_own_noise_is_a_floor(calibrate):
    noisy = lambda video, text, rung, how: str(int(video.split("/")[-1][:-4]) < 6 and how == measure.AGAIN)
    certificate, _ = calibrate(Fake(noisy))
    assert certificate["noise"]["changed"] == 6 and certificate["certified"] is None
    assert "own answers change in 6 %" in certificate["failure"]
    assert calibrate(Fake(noisy), risk=0.07)[0]["certified"]["keep"] == 0.25


def test_choices_labels_and_several_questions(calibrate):
    choices = {"choices": ["dog", "cat"], GOLD: "dog"}
    questions = [Question("which?", more=choices), Question("what is it?"), Question("and?", more=choices)]

    def says(video, text, rung, how):
        if text == "what is it?":
            return "A dog." if rung.keep == 1 else "dog!"
        lost = text == "and?" and int(Path(video).stem) < 10 and rung.keep == 0.25
        return "B" if lost else "The answer is A." if rung.keep == 1 else "dog"

    certificate, _ = calibrate(Fake(says), 100, questions)
    assert certificate["test"]["bound"] == "hoeffding-bentkus"
    assert [row["changed"] for row in certificate["ladder"]] == [0, 0, 10]
    assert certificate["ladder"][2]["mean"] == pytest.approx(10 / 300)
    accuracy = certificate["ladder"][2]["accuracy"]
    assert accuracy["questions"] == 200 and accuracy["whole"] == 1 and accuracy["gap"] == pytest.approx(0.05)
    assert accuracy["interval"][0] < 0.05 < accuracy["interval"][1]


def test_several_pruners_share_the_confidence(calibrate):
    says = lambda video, text, rung, how: "no" if rung.pruner == "evs" and int(Path(video).stem) < 5 else "yes"
    certificate, _ = calibrate(Fake(says), pruners="evs,random,contextguard")
    assert certificate["test"]["level"] == pytest.approx(0.1 / 3)
    assert certificate["certified"]["pruner"] == "random"  # the first of those with the smallest keep
    assert certificate["certified"]["bound"] == pytest.approx(1 - (0.1 / 3) ** (1 / 100))


def test_a_certificate_holds_for_what_it_was_given_for():
    inputs = Fake(yes).inputs(Rung("contextguard", 0.45))
    data = {"conditions": {**inputs.media, "keep": 0.45}, "asked": ["q?"]}
    certificate = Certificate.of("mine", {**data, "conditions": json.loads(json.dumps(conditions(inputs)))})
    assert certificate.doubt(inputs, "q?") is None
    assert certificate.doubt(replace(inputs, video="v", question="r"), "q?") is None
    assert certificate.doubt(replace(inputs, keep=0.25), "q?") == f"{DOUBT} mine does not hold: keep 0.45, now 0.25"
    for change in (
        {"weights": "x"},
        {"predictor": "x"},
        {"dtype": "bfloat16"},
        {"media": {"fps": 1.0}},
        {"pruner_version": 2},
        {"pruner_options": {"a": 1}},
        {"sampling": {"max_new_tokens": 4}},
    ):
        assert certificate.doubt(replace(inputs, **change), "q?")
    assert "other questions" in certificate.doubt(inputs, "r?")
    assert replace(certificate, asked=None).doubt(inputs, "r?") is None


@pytest.mark.parametrize(
    "change", [{"schema": "cg.certificate/2"}, {"risk": 2}, {"conditions": []}, {"asked": [1]}, {"confidence": True}]
)
def test_a_damaged_certificate_is_refused(change):
    data = {"schema": "cg.certificate/1", "risk": 0.05, "confidence": 0.9, "conditions": {}, "asked": None}
    text = lambda certificate: json.dumps({"name": "m", "keep": 0.5, "pruner": "random", "certificate": certificate})
    assert presets.parse(text(data), "m.yaml").certificate == data
    with pytest.raises(UsageError, match=r"m\.yaml: .*certificate"):
        presets.parse(text({**data, **change}), "m.yaml")


@pytest.mark.slow
def test_from_a_folder_to_a_preset_on_nano(cg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "clips", 3)
    monkeypatch.setenv("CG_MODEL", "nano")
    request = ("calibrate", "clips", "-q", "What do you hear?", "--risk", "0.6", "--confidence", "0.6", "-o", "m.yaml")
    code, out, err = cg(*request, "--keep", ".5,.3")
    certificate = json.loads(out.splitlines()[-1])
    assert code == 0 and certificate["clips"] == 3 and certificate["certified"]["keep"] in (0.5, 0.3)
    assert "12 answers to give" in err and "certified" in err and "m.svg" in err
    assert certificate["noise"]["changed"] == 0 and certificate["model"]["id"] == "nano"
    assert certificate["conditions"]["keep"] == certificate["certified"]["keep"]
    ElementTree.parse(tmp_path / "m.svg")

    code, out, err = cg("ask", str(CLIPS[0]), "What do you hear?", "--preset", "m.yaml", "--json")
    record = json.loads(out)
    assert code == 0 and not any(DOUBT in line for line in record["warnings"])
    assert record["pruner"]["keep"] == certificate["certified"]["keep"] and record["pruner"]["preset"] == "m"
    code, out, err = cg("ask", str(CLIPS[0]), "What do you hear?", "--preset", "m.yaml", "--keep", "0.2", "--json")
    (doubt,) = [line for line in json.loads(out)["warnings"] if DOUBT in line]
    assert "now 0.2" in doubt and err.count(doubt) == 1

    monkeypatch.setattr(measure, "_ask", None)  # all is measured
    code, out, err = cg(*request, "--keep", ".5,.3", "--quiet")
    assert (code, err) == (0, "") and json.loads(out)["certified"] == certificate["certified"]
    code, out, err = cg(*request[:-4], "--confidence", "0.99", "-o", "m.yaml", "--keep", ".5,.3")
    assert code == 2 and "cannot certify 60 %" in err
