"""What tells pruners apart in a record's key: name, options as plain values, and the code of a class of one's own."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers.pruner_matrix import CASES, DECODER_CASES
from helpers.synthetic_stream import make_stream

from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import plan
from cg_cli.pruning.methods.contextguard import ContextGuard
from cg_cli.pruning.methods.contextguard_online import ContextGuardOnline
from cg_cli.pruning.methods.random import Random
from cg_cli.pruning.predictor import DirectionPredictor, PredictorMetadata

pytestmark = pytest.mark.slow


class Plain(Random):
    """No dataclass of its own, with an ``__init__`` of its own."""

    def __init__(self, strength: float, scorer: Any = None) -> None:
        super().__init__(seed=3)
        self.strength = strength
        self.scorer = scorer

    @functools.cached_property
    def twice(self) -> float:
        return 2 * self.strength


class FromNothing(Pruner):
    """Inherits no option, and sets all in ``__init__``."""

    def __init__(self, keep_first: int) -> None:
        self.keep_first = keep_first

    def select(self, stream, budget):
        return Random().select(stream, budget)


def test_a_bundled_pruner_is_called_as_the_registry_calls_it():
    for name in registry.MANIFEST:
        pruner = registry.make(name)
        assert pruner.name == name and pruner.version >= 1
        assert pruner.fingerprint() == f"{type(pruner).__module__}:{type(pruner).__qualname__}"


def test_a_subclass_is_called_by_its_class_unless_it_says_otherwise():
    @dataclass(frozen=True)
    class Killer(Random):
        pass

    @dataclass(frozen=True)
    class Named(Random):
        name: ClassVar[str] = "mine"
        version: ClassVar[int] = 2

    assert (Killer().name, Killer.name, Random.name) == ("Killer", "Killer", "random")
    assert (Named.name, Named().name, Named.version, Random.version) == ("mine", "mine", 2, 1)
    assert type("Made", (ContextGuard,), {}).name == "Made"
    assert list(Killer(seed=4).options()) == ["seed"]  # a name is no option


def test_options_hold_defaults_and_those_of_the_bases():
    assert Random(seed=5).options() == {"seed": 5}
    assert registry.make("none").options() == {}
    assert ContextGuardOnline(detail=False).options() == {
        "recover": True,
        "detail": False,
        "novelty": True,
        "merge": True,
        "confident": True,
        "prediction": "predictor",
    }


@pytest.mark.parametrize("case", CASES + DECODER_CASES, ids=str)
def test_options_of_every_pruner_are_json_and_make_it_again(case):
    pruner = case.make()
    options = json.loads(json.dumps(pruner.options(), allow_nan=False))
    assert options == pruner.options()
    assert type(pruner)(**options) == type(pruner)(**case.options)  # a predictor is no option


def test_what_an_init_of_ones_own_sets_is_an_option_and_survives_a_predictor():
    predictor = DirectionPredictor(PredictorMetadata("m", "r", "f", 16))
    for pruner, options in (
        (Plain(0.5), {"seed": 3, "strength": 0.5, "scorer": None}),
        (FromNothing(7), {"keep_first": 7}),
    ):
        reading = pruner.with_predictor(predictor)
        assert type(reading) is type(pruner)
        assert (reading.predictor, pruner.predictor) == (predictor, None)
        assert reading.options() == pruner.options() == options
    stream = make_stream()
    budget = plan(stream, 0.4)
    assert torch.equal(
        Plain(0.5).with_predictor(predictor).select(stream, budget).indices, Random(3).select(stream, budget).indices
    )


def test_a_cached_value_is_no_option():
    pruner = Plain(0.5)
    before = pruner.options()
    assert pruner.twice == 1.0 and pruner.options() == before


def test_options_are_plain_values():
    @dataclass(frozen=True)
    class Many(Random):
        values: Any = None
        inner: Any = field(default_factory=lambda: Random(seed=2))

    values = [
        (1.5, np.float32(2.0), np.int64(3), np.bool_(True), float("nan"), torch.bfloat16),
        {"a": {1, 3, 2}, 7: ("x", None)},
    ]
    assert Many(values=values).options()["values"] == [
        [1.5, 2.0, 3, True, "nan", "torch.bfloat16"],
        {"a": [1, 2, 3], "7": ["x", None]},
    ]
    assert Many().options()["inner"] == {"class": "cg_cli.pruning.methods.random:Random", "seed": 2}
    json.dumps(Many(values=values).options(), allow_nan=False)


def test_a_tensor_an_array_and_a_module_become_hashes_of_what_they_hold():
    def option(value: Any) -> str:
        return Plain(0.5, value).options()["scorer"]

    ones = torch.ones(3, 4)
    assert option(ones) == option(torch.ones(4, 3).T) == option(torch.ones(3, 4, requires_grad=True))
    assert option(np.ones(3)) == option(np.ones(6)[::2])
    layer = torch.nn.Linear(2, 2)
    again = torch.nn.Linear(2, 2)
    again.load_state_dict(layer.state_dict())
    assert option(layer) == option(again)
    different = [
        ones,
        ones.to(torch.bfloat16),
        ones.bool(),
        torch.ones(4, 3),
        torch.ones(()),
        torch.ones(0),
        ones + 1,
        np.ones(3),
        np.zeros(3),
        layer,
        torch.nn.Linear(2, 2),
    ]
    hashes = [option(value) for value in different]
    assert len(set(hashes)) == len(hashes)
    assert all(each.startswith("sha256:") and len(each) == 71 for each in hashes)


def test_a_function_is_told_by_its_code():
    def option(function: Any) -> str:
        return Plain(0.5, function).options()["scorer"]

    assert option(lambda x: x + 1) == option(lambda x: x + 1)
    assert option(lambda x: x + 1) != option(lambda x: x + 2)


def _define(source: str, name: str = "Mine", **names: Any) -> type[Pruner]:
    """The class ``name`` that ``source`` defines, as a notebook's cell would."""
    space: dict[str, Any] = {"__name__": "__main__", "Random": Random, "torch": torch, **names}
    exec(source, space)
    return space[name]


