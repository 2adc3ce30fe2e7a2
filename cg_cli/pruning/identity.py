"""What tells one pruner from another in a record's key: its options as plain values, and the code of its class.

Code is compared as compiled, not as source: a class made by ``exec`` or ``type()``, or twice in a notebook, has no
source of its own, and a file may have changed since it was imported.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from abc import ABC
from dataclasses import fields, is_dataclass
from functools import cached_property
from types import CodeType, FunctionType, ModuleType
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor, nn

PACKAGE = __name__.partition(".")[0]
HASH_DIGITS = 12
# What Python and ``dataclasses`` put into a class that is no behaviour, or repeats what is there already.
NO_BEHAVIOUR = {
    "__abstractmethods__",
    "__annotations__",
    "__annotations_cache__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__parameters__",
    "__qualname__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
}


def attributes(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, inherited ones included, then all other instance attributes but cached properties."""
    own = {field.name: getattr(value, field.name) for field in fields(value)} if is_dataclass(value) else {}
    own |= {name: each for name, each in getattr(value, "__dict__", {}).items() if name not in own}
    return {
        name: each for name, each in own.items() if not isinstance(getattr(type(value), name, None), cached_property)
    }


def plain(value: Any) -> Any:
    """``value`` in the types of JSON. Containers keep their form, sets sorted; tensors, arrays and modules become
    ``sha256:...`` of their contents, functions ``module:qualname#`` and a hash of their code, all else its repr, which
    had better hold no address."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(each) for each in value), key=json.dumps)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray):
        return plain(value.tolist()) if value.dtype.hasobject else _sha256(value.dtype, value.shape, value.tobytes())
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return _sha256(value.dtype, tuple(value.shape), flat.view(torch.uint8).numpy().tobytes())
    if isinstance(value, nn.Module):
        return _sha256(value, json.dumps(plain(value.state_dict())).encode())
    if isinstance(value, FunctionType):
        return f"{value.__module__}:{value.__qualname__}#{_digest(_Code().of(value))}"
    if is_dataclass(value) and not isinstance(value, type):
        return {"class": f"{type(value).__module__}:{type(value).__qualname__}", **plain(attributes(value))}
    return repr(value)


def fingerprint(cls: type) -> str:
    """``module:qualname`` of ``cls``; unless this package defines it, followed by ``#`` and a hash of its code and that
    of its bases outside this package.

    Covers methods with their defaults and closures, class attributes, and the functions and constants of their own
    module that methods name. What a method reads elsewhere, in a file or in a list that changes, is no code: make it an
    option. Another minor version of Python may compile to another hash.
    """
    name = f"{cls.__module__}:{cls.__qualname__}"
    own = (base for base in cls.__mro__ if base not in (object, ABC, Generic))
    foreign = [base for base in own if base.__module__.partition(".")[0] != PACKAGE]
    if cls not in foreign:
        return name
    code = _Code()
    return f"{name}#{_digest([code.of(base) for base in foreign])}"


class _Code:
    """Describes code by plain values, equal for equal behaviour and in every process. Each function once."""

    def __init__(self) -> None:
        self.functions: set[FunctionType] = set()

    def of(self, value: Any) -> Any:
        """A function, a class with what its body defines, or a value that one of them holds."""
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.of(value.__func__)]
        if isinstance(value, property):
            return ["property", *(self.of(each) for each in (value.fget, value.fset, value.fdel))]
        if isinstance(value, cached_property):
            return ["cached", self.of(value.func)]
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, CodeType):
            return [value.co_code.hex(), value.co_names, value.co_freevars, [self.of(each) for each in value.co_consts]]
        if isinstance(value, type):
            body = sorted((name, each) for name, each in vars(value).items() if name not in NO_BEHAVIOUR)
            return [value.__qualname__, [(name, self._held(each)) for name, each in body]]
        if hasattr(value, "__wrapped__"):  # lru_cache
            return self.of(value.__wrapped__)
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(plain(value)))  # an address is another one in every process

    def _function(self, function: FunctionType) -> Any:
        if function in self.functions:
            return function.__qualname__
        self.functions.add(function)
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        named = {name: function.__globals__.get(name) for name in _names(function.__code__)}
        helpers = {
            name: each
            for name, each in sorted(named.items())
            if isinstance(each, (bool, int, float, str, tuple))
            or (isinstance(getattr(each, "__wrapped__", each), FunctionType) and each.__module__ == function.__module__)
        }
        held = [function.__defaults__, function.__kwdefaults__, cells, helpers]
        return [self.of(function.__code__), [self._held(each) for each in held]]

    def _held(self, value: Any) -> Any:
        """As ``of``, but a class or a module by its name, and containers by what they hold."""
        if isinstance(value, (type, ModuleType)):
            return f"{getattr(value, '__module__', '')}:{value.__name__}"
        if isinstance(value, (list, tuple)):
            return [self._held(each) for each in value]
        if isinstance(value, dict):
            return [[repr(key), self._held(each)] for key, each in value.items()]
        return self.of(value)


def _names(code: CodeType) -> set[str]:
    """Global names that ``code`` and the functions inside it may read."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # of a name that is not bound yet
        return False


def _sha256(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else f"{part};".encode())
    return f"sha256:{digest.hexdigest()}"


def _digest(description: Any) -> str:
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()[:HASH_DIGITS]
