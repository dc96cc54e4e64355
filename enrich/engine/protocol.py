"""What the engine promises, and the fake that ships.

The engine knows nothing of catalogues, titles or texts: token ids go in, token ids come out.
"""

import collections.abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal, Protocol

Ended = Literal["eos", "length", "failed"]

Stream = collections.abc.Generator[int, None, Ended]
"""New token ids one at a time, without the end token; it returns why they end."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to complete. `attempt` 0 is the first; a further attempt samples with noise of its own."""

    key: bytes
    prompt_ids: tuple[int, ...]
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What a request became: its new token ids without the end token, and why they end.

    `failed` says that this row cannot be generated even alone; its ids are empty.
    """

    key: bytes
    ids: tuple[int, ...]
    ended: Ended


@dataclass(slots=True)
class Figures:
    """What an engine did.

    `seconds` passed from its first prefill until the caller came for more after the latest completion. `slot_steps`
    are the steps of all slots, busy or not; `prompt_tokens` were read by prefills of `padded_tokens`. `decode_seconds`
    and `prefill_seconds` are the device's.
    """

    seconds: float = 0.0
    tokens: int = 0
    slot_steps: int = 0
    prompt_tokens: int = 0
    padded_tokens: int = 0
    decode_seconds: float = 0.0
    prefill_seconds: float = 0.0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def slot_use(self) -> float:
        """Share of the steps that wrote a token of a text."""
        return self.tokens / max(self.slot_steps, 1)

    @property
    def padding_share(self) -> float:
        """Share of the tokens read that were pads."""
        return 1 - self.prompt_tokens / self.padded_tokens if self.padded_tokens else 0.0


class Generator(Protocol):
    """Turns requests into completions.

    `generate` pulls requests lazily, as it has room, and yields each completion as it finishes, in any
    order; every request comes back exactly once. `batch_rows` is how many rows finish together at most:
    the caller checkpoints that often. `figures` are of the latest `generate` and grow while it works; None where
    nothing is counted. `close` gives back what it holds of the device.
    """

    @property
    def figures(self) -> Figures | None: ...

    @property
    def batch_rows(self) -> int: ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]: ...

    def close(self) -> None: ...


class Streamer(Protocol):
    """Completes one prompt at a time, while somebody watches."""

    def stream(self, prompt_ids: tuple[int, ...]) -> Stream: ...


class EchoGenerator:
    """Answers each prompt with the product it asks about: for dry runs, tests and the README.

    It serves prompts of bytes, in which the ids 0-255 are the user's text and anything above is template;
    the answer is the user's text, cut to `max_new_tokens` ids.
    """

    batch_rows = 512
    figures: Figures | None = None

    def __init__(self, max_new_tokens: int) -> None:
        self._max_new_tokens = max_new_tokens

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields one completion a request, in order."""
        for request in requests:
            ids = tuple(i for i in request.prompt_ids if i < 256)
            cut = ids[: self._max_new_tokens]
            yield Completion(request.key, cut, "eos" if len(cut) == len(ids) else "length")

    def close(self) -> None:
        """Nothing is held."""

    def stream(self, prompt_ids: tuple[int, ...]) -> Stream:
        """Yields the ids of the same answer."""
        (completion,) = self.generate([Request(b"", prompt_ids)])
        yield from completion.ids
        return completion.ended
