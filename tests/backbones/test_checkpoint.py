"""Finding, trimming and loading checkpoints, and failing in one line."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers import tiny
from huggingface_hub import errors
from huggingface_hub import utils as hub_utils
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from cg_cli import backbones
from cg_cli.backbones import checkpoint, device
from cg_cli.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def load(source: Path | str, **options):
    return backbones.load(str(source), **({"device": "cpu", "dtype": "float32", "offline": True} | options))


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def full_dir(thinker_dir, tmp_path_factory) -> Path:
    """The same weights as a full Omni checkpoint: keys under ``thinker.``, in shards, with a talker."""
    directory = copy(thinker_dir, tmp_path_factory.mktemp("full") / "omni")
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(weights)
    half = len(names) // 2
    shards = {
        "model-00001-of-00003.safetensors": {f"thinker.{name}": weights[name] for name in names[:half]},
        "model-00002-of-00003.safetensors": {f"thinker.{name}": weights[name] for name in names[half:]},
        "model-00003-of-00003.safetensors": {"talker.head.weight": torch.zeros(4, 4), "token2wav.x": torch.zeros(2)},
    }
    for name, tensors in shards.items():
        save_file(tensors, directory / name, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {key: name for name, part in shards.items() for key in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    thinker = json.loads((directory / "config.json").read_text())
    config = {
        "model_type": "qwen2_5_omni",
        "architectures": ["Qwen2_5OmniForConditionalGeneration"],
        "thinker_config": thinker,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


class FakeHub:
    """hf_hub_download over a directory, with a snapshot cache; remembers the requests."""

    def __init__(self, source: Path, cache: Path):
        self.source, self.snapshot, self.requests, self.online = source, cache / "snapshots" / COMMIT, [], True

    def __call__(self, repo, name, *, revision=None, local_files_only=False):
        self.requests.append((name, revision))
        cached = self.snapshot / name
        if cached.exists():
            return str(cached)
        if local_files_only or not self.online:
            raise errors.LocalEntryNotFoundError(name)
        if not (self.source / name).exists():
            raise errors.EntryNotFoundError(name)
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.source / name, cached)
        return str(cached)


@pytest.fixture
def hub(full_dir, tmp_path, monkeypatch):
    fake = FakeHub(full_dir, tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # this hub can be reached
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake


def embeddings(loaded) -> torch.Tensor:
    return loaded.encode(tiny.clip()).embeddings


def test_a_full_checkpoint_loads_as_its_thinker(full_dir, backbone):
    full = load(full_dir)
    assert torch.equal(embeddings(full), embeddings(backbone))
    for ours, expected in zip(full.model.parameters(), backbone.model.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_from_the_hub_only_the_thinkers_shards_are_fetched(hub, backbone, tmp_path):
    loaded = load("someone/omni", offline=False, revision="main")
    names = [name for name, _ in hub.requests]
    assert "model-00003-of-00003.safetensors" not in names and "model-00002-of-00003.safetensors" in names
    assert {revision for _, revision in hub.requests[1:]} == {COMMIT} and hub.requests[0][1] == "main"
    assert (loaded.id, loaded.revision) == ("someone/omni", COMMIT)
    assert torch.equal(embeddings(loaded), embeddings(backbone))
    directory = tmp_path / "cache" / "cg" / "models" / "someone--omni" / COMMIT
    assert (directory / "model-00001-of-00003.safetensors").is_symlink()

    hub.online = False
    again = load("someone/omni", offline=True)
    assert torch.equal(embeddings(again), embeddings(backbone))


def test_hub_troubles_are_one_line(hub, monkeypatch):
    with pytest.raises(UsageError, match="without --offline"):
        load("someone/omni")
    hub.online = False
    with pytest.raises(UsageError, match="cannot reach the hub"):
        load("someone/omni", offline=False)
    hub.online = True
    assert load("someone/omni", offline=False)
    (hub.snapshot / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UsageError, match="model-00002-of-00003.*without --offline") as caught:
        load("someone/omni")
    assert "\n" not in str(caught.value)

    def raises(error):
        response = type("Response", (), {"headers": {}, "request": None, "status_code": 401})()

        def download(*_, **__):
            raise error("no", response=response)

        return download

    for error, advice in (
        (errors.GatedRepoError, "gated.*hf auth login"),
        (errors.RepositoryNotFoundError, "check the name"),
        (errors.RevisionNotFoundError, "no revision"),
    ):
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", raises(error))
        with pytest.raises(UsageError, match=advice):
            load("someone/omni", offline=False)


def test_an_unsupported_model_is_refused_before_its_weights_are_fetched(hub, full_dir, tmp_path):
    hub.source = copy(full_dir, tmp_path / "other")
    edit_config(hub.source, model_type="llama")
    with pytest.raises(UsageError, match="llama is not supported"):
        load("someone/omni", offline=False)
    assert [name for name, _ in hub.requests] == ["config.json"]


def test_trimming_keeps_only_the_thinker():
    index = {"metadata": {}, "weight_map": {"thinker.a": "1", "talker.b": "2", "thinker.c": "3", "token2wav.d": "3"}}
    trimmed, shards = checkpoint.trim_index(index, "thinker.")
    assert trimmed["weight_map"] == {"thinker.a": "1", "thinker.c": "3"} and shards == ["1", "3"]
    alone = {"weight_map": {"model.a": "2", "lm_head.weight": "1"}}
    trimmed, shards = checkpoint.trim_index(alone, "thinker.")
    assert trimmed["weight_map"] == alone["weight_map"] and shards == ["1", "2"]


def test_missing_weights_fail(thinker_dir, tmp_path):
    directory = copy(thinker_dir, tmp_path / "m")
    weights = load_file(directory / "model.safetensors")
    gone = next(name for name in weights if "layers.1.mlp.up_proj" in name and "visual" not in name)
    del weights[gone]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="1 missing weights.*up_proj"):
        load(directory)


def test_weights_of_another_shape_fail(thinker_dir, tmp_path):
    directory = copy(thinker_dir, tmp_path / "m")
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError) as caught:
        load(directory)
    assert "\n" not in str(caught.value)


def test_a_cut_weight_file_fails(thinker_dir, tmp_path):
    directory = copy(thinker_dir, tmp_path / "m")
    data = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="cannot load"):
        load(directory)


def test_places_without_a_model_fail_in_one_line(thinker_dir, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    other = copy(thinker_dir, tmp_path / "other")
    edit_config(other, model_type="llama")
    broken = copy(thinker_dir, tmp_path / "broken")
    (broken / "config.json").write_text("{")
    bare = copy(thinker_dir, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    wordless = copy(thinker_dir, tmp_path / "wordless")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (wordless / name).unlink()
    cases = {
        tmp_path / "nowhere": "no model directory",
        empty: "no config.json",
        other: "llama is not supported; supported are: qwen2_5_omni",
        broken: "cannot read",
        bare: "cannot load",
        wordless: "tokenizer|cannot load",
    }
    for source, message in cases.items():
        with pytest.raises(UsageError, match=message) as caught:
            load(source)
        assert "\n" not in str(caught.value)


def test_a_revision_is_for_the_hub(thinker_dir):
    with pytest.raises(UsageError, match="revision"):
        load(thinker_dir, revision="main")


def test_the_content_hash_follows_the_content(thinker_dir, tmp_path):
    first = checkpoint.content_hash(thinker_dir)
    directory = copy(thinker_dir, tmp_path / "elsewhere")
    assert checkpoint.content_hash(directory) == first
    (directory / "notes.txt").write_text("x")
    assert checkpoint.content_hash(directory) == first
    data = bytearray((directory / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (directory / "model.safetensors").write_bytes(data)
    assert checkpoint.content_hash(directory) != first


def test_the_content_hash_covers_every_byte(thinker_dir, tmp_path):
    """Also of a file too large to be hashed anew each time, whose size and modification time stay as they were."""
    directory = copy(thinker_dir, tmp_path / "model")
    large = directory / "model-00001-of-00001.safetensors"
    large.write_bytes(bytes(8 << 20))
    first = checkpoint.content_hash(directory)
    assert first.startswith("local-") and len(first) == len("local-") + 12

    def flip(path: Path) -> None:
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(before.st_size // 2)
            byte = file.read(1)[0]
            file.seek(before.st_size // 2)
            file.write(bytes([byte ^ 1]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)

    names = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")
    for path in (large, *(directory / name for name in names)):
        flip(path)
        assert checkpoint.content_hash(directory) != first, path.name
        flip(path)
        assert checkpoint.content_hash(directory) == first, path.name


def test_the_content_hash_follows_nothing_but_the_content(thinker_dir, tmp_path):
    directory = copy(thinker_dir, tmp_path / "model")
    first = checkpoint.content_hash(directory)
    for path in directory.iterdir():
        os.utime(path, (1, 1))
    for name in ("README.md", "picture.png", ".hidden.json"):
        (directory / name).write_text("{}")
    (directory / "folder.json").mkdir()
    assert checkpoint.content_hash(directory) == first
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in directory.iterdir():
        (linked / path.name).symlink_to(path)
    assert checkpoint.content_hash(linked) == first
    (directory / "merges.txt").write_text("a b")
    assert checkpoint.content_hash(directory) != first


@pytest.mark.parametrize("changes", [{"feature_size": 80}, {"hop_length": 200}])
def test_an_extractor_that_does_not_fit_fails(thinker_dir, tmp_path, changes):
    directory = copy(thinker_dir, tmp_path / "m")
    path = directory / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UsageError, match="does not fit the audio tower"):
        load(directory)


def test_the_preprocessors_norm_is_used_and_its_absence_means_the_familys(thinker_dir, tmp_path, backbone):
    directory = copy(thinker_dir, tmp_path / "m")
    path = directory / "preprocessor_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    assert not torch.allclose(embeddings(load(directory)), embeddings(backbone))
    path.unlink()
    bare = load(directory)
    assert torch.equal(embeddings(bare), embeddings(backbone))
    assert "no preprocessor_config.json" in bare.warnings[0] and backbone.warnings == ()


def test_the_real_checkpoints_merged_preprocessor_config_is_read(thinker_dir, tmp_path, backbone):
    """The hub's file holds picture and sound settings side by side."""
    directory = copy(thinker_dir, tmp_path / "m")
    path = directory / "preprocessor_config.json"
    merged = {
        "chunk_length": 300,
        "dither": 0.0,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 128,
        "hop_length": 160,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": 12845056,
        "merge_size": 2,
        "min_pixels": 3136,
        "n_fft": 400,
        "n_samples": 4800000,
        "nb_max_frames": 30000,
        "padding_side": "right",
        "padding_value": 0.0,
        "patch_size": 14,
        "processor_class": "Qwen2_5OmniProcessor",
        "return_attention_mask": True,
        "sampling_rate": 16000,
        "temporal_patch_size": 2,
    }
    path.write_text(json.dumps(merged))
    assert torch.equal(embeddings(load(directory)), embeddings(backbone))


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:99", "cuda:x"])
def test_devices_that_are_not_there_fail(name):
    with pytest.raises(UsageError, match="cpu"):
        device.resolve_device(name)


