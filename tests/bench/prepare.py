"""`make bench-prepare`: speed and memory of `enrich-train prepare`, without a model but for its tokenizer.

Prints one JSON line a figure: rows a second, the CPU seconds of all processes from their start to their end, and the
peak memory of the whole process with its largest worker. The rows are the dearest kind: descriptions of about 500
characters, 90 words of a vocabulary of 40,000, of which none is a duplicate or dropped by a filter, so that each goes
all the way. In bytes most are below the limit of 512 tokens, which spares counting the words of those; with
`--max-tokens 256` the words of all are counted (and some are dropped: invented words take more tokens than real ones).
Only where the search for near-duplicates is measured are there any, three rows of ten.
"""

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.quality.duplicates import NUM_HASHES
from tests.bench.invented import _LETTERS

_CHUNK = 8192
_NUM_WORDS = 40_000
_SEARCH_ROWS = 1_400_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="of the figures plain and near")
    parser.add_argument("--memory-rows", type=int, nargs=2, default=(200_000, 800_000), help="compared for memory")
    parser.add_argument("--only", choices=("plain", "near", "memory", "search"))
    parser.add_argument("--max-tokens", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        source = Path(folder) / "invented.parquet"
        for kind in ("plain", "near"):
            if options.only in (None, kind):
                _measure_speed(source, options.rows, kind, options.max_tokens)
        if options.only in (None, "memory"):
            _measure_memory(source, options.memory_rows, options.max_tokens)
        if options.only in (None, "search"):
            _measure_search(source, options.max_tokens)


def _measure_speed(source: Path, num_rows: int, kind: str, max_tokens: int) -> None:
    invent(source, num_rows)
    before = _cpu_seconds()
    told = _prepare(source, kind, max_tokens)
    _tell(
        figure=f"prepare {'with' if kind == 'near' else 'without'} near-duplicates",
        rows=num_rows,
        rows_per_s=round(num_rows / told["seconds"]),
        cpu_s=round(_cpu_seconds() - before, 1),
        **{name: told[name] for name in ("kept", "seconds", "peak_mb", "peak_worker_mb")},
    )


def _measure_memory(source: Path, sizes: list[int], max_tokens: int) -> None:
    """Without near-duplicates: what is left to grow are 16 bytes a row, and sorting them."""
    told = []
    for num_rows in sizes:
        invent(source, num_rows)
        told.append(_prepare(source, "plain", max_tokens))
    names = ("streaming_peak_mb", "search_peak_mb", "writing_peak_mb", "peak_mb", "peak_worker_mb")
    peaks = {name: [each[name] for each in told] for name in names}
    ratios = {
        name.replace("_mb", "_ratio"): round(peaks[name][1] / peaks[name][0], 3)
        for name in ("streaming_peak_mb", "peak_mb")
    }
    _tell(figure="peak memory without near-duplicates", rows=sizes, **peaks, **ratios)


def _measure_search(source: Path, max_tokens: int) -> None:
    invent(source, _SEARCH_ROWS, variants=3)
    told = _prepare(source, "near", max_tokens)
    _tell(
        figure="near-duplicates",
        rows=_SEARCH_ROWS,
        rows_are="90 words, about 500 characters; 3 of 10 are the one before with a word exchanged",
        mapped_signatures_mb=_SEARCH_ROWS * NUM_HASHES * 2 >> 20,
        **told,
    )


def _prepare(source: Path, kind: str, max_tokens: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.prepare_once", str(source), str(source.parent / "prepared")]
    done = subprocess.run([*command, kind, str(max_tokens)], check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _tell(**figures: object) -> None:
    print(json.dumps(figures), flush=True)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def invent(path: Path, num_rows: int, variants: int = 0) -> None:
    """Titles of eight words and descriptions of 90, about 500 characters; words as long and as common as in prose.

    Of ten rows so many as `variants` have the description of the one before them with a word exchanged.
    """
    schema = pa.schema([("title", pa.string()), ("description", pa.string())])
    rows = _rows(variants)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, num_rows, _CHUNK):
            chunk = list(itertools.islice(rows, min(_CHUNK, num_rows - start)))
            writer.write_table(
                pa.Table.from_arrays([pa.array(each) for each in zip(*chunk, strict=True)], schema=schema)
            )


def _rows(variants: int) -> Iterator[tuple[str, str]]:
    dice = random.Random(0)
    words = ["".join(dice.choices(_LETTERS, k=dice.randint(2, 7))) for _ in range(_NUM_WORDS)]
    # Zipf's law: the n-th word is as common as 1/n.
    bounds = list(itertools.accumulate(1 / (rank + 8) for rank in range(_NUM_WORDS)))
    for number in itertools.count():
        if number % 10 < 10 - variants:
            picked = dice.choices(words, cum_weights=bounds, k=98)
        else:
            picked[dice.randrange(8, 98)] = dice.choice(words)
        sentences = [" ".join(picked[at : at + 15]).capitalize() + "." for at in range(8, 98, 15)]
        yield f"{' '.join(picked[:8]).title()} {number}", " ".join(sentences)


if __name__ == "__main__":
    main()
