from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from enrich.engine.joined import Joints
from enrich.engine.model import Model

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])
JOINED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.module(IDS).logits
    return found


def joined(module: nn.Module) -> Joints:
    joints = Joints()
    joints.join(module)
    return joints


def layers_of(model: Model) -> list[Any]:
    return list(model.module.model.layers)


@contextmanager
def counted_products() -> Iterator[list[int]]:
    """How many products ran within, and their operations."""
    found: list[int] = []
    calls: list[None] = []
    whole = nn.functional.linear

    def linear(*options: Any) -> torch.Tensor:
        calls.append(None)
        return whole(*options)

    with pytest.MonkeyPatch.context() as patch, FlopCounterMode(display=False) as counter:
        patch.setattr(nn.functional, "linear", linear)
        yield found
    found += [len(calls), counter.get_total_flops()]


class _Parent(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)


def test_logits_are_what_they_were(tiny: Model) -> None:
    before = logits(tiny)
    joined(tiny.module)
    torch.testing.assert_close(logits(tiny), before, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(logits(tiny), before, atol=1e-6, rtol=1e-6)


def test_the_same_is_computed_in_fewer_products(tiny: Model) -> None:
    with counted_products() as before:
        logits(tiny)
    joined(tiny.module)
    with counted_products() as after:
        logits(tiny)
    # Of a layer: q, k, v, o, gate, up and down become qkv, o, gate-up and down.
    assert (before[0], after[0]) == (2 * 7 + 1, 2 * 4 + 1)
    assert before[1] == after[1]


def test_undone_it_is_the_very_model(tiny: Model) -> None:
    before = logits(tiny)
    modules = dict(tiny.module.named_modules())
    parameters = dict(tiny.module.named_parameters())
    joints = joined(tiny.module)
    assert dict(tiny.module.named_modules()) != modules
    joints.undo()
    assert dict(tiny.module.named_modules()) == modules
    assert list(dict(tiny.module.named_modules())) == list(modules)
    assert all(dict(tiny.module.named_parameters())[name] is each for name, each in parameters.items())
    assert torch.equal(logits(tiny), before)
    joints.undo()
    assert torch.equal(logits(tiny), before)


def test_what_was_joined_before_an_error_is_undone(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before = logits(tiny)
    modules = dict(tiny.module.named_modules())
    whole, calls = torch.cat, iter(range(3))

    def cat(*options: Any) -> torch.Tensor:
        if next(calls, None) is None:
            raise torch.OutOfMemoryError
        return whole(*options)

    joints = Joints()
    monkeypatch.setattr(torch, "cat", cat)
    with pytest.raises(torch.OutOfMemoryError):
        joints.join(tiny.module)
    monkeypatch.undo()
    assert dict(tiny.module.named_modules()) != modules
    joints.undo()
    assert dict(tiny.module.named_modules()) == modules
    assert torch.equal(logits(tiny), before)


def test_joined_again_it_computes_the_same(tiny: Model) -> None:
    joints = joined(tiny.module)
    before = logits(tiny)
    joints.undo()
    joined(tiny.module)
    assert torch.equal(logits(tiny), before)


def test_weights_are_there_once(tiny: Model) -> None:
    separate = {(at, name): each.get_submodule(name) for at, each in enumerate(layers_of(tiny)) for name in JOINED}
    values = {place: layer.weight.detach().clone() for place, layer in separate.items()}
    held = sum(each.nbytes for each in tiny.module.parameters())
    joined(tiny.module)
    assert sum(each.nbytes for each in tiny.module.parameters()) == held
    firsts = [(each.self_attn.q_proj, each.mlp.gate_proj) for each in layers_of(tiny)]
    for (at, name), layer in separate.items():
        matrix = firsts[at]["mlp" in name].weight
        inside = layer.weight.data_ptr() - matrix.data_ptr()
        assert 0 <= inside <= matrix.nbytes - layer.weight.nbytes
        assert layer.weight.untyped_storage().data_ptr() == matrix.untyped_storage().data_ptr()
        assert torch.equal(layer.weight, values[at, name])


def test_no_step_s_tensors_outlive_it(tiny: Model) -> None:
    joined(tiny.module)
    logits(tiny)
    assert all(each.self_attn.q_proj.parts == each.mlp.gate_proj.parts == () for each in layers_of(tiny))


@pytest.mark.parametrize("bias", [True, False])
def test_biases_are_joined_too(bias: bool) -> None:
    torch.manual_seed(0)
    parent = _Parent(*(nn.Linear(8, size, bias=bias) for size in (8, 4, 2)))
    x = torch.randn(3, 5, 8)
    before = parent(x)
    joined(parent)
    assert type(parent.q_proj) is not nn.Linear
    torch.testing.assert_close(parent(x), before, atol=1e-6, rtol=1e-6)


class _Packed(nn.Linear):
    """As the layers of bitsandbytes are."""


@pytest.mark.parametrize(
    "odd",
    [
        lambda: nn.Linear(8, 4, bias=True),
        lambda: nn.Linear(8, 4, bias=False, dtype=torch.float64),
        lambda: nn.Linear(6, 4, bias=False),
        lambda: _Packed(8, 4, bias=False),
        nn.Identity,
    ],
    ids=["bias", "dtype", "inputs", "packed", "not linear"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_layers_that_differ_are_left_alone(odd: Callable[[], nn.Module], place: int) -> None:
    layers: list[nn.Module] = [nn.Linear(8, 4, bias=False) for _ in range(3)]
    layers[place] = odd()
    parent = _Parent(*layers)
    joined(parent).undo()
    assert [parent.q_proj, parent.k_proj, parent.v_proj] == layers
    joined(parent)
    assert [parent.q_proj, parent.k_proj, parent.v_proj] == layers
