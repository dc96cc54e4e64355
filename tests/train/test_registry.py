"""The adapter in force changes in one step: whatever fails, the link is the old one or the new one."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enrich.engine.adapter import CURRENT, WEIGHTS, adapter_in_force
from enrich.errors import IOFailure, ModelUnavailable, NoInput, SettingsError
from train.measuring.gate import decide, refuse
from train.registry import FORMER, REGISTRY, promote

from .test_gate import BETTER, IN_FORCE

PROMOTED = decide(BETTER, IN_FORCE)
NOT_PROMOTED = decide(replace(BETTER, ended=0.5), IN_FORCE)


def make_adapter(folder: Path) -> Path:
    """What `promote` looks at: nothing is run."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(folder.name.encode())
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with three adapters, the first of them in force."""
    home = tmp_path / "home"
    for name in ("one", "two", "three"):
        make_adapter(home / "adapters" / name)
    promote(home / "adapters" / "one", home, force=False, decision=PROMOTED)
    return home


def links(home: Path) -> tuple[str, str | None]:
    """The names of the current and the former adapter."""
    former = home / FORMER
    return str((home / CURRENT).readlink()), str(former.readlink()) if former.is_symlink() else None


def register(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / REGISTRY).read_text().splitlines()]


def test_each_promotion_keeps_the_former_adapter_and_is_registered(home: Path) -> None:
    assert links(home) == ("one", None)
    promote(home / "adapters" / "two", home, force=False, decision=PROMOTED)
    assert links(home) == ("two", "one")
    promote(home / "adapters" / "three", home, force=True, decision=NOT_PROMOTED)
    assert links(home) == ("three", "two")
    in_force = adapter_in_force(home)
    assert in_force
    assert (in_force / WEIGHTS).read_bytes() == b"three"
    lines = register(home)
    assert [(line["adapter"], line["forced"]) for line in lines] == [("one", False), ("two", False), ("three", True)]
    assert len({line["digest"] for line in lines}) == 3
    assert lines[1]["figures"]["loss"] == BETTER.loss
    assert lines[2]["reasons"] == list(NOT_PROMOTED.reasons)
    assert all(line["time"] for line in lines)


def test_what_lost_is_not_promoted_and_leaves_no_trace(home: Path) -> None:
    before = register(home)
    for decision in (NOT_PROMOTED, refuse(BETTER, "does not record its split")):
        said = promote(home / "adapters" / "two", home, force=False, decision=decision)
        assert said == ["two: not promoted", *decision.reasons]
        assert links(home) == ("one", None)
        assert register(home) == before


def test_what_was_not_evaluated_is_promoted_only_by_force(home: Path) -> None:
    with pytest.raises(NoInput, match="no such evaluation"):
        promote(home / "adapters" / "two", home, force=False)
    assert links(home) == ("one", None)
    promote(home / "adapters" / "two", home, force=True)
    assert links(home) == ("two", "one")
    assert register(home)[-1]["forced"] is True
    assert register(home)[-1]["figures"] is None


def test_force_on_a_winner_is_no_force(home: Path) -> None:
    promote(home / "adapters" / "two", home, force=True, decision=PROMOTED)
    assert register(home)[-1]["forced"] is False


def test_promoting_what_is_in_force_keeps_the_former_one(home: Path) -> None:
    promote(home / "adapters" / "two", home, force=False, decision=PROMOTED)
    for again in ("current", "two"):
        assert promote(home / "adapters" / again, home, force=False) == ["two: is in force already"]
    assert links(home) == ("two", "one")
    assert len(register(home)) == 2


def test_the_former_adapter_can_be_put_back(home: Path) -> None:
    promote(home / "adapters" / "two", home, force=False, decision=PROMOTED)
    promote(home / "adapters" / "former", home, force=True)
    assert links(home) == ("one", "two")


def test_an_adapter_elsewhere_is_linked_by_its_whole_path(home: Path, tmp_path: Path) -> None:
    elsewhere = make_adapter(tmp_path / "elsewhere")
    promote(elsewhere, home, force=False, decision=PROMOTED)
    assert links(home) == (str(elsewhere.resolve()), "one")


def test_a_folder_that_holds_no_adapter_is_never_in_force(home: Path) -> None:
    (home / "adapters" / "two" / WEIGHTS).unlink()
    for folder in ("two", "nowhere"):
        with pytest.raises(ModelUnavailable):
            promote(home / "adapters" / folder, home, force=True)
    assert links(home) == ("one", None)


@pytest.mark.parametrize("target", ["nowhere", "current"])
def test_a_link_that_leads_nowhere_is_replaced_by_force_alone(home: Path, target: str) -> None:
    (home / CURRENT).unlink()
    (home / CURRENT).symlink_to(target)
    with pytest.raises(ModelUnavailable):
        promote(home / "adapters" / "two", home, force=False)
    promote(home / "adapters" / "two", home, force=True)
    # There is nothing to keep of the former.
    assert links(home) == ("two", None)


def test_a_folder_in_the_place_of_the_link_is_left_alone(home: Path) -> None:
    (home / CURRENT).unlink()
    make_adapter(home / CURRENT)
    with pytest.raises(SettingsError, match="not a link"):
        promote(home / "adapters" / "two", home, force=True)
    assert (home / CURRENT / WEIGHTS).read_bytes() == b"current"


# --- killed and failing -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL."""


