"""`make train`: prepare → finetune → evaluate → promote, for whatever catalogues there are."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from enrich.engine.adapter import CURRENT, adapter_in_force
from enrich.settings import Settings, home
from enrich.state import State
from train.evaluate import evaluate
from train.finetune import finetune
from train.pairs import read_record
from train.prepare import prepare
from train.prepare_settings import PrepareSettings
from train.registry import promote
from train.settings import Preset

_MAX_ROWS = 64
"""Held-out rows measured when nobody says how many: enough for the gate, minutes on two cores."""


def train(
    catalogues: Sequence[str],
    out: Path | None,
    settings: Settings,
    choices: PrepareSettings,
    preset: Preset,
    max_rows: int | None,
    should_stop: Callable[[], bool],
) -> Iterator[str]:
    """Runs the four steps and yields what each has to say when it is done.

    Killed anywhere and run again, it makes the same adapter. Raises what the steps raise, and `Busy` while another
    training runs; an adapter that is not better is no error.
    """
    adapters = home() / CURRENT.parent
    data = adapters / "data"
    with State(adapters / ".state").locked():
        yield from prepare(catalogues, data, settings, choices, should_stop).lines()
        adapter = out or adapters / f"{preset.name}-{read_record(data)['digest'][:8]}"
        yield from finetune(data, adapter, settings, preset, should_stop).lines()
        in_force = adapter_in_force(home())
        yield from evaluate(
            data,
            adapter,
            settings,
            adapter,
            max_rows=max_rows or _MAX_ROWS,
            against=in_force,
            should_stop=should_stop,
        ).lines()
        yield from promote(adapter, home(), force=False)
