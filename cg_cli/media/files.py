"""Files of a folder that are media, by their names; and names in another Unicode form."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# What FFmpeg demuxes. Not: stills (.jpg, .png, .webp, .avif), of which a folder of films may hold thousands; playlists
# (.m3u8, .mpd) and segments (.m4s), whose film is in other files; what usually is something else (.dat, .bin, .avs).
VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".flv", ".3gp", ".3g2",
    ".ogv", ".wmv", ".mxf", ".vob", ".f4v", ".divx", ".asf", ".nut",
    ".qt", ".mp4v", ".mk3d", ".mj2", ".ismv", ".insv", ".xvid", ".ogm", ".ogx", ".dvr-ms", ".wtv", ".rm", ".rmvb",
    ".mpe", ".mpv", ".m1v", ".m2v", ".mp2v", ".m2p", ".m2t", ".m4p", ".tod", ".vro", ".trp", ".tp", ".evo", ".pva",
    ".dv", ".dif", ".gxf", ".lxf", ".nsv", ".nuv", ".ty", ".dav", ".amv", ".swf", ".viv", ".kux", ".psp",
    ".gif", ".apng", ".mjpeg", ".mjpg", ".y4m", ".ivf", ".obu", ".av1", ".vc1", ".rcv", ".drc", ".dirac", ".cavs",
    ".avs2", ".avs3", ".h261", ".h263", ".h264", ".264", ".avc", ".h26l", ".h265", ".265", ".hevc", ".h266", ".266",
    ".vvc", ".evc", ".apv", ".dnxhd", ".imx", ".ipu", ".fli", ".flc", ".roq", ".bik", ".smk", ".thp", ".cdxl", ".xmv",
    ".usm", ".moflex", ".cine", ".mlv", ".ser",
)  # fmt: skip
AUDIO_SUFFIXES = (
    ".mp3", ".wav", ".flac", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aiff", ".aif", ".caf", ".amr", ".mka",
    ".mp2", ".mpa", ".m2a", ".m4b", ".m4r", ".weba", ".aifc", ".au", ".snd", ".w64", ".rf64", ".bwf", ".voc", ".awb",
    ".ac3", ".eac3", ".ec3", ".ac4", ".dts", ".dtshd", ".thd", ".mlp", ".adts", ".loas", ".latm", ".spx", ".gsm",
    ".ape", ".wv", ".tta", ".tak", ".mpc", ".shn", ".dsf", ".dff", ".ra", ".qcp", ".oma", ".aa3", ".3ga", ".lc3",
)  # fmt: skip


def walk(folder: Path, suffixes: tuple[str, ...], on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """The files below ``folder`` whose names end in one of ``suffixes`` (lower case); hidden ones (``._clip.mp4``) are
    left out, broken links are not.

    Links are followed, and each file and folder comes once: by its own path, if that is below ``folder``, else by the
    first link to it. In order of name; what only links lead to comes after the rest.

    Args:
        on_error: gets the error of a folder that cannot be listed, and may raise.
    """
    folders_done: set[str] = set()
    files_done: set[str] = set()
    roots = [folder]
    for root in roots:  # grows by the links that are met
        linked_files: list[tuple[str, Path]] = []
        start = os.path.realpath(root)
        for parent, folders, names in os.walk(root, onerror=on_error):
            below = os.path.relpath(parent, root)
            real = start if below == os.curdir else os.path.join(start, below)
            if real in folders_done:
                folders.clear()
                continue
            folders_done.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            roots += [Path(parent, name) for name in folders if os.path.islink(os.path.join(parent, name))]
            for name in sorted(names):
                path = Path(parent, name)
                if name.startswith(".") or path.suffix.lower() not in suffixes:
                    continue
                if path.is_symlink():
                    linked_files.append((os.path.realpath(path), path))
                elif os.path.join(real, name) not in files_done:
                    files_done.add(os.path.join(real, name))
                    yield path
        for target, path in linked_files:
            if target not in files_done:
                files_done.add(target)
                yield path


def each_once(paths: Iterable[str]) -> list[str]:
    """``paths`` without those that lead to a file of another one: a link gives way to the file itself."""
    chosen: dict[str, str] = {}
    for path in paths:
        target = os.path.realpath(path)
        if target not in chosen or (os.path.islink(chosen[target]) and not os.path.islink(path)):
            chosen.pop(target, None)
            chosen[target] = path
    return list(chosen.values())


def locate(path: str, listings: dict[str, dict[str, str]]) -> str:
    """``path``, or, where nothing has that name, the path that differs in its Unicode normal form alone: ``é`` may be
    one character (NFC) or two (NFD, as macOS writes names).

    Args:
        listings: names by folder that earlier calls have read.
    """
    if path.isascii() or os.path.lexists(path):
        return path
    parent, name = os.path.split(path.rstrip("/"))
    if not name:
        return path
    parent = locate(parent, listings)
    if parent not in listings:
        try:
            names = sorted(os.listdir(parent or os.curdir))
        except (OSError, ValueError):
            names = []
        listings[parent] = {unicodedata.normalize("NFC", entry): entry for entry in names if not entry.isascii()}
    located = os.path.join(parent, listings[parent].get(unicodedata.normalize("NFC", name), name))
    return located if os.path.lexists(located) else path
