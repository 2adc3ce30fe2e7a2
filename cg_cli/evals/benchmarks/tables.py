"""Reads annotation files: JSON as it is, everything else as a list of rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.util.text import one_line

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


def read(file: Path) -> Any:
    """The contents of a .json, .jsonl, .csv, .tsv or .parquet file. UsageError if it cannot be read."""
    try:
        if file.suffix == ".parquet":
            return _parquet(file)
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        if file.suffix in (".csv", ".tsv"):
            return list(
                csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if file.suffix == ".tsv" else ",")
            )
        return json.loads(text)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read: {one_line(error)}") from error


def _parquet(file: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError(
            f"{file}: parquet needs pyarrow: pip install 'cg-cli[parquet]', or give the file as .json or .jsonl"
        ) from None
    return parquet.read_table(file).to_pylist()
