"""Families by name and by config.json: light to list, open to other packages."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny

from cg_cli import backbones
from cg_cli.backbones import registry
from cg_cli.backbones.base import Backbone
from cg_cli.errors import UsageError

PACKAGE = {
    "cg_loud/__init__.py": """
from cg_cli.backbones.family import Family

FAMILY = Family(
    name="loud", model_types=("loud_omni",), backbone="cg_loud.model:Loud", not_quantizable="it is a test"
)
""",
    "cg_loud/model.py": """
from cg_cli.backbones.qwen2_5_omni.model import Qwen25Omni


class Loud(Qwen25Omni):
    family = "loud"
    prompt_version = "loud-chat/1"
    question_end = "!" + Qwen25Omni.question_end
""",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of ``files`` with one family ``name`` at ``target``, as pip would leave it on the disk."""
    modules = set(sys.modules)

    def run(package: str, name: str, target: str, files: dict[str, str]) -> None:
        place = tmp_path / package
        info = place / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[cg_cli.backbones]\n{name} = {target}\n")
        for path, text in files.items():
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_text(text)
        monkeypatch.syspath_prepend(str(place))

    yield run
    for module in set(sys.modules) - modules:
        if module.startswith("cg_loud"):
            del sys.modules[module]


def renamed(source: Path, target: Path, model_type: str) -> Path:
    """A copy of a checkpoint under another model_type."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    return target


def load(directory: Path, **options: str) -> Backbone:
    return backbones.load(str(directory), **{"device": "cpu", "dtype": "float32", "offline": True} | options)


def test_listing_and_matching_import_nothing_heavy():
    code = (
        "import sys; from cg_cli.backbones import registry; assert list(registry.families());"
        "registry.match({'model_type': 'qwen2_5_omni'});"
        "heavy = {'torch', 'numpy', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_bundled_family_has_its_name_in_the_table_and_on_its_class():
    for name, entry in registry.REGISTRY.bundled.items():
        family = registry.find(name)
        backbone = family.load_class()
        assert issubclass(backbone, Backbone) and family.name == backbone.family == name
        assert entry.summary and "\n" not in entry.summary


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "qwen2_5_omni"}, "qwen2_5_omni"),
        ({"model_type": "qwen2_5_omni_thinker"}, "qwen2_5_omni"),
        ({"model_type": "qwen3_omni_moe"}, "qwen3_omni"),
        ({"model_type": "qwen3_omni_moe_thinker"}, "qwen3_omni"),
        ({"model_type": "qwen2_5_vl", "audio_config": {"model_type": "whisper"}}, "video_salmonn2"),
    ],
)
def test_a_config_has_its_family(config, name):
    assert registry.match(config).name == name


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({}, r"model type \(none\) is"),
        ({"model_type": "llama"}, "model type llama is"),
        ({"model_type": "qwen2_5_vl"}, "model type qwen2_5_vl without sound is"),
    ],
)
def test_a_config_without_a_family_is_refused_with_what_there_is(config, what):
    supported = (
        "qwen2_5_omni, qwen2_5_omni_thinker, qwen3_omni_moe, qwen3_omni_moe_thinker, qwen2_5_vl with audio_config"
    )
    with pytest.raises(UsageError, match=f"^{what} not supported; supported are: {supported}$"):
        registry.match(config)


def test_another_package_brings_a_family_that_loads_and_answers(install, thinker_dir, backbone, tmp_path, monkeypatch):
    directory = renamed(thinker_dir, tmp_path / "model", "loud_omni")
    with pytest.raises(UsageError, match="loud_omni is not supported"):
        load(directory)
    install("cg_loud", "loud", "cg_loud:FAMILY", PACKAGE)
    loud = load(directory)
    assert (type(loud).__module__, loud.family, loud.prompt_version) == ("cg_loud.model", "loud", "loud-chat/1")
    stream = loud.encode(tiny.clip())
    assert torch.equal(stream.embeddings, backbone.encode(tiny.clip()).embeddings)
    ours = loud.answer(loud.prefill(stream), "What?", max_new_tokens=8)
    plain = backbone.answer(backbone.prefill(stream), "What?", max_new_tokens=8)
    assert ours.token_ids and ours.question_tokens == plain.question_tokens + 1
    assert backbones.inspect_config(str(directory), offline=True) == (type(loud), loud.revision)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())  # bitsandbytes
    with pytest.raises(UsageError, match="--quantize int8: it is a test; leave it out"):
        load(directory, quantize="int8")
    with pytest.raises(UsageError, match="supported are: .*audio_config, loud_omni$"):
        registry.match({"model_type": "llama"})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module_at_all:FAMILY", "of package cg_broken cannot be imported"),
        ("cg_cli.backbones.registry:match", "of package cg_broken is not a cg_cli.backbones.family.Family"),
    ],
)
def test_a_broken_plug_in_is_named_only_when_needed(install, target, message):
    install("cg_broken", "broken", target, {})
    assert registry.match({"model_type": "qwen3_omni_moe"}).name == "qwen3_omni"
    with pytest.raises(UsageError, match=message) as caught:
        registry.match({"model_type": "broken_omni"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "backbone cg_loud.model:Loud of package cg_loud cannot be imported"),
        ("class Loud: ...", "cg_loud.model:Loud of family loud is not a subclass of cg_cli.backbones.base.Backbone"),
    ],
)
def test_a_family_without_its_class_is_named(install, thinker_dir, tmp_path, model, message):
    files = {"cg_loud/__init__.py": PACKAGE["cg_loud/__init__.py"]} | ({"cg_loud/model.py": model} if model else {})
    install("cg_loud", "loud", "cg_loud:FAMILY", files)
    with pytest.raises(UsageError, match=message):
        load(renamed(thinker_dir, tmp_path / "model", "loud_omni"))


def test_two_families_of_one_name_are_refused(install):
    install("cg_loud", "qwen3_omni", "cg_loud:FAMILY", PACKAGE)
    with pytest.raises(UsageError, match="cg-cli and cg_loud both bring a backbone 'qwen3_omni': uninstall one"):
        registry.match({"model_type": "qwen2_5_omni"})


def test_an_unknown_family_suggests_one(tmp_path):
    with pytest.raises(UsageError, match="no backbone 'qwen3_onmi', did you mean 'qwen3_omni'"):
        backbones.random_init("qwen3_onmi", "7b", 1, device="cpu", dtype="float32", tokenizer=tmp_path)
