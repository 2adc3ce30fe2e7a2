"""Opening an untrusted local file: no protocol, no playlist, no device, and one clear line when it is not media.

Runs in the worker process only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av
from av.codec.hwaccel import HWAccel

from cg_cli.errors import ItemError
from cg_cli.media.integrity import whole_boxes_size
from cg_cli.media.matroska import Patch, joining_patches
from cg_cli.media.opening import media_error, open_file

# Self-contained formats. Whatever can name other files or hosts (hls, concat, dash, sdp, image2, imf) or takes any
# text for video (tty) stays out.
FORMATS = [
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf",
    "rm", "mxf", "gxf", "dv", "nut", "nsv", "wtv", "ivf", "swf", "roq", "bink", "smk", "h261", "h263", "h264", "hevc",
    "vvc", "av1", "obu", "m4v", "vc1", "cavsvideo", "dirac", "yuv4mpegpipe", "mjpeg", "gif", "apng", "webp",
    "png_pipe", "jpeg_pipe", "bmp_pipe", "webp_pipe", "tiff_pipe", "gif_pipe", "ppm_pipe", "pgm_pipe", "pbm_pipe",
    "pam_pipe", "qoi_pipe", "j2k_pipe", "jpegxl_pipe", "jpegxl_anim", "psd_pipe", "dpx_pipe", "exr_pipe", "sgi_pipe",
    "sunrast_pipe", "pcx_pipe", "dds_pipe", "ico", "wav", "w64", "aiff", "au", "caf", "mp3", "aac", "loas", "latm",
    "ac3", "ac4", "eac3", "dts", "dtshd", "truehd", "mlp", "flac", "ogg", "ape", "wv", "tta", "tak", "mpc", "mpc8",
    "amr", "amrnb", "amrwb", "voc", "sox", "qcp", "gsm", "adx", "dsf", "oma", "iff",
]  # fmt: skip
NO_PROTOCOL = "none"  # names no protocol, so libav itself can open nothing
READ_BLOCK = 1 << 18  # bytes; PyAV's 32 KiB costs a Python call each
EBML_MARK = b"\x1aE\xdf\xa3"  # begins a Matroska file
CLUSTER_MARK = b"\x1fC\xb6u"  # begins a cluster of one, as in a segment of a stream
SEGMENT_BOXES = (b"styp", b"sidx", b"moof", b"emsg", b"prft")  # begin a segment of an mp4
SIGNATURES = ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (0, b"RIFF"), (0, b"OggS"), (0, b"fLaC"))


class _NamedFile:
    """The first ``size`` bytes of an open file (None: all), under a name of our choice, as PyAV reads files.

    ``patches`` are read in place of what is there.
    """

    def __init__(self, file: BinaryIO, name: str, size: int | None = None, patches: Sequence[Patch] = ()):
        self.name, self.tell = name, file.tell
        self._file, self._size, self._patches = file, size, patches

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes."""
        if self._size is not None:
            count = max(0, min(count, self._size - self._file.tell()))
        start = self._file.tell() if self._patches else 0
        data = self._file.read(count)
        for offset, patch in self._patches:
            begin, end = max(offset, start), min(offset + len(patch), start + len(data))
            if begin < end:
                data = data[: begin - start] + patch[begin - offset : end - offset] + data[end - start :]
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, as ``io.IOBase.seek``."""
        if whence == os.SEEK_END and self._size is not None:
            return self._file.seek(self._size + offset)
        return self._file.seek(offset, whence)


@contextmanager
def open_media(
    path: str, display_path: str, accelerator: HWAccel | None = None
) -> Iterator[av.container.InputContainer]:
    """A fresh container over a local file, closed on leaving; with an ``accelerator``, its decoders use that.

    Raises:
        ItemError: as ``open_file``; kind not_media where libav knows no such format, unreadable where the file is a
            known format whose beginning is broken (an mp4 without its index).
    """
    with open_file(path, display_path) as file:
        head = file.read(16)
        if head.startswith(CLUSTER_MARK):
            raise _open_error(display_path, head, ValueError())
        # libav guesses a raw stream's format from the suffix; it must not see the rest of the name.
        name = "input" + (Path(path).suffix if Path(path).suffix[1:].isalnum() else "")
        try:
            patches = joining_patches(file) if head.startswith(EBML_MARK) else []
            container = _open(_NamedFile(file, name, patches=patches), accelerator)
        except MemoryError:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            # libav rejects a fragmented mp4 that ends in a fragment's index, but reads it without that fragment.
            usable = whole_boxes_size(file) if head[4:8] == b"ftyp" else None
            if usable is None:
                raise _open_error(display_path, head, error) from None
            try:
                container = _open(_NamedFile(file, name, usable), accelerator)
            except (av.FFmpegError, OSError, ValueError):
                raise _open_error(display_path, head, error) from None
        with container:
            yield container


def _open(file: _NamedFile, accelerator: HWAccel | None) -> av.container.InputContainer:
    file.seek(0)
    options = {"protocol_whitelist": NO_PROTOCOL, "format_whitelist": ",".join(FORMATS)}
    return av.open(
        file,
        "r",
        container_options=options,
        metadata_errors="ignore",
        buffer_size=READ_BLOCK,
        hwaccel=accelerator,
    )


def _open_error(display_path: str, head: bytes, error: Exception) -> ItemError:
    if head[4:8] in SEGMENT_BOXES or head.startswith(CLUSTER_MARK):
        return media_error(
            "unreadable",
            display_path,
            "is a segment of a stream (DASH or HLS) without its beginning: join them (`cat init.mp4 segment*.m4s`)",
        )
    if head[4:8] in (b"ftyp", b"mdat"):
        return media_error(
            "unreadable",
            display_path,
            "has no readable index (moov): it was cut off or is damaged, so copy or record it again",
        )
    if head.startswith(EBML_MARK):
        return media_error(
            "unreadable",
            display_path,
            "is damaged at its beginning, or is only the beginning of a stream: copy or download it again",
        )
    if any(head[offset:].startswith(mark) for offset, mark in SIGNATURES):
        return media_error("unreadable", display_path, "is damaged at its beginning: copy or download it again")
    if isinstance(error, av.error.ArgumentError):
        return media_error(
            "not_media", display_path, "is not self-contained audio or video (a playlist, text or unsupported format)"
        )
    return media_error(
        "not_media", display_path, "is not audio or video that can be read: check the file, or convert it to mp4"
    )
