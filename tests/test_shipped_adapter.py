"""The adapter that a fresh clone writes with: it belongs to the embedded model, and its texts end and vary."""

from pathlib import Path

import pytest

from enrich.author import Author
from enrich.engine.adapter import SHIPPED, read_adapter
from enrich.engine.bases import EMBEDDED, embedded_digest
from enrich.night import run
from enrich.prompt import Template
from enrich.settings import DEFAULT_TEMPLATE, Settings, home, load_settings

from .runs import ROOT, column, texts_in, write_catalogue

TITLES = (
    "Vintage Leather Backpack",
    "Ceramic Coffee Mug 350 ml",
    "Wireless Noise-Cancelling Headphones",
    "Oak Dining Table",
    "Cadeira de Jardim Dobrável Verde",
    "Garden Hose 10 m",
    "Stainless Steel Pan 28 cm",
    "Luminária de Mesa Branca",
)


def test_it_belongs_to_the_embedded_model_and_the_default_template() -> None:
    adapter = read_adapter(ROOT / SHIPPED)
    assert adapter.base_name == EMBEDDED
    assert adapter.base_digest == embedded_digest()
    assert adapter.template_id == Template.parse(DEFAULT_TEMPLATE).id
    size = sum(file.stat().st_size for file in (ROOT / SHIPPED).iterdir())
    assert size <= 12 << 20


def test_its_card_names_data_and_licence() -> None:
    card = (ROOT / SHIPPED / "README.md").read_text(encoding="utf-8")
    for name in ("aws-samples/retail-demo-store", "dotnet/eShopSupport", "dotnet/eShop", "MIT-0"):
        assert name in card


@pytest.mark.model
def test_a_fresh_clone_writes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (home() / "models" / EMBEDDED).is_dir():
        pytest.skip("the embedded model is not there: make model")
    (tmp_path / "home" / SHIPPED.parent).mkdir(parents=True)
    (tmp_path / "home" / SHIPPED).symlink_to(ROOT / SHIPPED)
    (tmp_path / "home" / "models").symlink_to(home() / "models")
    monkeypatch.setenv("ENRICH_HOME", str(tmp_path / "home"))
    assert Author.choose(Settings()).adapter is not None
    catalogue = write_catalogue(tmp_path / "c.parquet", [{"title": title} for title in TITLES])
    report = run(catalogue, settings=load_settings(None, {"machine": {"device": "cpu"}, "quality": {"retries": 0}}))
    statuses = report.summaries[0].statuses
    assert statuses.keys() == {"generated", "held"}
    assert sum(statuses.values()) == len(TITLES)
    # Those that are held too, by the words of its titles.
    texts = [text.strip() for _, text, _ in texts_in(tmp_path / ".enrich").values()]
    assert len(texts) == len(TITLES)
    flags = column(tmp_path / "c.enriched.parquet", "enrich_flags")
    assert sum("cut_off" in each for each in flags) <= 1
    assert len({text.split()[0] for text in texts}) > 2
    assert all(text not in TITLES and len(text) > 40 for text in texts)
