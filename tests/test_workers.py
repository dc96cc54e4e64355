"""What the driver makes of what its workers say: another card, other shapes, an error, silence. No Ray is needed."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enrich import cluster
from enrich.author import Author
from enrich.errors import ModelUnavailable
from enrich.memory import Memory
from enrich.plan import Wanted
from enrich.products import Product
from enrich.settings import load_settings
from enrich.worker import Told, _on_this_machine, files_of
from tests.engine.conftest import build_adapter, build_tiny, edit_json
from tests.instant_ray import Actor, Ray, node

Hire = Callable[[Mapping[str, str]], Actor]
ROWS = 60_000
WANTED = [Wanted(number.to_bytes(16, "big"), Product(f"Product {number}")) for number in range(ROWS)]


class Scene:
    """A driver whose workers are made by `hire`, in order, and what it wrote."""

    def __init__(self, memory: Memory, ray: Ray) -> None:
        author = Author.choose(load_settings(overrides={"machine": {"engine": "echo", "gpus": "all"}}))
        self.ray, self.memory = ray, memory
        self.cluster = cluster.Cluster(author, memory, lambda: False)

    def write(self) -> list[bytes]:
        """The keys of what came, in its order. Each text is a token."""
        found = list(self.cluster.write(iter(WANTED), lambda: True))
        keys = [entry.key for finished in found for entry in finished.entries]
        written = [entry for finished in found for entry in finished.entries if entry.ended == "eos"]
        assert sum(finished.tokens for finished in found) == len(written)
        return keys


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Hire], Scene]]:
    with Memory.open(tmp_path / "memory.sqlite") as memory:

        def made(hire: Hire) -> Scene:
            ray = Ray(hire, [node(CPU=3)])
            monkeypatch.setattr(cluster, "_connect", lambda _: ray)
            return Scene(memory, ray)

        yield made


def in_turn(*kinds: type[Actor]) -> tuple[Hire, list[Actor]]:
    """Makes actors of these kinds, the last for ever, and lists them."""
    made: list[Actor] = []

    def hire(shapes: Mapping[str, str]) -> Actor:
        made.append(kinds[min(len(made), len(kinds) - 1)]("policy", shapes))
        return made[-1]

    return hire, made


class OnH100(Actor):
    device = "NVIDIA H100"


class OnA100(Actor):
    device = "NVIDIA A100"


class Mute(Actor):
    def told(self) -> Told:
        raise Ray.exceptions.RayError


class Unable(Actor):
    def told(self) -> Told:
        error = Ray.exceptions.RayError()
        error.cause = ModelUnavailable("no such model here")  # type: ignore[attr-defined]
        raise error


class Slow(OnH100):
    """Writes ten texts while another one writes all that it is fed."""

    def told(self) -> Told:
        fed = self.fed
        self.fed = fed[:10]
        told = super().told()
        self.fed = fed[10:]
        return told


class Mortal(OnH100):
    """Says that it is there, writes one chunk, and dies."""

    lives = 2

    def told(self) -> Told:
        self.lives -= bool(self.fed)
        if not self.lives:
            raise Ray.exceptions.RayError
        return super().told()


class StepsDown(OnH100):
    """Begins in the shapes that all others have, and finds them too large once it has written."""

    def told(self) -> Told:
        self.shapes = {"grid": "64"} if self.fed else self.shapes or {"grid": "128"}
        return super().told()


class Steady(OnH100):
    def told(self) -> Told:
        self.shapes = self.shapes or {"grid": "128"}
        return super().told()


def test_each_product_comes_once(scene: Callable[[Hire], Scene]) -> None:
    hire, made = in_turn(OnH100)
    night = scene(hire)
    assert sorted(night.write()) == [each.key for each in WANTED]
    assert len(made) == 3
    assert night.cluster.device == "3 x NVIDIA H100"


def test_a_limit_ends_what_is_given_out_and_what_is_in_hand_is_finished(scene: Callable[[Hire], Scene]) -> None:
    night = scene(in_turn(OnH100)[0])
    allowed = iter([True] * 5000)
    found = night.cluster.write(iter(WANTED), lambda: next(allowed, False))
    keys = sorted(entry.key for finished in found for entry in finished.entries)
    assert keys == [each.key for each in WANTED[:5000]]


def test_what_a_copy_of_a_stragglers_chunk_brings_counts_once(scene: Callable[[Hire], Scene]) -> None:
    hire, made = in_turn(Slow, OnH100)
    night = scene(hire)
    assert sorted(night.write()) == [each.key for each in WANTED]
    assert made[0].answered > 0
    assert sum(actor.answered for actor in made) > ROWS


def test_a_card_of_another_kind_writes_nothing(
    scene: Callable[[Hire], Scene], caplog: pytest.LogCaptureFixture
) -> None:
    hire, made = in_turn(OnH100, OnA100, OnH100)
    night = scene(hire)
    with caplog.at_level(logging.WARNING):
        assert sorted(night.write()) == [each.key for each in WANTED]
    assert "worker 2 (here): a NVIDIA A100 among NVIDIA H100 is left out" in caplog.text
    assert night.ray.killed == [made[1]]
    assert [worker["texts"] for worker in night.cluster.workers if worker["name"] == "worker 2"] == [0]


def test_where_one_steps_down_the_others_begin_anew_in_its_shapes(scene: Callable[[Hire], Scene]) -> None:
    hire, made = in_turn(Steady, StepsDown, Steady)
    night = scene(hire)
    assert sorted(night.write()) == [each.key for each in WANTED]
    first, stepped, third, *anew = made
    assert night.ray.killed == [first, third]
    assert [actor.shapes for actor in anew] == [{"grid": "64"}] * 2
    assert stepped.shapes == {"grid": "64"}
    assert night.memory.shape("grid") == "64"


def test_one_that_cannot_work_is_left_out_and_one_that_dies_is_replaced(
    scene: Callable[[Hire], Scene], caplog: pytest.LogCaptureFixture
) -> None:
    hire, made = in_turn(Unable, Mute, OnH100)
    night = scene(hire)
    assert sorted(night.write()) == [each.key for each in WANTED]
    assert "worker 1 is left out: no such model here" in caplog.text
    assert "worker 2 died" in caplog.text
    assert len(made) == 4


def test_one_that_dies_after_it_worked_is_replaced_as_often_as_it_does(scene: Callable[[Hire], Scene]) -> None:
    hire, made = in_turn(Mortal)
    night = scene(hire)
    assert sorted(night.write()) == [each.key for each in WANTED]
    assert len(made) > 3 * 3


def test_workers_that_never_come_up_are_given_up(scene: Callable[[Hire], Scene]) -> None:
    hire, made = in_turn(Mute)
    with pytest.raises(ModelUnavailable, match="no worker can write"):
        scene(hire).write()
    assert len(made) == 3 * 3


# --- the model where it is not ---------------------------------------------------------------------------------------


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Author:
    """One with a base and an adapter; unpacked files go under the test's own folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    base = build_tiny(tmp_path / "base", seed=1)
    build_adapter(tmp_path / "adapter", base)
    model = {"base": str(tmp_path / "base"), "adapter": str(tmp_path / "adapter")}
    return Author.choose(load_settings(overrides={"model": model, "text": {"template": "{title}"}}))


