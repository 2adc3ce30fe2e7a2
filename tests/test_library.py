"""The library as a notebook meets it: objects in, records out, nothing on the terminal, nothing left changed."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SAMPLES

import cg_cli as cg
from cg_cli import records
from cg_cli.engine.kept import TokenTable

pytestmark = pytest.mark.slow

FIVE_LINES = """
import cg_cli as cg
model = cg.load("nano")                                  # device=, dtype=, quantize=, offline=
clip = model.read("samples/drum.mp4", fps=2)
context = model.prefill(clip, pruner=cg.ContextGuard(), keep=0.45)
print([context.ask(question).answer for question in ("What is happening?", "What do you hear?")])
"""


@pytest.fixture(scope="module")
def model() -> cg.Model:
    return cg.load("nano", offline=True)


@pytest.fixture(scope="module")
def clip(model) -> cg.Clip:
    return model.read(SAMPLES / "drum.mp4", fps=2)


@pytest.fixture(scope="module")
def context(model, clip) -> cg.Context:
    return model.prefill(clip, pruner=cg.ContextGuard(), keep=0.45)


def test_the_five_lines_run_as_they_stand_twice_and_print_nothing_else():
    code = FIVE_LINES + FIVE_LINES
    done = subprocess.run([sys.executable, "-c", code], cwd=SAMPLES.parent, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['A white drum beats.', 'drum']\n" * 2


def test_nothing_is_read_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "cg.yaml").write_text("model: nowhere/at-all\nkeep: 0.1\nfps: 9\n")
    monkeypatch.chdir(tmp_path)
    model = cg.load("nano", offline=True)
    context = model.prefill(model.read(SAMPLES / "drum.mp4"), pruner=cg.ContextGuard(), keep=0.45)
    record = context.ask("What is happening?")
    assert record.media.fps == pytest.approx(2, abs=0.1) and record.pruner.keep == 0.45


def test_no_global_state_is_changed(clip, tmp_path):
    from transformers.utils import logging as transformers_logging

    def state():
        return {
            "verbosity": transformers_logging.get_verbosity(),
            "progress": transformers_logging.is_progress_bar_enabled(),
            "threads": torch.get_num_threads(),
            "grad": torch.is_grad_enabled(),
            "seed": torch.random.get_rng_state().tolist(),
            "numpy": np.random.get_state()[1].tolist(),
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "handlers": list(logging.getLogger("cg_cli").handlers),
            "root": (list(logging.getLogger().handlers), logging.getLogger().level),
        }

    before = state()
    model = cg.load("nano", offline=True)
    model.prefill(clip, pruner=cg.Random(seed=3), keep=0.5).ask("What is happening?", temperature=1.0, seed=4)
    assert state() == before


def test_the_record_is_that_of_the_command_line(model, context, capsys):
    from cg_cli.main import main

    clip = str(SAMPLES / "drum.mp4")
    with pytest.raises(SystemExit):
        main(["ask", clip, "What is happening?", "--model", "nano", "--offline", "--json", "-q"])
    printed = records.from_line(capsys.readouterr().out)
    record = model.prefill(model.read(clip), pruner=cg.ContextGuard(), keep=0.45).ask("What is happening?")
    assert isinstance(record, cg.Answer)
    for name in ("key", "answer", "tokens", "flops", "sampling", "rules", "media", "model"):
        assert getattr(record, name) == getattr(printed, name), name
    assert records.from_line(records.to_line(record)) == record


def test_questions_share_one_prefill_and_may_be_asked_side_by_side(context):
    questions = ["What is happening?", "What do you hear?", "What colour is the drum?"]
    apart = [context.ask(question) for question in questions]
    together = context.ask_all(questions)
    assert [r.answer for r in apart] == [r.answer for r in together]
    assert [r.key for r in apart] == [r.key for r in together] and len({r.key for r in apart}) == 3
    pieces: list[str] = []
    assert "".join(pieces) == "" and context.ask(questions[0], on_text=pieces.append).answer == "".join(pieces)


def test_what_was_kept_is_data(context):
    kept, dropped = context.selection, context.dropped
    record = context.ask("What is happening?")
    for modality, count, full in (
        ("video", record.tokens.video_kept, record.tokens.video),
        ("audio", record.tokens.audio_kept, record.tokens.audio),
    ):
        assert (kept.modality == modality).sum() == count
        assert (kept.modality == modality).sum() + (dropped.modality == modality).sum() == full
    assert (np.diff(kept.indices) > 0).all() and not set(kept.indices) & set(dropped.indices)
    assert kept.position.shape == (3, len(kept)) and all(
        len(v) == len(kept) for n, v in kept.columns().items() if n != "position"
    )
    video = kept.modality == "video"
    merged = dropped.merged_into[dropped.modality == "video"]
    assert set(merged[merged >= 0]) <= set(kept.indices[video])
    assert kept.merge_size[video].sum() == pytest.approx(video.sum() + (merged >= 0).sum())
    assert np.isfinite(kept.score[video]).all() and (kept.layers == 1).all() and (dropped.layers == 0).all()
    assert set(kept.reason[video]) <= {"detail", "ordinary"}


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("pruner", ["contextguard", "fastv"])
def test_the_command_line_writes_the_same_data(context, suffix, pruner, tmp_path, capsys):
    from cg_cli.main import main

    path = tmp_path / f"kept{suffix}"
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "ask",
                str(SAMPLES / "drum.mp4"),
                "What is happening?",
                "--model",
                "nano",
                "--show",
                str(path),
                "--pruner",
                pruner,
                "-q",
            ]
        )
    assert not stopped.value.code
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file}
        about = json.loads(str(data.pop("about")))
        columns = {name: data[name] for name in TokenTable.__dataclass_fields__}
        assert {f"dropped_{name}" for name in columns} < set(data)
    else:
        file = json.loads(path.read_text())
        about, columns = file["about"], {name: np.array(values) for name, values in file["kept"].items()}
    assert about["schema"] == "cg.kept/1" and about["pruner"] == pruner and len(about["keys"]) == 1
    if pruner == "contextguard":
        for name, values in context.selection.columns().items():
            expected = values.astype(object) if suffix == ".json" and values.dtype.kind == "f" else values
            if expected.dtype == object:
                expected = np.array([[None if x != x else x for x in np.ravel(values)]], object).reshape(values.shape)
                assert all(
                    (a is None and b is None) or a == pytest.approx(b)
                    for a, b in zip(np.ravel(columns[name]), np.ravel(expected))
                )
            else:
                assert np.array_equal(columns[name], expected, equal_nan=expected.dtype.kind == "f")
    else:
        assert 0 < np.array(columns["layers"], float)[np.array(columns["modality"]) == "video"].min() < 1


@dataclass(frozen=True)
class Mine(cg.ModalityPruner):
    """A pruner of a notebook's own."""

    offset: int = 0

    def pick_video(self, stream, rows, count):
        return torch.arange(self.offset, self.offset + count)


