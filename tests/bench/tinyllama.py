"""TinyLlama-1.1B's shape, which stands for it where its weights are not to be had."""

from typing import Any

VOCABULARY = 32000


def config(**more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        **more,
    )