def lost(folder: Path) -> None:
    shutil.rmtree(folder)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def another(folder: Path) -> None:
    file = folder / ("config.json" if folder.name == "base" else "adapter_config.json")
    edit_json(file, **{"rms_norm_eps" if folder.name == "base" else "lora_alpha": 3})


@pytest.mark.parametrize("which", ["base", "adapter"])
@pytest.mark.parametrize("befall", [lost, emptied, another])
def test_a_machine_with_no_model_or_another_one_takes_the_drivers(
    author: Author, tmp_path: Path, befall: Callable[[Path], None], which: str
) -> None:
    files = files_of(author)
    befall(tmp_path / which)
    for _ in range(2):
        here = _on_this_machine(author, files)
        assert here.recipe == author.recipe
        assert {path.name for path in tmp_path.glob("enrich-*")} == {f"enrich-{getattr(author, which).digest}"}
    # On one machine nothing travels: what lies there now is not what the driver read.
    with pytest.raises(ModelUnavailable):
        _on_this_machine(author, None)


def test_a_machine_that_has_the_model_unpacks_nothing(author: Author, tmp_path: Path) -> None:
    assert _on_this_machine(author, files_of(author)) == author
    assert list(tmp_path.glob("enrich-*")) == []


def test_a_strangers_folder_is_not_used(author: Author, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write into it could change it once it was checked."""
    files = files_of(author)
    lost(tmp_path / "base")
    theirs = _on_this_machine(author, files).base
    assert theirs is not None
    uid = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: uid + 1)
    here = _on_this_machine(author, files)
    assert here.base is not None
    assert here.base.folder != theirs.folder
    assert here.base.digest == theirs.digest


def test_files_that_arrive_altered_are_refused(author: Author, tmp_path: Path) -> None:
    files = {what: dict(some) for what, some in files_of(author).items()}
    files["base"]["config.json"] += b" "
    lost(tmp_path / "base")
    with pytest.raises(ModelUnavailable, match="the driver's"):
        _on_this_machine(author, files)


# --- where they work --------------------------------------------------------------------------------------------------

H100, A100 = "accelerator_type_H100", "accelerator_type_A100"


def places(nodes: list[dict[str, Any]], gpus: Any = "all", *, base: object = "a base") -> tuple[str, int]:
    author = SimpleNamespace(base=base, settings=load_settings(overrides={"machine": {"gpus": gpus}}))
    return cluster._places(Ray(in_turn(Actor)[0], nodes), cast(Author, author))


def test_the_kind_of_card_that_there_is_most_of_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [node(GPU=1, **{A100: 1}), node(GPU=8, **{H100: 1}), node(GPU=2, **{H100: 1}), node(CPU=64)]
    assert places(nodes) == ("H100", 10)
    assert "1 x A100 left out" in caplog.text
    assert places(nodes, 3) == ("H100", 3)


def test_machines_that_are_gone_do_not_count() -> None:
    assert places([node(GPU=8, alive=False, **{A100: 1}), node(GPU=1, **{H100: 1})]) == ("H100", 1)


def test_cards_of_no_known_kind_are_of_one_kind() -> None:
    assert places([node(GPU=2), node(GPU=2, CPU=8)]) == ("", 4)


def test_without_a_model_processors_are_taken() -> None:
    assert places([node(CPU=4), node(CPU=2, GPU=1, **{H100: 1})], base=None) == ("", 6)


@pytest.mark.parametrize(("nodes", "gpus"), [([], "all"), ([node(CPU=4)], "all"), ([node(GPU=2)], 3)])
def test_more_cards_than_there_are_is_an_error(nodes: list[dict[str, Any]], gpus: Any) -> None:
    with pytest.raises(ModelUnavailable, match="Ray sees"):
        places(nodes, gpus)
