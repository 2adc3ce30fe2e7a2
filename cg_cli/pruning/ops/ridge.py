"""Leave-one-out ridge regression inside one clip: picture from sound, without a trained predictor.

Each window's picture is predicted from its sound by a regression that was fitted to the other windows, in closed form.
Works on any backbone, but knows only what repeats in this one clip.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

RIDGE = 0.3  # of the mean squared length of the windows' centred sound


def leave_one_out(audio: Tensor, window: Tensor, picture: Tensor) -> Tensor:
    """Predict each window's picture from its sound and the other windows.

    Args:
        audio: [A, D], audio tokens; window: [A] int64, the window of each.
        picture: [W, k] float32, mean picture of each window.

    Returns:
        [W, k] float32, unit length: the predicted departure of the window's picture from the clip's mean; zeros for a
        window without sound.
    """
    count = picture.new_zeros(len(picture)).index_add_(0, window, torch.ones_like(window, dtype=picture.dtype))
    audible = (count > 0).to(picture.dtype)[:, None]
    total = audible.sum().clamp_min(1)
    sound = (
        picture.new_zeros(len(picture), audio.shape[1]).index_add_(0, window, audio.float())
        / count.clamp_min(1)[:, None]
    )
    sound = (sound - sound.sum(0) / total) * audible
    picture = (picture - (picture * audible).sum(0) / total) * audible
    gram = sound @ sound.T
    scale = (gram.diagonal().sum() / total).clamp_min(1e-6)
    inverse = torch.linalg.inv_ex(gram / scale + RIDGE * torch.eye(len(gram), device=gram.device)).inverse
    return normalize(picture - (inverse @ picture) / inverse.diagonal()[:, None], dim=-1) * audible
