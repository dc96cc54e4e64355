"""`make bench`: speed and memory of `enrich-train prepare`, without a model but for its tokenizer.

Prints one JSON line a figure: rows a second, the CPU seconds of all processes from their start to their end, and the
peak memory of the whole process with its largest worker. The rows are the dearest kind: descriptions of about 500
characters, 90 words of a vocabulary of 40,000, of which none is a duplicate or dropped by a filter, so that each goes
all the way. In bytes most are below the limit of 512 tokens, which spares counting the words of those; with
`--max-tokens 256` the words of all are counted (and some are dropped: invented words take more tokens than real ones).
"""

import argparse
import bisect
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.invented import _LETTERS

_CHUNK = 8192
_NUM_WORDS = 40_000
_PREPARE = """
import resource, sys, time
from pathlib import Path
from enrich.settings import load_settings
from train.prepare import prepare
from train.prepare_settings import PrepareSettings
if __name__ == "__main__":
    options = PrepareSettings(near_duplicates=sys.argv[3] == "True", max_completion_tokens=int(sys.argv[4]))
    start = time.perf_counter()
    prepared = prepare([sys.argv[1]], Path(sys.argv[2]), load_settings(), options)
    seconds = time.perf_counter() - start
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, workers = (peak // 1024 for peak in peaks)
    print(seconds, own, workers, sum(prepared.splits.values()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", choices=("plain", "near"), help="without, or with, the search for near-duplicates")
    parser.add_argument("--max-tokens", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        source = Path(folder) / "invented.parquet"
        invent(source, options.rows)
        for near in (False, True):
            if options.only in (None, "near" if near else "plain"):
                _measure(source, Path(folder), options, near=near)


def _measure(source: Path, folder: Path, options: argparse.Namespace, *, near: bool) -> None:
    script = folder / "run.py"
    script.write_text(_PREPARE, encoding="utf-8")
    before = _cpu_seconds()
    done = subprocess.run(
        [sys.executable, str(script), str(source), str(folder / "prepared"), str(near), str(options.max_tokens)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    seconds, own, worker, kept = done.stdout.split()
    print(
        json.dumps(
            {
                "figure": f"prepare {'with' if near else 'without'} near-duplicates",
                "rows": options.rows,
                "kept": int(kept),
                "seconds": round(float(seconds), 1),
                "rows_per_s": round(options.rows / float(seconds)),
                "cpu_s": round(_cpu_seconds() - before, 1),
                "peak_mb": int(own),
                "peak_worker_mb": int(worker),
            }
        ),
        flush=True,
    )


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def invent(path: Path, num_rows: int) -> None:
    """Titles of eight words and descriptions of 90, about 500 characters; words as long and as common as in prose."""
    schema = pa.schema([("title", pa.string()), ("description", pa.string())])
    rows = _rows()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, num_rows, _CHUNK):
            chunk = list(itertools.islice(rows, min(_CHUNK, num_rows - start)))
            writer.write_table(
                pa.Table.from_arrays([pa.array(each) for each in zip(*chunk, strict=True)], schema=schema)
            )


def _rows() -> Iterator[tuple[str, str]]:
    dice = random.Random(0)
    words = ["".join(dice.choices(_LETTERS, k=dice.randint(2, 7))) for _ in range(_NUM_WORDS)]
    # Zipf's law: the n-th word is as common as 1/n.
    bounds = list(itertools.accumulate(1 / (rank + 8) for rank in range(_NUM_WORDS)))
    for number in itertools.count():
        picked = [words[bisect.bisect(bounds, dice.random() * bounds[-1], 0, _NUM_WORDS - 1)] for _ in range(98)]
        sentences = [" ".join(picked[at : at + 15]).capitalize() + "." for at in range(8, 98, 15)]
        yield f"{' '.join(picked[:8]).title()} {number}", " ".join(sentences)


if __name__ == "__main__":
    main()
