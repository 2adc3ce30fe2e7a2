"""``OUT.run.json``: with what the records of an archive were made, run by run. The status of a run that was killed
stays "running"."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_cli.batch.check import Agreement
from cg_cli.errors import CgError
from cg_cli.evals import matching
from cg_cli.evals.scores import Score
from cg_cli.util.atomic import write_atomic
from cg_cli.util.bounded import read_json
from cg_cli.util.outputs import check_output
from cg_cli.util.text import utc_now

if TYPE_CHECKING:
    from cg_cli.batch.run import Plan, Totals

SCHEMA = "cg.run/1"
SUFFIX = ".run.json"
HISTORY_BYTES = 256 << 20  # of all runs of an archive


def sidecar_path(plan: Plan) -> Path:
    """Where the sidecar of a run is."""
    out = Path(plan.file)
    return out.with_name((out.stem if out.suffix == ".jsonl" else out.name) + SUFFIX)


def check_sidecar(plan: Plan) -> None:
    """UsageError, before anything slow begins, where the sidecar would be written over somebody else's file."""
    videos = (item.video for item in plan.collected.items)
    check_output("-o", sidecar_path(plan), inputs=[*plan.inputs, *videos], is_ours=_is_ours)


def _is_ours(path: Path) -> bool:
    data = read_json(path, HISTORY_BYTES)
    return isinstance(data, dict) and data.get("schema") == SCHEMA


class Sidecar:
    """The file of one archive: the run that goes on at its top level, those before it, oldest first, in
    ``earlier_runs``."""

    def __init__(self, plan: Plan, facts: Mapping[str, Any], inputs: Mapping[str, Any]):
        self._file = sidecar_path(plan)
        self._run: dict[str, Any] = {
            "schema": SCHEMA,
            "command": list(plan.command),
            "out": plan.file,
            "shard": f"{plan.shard.index}/{plan.shard.count}" if plan.shard else None,
            "started": utc_now(),
            "ended": None,
            "status": "running",
            "settings": asdict(plan.settings),
            **facts,
            "inputs": dict(inputs),
            "earlier_runs": [] if plan.overwrite else self._earlier(),
        }
        self._save()

    def finish(self, status: str, totals: Totals, scores: Sequence[Score], check: Agreement | None) -> None:
        """Write how the run ended."""
        scores_data = [asdict(score) for score in scores]
        self._run |= {"status": status, "ended": utc_now(), "totals": asdict(totals)}
        self._run |= {"matching": matching.VERSION, "scores": scores_data}
        if check:
            self._run["check"] = {**asdict(check), "contradicts": check.contradicts}
        self._save()

    def _earlier(self) -> list[Any]:
        """The runs that the file knows; none if it cannot be read."""
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            last = read_json(self._file, HISTORY_BYTES)
            return [*last.pop("earlier_runs", []), last]
        return []

    def _save(self) -> None:
        earlier = self._run.pop("earlier_runs")
        self._run["earlier_runs"] = earlier  # last in the file, where it does not hide the run itself
        try:
            write_atomic(self._file, json.dumps(self._run, indent=1) + "\n")
        except OSError as error:
            raise CgError(f"cannot write {self._file}: {error.strerror}") from error
