"""Triton kernels of the slot grid, for CUDA. `attention.py` says what they compute, in plain PyTorch.

Softmax as it goes, block by block (Milakov and Gimelshein 2018, Online normalizer calculation for softmax). What a
program computes depends on its own row alone, so a row's numbers are the same in a grid of any size.
"""

import torch
import triton
import triton.language as tl

# Positions of a slot that are read at once: few, since most texts are short (measured: 32, 64 and 128).
_BLOCK = 32
# Queries of a prefill that are served together.
_QUERIES = 64
# A tensor core's product has at least so many rows and columns.
_TILE = 16


@triton.jit
def _capped(scores, softcap):
    # softcap * tanh(scores / softcap)
    return softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)


@triton.jit
def _fold(top, total, mixed, q, keys, values, visible, scale, softcap, capped: tl.constexpr, precision: tl.constexpr):
    """Takes one more block of keys and values into the running maximum, weight and mix of values."""
    scores = tl.dot(q, tl.trans(keys), input_precision=precision) * scale
    if capped:
        scores = _capped(scores, softcap)
    scores = tl.where(visible, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp(scores - new_top[:, None])
    shrunk = tl.exp(top - new_top)
    mixed = mixed * shrunk[:, None] + tl.dot(weights.to(values.dtype), values, input_precision=precision)
    return new_top, total * shrunk + tl.sum(weights, 1), mixed


@triton.jit
def _decode(
    q_start,
    k_start,
    v_start,
    out_start,
    keys_start,
    values_start,
    slots_start,
    positions_start,
    scale,
    softcap,
    prefix,
    spare,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    slot_stride,
    head_stride,
    group: tl.constexpr,
    padded_group: tl.constexpr,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    block: tl.constexpr,
    capped: tl.constexpr,
    precision: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots_start + row).to(tl.int64)
    position = tl.load(positions_start + row)
    g, d = tl.arange(0, padded_group), tl.arange(0, padded_dim)
    in_dim = d < dim
    real = (g < group)[:, None] & in_dim[None, :]
    query = (head * group + g)[:, None]
    q = tl.load(q_start + row * q_row + query * q_head + d[None, :], mask=real, other=0.0)
    k = tl.load(k_start + row * k_row + head * k_head + d, mask=in_dim, other=0.0)
    v = tl.load(v_start + row * v_row + head * v_head + d, mask=in_dim, other=0.0)
    here = slot * slot_stride + head * head_stride + position * dim + d
    tl.store(keys_start + here, k, mask=in_dim)
    tl.store(values_start + here, v, mask=in_dim)
    # The new token comes from registers: what was just stored may not be there to be read yet.
    top = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], 1) * scale
    if capped:
        top = _capped(top, softcap)
    total = tl.full((padded_group,), 1.0, tl.float32)
    mixed = tl.zeros((padded_group, padded_dim), tl.float32) + v.to(tl.float32)[None, :]
    for start in range(0, position, block):
        at = start + tl.arange(0, block)
        # All rows read the common prefix from one slot, so that it comes from the cache.
        place = tl.where(at < prefix, spare, slot) * slot_stride + head * head_stride + at * dim
        visible = at < position
        there = visible[:, None] & in_dim[None, :]
        keys = tl.load(keys_start + place[:, None] + d[None, :], mask=there, other=0.0)
        values = tl.load(values_start + place[:, None] + d[None, :], mask=there, other=0.0)
        top, total, mixed = _fold(
            top, total, mixed, q, keys, values, visible[None, :], scale, softcap, capped, precision
        )
    out = (row * tl.num_programs(1) * group + query) * dim + d[None, :]
    tl.store(out_start + out, (mixed / total[:, None]).to(out_start.dtype.element_ty), mask=real)


