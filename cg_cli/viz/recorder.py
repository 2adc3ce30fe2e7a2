"""Records what a session pruned, for pictures."""

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
from cg_cli.settings.resolve import Settings
from cg_cli.util.text import one_line
from cg_cli.viz import write
from cg_cli.viz.scene import Scene, make_result, make_scene


@dataclass
class Recorder:
    """A ``session.PruningObserver`` that keeps the tensors of the last clip.

    Attributes:
        settings: of the session.
        grid_frames: frames of a grid.
    """

    settings: Settings
    grid_frames: int
    _pruned: tuple[Clip, TokenStream, Budget, Selection, Pruner] | None = None
    _prefill: LayerwisePrefill | None = None

    def pruned(self, clip: Clip, stream: TokenStream, budget: Budget, selection: Selection, pruner: Pruner) -> None:
        self._pruned, self._prefill = (clip, stream, budget, selection, pruner), None

    def narrowed(self, found: LayerwisePrefill) -> None:
        self._prefill = self._prefill or found  # of several questions, the first one is drawn

    def scene(self, video: str, identity: str, records: Sequence[Record]) -> Scene:
        """The clip and the pruner's result. CgError if no clip was pruned."""
        if self._pruned is None:
            raise CgError(f"nothing to draw of {video}: it was not read")
        clip, stream, budget, selection, pruner = self._pruned
        depth = None if self._prefill is None else self._prefill.depth
        result = make_result(
            self.settings.pruner, self.settings.keep, pruner, stream, budget, selection, depth, tuple(records)
        )
        return replace(make_scene(video, identity, clip, stream, self.grid_frames), results=(result,))


def sheet_name(video: str) -> str:
    """A file name for the sheet of a video; videos of one name in several folders get different ones."""
    digest = hashlib.blake2b(str(Path(video).absolute()).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{Path(video).stem}-{digest}.png"


def sheet(recorder: Recorder, folder: Path, video: str, identity: str, records: Sequence[Record]) -> list[Record]:
    """Draw a sheet of a clip into ``folder``; its answers' records get the sheet's path, or a warning if there is
    none."""
    if not any(record.ok for record in records):
        return list(records)
    path = folder / sheet_name(video)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, recorder.scene(video, identity, records))
    except Exception as error:  # of any kind: a failed picture must not cost an answer
        warning = f"no sheet: {one_line(error)}"
        return [
            record.model_copy(update={"warnings": (*record.warnings, warning)}) if record.ok else record
            for record in records
        ]
    return [record.model_copy(update={"shown": str(path)}) if record.ok else record for record in records]
