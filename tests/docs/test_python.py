"""The Python on the pages is executed as it stands."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.pages import PAGES, ROOT, blocks, name_of

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "python-api.md"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_every_block_runs(page, folder, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(block.text for block in blocks(page, "python")), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing on the terminal but what the page prints
    if page == PAGE:
        assert "A white drum beats." in done.stdout and "not_media" in done.stdout


def test_everything_public_is_named_on_the_page_and_there():
    import cg_cli

    text = PAGE.read_text(encoding="utf-8")
    pruners = {name for name in cg_cli.__all__ if isinstance(getattr(cg_cli, name), type) and name not in text}
    for name in cg_cli.__all__:
        assert getattr(cg_cli, name) is not None
    from cg_cli.pruning.base import Pruner

    assert all(issubclass(getattr(cg_cli, name), Pruner) for name in pruners)  # "the pruners" stands for them
