"""How a night went: texts and tokens by the second, in no more points than a chart can show."""

import time

_MOST_POINTS = 240

Point = tuple[float, int, int]
"""Seconds since the beginning, texts so far, tokens so far."""


class Timeline:
    """Points at even distances, which double whenever there are too many."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._every = 1.0
        self._points: list[Point] = []

    def add(self, texts: int, tokens: int) -> None:
        """Notes how many there are by now, in all."""
        now = time.monotonic() - self._start
        if self._points and now - self._points[-1][0] < self._every:
            return
        self._points.append((round(now, 1), texts, tokens))
        if len(self._points) > _MOST_POINTS:
            del self._points[1::2]
            self._every *= 2

    def ended(self, texts: int, tokens: int) -> list[Point]:
        """All of them, the last one now."""
        return [*self._points, (round(time.monotonic() - self._start, 1), texts, tokens)]
