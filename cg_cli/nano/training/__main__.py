"""Train nano from nothing: ``python -m cg_cli.nano.training --out DIR`` (resumes where it stopped).

Two parts: the towers on labels, then the decoder on the towers' frozen features. The finished checkpoint is DIR/model;
``--model DIR/model`` uses it. ``--weights cg_cli/nano/weights`` goes on from those weights instead, on clips of both
worlds. docs/notes/nano.md tells what was tried.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cg_cli.nano.training import continued, decoder, recipe, towers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, features, and the finished model")
    parser.add_argument("--weights", type=Path, help="checkpoint to go on from, on clips of both worlds")
    parser.add_argument("--tower-steps", type=int, default=1000)
    parser.add_argument("--decoder-steps", type=int, default=2200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.weights:
        continued.train(options.weights, options.out, options.tower_steps, options.decoder_steps, options.seed)
        return
    model, tok = recipe.blank(options.seed)
    towers.train(model, options.out, options.tower_steps, options.seed, decoder.WORLD)
    decoder.train(model, tok, options.out, decoder.Plan(options.decoder_steps, options.seed))
    recipe.save(model, tok, options.out / "model")


if __name__ == "__main__":
    main()
