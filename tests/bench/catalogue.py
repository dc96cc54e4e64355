"""`make bench`: speed and memory of the catalogue work, without a model. Prints one JSON line a figure.

Speed is told as a ratio to the barest loop that could do the same copy, both run in turn in one go; memory as
the peak of the whole process, as the system accounts for it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
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
    parser.add_argument("--only", choices=("help", "speed", "memory"))
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


def _invent(path: Path, megabytes: int, missing: float) -> int:
    """In a process of its own: what this one ever held would count as the peak of those it starts."""
    code = "import sys, pathlib; from tests.bench.invented import write_catalogue as write; "
    code += f"print(write(pathlib.Path(sys.argv[1]), {megabytes} << 20, {missing}))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def _enrich(source: Path, folder: Path) -> tuple[float, int]:
    with tempfile.TemporaryDirectory(dir=folder) as state:
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
                state,
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
