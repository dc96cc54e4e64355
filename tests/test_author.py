"""Whose adapter writes when none is named: the promoted one, the shipped one where it fits, or nobody's."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from enrich.author import Author
from enrich.engine.adapter import SHIPPED, adapter_in_force
from enrich.engine.bases import EMBEDDED, find_base
from enrich.errors import ModelUnavailable, SettingsError
from enrich.settings import DEFAULT_TEMPLATE, load_settings

from .engine.conftest import build_adapter, build_tiny, record_training


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a tiny model in the place of the embedded one, and an adapter for it in the shipped place."""
    home = tmp_path_factory.mktemp("checkout")
    base = build_tiny(home / "models" / EMBEDDED)
    shipped = build_adapter(home / SHIPPED, base)
    record_training(shipped, find_base(EMBEDDED, home), DEFAULT_TEMPLATE)
    return home


@pytest.fixture
def home(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that a test may spoil."""
    home = tmp_path / "home"
    shutil.copytree(checkout, home)
    monkeypatch.setenv("ENRICH_HOME", str(home))
    return home


def promote(home: Path, *, template: str = DEFAULT_TEMPLATE) -> Path:
    made = build_adapter(home / "adapters" / "made", home / "models" / EMBEDDED, r=2)
    record_training(made, find_base(EMBEDDED, home), template)
    current = home / "adapters" / "current"
    current.symlink_to("made")
    return current


def chosen(**sections: Any) -> Path | None:
    """The folder of the adapter that a run with these settings would use."""
    adapter = Author.choose(load_settings(None, sections)).adapter
    return adapter.folder if adapter else None


def test_the_adapter_in_force_is_the_promoted_else_the_shipped_one(home: Path) -> None:
    assert adapter_in_force(home) == home / SHIPPED
    assert adapter_in_force(home / "elsewhere") is None
    current = promote(home)
    assert adapter_in_force(home) == current


def test_the_shipped_adapter_writes_until_one_is_promoted(home: Path) -> None:
    assert chosen() == home / SHIPPED
    assert chosen(model={"base": EMBEDDED}) == home / SHIPPED
    assert chosen(text={"template": DEFAULT_TEMPLATE, "max_new_tokens": 20}) == home / SHIPPED
    current = promote(home)
    assert chosen() == current
    shutil.rmtree(home / SHIPPED)
    assert chosen() == current
    current.unlink()
    assert chosen() is None


def test_the_base_is_compared_by_what_it_holds(home: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(home / "models" / EMBEDDED, tmp_path / "twin")
    assert chosen(model={"base": str(twin)}) == home / SHIPPED


@pytest.mark.parametrize("setting", ["base", "template"])
def test_the_shipped_adapter_gives_way_and_says_so(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    sections: dict[str, Any] = {"text": {"template": "<s>Describe {title}:"}}
    if setting == "base":
        sections = {"model": {"base": str(build_tiny(tmp_path / "other", seed=1))}}
    with caplog.at_level(logging.INFO, "enrich"):
        assert chosen() == home / SHIPPED
        assert caplog.messages == []
        assert chosen(**sections) is None
    assert [message.split(":")[0] for message in caplog.messages] == [str(home / SHIPPED)]
    # Chosen by name it is refused instead, as every adapter is.
    with pytest.raises(SettingsError, match="trained"):
        chosen(**{**sections, "model": {**sections.get("model", {}), "adapter": str(home / SHIPPED)}})


def test_a_promoted_adapter_never_gives_way(home: Path) -> None:
    promote(home, template="<s>Describe {title}:")
    assert chosen(text={"template": "<s>Describe {title}:"}) == home / "adapters" / "current"
    with pytest.raises(SettingsError, match="trained with template"):
        chosen()


def test_a_promoted_adapter_that_is_gone_is_not_replaced_in_silence(home: Path) -> None:
    current = promote(home)
    shutil.rmtree(home / "adapters" / "made")
    with pytest.raises(ModelUnavailable, match=f"{current}: no such adapter folder"):
        chosen()


def test_none_is_the_bare_base_and_echo_has_no_adapter(home: Path) -> None:
    assert chosen(model={"adapter": "none"}) is None
    assert chosen(machine={"engine": "echo"}) is None
    shutil.rmtree(home / "models")
    assert chosen(machine={"engine": "echo"}) is None
