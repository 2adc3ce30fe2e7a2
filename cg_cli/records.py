"""The Answer record ``cg.answer/1``: its shape, its JSON schema, and its lines.

Keys are added, never renamed; a reader keeps keys that it does not know. Imports pydantic, so light modules import this
one only when they need it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
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
Stage = Literal["media", "encode", "prune", "prefill", "decode"]

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
    """What was asked of the pruner; ``keep`` is the ratio that it was given (after running out of memory less than
    ``requested_keep``), ``Tokens.keep`` what came out. ``implementation`` and
    ``version`` tell its rule from others of its name, ``predictor_sha256`` the weights of its predictor."""

    name: Text
    preset: Text | None
    keep: Ratio
    predictor: Text | None
    options: dict[str, JsonValue]
    requested_keep: Ratio | None = None
    version: int | None = None
    implementation: Text | None = None
    predictor_sha256: Text | None = None


class Media(_Model):
    """What was read from the file: seconds, frames used and their size in pixels after and before resizing. ``content``
    is the SHA-256 of the file, ``options`` how it was to be read, ``audio_track`` the sound track used, from 1 on."""

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
    content: Text | None = None
    options: dict[str, JsonValue] = {}
    audio_track: PositiveInt | None = None


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


class Sampling(_Model):
    """How the tokens of the answer were chosen: greedy at temperature 0, else sampled with ``seed``."""

    max_new_tokens: PositiveInt
    temperature: NonNegativeFloat
    seed: NonNegativeInt


class Rules(_Model):
    """Versions of the rules that made the answer: the words of the prompt, how files are read, how dropped tokens
    merge, how logits become text."""

    prompt: Text
    media: int
    merge: int
    decode: int


class Error(_Model):
    """Why an item failed; ``type`` is a stable name such as ``not_found``."""

    stage: Stage
    type: Text
    message: Text


class _Record(_Model):
    schema_: Literal["cg.answer/1"] = Field(default="cg.answer/1", alias="schema")
    ok: bool
    key: Text
    id: Text | int | None = None
    video: Text
    question: Text


class Answer(_Record):
    """One answered question; ``prefix_reused`` says that an earlier question on the clip paid for stages 1 to 4,
    ``answered_together`` how many questions on the clip were decoded side by side, ``cg`` and ``created`` which version
    of this program made it, and when (UTC, ISO 8601).

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
    sampling: Sampling | None = None
    rules: Rules | None = None
    cg: Text | None = None
    created: Text | None = None
    prefix_reused: bool = False
    answered_together: PositiveInt = 1
    warnings: tuple[Text, ...] = ()


class Failure(_Record):
    """One question that was not answered, in so many attempts."""

    ok: Literal[False] = False
    error: Error
    cg: Text | None = None
    created: Text | None = None
    attempts: PositiveInt = 1


Record = Answer | Failure
_ADAPTER: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="ok")])

# Left alone by JSON, but not by readers: C1 controls and the separators U+2028/2029 end a line or steer a terminal,
# U+202A-202E and U+2066-2069 turn the direction of writing, and a lone surrogate cannot be written as UTF-8 at all. All
# of them can only sit inside a JSON string.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def failure(identity: Mapping[str, str], stage: str, kind: str, message: str, **more: Any) -> Failure:
    """The record of a question that was not answered; ``identity`` is its key, video and question."""
    return Failure.model_validate({**identity, "error": {"stage": stage, "type": kind, "message": message}, **more})


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
