"""The form of the grid that a machine gets: shapes kept from run to run, and nothing that computes wrongly."""

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from enrich.engine import attention, plain_attention
from enrich.engine import slots as slots_module
from enrich.engine.attention import NotServed
from enrich.engine.grid import GridEngine
from enrich.engine.grid_shapes import Bucket, GridShapes, plan_shapes
from enrich.engine.joined import Joints
from enrich.engine.model import Model
from enrich.engine.padded import PaddedEngine, ladder
from enrich.engine.protocol import Generator
from enrich.engine.sampling import GREEDY, Sampling
from enrich.engine.slots import Slots
from enrich.engine.tiers import Stored, Wish, open_engine
from enrich.errors import ModelUnavailable, SettingsError

from .test_grid import little_garbage as little_garbage
from .test_padded import NEW, alone, ids, never, prompts

WISH = Wish((), 32, NEW, GREEDY, slots=8)
SHAPES = GridShapes(8, 46, (Bucket(8, 8), Bucket(16, 4), Bucket(32, 2)), 1)

Attention = Callable[..., torch.Tensor]


class Kept(dict[str, str]):
    """Stored shapes, and every one of them in the order in which they came."""

    def __init__(self, **stored: str) -> None:
        super().__init__(stored)
        self.history: list[tuple[str, str]] = []

    def put(self, name: str, text: str) -> None:
        self.history.append((name, text))
        self[name] = text

    @property
    def slots(self) -> list[int]:
        return [GridShapes.from_json(text).slots for name, text in self.history if name.startswith("grid")]


def opened(model: Model, wish: Wish = WISH, kept: Kept | None = None, kind: str = "auto") -> Generator:
    kept = Kept() if kept is None else kept
    return open_engine(model, wish, Stored(kept.get, kept.put), never, kind=kind)


def assert_untouched(model: Model) -> None:
    """The model computes as it was loaded."""
    assert not attention.attention_layers(model.module)
    assert model.module.config._attn_implementation == "sdpa"
    assert type(model.module.model.layers[0].self_attn.q_proj) is nn.Linear
    assert not model.module.lm_head._forward_pre_hooks


# Stored shapes


def test_shapes_are_stored_before_they_are_used(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    give = slots_module.give_slots

    def spy(module: Any, count: int, positions: int) -> None:
        assert GridShapes.from_json(kept["grid 8"]).slots == count
        give(module, count, positions)

    monkeypatch.setattr(slots_module, "give_slots", spy)
    opened(tiny, kept=kept).close()
    assert list(kept) == ["grid 8"]
    assert_untouched(tiny)


def test_stored_shapes_are_used_again(tiny: Model) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    stored = replace(SHAPES, slots=3, buckets=(Bucket(11, 2), Bucket(32, 3)), window=2)
    kept = Kept(**{"grid 8": stored.to_json()})
    engine = opened(tiny, kept=kept)
    assert isinstance(engine, GridEngine)
    assert engine._slots.shapes == stored
    assert kept == {"grid 8": stored.to_json()}
    assert ids(engine.generate(requests)) == expected


def test_another_number_of_slots_has_shapes_of_its_own(tiny: Model) -> None:
    kept = Kept()
    for slots in (2, 3, None):
        opened(tiny, replace(WISH, slots=slots), kept).close()
    assert {name: GridShapes.from_json(text).slots for name, text in kept.items()} == {
        "grid 2": 2,
        "grid 3": 3,
        "grid auto": 32,
    }


def test_the_padded_engine_is_there_for_the_asking(tiny: Model) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    kept = Kept()
    engine = opened(tiny, replace(WISH, batch_rows=5), kept, "padded")
    assert isinstance(engine, PaddedEngine)
    assert kept == {"padded 5": ladder(32, 5).to_json()}
    assert ids(engine.generate(requests)) == expected


@pytest.mark.parametrize("kind", ["auto", "grid", "padded"])
def test_more_tokens_than_the_model_has_positions_are_refused(tiny: Model, kind: str) -> None:
    opened(tiny, replace(WISH, max_prompt_tokens=400, max_new_tokens=112), kind=kind).close()
    with pytest.raises(SettingsError, match="512 positions"):
        opened(tiny, replace(WISH, max_prompt_tokens=400, max_new_tokens=113), kind=kind)


# Shapes


@pytest.mark.parametrize("shapes", [SHAPES, replace(SHAPES, window=2, compiled=True, graphs=True)])
def test_shapes_survive_json(shapes: GridShapes) -> None:
    assert GridShapes.from_json(shapes.to_json()) == shapes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "7",
        '{"slots": 4, "positions": 9, "window": 1}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": []}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": [8]}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": [{"length": 8}]}',
        '{"slots": 0, "positions": 9, "window": 1, "buckets": [{"length": 8, "rows": 1}]}',
        '{"slots": 4, "positions": 9, "window": 0, "buckets": [{"length": 8, "rows": 1}]}',
        '{"slots": 4, "positions": 8, "window": 1, "buckets": [{"length": 8, "rows": 1}]}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": [{"length": 8, "rows": 5}]}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": [{"length": 8, "rows": 0}]}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": [{"length": 0, "rows": 1}]}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": [{"length": 8, "rows": 1}, {"length": 8, "rows": 1}]}',
        '{"slots": 4, "positions": 9, "window": 1, "buckets": [{"length": 8, "rows": 1}], "more": 1}',
        '{"slots": "4", "positions": 9, "window": 1, "buckets": [{"length": 8, "rows": 1}]}',
    ],
)
def test_stored_shapes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="remove the stored shapes"):
        GridShapes.from_json(text)


