"""Flags and a settings file → a command → an exit status.

Nothing heavy is imported before a command is chosen, so that `--help` answers at once.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich import __version__
from enrich.errors import EnrichError, UsageError

if TYPE_CHECKING:
    from enrich.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; an expected error is one line on standard error."""
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        options = build_parser().parse_args(arguments)
    except UsageError as error:
        return _fail(error)
    _log_to_stderr()
    try:
        return int(options.command(options))
    except EnrichError as error:
        return _fail(error)


def _fail(error: EnrichError) -> int:
    sys.stderr.write(f"enrich: {_one_line(str(error))}\n")
    return error.status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(f"{message}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """Every command and flag there is."""
    parser = _Parser(prog="enrich", description="Fills the missing descriptions of product catalogues.")
    parser.add_argument("--version", action="version", version=f"enrich {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_run(commands)
    _add_plan(commands)
    _add_verify(commands)
    _add_status(commands)
    _add_memory(commands)
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="write the missing descriptions and publish the enriched catalogue")
    run.add_argument("input", metavar="INPUT", help="Parquet or JSON; a file, a folder, a glob or a URL")
    run.add_argument("--output", type=Path, help="INPUT with .enriched.parquet for its suffix when not given")
    _add_reading(run)
    _add_writing(run)
    run.add_argument("--max-rejected", type=int, help="bad records above which nothing is published")
    run.set_defaults(command=_run)


def _add_plan(commands: Any) -> None:
    plan = commands.add_parser("plan", help="what a run would do and take; writes nothing, needs no GPU")
    plan.add_argument("input", metavar="INPUT")
    plan.add_argument("--output", type=Path, help="where the run would publish; its state is looked up beside it")
    _add_reading(plan)
    _add_writing(plan)
    plan.set_defaults(command=_plan)


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser("verify", help="prove that OUTPUT is INPUT with its gaps filled")
    verify.add_argument("input", metavar="INPUT")
    verify.add_argument("output", metavar="OUTPUT", type=Path, nargs="?")
    _add_reading(verify)
    verify.set_defaults(command=_verify)


def _add_status(commands: Any) -> None:
    status = commands.add_parser("status", help="what is done, pending and held in OUTPUT, and the last run")
    status.add_argument("output", metavar="OUTPUT", type=Path)
    status.add_argument("--state", type=Path, help="the state folder, when it is not beside OUTPUT")
    status.set_defaults(command=_status)


def _add_memory(commands: Any) -> None:
    memory = commands.add_parser("memory", help="look at, save or shrink the memory of texts")
    actions = memory.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    stats = actions.add_parser("stats", help="how many texts, by how they ended, and how large")
    export = actions.add_parser("export", help="write a consistent copy to a file")
    export.add_argument("file", metavar="FILE", type=Path)
    prune = actions.add_parser("prune", help="drop the texts that today's model and settings cannot use")
    _add_writing(prune)
    for action, command in ((stats, _memory_stats), (export, _memory_export), (prune, _memory_prune)):
        if action is not prune:
            action.add_argument("--state", type=Path, help="the state folder; .enrich when not given")
        action.set_defaults(command=command)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title", help="column of the title")
    parser.add_argument("--description", help="column of the description")
    parser.add_argument("--attributes", help="columns that feed the text, separated by commas; a.b reaches into a")
    parser.add_argument("--id", help="column that names a product")
    parser.add_argument("--records", metavar="PATH", help="where the records are in one JSON object: products.items")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as in samples/enrich.toml")


def _add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=("auto", "padded", "echo"))
    parser.add_argument("--base", metavar="NAME|PATH", help="smollm2-135m, tinyllama, or a model folder")
    parser.add_argument("--adapter", metavar="PATH|none")
    parser.add_argument("--state", type=Path, help="the state folder; .enrich beside the output when not given")
    if not any(action.dest == "config" for action in parser._actions):
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as in samples/enrich.toml")


_SECTIONS = {
    "title": "catalogue",
    "description": "catalogue",
    "attributes": "catalogue",
    "id": "catalogue",
    "records": "catalogue",
    "base": "model",
    "adapter": "model",
    "engine": "machine",
    "state": "machine",
    "max_rejected": "publish",
}


def _settings(options: argparse.Namespace) -> "Settings":
    from enrich.settings import load_settings

    overrides: dict[str, dict[str, Any]] = {}
    for name, section in _SECTIONS.items():
        value = getattr(options, name, None)
        if value is not None:
            overrides.setdefault(section, {})[name] = value.split(",") if name == "attributes" else value
    return load_settings(options.config, overrides)


def _run(options: argparse.Namespace) -> int:
    from enrich.night import run
    from enrich.report.summary import lines

    report = run(options.input, options.output, _settings(options))
    for summary in report.summaries:
        if summary.error is None:
            _print(*lines(summary))
    return report.status


def _plan(options: argparse.Namespace) -> int:
    from enrich.forecast import forecast

    _print(*forecast(options.input, options.output, _settings(options)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from enrich.night import verify

    for source in verify(options.input, options.output, _settings(options)):
        _print(f"{source.output}: is {source.address} with its gaps filled")
    return 0


def _status(options: argparse.Namespace) -> int:
    from enrich.report.standing import standing

    _print(*standing(options.output, options.state))
    return 0


def _memory_stats(options: argparse.Namespace) -> int:
    from enrich.memory import Memory

    with Memory.open(_memory_of(options.state), read_only=True) as memory:
        stats = memory.stats()
    ended = ", ".join(f"{count:,} {how}" for how, count in stats.ended.items()) or "none"
    _print(
        f"texts {stats.texts:,} ({ended})",
        f"verdicts {stats.verdicts:,}, reviews {stats.reviews:,}, runs {stats.runs:,}",
        f"{stats.file_bytes:,} bytes",
    )
    return 0


def _memory_export(options: argparse.Namespace) -> int:
    from enrich.memory import Memory

    with Memory.open(_memory_of(options.state), read_only=True) as memory:
        memory.export(options.file)
    return 0


def _memory_prune(options: argparse.Namespace) -> int:
    from enrich.author import Author
    from enrich.memory import Memory
    from enrich.state import State

    settings = _settings(options)
    recipe = Author.choose(settings).recipe
    with (
        State(_state_of(settings.machine.state)).locked(),
        Memory.open(_memory_of(settings.machine.state)) as memory,
    ):
        _print(f"{memory.prune(recipe.digest):,} texts dropped")
    return 0


def _state_of(state: Path | None) -> Path:
    return state or Path(".enrich")


def _memory_of(state: Path | None) -> Path:
    from enrich.state import State

    return State(_state_of(state)).memory


def _print(*lines: str) -> None:
    from enrich.text import printable

    sys.stdout.writelines(printable(line) + "\n" for line in lines)


def _one_line(message: str) -> str:
    """Titles and file names may hold anything: nothing of them may act on a terminal or forge a log line."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in message)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _one_line(super().format(record))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("enrich")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
