"""The slot grid on the CPU: every row is what it is alone, whatever happens around it."""

import gc
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from enrich.engine.bases import Base
from enrich.engine.grid import GridEngine
from enrich.engine.grid_shapes import GridShapes
from enrich.engine.model import Dtype, Model, load_model
from enrich.engine.protocol import Completion, Request
from enrich.engine.sampling import GREEDY, Sampling
from enrich.engine.slots import Slots
from enrich.engine.tiers import Stored, Wish, open_engine
from enrich.errors import ModelUnavailable, Stopped

from .conftest import EOS_IDS, VOCABULARY, penalised_generate
from .test_padded import NEW, POISON, TITLES, alone, ids, never, poisoned, prompts
from .test_padded import engine as padded

LONGEST = 32
SAMPLED = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=3)

Texts = dict[bytes, tuple[int, ...]]


@contextmanager
def opened(
    model: Model,
    *,
    slots: int = 4,
    prefix: tuple[int, ...] = (),
    longest: int = LONGEST,
    max_new_tokens: int = NEW,
    sampling: Sampling = GREEDY,
    should_stop: Callable[[], bool] = never,
    stored: Stored | None = None,
) -> Iterator[GridEngine]:
    kept: dict[str, str] = {}
    wish = Wish(prefix, longest, max_new_tokens, sampling, slots=slots)
    engine = open_engine(model, wish, stored or Stored(kept.get, kept.__setitem__), should_stop, kind="grid")
    assert isinstance(engine, GridEngine)
    try:
        yield engine
    finally:
        engine.close()


def run(model: Model, requests: Iterable[Request], **options: Any) -> Texts:
    with opened(model, **options) as engine:
        return ids(engine.generate(requests))


def only(texts: Texts, requests: Iterable[Request]) -> Texts:
    return {request.key: texts[request.key] for request in requests}


def collect(completions: Iterable[Completion], into: list[Completion]) -> None:
    """Keeps what came before an error, too."""
    for completion in completions:
        into.append(completion)  # noqa: PERF402


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine"]


