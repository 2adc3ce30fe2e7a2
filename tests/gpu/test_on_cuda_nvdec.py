"""NVDEC gives the frames of the CPU's decoder, bit for bit; what it would not is decoded on the CPU, with a warning."""

from __future__ import annotations

import numpy as np
import pytest
from av.video.reformatter import ColorRange
from helpers.media_files import film, steady

from cg_cli.media import DecodeOptions, DecodeWorker
from cg_cli.media.clip import CPU, NVDEC, ON_THE_CPU

SIZE = (322, 188)  # no multiple of a macroblock
TIMES = steady(2)
X265 = dict(codec="libx265", preset="superfast")
X265_LOG = "log-level=none:pools=1:frame-threads=1"
FILMS = {
    "h264": dict(bf="3"),
    "h264, full range": dict(pix_fmt="yuvj420p", color_range=ColorRange.JPEG),
    "h264, interlaced": {"x264-params": "interlaced=1:tff=1"},
    "h264, many keyframes": dict(gop=5),
    "h264, open GOPs": {"x264-params": "open-gop=1:bframes=3", "gop": 8},
    "h264, turned": dict(rotation=90),
    "hevc": {**X265, "x265-params": X265_LOG},
    "hevc, 10 bit": {**X265, "x265-params": X265_LOG, "pix_fmt": "yuv420p10le"},
    "vp9": dict(codec="libvpx-vp9", deadline="realtime"),
    "vp8": dict(codec="libvpx", deadline="realtime"),
}
FOR_THE_CPU = {
    "mpeg2": dict(codec="mpeg2video", fine=False),
    "h264, 4:4:4": dict(pix_fmt="yuv444p"),
    "hevc, 4:2:2": {**X265, "x265-params": X265_LOG, "pix_fmt": "yuv422p"},
    "av1": dict(codec="libsvtav1", preset="10"),
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def worker(request, monkeypatch):
    """A decode worker, and whether it has a GPU."""
    if request.param == "cpu":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with DecodeWorker() as started:
        yield started, request.param == "cuda"


def both(worker, path, **options):
    """The clip of the CPU, that of NVDEC, and the warnings of a decoding on the CPU."""
    one, other = (worker.decode(path, DecodeOptions(decoder=decoder, **options)) for decoder in (CPU, NVDEC))
    assert np.array_equal(one.frame_times, other.frame_times) and one.complete == other.complete
    assert one.frames.shape == other.frames.shape
    difference = np.abs(one.frames.astype(int) - other.frames)
    assert not difference.any(), f"{(difference > 0).mean():.2%} of the samples differ, by {difference.max()} at most"
    return one, other, [line for line in other.warnings if line.startswith(ON_THE_CPU)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILMS)
def test_nvdec_gives_the_frames_of_the_cpu(worker, tmp_path, name):
    started, gpu = worker
    if not gpu and name != "h264":
        pytest.skip("without a card all are the CPU's: tests/media/test_hardware.py")
    path = film(tmp_path / f"film.{'webm' if 'vp' in name else 'mp4'}", size=SIZE, times=TIMES, **FILMS[name])
    for options in dict(fps=25), dict(max_frames=4):
        _, _, told = both(started, path, **options)
        assert len(told) == (not gpu), told


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_THE_CPU)
def test_what_nvdec_would_not_give_exactly_is_decoded_on_the_cpu(worker, tmp_path, name):
    if not worker[1] and name != "mpeg2":
        pytest.skip("without a card all are the CPU's: tests/media/test_hardware.py")
    path = film(tmp_path / f"film.{'mpg' if name == 'mpeg2' else 'mp4'}", size=SIZE, times=TIMES, **FOR_THE_CPU[name])
    _, _, told = both(worker[0], path)
    assert len(told) == 1


@pytest.mark.slow
def test_a_damaged_film_is_told_of_as_by_the_cpu(worker, tmp_path):
    path = film(tmp_path / "film.ts", size=SIZE, times=TIMES)
    path.write_bytes(path.read_bytes()[:-20_001])
    one, other, told = both(worker[0], path)
    assert not one.complete and [line for line in other.warnings if line not in told] == list(one.warnings)
    assert len(told) == 1


@pytest.mark.slow
def test_what_a_card_cannot_decode_is_decoded_on_the_cpu(worker, tmp_path):
    """Too small for NVDEC's HEVC, and 10 bits of H.264, which only the newest cards take."""
    started, gpu = worker
    for name, settings in {
        "small.mp4": {**X265, "x265-params": X265_LOG, "size": (96, 64)},
        "deep.mp4": {"pix_fmt": "yuv420p10le", "size": SIZE},
    }.items():
        _, _, told = both(started, film(tmp_path / name, times=TIMES, **settings))
        assert len(told) <= 1 and (gpu or told)
