"""Flags and a settings file → a command → an exit status.

Nothing heavy is imported before a command is chosen, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich import __version__
from enrich.console import Parser, run_command, say

if TYPE_CHECKING:
    from enrich.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; an expected error is one line on standard error."""
    return run_command(build_parser(), arguments)


def build_parser() -> Parser:
    """Every command and flag there is."""
    parser = Parser(prog="enrich", description="Fills the missing descriptions of product catalogues.")
    parser.add_argument("--version", action="version", version=f"enrich {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    _add_run(commands)
    _add_plan(commands)
    _add_verify(commands)
    _add_status(commands)
    _add_runs(commands)
    _add_diff(commands)
    _add_held(commands)
    _add_review(commands)
    _add_rollback(commands)
    _add_describe(commands)
    _add_memory(commands)
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="write the missing descriptions and publish the enriched catalogue")
    run.add_argument("input", metavar="INPUT", help="Parquet or JSON; a file, a folder, a glob or a URL")
    run.add_argument("--output", type=Path, help="INPUT with .enriched.parquet for its suffix when not given")
    _add_reading(run)
    _add_writing(run)
    run.add_argument("--gpus", metavar="all|N", type=_gpus, help="write on so many cards of this machine, through Ray")
    run.add_argument("--cluster", metavar="ADDRESS", help="write on a Ray cluster: ray://HEAD:10001, or auto")
    run.add_argument("--retries", type=int, metavar="N", help="further attempts at a text that may not be published")
    run.add_argument("--retry", choices=("held", "rejected"), help="work on such rows of an earlier run alone")
    run.add_argument("--deadline", metavar="HH:MM", help="local time by which the result is published; the rest waits")
    run.add_argument("--max-rows", type=int, metavar="N", help="products to write at most")
    run.add_argument("--budget", type=float, metavar="SUM", help="what the run may cost, at --gpu-hour-price")
    _add_price(run)
    run.add_argument("--priority", metavar="COLUMN", help="the largest values of this column are written first")
    run.add_argument("--metrics", type=Path, metavar="FILE", help="Prometheus text file of the run")
    run.add_argument("--log", choices=("text", "json"), default="text", help="how log lines are written")
    run.add_argument("--max-rejected", type=int, help="bad records above which nothing is published")
    run.set_defaults(command=_run)


def _add_plan(commands: Any) -> None:
    plan = commands.add_parser("plan", help="what a run would do and take; writes nothing, needs no GPU")
    plan.add_argument("input", metavar="INPUT")
    plan.add_argument("--output", type=Path, help="where the run would publish; its state is looked up beside it")
    _add_reading(plan)
    _add_writing(plan)
    _add_price(plan)
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


def _add_runs(commands: Any) -> None:
    runs = commands.add_parser("runs", help="the runs of a state folder, a line each, the newest last")
    runs.add_argument("--state", type=Path, help="the state folder; .enrich when not given")
    runs.set_defaults(command=_runs)


def _add_diff(commands: Any) -> None:
    diff = commands.add_parser("diff", help="which texts are new, changed and gone between two published files")
    diff.add_argument("one", metavar="A", type=Path, help="Parquet, the earlier one")
    diff.add_argument("other", metavar="B", type=Path, help="Parquet, the later one")
    diff.add_argument("--id", required=True, metavar="COLUMN", help="column that names a product in both")
    diff.add_argument("--description", metavar="COLUMN", help="column of the description")
    diff.set_defaults(command=_diff)


def _add_held(commands: Any) -> None:
    held = commands.add_parser("held", help="list the held rows of OUTPUT, worst first, for a person to decide about")
    held.add_argument("output", metavar="OUTPUT", type=Path)
    held.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON lines, one a product")
    _add_reading(held)
    _add_writing(held)
    held.set_defaults(command=_held)


def _add_review(commands: Any) -> None:
    review = commands.add_parser("review", help="take what a person decided about held rows into the memory")
    review.add_argument("file", metavar="FILE", type=Path, help="as `enrich held` wrote it, decisions filled in")
    review.add_argument("--state", type=Path, help="the state folder; .enrich beside FILE when not given")
    review.set_defaults(command=_review)


def _add_rollback(commands: Any) -> None:
    rollback = commands.add_parser("rollback", help="withdraw the texts of a run and publish without them")
    rollback.add_argument("run", metavar="RUN", help="its name, as `enrich runs` lists it")
    rollback.add_argument("--state", type=Path, help="the state folder; .enrich when not given")
    rollback.set_defaults(command=_rollback)


def _add_describe(commands: Any) -> None:
    describe = commands.add_parser("describe", help="type a title and see its description written")
    describe.add_argument("typed", metavar="TITLE", nargs="?", help="this one only; name=value pairs may follow in it")
    describe.add_argument("--compare", action="store_true", help="the base's text beside the adapter's")
    describe.add_argument("--json", action="store_true", help="one object a title, as when titles are piped in")
    _add_model(describe)
    describe.set_defaults(command=_describe)


