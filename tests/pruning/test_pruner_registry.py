"""Pruners by name: light to list, strict about names and options, open to other packages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import pytest
from helpers.pruner_matrix import CASES, DECODER_CASES

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.pruning.base import ModalityPruner, Pruner
from cg_cli.pruning.methods.random import Random
from cg_cli.pruning.methods.uniform import Uniform


@dataclass(frozen=True)
class Tuned(Uniform):
    """Stands in for a third-party method."""

    strength: float = 0.5
    mode: Literal["soft", "hard"] = "soft"
    rounds: int | None = None


class FakePackage(metadata.Distribution):
    def read_text(self, filename):
        return "Name: cg-tuned\n" if filename == "METADATA" else None

    def locate_file(self, path):
        raise NotImplementedError


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch):
    """Install entry points name -> target, all of one package "cg-tuned"."""

    def install(**targets: str) -> None:
        points = [metadata.EntryPoint(name, target, registry.GROUP) for name, target in targets.items()]
        for point in points:
            vars(point)["dist"] = FakePackage()
        monkeypatch.setattr(
            metadata, "entry_points", lambda group: points if group == registry.GROUP else pytest.fail(group)
        )

    return install


def test_listing_imports_no_torch():
    code = (
        "import sys; from cg_cli.pruning import registry; assert registry.known();"
        "heavy = {'torch', 'numpy', 'pydantic', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_bundled_pruner_loads_is_described_and_is_in_the_matrix():
    assert {case.name for case in CASES + DECODER_CASES} == set(registry.MANIFEST)
    for name, entry in registry.MANIFEST.items():
        pruner = registry.make(name)
        assert isinstance(pruner, Pruner)
        assert pruner.stage in ("input", "decoder")
        assert type(pruner).__dataclass_params__.frozen
        assert type(pruner).__doc__ and entry.summary and "\n" not in entry.summary


def test_options_reach_the_pruner():
    assert registry.make("random", seed=11) == Random(seed=11)


def test_unknown_name_suggests_and_lists():
    with pytest.raises(UsageError, match="no pruner 'unifrom', did you mean 'uniform'.*none, random, uniform, evs"):
        registry.make("unifrom")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sed": 1}, "'random' has no option 'sed', did you mean 'seed'.*its options: seed"),
        ({"seed": "1"}, "option seed='1'.*valid integer"),
        ({"seed": True}, "option seed=True.*valid integer"),
        ({"seed": 1.5}, "option seed=1.5.*valid integer"),
        ({"seed": -1}, r"'random': seed must be in"),
    ],
)
def test_wrong_options_are_one_line_usage_errors(options: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message) as caught:
        registry.make("random", **options)
    assert "\n" not in str(caught.value)


def test_a_pruner_without_options_says_so():
    with pytest.raises(UsageError, match="its options: none"):
        registry.make("evs", seed=1)


def test_another_package_adds_a_pruner(plug_in):
    plug_in(tuned=f"{__name__}:Tuned")
    assert list(registry.known()) == [*registry.MANIFEST, "tuned"]
    assert "cg-tuned" in registry.known()["tuned"].summary
    assert registry.make("tuned", strength=1, mode="hard") == Tuned(strength=1.0, mode="hard")
    with pytest.raises(UsageError, match="mode='medium'"):
        registry.make("tuned", mode="medium")


def test_two_pruners_of_one_name_are_refused(plug_in):
    plug_in(evs=f"{__name__}:Tuned")
    with pytest.raises(UsageError, match="cg-cli and cg-tuned both bring a pruner 'evs'"):
        registry.make("random")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module_at_all:X", "cannot be imported"),
        (f"{__name__}:Missing", "cannot be imported"),
        (f"{__name__}:FakePackage", "is not a subclass"),
    ],
)
def test_a_broken_plug_in_is_named_only_when_used(plug_in, target: str, message: str):
    plug_in(broken=target)
    assert isinstance(registry.make("evs"), ModalityPruner)
    with pytest.raises(UsageError, match=f"cg-tuned {message}"):
        registry.make("broken")
