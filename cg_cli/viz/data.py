"""What was kept as data: ``.npz`` for numpy, ``.json`` for anything else; the arrays of ``engine.kept.TokenTable``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cg_cli.engine.kept import save_json, save_npz
from cg_cli.errors import CgError
from cg_cli.viz.scene import Scene

SCHEMA = "cg.kept/1"


def is_ours(path: Path) -> bool:
    """Whether an existing file is one that ``write`` made. OSError or ValueError where it cannot be read."""
    if path.suffix.lower() == ".json":
        with path.open("rb") as file:
            return file.read(200).startswith(f'{{"about": {{"schema": "{SCHEMA}"'.encode())
    with np.load(path, allow_pickle=False) as file:
        return "about" in file and json.loads(str(file["about"])).get("schema") == SCHEMA


def write(path: Path, scene: Scene) -> None:
    """Write the first result of ``scene``. CgError if that cannot be done."""
    result = scene.results[0]
    assert result.tables is not None
    kept, dropped = result.tables
    about = {
        "schema": SCHEMA,
        "video": scene.video,
        "content": scene.identity,
        "pruner": result.pruner,
        "keep": result.keep,
        "keys": [record.key for record in result.records],
    }
    save = save_npz if path.suffix.lower() == ".npz" else save_json
    try:
        save(path, kept, dropped, about)
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror or error}") from error
