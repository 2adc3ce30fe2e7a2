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
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
        use_attribute_docstrings=True,
    )


class Model(_Model):
    """What answered, and on what."""

    id: Text
    """Name in the catalogue, hub id, or path of a folder."""
    revision: Text | None
    """Commit on the hub, or a hash of the weights."""
    family: Text
    """The backbone that ran it, e.g. ``qwen2_5_omni``."""
    device: Text
    """``cpu``, ``cuda:0`` ..."""
    device_name: Text
    """What the device calls itself."""
    dtype: Text
    """Of the weights."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """What the language model's linear layers were quantized to."""
    adapter: Text | None = None
    """The LoRA adapter that was merged into it; its hash or commit is part of ``revision``."""
    generation_config: dict[str, bool | int | float] = {}
    """What the checkpoint's generation_config.json says of penalty and sampling; ``sampling`` has what was done."""


class Pruning(_Model):
    """What was asked of the pruner; ``tokens`` has what came out."""

    name: Text
    """Name of the pruner."""
    preset: Text | None
    """The preset that chose pruner and keep."""
    keep: Ratio
    """Share of audio and video tokens that it was told to keep; after running out of memory less than was asked for."""
    predictor: Text | None
    """The audio-to-visual predictor that it read."""
    options: dict[str, JsonValue]
    """Options of the pruner."""
    requested_keep: Ratio | None = None
    """The share that was asked for."""
    version: int | None = None
    """Raised when the same options keep other tokens."""
    implementation: Text | None = None
    """Tells the pruner from others of its name."""
    predictor_sha256: Text | None = None
    """SHA-256 of the predictor's weights."""


class Media(_Model):
    """What was read from the file."""

    duration_s: NonNegativeFloat
    """Seconds from the first frame or sound to the end of the last."""
    frames: NonNegativeInt
    """Frames that the model got."""
    fps: NonNegativeFloat
    """Frames a second that the model got."""
    width: NonNegativeInt
    """Of a frame that the model got, in pixels."""
    height: NonNegativeInt
    """Of a frame that the model got, in pixels."""
    source_width: NonNegativeInt
    """Of the video as a player shows it."""
    source_height: NonNegativeInt
    """Of the video as a player shows it."""
    audio: Literal["used", "absent", "off", "failed"]
    """Whether its sound was used; ``off``: by ``--no-audio``; ``failed``: it could not be decoded."""
    audio_s: NonNegativeFloat
    """Seconds of sound that were used."""
    complete: bool
    """Whether all of the file could be read; ``warnings`` say what could not."""
    content: Text | None = None
    """SHA-256 of the file."""
    options: dict[str, JsonValue] = {}
    """How the file was to be read."""
    audio_track: PositiveInt | None = None
    """The sound track that was used, from 1 on."""
    grids: NonNegativeInt | None = None
    """Grids of frames, each of which is encoded on its own."""
    grids_encoded: NonNegativeInt | None = None
    """Those of them that were encoded; the others repeat one that was."""
    grid_starts: list[NonNegativeFloat] | None = None
    """When each grid of frames starts, in seconds; null where they are evenly spaced."""


class Tokens(_Model):
    """Counts off the real tensors."""

    video: NonNegativeInt
    """Video tokens of the clip."""
    video_kept: NonNegativeInt
    """Those that the language model read."""
    audio: NonNegativeInt
    """Audio tokens of the clip."""
    audio_kept: NonNegativeInt
    """Those that the language model read."""
    text: NonNegativeInt
    """Tokens of the prompt before the question."""
    keep: Annotated[float, Field(ge=0, le=1)]
    """Kept audio and video tokens over all of them; text never counts."""
    question: NonNegativeInt
    """Tokens of the question and what follows it."""
    answer: NonNegativeInt
    """Tokens of the answer."""
    counted: Literal["input", "last_layer", "layer_mean"] = "input"
    """Where kept tokens were counted: at the language model's input, or, with a pruner between its layers, in the last
    layer or as the mean over layers."""