def _add_memory(commands: Any) -> None:
    memory = commands.add_parser("memory", help="look at, check, save, shrink or restore the memory of texts")
    actions = memory.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)
    stats = actions.add_parser("stats", help="how many texts, by how they ended, and how large")
    export = actions.add_parser("export", help="write a consistent copy to a file")
    export.add_argument("file", metavar="FILE", type=Path)
    check = actions.add_parser("check", help="prove that every page, text, verdict and decision is what was written")
    for action, command in ((stats, _memory_stats), (export, _memory_export), (check, _memory_check)):
        action.add_argument("--state", type=Path, help="the state folder; .enrich when not given")
        action.set_defaults(command=command)
    prune = actions.add_parser("prune", help="drop the texts that today's model and settings cannot use")
    _add_writing(prune)
    prune.set_defaults(command=_memory_prune)
    rebuild = actions.add_parser("rebuild", help="remember again what published files hold, when the memory is lost")
    rebuild.add_argument("outputs", metavar="OUTPUT", type=Path, nargs="+")
    _add_reading(rebuild)
    _add_writing(rebuild)
    rebuild.set_defaults(command=_memory_rebuild)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title", help="column of the title")
    parser.add_argument("--description", help="column of the description")
    parser.add_argument("--attributes", help="columns that feed the text, separated by commas; a.b reaches into a")
    parser.add_argument("--id", help="column that names a product")
    parser.add_argument("--records", metavar="PATH", help="where the records are in one JSON object: products.items")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as in samples/enrich.toml")


def _add_writing(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("--state", type=Path, help="the state folder; .enrich beside the output when not given")


def _add_price(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu-hour-price", type=float, metavar="PRICE", help="what an hour of this machine costs")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=("auto", "grid", "padded", "echo"))
    parser.add_argument("--slots", type=int, metavar="N", help="sequences of the grid at a time")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="length limit of a description")
    parser.add_argument("--base", metavar="NAME|PATH", help="smollm2-135m, tinyllama, or a model folder")
    parser.add_argument("--adapter", metavar="PATH|none")
    if not any(action.dest == "config" for action in parser._actions):
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as in samples/enrich.toml")


def _gpus(said: str) -> str | int:
    return said if said == "all" else int(said)


def _settings(options: argparse.Namespace) -> "Settings":
    from enrich.flags import settings_of

    return settings_of(options)


def _run(options: argparse.Namespace) -> int:
    from enrich.night import run
    from enrich.report.summary import lines

    report = run(options.input, options.output, _settings(options), retry=options.retry)
    for summary in report.summaries:
        if summary.error is None:
            say(*lines(summary))
    return report.status


def _plan(options: argparse.Namespace) -> int:
    from enrich.forecast import forecast

    say(*forecast(options.input, options.output, _settings(options)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from enrich.night import verify

    for source in verify(options.input, options.output, _settings(options)):
        say(f"{source.output}: is {source.shown} with its gaps filled")
    return 0


def _status(options: argparse.Namespace) -> int:
    from enrich.report.standing import standing

    say(*standing(options.output, options.state))
    return 0


def _runs(options: argparse.Namespace) -> int:
    from enrich.report.history import history
    from enrich.state import State

    say(*history(State(_state_of(options.state))))
    return 0


def _diff(options: argparse.Namespace) -> int:
    from enrich.difference import difference, lines

    say(*lines(difference(options.one, options.other, options.id, options.description)))
    return 0


def _held(options: argparse.Namespace) -> int:
    from enrich.held import write_held

    say(f"{options.out}: {write_held(options.output, options.out, _settings(options)):,} held products")
    return 0


def _review(options: argparse.Namespace) -> int:
    from enrich.review import decide, review
    from enrich.state import State

    if sys.stdin.isatty() and sys.stdout.isatty():
        decide(options.file, input, say)
    found = review(options.file, State(options.state or options.file.resolve().parent / ".enrich"))
    say(
        f"{found.approved:,} approved, {found.edited:,} edited, {found.discarded:,} discarded, "
        f"{found.undecided:,} undecided; run again to publish them"
    )
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from enrich.report.summary import lines
    from enrich.rollback import rollback
    from enrich.state import State

    found = rollback(options.run, State(_state_of(options.state)))
    say(f"{found.withdrawn:,} texts withdrawn")
    for summary in found.report.summaries:
        say(*lines(summary))
    return found.report.status


def _describe(options: argparse.Namespace) -> int:
    from enrich.describe import describe

    describe(options.typed, _settings(options), compare=options.compare, as_json=options.json)
    return 0


def _memory_stats(options: argparse.Namespace) -> int:
    from enrich.memory import Memory

    with Memory.open(_memory_of(options.state), read_only=True) as memory:
        stats = memory.stats()
    ended = ", ".join(f"{count:,} {how}" for how, count in stats.ended.items()) or "none"
    say(
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
    from enrich.authors import Authors
    from enrich.memory import Memory
    from enrich.state import State

    settings = _settings(options)
    recipes = [author.recipe.digest for author in Authors.choose(settings).distinct]
    with (
        State(_state_of(settings.machine.state)).locked(),
        Memory.open(_memory_of(settings.machine.state)) as memory,
    ):
        say(f"{memory.prune(recipes):,} texts dropped")
    return 0


def _memory_check(options: argparse.Namespace) -> int:
    from enrich.memory import Memory

    with Memory.open(_memory_of(options.state), read_only=True) as memory:
        memory.check()
        stats = memory.stats()
    say(f"whole: {stats.texts:,} texts, {stats.verdicts:,} verdicts, {stats.reviews:,} reviews, {stats.runs:,} runs")
    return 0


def _memory_rebuild(options: argparse.Namespace) -> int:
    from enrich.rebuild import rebuild

    rebuilt = rebuild(options.outputs, _settings(options))
    say(f"{rebuilt.texts:,} texts and {rebuilt.approved:,} approved ones remembered again; run again to see them used")
    return 0


def _state_of(state: Path | None) -> Path:
    return state or Path(".enrich")


def _memory_of(state: Path | None) -> Path:
    from enrich.state import State

    return State(_state_of(state)).memory
