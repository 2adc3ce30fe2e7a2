"""A model's folder runs no code and opens no file outside of it, whatever its configs say and whoever answers."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import cg_cli
from cg_cli import backbones
from cg_cli.errors import UsageError

CODE = """
from pathlib import Path
Path({flag!r}).write_text("the folder's code has run")
from transformers import PretrainedConfig, PreTrainedTokenizerFast, WhisperFeatureExtractor
class Config(PretrainedConfig): pass
class Tokenizer(PreTrainedTokenizerFast): pass
class Extractor(WhisperFeatureExtractor): pass
def generate(*arguments, **options): pass
"""
LOADERS = ("from_pretrained", "get_class_from_dynamic_module", "pipeline")
AUTO_MAPS = {
    "config.json": {"AutoConfig": "hostile.Config", "AutoModel": "hostile.Config"},
    "tokenizer_config.json": {"AutoTokenizer": ["hostile.Tokenizer", "hostile.Tokenizer"]},
    "preprocessor_config.json": {"AutoFeatureExtractor": "hostile.Extractor"},
    "generation_config.json": {"AutoConfig": "hostile.Config"},
}


def load(source: Path):
    return backbones.load(str(source), device="cpu", dtype="float32", offline=True)


def edit(path: Path, **changes) -> None:
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(data | changes))


@pytest.fixture
def folder(thinker_dir, tmp_path) -> Path:
    return Path(shutil.copytree(thinker_dir, tmp_path / "model"))


@pytest.mark.parametrize("stdin", ["yes", "closed"])
@pytest.mark.parametrize("tokenizer", ["its own", "unknown", "odd"])
def test_code_of_a_model_is_never_run_and_never_asked_about(folder, tmp_path, monkeypatch, capfd, stdin, tokenizer):
    flag = tmp_path / "flag"
    (folder / "hostile.py").write_text(CODE.format(flag=str(flag)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(flag=str(flag)))
    for name, auto_map in AUTO_MAPS.items():
        edit(folder / name, auto_map=auto_map)
    if tokenizer == "unknown":
        edit(folder / "tokenizer_config.json", tokenizer_class="HostileTokenizer")
    if tokenizer == "odd":
        edit(folder / "tokenizer_config.json", auto_map=["hostile.Tokenizer"])
    answers = io.StringIO("y\n" * 20)
    if stdin == "closed":
        answers.close()
    monkeypatch.setattr(sys, "stdin", answers)
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail(f"asked: {question}"))
    try:
        load(folder)
    except UsageError as error:
        assert "\n" not in str(error) and "trust_remote_code" not in str(error)
    assert not flag.exists()
    assert "y/N" not in "".join(capfd.readouterr())


def test_every_call_that_loads_something_forbids_code():
    """Of the sources, and, as far as a small model goes, of what really is called (below)."""
    calls = 0
    for path in Path(cg_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOADERS:
                calls += 1
                options = {word.arg: word.value for word in node.keywords}
                trust = options.get("trust_remote_code")
                assert isinstance(trust, ast.Constant) and trust.value is False, f"{path}:{node.lineno}"
            assert not (isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and node.value.value), path
    assert calls == 10


def test_loading_calls_transformers_without_trust(folder, monkeypatch):
    trust = []
    for owner in (transformers.AutoTokenizer, transformers.WhisperFeatureExtractor, transformers.PreTrainedModel):
        original = owner.from_pretrained.__func__

        def spy(cls, *arguments, original=original, **options):
            trust.append(options.get("trust_remote_code"))
            return original(cls, *arguments, **options)

        monkeypatch.setattr(owner, "from_pretrained", classmethod(spy))
    load(folder)
    assert trust == [False, False, False]


def split(folder: Path, shard: str) -> None:
    """Make the checkpoint one with an index, which names ``shard``."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, shard)})
    )


def test_an_index_names_files_of_its_own_folder(folder, tmp_path):
    split(folder, "model-00001-of-00001.safetensors")
    load(folder)
    outside = tmp_path / "secret.safetensors"
    save_file({"x": torch.zeros(1)}, outside)
    for shard in ("../secret.safetensors", str(outside), "a/../../secret.safetensors", ".hidden.safetensors", "a.bin",
                  "x\\y.safetensors", "", None, 3):  # fmt: skip
        edit(folder / "model.safetensors.index.json", weight_map={"lm_head.weight": shard})
        with pytest.raises(UsageError, match="its own folder") as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    for weight_map in ([], None, "x"):
        edit(folder / "model.safetensors.index.json", weight_map=weight_map)
        with pytest.raises(UsageError, match="no index of weights"):
            load(folder)


def test_an_index_on_the_hub_names_files_of_its_own_folder(folder, tmp_path, monkeypatch):
    import huggingface_hub

    split(folder, "../../../../escaped.safetensors")
    requests = []

    def download(repo, name, **options):
        from huggingface_hub.errors import EntryNotFoundError

        requests.append(name)
        if not (folder / name).exists():
            raise EntryNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UsageError, match="its own folder"):
        backbones.load("someone/omni", device="cpu", dtype="float32", offline=False)
    assert not [name for name in requests if "escaped" in name]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_a_pickle_is_refused_in_our_words(folder, tmp_path, name):
    class Run:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "flag"),)

    torch.save({"x": Run()}, folder / name)
    load(folder)  # beside safetensors it is not read
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="a pickle, which can run code") as caught:
        load(folder)
    assert name in str(caught.value) and not (tmp_path / "flag").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "deep", "large"])
def test_a_config_that_would_never_end_is_one_line(folder, name, kind):
    path = folder / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "deep":
        path.write_text('{"a":' + "[" * 200_000)
    else:
        with path.open("wb") as file:
            file.truncate(20 << 20)
    with pytest.raises(UsageError) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "Error" not in str(caught.value).split("(")[0]
