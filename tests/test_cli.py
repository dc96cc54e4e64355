"""The command line: statuses, one line an error, nothing heavy before it is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from enrich.cli import build_parser, main

from .runs import output_of, rows_of, write_catalogue

# The command takes the log over.
pytestmark = pytest.mark.usefixtures("own_log")

COMMANDS = [
    ["run"],
    ["plan"],
    ["verify"],
    ["status"],
    ["held"],
    ["runs"],
    ["diff"],
    ["rollback"],
    ["review"],
    ["describe"],
    ["memory"],
    *(["memory", each] for each in ("stats", "export", "prune")),
]


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_catalogue(tmp_path / "catalog.parquet", rows_of(30))


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The status and the one line on standard error, past the log."""
    capsys.readouterr()
    status = main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("enrich: ")]
    assert len(lines) == 1
    return status, lines[0]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: enrich " + " ".join(command) in " ".join(capsys.readouterr().out.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from enrich.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_dry_run_imports_no_torch(catalogue: Path) -> None:
    code = (
        "import sys; from enrich.cli import main\n"
        "assert main(['run', 'catalog.parquet', '--engine', 'echo']) == 0\n"
        "assert main(['describe', 'Mug', '--engine', 'echo']) == 0\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=catalogue.parent
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "enrich", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("enrich ")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 64, "COMMAND"),
        (["sing"], 64, "sing"),
        (["run"], 64, "INPUT"),
        (["run", "catalog.parquet", "--engine", "steam"], 64, "steam"),
        (["run", "catalog.parquet", "--output", "catalog.parquet", "--engine", "echo"], 64, "replace the input"),
        (["run", "nowhere.parquet", "--engine", "echo"], 66, "no such"),
        (["run", "*.json", "--engine", "echo"], 66, "no catalogue"),
        (["verify", "catalog.parquet"], 66, "no such file"),
        (["status", "nowhere.parquet"], 66, "nothing is published"),
        (["status", "catalog.parquet"], 65, "not a file that this tool published"),
        (["run", "catalog.parquet", "--base", "nowhere"], 69, "no such model folder"),
        (["run", "catalog.parquet", "--adapter", "nowhere"], 69, "no such adapter folder"),
        (["run", "catalog.parquet", "--title", "name", "--engine", "echo"], 78, "no column name"),
        (["run", "catalog.parquet", "--attributes", "size", "--engine", "echo"], 78, "no column size"),
        (["run", "catalog.parquet", "--max-rejected", "-1", "--engine", "echo"], 78, "max_rejected"),
        (["run", "catalog.parquet", "--config", "nowhere.toml"], 66, "no such settings file"),
        (["run", "broken.parquet", "--engine", "echo"], 65, "not a Parquet file"),
        (["run", "bad.jsonl", "--engine", "echo"], 4, "11 bad records, 10 are allowed"),
        (["describe", "Mug", "--base", "nowhere"], 69, "no such model folder"),
        (["describe", "?!", "--engine", "echo"], 64, "no letter and no digit"),
        (["memory", "stats", "--state", "nowhere"], 66, "no such memory"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_an_error_is_one_line_and_a_status(
    catalogue: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, told: str
) -> None:
    Path("broken.parquet").write_bytes(b"PARROT")
    Path("bad.jsonl").write_text('{"title": "good"}\n' + "{\n" * 11)
    found, line = failed(arguments, capsys)
    assert found == status
    assert told in line
    assert not output_of(catalogue).exists()


def test_a_difference_is_status_one(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "catalog.parquet", "--engine", "echo"]) == 0
    assert main(["verify", "catalog.parquet"]) == 0
    write_catalogue(catalogue, rows_of(29))
    assert failed(["verify", "catalog.parquet"], capsys) == (1, "enrich: the input has 29 rows, the output 30")


def test_a_name_can_neither_forge_a_line_nor_steer_a_terminal(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "no\nenrich: all is well\x1b[2J\u202e.parquet"
    status, line = failed(["run", hostile, "--engine", "echo"], capsys)
    assert status == 66
    assert line.isprintable()
    assert "\\n" in line


def test_a_title_can_neither_forge_a_line_nor_steer_a_terminal(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_catalogue(catalogue, [{"title": "Lamp \x1b[31m red\nrejected 99", "description": None}])
    assert main(["run", "catalog.parquet", "--engine", "echo"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_a_plan_counts_and_writes_nothing(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doubled = [*rows_of(30), *rows_of(30), {"id": "x", "title": "", "description": None}]
    write_catalogue(catalogue, doubled)
    before = {path: path.read_bytes() for path in catalogue.parent.rglob("*") if path.is_file()}
    assert main(["plan", "catalog.parquet", "--engine", "echo"]) == 0
    assert {path: path.read_bytes() for path in catalogue.parent.rglob("*") if path.is_file()} == before
    printed = capsys.readouterr().out
    assert "rows 61" in printed
    assert "missing 31: 1 cannot be described, 15 duplicates, 0 already known, 15 to write" in printed
    assert "time unknown" in printed


def test_a_plan_after_a_run_knows_its_texts_and_its_speed(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "catalog.parquet", "--engine", "echo"]) == 0
    write_catalogue(catalogue, rows_of(50))
    Path("price.toml").write_text("[machine]\ngpu_hour_price = 2.0\n")
    capsys.readouterr()
    assert main(["plan", "catalog.parquet", "--engine", "echo", "--config", "price.toml"]) == 0
    printed = capsys.readouterr().out
    assert "15 already known, 10 to write" in printed
    assert "as measured by the last run" in printed
    assert "cost 0.00 at 2.00 an hour" in printed


def test_status_tells_what_was_published(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "catalog.parquet", "--engine", "echo"]) == 0
    capsys.readouterr()
    assert main(["status", "catalog.enriched.parquet"]) == 0
    printed = capsys.readouterr().out
    assert "generated 15, kept 15" in printed
    assert "15 written" in printed


def test_the_memory_is_counted_copied_and_pruned(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "catalog.parquet", "--engine", "echo"]) == 0
    Path("short.toml").write_text("[text]\nmax_new_tokens = 5\n")
    assert main(["run", "catalog.parquet", "--engine", "echo", "--config", "short.toml"]) == 0
    assert main(["memory", "export", "copy.sqlite"]) == 0
    capsys.readouterr()
    assert main(["memory", "stats"]) == 0
    # A text that the limit ended is tried three times; every attempt is a text.
    assert "texts 60 (15 eos, 45 length)" in capsys.readouterr().out
    assert main(["memory", "prune", "--engine", "echo"]) == 0
    assert capsys.readouterr().out == "45 texts dropped\n"
    assert main(["memory", "stats"]) == 0
    assert "texts 15 (15 eos)" in capsys.readouterr().out
    assert Path("copy.sqlite").stat().st_size > 0


def test_the_samples_name_their_products_by_id(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "catalog.parquet", "--engine", "echo", "--id", "id"]) == 0
    sample = re.search(r"· 000(\d\d) · Product (\d+)\n", capsys.readouterr().out)
    assert sample
    assert int(sample[1]) == int(sample[2])
    assert failed(["run", "catalog.parquet", "--engine", "echo", "--id", "sku"], capsys)[0] == 78


def test_no_flag_is_given_twice() -> None:
    assert build_parser().parse_args(["plan", "x", "--config", "y"]).config == Path("y")
