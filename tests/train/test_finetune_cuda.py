"""Fine-tuning on a card: over four bits for real, and what becomes of such an adapter."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from enrich.engine.adapter import NF4, read_adapter
from enrich.engine.bases import find_base
from enrich.engine.model import load_model
from enrich.settings import load_settings
from tests.engine.conftest import VOCABULARY, build_tiny, edit_json
from train.finetune import finetune

from .test_finetune import TEMPLATE, TINY, history, write_pairs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, VOCABULARY, device=model.device)[None]
    with torch.inference_mode():
        found: torch.Tensor = model.module(input_ids=ids, use_cache=False).logits.float()
    return found


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("dtype", ["half", "float32"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_learns_on_a_card(tmp_path: Path, dtype: Any, checkpointing: bool) -> None:
    base = build_tiny(tmp_path / "tiny-llama")
    settings = load_settings(None, {"text": {"template": TEMPLATE}, "model": {"base": str(base)}})
    preset = replace(TINY, dtype=dtype, gradient_checkpointing=checkpointing, needs_cuda=True)
    finetune(write_pairs(tmp_path / "data"), tmp_path / "shop", settings, preset)
    losses = history(tmp_path / "shop", "eval_loss")
    assert min(losses) < 0.7 * losses[0]


def test_over_four_bits_it_is_merged_into_what_it_was_trained_over(tmp_path: Path) -> None:
    folder = build_tiny(tmp_path / "tiny-llama")
    settings = load_settings(None, {"text": {"template": TEMPLATE}, "model": {"base": str(folder)}})
    preset = replace(TINY, quantize="4bit", dtype="half", gradient_checkpointing=True, needs_cuda=True)
    finetune(write_pairs(tmp_path / "data"), tmp_path / "shop", settings, preset)
    losses = history(tmp_path / "shop", "eval_loss")
    assert min(losses) < 0.7 * losses[0]

    base, adapter = find_base(str(folder), Path("nowhere")), read_adapter(tmp_path / "shop")
    assert adapter.quantization == NF4
    unmerged = logits(load_model(base, adapter, dtype="bfloat16", quantize="4bit"))
    merged = distance(logits(load_model(base, adapter, dtype="bfloat16")), unmerged)
    # The control: into the weights as they were before they were packed.
    edit_json(tmp_path / "shop" / "enrich.json", quantization=None)
    control = distance(logits(load_model(base, read_adapter(tmp_path / "shop"), dtype="bfloat16")), unmerged)
    assert merged < 5e-2
    assert control > 1.5 * merged
    assert json.loads((tmp_path / "shop" / "training.json").read_text())["peak_bytes"] > 0