def test_nonsense_ends_a_run_before_it_begins(tiny: Model) -> None:
    with pytest.raises(SettingsError, match="remove the stored shapes"):
        opened(tiny, kept=Kept(**{"grid 8": "nonsense"}))


def test_half_of_one_slot_is_nothing() -> None:
    assert SHAPES.halved() == GridShapes(4, 46, (Bucket(8, 4), Bucket(16, 4), Bucket(32, 2)), 1)
    assert SHAPES.halved().halved().halved().slots == 1
    with pytest.raises(ValueError, match="one slot"):
        SHAPES.halved().halved().halved().halved()


@settings(deadline=None)
@given(
    prefix=st.integers(0, 200),
    own=st.integers(1, 4096),
    new=st.integers(1, 512),
    slots=st.none() | st.integers(1, 300),
    size=st.integers(1, 1 << 20),
)
def test_planned_shapes_hold_every_prompt(prefix: int, own: int, new: int, slots: int | None, size: int) -> None:
    model = Model(None, torch.device("cpu"), torch.float32, (2,), 0, 96, 10_000)
    limits = {"prefix_tokens": prefix, "max_prompt_tokens": prefix + own, "max_new_tokens": new}
    shapes = plan_shapes(model, **limits, bytes_a_token=size, slots=slots)
    assert shapes.positions == prefix + own + new
    assert shapes.slots == slots or slots is None
    assert not shapes.compiled
    assert not shapes.graphs
    assert shapes.buckets[-1].length == own
    assert all(a.length < b.length <= max(1.5 * a.length, a.length + 8) for a, b in pairwise(shapes.buckets))
    for length in {1, own // 2 + 1, own}:
        bucket = shapes.bucket(length)
        assert bucket is not None
        assert bucket.length >= length
        assert 1 <= bucket.rows <= shapes.slots
    assert shapes.bucket(own + 1) is None
    assert GridShapes.from_json(shapes.to_json()) == shapes
    if slots is None:
        assert shapes.slots == 1 or shapes.slots * shapes.positions * size <= 2 << 30


# What computes wrongly


def forgets_a_position(right: Attention) -> Attention:
    def wrong(q: Any, k: Any, v: Any, keys: Any, values: Any, slots: Any, places: Any, *rest: Any) -> torch.Tensor:
        values[slots, :, places - 1] = 0
        return right(q, k, v, keys, values, slots, places, *rest)

    return wrong


def attends_one_position_too_few(right: Attention) -> Attention:
    def wrong(q: Any, k: Any, v: Any, keys: Any, values: Any, slots: Any, places: Any, *rest: Any) -> torch.Tensor:
        right(q, k, v, keys, values, slots, places, *rest)
        before = (stored[slots, :, places - 1][:, :, None] for stored in (keys, values))
        return right(q, *before, keys, values, slots, places - 1, *rest)

    return wrong


def attends_one_position_too_many(right: Attention) -> Attention:
    def wrong(q: Any, k: Any, v: Any, keys: Any, values: Any, slots: Any, places: Any, *rest: Any) -> torch.Tensor:
        right(q, k, v, keys, values, slots, places, *rest)
        after = (stored[slots, :, places + 1][:, :, None] for stored in (keys, values))
        return right(q, *after, keys, values, slots, places + 1, *rest)

    return wrong


def writes_in_a_neighbour_s_slot(right: Attention) -> Attention:
    def wrong(q: Any, k: Any, v: Any, keys: Any, values: Any, slots: Any, *rest: Any) -> torch.Tensor:
        return right(q, k, v, keys, values, slots.roll(1), *rest)

    return wrong


def is_not_finite(right: Attention) -> Attention:
    return lambda *of: right(*of) * float("nan")


def raises(_: Attention) -> Attention:
    def wrong(*_: Any) -> torch.Tensor:
        raise RuntimeError("no kernel image")

    return wrong


def raises_a_long_story(_: Attention) -> Attention:
    def wrong(*_: Any) -> torch.Tensor:
        raise RuntimeError("\nat 1:0:\nno kernel image")

    return wrong


def is_not_served(_: Attention) -> Attention:
    def wrong(*_: Any) -> torch.Tensor:
        raise NotServed("a sliding window of 8 tokens")

    return wrong


WRONG = [
    ("decode", forgets_a_position, "logits are"),
    ("decode", attends_one_position_too_few, "logits are"),
    ("decode", attends_one_position_too_many, "logits are"),
    ("decode", writes_in_a_neighbour_s_slot, "logits are"),
    ("prefill", writes_in_a_neighbour_s_slot, "logits are"),
    ("decode", is_not_finite, "logits are nan"),
    ("prefill", is_not_finite, "logits are nan"),
    ("decode", raises, "no kernel image"),
    ("prefill", raises, "no kernel image"),
    ("decode", raises_a_long_story, "padded engine"),
    ("decode", is_not_served, "a sliding window"),
    ("prefill", is_not_served, "a sliding window"),
]


@pytest.mark.parametrize(
    ("name", "wrong", "said", "prefix"),
    [*((*case, ()) for case in WRONG), *((*case, (7, 8, 9)) for case in WRONG[1::3])],
)
def test_what_computes_wrongly_is_said_and_left(
    tiny: Model,
    name: str,
    wrong: Callable[[Attention], Attention],
    said: str,
    prefix: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = prompts(4)
    expected = alone(tiny, requests)
    monkeypatch.setattr(plain_attention, name, wrong(getattr(plain_attention, name)))
    wish = replace(WISH, prefix_ids=prefix)
    with pytest.raises(ModelUnavailable, match="does not serve"):
        opened(tiny, wish, kind="grid")
    assert said in caplog.text
    assert_untouched(tiny)
    engine = opened(tiny, wish, kind="auto")
    assert isinstance(engine, PaddedEngine)
    assert ids(engine.generate(requests)) == expected


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.8, 5, 0.9, 1.2)], ids=["greedy", "sampled"])
def test_a_wrong_choice_is_said(
    tiny: Model, sampling: Sampling, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    advance = Slots._advance
    monkeypatch.setattr(Slots, "_advance", lambda *of: advance(*of) + 1)
    with pytest.raises(ModelUnavailable, match="does not serve"):
        opened(tiny, replace(WISH, sampling=sampling), kind="grid")
    assert "does not choose" in caplog.text
    assert_untouched(tiny)


def test_what_computes_rightly_is_said(tiny: Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "enrich"):
        assert isinstance(opened(tiny), GridEngine)
    assert "8 slots of 46 tokens, eager" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_packed_weights_are_for_the_padded_engine(tiny: Model) -> None:
    tiny.module.is_quantized = True
    assert isinstance(opened(tiny), PaddedEngine)
    with pytest.raises(ModelUnavailable, match="does not serve"):
        opened(tiny, kind="grid")


def test_a_closed_engine_leaves_the_model_as_it_was(tiny: Model) -> None:
    requests = prompts(8)
    expected = alone(tiny, requests)
    engine = opened(tiny)
    assert ids(engine.generate(requests)) == expected
    engine.close()
    engine.close()
    assert_untouched(tiny)
    assert alone(tiny, requests) == expected


# Memory


def no_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def fill_giving(patch: pytest.MonkeyPatch, most: int) -> None:
    give = slots_module.give_slots

    def full(module: Any, count: int, positions: int) -> None:
        if count > most:
            raise no_memory()
        give(module, count, positions)

    patch.setattr(slots_module, "give_slots", full)


def fill_values(patch: pytest.MonkeyPatch, most: int) -> None:
    """Room for the keys of a layer, and none for its values."""
    zeros: Any = torch.zeros
    given: list[int] = []

    def full(*shape: Any, **options: Any) -> torch.Tensor:
        if len(shape) == 4 and shape[0] > most + 1:
            given.append(shape[0])
            if given.count(shape[0]) == 2:
                raise no_memory()
        made: torch.Tensor = zeros(*shape, **options)
        return made

    patch.setattr(torch, "zeros", full)


def fill_probing(patch: pytest.MonkeyPatch, most: int) -> None:
    logits_of = Slots.logits_of

    def full(slots: Slots, *of: Any) -> torch.Tensor:
        if slots.shapes.slots > most:
            raise no_memory()
        return logits_of(slots, *of)

    patch.setattr(Slots, "logits_of", full)


@pytest.mark.parametrize("fill", [fill_giving, fill_values, fill_probing])
def test_memory_that_runs_out_at_first_halves_the_slots(
    tiny: Model,
    fill: Callable[[pytest.MonkeyPatch, int], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    kept = Kept()
    fill(monkeypatch, 2)
    engine = opened(tiny, kept=kept)
    assert isinstance(engine, GridEngine)
    assert kept.slots == [8, 4, 2]
    assert [f"going on with {slots} slots" in caplog.text for slots in (4, 2, 1)] == [True, True, False]
    assert ids(engine.generate(requests)) == expected
    engine.close()
    assert_untouched(tiny)


@pytest.mark.parametrize("fill", [fill_giving, fill_values, fill_probing])
def test_memory_for_less_than_one_slot_is_too_little(
    tiny: Model, fill: Callable[[pytest.MonkeyPatch, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    fill(monkeypatch, 0)
    with pytest.raises(ModelUnavailable, match="one row of 46 tokens"):
        opened(tiny, kept=kept)
    assert kept.slots == [8, 4, 2, 1]
    assert_untouched(tiny)


def test_memory_that_runs_out_while_products_are_joined_leaves_the_model_whole(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    join = Joints._join
    calls: list[None] = []

    def full(*of: Any) -> None:
        calls.append(None)
        if len(calls) == 2:
            raise no_memory()
        join(*of)

    monkeypatch.setattr(Joints, "_join", full)
    engine = opened(tiny, kept=kept)
    assert kept.slots == [8, 4]
    engine.close()
    assert_untouched(tiny)


def test_a_smaller_grid_is_where_the_next_run_begins(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    with monkeypatch.context() as patch:
        fill_giving(patch, 2)
        opened(tiny, kept=kept).close()
    engine = opened(tiny, kept=kept)
    assert isinstance(engine, GridEngine)
    assert engine._slots.shapes.slots == 2
