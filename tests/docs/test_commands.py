"""Every command on every page is run, in a folder with clips, with nano; or it says what it needs."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from helpers.pages import PAGES, blocks, commands, name_of

pytestmark = pytest.mark.slow

SETUP = ("python3 -m venv", "pip install", ".venv/bin/", "git ", "just ", "pre-commit")  # what CI itself does
WITH_COMMANDS = [
    page for page in PAGES if any(commands(block) for block in blocks(page, "sh")) and page.name != "CONTRIBUTING.md"
]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_commands_of_a_page_run(page, folder):
    for block in blocks(page, "sh"):
        run = [line for line in commands(block) if not line.startswith(SETUP)]
        if not shutil.which("jq"):
            run = [line for line in run if "jq" not in line]
        if not run:
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(run)], cwd=folder, capture_output=True, text=True, timeout=300
        )
        place = f"{name_of(page)}:{block.line}"
        assert done.returncode == 0, f"{place}: exit code {done.returncode}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, place


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_not_run_say_why(page):
    """A block in another language is not a way around being run."""
    for language in ("", "bash", "shell", "console"):
        for block in blocks(page, language):
            assert not block.text.startswith(("cg ", "$ ")), f"{name_of(page)}:{block.line}"
