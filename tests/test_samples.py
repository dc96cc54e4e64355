"""The sample catalogue keeps its promises: rebuilt from its sources, varied, odd as shops are, truthful."""

import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
PLACEHOLDERS = {"n/a", "-", "sem descrição"}
BRANDS = set(
    """
Algodoim, Amaveia, Assentua, Autobrelho, Barkwhimsy, Batucarim, Brewmantle, Brincanhoto,
Brindlemoor, Caldaruna, Cedrobel, Cordilume, Costurela, Crankleby, Cribwhistle, Fernwhittle,
Ferrungo, Focinholi, Fornalume, Gristleby & Daughter, Grãozé, Hearthwimple, Lanternmoss, Lençorana,
Limpurema, Livros do Jenipapo, Loftwren Press, Lustrandi, Malhuri, Miadengo, Nenelume, Ninharé,
Oakumbly, Papirunga, Passandiro, Pedalthorpe, Peledália, Pennymarrow, Pipolim, Plugaré,
Quillbramble, Rabiscolé, Regatinga, Sabiduca, Stitchumble, Strumbledown, Suarela, Suddlewick,
Tackwhistle, Torquimar, Tumblegrove, Verdejunco, Violandra, Voltirim, Voltquibble, Zimbrela
""".strip()
    .replace("\n", " ")
    .split(", ")
)
REAL_BRANDS = re.compile(
    r"\b(tramontina|bosch|makita|philips|samsung|apple|iphone|galaxy|xiaomi|motorola|sony|jbl|nike|adidas|puma|"
    r"havaianas|natura|boticário|avon|nivea|dove|lego|barbie|mattel|estrela|faber|castell|bic|moleskine|stanley|"
    r"black\+decker|brastemp|consul|electrolux|mondial|arno|britânia|oster|tupperware|nespresso|pilão|melitta|"
    r"ypê|omo|bombril|giannini|yamaha|fender|ikea|tok&stok|hering|renner|pedigree|whiskas|pirelli|michelin)\b",
    re.IGNORECASE,
)
NUMBER_WORDS = re.compile(
    r"\b(dois|duas|três|quatro|cinco|seis|sete|oito|nove|dez|dúzia|par de|"
    r"two|three|four|five|six|seven|eight|nine|ten|dozen|pair of)\b",
    re.IGNORECASE,
)

Row = dict[str, Any]


