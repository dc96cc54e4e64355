"""The slot grid on a card: the kernels against plain PyTorch, and the same promises in every number type and form."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from enrich.engine import plain_attention
from enrich.engine.bases import Base
from enrich.engine.grid import GridEngine
from enrich.engine.grid_shapes import Bucket, GridShapes
from enrich.engine.model import Dtype, Model, load_model
from enrich.engine.protocol import Completion, Request
from enrich.engine.sampling import GREEDY, Sampling
from enrich.engine.tiers import Stored, Wish, open_engine

from .conftest import plain_generate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("free_the_card"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card"),
    # The torch of the card's machine is not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

PREFIX = (7, 8, 9)
NEW = 24


# Kernels

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def case(dtype: torch.dtype, heads: int, kv_heads: int, dim: int, tokens: int) -> list[torch.Tensor]:
    """q, k, v of 5 rows, keys and values of 9 slots and a spare, 70 positions each."""
    torch.manual_seed(0)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=dtype)

    stored = [made(10, kv_heads, 70, dim) for _ in range(2)]
    for each in stored:
        each[:-1, :, :3] = each[-1:, :, :3]
    # As a model hands them over: a view of (rows, tokens, heads, dim).
    asked = [made(5, tokens, count, dim).transpose(1, 2) for count in (heads, kv_heads, kv_heads)]
    return [*asked, *stored]


@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(8, 1, 64), (9, 3, 64), (4, 4, 80), (40, 2, 128), (2, 2, 16)])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_the_kernels_compute_what_plain_attention_does(
    dtype: torch.dtype, heads: int, kv_heads: int, dim: int, softcap: float
) -> None:
    from enrich.engine import kernels

    slots = torch.tensor([4, 0, 8, 2, 9], device="cuda")
    positions = torch.tensor([3, 33, 69, 64, 3], device="cuda")
    for tokens in (1, 13):
        q, k, v, keys, values = case(dtype, heads, kv_heads, dim, tokens)
        found = keys.clone(), values.clone()
        if tokens == 1:
            expected = plain_attention.decode(q, k, v, keys, values, slots, positions, 3, dim**-0.5, softcap)
            out = kernels.decode(q, k, v, *found, slots, positions, 3, dim**-0.5, softcap)
        else:
            expected = plain_attention.prefill(q, k, v, keys, values, slots, 3, dim**-0.5, softcap)
            out = kernels.prefill(q, k, v, *found, slots, 3, dim**-0.5, softcap)
        assert torch.equal(found[0], keys)
        assert torch.equal(found[1], values)
        distance = (out - expected).float().norm() / expected.float().norm()
        assert distance < TOLERANCE[dtype]


# The grid


def requests(count: int, longest: int = 40) -> list[Request]:
    dice = random.Random(0)
    return [
        Request(at.to_bytes(16, "big"), (*PREFIX, *dice.choices(range(30, 90), k=dice.randint(1, longest))))
        for at in range(count)
    ]


def opened(model: Model, slots: int, stored: dict[str, str] | None = None, sampling: Sampling = GREEDY) -> GridEngine:
    kept = {} if stored is None else stored
    wish = Wish(PREFIX, 43, NEW, sampling, slots=slots)
    engine = open_engine(model, wish, Stored(kept.get, kept.__setitem__), lambda: False, kind="grid")
    assert isinstance(engine, GridEngine)
    return engine


def run(engine: GridEngine, sent: list[Request]) -> dict[bytes, Completion]:
    found = {completion.key: completion for completion in engine.generate(sent)}
    assert found.keys() == {request.key for request in sent}
    return found


def test_it_is_compiled_and_in_graphs_of_several_sizes(base: Base) -> None:
    engine = opened(load_model(base), 512)
    shapes = engine._slots.shapes
    assert (shapes.compiled, shapes.graphs, engine._slots.sizes) == (True, True, [512, 256, 128])
    engine.close()


@pytest.mark.parametrize(("compiled", "graphs"), [(True, True), (False, True), (False, False)])
def test_a_float32_row_is_what_it_is_alone(tiny_base: Base, compiled: bool, graphs: bool) -> None:
    model = load_model(tiny_base, dtype="float32", device="cuda")
    sent = requests(80)
    expected = {request.key: plain_generate(model, request.prompt_ids, NEW) for request in sent}
    stored: dict[str, str] = {}
    opened(model, 16, stored).close()
    shapes = GridShapes.from_json(stored["grid 16"])
    stored["grid 16"] = replace(shapes, compiled=compiled, graphs=graphs).to_json()
    engine = opened(model, 16, stored)
    assert (engine._slots.shapes.compiled, engine._slots.shapes.graphs) == (compiled, graphs)
    assert {key: each.ids for key, each in run(engine, sent).items()} == expected
    engine.close()


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.9, 50, 0.95, 1.2, 3)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_order_neighbours_and_interruption_change_nothing(base: Base, dtype: Dtype, sampling: Sampling) -> None:
    engine = opened(load_model(base, dtype=dtype, device="cuda"), 256, sampling=sampling)
    sent = requests(900)
    expected = run(engine, sent)
    assert run(engine, random.Random(1).sample(sent, len(sent))) == expected
    assert run(engine, sent[401:]) == {request.key: expected[request.key] for request in sent[401:]}
    assert run(engine, sent[7:9]) == {request.key: expected[request.key] for request in sent[7:9]}
    assert len({each.ids for each in expected.values()}) > len(sent) // 3
    engine.close()


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_that_runs_out_is_told_and_nothing_is_lost(
    tiny_base: Base, caplog: pytest.LogCaptureFixture, compiled: bool
) -> None:
    """Also while layers are compiled: fewer slots, not another form. (A graph takes 32 MB however few they are.)"""
    model = load_model(tiny_base, device="cuda")
    taken = torch.cuda.memory_reserved()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((taken + (700 << 20)) / whole)
    stored: dict[str, str] = {}
    shapes = GridShapes(65536, 43 + NEW, (Bucket(40, 64),), 8, compiled=compiled, graphs=True)
    stored["grid 65536"] = shapes.to_json()
    engine = opened(model, 65536, stored)
    found = GridShapes.from_json(stored["grid 65536"])
    assert 1 <= found.slots < 65536
    assert (found.compiled, found.graphs) == (compiled, True)
    assert "out of memory" in caplog.text
    assert len(run(engine, requests(50))) == 50
    engine.close()


WITHOUT_TRITON = """
import json, logging, sys
from pathlib import Path
from enrich.engine.bases import find_base
from enrich.engine.model import load_model
from tests.engine.test_grid_cuda import opened, requests, run

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
engine = opened(load_model(find_base(sys.argv[1], Path(sys.argv[1])), dtype="float32", device="cuda"), 16)
print(json.dumps({each.key.hex(): each.ids for each in run(engine, requests(80)).values()}))
engine.close()
"""


def test_without_triton_it_steps_down_and_the_texts_are_the_same(tiny_base: Base, tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("raise ImportError('no Triton here')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_TRITON, str(tiny_base.folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "compiled, in CUDA graphs: " in done.stderr
    assert "16 slots of 67 tokens, in CUDA graphs" in done.stderr
    model = load_model(tiny_base, dtype="float32", device="cuda")
    expected = {each.key.hex(): list(plain_generate(model, each.prompt_ids, NEW)) for each in requests(80)}
    assert json.loads(done.stdout) == expected
