"""generation_config.json: what a checkpoint says about how its tokens are chosen, and what of that is followed.

Followed are ``repetition_penalty`` and ``eos_token_id``. Sampling stays the user's (``--temperature``), as does the
length of an answer; ``pad_token_id`` pads nothing here. Imports nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cg_cli.errors import UsageError

GENERATION = "generation_config.json"
PENALTY = "repetition_penalty"
SAMPLING = (
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip
# Fields that can change greedy answers and are not followed, with the value that changes nothing.
NOT_FOLLOWED = {"num_beams": 1, "guidance_scale": 1, "encoder_repetition_penalty": 1} | dict.fromkeys(
    (
        "min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
        "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias",
        "exponential_decay_length_penalty", "force_words_ids", "constraints", "penalty_alpha", "dola_layers",
        "stop_strings", "max_time", "watermarking_config",
    ),
    0,
)  # fmt: skip


@dataclass(frozen=True)
class GenerationSettings:
    """What a checkpoint says about choosing tokens.

    Attributes:
        repetition_penalty: of tokens that prompt or answer have already; 1 is none.
        said: the numbers of the file about penalty and sampling, for the record.
        warnings: a line for what would change answers and is not followed.
    """

    repetition_penalty: float = 1.0
    said: Mapping[str, float | bool] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def is_whole(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of an omni model with its talker. The ``generate`` of such a model hands nothing of
    generation_config.json to the thinker, which writes the text with what config.json says alone."""
    return "thinker_config" in config


def read(config: Mapping[str, Any], generation: Mapping[str, Any], name: str) -> GenerationSettings:
    """What the checkpoint ``name`` says.

    Args:
        config, generation: its config.json and its generation_config.json; that may be empty.

    Raises:
        UsageError: a penalty that is none.
    """
    penalty = generation.get(PENALTY)
    if is_whole(config):
        if penalty in (None, 1):
            return GenerationSettings()
        line = (
            f"{GENERATION} of {name} has {PENALTY} {penalty!r:.20}, which the model's own generate does not apply to "
            "text: cg does not either, unless --repetition-penalty says so"
        )
        return GenerationSettings(warnings=(line,))
    if penalty is None:
        penalty = 1.0
    if not isinstance(penalty, int | float) or isinstance(penalty, bool) or not 0 < penalty < math.inf:
        raise UsageError(f"{GENERATION} of {name} has {PENALTY} {penalty!r:.20}: it must be a number above 0")
    others = [key for key, neutral in NOT_FOLLOWED.items() if not _neutral(generation.get(key), neutral)]
    warnings: tuple[str, ...] = ()
    if others:
        warnings = (f"{GENERATION} of {name} sets {', '.join(others)}, which cg does not follow: answers may differ",)
    said = {key: generation[key] for key in (PENALTY, *SAMPLING) if _is_number(generation.get(key))}
    return GenerationSettings(float(penalty), said, warnings)


def _neutral(value: Any, neutral: int) -> bool:
    return value is None or value == neutral or value in ([], {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
