"""Every test runs offline, in a home of its own, and on its own settings."""

from __future__ import annotations

import os
import signal

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once
os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as ``cg`` does: tests start processes beside this one
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers with several threads each would wait for each other
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it, and children inherit that


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    for name in [name for name in os.environ if name.startswith("CG_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def cg(capsys):
    """Run ``cg`` in this process: exit code, stdout, stderr."""
    from cg_cli.main import main

    def run(*arguments: str):
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run


def pytest_collection_modifyitems(config, items):
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            skip = pytest.mark.skip(reason="no CUDA device")
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(skip)
