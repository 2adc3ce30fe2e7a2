"""The sample clips that come with the package: pictures and sounds that the nano model knows."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from cg_cli.errors import UsageError
from cg_cli.util.bundled import bundled_folder

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / "sample_files", PACKAGE.parent / "samples")  # in an installed wheel, in a source tree
LABELLED = "labelled.jsonl"


@dataclass(frozen=True)
class Sample:
    """A clip, and questions that nano answers right."""

    path: Path
    questions: tuple[str, ...]


def samples() -> list[Sample]:
    """All of them, by name. UsageError if the installation lost them."""
    folder = bundled_folder(FOLDERS, "samples")
    asked: dict[str, list[str]] = {}
    for line in (folder / LABELLED).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked.setdefault(row["video"], []).append(row["question"])
    return [Sample(folder / name, tuple(asked[name])) for name in sorted(asked)]


def copy_to(folder: Path) -> list[Path]:
    """Copies the clips and ``labelled.jsonl`` into ``folder``, which is made if it is missing. Returns the copies.

    UsageError where a file is in the way, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copies = []
        for source in (*(sample.path for sample in samples()), bundled_folder(FOLDERS, "samples") / LABELLED):
            target = folder / source.name
            if target.exists() and target.read_bytes() != source.read_bytes():
                raise UsageError(f"{target} exists, and is no sample: name another folder")
            if not target.exists():
                shutil.copyfile(source, target)
            copies.append(target)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return copies
