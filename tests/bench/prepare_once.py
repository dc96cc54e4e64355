"""One preparation in a process of its own, its memory watched part by part: prints one JSON line.

The parts are what comes before duplicates are looked for (reading and judging, which stream), the search for them, and
what follows (writing, which streams). A peak is the resident memory of the process, files that are mapped included.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from enrich.settings import load_settings
from train.prepare import prepare
from train.prepare_settings import PrepareSettings
from train.preparing.prepared_folder import Fates


def main() -> None:
    """Takes the catalogue, the folder to make, `near` or `plain`, and the tokens that a description may have."""
    source, out, kind, max_tokens = sys.argv[1:]
    options = PrepareSettings(near_duplicates=kind == "near", max_completion_tokens=int(max_tokens))
    search = _Search()
    _start_peak()
    start = time.perf_counter()
    prepared = prepare([source], Path(out), load_settings(), options)
    told = {
        "kept": sum(prepared.splits.values()),
        "seconds": round(time.perf_counter() - start, 1),
        **search.told,
        "writing_peak_mb": _megabytes("VmHWM"),
        "peak_worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }
    told["peak_mb"] = max(value for name, value in told.items() if name in _PARTS)
    print(json.dumps(told))


_PARTS = ("streaming_peak_mb", "search_peak_mb", "writing_peak_mb")


class _Search:
    """Watches the search for duplicates, exact and near, from when it begins to when it ends."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self._decide = Fates.decide
        Fates.decide = self._watched  # type: ignore[method-assign]

    def _watched(self, *given: Any) -> Fates:
        self.told["streaming_peak_mb"] = _megabytes("VmHWM")
        self.told["before_search_mb"] = _megabytes("VmRSS")
        _start_peak()
        start = time.perf_counter()
        fates = self._decide(*given)
        self.told["search_seconds"] = round(time.perf_counter() - start, 1)
        self.told["search_peak_mb"] = _megabytes("VmHWM")
        _start_peak()
        return fates


def _start_peak() -> None:
    Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")


def _megabytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) // 1024


if __name__ == "__main__":
    main()
