"""Every link of every page leads somewhere, and every page is found from the first one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.pages import PAGES, ROOT, name_of

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
ADDRESS = re.compile(r"^(https?:|mailto:)")


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```\s*$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [target for target in LINK.findall(text) if not ADDRESS.match(target)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{name_of(page)}: {target}"
        assert place.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(place), f"{name_of(page)}: {target}"


def test_every_page_is_two_clicks_from_the_readme():
    near = {ROOT / "README.md"}
    for _ in range(2):
        pages = [page for page in near if page in PAGES]
        near |= {(page.parent / link.partition("#")[0]).resolve() for page in pages for link in links(page)}
    assert {name_of(page) for page in PAGES if page not in near} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_reads_well_where_it_lies(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ") and text.endswith("\n")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "![", "[", "<"))]
    outside = re.sub(r"^```.*?^```\s*$", "", "\n".join(lines), flags=re.DOTALL | re.MULTILINE)
    long = [line for line in outside.splitlines() if len(line) > 120]
    assert not long, (name_of(page), long)


def test_the_first_page_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 150 and len(text.encode()) <= 10 * 1024
