import math
from collections.abc import Iterator

import pytest
import torch

from enrich.engine.plain_attention import decode, prefill

SLOTS = 5
SPARE = SLOTS
POSITIONS = 14
DIM = 8
SCALE = 0.3

heads_and_groups = pytest.mark.parametrize(("kv_heads", "group"), [(1, 1), (4, 1), (2, 3), (1, 4)])
softcaps = pytest.mark.parametrize("softcap", [0.0, 1.5])


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, softcap: float) -> torch.Tensor:
    """The reference: one query, (dim), over keys and values, (tokens, dim), in Python's numbers."""
    scores = [scale * math.fsum(a * b for a, b in zip(q.tolist(), each.tolist(), strict=True)) for each in k]
    if softcap:
        scores = [softcap * math.tanh(score / softcap) for score in scores]
    weights = [math.exp(score - max(scores)) for score in scores]
    shares = torch.tensor([weight / math.fsum(weights) for weight in weights], dtype=torch.float64)
    return (shares[:, None] * v.double()).sum(0).float()


class Slots:
    """Random keys and values in all slots, with the same first `prefix` positions."""

    def __init__(self, kv_heads: int, group: int, prefix: int = 0, seed: int = 0) -> None:
        self.dice = torch.Generator().manual_seed(seed)
        self.kv_heads, self.group, self.prefix = kv_heads, group, prefix
        self.keys = self.random(SLOTS + 1, kv_heads, POSITIONS, DIM)
        self.values = self.random(SLOTS + 1, kv_heads, POSITIONS, DIM)
        for stored in (self.keys, self.values):
            stored[:, :, :prefix] = stored[-1:, :, :prefix].clone()

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.dice)

    def tokens(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values as a model makes them: heads are the second dimension of a transposed tensor."""
        shapes = (self.kv_heads * self.group, self.kv_heads, self.kv_heads)
        q, k, v = (self.random(rows, length, heads, DIM).transpose(1, 2) for heads in shapes)
        return q, k, v

    def spoil(self, slot: int, start: int, value: float) -> None:
        self.keys[slot, :, start:] = self.values[slot, :, start:] = value


def every_head(q: torch.Tensor, kv_heads: int) -> Iterator[tuple[int, int]]:
    heads = q.shape[1]
    yield from ((head, head // (heads // kv_heads)) for head in range(heads))


def check_decode(
    stored: Slots, slots: list[int], positions: list[int], softcap: float = 0.0, *, owned: int | None = None
) -> torch.Tensor:
    """Decodes a token more and holds the rows, or the first `owned`, against the reference."""
    q, k, v = stored.tokens(len(slots), 1)
    before = stored.keys.clone(), stored.values.clone()
    arguments = torch.tensor(slots), torch.tensor(positions), stored.prefix, SCALE, softcap
    out = decode(q, k, v, stored.keys, stored.values, *arguments)
    assert out.shape == (len(slots), 1, q.shape[1], DIM)
    for row, (slot, position) in enumerate(zip(slots[:owned], positions[:owned], strict=True)):
        for now, then, new in ((stored.keys, before[0], k), (stored.values, before[1], v)):
            assert torch.equal(now[slot, :, position], new[row, :, 0])
            now = now[slot].clone()
            now[:, position] = then[slot, :, position]
            assert torch.equal(now, then[slot])
        for head, kv_head in every_head(q, stored.kv_heads):
            own = stored.keys[slot, kv_head, : position + 1], stored.values[slot, kv_head, : position + 1]
            expected = attended(q[row, head, 0], *own, SCALE, softcap)
            torch.testing.assert_close(out[row, 0, head], expected, atol=1e-5, rtol=1e-5)
    untouched = [slot for slot in range(SLOTS) if slot not in slots]
    assert torch.equal(stored.keys[untouched], before[0][untouched])
    assert torch.equal(stored.values[untouched], before[1][untouched])
    return out


def check_prefill(
    stored: Slots, slots: list[int], length: int, softcap: float = 0.0, *, owned: int | None = None
) -> torch.Tensor:
    """Reads `length` tokens a row and holds the rows, or the first `owned`, against the reference."""
    q, k, v = stored.tokens(len(slots), length)
    before = stored.keys.clone(), stored.values.clone()
    end = stored.prefix + length
    out = prefill(q, k, v, stored.keys, stored.values, torch.tensor(slots), stored.prefix, SCALE, softcap)
    assert out.shape == (len(slots), length, q.shape[1], DIM)
    for row, slot in enumerate(slots[:owned]):
        for now, then, new in ((stored.keys, before[0], k), (stored.values, before[1], v)):
            assert torch.equal(now[slot], torch.cat([then[slot, :, : stored.prefix], new[row], then[slot, :, end:]], 1))
        for head, kv_head in every_head(q, stored.kv_heads):
            for at in range(length):
                own = (each[slot, kv_head, : stored.prefix + at + 1] for each in (stored.keys, stored.values))
                expected = attended(q[row, head, at], *own, SCALE, softcap)
                torch.testing.assert_close(out[row, at, head], expected, atol=1e-5, rtol=1e-5)
    untouched = [slot for slot in range(SLOTS) if slot not in slots]
    assert torch.equal(stored.keys[untouched], before[0][untouched])
    assert torch.equal(stored.values[untouched], before[1][untouched])
    return out


# Decode


@heads_and_groups
@softcaps
def test_a_grid_of_all_slots_decodes_each_at_its_own_place(kv_heads: int, group: int, softcap: float) -> None:
    stored = Slots(kv_heads, group, prefix=3)
    check_decode(stored, list(range(SLOTS)), [3, 13, 7, 4, 10], softcap)


@heads_and_groups
@softcaps
def test_a_smaller_grid_decodes_slots_out_of_order(kv_heads: int, group: int, softcap: float) -> None:
    check_decode(Slots(kv_heads, group, prefix=2), [4, 0, 2], [5, 13, 2], softcap)


def test_rows_that_are_nobody_s_are_decoded_in_the_spare_slot() -> None:
    check_decode(Slots(2, 2, prefix=2), [3, 1, SPARE, SPARE], [5, 9, 2, 2], owned=2)


def test_the_first_token_of_all_sees_itself_alone() -> None:
    stored = Slots(1, 1)
    q, k, v = stored.tokens(1, 1)
    out = decode(q, k, v, stored.keys, stored.values, torch.tensor([2]), torch.tensor([0]), 0, SCALE, 0.0)
    torch.testing.assert_close(out[0, 0], v[0, :, 0])


@softcaps
@pytest.mark.parametrize("slots", [list(range(SLOTS)), [4, 0, 2]], ids=["all", "some"])
def test_what_lies_beyond_a_row_s_place_does_not_matter(slots: list[int], softcap: float) -> None:
    positions = [3, 9, 7, 4, 10][: len(slots)]
    clean, stale = Slots(2, 2, prefix=3), Slots(2, 2, prefix=3)
    for slot, position in zip(slots, positions, strict=True):
        stale.spoil(slot, position, 1e4)
    expected = check_decode(clean, slots, positions, softcap)
    assert torch.equal(check_decode(stale, slots, positions, softcap), expected)


def test_what_lies_before_a_row_s_place_does_matter() -> None:
    clean, changed = Slots(2, 2), Slots(2, 2)
    changed.values[3, :, 5] += 1
    (expected, found) = (check_decode(each, [3, 1], [6, 6]) for each in (clean, changed))
    assert not torch.allclose(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


# Prefill


@heads_and_groups
@softcaps
@pytest.mark.parametrize("prefix", [0, 3])
def test_a_prefill_sees_the_prefix_and_what_came_before(kv_heads: int, group: int, softcap: float, prefix: int) -> None:
    check_prefill(Slots(kv_heads, group, prefix), [4, 0, 2], 5, softcap)


@pytest.mark.parametrize("length", [1, POSITIONS - 3])
def test_a_prefill_may_be_a_token_or_fill_its_slot(length: int) -> None:
    check_prefill(Slots(2, 2, prefix=3), [1, 3], length)


def test_rows_that_are_nobody_s_are_read_into_the_spare_slot() -> None:
    stored = Slots(2, 2, prefix=3)
    prefix = stored.keys[SPARE, :, :3].clone()
    check_prefill(stored, [3, 1, SPARE, SPARE], 4, owned=2)
    assert torch.equal(stored.keys[SPARE, :, :3], prefix)


@softcaps
def test_what_a_slot_held_before_does_not_matter(softcap: float) -> None:
    clean, stale = Slots(2, 2, prefix=3), Slots(2, 2, prefix=3)
    stale.spoil(4, 3, 1e4)
    stale.spoil(0, 3, float("nan"))
    slots = torch.tensor([4, 0])
    expected, found = (
        prefill(*each.tokens(2, 5), each.keys, each.values, slots, 3, SCALE, softcap) for each in (clean, stale)
    )
    assert torch.equal(found, expected)


def test_pads_after_a_row_s_tokens_do_not_matter() -> None:
    stored = Slots(2, 2, prefix=3)
    q, k, v = stored.tokens(2, 6)
    changed = [each.clone() for each in (q, k, v)]
    for each in changed:
        each[:, :, 4:] = 1e4
    slots = torch.tensor([4, 0])
    expected = prefill(q, k, v, stored.keys, stored.values, slots, 3, SCALE, 0.0)
    found = prefill(*changed, stored.keys, stored.values, slots, 3, SCALE, 0.0)
    assert torch.equal(found[:, :4], expected[:, :4])
    assert not torch.allclose(found[:, 4:], expected[:, 4:])


@softcaps
def test_tokens_decoded_one_by_one_are_as_prefilled(softcap: float) -> None:
    at_once, stepwise = Slots(2, 3, prefix=3), Slots(2, 3, prefix=3)
    q, k, v = at_once.tokens(2, 6)
    slots = torch.tensor([4, 1])
    expected = prefill(q, k, v, at_once.keys, at_once.values, slots, 3, SCALE, softcap)
    for at in range(6):
        one = slice(at, at + 1)
        token = q[:, :, one], k[:, :, one], v[:, :, one]
        positions = torch.full((2,), 3 + at)
        out = decode(*token, stepwise.keys, stepwise.values, slots, positions, 3, SCALE, softcap)
        torch.testing.assert_close(out, expected[:, one], atol=1e-5, rtol=1e-5)
    assert torch.equal(stepwise.keys[slots], at_once.keys[slots])
