"""From one item to its records, on one device: what every engine runs, in a process that may be taken away at any
time."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cg_cli import __version__
from cg_cli.batch.job import Job, poisoned
from cg_cli.engine.metrics import device_name
from cg_cli.engine.session import Reading, Session
from cg_cli.errors import ItemError
from cg_cli.media import DecodeWorker
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.records import Record
from cg_cli.settings.resolve import Settings

LIBRARIES = ("torch", "transformers", "av", "numpy")


class Answerer:
    """A session for many items. Reading may run in other threads, ahead of the answering."""

    def __init__(self, settings: Settings):
        """Loads the model. UsageError as for ``Session.open``."""
        self.session = Session.open(settings)

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's sidecar says about this worker."""
        backbone = self.session.backbone
        return {
            "model": {"id": backbone.id, "revision": backbone.revision},
            "device": str(backbone.device),
            "device_name": device_name(backbone.device),
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "predictor": self.session.predictor,
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

    def answer(
        self, job: Job, reading: Reading, on_stage: Callable[[str], None] = lambda stage: None
    ) -> Sequence[Record]:
        """A record for each question of ``job``, in order. Never raises for a fault of the item."""
        folder = self.session.settings.show_dir
        if not folder:
            return self.session.ask_together(job.video, job.questions, reading, job.identity, on_stage)
        from cg_cli.viz.recorder import Recorder, sheet

        self.session.observer = recorder = Recorder(self.session.settings, self.session.backbone.frame_multiple)
        records = self.session.ask_together(job.video, job.questions, reading, job.identity, on_stage)
        return sheet(recorder, Path(folder), job.video, job.identity, records)
