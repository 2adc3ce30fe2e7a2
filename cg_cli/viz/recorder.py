"""Looks over a session's shoulder: what there was of a clip when it was pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cg_cli.backbones.base import LayerwisePrefill
from cg_cli.errors import CgError
from cg_cli.media.clip import Clip
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.stream import Selection, TokenStream
from cg_cli.records import Record
from cg_cli.settings.table import Settings
from cg_cli.viz import write
from cg_cli.viz.scene import Scene, run, scene


@dataclass
class Recorder:
    """A ``session.PruningObserver`` that keeps what one clip was like.

    Attributes:
        settings: of the session.
        grid_frames: frames of a grid.
    """

    settings: Settings
    grid_frames: int
    _seen: tuple[Clip, TokenStream, Budget, Selection, Pruner] | None = None
    _narrowed: LayerwisePrefill | None = None

    def pruned(self, clip: Clip, stream: TokenStream, budget: Budget, selection: Selection, pruner: Pruner) -> None:
        self._seen, self._narrowed = (clip, stream, budget, selection, pruner), None

    def narrowed(self, found: LayerwisePrefill) -> None:
        self._narrowed = self._narrowed or found  # of several questions, the first is shown

    def scene(self, video: str, identity: str, records: Sequence[Record]) -> Scene:
        """The clip, and the pruner's run on it. CgError if the clip never came so far as to be pruned."""
        if self._seen is None:
            raise CgError(f"nothing to draw of {video}: it was not read")
        clip, stream, budget, selection, pruner = self._seen
        depth = None if self._narrowed is None else self._narrowed.depth
        one = run(self.settings.pruner, self.settings.keep, pruner, stream, budget, selection, depth, tuple(records))
        return replace(scene(video, identity, clip, stream, self.grid_frames), runs=(one,))


def sheet_name(video: str) -> str:
    """A file name for the sheet of a video, another one for a video of the same name elsewhere."""
    place = hashlib.blake2b(str(Path(video).absolute()).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{Path(video).stem}-{place}.png"


def sheet(recorder: Recorder, folder: Path, video: str, identity: str, records: Sequence[Record]) -> list[Record]:
    """Draw a sheet of a clip into ``folder``; the records of its answers say where it is, or why there is none."""
    if not any(record.ok for record in records):
        return list(records)
    path = folder / sheet_name(video)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, recorder.scene(video, identity, records))
    except Exception as error:  # whatever it is: no picture is worth an answer
        why = f"no sheet: {' '.join(str(error).split()) or type(error).__name__}"
        return [
            record.model_copy(update={"warnings": (*record.warnings, why)}) if record.ok else record
            for record in records
        ]
    return [record.model_copy(update={"shown": str(path)}) if record.ok else record for record in records]