def test_a_pruner_of_one_s_own_is_an_object_with_a_name_and_a_key(model, clip, context):
    first, second = (model.prefill(clip, pruner=Mine(offset), keep=0.3).ask("What is happening?") for offset in (0, 5))
    assert (
        first.pruner.name == "Mine" and first.pruner.options == {"offset": 0} and second.pruner.options == {"offset": 5}
    )
    assert first.tokens.keep == pytest.approx(0.3, abs=0.01)
    plain = model.prefill(clip, pruner=cg.Random(), keep=0.3).ask("What is happening?")
    assert len({first.key, second.key, plain.key, context.ask("What is happening?").key}) == 4

    class Other(Mine):
        def pick_video(self, stream, rows, count):
            return torch.arange(count) + 1

    def again():
        class Other(Mine):
            def pick_video(self, stream, rows, count):
                return torch.arange(count) + 2

        return Other

    keys = {
        model.prefill(clip, pruner=kind(), keep=0.3).ask("What is happening?").key for kind in (Mine, Other, again())
    }
    assert len(keys) == 3


def test_a_predictor_handed_over_as_an_object_is_in_the_key(model, clip, context):
    predictor = context.session.pruner.predictor
    import copy

    other = copy.deepcopy(predictor)
    other.basis.data.mul_(-1)
    keys = {
        model.prefill(clip, pruner=cg.ContextGuard().with_predictor(p), keep=0.45).ask("What is happening?").key
        for p in (predictor, other)
    }
    assert len(keys) == 2


def test_what_goes_wrong_is_one_line(model, clip, tmp_path):
    with pytest.raises(cg.UsageError, match="did you mean 'nano'"):
        cg.load("nanno")
    with pytest.raises(cg.ItemError, match="gone.mp4"):
        model.read(tmp_path / "gone.mp4")
    with pytest.raises(cg.UsageError, match="keep must be above 0"):
        model.prefill(clip, pruner=cg.Random(), keep=1.5)
    with pytest.raises(cg.UsageError, match="takes a pruner"):
        model.prefill(clip, keep=0.5)

    @dataclass(frozen=True)
    class Broken(cg.ModalityPruner):
        def pick_video(self, stream, rows, count):
            raise RuntimeError("no idea")

    with pytest.raises(cg.ItemError, match="RuntimeError: no idea") as caught:
        model.prefill(clip, pruner=Broken(), keep=0.5)
    assert caught.value.stage == "prune" and "\n" not in str(caught.value)


def test_importing_is_light_and_everything_public_is_there():
    code = (
        "import sys, cg_cli; heavy = {'torch', 'numpy', 'transformers', 'pydantic', 'av'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in cg.__all__:
        assert getattr(cg, name) is not None
    assert (Path(cg.__file__).parent / "py.typed").exists()