class Flops(_Model):
    """Floating point operations, computed from sizes; a multiply-add is two, attention to later tokens none."""

    vision: NonNegativeInt
    """Of the vision tower, for what it was shown."""
    vision_full: NonNegativeInt | None = None
    """Of the vision tower for all frames, those included that repeat others."""
    audio: NonNegativeInt
    """Of the audio tower, for what it was given."""
    audio_full: NonNegativeInt | None = None
    """Of the audio tower for all sound, that included which repeats other."""
    predictor: NonNegativeInt
    """Of the audio-to-visual predictor."""
    prefill: NonNegativeInt
    """Of reading the kept tokens."""
    prefill_full: NonNegativeInt
    """What reading all tokens would take."""
    decode: NonNegativeInt
    """Of this question and its answer."""


class Latency(_Model):
    """Seconds of wall clock by stage. Of questions decoded side by side, ``decode`` is an equal share."""

    media: NonNegativeFloat
    """Reading the file."""
    encode: NonNegativeFloat
    """The towers."""
    prune: NonNegativeFloat
    """Choosing the tokens."""
    prefill: NonNegativeFloat
    """Reading the kept tokens."""
    decode: NonNegativeFloat
    """The question and its answer."""
    total: NonNegativeFloat
    """What this answer took: without what an earlier question on the clip paid for."""
    first_token: NonNegativeFloat | None = None
    """The part of ``decode`` until the first token; unknown of questions decoded side by side."""


class Memory(_Model):
    """Bytes."""

    peak_bytes: NonNegativeInt
    """Peak of tensors on a CUDA device during the clip; on a CPU, of the whole process."""
    kv_bytes: NonNegativeInt
    """The clip's KV cache after prefill."""


class Sampling(_Model):
    """How the tokens of the answer were chosen."""

    max_new_tokens: PositiveInt
    """Length of an answer at most."""
    temperature: NonNegativeFloat
    """0: greedy."""
    seed: NonNegativeInt
    """Of what was drawn."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Divisor of the logits of tokens that prompt or answer had already; 1: none."""


class Rules(_Model):
    """Versions of the rules that made the answer."""

    prompt: Text
    """The words around the question."""
    media: int
    """How files are read."""
    merge: int
    """How dropped tokens merge into kept ones."""
    decode: int
    """How logits become text."""
    positions: Text | None = None
    """Which of the family's sets of rotary positions; null where it has one."""


class Check(_Model):
    """The same question to the whole clip (``cg batch --check``)."""

    answer: Annotated[str, Field(min_length=1)]
    """Its answer."""
    agrees: bool | None = None
    """Whether both give the same choice, or the same words."""


class Error(_Model):
    """Why a question was not answered."""

    stage: Stage
    """Where it failed."""
    type: Text
    """A stable name, e.g. ``not_found``."""
    message: Text
    """One line: what is wrong, and the next step."""


class _Record(_Model):
    schema_: Literal["cg.answer/1"] = Field(default="cg.answer/1", alias="schema")
    """``cg.answer/1``."""
    ok: bool
    """Whether there is an answer."""
    key: Text
    """Covers everything that can change the answer."""
    id: Text | int | None = None
    """From the manifest."""
    video: Text
    """Path as it was given."""
    question: Text
    """As it was asked."""


class Answer(_Record):
    """One answered question.

    ValidationError for an empty answer: that is a Failure, and has to say why.
    """

    ok: Literal[True] = True
    """There is an answer."""
    answer: Annotated[str, Field(min_length=1)]
    """The answer; never empty."""
    finish: Literal["stop", "length"]
    """Why it ends: the model ended it, or ``--max-new-tokens`` did."""
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
    """Version of cg."""
    created: Text | None = None
    """When, in UTC (ISO 8601)."""
    prefix_reused: bool = False
    """Whether an earlier question on the clip paid for reading, encoding, pruning and prefill."""
    answered_together: PositiveInt = 1
    """Questions that were decoded side by side, of this clip and of others."""
    check: Check | None = None
    """Of a clip that ``--check`` drew: what the whole of it says."""
    warnings: tuple[Text, ...] = ()
    """What is odd about the file, the model or the predictor, a line each."""


class Failure(_Record):
    """One question that was not answered."""

    ok: Literal[False] = False
    """There is no answer."""
    error: Error
    cg: Text | None = None
    """Version of cg."""
    created: Text | None = None
    """When, in UTC (ISO 8601)."""
    attempts: PositiveInt = 1
    """How often it was tried, over all runs."""


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
