"""Tiny models and adapters that the tests make themselves, and the one that is fetched."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from enrich.engine.bases import EMBEDDED, Base, find_base
from enrich.engine.model import Model, load_model
from enrich.prompt import Template
from enrich.settings import home
from tests.bench.tinyllama import word_tokenizer

VOCABULARY = 96
# Several end tokens, so that a model of random weights ends about half of its texts.
EOS_IDS = [2, 5, 11, 17, 23, 29]

MakeAdapter = Callable[..., Path]


def build_tiny(folder: Path, seed: int = 0) -> Path:
    """A two-layer Llama; with the usual initializer_range, wrong padding could go unnoticed."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.25,
        eos_token_id=EOS_IDS,
        bos_token_id=1,
        pad_token_id=None,
    )
    module = LlamaForCausalLM(config)
    with torch.no_grad():
        # The id that fills finished rows is never generated, so that a test can tell the one from the other.
        module.lm_head.weight[0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module.save_pretrained(folder)
    word_tokenizer(VOCABULARY).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
    return folder


def build_adapter(folder: Path, base: Path, *, zero: bool = False, **fields: Any) -> Path:
    """A LoRA over the tiny model at `base`, its B matrices random, or zero as before training."""
    torch.manual_seed(1)
    lora = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
        wrapped = peft.get_peft_model(module, peft.LoraConfig(**(lora | fields)))
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name and not zero:
                torch.nn.init.normal_(parameter, std=0.2)
        wrapped.save_pretrained(folder)
    return folder


def record_training(adapter: Path, base: Base, template: str) -> Path:
    """What training leaves beside the weights, for the checks that an adapter belongs to a base and a template."""
    trained = {"template": template, "template_id": Template.parse(template).id}
    (adapter / "enrich.json").write_text(json.dumps(trained | {"base": {"preset": base.name, "digest": base.digest}}))
    return adapter


def edit_json(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def plain_generate(model: Model, prompt: tuple[int, ...], max_new_tokens: int) -> tuple[int, ...]:
    """The reference: one row, no padding, no mask to get wrong, no engine. End token cut."""
    output = model.module.generate(
        input_ids=torch.tensor([prompt], device=model.device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(model.eos_ids),
        pad_token_id=model.pad_id,
    )
    row = output[0, len(prompt) :].tolist()
    return tuple(row[:-1] if row[-1] in model.eos_ids else row)


def penalised_generate(model: Model, prompt: tuple[int, ...], max_new_tokens: int, penalty: float) -> tuple[int, ...]:
    """The reference for a repetition penalty on the completion alone: the formula in Python, no cache, no batch."""
    ids: list[int] = []
    while len(ids) < max_new_tokens:
        with torch.inference_mode():
            scores = model.module(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1].tolist()
        for said in set(ids):
            scores[said] = scores[said] / penalty if scores[said] > 0 else scores[said] * penalty
        following = max(range(len(scores)), key=scores.__getitem__)
        if following in model.eos_ids:
            break
        ids.append(following)
    return tuple(ids)


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices: on a machine with other work, a second thread costs many times what it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A tiny model that a test may spoil."""
    return build_tiny(tmp_path / "model")


@pytest.fixture(scope="session")
def tiny_base(tiny_folder: Path) -> Base:
    return find_base(str(tiny_folder), Path("nowhere"))


@pytest.fixture
def tiny(tiny_base: Base) -> Model:
    """A tiny model that a test may wrap or hook."""
    return load_model(tiny_base, device="cpu")


@pytest.fixture
def make_adapter(tmp_path: Path, tiny_folder: Path) -> MakeAdapter:
    def make(name: str = "adapter", **options: Any) -> Path:
        return build_adapter(tmp_path / name, tiny_folder, **options)

    return make


@pytest.fixture(scope="session")
def embedded_base() -> Base:
    if not (home() / "models" / EMBEDDED).is_dir():
        pytest.skip("the embedded model is not there: make model")
    return find_base(EMBEDDED, home())


@pytest.fixture(params=["tiny", "embedded"])
def base(request: pytest.FixtureRequest) -> Base:
    """Each of the two."""
    found: Base = request.getfixturevalue(f"{request.param}_base")
    return found


@pytest.fixture
def free_the_card() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
