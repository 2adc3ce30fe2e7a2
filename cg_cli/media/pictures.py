"""The pictures of a clip: the frames of a video that are read, resized. Runs in the worker process only."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from cg_cli.media.change import SIDE, ChangePool
from cg_cli.media.clip import CHANGE, LINSPACE, PAIRS, DecodeOptions
from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.frame_times import frame_times
from cg_cli.media.frames import MAX_FLAT_PIXELS, Resizer, SampledFrame, sample_frames
from cg_cli.media.grids import pair_starts, pair_times
from cg_cli.media.hardware import NvdecVideo
from cg_cli.media.sizes import fit_size, frame_count, linspace, slot_centres, uncapped_count
from cg_cli.media.source import open_media
from cg_cli.media.timeline import Timeline

MAX_CELLS = 20_000  # candidates: more than a grid a second of five hours
ROOM = 2  # times as many cells wait as will be chosen of them, ...
LEAST_ROOM = 1  # ... but no fewer than this many times; where their pixels take more than MAX_WAITING_BYTES, ...
MAX_WAITING_BYTES = 128 << 20  # ... or a frame has more than MAX_FLAT_PIXELS, the film is decoded a second time
MAX_DECODED_BYTES = 128 << 20  # of frames as they were decoded; most that wait in vain are never resized


@dataclass(frozen=True)
class Picture:
    """A frame that is read: its ``time`` in seconds from the video's start, ``pixels`` [H, W, 3] uint8, and of how many
    frames of the clip in a row it is the one (``repeats``)."""

    time: Fraction
    repeats: int
    pixels: np.ndarray


class PictureReader:
    """Reads the pictures of one video.

    Args:
        path: absolute; ``display_path``: as the user gave it, for messages.
        errors: what is odd about the file is added.
        nvdec: as for ``sample_frames``.

    Attributes:
        count: how many frames the clip gets; of LINSPACE known once the first is read.
        starts: seconds at which each of its grids starts; None where all frames are evenly spaced. Known once all is
            read, as ``resizer`` and ``size``.
        resizer: of the video's frames; None as long as none could be decoded.
        size: (width, height) of the pictures.
    """

    def __init__(
        self,
        path: str,
        display_path: str,
        timeline: Timeline,
        options: DecodeOptions,
        errors: DecodeErrors,
        nvdec: NvdecVideo | None = None,
    ):
        self._file, self._nvdec = (path, display_path, timeline), nvdec
        self._duration, self._options, self._errors = timeline.duration, options, errors
        self.count = frame_count(timeline.duration, options)
        self.starts: list[Fraction] | None = None
        self.resizer: Resizer | None = None
        self.size = (0, 0)

    def read(self) -> Iterator[Picture]:
        """The pictures in order of time. ItemError as ``sample_frames``."""
        if self._options.frames == LINSPACE:
            times = frame_times(*self._file)
            numbers = linspace(len(times), self.count)
            self.count = len(numbers)
            yield from self._at([times[number] for number in numbers], self._errors)
            return
        all_frames = uncapped_count(self._duration, self._options)
        # Without a cap evenly spaced frames are whole grids next to each other.
        if self.count >= all_frames or self._options.frames not in (PAIRS, CHANGE):
            yield from self._at(slot_centres(self._duration, self.count), self._errors)
        elif self._options.frames == PAIRS:
            self.starts = pair_starts(self._duration, self.count, self._options)
            yield from self._at(pair_times(self._duration, self.count, self._options), self._errors)
        else:
            cells = min(all_frames // self._options.frame_multiple, MAX_CELLS)
            yield from self._where_it_changes(max(cells, self.count // self._options.frame_multiple))

    def _at(self, times: Sequence[Fraction], errors: DecodeErrors) -> Iterator[Picture]:
        for sampled in self._sample(times, errors):
            yield Picture(sampled.time, sampled.repeats, self._upright(sampled.frame))

    def _sample(self, times: Sequence[Fraction], errors: DecodeErrors) -> Iterator[SampledFrame]:
        path, display_path, timeline = self._file
        for sampled in sample_frames(path, display_path, timeline, times, errors, self._nvdec):
            if self.resizer is None:
                self.resizer = resizer_of(path, display_path, timeline, sampled.frame)
                pixels = self._options.frame_pixels(self.count)
                self.size = fit_size(*self.resizer.displayed, pixels, self._options.side_multiple)
            yield sampled

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        assert self.resizer is not None  # ``_sample`` has set it
        return self.resizer.upright(frame, self.size)

    def _where_it_changes(self, cells: int) -> Iterator[Picture]:
        """The frames of the chosen ones of ``cells``."""
        size = self._options.frame_multiple
        times, starts = (f(self._duration, cells * size, self._options) for f in (pair_times, pair_starts))
        grids, pool, waits = self.count // size, None, False
        waiting_room = _WaitingRoom(self)
        for cell, looks in enumerate(_grouped(self._look(times), size)):
            if pool is None:
                room, waits = self._room(grids, looks[0].sampled.frame)
                pool = ChangePool[_Waiting | None](cells, grids, room)
            load = partial(waiting_room.take, looks) if waits else lambda: None
            pool.add(cell, np.stack([look.luma for look in looks]), load)
        if pool is None:
            return
        chosen = pool.chosen()
        self.starts = [starts[cell] for cell, _ in chosen]
        if waits:
            for _, waiting in chosen:
                assert waiting is not None
                yield from waiting.pictures()
        else:
            again = [time for cell, _ in chosen for time in times[cell * size : (cell + 1) * size]]
            # What is wrong with the file has been counted; and behind damage nothing may be skipped.
            yield from self._at(again, copy.deepcopy(self._errors))

    def _look(self, times: Sequence[Fraction]) -> Iterator[_Look]:
        scaler = VideoReformatter()
        for sampled in self._sample(times, self._errors):
            yield _Look(sampled, _luma(scaler, sampled.frame))

    def _room(self, grids: int, frame: av.VideoFrame) -> tuple[int, bool]:
        """How many cells may wait until the film is over, and whether with their pixels."""
        even, width, height = -(-grids // 2), *self.size
        of_a_grid = self._options.frame_multiple * width * height * 3
        room, fits = ROOM * (grids - even), MAX_WAITING_BYTES // of_a_grid - even
        if fits < LEAST_ROOM * (grids - even) or frame.width * frame.height > MAX_FLAT_PIXELS:
            return room, False
        return min(room, fits), True


@dataclass(frozen=True)
class _Look:
    """A decoded frame and its brightness ``luma``."""

    sampled: SampledFrame
    luma: np.ndarray


class _Waiting:
    """The frames of a cell that waits, as they were decoded or resized."""

    def __init__(self, reader: PictureReader, looks: Sequence[_Look]):
        self._reader = reader
        self._frames = [look.sampled for look in looks]
        self.decoded_bytes = sum(plane.buffer_size for sampled in self._frames for plane in sampled.frame.planes)
        self._pictures: list[Picture] = []

    def pictures(self) -> list[Picture]:
        """Its pictures; the decoded frames are let go."""
        for sampled in self._frames:
            same = self._pictures and self._pictures[-1].time == sampled.time
            pixels = self._pictures[-1].pixels if same else self._reader._upright(sampled.frame)
            self._pictures.append(Picture(sampled.time, 1, pixels))
        self._frames = []
        return self._pictures


class _WaitingRoom:
    """Makes cells wait. Those that came last wait as decoded frames, MAX_DECODED_BYTES at most; older ones that were
    not dropped meanwhile are resized."""

    def __init__(self, reader: PictureReader):
        self._reader = reader
        self._decoded: list[weakref.ref[_Waiting]] = []  # the oldest first

    def take(self, looks: Sequence[_Look]) -> _Waiting:
        new = _Waiting(self._reader, looks)
        waiting = [*filter(None, (reference() for reference in self._decoded)), new]
        decoded_bytes = sum(cell.decoded_bytes for cell in waiting)
        while waiting and decoded_bytes > MAX_DECODED_BYTES:
            oldest = waiting.pop(0)
            decoded_bytes -= oldest.decoded_bytes
            oldest.pictures()
        self._decoded = [weakref.ref(cell) for cell in waiting]
        return new


def _grouped(looks: Iterable[_Look], size: int) -> Iterator[list[_Look]]:
    """``size`` at a time, each as often as it is on display."""
    group: list[_Look] = []
    for look in looks:
        for _ in range(look.sampled.repeats):
            group.append(look)
            if len(group) == size:
                yield group
                group = []


def _luma(scaler: VideoReformatter, frame: av.VideoFrame) -> np.ndarray:
    """The mean brightness of each spot of a stored frame [SIDE, SIDE] uint8."""
    small = scaler.reformat(frame, width=SIDE, height=SIDE, format="gray", interpolation=Interpolation.AREA, threads=1)
    return small.to_ndarray()


def resizer_of(path: str, display_path: str, timeline: Timeline, first: av.VideoFrame) -> Resizer:
    """The Resizer of a video, from its first decoded frame."""
    with open_media(path, display_path) as container:
        return Resizer(container.streams[timeline.stream_index].sample_aspect_ratio, first)
