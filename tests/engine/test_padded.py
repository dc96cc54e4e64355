import logging
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import LogitsProcessor

from enrich.engine.bases import Base
from enrich.engine.model import Model, load_model
from enrich.engine.padded import PaddedEngine, Shapes, ladder
from enrich.engine.protocol import Completion, Request
from enrich.engine.sampling import GREEDY, Sampling
from enrich.errors import ModelUnavailable, SettingsError, Stopped

from .conftest import EOS_IDS, VOCABULARY, penalised_generate, plain_generate

NEW = 14
SHAPES = Shapes(4, (8, 16, 32))
POISON = 95

TITLES = (
    "Garrafa térmica de aço inox 1 L",
    "Cadeira de escritório com apoio para os braços",
    "Wooden cutting board",
    "Stainless steel kitchen scissors, black handle",
    "Jogo de lençóis 200 fios, casal",
    "USB-C charging cable 2 m",
    "Luminária de mesa LED",
    "Caderno pautado A5, 96 folhas",
    "Hand-blown glass vase, green, 30 cm, made in small batches",
    "Tênis de corrida masculino, azul, tamanho 42",
    "Ceramic mug",
    "Mochila impermeável para notebook de 15 polegadas com compartimento acolchoado",
    "Children's raincoat, yellow, age 4-5",
    "Panela de pressão 4,5 litros",
    "Bicycle bell",
    "Travesseiro de penas",
    "Set of 6 wine glasses, dishwasher safe, 450 ml each",
    "Kit de ferramentas com 40 peças e maleta",
    "Wool scarf",
    "Filtro de café de papel nº 103, pacote com 30 unidades",
)


