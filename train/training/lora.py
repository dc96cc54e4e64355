"""LoRA's products in the model's number type, over weights that are frozen.

peft's own layer turns the input into the adapter's float32 and the result back, and over four bits it copies the
result first.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

_ADAPTER = "default"


def use_lean_products(module: Any) -> None:
    """Gives every LoRA layer of `module`, of one adapter without dropout, the product of this page."""
    layers: list[Any] = [layer for layer in module.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.packing = _unpacked_once(layer)
        layer.forward = MethodType(_forward, layer)


def _unpacked_once(layer: Any) -> tuple[Any, ...] | None:
    """How the weight is packed into four bits, None if it is not. Its scales, packed themselves, are unpacked here
    and not in every product: 50 MB more for TinyLlama."""
    state = getattr(layer.get_base_layer().weight, "quant_state", None)
    if state is None:
        return None
    from bitsandbytes.functional import dequantize_blockwise

    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    layer.register_buffer("scales", scales.float(), persistent=False)
    return state.blocksize, state.quant_type, tuple(state.shape), state.dtype


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    weight = layer.get_base_layer().weight.data
    scales = None if layer.packing is None else layer.scales
    down, up = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    scale = layer.scaling[_ADAPTER]
    return _Product.apply(x, weight, scales, layer.packing, down, up, scale)  # type: ignore[no-any-return,no-untyped-call]


def _plain(weight: torch.Tensor, scales: torch.Tensor | None, packing: Any) -> torch.Tensor:
    if packing is None:
        return weight
    plain: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(weight, scales, *packing)
    return plain


class _Product(torch.autograd.Function):
    """`x W' + scale · x down' up'`, ' for transposed. `down` and `up` stay float32, and so do their gradients.

    Packed weights are unpacked again for the backward pass, and never kept unpacked.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, scales: Any, packing: Any, down: Any, up: Any, scale: float) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        narrow = rows @ down.to(x.dtype).t()
        out = rows @ _plain(weight, scales, packing).t() + narrow @ (scale * up).to(x.dtype).t()
        ctx.save_for_backward(rows, narrow, weight, scales, down, up)
        ctx.packing, ctx.scale = packing, scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, narrow, weight, scales, down, up = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        grad_narrow = grad @ (ctx.scale * up).to(grad.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ _plain(weight, scales, ctx.packing) + grad_narrow @ down.to(grad.dtype)
            grad_x = grad_x.view(*grads[0].shape[:-1], -1)
        grad_down = (grad_narrow.t() @ rows).float()
        grad_up = ctx.scale * (grad.t() @ narrow).float()
        return grad_x, None, None, None, grad_down, grad_up, None
