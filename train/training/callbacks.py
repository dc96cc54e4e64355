"""What happens beside the steps of a training: a bar or log lines, a clock, a polite stop."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

log = logging.getLogger("enrich")

_SECONDS_BETWEEN_LINES = 60.0


class StopWhen(TrainerCallback):
    """Ends the training politely, with a checkpoint of where it is."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._should_stop():
            control.should_save = control.should_training_stop = True


class Clock(TrainerCallback):
    """Times the optimiser steps alone, without evaluations and checkpoints.

    It waits for the device only where the training does too, so that it costs nothing. The first step, in which
    kernels are compiled, is timed apart. Times in seconds.
    """

    def __init__(self, epoch_tokens: int, synchronise: Callable[[], None]) -> None:
        """`epoch_tokens` is how many tokens, prompts included and pads not, an epoch goes through."""
        self.seconds = 0.0
        self.tokens = 0
        self.first_step_seconds = 0.0
        self._first_step_tokens = 0
        self._epoch_tokens = epoch_tokens
        self._synchronise = synchronise
        self._first_epoch = 0.0
        self._began: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Of the steps behind the first, where there are any."""
        if self.seconds > self.first_step_seconds:
            return round((self.tokens - self._first_step_tokens) / (self.seconds - self.first_step_seconds), 1)
        return round(self.tokens / self.seconds, 1) if self.seconds else 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.seconds and self._began is None:
            self._first_epoch = state.epoch
        if self._began is None:
            self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        first = not self.seconds
        pauses = first or control.should_evaluate or control.should_save or control.should_training_stop
        if self._began is None or not pauses:
            return
        self._synchronise()
        self.seconds += time.monotonic() - self._began
        self._began = None
        self.tokens = round((state.epoch - self._first_epoch) * self._epoch_tokens)
        if first:
            self.first_step_seconds, self._first_step_tokens = self.seconds, self.tokens


class Progress(TrainerCallback):
    """A bar on a terminal, one line a minute in a log: steps, loss, validation loss."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._told: dict[str, float] = {}
        self._last_line = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            unit="step",
            disable=not sys.stderr.isatty(),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update(1)
        if self._bar.disable and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info("training: step %d/%d · %s", state.global_step, state.max_steps, self._losses())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        names = {"loss": "loss", "eval_loss": "validation loss"}
        self._told |= {names[name]: value for name, value in (logs or {}).items() if name in names}
        self._bar.set_postfix_str(self._losses())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()

    def _losses(self) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in self._told.items())
