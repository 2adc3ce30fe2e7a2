"""Whether a file was truncated, from its container's structure: a demuxer takes a missing tail for the end."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

TS_PACKET = 188  # bytes
TS_SAMPLE = 2000  # packets looked at
OGG_TAIL = 1 << 17  # bytes; two pages of the largest size
OGG_LAST_PAGE = 4  # bit of an Ogg page's header type
SIZE_UNKNOWN = (0, 0xFFFFFFFF)  # a RIFF written to a pipe
TOP_BOXES = set(b"ftyp styp moov moof mdat mfra sidx free skip wide uuid udta meta emsg prft pdin".split())
MP3_TOLERANCE = 16  # an MP3 may be so much longer, as a share of its size, than its first frame says
MP3_FIRST_FRAME = 512  # bytes, enough for the header frame of a VBR or LAME file
# How a file of a format begins whose demuxer stops, or loses its way, where another one follows.
SIGNATURES = {
    "flv": b"FLV\x01",
    "wav": b"RIFF",
    "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
}
DECLARING = {"mov", "matroska", "flac", "avi", "wav", "asf", "flv"}  # formats whose header states a length


def is_truncated(file: BinaryIO, format_name: str) -> bool:
    """Whether the structure of an open file of libavformat format ``format_name`` promises bytes beyond its end.

    Knows MP4, Matroska, RIFF (WAV, AVI), MPEG-TS and Ogg; False for others. Moves the file position.
    """
    size = os.fstat(file.fileno()).st_size
    checks = {
        "mov": _mp4_truncated,
        "matroska": _matroska_truncated,
        "wav": _riff_truncated,
        "avi": _riff_truncated,
        "mpegts": _ts_truncated,
        "ogg": _ogg_truncated,
    }
    check = checks.get(format_name.split(",")[0])
    return check is not None and check(file, size)


def is_scrambled(file: BinaryIO, format_name: str) -> bool:
    """Whether most of the packets at the start of a transport stream are marked as scrambled. Moves the position."""
    if format_name != "mpegts":
        return False
    head = _read(file, 0, TS_SAMPLE * TS_PACKET)
    flags = [head[start + 3] for start in range(0, len(head) - TS_PACKET + 1, TS_PACKET) if head[start] == ord("G")]
    return sum(flag >> 6 > 1 for flag in flags) > len(flags) / 2


def declares_length(file: BinaryIO, format_name: str) -> bool:
    """Whether the length that libavformat reports was written into the file, not guessed from a bit rate."""
    name = format_name.split(",")[0]
    if name != "mp3":
        return name in DECLARING
    start = 0
    head = _read(file, 0, 10)
    if head.startswith(b"ID3") and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0)))
    first = _read(file, start, MP3_FIRST_FRAME)
    tag = max(first.find(b"Xing"), first.find(b"Info"))
    if tag < 0:
        return False
    flags, *fields = struct.unpack(">III", first[tag + 4 : tag + 16].ljust(12, b"\0"))
    stated = fields[flags & 1] if flags & 2 else None  # bytes; the number of frames comes before, if it is there
    size = os.fstat(file.fileno()).st_size - start
    # Where another file follows, libavformat takes a guess.
    return stated is None or stated > size - size / MP3_TOLERANCE


def appended_at(file: BinaryIO, format_name: str, read_to: int) -> int | None:
    """Where another file follows that the demuxer does not read, in bytes; None if none does. Moves the file position.

    Args:
        read_to: where the last packet ended that the demuxer returned.
    """
    name = format_name.split(",")[0]
    if name == "mov":
        return _second_movie(file)
    signature = SIGNATURES.get(name)
    size = os.fstat(file.fileno()).st_size
    if signature is None or not 0 < read_to < size:
        return None
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = data.find(signature, read_to)
    return found if found >= 0 else None


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The top boxes of an MP4 file: name, position, and length as stated in bytes, until one whose length says nothing
    about where the next one begins."""
    size = os.fstat(file.fileno()).st_size
    position = 0
    while position < size:
        head = _read(file, position, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        yield head[4:8], position, length
        if length < 8:  # 0: reaches to the end, whatever that is
            return
        position += length


def whole_boxes_size(file: BinaryIO) -> int | None:
    """Bytes of the complete boxes of a truncated MP4 file; None if it is not truncated. Moves the file position."""
    size = os.fstat(file.fileno()).st_size
    for name, position, length in _boxes(file):
        if name not in TOP_BOXES or length < 8:  # some other program's trailer, or padding
            return None
        if position + length > size:
            return position
    return None


def _second_movie(file: BinaryIO) -> int | None:
    """Where another file begins in an MP4, behind its movie; None if there is none."""
    movies = 0
    for name, position, _ in _boxes(file):
        if name == b"ftyp" and movies:
            return position
        movies += name == b"moov"
    return None


def _mp4_truncated(file: BinaryIO, size: int) -> bool:
    return whole_boxes_size(file) is not None


def _matroska_truncated(file: BinaryIO, size: int) -> bool:
    position = 0
    for _ in range(2):  # the EBML header, then the segment
        head = _read(file, position, 16)
        if len(head) < 5 or not head[0]:
            return True
        id_size = 9 - head[0].bit_length()
        if id_size > 4 or not head[id_size]:
            return False
        size_size = 9 - head[id_size].bit_length()
        field = head[id_size : id_size + size_size]
        bits = (1 << 7 * size_size) - 1
        length = int.from_bytes(field, "big") & bits
        if length == bits:  # a live recording states no size
            return False
        position += id_size + size_size + length
    return position > size


def _riff_truncated(file: BinaryIO, size: int) -> bool:
    head = _read(file, 0, 8)
    if len(head) < 8 or not head.startswith(b"RIFF"):
        return False
    (length,) = struct.unpack("<I", head[4:])
    return length not in SIZE_UNKNOWN and length + 8 > size


def _ts_truncated(file: BinaryIO, size: int) -> bool:
    head = _read(file, 0, TS_PACKET + 1)
    plain = len(head) > TS_PACKET and head[0] == head[TS_PACKET] == ord("G")
    return plain and size % TS_PACKET != 0


def _ogg_truncated(file: BinaryIO, size: int) -> bool:
    tail = _read(file, max(0, size - OGG_TAIL), OGG_TAIL)
    page = tail.rfind(b"OggS")
    return page >= 0 and not (page + 5 < len(tail) and tail[page + 5] & OGG_LAST_PAGE)
