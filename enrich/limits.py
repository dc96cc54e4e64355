"""When a night must end, whatever is left of it: a deadline, a budget, a number of products.

A limit begins nothing new; what is in hand is finished, and published.
"""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from enrich.settings import Settings

_MARGIN = 1.2

StoppedBy = Literal["deadline", "budget", "max_rows"]


class Limits:
    """Whether one more text may be begun. `stopped_by` is the limit that first said no, if one did."""

    def __init__(self, ends: Mapping[StoppedBy, float], max_rows: int | None = None) -> None:
        """`ends` are times of `time.monotonic`."""
        self.stopped_by: StoppedBy | None = None
        self._ends, self._rows_left, self._left = ends, max_rows, 0.0

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """For a run that begins now."""
        now, night, ends = time.monotonic(), settings.night, dict[StoppedBy, float]()
        if night.deadline is not None:
            ends["deadline"] = now + seconds_until(night.deadline, datetime.now())
        if night.budget is not None and settings.machine.gpu_hour_price is not None:
            ends["budget"] = now + night.budget / settings.machine.gpu_hour_price * 3600
        return cls(ends, night.max_rows)

    def leave(self, seconds: float) -> None:
        """Ends the writing so much earlier: what comes after it must be over in time, too."""
        self._left = seconds * _MARGIN

    def allow(self, *, is_new: bool = False) -> bool:
        """Whether a text may be begun; a new product is counted, a further attempt at one is not."""
        if not self._ends and self._rows_left is None:
            return True
        refusing = next((limit for limit, end in self._ends.items() if time.monotonic() >= end - self._left), None)
        if refusing is None and is_new and self._rows_left is not None:
            if self._rows_left:
                self._rows_left -= 1
            else:
                refusing = "max_rows"
        self.stopped_by = self.stopped_by or refusing
        return refusing is None


def seconds_until(clock: str, now: datetime) -> float:
    """Until the local time HH:MM comes next; a whole day when it is that minute now."""
    hour, minute = map(int, clock.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    # By the wall clock: where the clocks are changed that night, six is still six.
    then = then if then > now else then + timedelta(days=1)
    return then.timestamp() - now.timestamp()
