"""The padded engine: batches of one fixed shape through plain `generate`.

Half-precision numbers depend on the shape of a batch, not on the neighbours in it. Here every batch has the
same number of rows, and a prompt's length alone decides its width; so a row's tokens never depend on its
batch mates, on the order of the rows, or on an interruption. Knows token ids only. A further attempt at a
request has noise of its own; where nothing is drawn by lot, it gives the same completion.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from enrich.engine.model import Model, first_line, is_out_of_memory, refuse_too_long
from enrich.engine.protocol import Completion, Figures, Request
from enrich.engine.sampling import GREEDY, Sampling, drawn
from enrich.errors import EnrichError, ModelUnavailable, SettingsError, Stopped

DEFAULT_ROWS = {"cpu": 8, "cuda": 64}
"""Rows of a batch by type of device; another one's are the CPU's."""

_LOG = logging.getLogger("enrich")
_RUNGS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
_NEVER = 1 << 30


@dataclass(frozen=True)
class Shapes:
    """Every shape a batch may have: its `rows`, and the prompt `lengths` (tokens, ascending) to pad to."""

    rows: int
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.rows < 1 or not self.lengths or self.lengths[0] < 1:
            raise SettingsError(f"shapes {self}: rows and lengths start at 1; remove the stored shapes")
        if list(self.lengths) != sorted(set(self.lengths)):
            raise SettingsError(f"shapes {self}: lengths must ascend; remove the stored shapes")

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps({"rows": self.rows, "lengths": self.lengths})

    @classmethod
    def from_json(cls, text: str) -> "Shapes":
        """Raises `SettingsError` when `text` is not what `to_json` wrote."""
        try:
            fields = json.loads(text)
            return cls(int(fields["rows"]), tuple(int(length) for length in fields["lengths"]))
        except (ValueError, KeyError, TypeError):
            raise SettingsError(f"shapes {text!r}: cannot be read; remove the stored shapes") from None

    def rung(self, prompt_tokens: int) -> int | None:
        """The shortest length that holds a prompt of `prompt_tokens`, or None when none does."""
        return next((length for length in self.lengths if length >= prompt_tokens), None)


def ladder(max_prompt_tokens: int, rows: int) -> Shapes:
    """Lengths about 1.4 apart up to `max_prompt_tokens`: at most a third of a prompt's columns is padding."""
    return Shapes(rows, (*(length for length in _RUNGS if length < max_prompt_tokens), max_prompt_tokens))


