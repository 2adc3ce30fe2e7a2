"""Matroska files one after the other in one file, shown to libav, which reads no further than the second, as one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

EBML, SEGMENT, CLUSTER, TRACKS, VOID = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B, 0xEC
TRACK_ENTRY, CODEC_FIELDS = 0xAE, (0xD7, 0x83, 0x86, 0x63A2)  # number, type, codec, its private data
VOID_HEAD = 9  # bytes: the id, and a size of 8 bytes
MAX_ELEMENTS = 1 << 20  # read before a file is taken as it is
MAX_TRACKS = 1 << 20  # bytes

Patch = tuple[int, bytes]  # offset, and what is to be read there


@dataclass(frozen=True)
class _Element:
    """An EBML element: its id, its offset, that of its content, and of its end (None: not stated)."""

    id: int
    offset: int
    content: int
    end: int | None


_latest: tuple[tuple[int, ...], list[Patch]] = (), []  # of the file read last, which is opened several times


def joining_patches(file: BinaryIO) -> list[Patch]:
    """What to read in place of the file's own bytes so that all Matroska files in it are one; [] if it is one file.

    The headers of the later files become Void elements, the first segment one of unknown size. A file with other
    tracks than the first ends the join. Moves the file position.
    """
    global _latest
    status = os.fstat(file.fileno())
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if _latest[0] != state:
        _latest = state, _find_patches(file, status.st_size)
    return _latest[1]


def _find_patches(file: BinaryIO, size: int) -> list[Patch]:
    patches: list[Patch] = []
    codecs: list[tuple] | None = None
    segments, header = 0, None  # header: offset of a later file's, until its first cluster
    for element in _walk(file, size):
        if element.id == EBML:
            header = element.offset
        elif element.id == SEGMENT:
            segments += 1
            if segments == 1:
                width = element.content - element.offset - 4
                patches.append((element.offset + 4, ((1 << 7 * width + 1) - 1).to_bytes(width, "big")))
        elif element.id == TRACKS:
            present = _codecs(file, element)
            if codecs is not None and present != codecs:
                break
            codecs = present
        elif element.id == CLUSTER and header is not None:
            length = element.offset - header
            if segments > 1 and length > VOID_HEAD:
                patches.append((header, bytes([VOID, 1]) + (length - VOID_HEAD).to_bytes(7, "big")))
            header = None
    return patches if len(patches) > 1 else []


def _walk(file: BinaryIO, size: int) -> Iterator[_Element]:
    """The EBML headers, segments and their children, in order; of a cluster without a size, its children too."""
    position = 0
    for number in range(MAX_ELEMENTS):
        element = _element(file, position)
        if element is None or (number == 0 and element.id != EBML):
            return
        yield element
        if element.id == SEGMENT:
            # One whole file, as nearly all are, is not looked at any further.
            if number == 1 and element.end is not None and not _is_header(file, element.end, size):
                return
            position = element.content
        elif element.end is not None:
            position = element.end
        elif element.id == CLUSTER:
            position = element.content
        else:
            return


def _is_header(file: BinaryIO, position: int, size: int) -> bool:
    element = _element(file, position) if position < size else None
    return element is not None and element.id == EBML


def _element(file: BinaryIO, position: int) -> _Element | None:
    """The element at ``position``; None at the end or where there is none."""
    file.seek(position)
    head = file.read(12)
    if not head or not head[0]:
        return None
    id_size = 9 - head[0].bit_length()
    if id_size > 4 or len(head) <= id_size or not head[id_size]:
        return None
    width = 9 - head[id_size].bit_length()
    if len(head) < id_size + width:
        return None
    bits = (1 << 7 * width) - 1
    length = int.from_bytes(head[id_size : id_size + width], "big") & bits
    content = position + id_size + width
    identity = int.from_bytes(head[:id_size], "big")
    return _Element(identity, position, content, None if length == bits else content + length)


def _codecs(file: BinaryIO, tracks: _Element) -> list[tuple]:
    """(field, bytes) of every track that decide how it is decoded."""
    fields: list[tuple] = []
    if tracks.end is None or tracks.end - tracks.content > MAX_TRACKS:
        return fields
    position = tracks.content
    while position < tracks.end and (element := _element(file, position)) and element.end is not None:
        if element.id in CODEC_FIELDS:
            file.seek(element.content)
            fields.append((element.id, file.read(min(element.end, tracks.end) - element.content)))
        position = element.content if element.id == TRACK_ENTRY else element.end
    return fields
