"""Flags → a step of the training → an exit status.

Nothing heavy is imported before a command is chosen, so that `--help` answers at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich import __version__
from enrich.console import Parser, run_command, say

if TYPE_CHECKING:
    from enrich.settings import Settings
    from train.prepare_settings import PrepareSettings
    from train.settings import Preset


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; an expected error is one line on standard error."""
    return run_command(build_parser(), arguments)


def build_parser() -> Parser:
    """Every command and flag there is."""
    parser = Parser(prog="enrich-train", description="Trains an adapter on the products that have a description.")
    parser.add_argument("--version", action="version", version=f"enrich {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    _add_prepare(commands)
    _add_finetune(commands)
    _add_evaluate(commands)
    _add_promote(commands)
    _add_all(commands)
    return parser


def _add_prepare(commands: Any) -> None:
    prepare = commands.add_parser("prepare", help="clean, filter and split the described rows of catalogues")
    prepare.add_argument("catalogues", metavar="CATALOG", nargs="+", help="whatever `enrich run` reads")
    prepare.add_argument("--out", metavar="DIR", type=Path, required=True)
    _add_preparing(prepare)
    _add_model(prepare)
    prepare.set_defaults(command=_prepare)


def _add_finetune(commands: Any) -> None:
    finetune = commands.add_parser("finetune", help="train an adapter; run again after a kill, it goes on")
    _add_data(finetune)
    finetune.add_argument("--out", metavar="DIR", type=Path, required=True, help="the adapter folder to make")
    _add_training(finetune)
    _add_model(finetune)
    finetune.set_defaults(command=_finetune)


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", help="measure an adapter against the base and the adapter in force")
    _add_data(evaluate)
    evaluate.add_argument("measured", metavar="ADAPTER", type=Path)
    evaluate.add_argument("--out", metavar="DIR", type=Path, help="for evaluate.json and .html; ADAPTER if not given")
    evaluate.add_argument("--split", choices=("test", "validation"), default="test")
    _add_evaluating(evaluate)
    _add_model(evaluate)
    evaluate.set_defaults(command=_evaluate)


def _add_promote(commands: Any) -> None:
    promote = commands.add_parser("promote", help="put an adapter in force if its evaluation says that it is better")
    promote.add_argument("promoted", metavar="ADAPTER", type=Path)
    promote.add_argument("--force", action="store_true", help="even if it does not; the registry says so")
    promote.set_defaults(command=_promote)


def _add_all(commands: Any) -> None:
    everything = commands.add_parser("all", help="prepare, finetune, evaluate and promote")
    everything.add_argument("catalogues", metavar="CATALOG", nargs="+", help="whatever `enrich run` reads")
    everything.add_argument("--out", metavar="DIR", type=Path, help="adapter folder; adapters/PRESET-DATA if not given")
    _add_preparing(everything)
    _add_training(everything)
    _add_evaluating(everything)
    _add_model(everything)
    everything.set_defaults(command=_all)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="the folder that `prepare` made")


def _add_preparing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title", help="column of the title")
    parser.add_argument("--description", help="column of the description")
    parser.add_argument("--attributes", help="columns that feed the text, separated by commas; a.b reaches into a")
    parser.add_argument("--records", metavar="PATH", help="where the records are in one JSON object: products.items")
    parser.add_argument("--language", choices=("en", "pt"), help="keep only descriptions in this language")
    parser.add_argument("--license", help="licence of the texts, for the model card")
    parser.add_argument("--seed", type=int, help="of the split")
    parser.add_argument("--keep-near-duplicates", dest="near_duplicates", action="store_false", default=None)


def _add_training(parser: argparse.ArgumentParser) -> None:
    from train.settings import AUTO, PRESETS

    parser.add_argument("--preset", choices=(AUTO, *PRESETS), default=AUTO, help="auto goes by the card")
    parser.add_argument("--rank", type=int, help="of the adapter; the preset's if not given")
    parser.add_argument("--epochs", type=float, help="at most; the preset's if not given")
    parser.add_argument("--learning-rate", type=float, help="at its peak; the preset's if not given")


def _add_evaluating(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-rows", type=int, help="held-out rows to measure, at most")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", metavar="NAME|PATH", help="smollm2-135m, tinyllama, or a model folder")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as in samples/enrich.toml")


def _settings(options: argparse.Namespace) -> "Settings":
    from enrich.flags import settings_of

    return settings_of(options)


def _prepare_settings(options: argparse.Namespace) -> "PrepareSettings":
    from train.prepare_settings import PrepareSettings

    names = PrepareSettings.model_fields
    return PrepareSettings(
        **{name: value for name, value in vars(options).items() if name in names and value is not None}
    )


def _preset(options: argparse.Namespace) -> "Preset":
    from train.finetune import free_cuda_bytes
    from train.settings import choose_preset

    preset = choose_preset(options.preset, free_cuda_bytes())
    return preset.overridden(rank=options.rank, epochs=options.epochs, learning_rate=options.learning_rate)


def _prepare(options: argparse.Namespace) -> int:
    from enrich.signals import stop_on_signals
    from train.prepare import prepare

    settings, choices = _settings(options), _prepare_settings(options)
    with stop_on_signals() as should_stop:
        say(*prepare(options.catalogues, options.out, settings, choices, should_stop).lines())
    return 0


def _finetune(options: argparse.Namespace) -> int:
    from enrich.signals import stop_on_signals
    from train.finetune import finetune

    with stop_on_signals() as should_stop:
        say(*finetune(options.data, options.out, _settings(options), _preset(options), should_stop).lines())
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from enrich.engine.adapter import adapter_in_force
    from enrich.settings import home
    from enrich.signals import stop_on_signals
    from train.evaluate import evaluate

    with stop_on_signals() as should_stop:
        evaluation = evaluate(
            options.data,
            options.measured,
            _settings(options),
            options.out or options.measured,
            split=options.split,
            max_rows=options.max_rows,
            against=adapter_in_force(home()),
            should_stop=should_stop,
        )
    say(*evaluation.lines())
    return 0


def _promote(options: argparse.Namespace) -> int:
    from enrich.settings import home
    from train.registry import promote

    say(*promote(options.promoted, home(), force=options.force))
    return 0


def _all(options: argparse.Namespace) -> int:
    from enrich.signals import stop_on_signals
    from train.whole import train

    settings, choices, preset = _settings(options), _prepare_settings(options), _preset(options)
    with stop_on_signals() as should_stop:
        for line in train(options.catalogues, options.out, settings, choices, preset, options.max_rows, should_stop):
            say(line)
    return 0