def test_dtypes():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert device.resolve_dtype("auto", cpu) is torch.float32
    assert device.resolve_dtype("auto", cuda) is torch.bfloat16
    with pytest.raises(UsageError, match="no dtype int8"):
        device.resolve_dtype("int8", cpu)


def test_importing_the_package_is_light():
    script = "import sys, cg_cli.backbones; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_loading_is_silent(thinker_dir, capfd):
    load(thinker_dir)
    assert capfd.readouterr() == ("", "")


def global_state() -> dict[str, object]:
    """What a notebook that loads a model would notice."""
    return {
        "verbosity of transformers": transformers_logging.get_verbosity(),
        "bars of transformers": transformers_logging.is_progress_bar_enabled(),
        "verbosity of the hub": hub_utils.logging.get_verbosity(),
        "bars of the hub": hub_utils.are_progress_bars_disabled(),
        "bitsandbytes": logging.getLogger("bitsandbytes").level,
        "root logger": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "random": torch.get_rng_state().tolist(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
    }


@pytest.fixture(params=[True, False], ids=["bars on", "bars off"])
def noticeable(request):
    """Settings that are not what loading takes, and that a test may leave changed."""
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_info()
    (transformers_logging.enable_progress_bar if request.param else transformers_logging.disable_progress_bar)()
    yield
    transformers_logging.set_verbosity(before[0])
    (transformers_logging.enable_progress_bar if before[1] else transformers_logging.disable_progress_bar)()


def test_loading_and_answering_leave_global_state_as_it_was(thinker_dir, noticeable, capfd):
    before = global_state()
    loaded = load(thinker_dir)
    assert global_state() == before
    loaded.answer(loaded.prefill(loaded.encode(tiny.clip())), "What?", max_new_tokens=2)
    assert global_state() == before
    assert capfd.readouterr() == ("", "")


def test_loading_that_fails_leaves_global_state_as_it_was(thinker_dir, tmp_path, hub, noticeable):
    directory = copy(thinker_dir, tmp_path / "m")
    (directory / "model.safetensors").write_bytes(b"no weights")
    before = global_state()
    with pytest.raises(UsageError, match="cannot load"):
        load(directory)
    hub.online = False
    with pytest.raises(UsageError, match="cannot reach"):
        load("someone/omni", offline=False)
    assert global_state() == before
