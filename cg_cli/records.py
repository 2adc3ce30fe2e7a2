"""The Answer record ``cg.answer/1``: its shape, its JSON schema, its lines, and the key that makes batches resumable.

Keys are added, never renamed; a reader keeps keys that it does not know. Imports pydantic, so light modules import this
one only when they need it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

SCHEMA = "cg.answer/1"
MIB = 1024 * 1024  # bytes; how much of either end of a file goes into its identity
KEY_BYTES = 16

# Plain `str` refuses lone surrogates, by which Python carries the undecodable bytes of a file name (os.fsdecode).
Text = InstanceOf[str]
Ratio = Annotated[float, Field(gt=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="allow", allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


class Model(_Model):
    """What answered, and on what: ``family`` names the backbone, ``device`` is e.g. ``cpu`` or ``cuda:0``, ``quantize``
    what its language model's weights were rounded to."""

    id: Text
    revision: Text | None
    family: Text
    device: Text
    device_name: Text
    dtype: Text
    quantize: Literal["none", "int8", "int4"] = "none"


class Pruning(_Model):
    """What was asked of the pruner; ``keep`` is the requested ratio, ``Tokens.keep`` what came out."""

    name: Text
    preset: Text | None
    keep: Ratio
    predictor: Text | None
    options: dict[str, JsonValue]


class Media(_Model):
    """What was read from the file: seconds, frames used and their size in pixels after and before resizing."""

    duration_s: NonNegativeFloat
    frames: NonNegativeInt
    fps: NonNegativeFloat
    width: NonNegativeInt
    height: NonNegativeInt
    source_width: NonNegativeInt
    source_height: NonNegativeInt
    audio: Literal["used", "absent", "off", "failed"]
    audio_s: NonNegativeFloat
    complete: bool


class Tokens(_Model):
    """Counts off the real tensors. ``text`` is the prefix's text; ``keep`` is kept / all audio and video tokens.

    ``counted`` says where those that are kept were counted: at the language model's ``input``, or, with a pruner that
    works between its layers, in the ``last_layer`` or as a mean over layers.
    """

    video: NonNegativeInt
    video_kept: NonNegativeInt
    audio: NonNegativeInt
    audio_kept: NonNegativeInt
    text: NonNegativeInt
    keep: Annotated[float, Field(ge=0, le=1)]
    question: NonNegativeInt
    answer: NonNegativeInt
    counted: Literal["input", "last_layer", "layer_mean"] = "input"


class Flops(_Model):
    """Floating point operations; ``prefill_full`` is what prefill would have cost without pruning."""

    vision: NonNegativeInt
    audio: NonNegativeInt
    predictor: NonNegativeInt
    prefill: NonNegativeInt
    prefill_full: NonNegativeInt
    decode: NonNegativeInt


class Latency(_Model):
    """Seconds of wall clock by stage; ``first_token`` is the part of ``decode`` until the first token of the answer.

    Of questions answered together, ``decode`` is an equal share, and ``first_token`` unknown.
    """

    media: NonNegativeFloat
    encode: NonNegativeFloat
    prune: NonNegativeFloat
    prefill: NonNegativeFloat
    decode: NonNegativeFloat
    total: NonNegativeFloat
    first_token: NonNegativeFloat | None = None


class Memory(_Model):
    """Bytes: the peak of the process on its device, and the KV cache after prefill."""

    peak_bytes: NonNegativeInt
    kv_bytes: NonNegativeInt


class Error(_Model):
    """Why an item failed; ``type`` is a stable name such as ``not_found``."""

    stage: Literal["media", "encode", "prune", "prefill", "decode"]
    type: Text
    message: Text


class _Record(_Model):
    schema_: Literal["cg.answer/1"] = Field(default=SCHEMA, alias="schema")
    ok: bool
    key: Text
    id: Text | int | None = None
    video: Text
    question: Text


class Answer(_Record):
    """One answered question; ``prefix_reused`` says that an earlier question on the clip paid for stages 1 to 4,
    ``answered_together`` how many questions on the clip were decoded side by side.

    ValidationError for an empty answer: that is a Failure, and has to say why.
    """

    ok: Literal[True] = True
    answer: Annotated[str, Field(min_length=1)]
    finish: Literal["stop", "length"]
    model: Model
    pruner: Pruning
    media: Media
    tokens: Tokens
    flops: Flops
    latency_s: Latency
    memory: Memory
    prefix_reused: bool = False
    answered_together: PositiveInt = 1
    warnings: tuple[Text, ...] = ()


