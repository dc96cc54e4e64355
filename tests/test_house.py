"""`make check`: README, Makefile, settings and imports against the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enrich.cli import build_parser
from train.cli import build_parser as train_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

BOTTOM = {
    "errors",
    "products",
    "settings",
    "durable",
    "state",
    "signals",
    "flags",
    "crew",
    "scratch",
    "memory_file",
    "garbage",
}
CRAFTS = {"text", "prompt", "recipe", "memory", "catalog", "quality", "engine"}
TOP = {
    "console", "verdicts", "plan", "fates", "author", "authors", "writer", "describe", "night", "forecast", "report",
    "held", "review", "rollback", "limits", "priority", "difference", "generate", "rebuild",
    "chunks", "worker", "cluster",
}  # fmt: skip
# Of some rooms, all that they may import.
ONLY = {
    "crew": {"errors"},
    "quality": {"settings", "products"},
    "verdicts": {"memory", "products", "quality", "recipe"},
    "plan": {"catalog", "memory", "products", "recipe", "text", "verdicts"},
    "writer": {"author", "crew", "engine", "errors", "memory", "plan", "products", "prompt", "quality", "verdicts"},
    "chunks": {"plan"},
}
# Of the engine, what may be asked before a model is needed.
WITHOUT_TORCH = {"protocol", "bases", "adapter", "fetch"}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "trl", "datasets"}

# What training may ask of the tool: how a product becomes a prompt, everything below that, and to show how far it is.
SHARED = BOTTOM | {"text", "prompt", "catalog", "quality", "engine", "plan", "report"}
TRAIN_BOTTOM = {"settings", "prepare_settings", "pairs", "split", "page"}
TRAIN_CRAFTS = {"preparing", "training", "measuring"}
TRAIN_STEPS = {"prepare", "finetune", "evaluate", "registry"}


def modules(package: str = "enrich") -> Iterator[tuple[Path, str]]:
    for file in sorted((ROOT / package).rglob("*.py")):
        place = file.relative_to(ROOT / package)
        yield file, place.parts[0].removesuffix(".py")


def imports(file: Path, *, at_import: bool = False) -> set[str]:
    """Dotted names that a file imports; with `at_import` only those outside functions and type checks."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(tree.body if at_import else ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def rooms(names: set[str], package: str = "enrich") -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")} - {"__version__"}


def wrong_arrows(room: str, names: set[str]) -> set[str]:
    allowed = BOTTOM | {room}
    if room in TOP | {"cli", "__init__", "__main__"}:
        allowed = BOTTOM | CRAFTS | TOP | {room}
    if room in {"cli", "__main__"}:
        allowed |= {"cli"}
    return rooms(names) - (ONLY[room] | {room} if room in ONLY else allowed)


def test_imports_point_one_way() -> None:
    wrong = {str(file): arrows for file, room in modules() if (arrows := wrong_arrows(room, imports(file)))}
    assert not wrong
    assert {room for _, room in modules()} <= BOTTOM | CRAFTS | TOP | {"cli", "__init__", "__main__"}


def test_a_wrong_arrow_would_be_seen() -> None:
    assert wrong_arrows("catalog", {"enrich.memory.Memory"}) == {"memory"}
    assert wrong_arrows("errors", {"enrich.night.run"}) == {"night"}
    assert wrong_arrows("night", {"enrich.cli.main"}) == {"cli"}
    assert wrong_arrows("quality", {"enrich.prompt.Template", "enrich.products.Product"}) == {"prompt"}
    assert wrong_arrows("verdicts", {"enrich.plan.Wanted", "enrich.memory.Memory"}) == {"plan"}
    assert wrong_arrows("writer", {"enrich.night.run", "enrich.verdicts.best"}) == {"night"}


def wrong_arrows_of_training(room: str, names: set[str]) -> set[str]:
    allowed = TRAIN_BOTTOM | {room}
    if room in TRAIN_STEPS | {"whole", "cli", "__main__"}:
        allowed |= TRAIN_CRAFTS
    if room in {"whole", "cli", "__main__"}:
        allowed |= TRAIN_STEPS | {"whole", "cli"}
    outside = SHARED | ({"console"} if room == "cli" else set())
    return (rooms(names, "train") - allowed) | (rooms(names) - outside)


