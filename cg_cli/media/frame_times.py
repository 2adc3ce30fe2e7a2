"""When each frame of a video is shown, from its packets alone. Runs in the worker process only."""

from __future__ import annotations

from fractions import Fraction

from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.demux import timeline_packets
from cg_cli.media.source import open_media
from cg_cli.media.timeline import Timeline


def frame_times(path: str, display_path: str, timeline: Timeline) -> list[Fraction]:
    """Seconds from the video's start of each frame, in the order in which they are shown; so a frame's number, from 0
    on, is its place in this list, at a variable rate as well.

    A frame that will turn out to be damaged has a number too. Raises as ``open_media``.
    """
    if timeline.nominal_frame_s is not None:
        return [number * timeline.nominal_frame_s for number in range(timeline.packets)]
    with open_media(path, display_path) as container:
        ticks = container.streams[timeline.stream_index].time_base
        assert ticks is not None  # a stream with timestamps has one
        # What is wrong with the file was counted when its timeline was made.
        packets = timeline_packets(container, [timeline], DecodeErrors())
        shown = {
            packet.dts if packet.pts is None else packet.pts
            for packet in packets
            if packet.size and not packet.is_discard
        }
    times = [time * ticks - timeline.start for time in sorted(time for time in shown if time is not None)]
    return [time for time in times if 0 <= time < timeline.duration] or [Fraction(0)]
