"""Pages (``cg_cli.viz.page``) of the clips on which pruners disagree most: the tokens each kept, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cg_cli.backbones.base import Backbone
from cg_cli.engine.inputs import video_content
from cg_cli.engine.session import Session
from cg_cli.engine.setup import sampling
from cg_cli.errors import ItemError
from cg_cli.profiling.measure import BASELINE, Cell
from cg_cli.profiling.report import PAGES
from cg_cli.pruning.base import Pruner
from cg_cli.questions import Item
from cg_cli.settings.resolve import decode_options
from cg_cli.settings.table import Settings
from cg_cli.viz import page
from cg_cli.viz.recorder import Recorder

KEEP = 0.45  # each pruner is shown at the ratio nearest to it: pages with every ratio would be large


def choose(
    items: Sequence[Item], lines: Mapping[str, Sequence[Mapping[str, Any]]], cells: Sequence[Cell], count: int
) -> list[tuple[Item, int]]:
    """The ``count`` items with the most answers that turned from right to wrong or back under one of ``cells``, and how
    many those are; the first ones among equals.

    Args:
        lines: measurements by the identity of a clip.
    """
    turned = [
        (item, sum(_turned(line, cell) for line in lines.get(video_content(item.video), ()) for cell in cells))
        for item in items
    ]
    return sorted(turned, key=lambda pair: -pair[1])[:count]


def _turned(line: Mapping[str, Any], cell: Cell) -> int:
    right, baseline = (line["cells"].get(name, {}).get("right", ()) for name in (cell.name, BASELINE.name))
    return sum(a != b for a, b in zip(right, baseline))


def nearest_keep(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that go on a page: of each pruner the ratio nearest to KEEP."""
    out: dict[str, Cell] = {}
    for cell in cells:
        nearest = out.setdefault(cell.method, cell)
        if abs(cell.keep - KEEP) < abs(nearest.keep - KEEP):
            out[cell.method] = cell
    return [cell for cell in out.values() if cell != BASELINE]


def write(
    chosen: Sequence[tuple[Item, int]],
    cells: Sequence[Cell],
    pruners: Mapping[Cell, Pruner],
    backbone: Backbone,
    settings: Settings,
    out: Path,
    fault: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Answer the questions of each chosen clip under ``cells`` and write its page into ``out``. Returns, for the
    report, the clip, its page (relative to ``out``) and how many answers turned; ``fault`` gets a line about a clip
    that cannot be read any more.

    CgError if a page cannot be written.
    """
    pages = []
    (out / PAGES).mkdir(exist_ok=True)
    for item, turned in chosen:
        scenes, reading = [], None
        for cell in cells:
            recorder = Recorder(backbone.frame_multiple)
            session = Session(
                backbone=backbone,
                pruner=pruners[cell],
                keep=cell.keep,
                sampling=sampling(settings),
                decode_options=decode_options(settings, backbone),
                quantize=settings.quantize,
                observer=recorder,
            )
            reading = reading or session.read(item.video)
            if isinstance(reading.clip, ItemError):
                break
            texts = [question.text for question in item.questions]
            records = list(session.answer(item.video, texts, reading, together=True))
            scenes.append(recorder.scene(item.video, records))
        if not scenes:
            fault(str(reading.clip) if reading else f"no page of {item.video}: no pruner to compare")
            continue
        place = hashlib.blake2b(item.video.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
        name = f"{PAGES}/{Path(item.video).stem}-{place}.html"
        results = tuple(result for scene in scenes for result in scene.results)
        page.write(out / name, replace(scenes[0], results=results))
        pages.append({"video": item.video, "page": name, "turned": turned})
    return pages