def test_imports_of_training_point_one_way() -> None:
    wrong = {
        str(file): arrows
        for file, room in modules("train")
        if (arrows := wrong_arrows_of_training(room, imports(file)))
    }
    assert not wrong
    assert wrong_arrows_of_training("measuring", {"train.preparing.filters"}) == {"preparing"}
    assert wrong_arrows_of_training("finetune", {"enrich.night.run"}) == {"night"}
    assert wrong_arrows_of_training("pairs", {"train.prepare.prepare"}) == {"prepare"}


def test_of_training_only_what_runs_models_imports_torch() -> None:
    running = {"finetune.py", "evaluate.py", "callbacks.py", "lora.py", "loss.py", "packed.py", "trainer.py"}
    wrong = [
        file
        for file, _ in modules("train")
        if file.name not in running and {name.split(".")[0] for name in imports(file, at_import=True)} & HEAVY
    ]
    assert not wrong


def test_only_the_engine_imports_torch_and_nobody_imports_train() -> None:
    for file, room in modules():
        names = imports(file, at_import=True)
        assert not any(name.split(".")[0] == "train" for name in imports(file)), file
        if room == "engine" and file.stem not in WITHOUT_TORCH and file.stem != "__init__":
            continue
        assert not {name.split(".")[0] for name in names} & HEAVY, file


def test_the_tree_in_readme_is_the_tree_on_disk() -> None:
    block = README.split("## The house", 1)[1].split("```")[1]
    told = {line.split()[0] for line in block.strip().splitlines()}
    assert all(len(line.split(maxsplit=1)) == 2 for line in block.strip().splitlines())
    real = {"samples/", "jobs/", "tests/"} & {f"{path.name}/" for path in ROOT.iterdir()}
    for package in (ROOT / "enrich", ROOT / "train"):
        real |= {
            f"{file.relative_to(ROOT)}"
            for file in package.rglob("*.py")
            if file.name != "__init__.py" or file.stat().st_size
        }
        real |= {f"{file.parent.relative_to(ROOT)}/" for file in package.rglob("__init__.py")}
    real |= {"enrich/quality/lexicons/", "enrich/report/templates/", "train/templates/"}
    assert told == real


def test_the_make_targets_in_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    told = set(re.findall(r"\bmake ([a-z-]+)", README)) - {"a"}
    assert told <= targets
    assert {"help", "enrich", "test", "check", "bench", "model"} <= targets


@pytest.mark.parametrize(("program", "parser"), [("enrich", build_parser()), ("enrich-train", train_parser())])
def test_the_commands_in_readme_are_those_of_the_program(program: str, parser: Any) -> None:
    commands = set(next(iter(parser._subparsers._group_actions)).choices)
    told = set(re.findall(rf"^\| `{program} ([a-z]+)", README, re.MULTILINE))
    assert told == commands


def test_the_exit_statuses_in_readme_are_those_of_the_errors() -> None:
    from enrich import errors

    told = {int(status) for status in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {
        error.status for error in vars(errors).values() if isinstance(error, type) and issubclass(error, Exception)
    }
    assert told == raised - {70} | {errors.PUBLISHED, errors.PUBLISHED_WITH_PENDING}


def test_every_flag_in_readme_exists() -> None:
    actions = (*_all_actions(build_parser()), *_all_actions(train_parser()))
    known = {option for action in actions for option in action.option_strings}
    assert set(re.findall(r"--[a-z][a-z-]+", README)) <= known


def _all_actions(parser: Any) -> Iterator[Any]:
    for action in parser._actions:
        yield action
        for sub in getattr(action, "choices", None) or {}:
            if hasattr(action.choices, "values") and hasattr(action.choices[sub], "_actions"):
                yield from _all_actions(action.choices[sub])


@pytest.mark.usefixtures("own_log")
def test_the_commands_of_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from enrich.cli import main

    (tmp_path / "samples").mkdir()
    for name in ("catalog.parquet", "catalog.jsonl"):
        (tmp_path / "samples" / name).write_bytes((ROOT / "samples" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\.venv/bin/enrich (.*)$", README, re.MULTILINE)
    assert len(lines) == 8
    for line in lines:
        assert main(line.split()) == 0, line
    assert "generated" in capsys.readouterr().out


def test_the_python_of_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = README.split("```python", 1)[1].split("```", 1)[0]
    (tmp_path / "samples").mkdir()
    for name in ("catalog.parquet", "enrich.toml"):
        (tmp_path / "samples" / name).write_bytes((ROOT / "samples" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102
    assert names["report"].status == 0  # type: ignore[attr-defined]
