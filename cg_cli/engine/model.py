"""The library's own objects: a loaded Model reads clips and prefills them; a Context answers questions about one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from cg_cli import records
from cg_cli.backbones.base import Backbone
from cg_cli.engine import answer, kept, pipeline
from cg_cli.engine.inputs import AnswerInputs, Sampling, video_content
from cg_cli.engine.kept import TokenTable
from cg_cli.engine.pipeline import Prefilled
from cg_cli.engine.session import Session
from cg_cli.errors import ItemError, UsageError
from cg_cli.media import defaults
from cg_cli.media.client import decode
from cg_cli.media.clip import CPU, UNIFORM, Clip, DecodeOptions
from cg_cli.predictors import lookup
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.methods.none import KeepAll
from cg_cli.settings import models
from cg_cli.settings.look_once import EXACT, levels


def load(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str = "none",
    offline: bool = False,
    positions: str = "auto",
    adapter: str | None = None,
) -> Model:
    """Load a model.

    Args:
        model: a name (``nano``, ``qwen2.5-omni-7b`` ...), a directory, or OWNER/NAME on the Hugging Face hub; "auto"
            takes the Qwen2.5-Omni that fits the GPU.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (bfloat16 on a GPU, float32 on the CPU), "float32", "bfloat16" or "float16".
        quantize: "none", or "int8" or "int4" for the language model's linear layers.
        offline: use only what is on this machine.
        positions: "training" or "inference", of a family that has both; "auto" takes its usual one.
        adapter: a LoRA adapter to merge into it: a folder, or OWNER/NAME on the hub.

    Raises:
        UsageError: no such model, or one that cannot be loaded here.
    """
    models.check_name(model)
    name = models.choose(model, device)
    backbone = models.load(
        name,
        device=device,
        dtype=dtype,
        offline=offline,
        quantize=quantize,
        positions=positions,
        adapter=adapter,
    )
    return Model(backbone, quantize, offline)


@dataclass(frozen=True)
class Model:
    """A loaded model."""

    backbone: Backbone
    quantize: str = "none"
    offline: bool = False

    def read(
        self,
        video: str | Path,
        *,
        fps: float = defaults.FPS,
        max_frames: int = defaults.MAX_FRAMES,
        max_pixels: int = defaults.MAX_PIXELS,
        min_frames: int = 0,
        video_pixels: int = 0,
        audio: bool = True,
        audio_track: int = 0,
        frames: str = UNIFORM,
        spread_pixels: float = 0.0,
        look_once: str = EXACT,
        timeout_s: float = defaults.TIMEOUT_S,
        decoder: str = CPU,
    ) -> Clip:
        """Decode a media file, in a process of its own, into what this model reads; arguments as in ``DecodeOptions``.

        Raises:
            ItemError: stage "media": the file cannot be read.
        """
        options = DecodeOptions(
            fps=fps,
            max_frames=max_frames,
            max_pixels=max_pixels,
            side_multiple=self.backbone.side_multiple,
            frame_multiple=self.backbone.frame_multiple,
            audio=audio,
            timeout_s=timeout_s,
            min_frames=min_frames,
            video_pixels=video_pixels,
            audio_track=audio_track,
            frames=frames,
            look_once=levels(look_once),
            decoder=decoder,
            spread_pixels=spread_pixels,
            audio_on_clock=self.backbone.audio_on_clock,
            stereo_gain=self.backbone.stereo_gain,
        )
        content = video_content(video)
        return replace(decode(str(video), options), content=content, options=options)

    def prefill(
        self, clip: Clip, *, pruner: Pruner | None = None, keep: float = 1.0, predictor: str = lookup.AUTO
    ) -> Context:
        """Encode a clip, keep a share of its tokens, and have the language model read them once.

        Args:
            pruner: which tokens stay; None keeps all.
            keep: share of audio and video tokens that stays, in (0, 1].
            predictor: for a pruner that reads an audio-to-visual predictor and has none yet: a name, file, folder or
                hub repository; "auto" takes the model's default.

        Raises:
            UsageError: ``keep`` is no ratio, there is no pruner for it, or the predictor does not fit.
            ItemError: a stage failed.
        """
        if not 0 < keep <= 1:
            raise UsageError(f"keep must be above 0 and at most 1, not {keep}")
        if pruner is None and keep < 1:
            raise UsageError(f"keep {keep:g} takes a pruner, e.g. ContextGuard()")
        pruner, loaded = pruner or KeepAll(), None
        if pruner.needs_predictor and pruner.predictor is None:
            loaded = lookup.find_predictor(predictor, self.backbone, offline=self.offline)
            pruner = pruner.with_predictor(loaded.predictor) if loaded else pruner
        known = models.KNOWN.get(self.backbone.id.lower())
        warnings = [*([known.warning] if known and known.warning else []), *(loaded.notes if loaded else ())]
        session = Session(
            backbone=self.backbone,
            pruner=pruner,
            keep=keep,
            sampling=Sampling(),
            decode_options=clip.options or DecodeOptions(),
            predictor=loaded,
            quantize=self.quantize,
            warnings=(*warnings, *self.backbone.warnings),
        )
        return Context(session, pipeline.prepare(self.backbone, clip, pruner, keep))


@dataclass(frozen=True)
class Context:
    """A clip that the language model has read; every question shares its KV cache. Not to be used by two threads at
    once."""

    session: Session
    prefilled: Prefilled

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        seed: int = Sampling.seed,
        repetition_penalty: float | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> records.Answer:
        """Answer a question: the record ``cg.answer/1``, whose ``answer`` is the text.

        Args:
            max_new_tokens: length of the answer at most.
            temperature: 0 is greedy; above, tokens are sampled with ``seed``.
            repetition_penalty: above 0; 1 is off, None is what the checkpoint says.
            on_text: called with each piece of text as it is generated.

        Raises:
            ItemError: stage "prefill" or "decode": there is no answer.
        """
        sampling = Sampling(max_new_tokens, temperature, seed, repetition_penalty)
        (decoded,) = pipeline.decode(self.session.backbone, self.prefilled, [question], sampling, on_text)
        return self._record(question, decoded, sampling)

    def ask_all(
        self,
        questions: Sequence[str],
        *,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        seed: int = Sampling.seed,
        repetition_penalty: float | None = None,
    ) -> list[records.Answer]:
        """Answer several questions side by side, in fewer and larger steps: the answers of ``ask``. Raises as
        ``ask``."""
        sampling = Sampling(max_new_tokens, temperature, seed, repetition_penalty)
        answers = pipeline.decode(self.session.backbone, self.prefilled, questions, sampling)
        return [self._record(question, decoded, sampling) for question, decoded in zip(questions, answers)]

    @cached_property
    def _tables(self) -> tuple[TokenTable, TokenTable]:
        pruned = self.prefilled.pruned
        stream, selection = pruned.encoded.stream, pruned.selection
        explanation = pruned.pruner.explanation(stream, pruned.budget, selection)
        return kept.split_table(kept.token_table(stream, selection, explanation), selection)

    @property
    def selection(self) -> TokenTable:
        """The tokens that were kept, as arrays."""
        return self._tables[0]

    @property
    def dropped(self) -> TokenTable:
        """The tokens that were dropped, and what they were merged into."""
        return self._tables[1]

    def _record(self, question: str, decoded: pipeline.Decoded, sampling: Sampling) -> records.Answer:
        session, clip = replace(self.session, sampling=sampling), self.prefilled.pruned.encoded.clip
        inputs: AnswerInputs = replace(session.inputs, video=clip.content)
        identity = answer.identity(inputs, clip.path, question)
        record = session.record(identity, inputs, self.prefilled, decoded, media_seconds=0.0, reused=False)
        if isinstance(record, records.Failure):
            raise ItemError("decode", record.error.message, record.error.type)
        return record