class PaddedEngine:
    """A `Generator` over a loaded model.

    Requests gather by rung and run as soon as a batch is full; the rest runs at the end. `should_stop` is
    asked at every token and abandons the batch at hand with `Stopped`. When memory runs out the rows are
    halved, `on_step_down` is called with the new shapes before they are used, and the batch is run again.
    """

    def __init__(
        self,
        model: Model,
        *,
        shapes: Shapes,
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        should_stop: Callable[[], bool],
        on_step_down: Callable[[Shapes], None],
    ) -> None:
        """Raises `SettingsError` when prompt and completion together exceed what the model was built for."""
        refuse_too_long(model, shapes.lengths[-1], max_new_tokens)
        self._model = model
        self._shapes = shapes
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling
        self._should_stop = should_stop
        self._on_step_down = on_step_down
        self._has_succeeded = False
        self.figures: Figures | None = None

    @property
    def batch_rows(self) -> int:
        """Rows of a batch; fewer after a step down."""
        return self._shapes.rows

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields one completion a request, batch by batch.

        Raises `Stopped`, and `ModelUnavailable` when not even one row fits into memory or when no row can be
        generated at all.
        """
        waiting: dict[int, list[Request]] = {length: [] for length in self._shapes.lengths}
        for request in requests:
            rung = self._rung(request)
            if rung is None:
                yield Completion(request.key, (), "failed")
                continue
            waiting[rung].append(request)
            while len(waiting[rung]) >= self._shapes.rows:
                yield from self._complete_some(waiting[rung], rung)
        for rung, queue in waiting.items():
            while queue:
                yield from self._complete_some(queue, rung)

    def close(self) -> None:
        """Nothing is held between batches."""

    def _rung(self, request: Request) -> int | None:
        if not request.prompt_ids or not self._model.knows(request.prompt_ids):
            return None
        return self._shapes.rung(len(request.prompt_ids))

    def _complete_some(self, queue: list[Request], rung: int) -> list[Completion]:
        """Runs a batch off the head of `queue`, stepping down for as long as it does not fit into memory."""
        while True:
            batch = queue[: self._shapes.rows]
            try:
                completions = self._complete(batch, rung)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler: until then the error's traceback keeps the batch's tensors alive.
            self._step_down(rung)
        self._refuse_if_hopeless(completions)
        del queue[: len(batch)]
        return completions

    def _complete(self, batch: list[Request], rung: int) -> list[Completion]:
        try:
            return self._run(batch, rung)
        except Exception as error:
            if isinstance(error, EnrichError) or is_out_of_memory(error):
                raise
            _LOG.warning("a batch failed (%s: %s); its rows are tried alone", type(error).__name__, first_line(error))
        return [self._complete_alone(request, rung) for request in batch]

    def _complete_alone(self, request: Request, rung: int) -> Completion:
        try:
            return self._run([request], rung)[0]
        except Exception as error:
            if isinstance(error, EnrichError) or is_out_of_memory(error):
                raise
            _LOG.warning("row %s failed alone (%s: %s)", request.key.hex(), type(error).__name__, first_line(error))
            return Completion(request.key, (), "failed")

    def _refuse_if_hopeless(self, completions: list[Completion]) -> None:
        """A row may be bad; when nothing works from the start, or a full batch fails, it is not the rows."""
        failed = all(completion.ended == "failed" for completion in completions)
        if failed and (not self._has_succeeded or len(completions) == self._shapes.rows > 1):
            raise ModelUnavailable(
                f"every row of a batch of {len(completions)} failed: see the log, check model and card"
            )
        self._has_succeeded = self._has_succeeded or not failed

    def _step_down(self, rung: int) -> None:
        if self._shapes.rows == 1:
            raise ModelUnavailable(
                f"not enough memory for one row of {rung} + {self._max_new_tokens} tokens; "
                f"lower max_prompt_tokens or max_new_tokens, or quantize"
            )
        self._shapes = replace(self._shapes, rows=self._shapes.rows // 2)
        _LOG.warning("out of memory: going on with batches of %d rows", self._shapes.rows)
        self._on_step_down(self._shapes)
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(self, batch: list[Request], rung: int) -> list[Completion]:
        """One call of `generate`, of exactly the batch's shape, for one row or more."""
        width = _width(rung)
        ids, mask = self._pad([request.prompt_ids for request in batch], width)
        finite = _FirstBadStep(self._shapes.rows, width, self._model.device)
        with torch.inference_mode():
            output = self._model.module.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._generation(),
                logits_processor=LogitsProcessorList([finite, *self._penalties(width), *self._lots(batch, width)]),
                stopping_criteria=StoppingCriteriaList([_StopWhen(self._should_stop)]),
            )
        rows = output[:, width:].tolist()[: len(batch)]
        bad_steps = finite.steps.tolist()
        return [self._completion(request, row, bad) for request, row, bad in zip(batch, rows, bad_steps, strict=False)]

    def _pad(self, prompts: list[tuple[int, ...]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, both (rows, width): prompts at the right edge, missing rows copies of the first."""
        # A copy ends when its original ends, so a filler never keeps a batch running.
        filled = prompts + prompts[:1] * (self._shapes.rows - len(prompts))
        pads = [width - len(prompt) for prompt in filled]
        ids = [[self._model.pad_id] * pad + list(prompt) for pad, prompt in zip(pads, filled, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in pads]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _generation(self) -> GenerationConfig:
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._max_new_tokens,
            eos_token_id=list(self._model.eos_ids),
            pad_token_id=self._model.pad_id,
        )

    def _penalties(self, width: int) -> list[LogitsProcessor]:
        # The field of that name in GenerationConfig would punish the words of the prompt, and its pads.
        if not self._sampling.penalises:
            return []
        return [RepetitionPenaltyLogitsProcessor(self._sampling.repetition_penalty, prompt_ignore_length=width)]

    def _lots(self, batch: list[Request], width: int) -> list[LogitsProcessor]:
        if not self._sampling.draws:
            return []
        noise = [self._sampling.noise_of(request.key, request.attempt) for request in batch]
        # A copy draws what its original draws.
        filled = noise + noise[:1] * (self._shapes.rows - len(noise))
        return [_Drawn(self._sampling, torch.tensor(filled, device=self._model.device), width)]

    def _completion(self, request: Request, row: list[int], bad_step: int) -> Completion:
        end = next((at for at, i in enumerate(row) if i in self._model.eos_ids), None)
        if bad_step < (len(row) if end is None else end + 1):
            _LOG.warning("row %s failed: its logits are not finite", request.key.hex())
            return Completion(request.key, (), "failed")
        return Completion(request.key, tuple(row[:end]), "length" if end is None else "eos")


class _FirstBadStep(LogitsProcessor):
    """Notes, on the device, each row's first step whose logits are not all finite. Changes no logits.

    A count a step would be simpler, but reading it would make the processor wait for the card at every token.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.steps = torch.full((rows,), _NEVER, device=device)
        self._width = width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self._width
        finite = torch.isfinite(scores).all(dim=-1)
        self.steps = torch.where(finite, self.steps, self.steps.clamp(max=step))
        return scores


class _Drawn(LogitsProcessor):
    """Gives every token a score whose largest is the token drawn."""

    def __init__(self, sampling: Sampling, noise: torch.Tensor, width: int) -> None:
        self._sampling, self._noise, self._width = sampling, noise, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        steps = torch.full_like(self._noise, input_ids.shape[1] - self._width)
        return drawn(scores, self._sampling, self._noise, steps)


class _StopWhen(StoppingCriteria):
    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if self._should_stop():
            raise Stopped("stopped while generating; finished batches are kept, run again to go on")
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _width(rung: int) -> int:
    # One column more than the longest prompt: attention drops the mask, and takes another kernel with other
    # rounding, when no row of a batch has a pad. A row's numbers would then depend on its batch mates.
    return rung + 1