@pytest.fixture(scope="module", autouse=True)
def little_garbage() -> Iterator[None]:
    """What the imports left is not looked through again at every step down."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def reference(tiny_base: Base) -> Texts:
    """What `prompts(42)` are alone."""
    return alone(load_model(tiny_base, device="cpu"), prompts(42))


# Rightness


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_every_row_is_what_it_is_alone(tiny: Model, reference: Texts, slots: int) -> None:
    with opened(tiny, slots=slots) as engine:
        completions = list(engine.generate(prompts(42)))
    assert ids(completions) == reference
    assert {completion.ended for completion in completions} == {"eos", "length"}
    for completion in completions:
        assert (len(completion.ids) == NEW) == (completion.ended == "length")
        assert not set(completion.ids) & set(EOS_IDS)


@pytest.mark.parametrize("prefix", [(7,), tuple(range(30, 51))], ids=len)
def test_a_common_prefix_changes_nothing(tiny: Model, prefix: tuple[int, ...]) -> None:
    requests = [Request(each.key, prefix + each.prompt_ids) for each in prompts(21, longest=LONGEST - len(prefix))]
    expected = alone(tiny, requests)
    assert run(tiny, requests, prefix=prefix) == expected
    assert run(tiny, requests) == expected


@pytest.mark.parametrize("place", [0, 2])
def test_a_wrong_prefix_would_be_noticed(tiny: Model, place: int) -> None:
    requests = [Request(each.key, (7, 8, 9, *each.prompt_ids)) for each in prompts(21, longest=29)]
    expected = alone(tiny, requests)
    with opened(tiny, prefix=(7, 8, 9)) as engine:
        for layer in tiny.module.model.layers:
            layer.self_attn.slot_values[:, :, place] = 0
        found = ids(engine.generate(requests))
    assert sum(found[key] != expected[key] for key in expected) > len(requests) // 2


def test_an_end_at_the_last_token_is_an_end(tiny: Model) -> None:
    with opened(tiny) as engine:
        ended = {c.key: len(c.ids) for c in engine.generate(prompts(42)) if c.ended == "eos" and c.ids}
    key, length = next(iter(ended.items()))
    with opened(tiny, max_new_tokens=length + 1) as engine:
        again = {c.key: c for c in engine.generate(prompts(42))}
    with opened(tiny, max_new_tokens=length) as engine:
        cut = {c.key: c for c in engine.generate(prompts(42))}
    assert (again[key].ended, len(again[key].ids)) == ("eos", length)
    assert (cut[key].ended, len(cut[key].ids)) == ("length", length)


def test_one_token_is_a_completion(tiny: Model) -> None:
    requests = prompts(12, longest=8)
    expected = alone(tiny, requests, 1)
    assert run(tiny, requests, max_new_tokens=1, longest=8) == expected


@pytest.mark.parametrize("penalty", [1.3, 2.0])
def test_a_penalised_row_is_what_it_is_alone(tiny: Model, penalty: float) -> None:
    requests = prompts(21)
    expected = {each.key: penalised_generate(tiny, each.prompt_ids, NEW, penalty) for each in requests}
    assert run(tiny, requests, sampling=Sampling(repetition_penalty=penalty)) == expected
    assert expected != alone(tiny, requests)


@pytest.mark.model
def test_real_titles_are_what_they_are_alone(embedded_base: Base) -> None:
    model = load_model(embedded_base, dtype="float32", device="cpu")
    tokenizer = Tokenizer.from_file(str(embedded_base.folder / "tokenizer.json"))
    prompt_ids = [tuple(tokenizer.encode(f"Descrição do produto {title}:").ids) for title in TITLES[:5]]
    requests = [Request(title.encode(), prompt) for title, prompt in zip(TITLES, prompt_ids, strict=False)]
    common = next(at for at, column in enumerate(zip(*prompt_ids, strict=False)) if len(set(column)) > 1)
    prefix = prompt_ids[0][:common]
    expected = alone(model, requests, 4)
    assert common > 3
    assert run(model, requests, prefix=prefix, longest=40, max_new_tokens=4) == expected
    assert len(set(expected.values())) > 3


# Sameness


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_order_neighbours_and_interruption_change_nothing(tiny_base: Base, dtype: Dtype, sampling: Sampling) -> None:
    requests = prompts(42)
    with opened(load_model(tiny_base, dtype=dtype, device="cpu"), slots=8, sampling=sampling) as engine:
        expected = ids(engine.generate(requests))
        assert ids(engine.generate(random.Random(1).sample(requests, len(requests)))) == expected
        assert ids(engine.generate(reversed(requests))) == expected
        assert ids(engine.generate(requests[5:])) == only(expected, requests[5:])
        for request in requests[:4]:
            assert ids(engine.generate([request])) == only(expected, [request])
    assert len(set(expected.values())) > 30


def test_a_further_attempt_draws_another_text(tiny: Model, reference: Texts) -> None:
    again = [replace(request, attempt=1) for request in prompts(42)]
    with opened(tiny, sampling=SAMPLED) as engine:
        first, second = ids(engine.generate(prompts(42))), ids(engine.generate(again))
    assert sum(first[key] != second[key] for key in first) > 30
    assert sum(first[key] != reference[key] for key in first) > 20
    assert run(tiny, again) == reference


@pytest.mark.parametrize("sampling", [SAMPLED, replace(SAMPLED, seed=4), replace(SAMPLED, repetition_penalty=1.3)])
def test_what_is_drawn_is_what_the_padded_engine_draws(tiny: Model, sampling: Sampling) -> None:
    expected = ids(padded(tiny, sampling=sampling).generate(prompts(42)))
    assert run(tiny, prompts(42), sampling=sampling) == expected


# Laziness, stopping and abandoning


def test_requests_are_pulled_as_there_is_room(tiny: Model) -> None:
    pulled: list[Request] = []

    def source() -> Iterator[Request]:
        for request in prompts(400):
            pulled.append(request)
            yield request

    with opened(tiny) as engine:
        shapes = engine._slots.shapes
        completions = engine.generate(source())
        next(completions)
        seated, waiting, inbox = shapes.slots, 2 * sum(bucket.rows for bucket in shapes.buckets), shapes.slots
        assert len(pulled) <= seated + waiting + inbox + 1
        del completions


@pytest.mark.parametrize("patience", [1, 2, 3, 40, 60])
def test_a_stop_abandons_what_is_at_hand(tiny: Model, reference: Texts, patience: int) -> None:
    asked = iter(range(10_000))
    finished: list[Completion] = []
    with opened(tiny, should_stop=lambda: next(asked) + 1 == patience) as engine:
        with pytest.raises(Stopped):
            collect(engine.generate(prompts(42)), finished)
        assert next(asked) == patience
        assert (patience >= 40) <= (0 < len(finished) < 42)
        left = [request for request in prompts(42) if request.key not in {c.key for c in finished}]
        assert ids(finished) | ids(engine.generate(left)) == reference


def test_an_abandoned_run_ends_its_thread(tiny: Model, reference: Texts) -> None:
    before = engine_threads()
    with opened(tiny) as engine:
        completions = engine.generate(prompts(42))
        next(completions)
        assert len(engine_threads()) == len(before) + 1
        completions.close()  # type: ignore[attr-defined]
        assert engine_threads() == before
        assert ids(engine.generate(prompts(42))) == reference


# Memory


class Failing:
    """Stands before a method of `Slots`: raises at one call, and looks that shapes are stored before they are used."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str, error: Callable[[int], BaseException | None]) -> None:
        self.stored: dict[str, str] = {}
        self.slots: list[int] = []
        self._run = getattr(Slots, name)
        self._error = error
        patch.setattr(Slots, name, lambda *of: self._call(*of))

    def keep(self) -> Stored:
        return Stored(self.stored.get, self.stored.__setitem__)

    def _call(self, slots: Slots, *options: Any) -> Any:
        self.slots.append(slots.shapes.slots)
        assert [GridShapes.from_json(text) for text in self.stored.values()] == [slots.shapes]
        error = self._error(len(self.slots))
        if error:
            raise error
        return self._run(slots, *options)


