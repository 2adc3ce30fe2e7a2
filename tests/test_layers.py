"""The rooms of the package: which may import which, and that there is no circle of imports, lazy ones included."""

from __future__ import annotations

import ast
from pathlib import Path

import cg_cli

ROOT = Path(cg_cli.__file__).parent
# Bottom to top; rooms in one row do not import each other.
LAYERS = [
    ["__version__"],
    ["errors"],
    ["util"],
    ["records", "samples"],
    ["questions"],
    ["media"],
    ["pruning"],
    ["backbones"],
    ["settings"],
    ["predictors"],
    ["engine"],
    ["viz"],
    ["evals"],
    ["batch"],
    ["profiling"],
    ["nano"],
    ["doctor"],
    ["console"],
    ["commands"],
    ["main"],
    ["__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    names = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(path: Path, known: set[str]) -> set[str]:
    """The modules of the package that ``path`` imports, anywhere in it but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            base = node.module or ""
            found |= {name if name in known else base for name in (f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in known}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__version__"


def test_a_room_imports_only_rooms_below_it():
    known = modules()
    upward = [
        f"{module} imports {imported}"
        for module, path in known.items()
        if module != "cg_cli"
        for imported in imports_of(path, set(known))
        if room(imported) != room(module) and RANK[room(imported)] >= RANK[room(module)]
    ]
    assert not upward, "\n".join(upward)


def test_there_is_no_circle_of_imports():
    known = modules()
    graph = {module: imports_of(path, set(known)) - {module} for module, path in known.items() if module != "cg_cli"}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module in done or module not in graph:
            return
        for imported in sorted(graph[module]):
            visit(imported, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_modules_have_one_responsibility_each():
    long = {module: lines for module, path in modules().items() if (lines := len(path.read_text().splitlines())) > 400}
    assert not long
