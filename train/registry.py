"""The adapter in force: the link `adapters/current`, and the register of how it came to be.

Whenever this is killed, the link is either the old one or the new one.
"""

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from enrich import durable
from enrich.engine.adapter import CURRENT, Adapter, adapter_in_force, read_adapter
from enrich.errors import EnrichError, IOFailure, SettingsError
from train.measuring.evaluation import read_decision
from train.measuring.gate import Decision

FORMER = CURRENT.with_name("former")
"""The link to the adapter that was in force before, under the home folder."""

REGISTRY = CURRENT.with_name("registry.jsonl")
"""Under the home folder: one line of JSON for each promotion, written before the link moves."""


def promote(adapter: Path, home: Path, *, force: bool, decision: Decision | None = None) -> list[str]:
    """Makes `adapter` the one in force if it was found better, or if it is forced. Returns what became of it, and why.

    The decision is that of the evaluation in the adapter's folder, when none is given. The former adapter stays under
    `adapters/former`; to go back, promote that by force. Raises `ModelUnavailable` for a folder that holds no adapter,
    `NoInput` and `SettingsError` when nothing was decided about it and nothing is forced, `IOFailure` when the disk
    fails.
    """
    try:
        return _promote(adapter, home, force, decision)
    except OSError as error:
        raise IOFailure(f"{(home / CURRENT).parent}: cannot be written: {error.strerror}") from error


def _promote(adapter: Path, home: Path, force: bool, decision: Decision | None) -> list[str]:
    # Not Path.resolve(), which raises for a link to itself.
    found = read_adapter(Path(os.path.realpath(adapter)))
    name, current = found.folder.name, home / CURRENT
    if current.exists() and not current.is_symlink():
        raise SettingsError(f"{current}: not a link; move that folder elsewhere and promote it")
    if current.is_symlink() and found.folder == Path(os.path.realpath(current)):
        return [f"{name}: is in force already"]
    decision = decision or _decision(found, home, force)
    is_better = decision is not None and decision.promoted
    reasons = decision.reasons if decision else ()
    if not is_better and not force:
        return [f"{name}: not promoted", *reasons]
    _register(found, home, decision)
    _move(found.folder, home)
    return [f"{name}: promoted{'' if is_better else ' by force'}", *reasons]


def _decision(adapter: Adapter, home: Path, force: bool) -> Decision | None:
    in_force = adapter_in_force(home)
    try:
        return read_decision(adapter.folder, adapter, read_adapter(in_force) if in_force else None)
    except EnrichError:
        # Whatever is wrong with the evaluation or with what is in force, force is the way out of it.
        if force:
            return None
        raise


def _move(folder: Path, home: Path) -> None:
    current = home / CURRENT
    if current.exists():
        # First: killed in between, both links name the old adapter, and the next try ends as this one would.
        _point(home / FORMER, current.readlink())
    _point(current, _target(folder, current.parent))


def _target(folder: Path, adapters: Path) -> Path:
    """Relative for an adapter that lies beside the link, so that the home folder can be moved."""
    beside = adapters.resolve()
    return folder.relative_to(beside) if folder.is_relative_to(beside) else folder


def _point(link: Path, target: Path) -> None:
    temp = durable.temporary(link)
    durable.discard(temp)
    temp.symlink_to(target, target_is_directory=True)
    durable.replace(temp, link)


def _register(adapter: Adapter, home: Path, decision: Decision | None) -> None:
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "adapter": adapter.folder.name,
        "digest": adapter.digest,
        "forced": not (decision and decision.promoted),
        "reasons": decision.reasons if decision else (),
        "figures": asdict(decision.figures) if decision else None,
    }
    registry = home / REGISTRY
    registry.parent.mkdir(parents=True, exist_ok=True)
    before = registry.read_bytes() if registry.exists() else b""
    durable.write(registry, before + json.dumps(line, ensure_ascii=False).encode() + b"\n")
