"""The loss of the learnt tokens, without the logits of all of them at once."""

from typing import Any

import torch

# Tokens whose logits are there at a time: 0.8 GB for a vocabulary of 32,000.
_TOKENS = 4096


def summed_loss(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats, summed: `hidden` (tokens, width) through `head` (vocabulary, width) against `targets`.

    The head is frozen, so the one gradient there is can be worked out while the logits are at hand.
    """
    return _SummedLoss.apply(hidden, head, targets)  # type: ignore[no-any-return,no-untyped-call]


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, head: Any, targets: Any) -> Any:
        total = hidden.new_zeros((), dtype=torch.float32)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for begin in range(0, len(hidden), _TOKENS):
            some = slice(begin, begin + _TOKENS)
            wanted = targets[some, None]
            logs = torch.log_softmax(hidden[some] @ head.t(), dim=-1, dtype=torch.float32)
            total -= logs.gather(1, wanted).sum()
            if grad is not None:
                slope = logs.exp_().scatter_add_(1, wanted, logs.new_full(wanted.shape, -1.0))
                torch.mm(slope.to(hidden.dtype), head, out=grad[some])
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None
