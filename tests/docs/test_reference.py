"""The reference is what the code says."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

import cg_cli
from cg_cli.errors import ERROR_TYPES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pages_are_what_the_code_says():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    pages = generate.pages()
    assert {f"reference/{path.name}" for path in (DOCS / "reference").iterdir()} <= set(pages)
    for name, text in pages.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"{name}: run python docs/generate.py"


@pytest.mark.slow
def test_the_memory_table_is_what_the_command_prints():
    from cg_cli.profiling import memory

    assert memory.report() in (DOCS / "guides" / "out-of-memory.md").read_text(encoding="utf-8")


def error_types() -> set[str]:
    """The types of errors that the code gives, read off the calls that make them."""
    found = {cg_cli.batch.job.POISON, cg_cli.engine.memory.OUT_OF_MEMORY}
    for path in Path(cg_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = {"ItemError": 2, "media_error": 0}.get(name)
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                found.add(node.args[place].value)
    return found


def test_every_error_type_is_explained():
    import cg_cli.batch.job
    import cg_cli.engine.memory  # noqa: F401

    assert error_types() == set(ERROR_TYPES)
