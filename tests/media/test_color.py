"""Colours: as tagged, HDR, and transparent, against the standards' formulas."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from cg_cli.media import DecodeOptions

# Patches of one colour: grey steps, then saturated and muted colours; 8-bit SDR RGB.
PATCHES = np.array(
    [[16] * 3, [64] * 3, [128] * 3, [200] * 3, [180, 40, 40], [40, 160, 60], [50, 60, 170], [190, 150, 110]], np.uint8
)
LUMA = {"709": (0.2126, 0.0722), "601": (0.299, 0.114), "2020": (0.2627, 0.0593)}
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087


def chart(size=(224, 112)) -> np.ndarray:
    """[H, W, 3] uint8: the patches side by side."""
    return np.repeat(np.repeat(PATCHES[None], size[0] // len(PATCHES), axis=1), size[1], axis=0)


def yuv(rgb: np.ndarray, matrix: str, full: bool, bits: int) -> np.ndarray:
    """[3, H, W] integers: YUV 4:4:4 of RGB [H, W, 3] from 0 to 1."""
    kr, kb = LUMA[matrix]
    y = rgb @ np.array([kr, 1 - kr - kb, kb])
    cb, cr = (rgb[..., 2] - y) / (2 - 2 * kb), (rgb[..., 0] - y) / (2 - 2 * kr)
    if full:
        planes = [y * (2**bits - 1), *(c * (2**bits - 1) + 2 ** (bits - 1) for c in (cb, cr))]
    else:
        scale = 2 ** (bits - 8)
        planes = [(219 * y + 16) * scale, *((224 * c + 128) * scale for c in (cb, cr))]
    return np.round(planes).clip(0, 2**bits - 1).astype(np.uint8 if bits == 8 else np.uint16)


def film(path, planes: np.ndarray, *, space: int = 2, color_range: int = 0, transfer: int = 2, primaries: int = 2):
    """Two frames of YUV 4:4:4, lossless, with these tags (2, and 0 for the range: none)."""
    deep = planes.dtype == np.uint16
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width = planes.shape[1:]
        stream.pix_fmt = "yuv444p10le" if deep else "yuv444p"
        context = stream.codec_context
        context.colorspace, context.color_range = space, color_range
        context.color_trc, context.color_primaries = transfer, primaries
        for _ in range(2):
            frame = av.VideoFrame(planes.shape[2], planes.shape[1], stream.pix_fmt)
            for plane, values in zip(frame.planes, planes):
                rows = np.zeros((planes.shape[1], plane.line_size // (2 if deep else 1)), planes.dtype)
                rows[:, : planes.shape[2]] = values
                plane.update(rows.tobytes())
            frame.colorspace, frame.color_range = space, color_range
            frame.color_trc, frame.color_primaries = transfer, primaries
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def patches_of(frame: np.ndarray) -> np.ndarray:
    """[8, 3]: the colour in the middle of each patch."""
    columns = ((np.arange(len(PATCHES)) + 0.5) * frame.shape[1] / len(PATCHES)).astype(int)
    return frame[frame.shape[0] // 2, columns].astype(int)


@pytest.mark.parametrize(
    ("matrix", "space", "size"),
    [
        ("709", 1, (224, 112)),
        ("601", 5, (224, 112)),
        ("601", 6, (224, 112)),
        ("601", 2, (224, 112)),  # untagged: by size
        ("709", 2, (1280, 720)),
        ("601", 6, (1280, 720)),
        ("2020", 9, (224, 112)),
        ("2020", 10, (224, 112)),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_are_those_of_the_file(worker, folder, matrix, space, size, full):
    planes = yuv(chart(size) / 255, matrix, full, 8)
    path = film(folder / f"{matrix}_{space}_{full}_{size[0]}.mkv", planes, space=space, color_range=2 if full else 1)
    clip = worker.decode(path)
    assert np.abs(patches_of(clip.frames[0]) - PATCHES).max() <= 3 and clip.warnings == ()


def test_an_unknown_matrix_is_taken_by_size(worker, folder):
    path = film(folder / "ictcp.mkv", yuv(chart() / 255, "601", False, 8), space=14)
    assert np.abs(patches_of(worker.decode(path).frames[0]) - PATCHES).max() <= 3


def pq(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits: np.ndarray) -> np.ndarray:
    """For a display of 1000 nits: BT.2100's inverse OOTF, then its OETF. ``nits`` [H, W, 3] in BT.2020."""
    luminance = np.maximum(nits @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene = nits / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def hdr_film(path, curve: str, white_nits: float):
    """The chart as an HDR film whose white is ``white_nits``."""
    light = (chart() / 255) ** 2.4 @ TO_2020.T * white_nits
    signal = {"pq": pq, "hlg": hlg}[curve](np.maximum(light, 0))
    transfer = ColorTrc.SMPTE2084 if curve == "pq" else ColorTrc.ARIB_STD_B67
    planes = yuv(signal, "2020", False, 10)
    return film(path, planes, space=9, color_range=1, transfer=transfer, primaries=ColorPrimaries.BT2020)


@pytest.mark.parametrize("curve", ["pq", "hlg"])
def test_hdr_is_tone_mapped(worker, folder, curve):
    clip = worker.decode(hdr_film(folder / f"{curve}.mkv", curve, 203))
    shown = patches_of(clip.frames[0])
    # What is not bright comes out as it went in; bright patches are dimmed by the curve, by a tenth at most.
    dim = PATCHES.max(axis=1) < 165
    assert np.abs(shown - PATCHES)[dim].max() <= 4
    assert (shown <= PATCHES + 4).all() and (shown >= 0.88 * PATCHES - 4).all()
    assert (np.diff(shown[:4, 0]) > 30).all()
    assert [line for line in clip.warnings if "HDR" in line and curve.upper() in line] == list(clip.warnings)
    assert len(clip.warnings) == 1 and clip.complete


def test_highlights_keep_their_order_and_do_not_wrap(worker, folder):
    nits = np.repeat(np.repeat(np.array([50.0, 100, 203, 400, 700, 1000, 4000, 10_000])[None, :, None], 28, 1), 112, 0)
    planes = yuv(pq(np.repeat(nits, 3, axis=2)), "2020", False, 10)
    path = film(folder / "ramp.mkv", planes, space=9, color_range=1, transfer=16, primaries=9)
    shown = patches_of(worker.decode(path).frames[0])[:, 1]
    assert (np.diff(shown) >= 0).all() and shown[2] > 215 and shown[4:].min() >= 253 and (np.diff(shown[:5]) > 2).all()


def test_wide_sdr_primaries_are_converted(worker, folder):
    signal = ((chart() / 255) ** 2.4 @ TO_2020.T) ** (1 / 2.4)
    path = film(
        folder / "sdr2020.mkv", yuv(signal, "2020", False, 10), space=9, color_range=1, transfer=14, primaries=9
    )
    clip = worker.decode(path)
    assert np.abs(patches_of(clip.frames[0]) - PATCHES).max() <= 4 and clip.warnings == ()


def transparent(path, codec: str, pix_fmt: str, ink: int):
    """A disc of ``ink`` on what is transparent, the hidden colour being ``ink`` too."""
    y, x = np.mgrid[:112, :112]
    rgba = np.full((112, 112, 4), ink, np.uint8)
    rgba[..., 3] = np.where((x - 56) ** 2 + (y - 56) ** 2 < 30**2, 255, 0)
    frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pix_fmt)
    if path.suffix == ".png":
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt, context.time_base = 112, 112, pix_fmt, Fraction(1, 25)
        path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
        return path
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width = stream.height = 112
        stream.pix_fmt = pix_fmt
        for _ in range(2):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("png", "png", "rgba"),
        ("png", "png", "rgba64be"),
        ("png", "png", "ya8"),
        ("png", "png", "ya16be"),
        ("mov", "qtrle", "argb"),
        ("mov", "png", "rgba"),
        ("mov", "prores_ks", "yuva444p10le"),
        ("mkv", "ffv1", "yuva420p"),
        ("mkv", "ffv1", "bgra"),
        ("webm", "libvpx-vp9", "yuva420p"),
    ],
)
@pytest.mark.parametrize("ink", [0, 255])
def test_what_is_transparent_is_grey(worker, folder, suffix, codec, pix_fmt, ink):
    path = transparent(folder / f"alpha_{codec}_{pix_fmt}_{ink}.{suffix}", codec, pix_fmt, ink)
    frame = worker.decode(path, DecodeOptions()).frames[0].astype(int)
    assert np.abs(frame[:20, :20] - 128).max() <= 8 and np.abs(frame[50:62, 50:62] - ink).max() <= 8


def test_a_palette_may_be_transparent(worker, folder):
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + bytes(56) + bytes([1]) * 56) * 112  # the left half is entry 0, transparent black
    path = folder / "palette.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 112, 112, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0]))
        + chunk(b"tRNS", bytes([0, 255]))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    frame = worker.decode(path).frames[0].astype(int)
    assert np.abs(frame[:, :50] - 128).max() <= 2 and np.abs(frame[:, 62:] - [255, 0, 0]).max() <= 2
