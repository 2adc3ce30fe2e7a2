"""From one item to its records, on one device: what every engine runs, in a process that may be taken away at any
time."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cg_cli import __version__
from cg_cli.backbones.device import free_bytes
from cg_cli.batch.check import Whole
from cg_cli.batch.job import Job, poisoned
from cg_cli.engine.attempts import ClipQuestions
from cg_cli.engine.metrics import device_name, dtype_name
from cg_cli.engine.pipeline import ignore
from cg_cli.engine.session import Reading
from cg_cli.engine.setup import open_session
from cg_cli.errors import ItemError
from cg_cli.media import DecodeWorker
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.records import Answer, Record
from cg_cli.settings.table import Settings

CACHES = 2  # caches of the clips that wait, while they are copied into one
LIBRARIES = ("torch", "transformers", "av", "numpy")


class Answerer:
    """A session for many items. Reading may run in other threads, ahead of the answering."""

    def __init__(self, settings: Settings):
        """Loads the model. UsageError as for ``open_session``."""
        self.settings = settings
        self.session = open_session(settings)

    @property
    def ready(self) -> dict[str, Any]:
        """What a worker says when it can begin: ``inputs``, what every answer depends on, and ``facts`` for the
        sidecar."""
        return {"inputs": asdict(self.session.inputs), "facts": self._facts}

    @property
    def _facts(self) -> dict[str, Any]:
        backbone, predictor = self.session.backbone, self.session.predictor
        return {
            "model": {"id": backbone.id, "revision": backbone.revision},
            "device": str(backbone.device),
            "device_name": device_name(backbone.device),
            "dtype": dtype_name(backbone.dtype),
            "predictor": predictor.label if predictor else None,
            "warnings": list(self.session.warnings),
            "versions": {
                "cg": __version__,
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in LIBRARIES},
            },
        }

    def read(self, job: Job, worker: DecodeWorker) -> Reading:
        """The clip of ``job``. A file that crashes the decoder is given one more chance, and then called poison."""

        def decode(video: str, options: DecodeOptions) -> Clip:
            try:
                return worker.decode(video, options)
            except ItemError as error:
                if error.kind != "crashed":
                    raise
            try:
                return worker.decode(video, options)
            except ItemError as error:
                raise poisoned(error.stage, str(error)) if error.kind == "crashed" else error from None

        return self.session.read(job.video, decode)

    def prefill(self, job: Job, reading: Reading, on_stage: Callable[[str], None] = ignore) -> ClipQuestions:
        """The clip of ``job``, as far as all of its questions share. Never raises for a fault of the item."""
        clip = self.session.ask(job.video, job.questions, reading, on_stage=on_stage)
        clip.prefill()
        return clip

    def check(self, job: Job, reading: Reading, on_stage: Callable[[str], None] = ignore) -> Whole:
        """What the whole clip says to the questions of ``job``. Never raises for a fault of the item."""
        asked = self.session.whole.ask(job.video, job.questions, reading, on_stage=on_stage)
        out: dict[str, Answer | str] = {}
        try:
            # Its ``records`` would make do with less than the whole where memory is short.
            for record in asked.attempt.answer(asked.pending, together=True) if asked.attempt else ():
                out[record.question] = record if isinstance(record, Answer) else record.error.message
        except ItemError as error:
            out |= {question: str(error) for question in job.questions if question not in out}
        return out

    def room(self, waiting: Sequence[ClipQuestions]) -> bool:
        """Whether the device has room for another clip beside those that wait to be decoded, whose caches are copied
        once then."""
        free = free_bytes(self.session.backbone.device)
        held = [clip.kv_bytes or 0 for clip in waiting]
        return free > CACHES * (sum(held) + max(held, default=0))

    def answer(self, job: Job, reading: Reading, on_stage: Callable[[str], None] = ignore) -> Iterator[Record]:
        """A record for each question of ``job``, in order, as each is answered; with ``show_dir`` once all are, since
        a record names its sheet. Never raises for a fault of the item."""
        answer = lambda: self.session.answer(
            job.video, job.questions, reading, together=job.together, on_stage=on_stage
        )
        if not self.settings.show_dir:
            yield from answer()
            return
        from cg_cli.viz.recorder import Recorder, sheet

        self.session.observer = recorder = Recorder(self.session.backbone.frame_multiple)
        yield from sheet(recorder, Path(self.settings.show_dir), job.video, list(answer()))