def _build(folder: Path) -> Path:
    subprocess.run([sys.executable, SAMPLES / "build.py", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    table: list[Row] = pq.read_table(SAMPLES / "catalog.parquet", page_checksum_verification=True).to_pylist()
    return table


@pytest.fixture(scope="module")
def described(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not _is_missing(row["description"])]


def _is_missing(text: str | None) -> bool:
    return text is None or not text.strip() or text.strip().casefold() in PLACEHOLDERS


def _titles(rows: list[Row]) -> list[str]:
    return [row["title"] for row in rows if row["title"] is not None]


# Files


def test_the_committed_files_are_what_the_script_builds(tmp_path: Path) -> None:
    _build(tmp_path)
    assert (tmp_path / "catalog.jsonl").read_bytes() == (SAMPLES / "catalog.jsonl").read_bytes()
    built, committed = (pq.ParquetFile(folder / "catalog.parquet") for folder in (tmp_path, SAMPLES))
    assert built.read().equals(committed.read(), check_metadata=True)
    # Another version of the writer may write other bytes for the same rows.
    if built.metadata.created_by == committed.metadata.created_by:
        assert (tmp_path / "catalog.parquet").read_bytes() == (SAMPLES / "catalog.parquet").read_bytes()


def test_building_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        _build(folder)
    for name in ("catalog.parquet", "catalog.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_both_files_hold_the_same_rows_in_the_same_order(rows: list[Row]) -> None:
    lines = (SAMPLES / "catalog.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [orjson.loads(line) for line in lines] == rows


def test_the_files_are_small() -> None:
    assert (SAMPLES / "catalog.parquet").stat().st_size < 200_000
    assert (SAMPLES / "catalog.jsonl").stat().st_size < 400_000


def test_the_parquet_has_several_row_groups_in_zstd() -> None:
    metadata = pq.ParquetFile(SAMPLES / "catalog.parquet").metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    assert len(groups) >= 3
    assert {group.column(number).compression for group in groups for number in range(group.num_columns)} == {"ZSTD"}


def test_a_damaged_page_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    original = (SAMPLES / "catalog.parquet").read_bytes()
    column = pq.ParquetFile(SAMPLES / "catalog.parquet").metadata.row_group(0).column(2)
    damaged = bytearray(original)
    damaged[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(tmp_path / "damaged.parquet", page_checksum_verification=True)


# What is in them


def test_the_columns_are_those_of_a_shop(rows: list[Row]) -> None:
    assert list(rows[0]) == [
        "id",
        "title",
        "description",
        "brand",
        "category",
        "price",
        "attributes",
        "tags",
        "in_stock",
        "language",
    ]
    assert any(row["attributes"] and row["attributes"]["dimensions"] for row in rows)
    for nullable in ("price", "attributes", "tags"):
        assert any(row[nullable] is None for row in rows)
    assert {row["in_stock"] for row in rows} == {True, False}


def test_it_is_as_large_and_as_varied_as_promised(rows: list[Row]) -> None:
    assert len(rows) >= 400
    assert len({(row["brand"], row["category"]) for row in rows}) >= 60
    assert len({row["category"].split(" > ")[0] for row in rows}) >= 18
    languages = Counter(row["language"] for row in rows)
    assert languages["pt"] >= 200
    assert languages["en"] >= 100


def test_ids_are_unique_texts_with_leading_zeros(rows: list[Row]) -> None:
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"0\d{4}", id_) for id_ in ids)


def test_two_of_five_miss_their_description_in_every_way_shops_write_it(rows: list[Row]) -> None:
    missing = [row["description"] for row in rows if _is_missing(row["description"])]
    assert 0.36 <= len(missing) / len(rows) <= 0.46
    assert {None, "", "   ", "N/A", "n/a", "-", "sem descrição", " Sem Descrição "} == set(missing)
    assert sum(text is not None and bool(text.strip()) for text in missing) >= 20


def test_some_products_are_listed_twice(rows: list[Row]) -> None:
    listings = defaultdict(list)
    for row in rows:
        if row["title"] is not None:
            listings[row["title"], orjson.dumps(row["attributes"])].append(_is_missing(row["description"]))
    repeated = [missing for missing in listings.values() if len(missing) > 1]
    assert len(repeated) >= 10
    assert sum(all(missing) for missing in repeated) >= 2, "a text that two rows wait for"
    assert sum(any(missing) and not all(missing) for missing in repeated) >= 2, "one copy has a text"
    assert sum(not any(missing) for missing in repeated) >= 2, "both have one"


@pytest.mark.parametrize(
    "odd",
    [
        "</s>",
        "[/INST]",
        "<|im_end|>",
        "<b>",
        "&amp;",
        "&lt;script&gt;",
        "\n",
        "\u200b",
        "🐶",
        "Ã­",
        "   ",
        '"',
    ],
)
def test_an_odd_title_waits_for(odd: str, rows: list[Row]) -> None:
    assert any(odd in title for title in _titles(rows))


def test_titles_go_to_extremes(rows: list[Row]) -> None:
    titles = _titles(rows)
    assert sum(len(title) > 2_000 for title in titles) == 1
    assert min(map(len, titles)) <= 4
    assert any(unicodedata.normalize("NFC", title) != title for title in titles)
    assert any(unicodedata.bidirectional(title[0]) == "R" for title in titles)


def test_some_rows_have_no_usable_title(rows: list[Row]) -> None:
    untitled = [_is_missing(row["description"]) for row in rows if row["title"] is None]
    assert sorted(untitled) == [False, True]
    only_emoji = [row for row in rows if row["title"] and not re.search(r"\w", row["title"])]
    assert [_is_missing(row["description"]) for row in only_emoji] == [True]


def test_descriptions_are_odd_too(described: list[Row]) -> None:
    texts = [row["description"] for row in described]
    for odd in ("<p>", "<br>", "<script>", "&aacute;", "&amp;", "🐕", "Ã£", "\u0303"):
        assert any(odd in text for text in texts), odd


# Whether the texts are true


def _numbers(text: str) -> set[str]:
    return {number.replace(",", ".") for number in re.findall(r"\d+(?:[.,]\d+)*", text)}


def _facts(row: Row) -> str:
    attributes = row["attributes"] or {}
    dimensions = attributes.get("dimensions") or {}
    values = [row["title"], row["brand"], row["category"], *attributes.values()]
    sides = [f"{side:g}" for side in dimensions.values() if side is not None]
    return " ".join([*(str(value) for value in values if isinstance(value, str | int)), *sides])


def _unfounded(description: str, row: Row) -> set[str]:
    """The numbers, in digits or words, that a description has and its row has not."""
    facts = _facts(row)
    words = {word.lower() for word in NUMBER_WORDS.findall(description)}
    return (_numbers(description) - _numbers(facts)) | {word for word in words if word not in facts.lower()}


def test_descriptions_use_only_numbers_of_their_own_row(described: list[Row]) -> None:
    wrong = {row["id"]: _unfounded(row["description"], row) for row in described}
    assert {id_: numbers for id_, numbers in wrong.items() if numbers} == {}


def test_a_number_from_elsewhere_would_be_seen(described: list[Row]) -> None:
    numbered = [row for row in described if _numbers(row["description"])]
    assert len(numbered) >= 100
    swapped = zip(numbered, numbered[1:] + numbered[:1], strict=True)
    seen = sum(bool(_unfounded(other["description"], row)) for row, other in swapped)
    assert seen >= 0.8 * len(numbered)
    assert _unfounded("Conjunto de sete peças", described[0]) == {"sete"}


def _words(text: str) -> set[str]:
    plain = unicodedata.normalize("NFC", re.sub(r"<[^>]*>", " ", text)).casefold()
    return {word for word in re.findall(r"\w+", plain) if len(word) >= 4}


def test_each_description_speaks_of_its_own_product(described: list[Row]) -> None:
    titled = [row for row in described if row["title"] is not None]
    assert [row["title"] for row in titled if not _words(row["description"]) & _words(row["title"])] == []
    swapped = zip(titled, titled[1:] + titled[:1], strict=True)
    strangers = sum(not _words(other["description"]) & _words(row["title"]) for row, other in swapped)
    assert strangers >= 0.8 * len(titled)


def test_descriptions_are_one_to_three_whole_sentences(described: list[Row]) -> None:
    for row in described:
        plain = re.sub(r"<script>.*?</script>|<[^>]*>", " ", row["description"]).strip()
        assert len(plain) >= 40, row["id"]
        assert re.match(r"[\W_]*[A-ZÀ-Ý\d]", plain), row["id"]
        assert "  " not in row["description"], row["id"]
        assert len(re.findall(r"[.!?](?=\s|$)", plain)) <= 3, row["id"]
        if row["description"][-1] != ">":
            assert plain.endswith("."), row["id"]


def test_descriptions_do_not_all_begin_alike(described: list[Row]) -> None:
    openings = Counter(" ".join(row["description"].split()[:3]) for row in described)
    _, commonest = openings.most_common(1)[0]
    assert commonest <= 0.03 * len(described)
    assert len(openings) >= 0.5 * len(described)


def test_english_articles_agree(described: list[Row]) -> None:
    for row in described:
        if row["language"] == "en":
            assert not re.search(r"\b[Aa] [aeio]\w|\b(\w+) \1\b", row["description"]), row["description"]


def test_brands_are_invented(rows: list[Row]) -> None:
    assert {row["brand"] for row in rows} == BRANDS
    for row in rows:
        text = " ".join([row["title"] or "", row["description"] or "", *(row["tags"] or [])])
        assert not REAL_BRANDS.search(text), row["id"]
