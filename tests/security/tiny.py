"""Tiny models to be spoilt, and what they say."""

from pathlib import Path

import pytest
import torch

from enrich.engine.adapter import read_adapter
from enrich.engine.bases import Base
from enrich.engine.model import load_model

from ..engine.conftest import build_adapter, build_tiny

_PROMPT = (7, 3, 40, 41, 8, 60, 12, 33)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models of different weights, and an adapter for the first."""
    folder = tmp_path_factory.mktemp("models")
    build_adapter(folder / "adapter", build_tiny(folder / "one", seed=1))
    build_tiny(folder / "other", seed=2)
    return folder


def logits(base: Base, adapter: Path | None = None) -> torch.Tensor:
    """Of a few fixed ids."""
    module = load_model(base, adapter and read_adapter(adapter), device="cpu").module
    with torch.inference_mode():
        found: torch.Tensor = module(input_ids=torch.tensor([_PROMPT])).logits
    return found
