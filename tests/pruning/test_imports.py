"""The contract stands below the methods: it imports none of them, reads no file, and knows no other room."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def _loaded(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_contract_imports_no_method_no_file_format_and_no_other_room():
    modules = _loaded("import cg_cli.pruning.base, cg_cli.pruning.decoder")
    assert {"cg_cli.pruning.base", "cg_cli.pruning.decoder"} <= modules
    assert not {name for name in modules if name.startswith("cg_cli.pruning.methods")}
    assert not {"safetensors", "transformers", "pydantic", "cg_cli.pruning.predictor"} & modules
    rooms = {name.split(".")[1] for name in modules if name.startswith("cg_cli.")}
    assert rooms <= {"pruning", "util", "errors"}


def test_a_method_loads_only_itself():
    modules = _loaded("from cg_cli.pruning import registry; registry.make('fastv')")
    assert {name for name in modules if name.startswith("cg_cli.pruning.methods.")} == {"cg_cli.pruning.methods.fastv"}
    assert not {"safetensors", "cg_cli.pruning.predictor"} & modules
