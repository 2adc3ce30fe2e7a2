"""A predictor's card: what it will change, in figures and in words. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEEPS = (0.45, 0.25, 0.10)  # at which the share of kept tokens that changes is measured
CHANGED = "changed_at_"  # before a keep, in the names of figures
FEW_CLIPS = 10  # below which a figure says little
MATTERS = 0.02  # of the kept tokens have to change, at the keep where most do
TELLS = 0.05  # bits a token, or cosine, above the control
FIGURES = {"direction": "cosine", "words": "bits"}  # what each kind's card calls its agreement


def verdict(kind: str, figures: Mapping[str, float]) -> str:
    """What the figures of a card mean, in a line; "" where they were not all measured."""
    name = FIGURES[kind]
    gain = _gain(name, figures)
    changed = [value for key, value in figures.items() if key.startswith(CHANGED) and not key.endswith("_control")]
    if gain is None or not changed:
        return ""
    few = figures.get("held_out_clips", FEW_CLIPS) < FEW_CLIPS
    doubt = f" (measured on {figures['held_out_clips']:.0f} clips, which is too few to tell)" if few else ""
    if max(changed) < MATTERS:
        return f"this predictor will not matter: under {100 * MATTERS:.0f} % of the kept tokens change{doubt}"
    if gain < TELLS:
        return (
            "this predictor knows nothing of which sound goes with which picture: it tells no more than one trained on "
            f"shuffled sound, so what it changes is chance{doubt}"
        )
    return (
        f"sound tells something here, and up to {100 * max(changed):.0f} % of the kept tokens change; whether answers "
        f"are better for it, `cg profile` with labelled clips tells{doubt}"
    )


def _gain(name: str, figures: Mapping[str, float]) -> float | None:
    """What the predictor tells above its control; None where it was not measured."""
    if name in figures and f"{name}_control" in figures:
        return figures[name] - figures[f"{name}_control"]
    return None


def rows(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures of a card for people: what was measured, its value, and what a predictor that knows nothing has."""
    figures: Mapping[str, float] = card["validation"]
    name = FIGURES[card.get("kind", "direction")]
    out = []
    if name in figures:
        what = "cosine of predicted and actual picture" if name == "cosine" else "bits a token that sound tells"
        out.append((what, f"{figures[name]:.3f}", f"{figures.get(f'{name}_shuffled', 0.0):.3f} (another clip's sound)"))
        gain = _gain(name, figures)
        if gain is not None:
            control = f"{figures[f'{name}_control']:.3f} (trained on shuffled sound)"
            out.append(("the same, above its control", f"{gain:+.3f}", control))
    for place, key in (("other clips", "at_1"), ("the same clip", "within")):
        chance = figures.get("chance" if key == "at_1" else "chance_within")
        if f"recall_{key}" in figures and chance:
            out.append((f"the right window among those of {place}", f"{figures[f'recall_{key}']:.1%}", f"{chance:.1%}"))
    for keep in KEEPS:
        changed = figures.get(f"{CHANGED}{keep:.2f}")
        if changed is not None:
            control = f"{figures[f'{CHANGED}{keep:.2f}_control']:.1%} (trained on shuffled sound)"
            out.append((f"kept tokens that sound changes at keep {keep:g}", f"{changed:.1%}", control))
    return out
