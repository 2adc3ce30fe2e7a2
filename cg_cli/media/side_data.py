"""A frame's side data, past PyAV's gaps. Runs in the worker process only."""

from __future__ import annotations

import av
from av.sidedata.sidedata import Type


def _unknown(cls: type[Type], value: object) -> Type:
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{value}", value  # type: ignore[assignment]
    return member


# PyAV 18.1 cannot give any side data of a frame that has a kind that it does not know, such as EXIF.
Type._missing_ = classmethod(_unknown)  # type: ignore[assignment]


def side_data(frame: av.VideoFrame, kind: Type, size: int) -> bytes | None:
    """The frame's side data of a kind; None if there is none, or fewer than ``size`` bytes."""
    data = frame.side_data.get(kind)
    return bytes(data) if data is not None and data.buffer_size >= size else None
