"""Whether an archive settles all that is asked, told without loading a model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cg_cli.batch import history
from cg_cli.engine.inputs import AnswerInputs, video_content
from cg_cli.settings.table import Settings

if TYPE_CHECKING:
    from cg_cli.batch.run import Plan


def inputs_if_settled(plan: Plan, past: history.History) -> AnswerInputs | None:
    """What answers depend on, if each question has a settled record; None if one may be left for a model."""
    if past.settled < sum(len(item.questions) for item in plan.items):
        return None
    inputs = _expected_inputs(plan.settings)
    if inputs is None:
        return None
    past = history.read(Path(plan.file), {item.video for item in plan.collected.items}, plan.retry)
    for item in plan.items:
        keys = inputs.keys(video_content(item.video), [question.text for question in item.questions])
        if None in past.claims(item, keys):
            return None
    return inputs


def _expected_inputs(settings: Settings) -> AnswerInputs | None:
    """What a model's config says, read in a process of its own: the one that writes imports no torch. None where that
    fails, as loading the model then will with a reason."""
    command = [sys.executable, "-P", "-m", "cg_cli.batch.settled"]
    done = subprocess.run(command, input=json.dumps(asdict(settings)), capture_output=True, text=True)
    return AnswerInputs(**json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else None


def _main() -> None:
    from cg_cli.engine.setup import expect

    print(json.dumps(asdict(expect(Settings(**json.load(sys.stdin))).inputs)))


if __name__ == "__main__":
    _main()
