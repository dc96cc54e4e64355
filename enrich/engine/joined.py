"""Fewer, larger products: projections that read the same input become one matrix.

The forward pass of transformers still asks for each by its name. The first of them computes the product for all; the
others hand out their part of it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class _First(nn.Module):
    """Multiplies by all the matrices, (sum of outputs, inputs), and keeps the parts of the others."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        self.weight = nn.Parameter(torch.cat([layer.weight.data for layer in layers]), requires_grad=False)
        biases = [layer.bias.data for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
        self.parts: tuple[torch.Tensor, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.parts = torch.split(functional.linear(x, self.weight, self.bias), self.sizes, dim=-1)
        return self.parts[0]


class _Later(nn.Module):
    """Hands out a part; the last of the siblings lets go of them, so that no step's tensors outlive it."""

    def __init__(self, first: _First, number: int) -> None:
        super().__init__()
        # Not as a submodule: it has its place already.
        self._first = (first,)
        self._number = number
        self._is_last = number == len(first.sizes) - 1

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        (first,) = self._first
        part = first.parts[self._number]
        if self._is_last:
            first.parts = ()
        return part


class Joints:
    """The joined projections of a model; `undo` puts the separate ones back."""

    def __init__(self) -> None:
        self._separate: list[tuple[nn.Module, str, nn.Linear]] = []

    def join(self, module: Any) -> None:
        """Joins whatever can be; what was joined before an error can be undone."""
        for parent, names in list(_siblings(module)):
            self._join(parent, names)

    def _join(self, parent: nn.Module, names: tuple[str, ...]) -> None:
        layers: list[nn.Linear] = [getattr(parent, name) for name in names]
        first = _First(layers)
        for number, (name, layer) in enumerate(zip(names, layers, strict=True)):
            # A view of the joined matrix: the weights are there once.
            layer.weight.data = torch.split(first.weight.data, first.sizes)[number]
            self._separate.append((parent, name, layer))
            setattr(parent, name, _Later(first, number) if number else first)

    def undo(self) -> None:
        """The model as it was before."""
        for parent, name, layer in self._separate:
            setattr(parent, name, layer)
        self._separate.clear()


def _siblings(module: Any) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    for parent in module.modules():
        for names in _SIBLINGS:
            layers = [getattr(parent, name, None) for name in names]
            # Exactly: the packed layers of bitsandbytes are kinds of nn.Linear.
            if all(type(layer) is nn.Linear for layer in layers) and _alike(layers):
                yield parent, names


def _alike(layers: list[Any]) -> bool:
    return len({(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}) == 1
