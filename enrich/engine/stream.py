"""The streaming engine: one prompt at a time through the model, greedy, each token as soon as it is known.

For somebody who watches, not for a catalogue: nothing is batched and nothing stored. In float32 the tokens are
those of plain `generate`, and so of the padded engine; in half precision numbers depend on the shape of a batch,
and now and then a text differs from the night's. Knows token ids only.
"""

import inspect
from typing import Any

import torch
from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor

from enrich.engine.model import Model, refuse_too_long
from enrich.engine.protocol import Stream
from enrich.errors import ModelUnavailable


class StreamingEngine:
    """A `Streamer` over a loaded model; `repetition_penalty` as in the padded engine."""

    def __init__(
        self, model: Model, *, max_prompt_tokens: int, max_new_tokens: int, repetition_penalty: float = 1.0
    ) -> None:
        """Raises `SettingsError` when prompt and completion together exceed what the model was built for."""
        refuse_too_long(model, max_prompt_tokens, max_new_tokens)
        self._model = model
        # An adapter over quantised weights is not merged: it hangs in the layers of the module that it wraps.
        self._module = getattr(model.module, "get_base_model", lambda: model.module)()
        self._max_prompt_tokens = max_prompt_tokens
        self._max_new_tokens = max_new_tokens
        self._penalise = RepetitionPenaltyLogitsProcessor(repetition_penalty)

    def stream(self, prompt_ids: tuple[int, ...]) -> Stream:
        """Yields at most `max_new_tokens` ids; returns `eos`, `length`, or `failed`.

        It fails on a prompt that is empty, too long or not of the model's vocabulary, and when the logits are not
        finite. Raises `ModelUnavailable` when memory runs out. May be abandoned at any token.
        """
        if not self._is_readable(prompt_ids):
            return "failed"
        ids: list[int] = []
        unread, cache = prompt_ids, DynamicCache(config=self._module.config)
        while len(ids) < self._max_new_tokens:
            logits = self._read(unread, cache)
            if not torch.isfinite(logits).all():
                return "failed"
            following = self._choose(logits, ids)
            if following in self._model.eos_ids:
                return "eos"
            yield following
            ids.append(following)
            unread = (following,)
        return "length"

    def _is_readable(self, prompt_ids: tuple[int, ...]) -> bool:
        fits = 0 < len(prompt_ids) <= self._max_prompt_tokens
        return fits and self._model.knows(prompt_ids)

    def _read(self, ids: tuple[int, ...], cache: DynamicCache) -> torch.Tensor:
        """The logits, (1, vocabulary) in float32, after ids that follow those in `cache`; puts them there."""
        options: dict[str, Any] = {_cache_name(self._module): cache, "use_cache": True}
        try:
            with torch.inference_mode():
                output = self._module(input_ids=torch.tensor([ids], device=self._model.device), **options)
                logits: torch.Tensor = output.logits[:, -1].float()
                return logits
        except (torch.OutOfMemoryError, MemoryError):
            raise ModelUnavailable(
                f"not enough memory for one text of {self._max_prompt_tokens} + {self._max_new_tokens} tokens; "
                f"lower max_prompt_tokens or max_new_tokens, or quantize"
            ) from None

    def _choose(self, logits: torch.Tensor, ids: list[int]) -> int:
        said = torch.tensor([ids], dtype=torch.long, device=logits.device)
        return int(self._penalise(said, logits).argmax())


def _cache_name(module: Any) -> str:
    # Renamed within the versions of transformers that are served here.
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"
