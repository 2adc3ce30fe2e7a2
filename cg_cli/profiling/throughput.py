"""Throughput on a folder of videos, against a plain transformers script, and where the time goes.

``python -m cg_cli.profiling.throughput CLIPS --model nano`` answers 1 and 5 questions about every clip of a folder
(``--questions``), with answers of at most 4 and of at most 64 tokens (``--tokens``), four ways in turn on the same
machine:

* plain: transformers alone, the way a script does it: read a clip, make its inputs, one ``generate`` a question; no
  pruning.
* cg, keep 1: ``cg batch`` without pruning. It gains from one encoding and prefill for all questions of a clip, batched
  decoding of the questions, and video decoding of the next clips meanwhile.
* cg, a clip at a time: ``cg batch --in-flight 1``.
* cg: ``cg batch`` with its defaults, which generates the answers of several clips together.

Loading the model is not counted. The second table says what the model was busy with, and how long it waited for files.
``--layers`` takes random weights in the shape of a real model with so many layers of each part, whose answers have all
of the tokens that they may have. Times vary with the machine; ratios are of one run. The last line is one JSON
document.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor
from transformers.utils import logging as transformers_logging

from cg_cli import media
from cg_cli.backbones import qwen_inputs
from cg_cli.backbones.device import resolve_device, resolve_dtype
from cg_cli.backbones.qwen2_5_omni import layout
from cg_cli.batch import engines
from cg_cli.batch.items import collect
from cg_cli.batch.run import Plan, Totals, run
from cg_cli.engine.metrics import device_name
from cg_cli.media.clip import SAMPLE_RATE, Clip, DecodeOptions
from cg_cli.media.files import VIDEO_SUFFIXES, walk
from cg_cli.profiling import random_checkpoint
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO
from cg_cli.questions import Item
from cg_cli.records import Record
from cg_cli.settings import models
from cg_cli.settings.resolve import resolve_settings
from cg_cli.settings.table import NO_PRUNER, Settings

QUESTIONS = ("What is happening?", "What do you hear?", "What do you see?", "What colour is it?", "What happens first?")
# What is set against the plain script, by its name in the result.
WAYS = {"keep_1": "cg, keep 1", "one_at_a_time": "cg, keep {:g}, a clip at a time", "cg": "cg, keep {:g}"}


class _Faults:
    """A batch's listener that only says what failed."""

    def note(self, message: str) -> None: ...

    def fault(self, message: str) -> None:
        print(message, file=sys.stderr)

    def loaded(self, facts: Mapping[str, Any]) -> None: ...

    def settled(self, totals: Totals) -> None: ...

    def skipped(self, totals: Totals, item: Item) -> None: ...

    def clip(self, totals: Totals, item: Item, done: Sequence[Record]) -> None:
        for message in dict.fromkeys(record.error.message for record in done if not record.ok):
            self.fault(message)

    def interrupted(self) -> None: ...


