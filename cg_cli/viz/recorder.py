"""Records what a session pruned, for pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cg_cli.backbones.base import LayerwisePrefill
from cg_cli.engine.pipeline import Pruned
from cg_cli.errors import CgError
from cg_cli.records import Record
from cg_cli.util.text import one_line
from cg_cli.viz import write
from cg_cli.viz.scene import Scene, make_result, make_scene


@dataclass
class Recorder:
    """A ``session.PruningObserver`` that keeps the tensors of the last clip.

    Attributes:
        grid_frames: frames of a grid.
    """

    grid_frames: int
    _pruned: Pruned | None = None
    _layerwise: LayerwisePrefill | None = None

    def pruned(self, pruned: Pruned) -> None:
        self._pruned, self._layerwise = pruned, None

    def prefilled(self, layerwise: LayerwisePrefill) -> None:
        self._layerwise = self._layerwise or layerwise  # of several questions, the first one is drawn

    def scene(self, video: str, records: Sequence[Record]) -> Scene:
        """The clip and the pruner's result. CgError if no clip was pruned."""
        if self._pruned is None:
            raise CgError(f"nothing to draw of {video}: it was not read")
        pruned, clip, stream = self._pruned, self._pruned.encoded.clip, self._pruned.encoded.stream
        depth = None if self._layerwise is None else self._layerwise.depth
        result = make_result(
            pruned.pruner.name,
            pruned.keep,
            pruned.pruner,
            stream,
            pruned.budget,
            pruned.selection,
            depth,
            tuple(records),
        )
        return replace(make_scene(video, clip.content, clip, stream, self.grid_frames), results=(result,))


def sheet_name(video: str) -> str:
    """A file name for the sheet of a video; videos of one name in several folders get different ones."""
    digest = hashlib.blake2b(str(Path(video).absolute()).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{Path(video).stem}-{digest}.png"


def sheet(recorder: Recorder, folder: Path, video: str, records: Sequence[Record]) -> list[Record]:
    """Draw a sheet of a clip into ``folder``; its answers' records get the sheet's path, or a warning if there is
    none."""
    if not any(record.ok for record in records):
        return list(records)
    path = folder / sheet_name(video)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, recorder.scene(video, records))
    except Exception as error:  # of any kind: a failed picture must not cost an answer
        warning = f"no sheet: {one_line(error)}"
        return [
            record.model_copy(update={"warnings": (*record.warnings, warning)}) if record.ok else record
            for record in records
        ]
    return [record.model_copy(update={"shown": str(path)}) if record.ok else record for record in records]
