"""video-SALMONN 2+ (arXiv 2506.15220 describes video-SALMONN 2)."""

from cg_cli.backbones.family import Family

FAMILY = Family(
    name="video_salmonn2",
    model_types=("qwen2_5_vl",),
    sound_key="audio_config",
    backbone="cg_cli.backbones.video_salmonn2.model:VideoSalmonn2",
    positions=("training", "inference"),
    merged_checkpoints=("tsinghua-ee/video-SALMONN2_plus_3B_full", "tsinghua-ee/video-SALMONN2_plus_7B_full"),
)
