"""An A2V predictor with random weights: it costs what a trained one costs."""

from __future__ import annotations

import torch

from cg_cli.pruning.predictor import A2VPredictor, PredictorMetadata


def random_predictor(width: int, device: torch.device) -> A2VPredictor:
    """A predictor for embeddings [L, width], in the sizes that ``cg train-predictor`` makes."""
    metadata = PredictorMetadata("random weights", "none", "none", width)
    predictor = A2VPredictor(metadata).to(device)
    predictor.get_buffer("basis").copy_(torch.linalg.qr(torch.randn(width, metadata.components)).Q)
    return predictor.requires_grad_(False).eval()
