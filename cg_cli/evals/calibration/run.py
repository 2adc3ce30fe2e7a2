"""``cg calibrate``: the smallest keep whose answers stay those of the whole clip, in five numbered stages.

Knows no terminal. What it promises: with the stated confidence, of clips and questions like those that were measured,
at most the stated share changes its answer. What changes is judged by ``evals.matching``, against the whole clip's own
answer, so that no labels are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cg_cli import __version__
from cg_cli.engine.inputs import conditions
from cg_cli.engine.metrics import device_name, dtype_name
from cg_cli.errors import ItemError, NotCertified, UsageError
from cg_cli.evals import matching
from cg_cli.evals.calibration import answers, bounds, clips, measure, preset, verdict
from cg_cli.evals.calibration.answers import Answers
from cg_cli.evals.calibration.clips import Sample
from cg_cli.evals.calibration.ladder import Rung
from cg_cli.evals.calibration.measure import AGAIN, ALONE, WHOLE, Model
from cg_cli.evals.calibration.verdict import Asked, Figures
from cg_cli.questions import Item
from cg_cli.settings.certificates import SCHEMA
from cg_cli.settings.table import Settings
from cg_cli.util.outputs import check_output
from cg_cli.util.text import utc_now

PLOT, MEASUREMENTS = ".svg", ".calibration.jsonl"  # beside the preset
MATCHING = "the same choice, or the same words"


class Listener(Protocol):
    """Who is told how a calibration goes."""

    def fault(self, message: str) -> None: ...

    def note(self, message: str) -> None: ...

    def planned(self, plan: Calibration, samples: Sequence[Sample]) -> None: ...

    def loaded(self, facts: Mapping[str, Any]) -> None: ...

    def measured(self, done: int, total: int, asked: bool) -> None: ...


@dataclass(frozen=True)
class Calibration:
    """What to certify.

    Attributes:
        settings: how the clips are answered; pruner and keep are those of the rungs.
        items: the clips with their questions.
        ladders: of each pruner, the rungs from the largest keep down.
        risk: share of answers that may change, in the mean over clips.
        confidence: share of calibrations whose statement is true.
        out: the preset to write.
    """

    settings: Settings
    items: Sequence[Item]
    ladders: Sequence[Sequence[Rung]]
    risk: float
    confidence: float
    out: Path

    @property
    def rungs(self) -> list[Rung]:
        return [rung for ladder in self.ladders for rung in ladder]

    @property
    def level(self) -> float:
        """Share of all calibrations that may certify falsely, of each ladder."""
        return float(f"{(1 - self.confidence) / len(self.ladders):.12g}")  # 1 - 0.9 is not 0.1

    @property
    def measurements(self) -> Path:
        return self.out.with_suffix(MEASUREMENTS)

    @property
    def plot(self) -> Path:
        return self.out.with_suffix(PLOT)


def check(plan: Calibration, inputs: Sequence[str | Path]) -> None:
    """What can be refused before anything slow begins.

    Raises:
        UsageError: a risk or confidence out of range, sampled answers, an output that cannot be written, or so few
            clips that not even unchanged answers of all could certify the risk.
    """
    for option, share in (("--risk", plan.risk), ("--confidence", plan.confidence)):
        if not 0 < share < 1:
            raise UsageError(f"{option} {share:g}: give a share above 0 and below 1")
    if plan.settings.temperature > 0:
        raise UsageError(f"temperature {plan.settings.temperature:g}: sampled answers differ anyway; set it to 0")
    if plan.out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"-o {plan.out}: a preset is a .yaml file, e.g. {plan.out.with_suffix('.yaml').name}")
    videos = [item.video for item in plan.items]
    ours = {plan.out: preset.is_ours, plan.measurements: answers.is_ours, plan.plot: preset.is_our_plot}
    for path, is_ours in ours.items():
        check_output("-o", path, inputs=[*inputs, *videos], is_ours=is_ours)
    needed = bounds.clips_needed(plan.risk, 1 - plan.level)
    if len(plan.items) < needed:
        raise UsageError(
            f"{len(plan.items)} clip{'s' * (len(plan.items) != 1)} cannot certify {percent(plan.risk)} with confidence "
            f"{percent(plan.confidence)}, even if no answer changes: give {needed:,} or more, or a larger --risk"
        )


def run(plan: Calibration, listener: Listener) -> dict[str, Any]:
    """Measure what is not measured yet, test, and write the preset. Returns the certificate; of a calibration that
    failed, ``certified`` in it is null, and ``failure`` says why and what would help.

    Raises:
        UsageError: settings that cannot be carried out.
        CgError: a file cannot be written.
        NotCertified: too few clips could be answered for any verdict.
    """
    # 1. the clips, each once
    samples, copies = clips.samples(plan.items)
    for line in copies:
        listener.note(line)
    stored = Answers(plan.measurements)
    if stored.damaged:
        listener.note(f"{stored.file.name}: damaged lines are measured again, {stored.damaged} of them")
    listener.planned(plan, samples)

    # 2. the model, and every pruner
    model = measure.load(plan.settings, plan.rungs)
    facts = _facts(model)
    listener.loaded(facts)

    # 3. the answers that are missing, clip by clip
    failed = 0
    open_samples = [sample for sample in samples if measure.missing_any(model, sample, stored)]
    done = len(samples) - len(open_samples)
    listener.measured(done, len(samples), False)
    for sample, reading in measure.readings(model.whole, open_samples):
        fault = lambda rung, message, video=sample.video: listener.fault(
            f"{video}, {rung.pruner} {rung.keep:g}: {message}; it counts as changed"
        )
        try:
            stored.add(sample.video, measure.clip(model, sample, reading, stored, fault))
        except ItemError as error:
            failed += 1
            listener.fault(f"{sample.video}: {error}; it is left out")
        done += 1
        listener.measured(done, len(samples), True)

    # 4. the verdict
    asked = [one for sample in samples if (one := _asked(model, sample, stored)) is not None]
    needed = bounds.clips_needed(plan.risk, 1 - plan.level)
    if len(asked) < needed:
        raise NotCertified(
            f"{len(asked)} clips are left, and {needed:,} are needed to certify {percent(plan.risk)} with confidence "
            f"{percent(plan.confidence)}: give more clips"
        )
    certificate = _certificate(plan, asked, model, facts) | {"failed": failed}
    certificate["earlier_tests"] = stored.tested_before(_test(plan, certificate, model))

    # 5. the preset
    if (certified := certificate["certified"]) is not None:
        rung = Rung(certified["pruner"], certified["keep"])
        preset.write(plan.out, measure.rung_settings(plan.settings, rung), certificate)
    return certificate


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _asked(model: Model, sample: Sample, stored: Answers) -> Asked | None:
    """A clip with its answers; None if the whole clip has none."""
    whole = stored.get(model.keys(sample, WHOLE), ALONE)
    again = stored.get(model.keys(sample, WHOLE), AGAIN)
    if whole is None or again is None:
        return None
    found = {rung: stored.get(model.keys(sample, rung), ALONE) for rung in model.sessions if rung != WHOLE}
    seconds: dict[Rung | None, float] = {rung: sum(each[1].values()) for rung, each in found.items() if each}
    seconds[None] = sum(whole[1].values())
    return Asked(sample, whole[0], again[0], {rung: each and each[0] for rung, each in found.items()}, seconds)


def _facts(model: Model) -> dict[str, Any]:
    backbone = model.whole.backbone
    labels = {rung.pruner: s.predictor.label for rung, s in model.sessions.items() if s.predictor}
    warnings = dict.fromkeys(line for session in model.sessions.values() for line in session.warnings)
    return {
        "model": {
            "id": backbone.id,
            "revision": backbone.revision,
            "adapter": backbone.adapter,
            "device_name": device_name(backbone.device),
            "dtype": dtype_name(backbone.dtype),
        },
        "predictors": labels,
        "warnings": list(warnings),
    }


def _certificate(plan: Calibration, asked: Sequence[Asked], model: Model, facts: Mapping[str, Any]) -> dict[str, Any]:
    samples = [one.sample for one in asked]
    bound = clips.bound_for(len(sample.questions) for sample in samples)
    rungs = verdict.figures(asked, plan.ladders, plan.risk, plan.level, bound)
    noise = verdict.losses([one.whole for one in asked], [one.again for one in asked], samples)
    floor = verdict.total(noise, samples)
    too_noisy = floor > plan.risk * len(asked)
    best = None if too_noisy else verdict.best(rungs)
    certified, failure = None, None
    if best is not None:
        certified = {"pruner": best.rung.pruner, "keep": best.rung.keep, "bound": best.bound}
    elif too_noisy:
        failure = (
            f"the whole clip's own answers change in {percent(floor / len(asked))} when they are asked in another "
            f"batch: {percent(plan.risk)} cannot be certified; give a larger --risk, or --dtype float32"
        )
    else:
        failure = _failure(plan, rungs, len(asked), bound)
    return {
        "schema": SCHEMA,
        "created": utc_now(),
        "cg": __version__,
        "certified": certified,
        "failure": failure,
        "risk": plan.risk,
        "confidence": plan.confidence,
        "clips": len(asked),
        "questions": sum(len(sample.questions) for sample in samples),
        "asked": clips.asked_of_all(samples),
        "clips_and_questions": clips.digest(samples),
        "loss": "share of a clip's questions whose answer is not that of the whole clip",
        "matching": {"rule": MATCHING, "version": matching.VERSION},
        "test": {"of": "clips", "bound": bound, "sequence": "fixed, from the largest keep down", "level": plan.level},
        "noise": {
            "changed": sum(noise),
            "mean": floor / len(asked),
            "bound": bounds.upper_bound(floor, len(asked), plan.confidence, bound),
            "of": "the whole clip asked again, in a batch beside itself",
        },
        "ladder": [_row(each, len(asked)) for each in rungs],
        "model": facts["model"],
        "predictor": facts["predictors"].get(certified["pruner"]) if certified else None,
        "conditions": conditions(model.inputs[best.rung]) if best else None,
    }


def _row(each: Figures, count: int) -> dict[str, Any]:
    return {
        "pruner": each.rung.pruner,
        "keep": each.rung.keep,
        "changed": each.changed,
        "mean": each.loss / count,
        "bound": each.bound,
        "certified": each.certified,
        "latency": each.latency,
        "accuracy": each.accuracy,
    }


def _failure(plan: Calibration, rungs: Sequence[Figures], count: int, bound: bounds.Bound) -> str:
    """Of the ladders, the first rung of each failed: the one that came nearest is told."""
    firsts = [each for each in rungs if each.rung in {ladder[0] for ladder in plan.ladders}]
    nearest = min(firsts, key=lambda each: each.bound)
    return (
        f"no keep is certified: at {nearest.rung.pruner} {nearest.rung.keep:g}, {percent(nearest.loss / count)} of "
        f"answers changed on {count:,} clips, which leaves up to {percent(nearest.bound)} with confidence "
        f"{percent(plan.confidence)}, not {percent(plan.risk)}. What would do: "
        f"{verdict.remedy(nearest, count, plan.risk, plan.level, bound)}"
    )


def _test(plan: Calibration, certificate: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Tells one test of the measured answers from another: whoever tries several may not take the best of them."""
    return {
        "whole": model.inputs[WHOLE].key,
        "rungs": [[rung.pruner, rung.keep, model.inputs[rung].key] for rung in plan.rungs],
        "clips_and_questions": certificate["clips_and_questions"],
        "risk": plan.risk,
        "confidence": plan.confidence,
    }
