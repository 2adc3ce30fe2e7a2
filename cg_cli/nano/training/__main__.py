"""Train nano from nothing: ``python -m cg_cli.nano.training --out DIR`` (resumes where it stopped)."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import recipe, towers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, and the finished model in OUT/model")
    parser.add_argument("--tower-steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model, tok = recipe.blank(options.seed)
    towers.train(model, options.out, options.tower_steps, options.seed, world=1)


if __name__ == "__main__":
    main()
