"""What the engine promises, and the fake that ships.

The engine knows nothing of catalogues, titles or texts: token ids go in, token ids come out.
"""

import collections.abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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


class Generator(Protocol):
    """Turns requests into completions.

    `generate` pulls requests lazily, as it has room, and yields each completion as it finishes, in any
    order; every request comes back exactly once. `batch_rows` is how many rows finish together at most:
    the caller checkpoints that often.
    """

    @property
    def batch_rows(self) -> int: ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]: ...


class Streamer(Protocol):
    """Completes one prompt at a time, while somebody watches."""

    def stream(self, prompt_ids: tuple[int, ...]) -> Stream: ...


class EchoGenerator:
    """Answers each prompt with the product it asks about: for dry runs, tests and the README.

    It serves prompts of bytes, in which the ids 0-255 are the user's text and anything above is template;
    the answer is the user's text, cut to `max_new_tokens` ids.
    """

    batch_rows = 512

    def __init__(self, max_new_tokens: int) -> None:
        self._max_new_tokens = max_new_tokens

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields one completion a request, in order."""
        for request in requests:
            ids = tuple(i for i in request.prompt_ids if i < 256)
            cut = ids[: self._max_new_tokens]
            yield Completion(request.key, cut, "eos" if len(cut) == len(ids) else "length")

    def stream(self, prompt_ids: tuple[int, ...]) -> Stream:
        """Yields the ids of the same answer."""
        (completion,) = self.generate([Request(b"", prompt_ids)])
        yield from completion.ids
        return completion.ended
