"""Opening an untrusted local file: no protocol, no playlist, no device, and one clear line when it is not media.

Runs in the worker process only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av

from cg_cli.errors import ItemError
from cg_cli.media.integrity import whole_boxes

# Self-contained formats. Whatever can name other files or hosts (hls, concat, dash, sdp, image2, imf) or takes any
# text for a film (tty) stays out.
FORMATS = [
    "mov",
    "mp4",
    "m4a",
    "3gp",
    "3g2",
    "mj2",
    "matroska",
    "webm",
    "avi",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "flv",
    "asf",
    "rm",
    "mxf",
    "gxf",
    "dv",
    "nut",
    "nsv",
    "wtv",
    "ivf",
    "swf",
    "roq",
    "bink",
    "smk",
    "h261",
    "h263",
    "h264",
    "hevc",
    "vvc",
    "av1",
    "obu",
    "m4v",
    "vc1",
    "cavsvideo",
    "dirac",
    "yuv4mpegpipe",
    "mjpeg",
    "gif",
    "apng",
    "webp",
    "png_pipe",
    "jpeg_pipe",
    "bmp_pipe",
    "webp_pipe",
    "tiff_pipe",
    "gif_pipe",
    "ppm_pipe",
    "pgm_pipe",
    "pbm_pipe",
    "pam_pipe",
    "qoi_pipe",
    "j2k_pipe",
    "jpegxl_pipe",
    "jpegxl_anim",
    "psd_pipe",
    "dpx_pipe",
    "exr_pipe",
    "sgi_pipe",
    "sunrast_pipe",
    "pcx_pipe",
    "dds_pipe",
    "ico",
    "wav",
    "w64",
    "aiff",
    "au",
    "caf",
    "mp3",
    "aac",
    "loas",
    "latm",
    "ac3",
    "ac4",
    "eac3",
    "dts",
    "dtshd",
    "truehd",
    "mlp",
    "flac",
    "ogg",
    "ape",
    "wv",
    "tta",
    "tak",
    "mpc",
    "mpc8",
    "amr",
    "amrnb",
    "amrwb",
    "voc",
    "sox",
    "qcp",
    "gsm",
    "adx",
    "dsf",
    "oma",
    "iff",
]
NO_PROTOCOL = "none"  # names no protocol, so libav itself can open nothing
READ_BLOCK = 1 << 18  # bytes; PyAV's 32 KiB costs a Python call each
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")
SIGNATURES = ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (0, b"\x1aE\xdf\xa3"), (0, b"RIFF"), (0, b"OggS"), (0, b"fLaC"))


def quote(path: str) -> str:
    """A file name for a one-line message: quoted, with control characters escaped."""
    return repr(path)


def fault(kind: str, path: str, text: str) -> ItemError:
    """The media error about ``path`` as given by the user."""
    return ItemError("media", f"{quote(path)} {text}", kind)


def open_file(path: str, shown: str) -> BinaryIO:
    """Opens a regular file for reading, unbuffered; ``shown`` is its name in messages.

    Raises:
        ItemError: kind not_found, is_directory, not_a_file, empty or unreadable.
    """
    try:
        if not shown:
            raise FileNotFoundError
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise fault("is_directory", shown, "is a directory: name a file in it, or give the directory to `cg batch`")
        if not stat.S_ISREG(status.st_mode):
            raise fault("not_a_file", shown, "is a pipe, socket or device: copy it to a regular file first")
        # Not blocking: the file may have become a pipe since.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        remedy = ": only local files are read, so download it first" if URL.match(shown) else ": check the name"
        raise fault("not_found", shown, f"does not exist{remedy}") from None
    except OSError as error:
        raise fault("unreadable", shown, f"cannot be opened: {error.strerror}") from None
    file = open(handle, "rb", buffering=0)
    if not os.fstat(handle).st_size:
        file.close()
        raise fault("empty", shown, "is empty (0 bytes): copy or download it again")
    return file


@contextmanager
def open_media(path: str, shown: str) -> Iterator[av.container.InputContainer]:
    """A fresh container over a local file, closed on leaving.

    Raises:
        ItemError: as ``open_file``; kind not_media where libav knows no such format, unreadable where the file is a
            known format whose beginning is broken (an mp4 without its index).
    """
    with open_file(path, shown) as file:
        head = file.read(16)
        # libav guesses a raw stream's format from the suffix; it must not see the rest of the name.
        file.name = "input" + (Path(path).suffix if Path(path).suffix[1:].isalnum() else "")
        try:
            container = _open(file)
        except MemoryError:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            # libav rejects a fragmented mp4 that ends in a fragment's index, but reads it without that fragment.
            usable = whole_boxes(file) if head[4:8] == b"ftyp" else None
            if usable is None:
                raise _open_fault(shown, head, error) from None
            file = _Beginning(file, usable)
            try:
                container = _open(file)
            except (av.FFmpegError, OSError, ValueError):
                raise _open_fault(shown, head, error) from None
        with container:
            yield container


def _open(file: BinaryIO) -> av.container.InputContainer:
    file.seek(0)
    rules = {"protocol_whitelist": NO_PROTOCOL, "format_whitelist": ",".join(FORMATS)}
    return av.open(file, "r", container_options=rules, metadata_errors="ignore", buffer_size=READ_BLOCK)


class _Beginning:
    """The first ``size`` bytes of a file, as a file for PyAV."""

    def __init__(self, file: BinaryIO, size: int):
        self.name, self.tell = file.name, file.tell
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._file.seek(self._size + offset)
        return self._file.seek(offset, whence)


def _open_fault(shown: str, head: bytes, error: Exception) -> ItemError:
    if head[4:8] in (b"ftyp", b"mdat"):
        return fault(
            "unreadable",
            shown,
            "has no readable index (moov): it was cut off or is damaged, so copy or record it again",
        )
    if any(head[offset:].startswith(mark) for offset, mark in SIGNATURES):
        return fault("unreadable", shown, "is damaged at its beginning: copy or download it again")
    if isinstance(error, av.error.ArgumentError):
        return fault(
            "not_media", shown, "is not self-contained audio or video (a playlist, text or unsupported format)"
        )
    return fault("not_media", shown, "is not audio or video that can be read: check the file, or convert it to mp4")
