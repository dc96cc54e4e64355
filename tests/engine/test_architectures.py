import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from enrich.engine import plain_attention, tiers
from enrich.engine.grid import GridEngine
from enrich.engine.model import Model
from enrich.engine.padded import PaddedEngine
from enrich.engine.protocol import Generator, Request
from enrich.engine.sampling import GREEDY
from enrich.engine.tiers import Stored, Wish, open_engine
from enrich.errors import ModelUnavailable

from .conftest import EOS_IDS, VOCABULARY, plain_generate

NEW = 8
LONGEST = 24
POSITIONS = LONGEST + NEW
SLOTS = 4
PREFIX = (7, 8, 9)

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    # Tied, the head would find the token just read the likeliest, whatever attention says.
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 32, "sliding_window": 64}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}

SERVED: dict[str, dict[str, Any]] = {
    "cohere": {},
    "gemma": {"head_dim": 16},
    # Low caps, since the scores of so small a model hardly reach the usual one.
    "gemma2": _GEMMA | {"attn_logit_softcapping": 2.0},
    "gemma3_text": _GEMMA,
    "gpt2": _GPT,
    "gpt_neox": {},
    "granite": {},
    "llama": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    "mistral": {},
    "olmo2": {},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64, "init_std": 0.25},
    "phi3": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": _EXPERTS | {"head_dim": 16},
    "smollm3": {},
    "starcoder2": {},
}

NOT_SERVED: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({"n_layer": 2, "n_head": 4}, "does not go through"),
    "falcon": ({"alibi": True}, "not for this model"),
    "gpt_oss": (_EXPERTS | {"num_local_experts": 4, "head_dim": 16, "sliding_window": 64}, "plain model's"),
    "diffllama": ({}, "plain model's"),
    "stablelm": ({}, "attend"),
}

_WINDOW: dict[str, dict[str, Any]] = {
    "mistral": {},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 0},
    "gemma2": _GEMMA,
}

_SHORT = {"original_max_position_embeddings": 16, "rope_theta": 1e4}
CHANGES_WITH_LENGTH: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 16, "rope_parameters": _SHORT | {"rope_type": "dynamic", "factor": 4.0}},
    "llama4_text": {"head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 128, "attention_chunk_size": 16},
    "phi3": {
        "original_max_position_embeddings": 16,
        "rope_parameters": _SHORT | {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8},
    },
}


def make(kind: str, **fields: Any) -> Model:
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(_SIZES | fields))).eval()
    module.generation_config = GenerationConfig()
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return Model(module, torch.device("cpu"), torch.float32, tuple(EOS_IDS), 0, VOCABULARY, 128)


def prompts(prefix: tuple[int, ...] = PREFIX, count: int = 20) -> list[Request]:
    """One of every length, shuffled."""
    dice = random.Random(0)
    words = [i for i in range(1, VOCABULARY) if i not in EOS_IDS]
    lengths = dice.sample(range(1, count + 1), count)
    return [Request(bytes([at]), (*prefix, *dice.choices(words, k=length))) for at, length in enumerate(lengths)]


def opened(model: Model, kind: str, prefix: tuple[int, ...] = PREFIX) -> Generator:
    kept: dict[str, str] = {}
    wish = Wish(prefix, LONGEST, NEW, GREEDY, slots=SLOTS, batch_rows=SLOTS)
    return open_engine(model, wish, Stored(kept.get, kept.__setitem__), lambda: False, kind=kind)


def alone(model: Model, requests: list[Request]) -> dict[bytes, tuple[int, ...]]:
    return {request.key: plain_generate(model, request.prompt_ids, NEW) for request in requests}


def ids(engine: Generator, requests: list[Request]) -> dict[bytes, tuple[int, ...]]:
    completions = list(engine.generate(requests))
    assert len(completions) == len(requests)
    assert all(completion.ended != "failed" for completion in completions)
    return {completion.key: completion.ids for completion in completions}


def _state(model: Model) -> tuple[str, list[torch.nn.Module], set[str], bool]:
    module = model.module
    is_hooked = any(each._forward_pre_hooks for each in module.modules())
    buffers = {name for name, _ in module.named_buffers()}
    return module.config._attn_implementation, list(module.modules()), buffers, is_hooked