@triton.jit
def _prefill(
    q_start,
    out_start,
    keys_start,
    values_start,
    slots_start,
    scale,
    softcap,
    prefix,
    spare,
    length,
    q_row,
    q_head,
    q_token,
    slot_stride,
    head_stride,
    group: tl.constexpr,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    queries: tl.constexpr,
    block: tl.constexpr,
    capped: tl.constexpr,
    precision: tl.constexpr,
):
    row, head, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots_start + row).to(tl.int64)
    # All heads of a group for one token, then for the next: they share its keys.
    number, d = tile * queries + tl.arange(0, queries), tl.arange(0, padded_dim)
    token, query = number // group, head * group + number % group
    in_dim = d < dim
    real = (token < length)[:, None] & in_dim[None, :]
    q_place = row * q_row + query[:, None] * q_head + token[:, None] * q_token + d[None, :]
    q = tl.load(q_start + q_place, mask=real, other=0.0)
    top = tl.full((queries,), float("-inf"), tl.float32)
    total = tl.zeros((queries,), tl.float32)
    mixed = tl.zeros((queries, padded_dim), tl.float32)
    end = prefix + tl.minimum(length, (tile * queries + queries - 1) // group + 1)
    for start in range(0, end, block):
        at = start + tl.arange(0, block)
        place = tl.where(at < prefix, spare, slot) * slot_stride + head * head_stride + at * dim
        there = (at < end)[:, None] & in_dim[None, :]
        keys = tl.load(keys_start + place[:, None] + d[None, :], mask=there, other=0.0)
        values = tl.load(values_start + place[:, None] + d[None, :], mask=there, other=0.0)
        visible = at[None, :] <= (prefix + token)[:, None]
        top, total, mixed = _fold(top, total, mixed, q, keys, values, visible, scale, softcap, capped, precision)
    out = ((row * length + token) * tl.num_programs(1) * group + query)[:, None] * dim + d[None, :]
    tl.store(out_start + out, (mixed / total[:, None]).to(out_start.dtype.element_ty), mask=real)


# As operators of torch, so that compiling a layer leaves them whole.
@torch.library.custom_op("enrich::decode", mutates_args=("keys", "values"))
def decode(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    prefix: int,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """As `attention.decode`."""
    rows, heads, _, dim = q.shape
    kv_heads = keys.shape[1]
    out = torch.empty(rows, 1, heads, dim, device=q.device, dtype=q.dtype)
    _decode[(rows, kv_heads)](
        q,
        k,
        v,
        out,
        keys,
        values,
        slots,
        positions,
        scale,
        softcap,
        prefix,
        keys.shape[0] - 1,
        *(q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1)),
        *(keys.stride(0), keys.stride(1)),
        group=heads // kv_heads,
        padded_group=_padded(heads // kv_heads),
        dim=dim,
        padded_dim=_padded(dim),
        block=_BLOCK,
        capped=softcap > 0,
        precision=_precision(q),
        num_warps=2,
    )
    return out


@torch.library.custom_op("enrich::prefill", mutates_args=("keys", "values"))
def prefill(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    prefix: int,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """As `attention.prefill`."""
    rows, heads, length, dim = q.shape
    kv_heads = keys.shape[1]
    keys[:, :, prefix : prefix + length].index_copy_(0, slots, k)
    values[:, :, prefix : prefix + length].index_copy_(0, slots, v)
    out = torch.empty(rows, length, heads, dim, device=q.device, dtype=q.dtype)
    group = heads // kv_heads
    _prefill[(rows, kv_heads, triton.cdiv(group * length, _QUERIES))](
        q,
        out,
        keys,
        values,
        slots,
        scale,
        softcap,
        prefix,
        keys.shape[0] - 1,
        length,
        *q.stride()[:3],
        *(keys.stride(0), keys.stride(1)),
        group=group,
        dim=dim,
        padded_dim=_padded(dim),
        queries=_QUERIES,
        block=_BLOCK,
        capped=softcap > 0,
        precision=_precision(q),
        num_warps=4,
    )
    return out


@decode.register_fake
def _(q, *_):
    return q.new_empty(q.shape[0], 1, q.shape[1], q.shape[3])


@prefill.register_fake
def _(q, *_):
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3])


def _padded(count: int) -> int:
    return max(_TILE, int(triton.next_power_of_2(count)))


def _precision(q: torch.Tensor) -> str:
    # By default a float32 product is cut to ten bits of mantissa.
    return "ieee" if q.dtype == torch.float32 else "tf32"
