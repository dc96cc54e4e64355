"""What is given to which worker: chunks of products, what came back of them, and what a dead worker had in hand.

Knows nothing of Ray, models or texts. Only the driver holds a board, so that no two of them can disagree.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from enrich.plan import Wanted

# A chunk that so many workers died over is cut in half.
_DEADLY = 2


@dataclass(eq=False)
class _Chunk:
    """Products that are still to come, by key, and how many workers died over them."""

    left: dict[bytes, Wanted]
    deaths: int = 0


@dataclass
class Board:
    """Chunks are taken from `source` as workers ask for them; a worker is known by its name.

    A chunk that was in hand of a worker that died is given again, to a worker that has nothing else in hand. When it
    kills a second one it is cut in half, and so on down to the one product that kills: that is given up.
    """

    source: Iterator[list[Wanted]]
    _returned: deque[_Chunk] = field(default_factory=deque)
    _hands: dict[str, list[_Chunk]] = field(default_factory=dict)
    _chunk_of: dict[bytes, _Chunk] = field(default_factory=dict)
    _is_dry: bool = False

    @property
    def is_over(self) -> bool:
        """Whether everything that the source had has come back. It is known only once a worker asked in vain."""
        return self._is_dry and not self._chunk_of

    def give(self, worker: str) -> list[Wanted] | None:
        """The products that a worker is to write next, if it is to have any now.

        When nothing is left to begin, one that has nothing in hand gets a copy of what another one still writes, from
        its end on: the first answer counts.
        """
        hand = self._hands.setdefault(worker, [])
        if any(chunk.deaths for chunk in hand):
            return None
        if chunk := self._begun(has_hand=bool(hand)):
            hand.append(chunk)
            return list(chunk.left.values())
        if not hand and (chunk := self._straggling()):
            hand.append(chunk)
            return list(reversed(chunk.left.values()))
        return None

    def take(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that nobody answered before; they are done with."""
        new = set()
        for key in keys:
            chunk = self._chunk_of.pop(key, None)
            if chunk is not None:
                del chunk.left[key]
                new.add(key)
        for hand in self._hands.values():
            hand[:] = [chunk for chunk in hand if chunk.left]
        return new

    def lose(self, worker: str, *, killed: bool) -> list[Wanted]:
        """Takes back what a worker had in hand, and returns the products that are given up.

        `killed` is false for a worker that was sent away: its chunks are not to blame.
        """
        given_up: list[Wanted] = []
        for chunk in self._hands.pop(worker, []):
            chunk.deaths += killed
            if any(chunk in hand for hand in self._hands.values()):
                # Another one has a copy.
                continue
            if chunk.deaths < _DEADLY:
                self._returned.append(chunk)
            elif len(chunk.left) > 1:
                self._returned.extend(self._halves(chunk))
            else:
                given_up += chunk.left.values()
                self.take(list(chunk.left))
        return given_up

    def _begun(self, *, has_hand: bool) -> _Chunk | None:
        """A chunk that nobody writes: one that came back, first; one that workers died over, for empty hands alone."""
        for chunk in self._returned:
            if not (chunk.deaths and has_hand):
                self._returned.remove(chunk)
                return chunk
        fresh = None if self._is_dry else next(self.source, None)
        if fresh is None:
            self._is_dry = True
            return None
        chunk = _Chunk({each.key: each for each in fresh})
        self._chunk_of.update(dict.fromkeys(chunk.left, chunk))
        return chunk

    def _straggling(self) -> _Chunk | None:
        held = [chunk for hand in self._hands.values() for chunk in hand]
        alone = [chunk for chunk in held if held.count(chunk) == 1 and not chunk.deaths]
        return max(alone, key=lambda chunk: len(chunk.left), default=None)

    def _halves(self, chunk: _Chunk) -> Iterator[_Chunk]:
        items = list(chunk.left.items())
        for part in (items[: len(items) // 2], items[len(items) // 2 :]):
            half = _Chunk(dict(part), deaths=_DEADLY - 1)
            self._chunk_of.update(dict.fromkeys(half.left, half))
            yield half
