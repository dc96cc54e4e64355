"""Taking a run back: what it wrote is withdrawn, and what it published is published again without it."""

from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enrich.errors import NoInput, UsageError
from enrich.memory import Memory
from enrich.night import Report, run
from enrich.report.summary import read_report
from enrich.settings import Settings, load_settings
from enrich.state import State


@dataclass(frozen=True)
class RolledBack:
    """How many texts were withdrawn, and the run that published without them."""

    withdrawn: int
    report: Report


def rollback(name: str, state: State) -> RolledBack:
    """Withdraws the texts of the run `name` and publishes its catalogues again, without writing anything.

    Rows of theirs are held until a person decides, another model writes, or they are tried again; other attempts at
    the same products stay. Broken off, it may be repeated. Raises `NoInput` when there is no such run, `UsageError` for
    one that left no account of what it was asked.
    """
    asked = _asked(name, state)
    with state.locked(), Memory.open(state.memory) as memory:
        withdrawn = memory.withdraw(name)
    with chdir(asked["folder"]):
        return RolledBack(withdrawn, run(asked["input"], asked["output"], _settings(asked, state), publish_only=True))


def _asked(name: str, state: State) -> dict[str, Any]:
    folder = state.reports / Path(name).name
    if not folder.is_dir():
        raise NoInput(f"{folder}: no such run; `enrich runs` lists them")
    asked = read_report(folder).get("asked")
    if not isinstance(asked, dict) or not Path(asked.get("folder", "")).is_dir():
        raise UsageError(f"{folder}: says nothing of what the run was asked, or its folder is gone; run by hand")
    return asked


def _settings(asked: dict[str, Any], state: State) -> Settings:
    """The run's own, with the state where it is now, and without the limits that ended that night."""
    sections = {name: dict(section) for name, section in asked["settings"].items() if name != "night"}
    sections.setdefault("machine", {})["state"] = str(state.folder)
    return load_settings(None, sections)
