"""All eight ways in which a camera may have stored a picture, by display matrix and by EXIF."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

UNIT = 1 << 16
SHOWN = np.zeros((56, 112, 3), np.uint8)  # what a person sees: red top left, green top right, blue bottom left
SHOWN[:28, :56, 0] = SHOWN[:28, 56:, 1] = SHOWN[28:, :56, 2] = 255

# EXIF number -> ((a, b, c, d) of the display matrix, the stored picture). The pixel at (x, y) of the stored picture is
# shown at (a x + c y, b x + d y).
CASES = {
    1: ((1, 0, 0, 1), SHOWN),
    2: ((-1, 0, 0, 1), SHOWN[:, ::-1]),
    3: ((-1, 0, 0, -1), SHOWN[::-1, ::-1]),
    4: ((1, 0, 0, -1), SHOWN[::-1]),
    5: ((0, 1, 1, 0), SHOWN.transpose(1, 0, 2)),
    6: ((0, 1, -1, 0), SHOWN.transpose(1, 0, 2)[::-1]),
    7: ((0, -1, -1, 0), SHOWN.transpose(1, 0, 2)[::-1, ::-1]),
    8: ((0, -1, 1, 0), SHOWN.transpose(1, 0, 2)[:, ::-1]),
}


def film(path, stored: np.ndarray, matrix: tuple[int, ...]):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuv420p"
        a, b, c, d = (UNIT * value for value in matrix)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for _ in range(4):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")))
        output.mux(stream.encode(None))
    return path


def photo(path, stored: np.ndarray, exif: int):
    context = av.CodecContext.create("mjpeg", "w")
    context.height, context.width = stored.shape[:2]
    context.pix_fmt, context.time_base = "yuvj444p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24").reformat(format="yuvj444p")
    data = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
    entry = struct.pack("<HHIHH", 0x112, 3, 1, exif, 0)  # tag Orientation, one short
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    return path


@pytest.mark.parametrize("exif", CASES)
@pytest.mark.parametrize("kind", ["mp4", "jpg"])
def test_a_picture_is_shown_as_a_player_shows_it(worker, folder, exif, kind):
    matrix, stored = CASES[exif]
    path = folder / f"orientation_{exif}.{kind}"
    film(path, stored, matrix) if kind == "mp4" else photo(path, stored, exif)
    clip, probe = worker.decode(path), worker.probe(path)
    assert (clip.source_width, clip.source_height) == (probe.width, probe.height) == (112, 56)
    assert clip.frames.shape[1:] == SHOWN.shape
    assert np.abs(clip.frames[0].astype(int) - SHOWN).mean() < 12
    assert probe.mirrored == (np.linalg.det(np.reshape(matrix, (2, 2))) < 0)
