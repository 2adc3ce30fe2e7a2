"""Throughput on a folder of videos, against a plain transformers script and against its parts, decoding and model.

``python -m cg_cli.profiling.throughput CLIPS --model nano`` answers 1 and 5 questions about every clip of a folder,
four ways in turn on the same machine:

* plain: transformers alone, the way a script does it: read a clip, make its inputs, one ``generate`` a question; no
  pruning.
* cg, keep 1: ``cg batch`` without pruning. It gains from one encoding and prefill for all questions of a clip, batched
  decoding of the questions, and video decoding of the next clips meanwhile.
* cg, a clip at a time: ``cg batch --in-flight 1``.
* cg: ``cg batch`` with its defaults, which generates the answers of several clips together.

Loading the model is not counted. The second table compares the time of a folder with the sums of its parts: where
reading runs ahead of the model, it is near the larger of the two. There, on a CPU, one core is left to the video
decoder. Times vary with the machine; ratios are of one run. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO
from cg_cli.questions import Item
from cg_cli.records import Record
from cg_cli.settings import models
from cg_cli.settings.resolve import resolve_settings
from cg_cli.settings.table import NO_PRUNER, Settings

QUESTIONS = ("What is happening?", "What do you hear?", "What do you see?", "What colour is it?", "What happens first?")
THREADS = "OMP_NUM_THREADS"  # of worker processes


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
        self.limit = settings.max_new_tokens

    @torch.no_grad()
    def answers(self, video: str, questions: Sequence[str]) -> list[str]:
        clip = self.worker.decode(video, self.options)
        inputs = self._inputs(clip)
        out = []
        for question in questions:
            text = question + layout.QUESTION_END
            question_ids = self.tokenizer(text, return_tensors="pt")["input_ids"].to(self.model.device)
            ids = torch.cat([inputs["input_ids"], question_ids], dim=1)
            output_ids = self.model.generate(
                **{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)},
                max_new_tokens=self.limit,
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


def run_plain(plain: Plain, videos: Sequence[str], questions: Sequence[str]) -> tuple[float, list[str]]:
    """Seconds for a folder, and the answers."""
    started = time.perf_counter()
    answers = [answer for video in videos for answer in plain.answers(video, questions)]
    return time.perf_counter() - started, answers


def run_batch(
    settings: Settings, videos: Sequence[str], questions: Sequence[str], in_flight: str = engines.AUTO
) -> tuple[Totals, list[str]]:
    """The totals of one ``cg batch``, and the answers in the order of ``videos`` and ``questions``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.jsonl")
        plan = Plan(settings, collect(videos, questions), str(out))
        report = run(plan, engines.make("local", settings, None, in_flight), _Faults())
        records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    answers = {(r["video"], r["question"]): r["answer"] for r in records if r["ok"]}
    return report.totals, [answers[video, question] for video in videos for question in questions]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cg_cli.profiling.throughput", description=__doc__.partition("\n")[0]
    )
    transformers_logging.disable_progress_bar()
    parser.add_argument("clips", type=Path, help="a folder of videos with sound")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--keep", type=float)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    options = parser.parse_args()
    overrides = {"model": options.model, "keep": options.keep, "max_new_tokens": options.max_new_tokens}
    settings = resolve_settings(overrides)
    unpruned_settings = resolve_settings({**overrides, "keep": 1.0, "pruner": NO_PRUNER})
    videos = list(map(str, walk(options.clips, VIDEO_SUFFIXES, on_error=_stop)))
    plain = Plain(settings)
    plain.answers(videos[0], QUESTIONS[:1])  # warm-up; so do the workers of a batch, with one clip
    console = Console(width=120)
    result = {
        "model": options.model,
        "device": device_name(plain.model.device),
        "clips": len(videos),
        "keep": settings.keep,
        "speed": {},
    }

    table = Table(
        title=f"{options.model}, {len(videos)} clips, {result['device']}: as fast as plain transformers",
        title_justify="left",
    )
    for name in (
        "questions a clip",
        "plain",
        "cg, keep 1",
        f"cg, keep {settings.keep:g}, a clip at a time",
        f"cg, keep {settings.keep:g}",
        "answers of cg, keep 1, equal to plain",
    ):
        table.add_column(name, justify="right")
    for questions in (QUESTIONS[:1], QUESTIONS):
        ratios, equal = [], 0.0
        for _ in range(options.repeat):
            seconds, expected = run_plain(plain, videos, questions)
            unpruned, answers = run_batch(unpruned_settings, videos, questions)
            alone, _ = run_batch(settings, videos, questions, in_flight="1")
            pruned, _ = run_batch(settings, videos, questions)
            ratios.append(tuple(seconds / totals.seconds for totals in (unpruned, alone, pruned)))
            equal = sum(map(str.__eq__, answers, expected)) / len(expected)
        medians = [statistics.median(column) for column in zip(*ratios)]
        spread = [f"{m:.2f} x ({min(c):.2f}-{max(c):.2f})" for m, c in zip(medians, zip(*ratios))]
        table.add_row(str(len(questions)), "1 x", *spread, f"{equal:.1%}")
        names = ("keep_1", "pruned_a_clip_at_a_time", "pruned")
        result["speed"][len(questions)] = dict(zip(names, medians)) | {"equal_answers": equal}
    console.print(table)

    if plain.model.device.type == "cpu":
        os.environ[THREADS] = str(max(1, (os.cpu_count() or 1) - 1))
    del plain
    rounds = [run_batch(settings, videos, QUESTIONS)[0] for _ in range(options.repeat)]
    totals = sorted(rounds, key=lambda totals: totals.seconds)[options.repeat // 2]
    larger, both = max(totals.read_s, totals.worked_s), totals.read_s + totals.worked_s
    table = Table(title="time of the folder, 5 questions a clip, against its parts", title_justify="left")
    for name in (
        "against max(decoding, model)",
        "against decoding + model",
        "decoding / model",
        "model waited for decoding",
    ):
        table.add_column(name, justify="right")
    waited = totals.waited_s / (totals.waited_s + totals.worked_s)
    table.add_row(
        f"{totals.seconds / larger:.2f}",
        f"{totals.seconds / both:.2f}",
        f"{totals.read_s / totals.worked_s:.2f}",
        f"{waited:.1%}",
    )
    console.print(table)
    result["overlap"] = {"to_longer": totals.seconds / larger, "to_sum": totals.seconds / both, "waited": waited}
    print(json.dumps(result))


def _stop(error: OSError) -> None:
    sys.exit(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
