"""An A2V predictor with random weights: it costs what a trained one costs."""

from __future__ import annotations

import torch

from cg_cli.pruning.predictor import CODEBOOK, KINDS, WORDS, A2VPredictor, PredictorMetadata


def random_predictor(width: int, device: torch.device, kind: str = WORDS) -> A2VPredictor:
    """A predictor for embeddings [L, width], of the kind and in the sizes that ``cg train-predictor`` makes."""
    words = CODEBOOK if kind == WORDS else 0
    metadata = PredictorMetadata("random weights", "none", "none", width, kind=kind, words=words)
    predictor = KINDS[kind](metadata).to(device)
    predictor.get_buffer("basis").copy_(torch.linalg.qr(torch.randn(width, metadata.components)).Q)
    if kind == WORDS:  # untrained, they would be all alike
        predictor.get_buffer("codebook").normal_()
        torch.nn.init.normal_(predictor.up.weight)
    return predictor.requires_grad_(False).eval()