_STEPS = ("open", "fsync", "replace", "rename", "symlink", "unlink", "mkdir", "readlink")


@contextmanager
def failing_at(step: int, raised: Callable[[], BaseException]) -> Iterator[list[str]]:
    """Every call of the disk in this block is noted; the one numbered `step`, from 0, raises instead."""
    made: list[str] = []

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            made.append(name)
            if len(made) == step + 1:
                raise raised()
            return call(*arguments, **named)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in _STEPS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        patch.setattr(io, "open", wrap("io.open", io.open))
        yield made


def disk_error() -> OSError:
    return OSError(28, "No space left on device")


@pytest.mark.parametrize("raised", [Killed, disk_error])
def test_failing_at_any_step_leaves_the_old_adapter_or_the_new_one(
    home: Path, raised: Callable[[], BaseException]
) -> None:
    promote(home / "adapters" / "two", home, force=False, decision=PROMOTED)
    seen = set()
    for step in range(1000):
        with failing_at(step, raised) as made, suppress(Killed, IOFailure, ModelUnavailable):
            promote(home / "adapters" / "three", home, force=False, decision=PROMOTED)
        if len(made) <= step:
            break
        current, former = links(home)
        seen.add((current, former))
        assert (current, former) in {("two", "one"), ("two", "two"), ("three", "two")}, made
        assert (home / CURRENT / WEIGHTS).read_bytes() == current.encode()
        assert [line["adapter"] for line in register(home)][:2] == ["one", "two"]
        # No link moves unregistered; and run again, it ends as if nothing had happened.
        assert current == "two" or register(home)[-1]["adapter"] == "three", made
        promote(home / "adapters" / "three", home, force=False, decision=PROMOTED)
        assert links(home) == ("three", "two"), made
        assert register(home)[-1]["adapter"] == "three"
        _back_to_two(home)
    assert {("two", "one"), ("three", "two")} <= seen
    assert step > 8


def _back_to_two(home: Path) -> None:
    for link, name in ((CURRENT, "two"), (FORMER, "one")):
        (home / link).unlink()
        (home / link).symlink_to(name)
    lines = (home / REGISTRY).read_text().splitlines(keepends=True)
    (home / REGISTRY).write_text("".join(lines[:2]))


def test_the_control_a_link_removed_before_it_is_made_anew_is_caught(home: Path) -> None:
    def carelessly() -> None:
        (home / CURRENT).unlink()
        (home / CURRENT).symlink_to("two")

    with failing_at(1, Killed), pytest.raises(Killed):
        carelessly()
    with pytest.raises(FileNotFoundError):
        links(home)