MINE = """
FACTOR = 2

def helper(count):
    return count * FACTOR

class Mine(Random):
    bound = 0.5

    def pick_video(self, stream, rows, count):
        return self.choose(rows, helper(count))

    @staticmethod
    def choose(rows, count, step=1):
        return [row for row in rows if row in {"a", "b", "c"}][:count:step]
"""


def test_the_same_code_has_the_same_fingerprint_and_another_one_another():
    first = _define(MINE).fingerprint()
    assert first.startswith("__main__:Mine#")
    assert _define(MINE).fingerprint() == first == _define("\n\n# moved\n" + MINE).fingerprint()
    changes = [
        ("FACTOR = 2", "FACTOR = 3"),
        ("count * FACTOR", "count + FACTOR"),
        ("bound = 0.5", "bound = 0.6"),
        ("step=1", "step=2"),
        ('"c"', '"d"'),
        ("@staticmethod\n    def choose(rows", "def choose(self, rows"),
        ("helper(count))", "abs(count))"),
    ]
    fingerprints = [_define(MINE.replace(*change)).fingerprint() for change in changes]
    assert all(old in MINE for old, _ in changes)
    assert len({first, *fingerprints}) == len(changes) + 1


def test_a_base_of_ones_own_counts_and_one_of_this_package_does_not():
    child = "class Mine(Base):\n    pass\n"
    first, again, second = (
        _define(child, Base=_define(f"class Base(Random):\n    def more(self):\n        return {value}\n", "Base"))
        for value in (1, 1, 2)
    )
    assert first.fingerprint() == again.fingerprint() != second.fingerprint()
    assert _define("class Mine(Random):\n    pass\n").fingerprint() != first.fingerprint()


def test_classes_made_in_functions_differ_by_what_they_close_over():
    def make(factor: float, fold: Any = sum) -> type[Pruner]:
        @dataclass(frozen=True)
        class Made(Random):
            weight: float = 1.0

            @torch.no_grad()
            def pick_video(self, stream, rows, count):
                return fold([super().pick_video(stream, rows, count)]) * factor

        return Made

    first = make(1.0).fingerprint()
    assert first == make(1.0).fingerprint() != make(2.0).fingerprint()
    assert first != make(1.0, lambda parts: parts[0]).fingerprint()


def test_classes_made_by_type_and_methods_that_were_replaced_differ():
    def made(**body: Any) -> type[Pruner]:
        return type("Made", (Random,), {"__module__": "__main__", **body})

    assert made().fingerprint() == made().fingerprint()
    by_code = {made(_draw=method).fingerprint() for method in (lambda self: 1, lambda self: 2)}
    assert len(by_code | {made().fingerprint(), made(bound=1).fingerprint(), made(bound=True).fingerprint()}) == 5
    mine = made()
    before = mine.fingerprint()
    mine.select = lambda self, stream, budget: None
    assert mine.fingerprint() != before


def test_a_class_that_was_defined_without_a_module_has_a_hash_too():
    space: dict[str, Any] = {"Random": Random}
    exec("class Mine(Random):\n    pass\n", space)
    assert "#" in space["Mine"].fingerprint()


def test_methods_that_call_each_other_end():
    code = "def odd(n):\n    return n and even(n - 1)\ndef even(n):\n    return not n or odd(n - 1)\n"
    code += "class Mine(Random):\n    def turn(self, n):\n        return even(n) or self.turn(n)\n"
    assert _define(code).fingerprint() == _define(code).fingerprint()


def test_another_process_finds_the_same_fingerprint():
    """Neither addresses nor the order of sets, which is another one in every process, are in it."""
    code = "from dataclasses import dataclass, field\nfrom cg_cli.pruning.methods.random import Random\n" + MINE
    code += "    extra: object = field(default_factory=list)\n    scorer = object()\n"
    code = code.replace("class Mine", "@dataclass(frozen=True)\nclass Mine") + "print(Mine.fingerprint())"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] and runs[0].startswith("__main__:Mine#")
