"""`make train` on the embedded model, in twenty steps: the whole way from pairs to an adapter in use or not."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enrich.cli import main as enrich
from enrich.engine.adapter import CURRENT, read_adapter
from enrich.engine.bases import EMBEDDED
from enrich.settings import home
from tests.runs import ROOT, column, texts_in, write_catalogue
from train import settings
from train.cli import build_parser, main

pytestmark = pytest.mark.usefixtures("own_log")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh clone's models, and no adapter."""
    models = home() / "models"
    if not (models / EMBEDDED).is_dir():
        pytest.skip("the embedded model is not there: make model")
    own = tmp_path / "home"
    own.mkdir()
    (own / "models").symlink_to(models)
    monkeypatch.setenv("ENRICH_HOME", str(own))
    yield own
    logging.getLogger("enrich").handlers.clear()


@pytest.mark.model
@pytest.mark.timeout(600)
def test_twenty_steps_from_pairs_to_a_decision(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = replace(settings.PRESETS["smollm2-cpu"], sequence_tokens=96, sequences_per_step=1, batch_sequences=1)
    monkeypatch.setitem(settings.PRESETS, "smollm2-cpu", short)
    pairs = tmp_path / "pairs.jsonl"
    lines = (ROOT / "samples" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    pairs.write_text("\n".join(sorted(lines, key=len)[:36]), encoding="utf-8")
    config = tmp_path / "enrich.toml"
    config.write_text("[text]\nmax_new_tokens = 24\nmax_prompt_tokens = 64\n[machine]\ndevice = 'cpu'\nslots = 4\n")
    training = [str(pairs), "--preset", "smollm2-cpu", "--epochs", "1", "--config", str(config), "--max-rows", "4"]

    assert main(["all", *training]) == 0

    said = capsys.readouterr().out
    assert "not promoted" in said, "after twenty steps texts do not end by themselves yet"
    (adapter,) = (own_home / "adapters").glob("smollm2-cpu-*")
    record = json.loads((adapter / "training.json").read_text())
    assert 10 <= record["steps"] <= 40
    figures = {
        each["name"]: each["figures"] for each in json.loads((adapter / "evaluate.json").read_text())["contenders"]
    }
    assert figures["adapter"]["loss"] < figures["base"]["loss"]
    assert not (own_home / CURRENT).exists()

    # Again: nothing is trained twice. By force it is in force, and a run uses it.
    assert main(["all", *training]) == 0
    assert "was trained before" in capsys.readouterr().out
    assert main(["promote", str(adapter), "--force"]) == 0
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", [{"title": "Blue mug"}, {"title": "Red lamp"}])
    assert enrich(["run", str(catalogue), "--config", str(config), "--retries", "0"]) == 0
    # After twenty steps nobody would publish them.
    assert set(column(tmp_path / "catalogue.enriched.parquet", "enrich_status")) <= {"generated", "held"}
    assert all(text for _, text, _ in texts_in(tmp_path / ".enrich").values())
    summary = next((tmp_path / ".enrich" / "reports").glob("*/summary.json")).read_text()
    assert read_adapter(adapter).digest in summary


@pytest.mark.parametrize("command", [[], ["prepare"], ["finetune"], ["evaluate"], ["promote"], ["all"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        build_parser().parse_args([*command, "--help"])
    assert leaving.value.code == 0
    assert "usage: enrich-train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["finetune", "nowhere", "--out", "x", "--base", "nowhere"], 69, "no such model folder"),
        (["prepare", "nowhere.jsonl", "--out", "x", "--base", "smollm2-135m"], 66, "no such file"),
        (["prepare"], 64, "the following arguments are required"),
        (["finetune", "data", "--out", "x", "--preset", "huge"], 64, "invalid choice"),
        (["finetune", "data", "--out", "x", "--rank", "-1"], 64, "rank"),
        (["evaluate", "nowhere", "adapter", "--base", "smollm2-135m"], 66, "no prepared folder"),
        (["promote", "nowhere"], 69, "no such adapter folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str],
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("enrich-train: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
