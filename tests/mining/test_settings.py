"""What settings of mining decide by themselves."""

from __future__ import annotations

import pytest

from mining.settings import MiningSettings


@pytest.mark.parametrize(
    ("precision", "gpu", "training", "want"),
    [
        ("auto", False, "auto", False),
        ("auto", False, "bfloat16", False),
        ("auto", True, "auto", True),
        ("auto", True, "bfloat16", True),
        ("auto", True, "float32", False),
        ("float32", True, "bfloat16", False),
        ("bfloat16", False, "float32", True),
        ("bfloat16", True, "float32", True),
    ],
)
def test_a_cpu_embeds_in_float32_unless_it_is_told_otherwise(precision: str, gpu: bool, training: str, want: bool) -> None:
    settings = MiningSettings.model_validate({"embedding_precision": precision})
    assert settings.embeds_in_bfloat16(gpu=gpu, training=training) is want
