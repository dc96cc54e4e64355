"""`make bench`: speed and memory of the catalogue work, without a model. Prints one JSON line a figure.

Speed is told as a ratio to the barest loop that could do the same copy, both run in turn in one go; memory as
the peak of the whole process, as the system accounts for it.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

_BARE_PARQUET = """
import sys, pyarrow.parquet as pq
source = pq.ParquetFile(sys.argv[1], buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
with pq.ParquetWriter(sys.argv[2], source.schema_arrow, compression="zstd", write_page_checksum=True) as writer:
    for batch in source.iter_batches(16384):
        writer.write_batch(batch)
"""
_BARE_JSON_LINES = """
import sys, orjson, pyarrow as pa, pyarrow.parquet as pq
writer = None
def flush(rows):
    global writer
    table = pa.Table.from_pylist(rows)
    writer = writer or pq.ParquetWriter(sys.argv[2], table.schema, compression="zstd", write_page_checksum=True)
    writer.write_table(table)
rows = []
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        rows.append(orjson.loads(line))
        if len(rows) == 16384:
            flush(rows)
            rows = []
if rows:
    flush(rows)
writer.close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed-mb", type=int, default=500, help="size of the inputs of the speed figures")
    parser.add_argument("--memory-mb", type=int, nargs=2, default=(1000, 4000), help="sizes compared for memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load-rows", type=int, nargs=2, default=(500_000, 5_000_000), help="rows compared for load")
    parser.add_argument("--only", choices=("help", "speed", "memory", "load"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        if options.only in (None, "help"):
            _measure_help()
        if options.only in (None, "speed"):
            for suffix, bare in ((".parquet", _BARE_PARQUET), (".jsonl", _BARE_JSON_LINES)):
                _measure_speed(Path(folder), suffix, bare, options.speed_mb, options.rounds)
        if options.only in (None, "memory"):
            for suffix in (".parquet", ".jsonl"):
                _measure_memory(Path(folder), suffix, options.memory_mb)
        if options.only in (None, "load"):
            _measure_load(Path(folder), options.load_rows)


def _measure_help() -> None:
    seconds = [_run([sys.executable, "-m", "enrich", "--help"])[0] for _ in range(10)]
    _tell(figure="enrich --help", median_s=round(statistics.median(seconds), 3), worst_s=round(max(seconds), 3))


def _measure_speed(folder: Path, suffix: str, bare: str, megabytes: int, rounds: int) -> None:
    """A run with nothing missing beside the bare loop, in turn; the ratio is bare time over ours."""
    source = folder / f"speed{suffix}"
    rows = _invent(source, megabytes, missing=0.0)
    ratios, ours, theirs = [], [], []
    for _ in range(rounds):
        theirs.append(_run([sys.executable, "-c", bare, str(source), str(folder / "bare.parquet")])[0])
        ours.append(_enrich(source, folder)[0])
        ratios.append(theirs[-1] / ours[-1])
    _tell(
        figure=f"pass-through {suffix}",
        megabytes=megabytes,
        rows=rows,
        bare_s=round(statistics.median(theirs), 2),
        enrich_s=round(statistics.median(ours), 2),
        rows_per_s=round(rows / statistics.median(ours)),
        ratio=round(statistics.median(ratios), 3),
        ratios=[round(ratio, 3) for ratio in ratios],
    )
    source.unlink()


def _measure_memory(folder: Path, suffix: str, sizes: list[int]) -> None:
    """Peak memory of whole runs with one in fifty missing, for two sizes."""
    peaks = []
    for megabytes in sizes:
        source = folder / f"memory{suffix}"
        rows = _invent(source, megabytes, missing=0.02)
        seconds, peak = _enrich(source, folder)
        peaks.append(peak)
        _tell(figure=f"peak memory {suffix}", megabytes=megabytes, rows=rows, seconds=round(seconds, 1), peak_mb=peak)
        source.unlink()
    _tell(figure=f"peak memory {suffix}, larger over smaller", ratio=round(peaks[1] / peaks[0], 3))


def _measure_load(folder: Path, sizes: list[int]) -> None:
    """Whole runs with one in ten missing, for two numbers of rows: what a row costs, net of start-up, in the larger."""
    source = folder / "load.parquet"
    few = _invent(source, math.inf, missing=0.1, num_rows=1)
    start_up, costs = _enrich(source, folder)[0], []
    for num_rows in sizes:
        rows = _invent(source, math.inf, missing=0.1, num_rows=num_rows)
        state = folder / "load.state"
        seconds, peak = _enrich(source, folder, state)
        costs.append((seconds - start_up) / (rows - few))
        _tell(
            figure="load",
            rows=rows,
            seconds=round(seconds, 1),
            start_up_s=round(start_up, 1),
            peak_mb=peak,
            memory_file_mb=round((state / "memory.sqlite").stat().st_size / 1e6, 1),
            catalogue_mb=round(source.stat().st_size / 1e6, 1),
        )
        shutil.rmtree(state)
    _tell(figure="load, cost of a row, larger over smaller", ratio=round(costs[1] / costs[0], 3))


def _invent(path: Path, megabytes: float, missing: float, num_rows: float = math.inf) -> int:
    """In a process of its own: what this one ever held would count as the peak of those it starts."""
    code = "import sys, pathlib; from math import inf; from tests.bench.invented import write_catalogue as write; "
    code += f"print(write(pathlib.Path(sys.argv[1]), {megabytes} * 2**20, {missing}, {num_rows}))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def _enrich(source: Path, folder: Path, state: Path | None = None) -> tuple[float, int]:
    """A run with a state of its own, which is kept where one is named."""
    with nullcontext(state) if state else tempfile.TemporaryDirectory(dir=folder) as place:
        output = folder / "enriched.parquet"
        return _run(
            [
                sys.executable,
                "-m",
                "enrich",
                "run",
                str(source),
                "--output",
                str(output),
                "--engine",
                "echo",
                "--state",
                str(place),
            ]
        )


def _run(command: list[str]) -> tuple[float, int]:
    """Seconds and peak memory (MB) of a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}: {errors.decode()[-500:]}")
    return time.perf_counter() - start, usage.ru_maxrss // 1024


def _tell(**figures: object) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
