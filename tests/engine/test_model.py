import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaForCausalLM

from enrich.engine import model as loading
from enrich.engine.adapter import WEIGHTS, read_adapter
from enrich.engine.bases import Base, find_base
from enrich.engine.model import Model, load_model
from enrich.errors import ModelUnavailable

from .conftest import EOS_IDS, VOCABULARY, MakeAdapter, edit_json, plain_generate

PROMPT = (7, 3, 40, 41, 8, 60, 12, 33)


def logits(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = module(input_ids=torch.tensor([PROMPT])).logits
    return found.float()


def load(folder: Path) -> Model:
    return load_model(find_base(str(folder), Path("nowhere")), device="cpu")


def spoil(weights: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights, metadata={"format": "pt"})


def test_what_a_generator_must_know(tiny: Model) -> None:
    assert tiny.eos_ids == tuple(EOS_IDS)
    assert tiny.pad_id not in tiny.eos_ids
    assert (tiny.vocabulary, tiny.max_positions) == (VOCABULARY, 512)
    assert (tiny.device.type, tiny.dtype) == ("cpu", torch.float32)
    assert not tiny.module.training


def test_the_tokenizer_s_end_is_an_end_too(own_folder: Path) -> None:
    edit_json(own_folder / "config.json", eos_token_id=5)
    edit_json(own_folder / "tokenizer_config.json", eos_token={"content": "w9", "lstrip": False})
    assert load(own_folder).eos_ids == (5, 9)


def test_a_model_without_an_end_is_refused(own_folder: Path) -> None:
    edit_json(own_folder / "config.json", eos_token_id=None)
    (own_folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelUnavailable, match="never end"):
        load(own_folder)


def test_the_folder_s_generation_settings_are_ignored(own_folder: Path) -> None:
    before = plain_generate(load(own_folder), PROMPT, 12)
    hostile = {"suppress_tokens": list(before), "repetition_penalty": 9.0, "num_beams": 3, "min_length": 99}
    (own_folder / "generation_config.json").write_text(json.dumps(hostile))
    model = load(own_folder)
    assert model.module.generation_config == GenerationConfig()
    assert plain_generate(model, PROMPT, 12) == before


@pytest.mark.parametrize(
    ("asked", "device", "capability", "expected"),
    [
        ("auto", "cpu", None, torch.float32),
        ("auto", "cuda", (7, 5), torch.float16),
        ("auto", "cuda", (8, 0), torch.bfloat16),
        ("auto", "cuda", (12, 0), torch.bfloat16),
        ("auto", "mps", None, torch.float16),
        ("float16", "cpu", None, torch.float16),
    ],
)
def test_the_number_type_follows_the_card(
    asked: loading.Dtype,
    device: str,
    capability: tuple[int, int] | None,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert loading.pick_dtype(asked, torch.device(device)) == expected


@pytest.mark.parametrize("with_adapter", [False, True])
def test_the_rotary_frequencies_stay_in_float32(tiny_base: Base, make_adapter: MakeAdapter, with_adapter: bool) -> None:
    adapter = read_adapter(make_adapter()) if with_adapter else None
    module = load_model(tiny_base, adapter, dtype="bfloat16", device="cpu").module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in module.buffers()} == {torch.float32}


def test_no_card_is_one_line(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelUnavailable, match="device auto or cpu"):
        load_model(tiny_base, device="cuda")


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_quantised_weights_need_a_card(tiny_base: Base, quantize: loading.Quantize) -> None:
    with pytest.raises(ModelUnavailable, match="bfloat16"):
        load_model(tiny_base, quantize=quantize, device="cpu")


def test_a_swapped_tokenizer_of_the_converted_model_is_refused(own_folder: Path) -> None:
    from enrich.engine.bases import write_record

    write_record(own_folder)
    (own_folder / "tokenizer.json").write_text((own_folder / "tokenizer.json").read_text() + " ")
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json"):
        load(own_folder)


def _cut(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def _drop(folder: Path) -> None:
    spoil(folder / "model.safetensors", lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def _add(folder: Path) -> None:
    spoil(folder / "model.safetensors", lambda tensors: tensors.update({"model.layers.7.x": torch.ones(1)}))


def _reshape(folder: Path) -> None:
    spoil(folder / "model.safetensors", lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))


def _nan(folder: Path) -> None:
    spoil(folder / "model.safetensors", lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))


def _unknown_kind(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="nonesuch")


def _tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("damage", [_cut, _drop, _add, _reshape, _nan, _unknown_kind, _tokenizer])
def test_a_damaged_model_is_one_line(own_folder: Path, damage: Callable[[Path], None]) -> None:
    load(own_folder)
    damage(own_folder)
    with pytest.raises(ModelUnavailable, match=str(own_folder)) as caught:
        load(own_folder)
    assert "\n" not in str(caught.value)


def test_an_adapter_changes_the_logits_as_peft_would(tiny_base: Base, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    merged = load_model(tiny_base, read_adapter(folder), device="cpu")
    plain = load_model(tiny_base, device="cpu")
    unmerged = _peft_s_own(tiny_base, folder)
    torch.testing.assert_close(logits(merged.module), logits(unmerged.module), rtol=1e-4, atol=1e-4)
    assert (logits(merged.module) - logits(plain.module)).abs().max() > 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
        {"layers_to_transform": [1]},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_merged_tokens_are_unmerged_tokens(tiny_base: Base, make_adapter: MakeAdapter, options: dict[str, Any]) -> None:
    folder = make_adapter(**options)
    merged, unmerged = (
        load_model(tiny_base, read_adapter(folder), device="cpu"),
        _peft_s_own(tiny_base, folder),
    )
    prompts = [tuple((start * 7 + step * 11) % 90 + 3 for step in range(9)) for start in range(12)]
    assert [plain_generate(merged, prompt, 12) for prompt in prompts] == [
        plain_generate(unmerged, prompt, 12) for prompt in prompts
    ]


def test_an_adapter_that_changes_nothing_is_refused(tiny_base: Base, make_adapter: MakeAdapter) -> None:
    adapter = read_adapter(make_adapter(zero=True))
    with pytest.raises(ModelUnavailable, match="changes nothing"):
        load_model(tiny_base, adapter, device="cpu")


A_TENSOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop(A_TENSOR), "lacks"),
        (lambda tensors: tensors.update({"base_model.model.x.lora_A.weight": torch.ones(1)}), "no place for"),
        (lambda tensors: tensors.update({A_TENSOR: torch.ones(4, 63)}), "shape"),
        (lambda tensors: tensors[A_TENSOR].fill_(float("inf")), "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tiny_base: Base,
    make_adapter: MakeAdapter,
    change: Callable[[dict[str, torch.Tensor]], None],
    reason: str,
) -> None:
    folder = make_adapter()
    spoil(folder / WEIGHTS, change)
    with pytest.raises(ModelUnavailable, match=reason):
        load_model(tiny_base, read_adapter(folder), device="cpu")


@pytest.mark.parametrize(
    "fields",
    [{"r": 8}, {"target_modules": ["q_proj"]}, {"target_modules": ["nonesuch"]}, {"bias": "nonesuch"}],
)
def test_a_configuration_of_another_adapter_is_refused(
    tiny_base: Base, make_adapter: MakeAdapter, fields: dict[str, Any]
) -> None:
    folder = make_adapter()
    edit_json(folder / "adapter_config.json", **fields)
    with pytest.raises(ModelUnavailable, match=str(folder)) as caught:
        load_model(tiny_base, read_adapter(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_cut_adapter_is_one_line(tiny_base: Base, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-40])
    with pytest.raises(ModelUnavailable, match="cannot be used"):
        load_model(tiny_base, read_adapter(folder), device="cpu")


def test_an_adapter_runs_no_code_and_follows_no_path(
    tiny_base: Base, make_adapter: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = make_adapter()
    edit_json(
        folder / "adapter_config.json",
        base_model_name_or_path=str(tmp_path / "evil"),
        auto_mapping={"parent_library": "canary", "base_model_class": "X"},
        megatron_core="canary",
        megatron_config={"x": 1},
    )
    load_model(tiny_base, read_adapter(folder), device="cpu")
    assert not (tmp_path / "ran").exists()
    assert "canary" not in sys.modules


def test_nothing_asks_the_network(tiny_base: Base, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    adapter = read_adapter(make_adapter())
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    load_model(tiny_base, adapter, device="cpu")


@pytest.mark.model
def test_the_embedded_model_is_as_converted(embedded_base: Base) -> None:
    model = load_model(embedded_base, device="cpu")
    module = model.module
    assert module.get_input_embeddings().weight is module.get_output_embeddings().weight
    assert model.pad_id not in model.eos_ids
    assert not hasattr(module.config, "quantization_config")


@pytest.mark.model
def test_a_swapped_tokenizer_of_the_embedded_model_is_noticed(embedded_base: Base, tmp_path: Path) -> None:
    for file in embedded_base.folder.iterdir():
        if file.suffix == ".safetensors":
            (tmp_path / file.name).symlink_to(file)
        else:
            shutil.copy(file, tmp_path)
    find_base(str(tmp_path), tmp_path).check()
    tokenizer = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(tokenizer.replace('"id": 1,', '"id": 2,', 1))
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json"):
        find_base(str(tmp_path), tmp_path).check()


def _peft_s_own(base: Base, folder: Path) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = LlamaForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
        wrapped = peft.PeftModel.from_pretrained(module, folder).eval()
    module.generation_config = GenerationConfig()
    return Model(wrapped, torch.device("cpu"), torch.float32, tuple(EOS_IDS), 0, VOCABULARY, 512)
