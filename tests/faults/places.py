"""Where in a run a fault can strike: each system call it makes on each of its files."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from tests.faults.ledger import Ledger
from tests.faults.scene import Scene
from tests.faults.strace import Call, Traced, traced

MakeScene = Callable[[], Scene]

# Of the places asked for so many must be met: how threads share the work is not the same in every run.
_MET = 0.8


class Place(NamedTuple):
    """The `number`th call of that name by one thread on `file`, relative to the scene; a report's time is *."""

    file: str
    call: str
    number: int


class Met(NamedTuple):
    """A fault that fired: where, in which scene, and the run."""

    place: Place
    scene: Scene
    run: Traced


def places_of(run: Traced, scene: Scene) -> dict[Place, Call]:
    """Every call that a run made on the scene's files, in order."""
    counts: Counter[tuple[str, str, int]] = Counter()
    found: dict[Place, Call] = {}
    for call in run.calls:
        if call.path.startswith(str(scene.folder)) and call.path != str(scene.log):
            file = re.sub(r"/reports/[^/]+", "/reports/*", call.path.removeprefix(str(scene.folder)))
            counts[file, call.name, call.thread] += 1
            found.setdefault(Place(file, call.name, counts[file, call.name, call.thread]), call)
    return found


def where(undisturbed: Iterable[Place], calls: Collection[str]) -> list[Place]:
    """The places of those calls."""
    return [place for place in undisturbed if place.call in calls]


def strike(scene: Scene, place: Place, fault: str, *, for_good: bool = False) -> Traced:
    """A run in which strace does that to the place: `error=EIO`, `signal=KILL`, `retval=1`."""
    inject = f"{place.call}:{fault}:when={place.number}{'+' if for_good else ''}"
    return traced(
        scene.nursery, scene.arguments, log=scene.log, calls=[place.call], paths=_paths(scene, place), inject=inject
    )


def strike_each(
    cases: Sequence[Place], fault: str, kind: str, make: MakeScene, ledger: Ledger, *, for_good: bool = False
) -> list[Met]:
    """Each place in a scene of its own, after which the old output or the new one is there, and a second run heals all.

    What was met is counted, and all but a few are.
    """
    met = []
    for place in cases:
        scene = make()
        run = strike(scene, place, fault, for_good=for_good)
        assert "Traceback" not in run.said, run.said
        scene.assert_old_or_new(run.status)
        # Killed, a call has no time to be marked.
        fired = run.fired or run.status == -9
        scene.assert_recovers(ledger, kind, fired)
        if fired:
            met.append(Met(place, scene, run))
    assert len(met) >= _MET * len(cases), (len(met), len(cases))
    return met


def _paths(scene: Scene, place: Place) -> list[Path]:
    now = datetime.now(UTC)
    seconds = [(now + timedelta(seconds=n)).strftime("%Y%m%dT%H%M%SZ") for n in range(5)] if "*" in place.file else [""]
    return [Path(f"{scene.folder}{place.file.replace('*', second)}") for second in seconds]
