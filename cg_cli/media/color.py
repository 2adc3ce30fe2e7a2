"""Colour: what a frame's numbers mean, and HDR and transparent frames as plain SDR pictures.

Runs in the worker process only. Sources: Rec. ITU-R BT.2100 (PQ and HLG), BT.2390 section 5.4.1 (the tone curve),
BT.2408 (reference white), BT.1886 (the gamma of an SDR display).
"""

from __future__ import annotations

import struct
from functools import lru_cache

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from cg_cli.media.side_data import side_data

WHITE_NITS = 203.0  # BT.2408's reference white, the white of the SDR picture
DEFAULT_PEAK_NITS = 1000.0  # of an HDR film that states none
SDR_GAMMA = 2.4
GROUND = 128  # mid grey, on which both black and white show
HD_WIDTH, HD_HEIGHT = 1280, 576  # an untagged picture this wide, or higher than this, is BT.709, else BT.601

HDR_TRANSFERS = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
LINEAR = int(ColorTrc.LINEAR)
# libavutil's AVColorSpace -> what swscale is told; others are unknown to it.
MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,  # constant luminance, by the nearest that swscale knows
}
# Chromaticities of red, green, blue (x, y each); all have the white point D65 but DCI-P3, which is read as Display P3.
BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
WIDE_PRIMARIES = {
    int(ColorPrimaries.BT2020): ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    int(ColorPrimaries.SMPTE431): ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    int(ColorPrimaries.SMPTE432): ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65 = (0.3127, 0.3290)


def source_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix from the frame's YUV to RGB, as tagged, else by its size; None for a frame that is RGB."""
    if frame.format.is_rgb or frame.format.has_palette:
        return None
    unknown = Colorspace.ITU709 if frame.width >= HD_WIDTH or frame.height > HD_HEIGHT else Colorspace.ITU601
    return MATRICES.get(int(frame.colorspace), unknown)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether the frame's pixel format has transparency; a palette's entries may."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def flatten(rgba: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8 with straight alpha, composited on GROUND: [H, W, 3] uint8."""
    flat = np.empty((*rgba.shape[:2], 3), np.uint8)
    for row in range(0, len(rgba), 64):  # a few rows at a time: the picture may be large
        part = rgba[row : row + 64].astype(np.int32)
        alpha = part[..., 3:]
        flat[row : row + 64] = (part[..., :3] * alpha + GROUND * (255 - alpha) + 127) // 255
    return flat


def needs_conversion(frame: av.VideoFrame) -> bool:
    """Whether the frame's transfer or primaries are not those of SDR pictures."""
    transfer = int(frame.color_trc)
    return transfer in HDR_TRANSFERS or transfer == LINEAR or int(frame.color_primaries) in WIDE_PRIMARIES


def conversion_note(frame: av.VideoFrame) -> str:
    """One line that says that the film is HDR and was tone-mapped; "" if it is SDR."""
    name = HDR_TRANSFERS.get(int(frame.color_trc))
    return f"the film is HDR ({name}): tone-mapped to SDR" if name else ""


def to_sdr(rgb: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """[H, W, 3] uint16 RGB in the transfer and primaries of ``frame`` as [H, W, 3] uint8 SDR in those of BT.709.

    To linear light, to BT.709's primaries, highlights rolled off by BT.2390's curve (by the largest channel, so that
    hues stay), then BT.1886's gamma. Reference white (203 cd/m2) and what is brighter share the top of the range.
    """
    transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
    hdr = transfer in HDR_TRANSFERS
    if hdr and primaries not in WIDE_PRIMARIES and primaries != int(ColorPrimaries.BT709):
        primaries = int(ColorPrimaries.BT2020)
    nits = _linear_table(transfer)[rgb]
    if transfer == int(ColorTrc.ARIB_STD_B67):  # the display's part of HLG: a gamma of 1.2 on luminance, at 1000 nits
        luminance = nits @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        nits = nits * (DEFAULT_PEAK_NITS * np.maximum(luminance, 1e-6) ** 0.2)[..., None]
    if primaries in WIDE_PRIMARIES:
        nits = np.maximum(nits @ _to_bt709(primaries).T, 0)
    if hdr:
        largest = np.maximum(nits.max(axis=2), 1e-4)
        nits = nits * (_roll_off(largest, _peak_nits(frame)) / largest)[..., None]
    scaled = np.clip(nits / WHITE_NITS, 0, 1) ** np.float32(1 / SDR_GAMMA)
    return (scaled * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=4)
def _linear_table(transfer: int) -> np.ndarray:
    """[65536] float32: light of each 16-bit value, in nits; of HLG, of the scene, from 0 to 1."""
    signal = np.arange(65_536) / 65_535
    if transfer == int(ColorTrc.SMPTE2084):
        light = _pq_to_nits(signal)
    elif transfer == int(ColorTrc.ARIB_STD_B67):
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = WHITE_NITS * (signal if transfer == LINEAR else signal**SDR_GAMMA)
    return light.astype(np.float32)


def _pq_to_nits(signal: np.ndarray) -> np.ndarray:
    power = signal ** (32 / 2523)
    return 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610)


def _nits_to_pq(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10_000) ** (2610 / 16384)
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32)


def _roll_off(nits: np.ndarray, peak: float) -> np.ndarray:
    """BT.2390's curve: ``nits`` of up to ``peak`` into up to WHITE_NITS; what is dark stays as it is."""
    if peak <= WHITE_NITS:
        return nits
    top = float(_nits_to_pq(np.array(peak)))
    largest = float(_nits_to_pq(np.array(WHITE_NITS))) / top
    knee = 1.5 * largest - 0.5
    signal = np.minimum(_nits_to_pq(nits) / top, 1)
    t = np.maximum((signal - knee) / (1 - knee), 0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * largest
    return np.where(signal < knee, nits, _pq_to_nits(np.where(signal < knee, 0, spline) * top)).astype(np.float32)


def _peak_nits(frame: av.VideoFrame) -> float:
    """The brightest that the film gets, as it says: its content's, else its mastering display's, else 1000."""
    peak = 0.0
    light = side_data(frame, Type.CONTENT_LIGHT_LEVEL, 8)
    display = side_data(frame, Type.MASTERING_DISPLAY_METADATA, 88)
    if light is not None:
        peak = float(struct.unpack_from("=I", light)[0])
    if not peak and display is not None:
        numerator, denominator, _, known = struct.unpack_from("=iiii", display, 72)
        peak = numerator / denominator if known and denominator > 0 else 0.0
    return min(max(peak, WHITE_NITS), 10_000.0) if peak > 0 else DEFAULT_PEAK_NITS


@lru_cache(maxsize=4)
def _to_bt709(primaries: int) -> np.ndarray:
    """[3, 3] float32: linear RGB of ``primaries`` to linear RGB of BT.709."""
    return (np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(WIDE_PRIMARIES[primaries])).astype(np.float32)


def _to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> np.ndarray:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in chromaticities]).T
    white = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    return columns * np.linalg.solve(columns, white)