class Plain:
    """A script as one writes it with transformers alone; of this project it knows the prompt's layout, and reads clips
    with ``cg_cli.media``, so that both get the same frames."""

    def __init__(self, settings: Settings):
        device = resolve_device(settings.device)
        source = models.source(settings.model)
        self.model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            source, dtype=resolve_dtype(settings.dtype, device), use_safetensors=True, trust_remote_code=False
        )
        self.model = self.model.eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        self.extractor = WhisperFeatureExtractor.from_pretrained(source, trust_remote_code=False)
        self.worker = media.DecodeWorker()  # one process for all clips: as fast as decoding in this one
        self.options = DecodeOptions(settings.fps, settings.max_frames, settings.max_pixels)

    @torch.no_grad()
    def answers(self, video: str, questions: Sequence[str], tokens: int) -> list[str]:
        clip = self.worker.decode(video, self.options)
        inputs = self._inputs(clip)
        out = []
        for question in questions:
            text = question + layout.QUESTION_END
            question_ids = self.tokenizer(text, return_tensors="pt")["input_ids"].to(self.model.device)
            ids = torch.cat([inputs["input_ids"], question_ids], dim=1)
            output_ids = self.model.generate(
                **{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)},
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id or 0,
            )
            out.append(self.tokenizer.decode(output_ids[0, ids.shape[1] :], skip_special_tokens=True).strip())
        return out

    def _inputs(self, clip: Clip) -> dict:
        if clip.frames is None or clip.audio is None:
            sys.exit(f"{clip.path}: give videos with sound")
        device, frames = self.model.device, qwen_inputs.even_frames(clip.frames, 2)
        grid = len(frames) // 2, clip.frames.shape[1] // 14, clip.frames.shape[2] // 14
        pixels = qwen_inputs.patchify(
            torch.tensor(frames, device=device), qwen_inputs.PixelNorm(), patch=14, merge=2, temporal=2
        )
        mel = self.extractor(
            clip.audio, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt", truncation=False
        )
        audio = layout.audio_token_count(int(mel["attention_mask"].sum()))
        header = self.tokenizer(layout.HEADER)["input_ids"]
        shape = layout.MediaShape(grid[0], grid[1] // 2, grid[2] // 2, audio, 2 * clip.seconds_per_frame)
        modality = layout.prefix_layout(len(header), shape).modality
        ids = torch.empty(len(modality), dtype=torch.long)
        config = self.model.config
        ids[modality == VIDEO], ids[modality == AUDIO] = config.video_token_id, config.audio_token_id
        marks = [self.tokenizer("".join(names))["input_ids"] for names in layout.delimiters(shape)]
        ids[modality == TEXT] = torch.tensor([*header, *marks[0], *marks[1]])
        return {
            "input_ids": ids[None].to(device),
            "pixel_values_videos": pixels.to(self.model.dtype),
            "video_grid_thw": torch.tensor([grid], device=device),
            "video_second_per_grid": torch.tensor([2 * clip.seconds_per_frame], device=device),
            "input_features": mel["input_features"].to(device, self.model.dtype),
            "feature_attention_mask": mel["attention_mask"].to(device),
            "use_audio_in_video": True,
        }


@dataclass(frozen=True)
class Run:
    """What one way took for the folder: seconds, the answers in order, and the share of the seconds by stage."""

    seconds: float
    answers: list[str]
    shares: dict[str, float] = field(default_factory=dict)


def run_plain(plain: Plain, videos: Sequence[str], questions: Sequence[str], tokens: int) -> Run:
    """The plain script."""
    started = time.perf_counter()
    answers = [answer for video in videos for answer in plain.answers(video, questions, tokens)]
    return Run(time.perf_counter() - started, answers)


def run_batch(
    settings: Settings, videos: Sequence[str], questions: Sequence[str], in_flight: str = engines.AUTO
) -> Run:
    """One ``cg batch``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.jsonl")
        plan = Plan(settings, collect(videos, questions), str(out))
        totals = run(plan, engines.make("local", settings, None, in_flight), _Faults()).totals
        records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    answers = {(r["video"], r["question"]): r for r in records if r["ok"]}
    firsts = {r["video"]: r for r in answers.values()}.values()  # what is before decoding is the same for all of a clip
    seconds = {stage: sum(r["latency_s"][stage] for r in firsts) for stage in ("encode", "prune", "prefill")}
    seconds["decode"] = sum(r["latency_s"]["decode"] for r in answers.values())
    seconds["waiting for files"] = totals.waited_s
    seconds["else"] = max(0.0, totals.seconds - sum(seconds.values()))
    return Run(
        totals.seconds,
        [answers[video, question]["answer"] for video in videos for question in questions],
        {stage: part / totals.seconds for stage, part in seconds.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cg_cli.profiling.throughput", description=__doc__.partition("\n")[0]
    )
    transformers_logging.disable_progress_bar()
    parser.add_argument("clips", type=Path, help="a folder of videos with sound")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--layers", type=int, help="random weights, with so many layers of each part")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--keep", type=float)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--questions", type=int, nargs="+", default=[1, len(QUESTIONS)], help="about each clip")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 64], help="of an answer, at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if options.layers:
            model = folder
            random_checkpoint.write(Path(folder), options.model, options.layers, options.dtype)
        measure(options, model)


def measure(options: argparse.Namespace, model: str) -> None:
    """Print the tables for ``model``, a name or a directory."""
    videos = list(map(str, walk(options.clips, VIDEO_SUFFIXES, on_error=_stop)))
    overrides = {"model": model, "keep": options.keep, "dtype": options.dtype, "offline": True}
    plain = Plain(resolve_settings(overrides))
    plain.answers(videos[0], QUESTIONS[:1], 4)  # warm-up; so do the workers of a batch, with one clip
    keep = resolve_settings(overrides).keep
    shape = f"{options.model}, {options.layers} layers, random weights" if options.layers else options.model
    title = f"{shape}, {len(videos)} clips, {device_name(plain.model.device)}"
    speed = Table(title=f"{title}: as fast as plain transformers", title_justify="left")
    for name in ("questions", "tokens", "plain", *(WAYS[way].format(keep) for way in WAYS), "keep 1 says the same"):
        speed.add_column(name, justify="right")
    stages = Table(title="shares of the time of the folder", title_justify="left")
    rows = []
    for count, tokens in itertools.product(options.questions, options.tokens):
        questions = QUESTIONS[:count]
        settings = resolve_settings({**overrides, "max_new_tokens": tokens})
        whole = resolve_settings({**overrides, "max_new_tokens": tokens, "keep": 1.0, "pruner": NO_PRUNER})
        rounds: list[dict[str, Run]] = []
        for _ in range(options.repeat):
            rounds.append(
                {
                    "plain": run_plain(plain, videos, questions, tokens),
                    "keep_1": run_batch(whole, videos, questions),
                    "one_at_a_time": run_batch(settings, videos, questions, in_flight="1"),
                    "cg": run_batch(settings, videos, questions),
                }
            )
        faster = {way: [runs["plain"].seconds / runs[way].seconds for runs in rounds] for way in WAYS}
        last = rounds[-1]
        equal = sum(map(str.__eq__, last["keep_1"].answers, last["plain"].answers)) / len(last["plain"].answers)
        row = {
            "questions": len(questions),
            "tokens": tokens,
            "faster_than_plain": {way: statistics.median(ratios) for way, ratios in faster.items()},
            "faster_together": statistics.median(runs["one_at_a_time"].seconds / runs["cg"].seconds for runs in rounds),
            "equal_answers": equal,
            "shares": {
                way: {
                    stage: statistics.median(runs[way].shares[stage] for runs in rounds) for stage in last[way].shares
                }
                for way in WAYS
            },
        }
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)  # of a long run that does not come to its end
        spread = [f"{statistics.median(r):.2f} x ({min(r):.2f}-{max(r):.2f})" for r in faster.values()]
        speed.add_row(str(len(questions)), str(tokens), "1 x", *spread, f"{equal:.1%}")
        if not stages.columns:
            for name in ("questions", "tokens", "", *last["cg"].shares):
                stages.add_column(name, justify="right")
        for way, shares in row["shares"].items():
            figures = (f"{share:.1%}" for share in shares.values())
            stages.add_row(str(len(questions)), str(tokens), WAYS[way].format(keep), *figures)
    console = Console(width=140)
    console.print(speed)
    console.print(stages)
    print(json.dumps({"title": title, "keep": keep, "clips": len(videos), "rows": rows}))


def _stop(error: OSError) -> None:
    sys.exit(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
