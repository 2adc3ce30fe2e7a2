"""Qwen3-Omni (arXiv 2509.17765)."""

from cg_cli.backbones.family import Family

FAMILY = Family(
    name="qwen3_omni",
    model_types=("qwen3_omni_moe", "qwen3_omni_moe_thinker"),  # whole, and the thinker saved alone
    backbone="cg_cli.backbones.qwen3_omni.model:Qwen3Omni",
    weights_prefix="thinker.",  # the talker and the vocoder are never run
    not_quantizable="the experts of this family are no linear layers, which is all that bitsandbytes quantizes",
)
