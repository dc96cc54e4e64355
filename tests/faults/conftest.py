"""Scenes for the fault tests, and the table of what they counted."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.faults.ledger import Ledger
from tests.faults.places import Place, places_of
from tests.faults.scene import Scene
from tests.faults.strace import CHANGES, Call, traced
from tests.killing import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery.open("tests.faults.limits") as nursery:
        yield nursery


@pytest.fixture(scope="session")
def first_scene(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.first(nursery, tmp_path_factory.mktemp("faults") / "first")


@pytest.fixture(scope="session")
def undisturbed(first_scene: Scene) -> dict[Place, Call]:
    """What a run does to the disk when nothing fails, call by call."""
    scene = first_scene.again()
    run = traced(scene.nursery, scene.arguments, log=scene.log, calls=CHANGES)
    assert run.status == 0
    return places_of(run, scene)


@pytest.fixture
def scene(first_scene: Scene) -> Callable[[], Scene]:
    """Makes a scene that was not run yet, in place of the one before."""
    return first_scene.again


@pytest.fixture
def ledger(record_property: Callable[[str, object], None]) -> Ledger:
    return Ledger(record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each kind of fault: fired, survived, rows lost."""
    totals: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in report.user_properties:
                if name == "fault" and report.when == "call":
                    kind, *counts = value
                    totals.setdefault(kind, Counter()).update(
                        dict(zip(("fired", "survived", "lost"), counts, strict=True))
                    )
    if totals:
        terminalreporter.section("faults")
        terminalreporter.write_line(f"{'kind':<58}{'fired':>8}{'survived':>10}{'rows lost':>11}")
        for kind, total in sorted(totals.items()):
            terminalreporter.write_line(f"{kind:<58}{total['fired']:>8}{total['survived']:>10}{total['lost']:>11}")
        every = sum(totals.values(), Counter())
        terminalreporter.write_line(f"{'all':<58}{every['fired']:>8}{every['survived']:>10}{every['lost']:>11}")
