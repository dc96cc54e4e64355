"""As much of Ray as the driver of several cards asks for, in this process: its actors answer at once."""

from collections.abc import Callable, Mapping
from typing import Any

from enrich.memory import Entry, Verdict
from enrich.plan import Wanted
from enrich.worker import Told
from enrich.writer import Finished


class Method:
    """What is called by `remote`; it returns the actor where its answer is to be had by `get`."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.remote = answer


class Actor:
    """A worker that has written what it is fed before it is asked. `shapes` are those it was made with."""

    device: str | None = None

    def __init__(self, policy: str, shapes: Mapping[str, str]) -> None:
        self.policy, self.shapes = policy, dict(shapes)
        self.fed: list[Wanted] = []
        self.begin, self.feed = Method(lambda _: None), Method(self._feed)
        self.tell = Method(lambda: _Answer(self))
        self._begun = self.answered = 0

    def _feed(self, chunk: list[Wanted], **_: bool) -> None:
        self.fed += chunk

    def told(self) -> Told:
        fed, self.fed = self.fed, []
        self._begun += len(fed)
        self.answered += len(fed)
        finished = [Finished([self.entry(each) for each in fed], len(fed))] if fed else []
        return Told(finished, self._begun, self.shapes, self.device, "here")

    def entry(self, wanted: Wanted) -> Entry:
        text = f"{wanted.product.title}, written."
        return Entry(wanted.key, wanted.attempt, text, "eos", Verdict(self.policy, "publish", text, (), 100))


class _Answer:
    """What an actor says once it is asked for it, and never twice."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor


class Ray:
    """`hire` makes the actors, one call each, in order; `nodes` are those of the cluster."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, hire: Callable[[Mapping[str, str]], Actor], nodes: list[dict[str, Any]]) -> None:
        self._hire, self._nodes = hire, nodes
        self.options: list[dict[str, Any]] = []
        self.killed: list[Actor] = []

    def remote(self, **options: Any) -> Callable[[type], Method]:
        self.options.append(options)
        return lambda _worker: Method(lambda _author, _version, shapes, _judges: self._hire(shapes))

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes

    def wait(self, refs: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return refs, []

    def get(self, answer: _Answer) -> Told:
        return answer.actor.told()

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)

    def shutdown(self) -> None:
        pass


def node(*, alive: bool = True, **resources: float) -> dict[str, Any]:
    """A machine as Ray lists it; `accelerator_type_X` is the resource `accelerator_type:X`."""
    named = {name.replace("accelerator_type_", "accelerator_type:"): number for name, number in resources.items()}
    return {"Alive": alive, "Resources": named}
