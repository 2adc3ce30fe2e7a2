"""LoRA adapters: merged by peft into a loaded model, against checkpoints in whose files they were merged by hand."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers import tiny
from helpers.families import FAMILIES
from helpers.official import logits_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cg_cli import backbones
from cg_cli.errors import UsageError
from cg_cli.settings.resolve import resolve_settings

RANK, ALPHA = 4, 8
QUESTION = "What do you see?"
TOKENS = [7, 8, 9]
with_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")

# Of each family: a prefix of an adapter's names, and what of the checkpoint it replaces.
SAVED = {
    "qwen2_5_omni": ("", ("visual.merger.", "lm_head.")),
    "qwen3_omni": ("", ("thinker.visual.merger.",)),
    "video_salmonn2": ("", ("audio.qformer.", "audio.q_tokens", "audio.audio_proj.", "visual.merger.")),
}


def load(directory, **options):
    return backbones.load(str(directory), device="cpu", dtype="float32", offline=True, **options)


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in sorted(directory.glob("*.safetensors")) for key, value in load_file(file).items()}


def make(weights, saved, target: Path, **config) -> tuple[Path, dict[str, torch.Tensor]]:
    """An adapter of q, k and v of the language model in the names of a checkpoint; and the changed weights."""
    random = torch.Generator().manual_seed(5)
    noise = lambda *shape: torch.randn(*shape, generator=random)
    tensors, changed = {}, {}
    for name, weight in weights.items():
        if "layers" in name and name.endswith(tuple(f"self_attn.{part}_proj.weight" for part in "qkv")):
            if "audio" in name:
                continue
            down, up = noise(RANK, weight.shape[1]), noise(weight.shape[0], RANK) / 8
            changed[name] = weight + ALPHA / RANK * up @ down
            module = f"base_model.model.{name.removesuffix('.weight')}"
            tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        elif name.startswith(saved):
            changed[name] = tensors[f"base_model.model.{name}"] = weight + noise(*weight.shape) / 10
    target.mkdir()
    save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "k_proj", "v_proj"]}
    (target / "adapter_config.json").write_text(json.dumps(settings | config))
    return target, changed


def merged_by_hand(source: Path, target: Path, changed) -> Path:
    shutil.copytree(source, target)
    for path in target.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file({key: changed.get(key, value) for key, value in load_file(path).items()}, path, metadata=metadata)
    return target


@pytest.fixture(scope="module")
def source(thinker_dir, family_dir):
    return lambda name: thinker_dir if name == "qwen2_5_omni" else family_dir(name)


def outputs(backbone, clip):
    stream = backbone.encode(clip)
    return stream.embeddings, logits_of(backbone, backbone.prefill(stream), QUESTION, TOKENS)


@with_peft
@pytest.mark.parametrize("name", SAVED)
def test_it_equals_a_checkpoint_merged_by_hand(source, tmp_path, name):
    directory = source(name)
    adapter, changed = make(weights_of(directory), SAVED[name][1], tmp_path / "adapter")
    clip = FAMILIES[name].clip() if name in FAMILIES else tiny.clip(6, 56, 84, 3.0)
    plain, ours = load(directory), load(directory, adapter=str(adapter))
    expected = outputs(load(merged_by_hand(directory, tmp_path / "merged", changed)), clip)
    for value, wanted, before in zip(outputs(ours, clip), expected, outputs(plain, clip), strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-4, rtol=1e-4)
        assert (wanted - before).abs().max() > 0.05
    assert ours.adapter == str(adapter) and plain.adapter is None
    assert ours.revision.startswith(f"{plain.revision}+local-")
    known = backbones.inspect_config(str(directory), offline=True, adapter=str(adapter))
    assert known == (type(ours), ours.revision)
    assert not [type(module) for module in ours.model.modules() if "lora" in type(module).__module__]


LAYOUTS = {
    "of the whole model": lambda name: f"thinker.{name}",
    "of transformers now": lambda name: name.replace("model.layers", "model.language_model.layers"),
    "of a running peft": lambda name: name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."),
}


@with_peft
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_names_of_the_same_weights(thinker_dir, tmp_path, layout):
    adapter, _ = make(weights_of(thinker_dir), ("visual.merger.",), tmp_path / "adapter")
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    path, root = other / "adapter_model.safetensors", "base_model.model."
    save_file({root + LAYOUTS[layout](key.removeprefix(root)): value for key, value in load_file(path).items()}, path)
    clip = tiny.clip(6, 56, 84, None)
    ours, theirs = (outputs(load(thinker_dir, adapter=str(each)), clip) for each in (adapter, other))
    assert all(map(torch.equal, ours, theirs))


@with_peft
def test_scales_of_single_modules_count(thinker_dir, tmp_path):
    scaled, _ = make(weights_of(thinker_dir), (), tmp_path / "a", alpha_pattern={"model.layers.1.self_attn.q_proj": 2})
    plain, changed = make(weights_of(thinker_dir), (), tmp_path / "b")
    before, key = weights_of(thinker_dir), "model.layers.1.self_attn.q_proj.weight"
    changed[key] = before[key] + (changed[key] - before[key]) * 2 / ALPHA
    clip = tiny.clip(6, 56, 84, None)
    wanted = outputs(load(merged_by_hand(thinker_dir, tmp_path / "merged", changed)), clip)
    for value, other in zip(outputs(load(thinker_dir, adapter=str(scaled)), clip), wanted, strict=True):
        torch.testing.assert_close(value, other, atol=1e-4, rtol=1e-4)
    assert load(thinker_dir, adapter=str(plain)).revision != load(thinker_dir, adapter=str(scaled)).revision


def drop(tensors, part):
    (name,) = (key for key in tensors if part in key)
    del tensors[name]


def shorten(tensors, part):
    (name,) = (key for key in tensors if part in key)
    tensors[name] = tensors[name][:, :-1].contiguous()


def elsewhere(tensors, part):
    for key in [key for key in tensors if part in key]:
        tensors[key.replace("layers.1", "layers.9")] = tensors.pop(key)


FAULTS = {
    "half": (lambda t: drop(t, "layers.1.self_attn.q_proj.lora_B"), "of .*1.self_attn.q_proj it has but one half"),
    "a layer short": (
        lambda t: [drop(t, f"layers.1.self_attn.q_proj.lora_{part}") for part in "AB"],
        "incomplete: 1 weights are missing, e.g. .*layers.1.self_attn.q_proj",
    ),
    "other width": (lambda t: shorten(t, "layers.0.self_attn.k_proj.lora_A"), "does not fit: .*0.self_attn.k_proj"),
    "another model": (lambda t: elsewhere(t, "layers.1."), r"no place for 3 of its weights, e.g. .*layers.9"),
    "no module": (lambda t: [t.pop(key) for key in list(t) if "merger" in key], "1 weights are missing, e.g. merger"),
    "nothing": (lambda t: t.clear(), "has no weights for this model"),
}  # fmt: skip


@with_peft
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_or_unused_is_an_error_of_one_line(thinker_dir, tmp_path, fault):
    adapter, _ = make(weights_of(thinker_dir), ("visual.merger.",), tmp_path / "adapter", modules_to_save=["merger"])
    path, (change, message) = adapter / "adapter_model.safetensors", FAULTS[fault]
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(UsageError, match=message) as caught:
        load(thinker_dir, adapter=str(adapter))
    assert "\n" not in str(caught.value)


@with_peft
@pytest.mark.parametrize(
    ("base", "warned"), [(None, False), ("{}", False), ("/elsewhere/{}/", False), ("someone/other-7B", True)]
)
def test_the_base_that_it_was_made_for(thinker_dir, tmp_path, base, warned):
    base = base and base.format(thinker_dir.name)
    adapter, _ = make(weights_of(thinker_dir), (), tmp_path / "adapter", base_model_name_or_path=base)
    lines = [line for line in load(thinker_dir, adapter=str(adapter)).warnings if "adapter" in line]
    assert lines == [
        f"adapter {adapter} was made for someone/other-7B, not for {thinker_dir}: answers may be useless"
    ] * warned  # fmt: skip


@with_peft
@pytest.mark.parametrize("name", ["use_qalora", "target_parameters"])
def test_other_kinds_of_lora_are_refused(thinker_dir, tmp_path, name):
    adapter, _ = make(weights_of(thinker_dir), (), tmp_path / "adapter", **{name: ["x"]})
    with pytest.raises(UsageError, match=f"has {name}, which cannot be merged"):
        load(thinker_dir, adapter=str(adapter))


@pytest.fixture
def peft_there(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: name in ("peft", "accelerate") or there(name, *more)
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is no adapter: it has no adapter_config.json"),
        ({"adapter_config.json": "{}"}, "has no adapter_model.safetensors: only safetensors are taken"),
        ({"adapter_config.json": '{"peft_type": "IA3"}', "adapter_model.safetensors": ""}, "of type IA3: only LoRA"),
        ({"adapter_config.json": "[1]", "adapter_model.safetensors": ""}, "is not a model config"),
    ],
)
def test_what_is_no_adapter_is_refused_before_the_model_is_looked_for(tmp_path, peft_there, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "no-model", adapter=str(tmp_path))
    with pytest.raises(UsageError, match="no adapter nowhere: give a folder"):
        load(tmp_path / "no-model", adapter="nowhere")


def test_without_peft_the_extra_is_named(thinker_dir, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None)
    with pytest.raises(UsageError, match=r"^--adapter needs peft and accelerate: pip install 'cg-cli\[lora\]'$"):
        load(thinker_dir, adapter="someone/lora")


def test_it_does_not_go_with_quantize(thinker_dir, peft_there):
    with pytest.raises(UsageError, match="--adapter cannot go with --quantize int8"):
        load(thinker_dir, adapter="someone/lora", quantize="int8")


def test_from_the_hub_two_files_of_one_commit(thinker_dir, tmp_path, monkeypatch, peft_there):
    snapshot = tmp_path / "snapshots" / "abc123"
    snapshot.parent.mkdir()
    make(weights_of(thinker_dir), (), snapshot)
    asked = []

    def download(repo, name, revision=None, **_):
        asked.append((repo, name, revision))
        return str(snapshot / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    _, revision = backbones.inspect_config(str(thinker_dir), offline=False, adapter="someone/lora")
    assert revision.endswith("+abc123")
    assert asked == [
        ("someone/lora", "adapter_config.json", None), ("someone/lora", "adapter_model.safetensors", "abc123")
    ]  # fmt: skip


def test_it_is_a_setting():
    assert resolve_settings({}, config_files=False).adapter is None
    assert resolve_settings({"adapter": "someone/lora"}, config_files=False).adapter == "someone/lora"
