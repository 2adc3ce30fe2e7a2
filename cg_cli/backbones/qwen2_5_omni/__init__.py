"""Qwen2.5-Omni (arXiv 2503.20215)."""

from cg_cli.backbones.family import Family

FAMILY = Family(
    name="qwen2_5_omni",
    model_types=("qwen2_5_omni", "qwen2_5_omni_thinker"),  # whole, and the thinker saved alone
    backbone="cg_cli.backbones.qwen2_5_omni.model:Qwen25Omni",
    weights_prefix="thinker.",  # the talker and the vocoder are never run
)
