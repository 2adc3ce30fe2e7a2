"""Long clips of which the language model reads more sound than picture: said, with what changes it.

Sound grows with a clip's length and frames do not beyond ``--max-frames``, so the longer a clip, the more of a budget
is sound (``pruning.budget``). The frames are not raised instead: at the default keep sound and picture in balance take
1.5 times the FLOPs for 150 s of video on the 7B, 3.8 times for ten minutes (docs/concepts/cost.md).
"""

from __future__ import annotations

import bisect
from fractions import Fraction

from cg_cli.backbones.base import Backbone
from cg_cli.engine.pipeline import Pruned
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.media.sizes import counts_above_cap, fit_size, frame_count
from cg_cli.pruning.budget import Budget, split
from cg_cli.util.format import duration


def warning(backbone: Backbone, pruned: Pruned, options: DecodeOptions) -> str | None:
    """What to say of a clip read by ``options``, if more than half of what is kept is sound.

    Only where ``--max-frames`` thins its frames: nothing is amiss with a short clip that has all frames that were asked
    for, such as nano's of eight seconds, of which at keep 0.45 five in eight kept tokens are sound. And only of a
    pruner that keeps to the budget's parts: one between layers divides the sum as it sees fit.
    """
    clip, kept = pruned.encoded.clip, pruned.budget
    if clip.frames is None or clip.audio is None or pruned.pruner.stage != "input" or not _mostly_sound(kept):
        return None
    length = Fraction(clip.seconds_per_frame) * len(clip.frames)
    counts = counts_above_cap(length, options)
    if not counts or len(clip.frames) < frame_count(length, options):  # all that there are
        return None
    budget_of = lambda count: _budget(backbone, clip, options, count, pruned.keep)
    at = bisect.bisect_left(counts, True, key=lambda count: not _mostly_sound(budget_of(count)))
    advice = "--no-audio leaves it out"
    if at < len(counts):
        more = f"--max-frames {counts[at]} makes it half, with {budget_of(counts[at]).count:,} kept tokens"
        advice = f"{more}; {advice}"
    return (
        f"{kept.audio / kept.count:.0%} of the {kept.count:,} kept tokens are sound, as {len(clip.frames)} frames "
        f"stand for {duration(clip.duration_s)}: {advice}"
    )


def _mostly_sound(budget: Budget) -> bool:
    return budget.audio > budget.video


def _budget(backbone: Backbone, clip: Clip, options: DecodeOptions, frames: int, keep: float) -> Budget:
    """That of the same clip, read with ``frames``."""
    assert clip.audio is not None
    pixels = options.frame_pixels(frames)
    width, height = fit_size(clip.source_width, clip.source_height, pixels, options.side_multiple)
    grids, video, audio = backbone.media_tokens(frames, height, width, len(clip.audio))
    return split(video, audio, grids, keep)
