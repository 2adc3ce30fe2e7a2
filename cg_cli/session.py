"""A loaded model and a pruner answer questions about clips: five numbered stages, from file to record.

The session knows no model family and no pruner by name, and prints nothing.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields

import torch

from . import media, models, records
from .a2v import store
from .backbones.base import Backbone, Generation, Prefix
from .config import Settings, decode_options
from .errors import CgError, ItemError
from .media.clip import Clip
from .pruning import budget as budgets
from .pruning import registry
from .pruning.base import Pruner
from .pruning.budget import Budget
from .pruning.stream import AUDIO, TEXT, VIDEO, TokenStream, apply

STAGES = ("media", "encode", "prune", "prefill", "decode")


@dataclass
class Prepared:
    """A clip that has been read, encoded, pruned and prefilled; questions are answered from it."""

    clip: Clip
    full: dict[str, int]  # tokens before pruning: video, audio, text
    kept: dict[str, int]
    prefix: Prefix
    flops: dict[str, int]
    seconds: dict[str, float]
    warnings: list[str] = field(default_factory=list)


@dataclass
class Session:
    """Answers questions with one model and one pruner. ``settings.model`` is the model that was chosen."""

    settings: Settings
    backbone: Backbone
    pruner: Pruner
    predictor: str | None  # its label
    warnings: tuple[str, ...]

    @classmethod
    def open(cls, settings: Settings) -> Session:
        """Load what ``settings`` ask for.

        Raises:
            UsageError: an unknown pruner, option, device or model, or a model that cannot be loaded.
        """
        pruner = _make_pruner(settings)
        warnings = []
        if settings.predictor and not pruner.needs_predictor:
            warnings.append(f"pruner {settings.pruner} uses no predictor: --predictor {settings.predictor} had no effect")
        name = models.choose(settings.model, settings.device)
        known = models.KNOWN.get(name.lower())
        backbone = models.load(name, device=settings.device, dtype=settings.dtype, offline=settings.offline)
        if known and known.warning:
            warnings.append(known.warning)
        found = store.find(settings.predictor, backbone) if pruner.needs_predictor else None
        if found:
            pruner = pruner.with_predictor(found.predictor)
        elif pruner.needs_predictor and settings.keep < 1:
            warnings.append(
                f"no audio-to-visual predictor for {name}: {settings.pruner} prunes by detail and time alone; "
                f"`cg train-predictor` makes one, --predictor FILE uses it"
            )
        return cls(settings, backbone, pruner, found.label if found else None, (*warnings, *backbone.warnings))

    def ask(
        self,
        video: str,
        questions: Sequence[str],
        *,
        on_stage: Callable[[str], None] = lambda stage: None,
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[records.Answer | records.Failure]:
        """One record a question, in order; a failure is a record too. All questions share one prefill.

        Args:
            video: path of a media file.
            questions: at least one.
            on_stage: told the name of each stage as it starts.
            on_text: told each piece of an answer as it is generated.
        """
        started = time.perf_counter()
        identity = records.video_identity(video)
        try:
            prepared = self._prepare(video, on_stage)
        except ItemError as error:
            for question in questions:
                yield self._failure(identity, video, question, error)
            return
        for number, question in enumerate(questions):
            on_stage("decode")
            try:
                with _stage("decode", self.backbone.device, prepared.seconds):
                    generation = self._answer(prepared, question, on_text)
            except ItemError as error:
                yield self._failure(identity, video, question, error)
            else:
                total = time.perf_counter() - started
                yield self._answered(identity, video, question, prepared, generation, total, reused=number > 0)
            started = time.perf_counter()

    def _prepare(self, video: str, on_stage: Callable[[str], None]) -> Prepared:
        """Stages 1 to 4. ItemError from whichever fails."""
        backbone, device, seconds = self.backbone, self.backbone.device, {}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        # 1. media: the file becomes a Clip
        on_stage("media")
        with _stage("media", device, seconds):
            clip = media.decode(video, decode_options(self.settings, backbone))

        # 2. encode: the towers turn it into tokens
        on_stage("encode")
        with _stage("encode", device, seconds):
            stream = backbone.encode(clip)

        # 3. prune: some of them stay
        on_stage("prune")
        with _stage("prune", device, seconds):
            budget = budgets.plan(stream, self.settings.keep)
            pruned = apply(stream, self.pruner.select(stream, budget))
            full, kept = _counts(stream), _counts(pruned)
            if kept["video"] + kept["audio"] != budget.count:
                raise ItemError(
                    "prune", f"pruner {self.settings.pruner} kept {kept} tokens where {budget} was the budget", "budget"
                )

        # 4. prefill: the language model reads them once, for all questions
        on_stage("prefill")
        with _stage("prefill", device, seconds):
            prefix = backbone.prefill(pruned)

        vision, audio = backbone.encode_flops(clip)
        flops = {
            "vision": vision,
            "audio": audio,
            "predictor": 0 if budget.count == full["video"] + full["audio"] else self._selection_flops(stream, budget, full),
            "prefill": backbone.decoder_flops(len(pruned), 0, 0),
            "prefill_full": backbone.decoder_flops(len(stream), 0, 0),
        }
        warnings = [*self.warnings, *clip.warnings]
        if self.predictor and not full["audio"] and self.settings.keep < 1:
            warnings.append(f"no sound to predict the picture from: {self.settings.pruner} prunes by detail and time alone")
        if prefix.next_position + self.settings.max_new_tokens > backbone.context_length:
            warnings.append(
                f"the clip reaches position {prefix.next_position} of the {backbone.context_length} that the model was made "
                f"for: answers may suffer; a shorter clip helps, a smaller --keep does not"
            )
        return Prepared(clip, full, kept, prefix, flops, seconds, warnings)

    def _selection_flops(self, stream: TokenStream, budget: Budget, full: dict[str, int]) -> int:
        grids = int(stream.grid.max()) + 1
        return self.pruner.flops(budget, full["audio"], full["video"], grids, self.backbone.hidden_size)

    def _answer(self, prepared: Prepared, question: str, on_text: Callable[[str], None] | None) -> Generation:
        """Stage 5. decode: the question is read after the prefix, and answered token by token."""
        generation = self.backbone.answer(
            prepared.prefix,
            question,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            seed=self.settings.seed,
            on_text=on_text,
        )
        if not generation.text.strip():
            raise ItemError("decode", "the model ended its turn without a word; ask in other words", "empty_answer")
        return generation

    def _answered(
        self,
        identity: str,
        video: str,
        question: str,
        prepared: Prepared,
        generation: Generation,
        total: float,
        reused: bool,
    ) -> records.Answer:
        clip, backbone, settings = prepared.clip, self.backbone, self.settings
        full, kept = prepared.full, prepared.kept
        # The last token chosen is not fed back, so a generation of n tokens takes the question and n - 1 steps more;
        # one that stopped by itself also computed the mark that stopped it.
        steps = len(generation.token_ids) - (generation.finish == "length")
        asked = generation.question_tokens
        decode = backbone.decoder_flops(asked, prepared.prefix.length, 1) + sum(
            backbone.decoder_flops(1, prepared.prefix.length + asked + i, 1) for i in range(steps)
        )
        height, width = clip.frames.shape[1:3] if clip.frames is not None else (0, 0)
        media_tokens = full["video"] + full["audio"]
        return records.Answer(
            key=self._key(identity, question),
            video=video,
            question=question,
            answer=generation.text.strip(),
            finish=generation.finish,
            prefix_reused=reused,
            model=records.Model(
                id=backbone.id,
                revision=backbone.revision,
                family=type(backbone).__module__.rpartition(".")[2],
                device=str(backbone.device),
                device_name=_device_name(backbone.device),
                dtype=str(backbone.dtype).removeprefix("torch."),
            ),
            pruner=records.Pruning(
                name=settings.pruner, preset=settings.preset, keep=settings.keep, predictor=self.predictor, options=asdict(self.pruner)
            ),
            media=records.Media(
                duration_s=round(clip.duration_s, 6),
                frames=0 if clip.frames is None else len(clip.frames),
                fps=round(1 / clip.seconds_per_frame, 6) if clip.seconds_per_frame else 0.0,
                width=width,
                height=height,
                source_width=clip.source_width,
                source_height=clip.source_height,
                audio=clip.audio_status,
                audio_s=round(clip.audio_s, 6),
                complete=clip.complete,
            ),
            tokens=records.Tokens(
                video=full["video"],
                video_kept=kept["video"],
                audio=full["audio"],
                audio_kept=kept["audio"],
                text=full["text"],
                keep=round((kept["video"] + kept["audio"]) / media_tokens, 6),
                question=generation.question_tokens,
                answer=len(generation.token_ids),
            ),
            flops=records.Flops(**prepared.flops, decode=decode),
            latency_s=records.Latency(
                **prepared.seconds, total=total, first_token=generation.seconds_to_first_token
            ),
            memory=records.Memory(peak_bytes=_peak_bytes(backbone.device), kv_bytes=prepared.prefix.kv_bytes),
            warnings=tuple(prepared.warnings),
        )

    def _failure(self, identity: str, video: str, question: str, error: ItemError) -> records.Failure:
        return records.Failure(
            key=self._key(identity, question),
            video=video,
            question=question,
            error=records.Error(stage=error.stage, type=error.kind, message=str(error)),
        )

    def _key(self, identity: str, question: str) -> str:
        s = self.settings
        return records.record_key(
            video=identity,
            question=question,
            model=self.backbone.id,
            revision=self.backbone.revision,
            pruner=s.pruner,
            keep=s.keep,
            options=asdict(self.pruner),
            predictor=self.predictor,
            fps=s.fps,
            max_frames=s.max_frames,
            max_pixels=s.max_pixels,
            audio=s.audio,
            max_new_tokens=s.max_new_tokens,
            temperature=s.temperature,
            seed=s.seed,
            prompt_version=self.backbone.prompt_version,
        )


def _make_pruner(settings: Settings) -> Pruner:
    """The pruner with its options; one that has a ``seed`` takes the run's, unless the preset sets it."""
    options = dict(settings.pruner_options)
    cls = registry.find(settings.pruner).load()
    if "seed" in (f.name for f in fields(cls)):
        options.setdefault("seed", settings.seed)
    return registry.make(settings.pruner, **options)


@contextmanager
def _stage(name: str, device: torch.device, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage, the device's work included, and let nothing but a one-line ItemError out of it."""
    started = time.perf_counter()
    try:
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except CgError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        advice = "try fewer --max-frames, a smaller --max-pixels, or a smaller --keep"
        raise ItemError(name, f"out of memory on {device}: {advice}", "out_of_memory") from error
    except Exception as error:
        if os.environ.get("CG_DEBUG") == "1":
            raise
        reason = " ".join(str(error).split()) or "no message"
        raise ItemError(name, f"{type(error).__name__}: {reason} (CG_DEBUG=1 shows the traceback)", "internal") from error
    finally:
        seconds[name] = time.perf_counter() - started


def _counts(stream: TokenStream) -> dict[str, int]:
    """Tokens by modality, off the real tensor; waits for the device once."""
    kinds = {"video": VIDEO, "audio": AUDIO, "text": TEXT}
    counts = torch.stack([(stream.modality == kind).sum() for kind in kinds.values()]).tolist()
    return dict(zip(kinds, counts))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _peak_bytes(device: torch.device) -> int:
    """Peak bytes of tensors on a CUDA device since the clip began; on the CPU, of the whole process since it started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


