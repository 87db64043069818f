"""The sizes of Qwen2-VL as published: what their config.json say, without a checkpoint at hand."""

from pipeline.config import ModelConfig, VisionConfig
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.preprocessor_config import MEAN, STD


def _config(
    hidden_size: int, intermediate_size: int, num_layers: int, heads: tuple[int, int], *, tied: bool
) -> ModelConfig:
    vision = VisionConfig(
        depth=32,
        embed_dim=1280,
        num_heads=16,
        mlp_ratio=4.0,
        hidden_size=hidden_size,
        geometry=GEOMETRY,
        image_mean=MEAN,
        image_std=STD,
    )
    return ModelConfig(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=num_layers,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        vocab_size=151_936 if tied else 152_064,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        mrope_section=(16, 24, 24),
        max_positions=32_768,
        tie_word_embeddings=tied,
        vision=vision,
        vision_start_id=151_652,
        vision_end_id=151_653,
        image_pad_id=151_655,
        video_pad_id=151_656,
    )


SIZES = {
    "2B": _config(1536, 8960, 28, (12, 2), tied=True),
    "7B": _config(3584, 18_944, 28, (28, 4), tied=False),
    "72B": _config(8192, 29_568, 80, (64, 8), tied=False),
}
