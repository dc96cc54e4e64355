"""The streaming engine gives the tokens of plain `generate`, each as soon as it is known."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from enrich.engine.model import Model
from enrich.engine.padded import PaddedEngine, ladder
from enrich.engine.protocol import EchoGenerator, Ended, Request, Stream
from enrich.engine.sampling import Sampling
from enrich.engine.stream import StreamingEngine
from enrich.errors import ModelUnavailable, SettingsError

from .conftest import VOCABULARY, MakeAdapter, plain_generate
from .test_padded import prompts

NEW = 14
PROMPTS = [request.prompt_ids for request in prompts(16)]


def engine(model: Model, *, max_new_tokens: int = NEW, repetition_penalty: float = 1.0) -> StreamingEngine:
    return StreamingEngine(
        model, max_prompt_tokens=32, max_new_tokens=max_new_tokens, repetition_penalty=repetition_penalty
    )


def drain(stream: Stream) -> tuple[tuple[int, ...], Ended]:
    """Everything that a stream yields, and what it returns."""
    ids = []
    while True:
        try:
            ids.append(next(stream))
        except StopIteration as end:
            return tuple(ids), end.value


class Reads:
    """The shapes of the ids that a module is given, call by call."""

    def __init__(self, model: Model) -> None:
        self.shapes: list[tuple[int, ...]] = []
        model.module.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _: Any, __: Any, options: dict[str, Any]) -> None:
        self.shapes.append(tuple(options["input_ids"].shape))


def test_tokens_are_those_of_plain_generate(tiny: Model) -> None:
    found = [drain(engine(tiny).stream(prompt)) for prompt in PROMPTS]
    assert [ids for ids, _ in found] == [plain_generate(tiny, prompt, NEW) for prompt in PROMPTS]
    assert {ended for _, ended in found} == {"eos", "length"}
    assert all((len(ids) == NEW) == (ended == "length") for ids, ended in found)


class _Forgetful(StreamingEngine):
    def _read(self, ids: tuple[int, ...], _: DynamicCache) -> torch.Tensor:
        return super()._read(ids, DynamicCache(config=self._module.config))


def test_a_lost_cache_would_be_noticed(tiny: Model) -> None:
    forgetful = _Forgetful(tiny, max_prompt_tokens=32, max_new_tokens=NEW)
    wrong = [drain(forgetful.stream(prompt))[0] != plain_generate(tiny, prompt, NEW) for prompt in PROMPTS]
    assert sum(wrong) > len(PROMPTS) // 2


def test_a_penalty_is_that_of_the_padded_engine(tiny: Model) -> None:
    padded = PaddedEngine(
        tiny,
        shapes=ladder(32, 4),
        max_new_tokens=NEW,
        sampling=Sampling(repetition_penalty=1.3),
        should_stop=lambda: False,
        on_step_down=lambda _: None,
    )
    expected = {each.key: (each.ids, each.ended) for each in padded.generate(prompts(16))}
    streaming = engine(tiny, repetition_penalty=1.3)
    assert {each.key: drain(streaming.stream(each.prompt_ids)) for each in prompts(16)} == expected


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_that_is_not_merged_takes_part(tiny: Model, make_adapter: MakeAdapter) -> None:
    import peft

    hung = peft.PeftModel.from_pretrained(tiny.module, make_adapter()).eval()
    wrapped = Model(hung, tiny.device, tiny.dtype, tiny.eos_ids, tiny.pad_id, tiny.vocabulary, tiny.max_positions)
    found = [drain(engine(wrapped).stream(prompt))[0] for prompt in PROMPTS[:6]]
    assert found == [plain_generate(wrapped, prompt, NEW) for prompt in PROMPTS[:6]]
    with hung.disable_adapter():
        assert found != [drain(engine(wrapped).stream(prompt))[0] for prompt in PROMPTS[:6]]


def test_an_end_at_the_last_token_is_an_end(tiny: Model) -> None:
    ended = [(p, drain(engine(tiny).stream(p))) for p in PROMPTS]
    prompt, (ids, _) = next(each for each in ended if each[1][1] == "eos" and each[1][0])
    assert drain(engine(tiny, max_new_tokens=len(ids) + 1).stream(prompt)) == (ids, "eos")
    assert drain(engine(tiny, max_new_tokens=len(ids)).stream(prompt)) == (ids, "length")


def test_a_token_comes_before_the_next_one_is_asked_for(tiny: Model) -> None:
    prompt = max(PROMPTS, key=lambda each: len(plain_generate(tiny, each, NEW)))
    reads = Reads(tiny)
    stream = engine(tiny).stream(prompt)
    assert not reads.shapes
    next(stream)
    assert reads.shapes == [(1, len(prompt))]
    next(stream)
    assert reads.shapes == [(1, len(prompt)), (1, 1)]


def test_a_stream_may_be_abandoned_at_any_token(tiny: Model) -> None:
    streaming = engine(tiny)
    expected = plain_generate(tiny, PROMPTS[1], NEW)
    for num_tokens in range(4):
        stream = streaming.stream(PROMPTS[0])
        list(zip(range(num_tokens), stream, strict=False))
        stream.close()
        assert drain(streaming.stream(PROMPTS[1]))[0] == expected


@pytest.mark.parametrize("unfit", [(), (3, VOCABULARY), (3, -1), (3,) * 33])
def test_a_prompt_the_model_cannot_read_never_reaches_the_card(tiny: Model, unfit: tuple[int, ...]) -> None:
    reads = Reads(tiny)
    assert drain(engine(tiny).stream(unfit)) == ((), "failed")
    assert not reads.shapes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_out_of_range_end_a_text(tiny: Model, value: float) -> None:
    prompt = max(PROMPTS, key=lambda each: len(plain_generate(tiny, each, NEW)))
    expected = plain_generate(tiny, prompt, NEW)
    reads = Reads(tiny)

    def spoil(_: Any, __: Any, output: Any) -> Any:
        if len(reads.shapes) == 3:
            output.logits[:] = value
        return output

    tiny.module.register_forward_hook(spoil)
    assert drain(engine(tiny).stream(prompt)) == (expected[:2], "failed")


def test_running_out_of_memory_is_one_line(tiny: Model) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    tiny.module.register_forward_pre_hook(fail)
    with pytest.raises(ModelUnavailable, match="not enough memory for one text of 32 \\+ 14 tokens"):
        drain(engine(tiny).stream(PROMPTS[0]))


def test_more_tokens_than_the_model_has_positions_are_refused(tiny: Model) -> None:
    engine(tiny, max_new_tokens=480)
    with pytest.raises(SettingsError, match="512 positions"):
        engine(tiny, max_new_tokens=481)


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_the_echo_streams_what_it_generates(limit: int) -> None:
    prompt = (300, 77, 117, 103, 301)
    (completion,) = EchoGenerator(limit).generate([Request(b"", prompt)])
    assert drain(EchoGenerator(limit).stream(prompt)) == (completion.ids, completion.ended)
