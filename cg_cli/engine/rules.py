"""The versions of the rules behind an answer, put together with everything else that it depends on."""

from __future__ import annotations

from dataclasses import asdict, replace

from cg_cli.backbones.base import Backbone
from cg_cli.backbones.decoding import DECODE_VERSION
from cg_cli.engine.inputs import AnswerInputs, Sampling
from cg_cli.media.clip import MEDIA_VERSION, DecodeOptions
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.stream import MERGE_VERSION


def answer_inputs(
    backbone: Backbone | type[Backbone],
    model: str,
    weights: str,
    dtype: str,
    quantize: str,
    pruner: Pruner,
    keep: float,
    predictor: str | None,
    decode_options: DecodeOptions,
    sampling: Sampling,
    repetition_penalty: float,
    positions: str | None,
) -> AnswerInputs:
    """What answers depend on; video and question are left empty. It can be told before the model is loaded.

    Args:
        model, weights: its name, and the commit or hash of its weights.
        predictor: SHA-256 of the predictor's weights; None without one.
        repetition_penalty: of the checkpoint, where ``sampling`` has none.
        positions: the family's set of rotary positions, where it has several.
    """
    media = asdict(decode_options)
    del media["timeout_s"]  # may prevent an answer, but not change it
    del media["decoder"]  # the same frames, whichever it is
    return AnswerInputs(
        video="",
        question="",
        prompt=backbone.prompt_version,
        model=model,
        weights=weights,
        dtype=dtype,
        quantize=quantize,
        pruner=pruner.fingerprint(),
        pruner_version=pruner.version,
        pruner_options=pruner.options(),
        keep=keep,
        predictor=predictor,
        media=media,
        media_version=MEDIA_VERSION,
        merge_version=MERGE_VERSION,
        decode_version=DECODE_VERSION,
        sampling=asdict(_in_force(sampling, repetition_penalty)),
        positions=positions,
    )


def _in_force(sampling: Sampling, repetition_penalty: float) -> Sampling:
    if sampling.repetition_penalty is not None:
        return sampling
    return replace(sampling, repetition_penalty=repetition_penalty)