def prompts(count: int, seed: int = 0, longest: int = 32) -> list[Request]:
    """Requests of every length up to `longest`, without the end tokens, the pad and the poison."""
    dice = random.Random(seed)
    words = [i for i in range(1, VOCABULARY) if i not in EOS_IDS and i != POISON]
    lengths = [1 + at * (longest - 1) // max(count - 1, 1) for at in range(count)]
    dice.shuffle(lengths)
    return [Request(at.to_bytes(16, "big"), tuple(dice.choices(words, k=length))) for at, length in enumerate(lengths)]


def poisoned(request: Request) -> Request:
    return Request(request.key, (*request.prompt_ids[:-1], POISON))


def never() -> bool:
    return False


def engine(
    model: Model,
    shapes: Shapes = SHAPES,
    *,
    max_new_tokens: int = NEW,
    sampling: Sampling = GREEDY,
    should_stop: Callable[[], bool] = never,
    on_step_down: Callable[[Shapes], None] = lambda _: None,
    kind: type[PaddedEngine] = PaddedEngine,
) -> PaddedEngine:
    return kind(
        model,
        shapes=shapes,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        should_stop=should_stop,
        on_step_down=on_step_down,
    )


def alone(model: Model, requests: Iterable[Request], max_new_tokens: int = NEW) -> dict[bytes, tuple[int, ...]]:
    return {request.key: plain_generate(model, request.prompt_ids, max_new_tokens) for request in requests}


def ids(completions: Iterable[Completion]) -> dict[bytes, tuple[int, ...]]:
    """Key to ids, asserting that nothing comes back twice and nothing failed."""
    found: dict[bytes, tuple[int, ...]] = {}
    for completion in completions:
        assert completion.key not in found
        assert completion.ended != "failed"
        found[completion.key] = completion.ids
    return found


class Faulty:
    """Stands before a module's `generate`: notes the rows of every call, and raises where a test says so."""

    def __init__(self, model: Model, fault: Callable[[int, torch.Tensor], Exception | None]) -> None:
        self._generate = model.module.generate
        self._fault = fault
        self.masks: list[torch.Tensor] = []
        model.module.generate = self

    def __call__(self, **options: Any) -> torch.Tensor:
        self.masks.append(options["attention_mask"])
        error = self._fault(len(self.masks), options["input_ids"])
        if error:
            raise error
        output: torch.Tensor = self._generate(**options)
        return output


def hold(_: int, __: torch.Tensor) -> None:
    return None


# Rightness


def test_every_row_is_what_it_is_alone(tiny: Model) -> None:
    requests = prompts(42)
    completions = list(engine(tiny).generate(requests))
    assert ids(completions) == alone(tiny, requests)
    assert {completion.ended for completion in completions} == {"eos", "length"}
    for completion in completions:
        assert (len(completion.ids) == NEW) == (completion.ended == "length")
        assert not set(completion.ids) & set(EOS_IDS)


def test_an_end_at_the_last_token_is_an_end(tiny: Model) -> None:
    requests = prompts(42)
    ended = {c.key: len(c.ids) for c in engine(tiny).generate(requests) if c.ended == "eos" and c.ids}
    key, length = next(iter(ended.items()))
    again = {c.key: c for c in engine(tiny, max_new_tokens=length + 1).generate(requests)}
    cut = {c.key: c for c in engine(tiny, max_new_tokens=length).generate(requests)}
    assert (again[key].ended, len(again[key].ids)) == ("eos", length)
    assert (cut[key].ended, len(cut[key].ids)) == ("length", length)


class _NoMask(PaddedEngine):
    def _pad(self, prompts: list[tuple[int, ...]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = super()._pad(prompts, width)
        return ids, torch.ones_like(mask)


class _RightPadded(PaddedEngine):
    def _pad(self, prompts: list[tuple[int, ...]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = super()._pad(prompts, width)
        order = torch.sort(mask, dim=1, descending=True, stable=True).indices
        return ids.gather(1, order), mask.gather(1, order)


@pytest.mark.parametrize("wrong", [_NoMask, _RightPadded])
def test_wrong_padding_would_be_noticed(tiny: Model, wrong: type[PaddedEngine]) -> None:
    requests = prompts(42)
    expected = alone(tiny, requests)
    found = ids(engine(tiny, kind=wrong).generate(requests))
    assert sum(found[key] != expected[key] for key in expected) > len(requests) // 2


@pytest.mark.model
def test_real_titles_are_what_they_are_alone(embedded_base: Base) -> None:
    model = load_model(embedded_base, dtype="float32", device="cpu")
    tokenizer = Tokenizer.from_file(str(embedded_base.folder / "tokenizer.json"))
    requests = [
        Request(title.encode(), tuple(tokenizer.encode(f"Descrição do produto {title}:").ids)) for title in TITLES
    ]
    found = ids(engine(model, ladder(64, 8), max_new_tokens=10).generate(requests))
    assert found == alone(model, requests, 10)
    assert len(set(found.values())) > 15


# The repetition penalty


@pytest.mark.parametrize("penalty", [1.0, 1.3, 2.0])
def test_a_penalised_row_is_what_it_is_alone(tiny: Model, penalty: float) -> None:
    requests = prompts(21)
    expected = {each.key: penalised_generate(tiny, each.prompt_ids, NEW, penalty) for each in requests}
    assert ids(engine(tiny, sampling=Sampling(repetition_penalty=penalty)).generate(requests)) == expected
    assert ids(engine(tiny, sampling=Sampling(repetition_penalty=penalty)).generate(reversed(requests))) == expected
    assert (expected == alone(tiny, requests)) is (penalty == 1)


def test_a_penalty_makes_texts_repeat_less(tiny: Model) -> None:
    def num_repeats(penalty: float) -> int:
        texts = ids(engine(tiny, sampling=Sampling(repetition_penalty=penalty)).generate(prompts(21))).values()
        return sum(len(text) - len(set(text)) for text in texts)

    assert num_repeats(1.0) > 2 * num_repeats(1.3) > 4 * num_repeats(2.0)


class _PromptPenalised(PaddedEngine):
    def _penalties(self, _: int) -> list[LogitsProcessor]:
        return super()._penalties(0)


def test_a_penalty_on_the_prompt_would_be_noticed(tiny: Model) -> None:
    requests = prompts(21)
    expected = ids(engine(tiny, sampling=Sampling(repetition_penalty=1.3)).generate(requests))
    found = ids(engine(tiny, sampling=Sampling(repetition_penalty=1.3), kind=_PromptPenalised).generate(requests))
    assert sum(found[key] != expected[key] for key in expected) > len(requests) // 3


# Sameness


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_order_neighbours_and_interruption_change_nothing(tiny_base: Base, dtype: torch.dtype) -> None:
    model = load_model(tiny_base, dtype="bfloat16" if dtype == torch.bfloat16 else "float32", device="cpu")
    requests = prompts(42)
    expected = ids(engine(model).generate(requests))
    shuffled = random.Random(1).sample(requests, len(requests))
    assert ids(engine(model).generate(shuffled)) == expected
    assert ids(engine(model).generate(reversed(requests))) == expected
    rest = ids(engine(model).generate(requests[5:]))
    assert rest == {request.key: expected[request.key] for request in requests[5:]}
    for request in requests[:4]:
        assert ids(engine(model).generate([request])) == {request.key: expected[request.key]}


def test_every_batch_has_the_same_rows_and_a_masked_column(tiny: Model) -> None:
    full = [Request(bytes([at]), (7,) * 8) for at in range(4)]
    spy = Faulty(tiny, hold)
    list(engine(tiny).generate(full + prompts(21)))
    assert {mask.shape for mask in spy.masks} == {(4, 9), (4, 17), (4, 33)}
    assert all((mask == 0).any() for mask in spy.masks)


def test_fillers_do_not_keep_a_batch_running(tiny: Model) -> None:
    soonest = min((c for c in engine(tiny).generate(prompts(42)) if c.ended == "eos"), key=lambda c: len(c.ids))
    request = next(request for request in prompts(42) if request.key == soonest.key)
    asked: list[None] = []
    list(engine(tiny, should_stop=lambda: asked.append(None) is not None).generate([request]))
    assert len(asked) == len(soonest.ids) + 1


# Laziness and stopping


def test_requests_are_pulled_as_there_is_room(tiny: Model) -> None:
    pulled: list[Request] = []

    def source() -> Iterator[Request]:
        for request in prompts(400):
            pulled.append(request)
            yield request

    next(engine(tiny).generate(source()))
    assert len(pulled) <= len(SHAPES.lengths) * (SHAPES.rows - 1) + 1


@pytest.mark.parametrize("patience", [1, 2, 17, 40])
def test_a_stop_abandons_the_batch_at_hand_and_no_other(tiny: Model, patience: int) -> None:
    requests = prompts(42)
    asked = iter(range(10_000))
    stopping = engine(tiny, should_stop=lambda: next(asked) + 1 == patience)
    finished: list[Completion] = []
    with pytest.raises(Stopped):
        finished.extend(_collect(stopping, requests, finished))
    assert next(asked) == patience
    assert len(finished) % SHAPES.rows == 0
    left = [request for request in requests if request.key not in {c.key for c in finished}]
    assert ids(finished) | ids(engine(tiny).generate(left)) == alone(tiny, requests)


def _collect(running: PaddedEngine, requests: list[Request], into: list[Completion]) -> list[Completion]:
    for completion in running.generate(requests):
        into.append(completion)  # noqa: PERF402
    return []


# Memory


def _cuda_oom() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def _cpu_oom() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(
    ("call", "error"), [*((call, _cuda_oom) for call in range(1, 8)), (2, _cpu_oom), (2, MemoryError)]
)
def test_running_out_of_memory_loses_nothing(tiny: Model, call: int, error: Callable[[], Exception]) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    Faulty(tiny, lambda count, _: error() if count == call else None)
    told: list[Shapes] = []
    stepping = engine(tiny, on_step_down=told.append)
    assert ids(stepping.generate(requests)) == expected
    assert told == [Shapes(2, SHAPES.lengths)]
    assert stepping.batch_rows == 2


def test_it_steps_down_to_what_fits_and_says_so_first(tiny: Model, caplog: pytest.LogCaptureFixture) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    told: list[Shapes] = []
    rows_run: list[int] = []

    def fault(_: int, batch: torch.Tensor) -> Exception | None:
        rows_run.append(len(batch))
        assert len(batch) == (told[-1].rows if told else 16)
        return _cuda_oom() if len(batch) > 2 else None

    Faulty(tiny, fault)
    with caplog.at_level(logging.WARNING, "enrich"):
        found = ids(engine(tiny, Shapes(16, SHAPES.lengths), on_step_down=told.append).generate(requests))
    assert found == expected
    assert [shapes.rows for shapes in told] == [8, 4, 2]
    assert rows_run[:4] == [16, 8, 4, 2]
    assert caplog.text.count("out of memory") == 3


def test_a_row_that_does_not_fit_alone_ends_the_run(tiny: Model) -> None:
    Faulty(tiny, lambda *_: _cuda_oom())
    with pytest.raises(ModelUnavailable, match="one row"):
        list(engine(tiny).generate(prompts(8)))


def test_memory_that_runs_out_while_rows_are_tried_alone_steps_down(tiny: Model) -> None:
    requests = prompts(8)
    expected = alone(tiny, requests)
    faults: dict[int, Exception] = {1: ValueError("odd"), 3: _cuda_oom()}
    Faulty(tiny, lambda count, _: faults.get(count))
    told: list[Shapes] = []
    assert ids(engine(tiny, on_step_down=told.append).generate(requests)) == expected
    assert [shapes.rows for shapes in told] == [2]


# Bad rows


def test_a_row_that_raises_fails_alone(tiny: Model) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    bad = requests[9]
    sent = [poisoned(request) if request is bad else request for request in requests]
    Faulty(tiny, lambda _, batch: ValueError("odd row") if (batch == POISON).any() else None)
    completions = {completion.key: completion for completion in engine(tiny).generate(sent)}
    assert completions.pop(bad.key) == Completion(bad.key, (), "failed")
    del expected[bad.key]
    assert ids(completions.values()) == expected


@pytest.mark.parametrize("count", [1, 4])
def test_when_nothing_can_be_generated_it_is_not_the_rows(tiny: Model, count: int) -> None:
    Faulty(tiny, lambda *_: ValueError("no kernel image"))
    with pytest.raises(ModelUnavailable, match="every row"):
        list(engine(tiny).generate(prompts(count, longest=8)))


def test_a_card_that_breaks_on_the_way_does_not_fail_the_catalogue(tiny: Model) -> None:
    Faulty(tiny, lambda count, _: RuntimeError("CUDA error: unspecified launch failure") if count > 2 else None)
    finished: list[Completion] = []
    with pytest.raises(ModelUnavailable, match="every row"):
        _collect(engine(tiny), prompts(42), finished)
    assert len(ids(finished)) == 8


def test_a_last_bad_row_is_a_bad_row(tiny: Model) -> None:
    requests = prompts(5, longest=8)
    Faulty(tiny, lambda _, batch: ValueError("odd row") if (batch == POISON).any() else None)
    completions = list(engine(tiny).generate([*requests[:4], poisoned(requests[4])]))
    assert [completion.ended == "failed" for completion in completions] == [False] * 4 + [True]


def _spoil_logits(model: Model, rows: Callable[[torch.Tensor], torch.Tensor], value: float) -> None:
    """Sets the logits of those rows to `value` that `rows` picks from a step's ids, (rows, tokens)."""

    def spoil(_: Any, __: Any, options: dict[str, Any], output: Any) -> Any:
        output.logits[rows(options["input_ids"])] = value
        return output

    model.module.register_forward_hook(spoil, with_kwargs=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_with_numbers_out_of_range_fails_alone(tiny: Model, value: float) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    bad = requests[9]
    sent = [poisoned(request) if request is bad else request for request in requests]
    _spoil_logits(tiny, lambda batch: (batch == POISON).any(dim=1), value)
    completions = {completion.key: completion for completion in engine(tiny).generate(sent)}
    assert completions.pop(bad.key) == Completion(bad.key, (), "failed")
    del expected[bad.key]
    found = {key: completion.ids for key, completion in completions.items() if completion.ended != "failed"}
    # A row may generate the poison itself, and then fails as well: that is the hook's doing.
    assert found == {key: row for key, row in expected.items() if POISON not in row[:-1]}


def test_a_row_that_ends_by_a_number_out_of_range_fails(tiny: Model) -> None:
    def spoil(_: Any, __: Any, options: dict[str, Any], output: Any) -> Any:
        rows = (options["input_ids"] == POISON).any(dim=1)
        output.logits[rows, :, EOS_IDS[0]] = float("inf")
        return output

    tiny.module.register_forward_hook(spoil, with_kwargs=True)
    good, bad = prompts(2)
    found = {c.key: c.ended for c in engine(tiny, Shapes(4, (32,))).generate([good, poisoned(bad)])}
    assert found[bad.key] == "failed"
    assert found[good.key] != "failed"


def test_numbers_out_of_range_after_a_row_s_end_do_not_fail_it(tiny: Model) -> None:
    requests = prompts(21)
    expected = alone(tiny, requests)
    spoilt: list[int] = []

    def finished(batch: torch.Tensor) -> torch.Tensor:
        rows = (batch[:, -1] == tiny.pad_id) if batch.shape[1] == 1 else torch.zeros(len(batch), dtype=torch.bool)
        spoilt.append(int(rows.sum()))
        return rows

    _spoil_logits(tiny, finished, float("nan"))
    assert ids(engine(tiny).generate(requests)) == expected
    assert sum(spoilt) > 0


@pytest.mark.parametrize("unfit", [(), (3, VOCABULARY), (3, -1), (3,) * 33])
def test_a_prompt_the_model_cannot_read_never_reaches_the_card(tiny: Model, unfit: tuple[int, ...]) -> None:
    requests = prompts(9)
    spy = Faulty(tiny, hold)
    completions = engine(tiny).generate([Request(b"unfit", unfit), *requests])
    assert next(completions) == Completion(b"unfit", (), "failed")
    assert not spy.masks
    assert ids(completions).keys() == {request.key for request in requests}


# Shapes


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_a_ladder_holds_every_prompt_and_survives_json(longest: int, rows: int) -> None:
    shapes = ladder(longest, rows)
    assert shapes.lengths[-1] == longest
    assert Shapes.from_json(shapes.to_json()) == shapes
    for tokens in {1, longest // 2 + 1, longest}:
        rung = shapes.rung(tokens)
        assert rung is not None
        assert tokens <= rung <= max(32, 1.5 * tokens)
    assert shapes.rung(longest + 1) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"rows": 4}', '{"rows": 0, "lengths": [8]}', '{"rows": 4, "lengths": [8, 8]}', "null"],
)
def test_stored_shapes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="remove the stored shapes"):
        Shapes.from_json(text)


def test_more_tokens_than_the_model_has_positions_are_refused(tiny: Model) -> None:
    engine(tiny, ladder(400, 4), max_new_tokens=112)
    with pytest.raises(SettingsError, match="512 positions"):
        engine(tiny, ladder(400, 4), max_new_tokens=113)