@contextmanager
def left_as_it_was(model: Model) -> Iterator[None]:
    some = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    before = _state(model)
    logits = model.module(some).logits
    yield
    assert _state(model) == before
    assert torch.equal(model.module(some).logits, logits)


# Served


@pytest.mark.parametrize("kind", SERVED)
def test_every_row_is_what_it_is_alone(kind: str) -> None:
    model = make(kind, **SERVED[kind])
    requests = prompts()
    expected = alone(model, requests)
    assert len(set(expected.values())) > len(requests) // 2
    with left_as_it_was(model):
        engine = opened(model, "grid")
        assert isinstance(engine, GridEngine)
        assert ids(engine, requests) == expected
        engine.close()


def test_without_a_common_prefix_rows_are_what_they_are_alone() -> None:
    model = make("llama")
    requests = prompts(())
    expected = alone(model, requests)
    assert ids(opened(model, "grid", ()), requests) == expected


def _break(monkeypatch: pytest.MonkeyPatch, number: int, value: float) -> None:
    for name in ("prefill", "decode"):
        whole: Callable[..., torch.Tensor] = getattr(plain_attention, name)

        def broken(*options: Any, whole: Callable[..., torch.Tensor] = whole) -> torch.Tensor:
            changed = list(options)
            changed[number] = value
            return whole(*changed)

        monkeypatch.setattr(plain_attention, name, broken)


# The last two arguments of attention are the scale and the cap.
@pytest.mark.parametrize(("kind", "number", "value"), [("gemma2", -1, 0.0), ("granite", -2, 0.25)])
def test_a_lost_cap_or_scale_would_be_noticed(
    kind: str, number: int, value: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(kind, **SERVED[kind])
    requests = prompts()
    expected = alone(model, requests)
    _break(monkeypatch, number, value)
    assert isinstance(opened(model, "auto"), PaddedEngine)
    assert "from the plain model's" in caplog.text
    monkeypatch.setattr(tiers._Probe, "fault", lambda *_: "")
    found = ids(opened(model, "grid"), requests)
    assert sum(found[key] != expected[key] for key in expected) > len(expected) // 2


# Sliding windows


@pytest.mark.parametrize("kind", _WINDOW)
def test_a_window_as_long_as_a_slot_is_served(kind: str) -> None:
    model = make(kind, **(_WINDOW[kind] | {"sliding_window": POSITIONS}))
    requests = prompts(count=12)
    expected = alone(model, requests)
    assert ids(opened(model, "grid"), requests) == expected


@pytest.mark.parametrize("prefix", [PREFIX, ()], ids=["prefix", "no prefix"])
@pytest.mark.parametrize("kind", _WINDOW)
def test_a_shorter_window_is_left_to_the_padded_engine(
    kind: str, prefix: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    model = make(kind, **(_WINDOW[kind] | {"sliding_window": POSITIONS - 1}))
    requests = prompts(prefix, 8)
    expected = alone(model, requests)
    with left_as_it_was(model):
        with pytest.raises(ModelUnavailable, match="engine grid"):
            opened(model, "grid", prefix)
        caplog.clear()
        engine = opened(model, "auto", prefix)
        assert isinstance(engine, PaddedEngine)
        assert f"a sliding window of {POSITIONS - 1} tokens" in caplog.text
        assert ids(engine, requests) == expected


# Not served


@pytest.mark.parametrize("prefix", [PREFIX, ()], ids=["prefix", "no prefix"])
@pytest.mark.parametrize("kind", NOT_SERVED)
def test_other_attention_is_left_to_the_padded_engine(
    kind: str, prefix: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    fields, reason = NOT_SERVED[kind]
    model = make(kind, **fields)
    requests = prompts(prefix, 8)
    expected = alone(model, requests)
    with left_as_it_was(model):
        with pytest.raises(ModelUnavailable, match="engine grid"):
            opened(model, "grid", prefix)
        caplog.clear()
        engine = opened(model, "auto", prefix)
        assert isinstance(engine, PaddedEngine)
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert reason in warning.message
        assert ids(engine, requests) == expected


@pytest.mark.parametrize("kind", CHANGES_WITH_LENGTH)
def test_attention_that_changes_within_a_slot_is_not_served(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = make(kind, **CHANGES_WITH_LENGTH[kind])
    with pytest.raises(ModelUnavailable, match="engine grid"):
        opened(model, "grid")
    assert "attention that changes after 16 tokens" in caplog.text
