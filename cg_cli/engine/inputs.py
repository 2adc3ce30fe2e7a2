"""Everything that can change an answer, and the key of a record that is made from it. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cg_cli.util.hashing import cached_sha256

KEY_BYTES = 16
UNREAD = "unread:"
# Options of reading that came later, at the value that reads as before: it is no part of the key, so that answers of
# before keep theirs.
LATER_MEDIA = {
    "frames": "uniform", "look_once": None, "spread_pixels": 0.0, "audio_on_clock": True, "stereo_gain": 0.5
}  # fmt: skip


LATER_SAMPLING = {"repetition_penalty": 1.0}  # the same of choosing tokens ...
LATER_POSITIONS = (None, "training")  # ... and of the set of positions


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen: greedy at temperature 0, else sampled with ``seed``; a repetition penalty
    of None is the checkpoint's own."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class AnswerInputs:
    """What an answer depends on. Two answers with equal inputs are the same answer; whatever could make them differ is
    here.

    Attributes:
        video: ``video_content`` of the file.
        question: as it was asked.
        prompt: version of the words around clip and question (``Backbone.prompt_version``).
        model, weights: the model's name, and a hub commit or a hash of all bytes of a local checkpoint.
        dtype, quantize: numerics of the weights.
        pruner, pruner_version, pruner_options: fingerprint of its class, its rule's version, and all options, defaults
            included, so that a changed default changes the key.
        keep: share of audio and video tokens.
        predictor: SHA-256 of the audio-to-visual predictor's file; None without one.
        media: how the file is sampled (``DecodeOptions`` without the time limit).
        media_version, merge_version, decode_version: of the rules that turn a file into a Clip, fold dropped tokens
            into kept ones, and turn logits into text.
        sampling: ``Sampling`` as a mapping, with the penalty in force.
        positions: the set of rotary positions, of a family with several.
    """

    video: str
    question: str
    prompt: str
    model: str
    weights: str
    dtype: str
    quantize: str
    pruner: str
    pruner_version: int
    pruner_options: Mapping[str, Any]
    keep: float
    predictor: str | None
    media: Mapping[str, Any]
    media_version: int
    merge_version: int
    decode_version: int
    sampling: Mapping[str, Any]
    positions: str | None = None

    @property
    def key(self) -> str:
        """32 hex digits, the same in every process and for every spelling of a number. ValueError for a NaN."""
        values = asdict(self)
        for name, later in (("media", LATER_MEDIA), ("sampling", LATER_SAMPLING)):
            values[name] = {key: value for key, value in values[name].items() if later.get(key) != value}
        if self.positions in LATER_POSITIONS:
            del values["positions"]
        values = _plain(values)
        canonical = json.dumps(values, sort_keys=True, allow_nan=False)  # ASCII, lone surrogates included
        return hashlib.blake2b(canonical.encode("ascii"), digest_size=KEY_BYTES).hexdigest()

    def keys(self, video: str, questions: Sequence[str]) -> list[str]:
        """The keys of ``questions`` about a video, which is given by its content."""
        return [replace(self, video=video, question=question).key for question in questions]


def _plain(value: Any) -> Any:
    """``value`` with whole floats as integers: 1 and 1.0 are one number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def video_content(path: str | Path) -> str:
    """What tells one video from another: SHA-256 of all bytes of the file, whatever its name, place and age.

    Where there is no regular file to read, its path after UNREAD, so that the failure to come has a key as well, and
    another one than the file will have.
    """
    try:
        return cached_sha256(path)
    except OSError:
        return f"{UNREAD}{os.fspath(path)}"


def conditions(inputs: AnswerInputs) -> dict[str, Any]:
    """What an answer depends on besides video and question, by names for people; as ``conditions_of_record``."""
    named = {
        "model": inputs.model,
        "weights": inputs.weights,
        "dtype": inputs.dtype,
        "quantize": inputs.quantize,
        "pruner": inputs.pruner,
        "pruner version": inputs.pruner_version,
        "pruner options": dict(inputs.pruner_options),
        "keep": inputs.keep,
        "predictor": inputs.predictor,
        "prompt version": inputs.prompt,
        "media version": inputs.media_version,
        "merge version": inputs.merge_version,
        "decode version": inputs.decode_version,
        "positions": inputs.positions,
    }
    return _plain({**named, **_options(inputs.media), **_options(inputs.sampling)})


def conditions_of_record(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same, from an answer's record; None of one that does not say, as those of versions before had it."""
    try:
        model, pruner, rules = record["model"], record["pruner"], record["rules"]
        named = {
            "model": model["id"],
            "weights": model["revision"],
            "dtype": model["dtype"],
            "quantize": model["quantize"],
            "pruner": pruner["implementation"],
            "pruner version": pruner["version"],
            "pruner options": pruner["options"],
            "keep": pruner["requested_keep"],
            "predictor": pruner["predictor_sha256"],
            "prompt version": rules["prompt"],
            "media version": rules["media"],
            "merge version": rules["merge"],
            "decode version": rules["decode"],
            "positions": rules.get("positions"),
        }
        media = {**LATER_MEDIA, **record["media"]["options"]}
        sampling = {**LATER_SAMPLING, **record["sampling"]}
        return _plain({**named, **_options(media), **_options(sampling)})
    except (KeyError, TypeError, AttributeError):
        return None


def conditions_of_before(stored: Mapping[str, Any]) -> dict[str, Any]:
    """``conditions`` as they were written by this version or one before: options that came later had the value that
    reads as before."""
    return _plain({**_options(LATER_MEDIA), **_options(LATER_SAMPLING), **stored})


def describe_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """What differs, in words: ``keep 0.45, now 0.25``; "" where nothing does."""
    if before is None:
        return "a version of cg whose records do not say how"
    changes = [
        f"{name} {_short(before.get(name))}, now {_short(value)}"
        for name, value in after.items()
        if before.get(name) != value
    ]
    return "; ".join(changes)


def _options(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in values.items()}


def _short(value: Any) -> str:
    """Hashes are told by their first digits."""
    text = "none" if value is None else str(value)
    return f"{text[:8]}..." if len(text) == 64 and text.isalnum() else text
