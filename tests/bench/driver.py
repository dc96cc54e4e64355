"""`make bench-driver`: how many rows a second the driver of several cards keeps up with, its workers being instant.

The workers answer at once, in this process; what goes to them and comes back is pickled as Ray would. Reading, keys,
chunks, the memory and publishing are the driver's own. Prints one JSON line a figure.
"""

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from enrich import cluster
from enrich.memory import Entry, Verdict
from enrich.night import run
from enrich.plan import Wanted
from enrich.settings import load_settings
from enrich.worker import Told
from enrich.writer import Finished
from tests.bench.invented import write_catalogue
from tests.instant_ray import Actor, Ray, node

_BATCH_ROWS = 512
# A text of the length that cards write: 160 tokens at most.
_TEXT = " ".join(["A sturdy companion for every day, easy to clean, whatever the weather brings to your kitchen."] * 5)


class _Pickled(Actor):
    """What goes to it and comes back is pickled. What a worker of its own would do for that is counted apart."""

    own_seconds = 0.0

    def __init__(self, policy: str, shapes: Mapping[str, str]) -> None:
        super().__init__(policy, shapes)
        self._done, self._begun = list[bytes](), 0

    def _feed(self, chunk: list[Wanted], **_: bool) -> None:
        sent = pickle.dumps(chunk, 5)
        began = time.perf_counter()
        wanted = pickle.loads(sent)  # noqa: S301 - our own
        entries = [self.entry(each) for each in wanted]
        finished = [
            Finished(entries[at : at + _BATCH_ROWS], 100 * _BATCH_ROWS) for at in range(0, len(entries), _BATCH_ROWS)
        ]
        self._done.append(pickle.dumps(finished, 5))
        _Pickled.own_seconds += time.perf_counter() - began

    def entry(self, wanted: Wanted) -> Entry:
        verdict = Verdict(self.policy, "publish", _TEXT, (), 100)
        return Entry(wanted.key, wanted.attempt, f" {_TEXT}", "eos", verdict)

    def told(self) -> Told:
        found = [each for done in self._done for each in pickle.loads(done)]  # noqa: S301 - our own
        self._done.clear()
        self._begun += sum(len(each.entries) for each in found)
        return Told(found, self._begun, {}, None, "here")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    cluster._connect = lambda author: Ray(partial(_Pickled, author.judge.policy), [node(CPU=options.workers)])
    with tempfile.TemporaryDirectory() as place:
        catalogue = Path(place) / "catalogue.parquet"
        rows = write_catalogue(catalogue, float("inf"), missing=1.0, num_rows=options.rows)
        machine = {"engine": "echo", "gpus": options.workers}
        began = time.perf_counter()
        (summary,) = run(catalogue, None, load_settings(overrides={"machine": machine})).summaries
        seconds = summary.generating_seconds - _Pickled.own_seconds
        figures = {
            "rows": rows,
            "written": summary.written,
            "driver_s": round(seconds, 1),
            "workers_s": round(_Pickled.own_seconds, 1),
            "rows_per_s": round(summary.written / seconds),
            "publishing_s": summary.publishing_seconds,
            "whole_s": round(time.perf_counter() - began, 1),
            "memory_bytes_a_text": round((Path(place) / ".enrich/memory.sqlite").stat().st_size / summary.written),
        }
        print(json.dumps({"figure": "driver", "workers": options.workers, **figures}), flush=True)


if __name__ == "__main__":
    main()
