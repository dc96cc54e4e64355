"""Settings: documented, checked all at once, and each on its own side of the keys."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import NoInput, SettingsError
from enrich.recipe import Recipe
from enrich.settings import Settings, TextSettings, load_settings

from .runs import ROOT

SAMPLE = ROOT / "samples" / "enrich.toml"
OTHER: dict[str, Any] = {
    "template": "<s>Describe {title}:",
    "max_prompt_tokens": 99,
    "max_new_tokens": 99,
    "repetition_penalty": 1.1,
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.9,
    "seed": 1,
    "dtype": "float16",
    "quantize": "4bit",
}


def test_the_sample_file_holds_the_defaults() -> None:
    assert load_settings(SAMPLE) == Settings()


def test_the_sample_file_documents_every_key_and_no_other() -> None:
    told: dict[str, set[str]] = {}
    for line in SAMPLE.read_text(encoding="utf-8").splitlines():
        if section := re.fullmatch(r"\[(\w+)\]", line):
            told[section[1]] = set()
        elif key := re.match(r"(?:# )?([a-z_]+) = ", line):
            told[list(told)[-1]].add(key[1])
    sections = {name: set(field.annotation.model_fields) for name, field in Settings.model_fields.items()}  # type: ignore[union-attr]
    assert told == sections


def test_what_is_commented_out_in_the_sample_is_valid() -> None:
    """The values shown for keys without a default are ones that the key takes."""
    lines = [re.sub(r"^# ([a-z_]+ = )", r"\1", line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    assert load_settings(None, tomllib.loads("\n".join(lines))).catalogue.title == "title"


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "enrich.toml"
    file.write_text('[text]\nmax_new_tokens = 0\ndtype = "int3"\n[machine]\nspeed = "high"\n[colour]\nred = 1\n')
    with pytest.raises(SettingsError) as error:
        load_settings(file)
    for problem in ("text.max_new_tokens", "text.dtype", "machine.speed", "colour"):
        assert problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"[text", b"\xff\xfe", b"text = 3"])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "enrich.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=re.escape(str(file))) as error:
        load_settings(file)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(NoInput, match="no such settings file"):
        load_settings("nowhere.toml")


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "enrich.toml"
    file.write_text('[catalogue]\ntitle = "a"\nid = "b"\n')
    catalogue = load_settings(file, {"catalogue": {"title": "c"}}).catalogue
    assert (catalogue.title, catalogue.id) == ("c", "b")


def test_each_text_setting_is_in_the_recipe() -> None:
    assert OTHER.keys() == TextSettings.model_fields.keys()
    digests = {Recipe("t", "b", None, TextSettings(**{name: value})).digest for name, value in OTHER.items()}
    assert len(digests | {Recipe("t", "b", None, TextSettings()).digest}) == len(OTHER) + 1
