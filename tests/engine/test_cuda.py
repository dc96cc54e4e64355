"""The engine on a card: the same promises in the numbers, quantisations and sizes that only a card has."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from enrich.engine.adapter import read_adapter
from enrich.engine.bases import Base
from enrich.engine.model import Dtype, Quantize, load_model
from enrich.engine.padded import PaddedEngine, Shapes, ladder
from enrich.engine.protocol import Completion, Request

from .conftest import build_adapter, plain_generate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("free_the_card"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card"),
    # bitsandbytes and the torch of the card's machine are not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

NUMBERS: list[tuple[Dtype, Quantize]] = [
    ("float32", "none"),
    ("bfloat16", "none"),
    ("float16", "none"),
    ("bfloat16", "4bit"),
    ("bfloat16", "8bit"),
]


@pytest.fixture
def adapter_folder(base: Base, tmp_path: Path) -> Path:
    return build_adapter(tmp_path / "adapter", base.folder)


def requests(count: int, longest: int = 60) -> list[Request]:
    dice = random.Random(0)
    return [
        Request(at.to_bytes(16, "big"), tuple(dice.choices(range(30, 90), k=dice.randint(1, longest))))
        for at in range(count)
    ]


def run(model: Any, shapes: Shapes, sent: list[Request], max_new_tokens: int = 24) -> dict[bytes, Completion]:
    engine = PaddedEngine(
        model,
        shapes=shapes,
        max_new_tokens=max_new_tokens,
        should_stop=lambda: False,
        on_step_down=lambda _: pytest.fail("stepped down"),
    )
    found = {completion.key: completion for completion in engine.generate(sent)}
    assert found.keys() == {request.key for request in sent}
    return found


def test_auto_takes_the_card_and_its_number(base: Base) -> None:
    model = load_model(base)
    assert model.device.type == "cuda"
    assert model.dtype == (torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16)


def test_a_float32_row_is_what_it_is_alone(base: Base) -> None:
    model = load_model(base, dtype="float32", device="cuda")
    sent = requests(48)
    found = run(model, ladder(64, 16), sent)
    assert {key: completion.ids for key, completion in found.items()} == {
        request.key: plain_generate(model, request.prompt_ids, 24) for request in sent
    }


@pytest.mark.parametrize(("dtype", "quantize"), NUMBERS)
def test_order_neighbours_and_interruption_change_nothing(base: Base, dtype: Dtype, quantize: Quantize) -> None:
    model = load_model(base, dtype=dtype, quantize=quantize, device="cuda")
    sent = requests(300)
    expected = run(model, ladder(64, 64), sent)
    assert {completion.ended for completion in expected.values()} <= {"eos", "length"}
    assert run(model, ladder(64, 64), random.Random(1).sample(sent, len(sent))) == expected
    rest = run(model, ladder(64, 64), sent[37:])
    assert rest == {request.key: expected[request.key] for request in sent[37:]}


@pytest.mark.parametrize(("dtype", "quantize"), NUMBERS)
def test_an_adapter_changes_what_is_written(base: Base, adapter_folder: Path, dtype: Dtype, quantize: Quantize) -> None:
    sent = requests(16)
    plain = run(load_model(base, dtype=dtype, quantize=quantize, device="cuda"), ladder(64, 16), sent)
    model = load_model(base, read_adapter(adapter_folder), dtype=dtype, quantize=quantize, device="cuda")
    assert hasattr(model.module, "peft_config") == (quantize != "none")
    assert run(model, ladder(64, 16), sent) != plain


def test_an_adapter_merged_in_bfloat16_stays_near_float32(base: Base, adapter_folder: Path) -> None:
    adapter = read_adapter(adapter_folder)
    probe = torch.tensor([requests(1, 1)[0].prompt_ids + tuple(range(30, 60))], device="cuda")
    exact, rounded, other = (
        load_model(base, chosen, dtype=dtype, device="cuda").module(input_ids=probe).logits.float().detach()
        for chosen, dtype in ((adapter, "float32"), (adapter, "bfloat16"), (None, "float32"))
    )
    near = torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).mean()
    assert near > 0.99
    assert torch.nn.functional.cosine_similarity(exact, other, dim=-1).mean() < near


def test_a_full_card_steps_down_and_loses_nothing(base: Base) -> None:
    model = load_model(base, dtype="bfloat16", device="cuda")
    total = torch.cuda.get_device_properties(0).total_memory
    sent = requests(600, 200)
    told: list[Shapes] = []
    engine = PaddedEngine(
        model,
        shapes=ladder(200, 4096),
        max_new_tokens=64,
        should_stop=lambda: False,
        on_step_down=told.append,
    )
    # What the weights take, and little more: far from enough for thousands of rows.
    room = torch.cuda.memory_reserved() + (256 << 20)
    torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
    found = [(completion, engine.batch_rows) for completion in engine.generate(sent)]
    assert told
    assert engine.batch_rows == told[-1].rows < 4096
    assert sorted(completion.key for completion, _ in found) == sorted(request.key for request in sent)
    torch.cuda.set_per_process_memory_fraction(1.0)
    again = run(model, told[-1], sent, 64)
    at_last = [completion for completion, rows in found if rows == told[-1].rows]
    assert at_last == [again[completion.key] for completion in at_last]