class Failure(_Record):
    """One question that was not answered, in so many attempts."""

    ok: Literal[False] = False
    error: Error
    attempts: PositiveInt = 1


Record = Answer | Failure
_ADAPTER: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="ok")])

# Left alone by JSON, but not by readers: C1 controls and the separators U+2028/2029 end a line or steer a terminal, and
# a lone surrogate cannot be written as UTF-8 at all. All of them can only sit inside a JSON string.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def failure(identity: Mapping[str, str], stage: str, kind: str, message: str, **more: Any) -> Failure:
    """The record of a question that was not answered; ``identity`` is its key, video and question."""
    return Failure(**identity, error=Error(stage=stage, type=kind, message=message), **more)


def prefills(answers: Sequence[Answer]) -> int:
    """Operations of all the prefills that the answers on one clip took: one, or one each where the pruner read the
    question."""
    own = [answer for answer in answers if not answer.prefix_reused] or answers[:1]
    return sum(answer.flops.prefill for answer in own)


def to_line(record: Record) -> str:
    """``record`` as one line of JSON without its newline, always valid UTF-8. ValueError for a NaN or an infinity."""
    text = json.dumps(record.model_dump(by_alias=True), ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def from_line(line: str | bytes) -> Record:
    """The record in ``line``. ValueError, in one line, if there is none."""
    data = json.loads(line)  # JSONDecodeError and UnicodeDecodeError are ValueErrors
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"not a {SCHEMA} record")
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # A union's location starts with the branch taken, which is no key of the record.
        raise ValueError(f"{'.'.join(map(str, first['loc'][1:])) or 'ok'}: {first['msg']}") from error


def json_schema() -> dict[str, Any]:
    """The JSON schema of a line as this version writes it: an Answer or a Failure."""
    schema = _ADAPTER.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **schema}


def video_identity(path: str | Path) -> str:
    """What tells one version of a video file from another: size, modification time, and its first and last MiB.

    Does not depend on the path, unless there is no regular file to read: then on the path alone, so that the failure to
    come has a key as well, and another one than the file will have.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would consume it
            return f"unread:{os.fspath(path)}"
        with open(path, "rb") as file:
            digest = hashlib.blake2b(file.read(MIB), digest_size=KEY_BYTES)
            file.seek(max(0, status.st_size - MIB))
            digest.update(file.read(MIB))
    except OSError:
        return f"unread:{os.fspath(path)}"
    return f"{status.st_size}:{status.st_mtime_ns}:{digest.hexdigest()}"


def record_key(
    *,
    video: str,
    question: str,
    model: str,
    revision: str | None,
    pruner: str,
    keep: float,
    options: Mapping[str, JsonValue],
    predictor: str | None,
    fps: float,
    max_frames: int,
    max_pixels: int,
    audio: bool,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    prompt_version: str,
    min_frames: int = 0,
    video_pixels: int = 0,
    quantize: str = "none",
) -> str:
    """The key of an answer: 32 hex digits over everything that may change it, the same in every process.

    Args:
        video: from ``video_identity``.
        options: all options of the pruner, defaults included, so that a changed default changes the key.
        predictor: what identifies its weights, e.g. their hash.
        fps, max_frames, max_pixels, audio, min_frames, video_pixels: how the file is sampled, as in ``DecodeOptions``.
    """
    parts: list[JsonValue] = [
        *(video, question, model, revision, pruner, float(keep), dict(options), predictor),
        *(float(fps), max_frames, max_pixels, audio, max_new_tokens, float(temperature), seed, prompt_version),
    ]
    if min_frames or video_pixels:  # or else archives from before they existed would be of no use any more
        parts += [min_frames, video_pixels]
    if quantize != "none":
        parts += [quantize]
    canonical = json.dumps(parts, sort_keys=True, allow_nan=False)  # ASCII, lone surrogates included
    return hashlib.blake2b(canonical.encode("ascii"), digest_size=KEY_BYTES).hexdigest()
