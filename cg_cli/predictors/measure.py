"""Memory and time of training at a real size, on made-up features: ``python -m cg_cli.predictors.measure``.

Writes the files of encoded clips of a minute, 60 windows each, at the width of a 7B model, trains a predictor of words
and its control on them, and prints the seconds and the resident memory of each stage.
"""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from pathlib import Path

import psutil
import torch

from cg_cli.backbones.device import resolve_device
from cg_cli.predictors import training
from cg_cli.predictors.corpus import TOKENS
from cg_cli.predictors.features import ClipWindows, open_clip
from cg_cli.pruning.predictor import WORDS, PredictorMetadata
from cg_cli.util.format import size

WINDOWS, AUDIO = 60, 25  # windows of a second, and audio tokens of each, as Qwen2.5-Omni has them
DIFFERENT = 40  # clips that are made; the others are copies of their files


class Memory:
    """The most memory that this process had resident since it was made."""

    def __init__(self) -> None:
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak = max(self.peak, process.memory_info().rss)
            time.sleep(0.1)


def made_up(width: int, seed: int) -> ClipWindows:
    """A clip of one of eight kinds, which look and sound in their own way."""
    world, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    looks, sounds = torch.randn(8, width, generator=world), torch.randn(8, width, generator=world)
    token = looks[seed % 8] + torch.randn(WINDOWS * TOKENS, width, generator=own)
    audio = sounds[seed % 8] + torch.randn(WINDOWS * AUDIO, width, generator=own)
    starts = torch.arange(WINDOWS + 1)
    mean = token.view(WINDOWS, TOKENS, width).mean(1)
    return ClipWindows(audio.half(), starts * AUDIO, token.half(), starts * TOKENS, mean.half())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=1000, help="of a minute each; 1,000 take 25 GB (%(default)s)")
    parser.add_argument("--width", type=int, default=3584, help="of a token (%(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of each training (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="folder for the features, new")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    paths = [options.out / f"{number}.safetensors" for number in range(options.clips)]
    for number, path in enumerate(paths):
        if number < DIFFERENT:
            made_up(options.width, number).save(path)
        else:
            shutil.copyfile(paths[number % DIFFERENT], path)
    print(f"{len(paths)} clips: {size(sum(path.stat().st_size for path in paths))}", flush=True)
    memory, began = Memory(), time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - began:.0f} s, at most {size(memory.peak)} resident: {what}", flush=True)

    training.fit(
        [clip for path in paths if (clip := open_clip(path))],
        PredictorMetadata("made up", "none", "none", options.width, kind=WORDS),
        steps=options.steps,
        seed=0,
        device=resolve_device(options.device),
        state=options.out / "state",
        on_check=lambda role, step, figures: tell(f"{role}, step {step}: {figures['bits']:.2f} bits a token"),
        tell=tell,
    )
    tell("done")


if __name__ == "__main__":
    main()