def no_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize(
    ("name", "call", "error"),
    [
        *(("prefill", call, no_memory) for call in (2, 5, 9)),
        *(("decode", call, no_memory) for call in (1, 2, 30)),
        ("decode", 9, MemoryError),
    ],
)
def test_running_out_of_memory_loses_nothing(
    tiny: Model,
    reference: Texts,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: int,
    error: Callable[[], BaseException],
) -> None:
    failing = Failing(monkeypatch, name, lambda count: error() if count == call else None)
    with opened(tiny, stored=failing.keep()) as engine:
        assert ids(engine.generate(prompts(42))) == reference
    assert set(failing.slots[:call]) == {4}
    assert set(failing.slots[call:]) == {2}


def test_it_steps_down_as_often_as_it_must(
    tiny: Model, reference: Texts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(monkeypatch, "decode", lambda count: no_memory() if count in (5, 40, 60) else None)
    with opened(tiny, slots=8, stored=failing.keep()) as engine:
        assert ids(engine.generate(prompts(42))) == reference
    assert sorted(set(failing.slots)) == [1, 2, 4, 8]
    assert caplog.text.count("out of memory") == 3


def test_a_row_that_does_not_fit_alone_ends_the_run(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, "decode", lambda _: no_memory())
    with opened(tiny, stored=failing.keep()) as engine, pytest.raises(ModelUnavailable, match="one row"):
        list(engine.generate(prompts(8)))
    assert failing.slots == [4, 2, 1]


def test_shapes_are_stored_by_who_asks_for_texts(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database connection serves no other thread than its own."""
    failing = Failing(monkeypatch, "decode", lambda count: no_memory() if count == 3 else None)
    threads: list[threading.Thread] = []

    def put(name: str, text: str) -> None:
        threads.append(threading.current_thread())
        failing.stored[name] = text

    with opened(tiny, stored=Stored(failing.stored.get, put)) as engine:
        list(engine.generate(prompts(8)))
    assert threads == [threading.current_thread()] * 2


def test_memory_that_the_source_lacks_is_no_matter_of_slots(tiny: Model) -> None:
    def source() -> Iterator[Request]:
        yield from prompts(8)
        raise MemoryError

    with opened(tiny) as engine:
        with pytest.raises(MemoryError):
            list(engine.generate(source()))
        assert engine._slots.shapes.slots == 4


def test_a_device_that_breaks_ends_the_run_after_what_was_finished(
    tiny: Model, reference: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, "decode", lambda count: RuntimeError("launch failure") if count > 40 else None)
    finished: list[Completion] = []
    with opened(tiny, stored=failing.keep()) as engine, pytest.raises(RuntimeError, match="launch failure"):
        collect(engine.generate(prompts(42)), finished)
    assert finished
    assert ids(finished).items() < reference.items()


# Bad rows


def spoil(model: Model) -> None:
    """No row that reads the poison has finite numbers."""
    with torch.no_grad():
        model.module.get_input_embeddings().weight[POISON] = float("nan")


def clean(reference: Texts) -> list[Request]:
    """Requests that do not write the poison themselves."""
    return [request for request in prompts(42) if POISON not in reference[request.key]]


@pytest.mark.parametrize("slots", [1, 4])
def test_a_row_with_numbers_out_of_range_fails_alone(
    tiny: Model, reference: Texts, slots: int, caplog: pytest.LogCaptureFixture
) -> None:
    requests = clean(reference)
    bad = requests[9]
    with opened(tiny, slots=slots) as engine:
        spoil(tiny)
        sent = [poisoned(request) if request is bad else request for request in requests]
        completions = {completion.key: completion for completion in engine.generate(sent)}
    assert completions.pop(bad.key) == Completion(bad.key, (), "failed")
    assert ids(completions.values()) == {key: text for key, text in only(reference, requests).items() if key != bad.key}
    assert caplog.text.count(f"row {bad.key.hex()} failed") == 1


@pytest.mark.parametrize("clears", [True, False])
def test_who_sits_in_its_slot_next_is_not_spoilt(
    tiny: Model, reference: Texts, clears: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = clean(reference)
    failed = threading.Event()
    clear = Slots.clear

    def spy(slots: Slots, slot: int) -> None:
        if clears:
            clear(slots, slot)
        failed.set()

    monkeypatch.setattr(Slots, "clear", spy)

    def source() -> Iterator[Request]:
        yield Request(b"bad", (*[7] * (LONGEST - 1), POISON))
        assert failed.wait(30)
        yield from requests

    with opened(tiny, slots=1) as engine:
        spoil(tiny)
        completions = list(engine.generate(source()))
    assert [completion.ended == "failed" for completion in completions[:2]] == [True, not clears]
    if clears:
        assert ids(completions[1:]) == only(reference, requests)


def test_a_stop_leaves_nothing_bad_behind(tiny: Model, reference: Texts) -> None:
    asked = iter(range(10_000))
    with opened(tiny, slots=1, should_stop=lambda: next(asked) == 1) as engine:
        spoil(tiny)
        with pytest.raises(Stopped):
            list(engine.generate([Request(b"bad", (*[7] * (LONGEST - 1), POISON))]))
        assert ids(engine.generate(clean(reference))) == only(reference, clean(reference))


def test_numbers_out_of_range_after_a_row_s_end_do_not_fail_it(tiny: Model) -> None:
    requests = prompts(42)
    poison_last = {key: text for key, text in alone(tiny, requests, 6).items() if POISON in text}
    length = min(text.index(POISON) for text in poison_last.values()) + 1
    expected = alone(tiny, requests, length)
    at_end = {key for key, text in expected.items() if len(text) == length and text[-1] == POISON}
    assert at_end
    with opened(tiny, max_new_tokens=length) as engine:
        spoil(tiny)
        assert ids(engine.generate(requests)) == expected


@pytest.mark.parametrize(
    "unfit",
    [(), (7, 8, 9), (7, 8), (7, 9, 8, 30), (30, 7, 8, 9), (7, 8, 9, VOCABULARY), (7, 8, 9, -1), (7, 8, 9, *[3] * 30)],
)
def test_a_prompt_that_cannot_be_served_fails_alone(tiny: Model, unfit: tuple[int, ...]) -> None:
    requests = [Request(each.key, (7, 8, 9, *each.prompt_ids)) for each in prompts(9, longest=29)]
    expected = alone(tiny, requests)
    with opened(tiny, prefix=(7, 8, 9)) as engine:
        completions = {c.key: c for c in engine.generate([*requests[:4], Request(b"unfit", unfit), *requests[4:]])}
    assert completions.pop(b"unfit") == Completion(b"unfit", (), "failed")
    assert ids(completions.values()) == expected


def test_when_nothing_can_be_served_nothing_is_read(tiny: Model) -> None:
    with opened(tiny) as engine:
        completions = list(engine.generate([Request(bytes([at]), ()) for at in range(50)]))
        assert engine.figures.padded_tokens == 0
    assert [completion.ended for completion in completions] == ["failed"] * 50


def test_nothing_asked_is_nothing_answered(tiny: Model) -> None:
    assert run(tiny, []) == {}


# Figures


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_figures_are_those_of_the_completions(tiny: Model, slots: int) -> None:
    requests = prompts(42)
    with opened(tiny, slots=slots) as engine:
        # What was generated before is no part of them.
        assert len(list(engine.generate(prompts(7)))) == 7
        completions = list(engine.generate(requests))
        figures, shapes = engine.figures, engine._slots.shapes
    assert figures.tokens == sum(len(completion.ids) for completion in completions)
    assert figures.prompt_tokens == sum(len(request.prompt_ids) for request in requests)
    lengths = [shapes.bucket(len(request.prompt_ids)).length for request in requests]
    assert figures.padded_tokens >= sum(lengths)
    assert figures.slot_steps % (slots * shapes.window) == 0
    assert figures.slot_steps >= sum(len(c.ids) - (c.ended == "length") for c in completions)
    assert 0 < figures.slot_use <= 1
    assert 0 <= figures.padding_share < 1
    assert figures.seconds >= figures.decode_seconds + figures.prefill_seconds > 0


def test_full_slots_are_well_used(tiny: Model) -> None:
    with opened(tiny) as engine:
        list(engine.generate(prompts(100)))
        assert engine.figures.slot_use > 0.6
