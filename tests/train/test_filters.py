"""What each filter drops, and the like that it must leave alone; boilerplate counting; token counting."""

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers

from enrich.products import Product
from enrich.prompt import ByteTokenizer, ModelTokenizer, PromptWriter, Template
from enrich.settings import DEFAULT_TEMPLATE, home
from enrich.text import clean
from train.preparing.boilerplate import SeenTexts, Sketch, cut, hashes, sentences
from train.preparing.byte_level import is_byte_level
from train.preparing.filters import fault, folded, markup_soup, title_repeated
from train.preparing.lengths import Lengths

PROSE = "A sturdy canvas backpack with two side pockets, padded straps and room for a 15 inch laptop."


@pytest.mark.parametrize(
    ("title", "description"),
    [
        ("Learning QuickBooks 2007", "learning quickbooks 2007"),
        ("Pirate Costume - Large", "Pirate Costume - Large. Large 10-12."),
        ("Xbox 52M Live 12 month Card", "Xbox Live 12-Month Card!!!"),
        ("Camisa Pólo Azul", "CAMISA PÓLO AZUL | camisa pólo"),
    ],
)
def test_a_title_said_again_is_no_description(title: str, description: str) -> None:
    assert title_repeated(title, description)


@pytest.mark.parametrize(
    ("title", "description"),
    [
        ("Canvas Backpack", "Canvas backpack with padded straps"),
        ("Pirate Costume", "Pirate costume; pirate costume. " * 6),
        ("Mug", "Holds 300 ml, dishwasher safe"),
    ],
)
def test_a_text_that_says_more_than_its_title_stays(title: str, description: str) -> None:
    assert title_repeated(title, description) is None


@pytest.mark.parametrize(
    "text",
    [
        "25 x 31 / 0.92 x 0.45 x 0.94, 23.34 x 11.43 x 23.88; 11.06 g",
        ".box { color: red; margin: 0 } .title { font: 12px } Nice mug for tea",
        "Buy at https://example.com/a/b/c?utm_source=feed&utm_medium=cpc today",
        '{"material": "wool", "care": "hand wash"} soft scarf',
        "function show(id) { document.getElementById(id); } A warm scarf for cold days",
        "<custom-box data-x='1'>Warm</custom-box> <custom-box data-x='2'>scarf</custom-box>",
        "★★★★★ 100% ★★★★★ $$$ !!! >>> 24/7",
    ],
)
def test_soup_is_dropped(text: str) -> None:
    assert markup_soup(text)


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "Sizes < 40 and > 36; see the chart (in cm) for [fit] & care: wash at 30°.",
        "สินค้าลิขสิทธิ์แท้ หน้าปัดดำ สายหนังสีดำ แสดงเวลาและวันที่",
        "Aquecedor 220V/1500W com 3 níveis, 2 kg, 30 x 20 x 12 cm, garantia de 1 ano e alça para transporte.",
        f"{PROSE} More about it at www.example.com.",
    ],
)
def test_prose_is_no_soup(text: str) -> None:
    assert markup_soup(text) is None


@settings(max_examples=40, deadline=500)
@given(st.text(alphabet="<>{}[];:.,/\"'&aw ()=#-", max_size=2000))
def test_soup_is_recognised_in_little_time(text: str) -> None:
    markup_soup(text * 10)


def test_the_first_fault_is_told() -> None:
    product = Product("Canvas Backpack")
    assert fault(product, "Backpack", 20) == ("too_short", "8 characters")
    assert fault(product, "Canvas backpack", 5) == ("title_repeated", "nothing beyond the title")
    assert fault(product, PROSE, 20) is None


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=60))
def test_ascii_texts_are_folded_as_others_are(text: str) -> None:
    assert folded(text) == " ".join(re.findall(r"[^\W_]+", text.casefold()))


def test_folding_leaves_the_words() -> None:
    assert folded("Água-de-COCO,  200 ml!") == folded("água de coco 200 ML") == "água de coco 200 ml"


@given(st.text())
def test_sentences_joined_are_the_text(text: str) -> None:
    assert " ".join(sentences(clean(text))) == clean(text)


@given(st.text(alphabet="a1.!?…|-–• ", max_size=60))
def test_ascii_texts_are_cut_where_others_are(text: str) -> None:
    with_é = sentences(clean(f"{text} é"))
    assert sentences(clean(f"{text} e")) == [part.replace("é", "e") for part in with_é]


def test_shared_sentences_are_cut() -> None:
    text = "Warm wool scarf. Free shipping on all orders. Hand wash only!"
    parts = sentences(text)
    assert parts == ["Warm wool scarf.", "Free shipping on all orders.", "Hand wash only!"]
    assert cut(parts, [False, True, False]) == "Warm wool scarf. Hand wash only!"


def test_the_sketch_counts_texts() -> None:
    sketch = Sketch()
    common, rare = hashes(["Free shipping on all orders.", "Knitted in the Serra da Estrela."])
    for _ in range(30):
        sketch.add(np.array([common, 0], np.uint64))
    sketch.add(np.array([rare, rare], np.uint64))
    assert sketch.counts(np.array([common, rare, 0, 12345], np.uint64)).tolist() == [30, 2, 0, 0]


def test_short_sentences_are_not_counted_and_case_is_no_difference() -> None:
    assert hashes(["No. 5", "Free shipping on all orders"])[0] == 0
    assert hashes(["FREE shipping on all orders"]) == hashes(["Free shipping on all orders"])


def test_a_text_is_new_once() -> None:
    seen = SeenTexts()
    first = seen.add(np.arange(1, 2000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    again = seen.add(np.array([0x9E3779B97F4A7C15, 7, 7], np.uint64))
    assert first.all()
    assert again.tolist() == [False, True, False]
    assert seen.num_texts == 2000


def llama_like() -> ModelTokenizer:
    """Sentencepiece-style, with byte fallback, and an end token that its merges can spell."""
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "<s>", "</s>", *letters, "▁", *"abcdefghijklmnopqrstuvwxyz<>/.", "</", "s>", "▁th", "▁the"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("t", "h"), ("▁", "th"), ("▁th", "e")]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "th"])}
    tokenizer = FastTokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Replace("▁", " ")
    return ModelTokenizer(tokenizer.to_str(), "<s>", "</s>")


def model_tokenizer() -> ModelTokenizer:
    folder = home() / "models" / "smollm2-135m"
    if not folder.is_dir():
        pytest.skip("needs the embedded model: make model")
    return ModelTokenizer.load(folder)


@pytest.fixture(scope="module", params=["bytes", "llama-like", "smollm2"])
def prompts(request: pytest.FixtureRequest) -> PromptWriter:
    made = {"bytes": ByteTokenizer, "llama-like": llama_like, "smollm2": model_tokenizer}[request.param]()
    return PromptWriter(Template.parse(DEFAULT_TEMPLATE), made, 1024)


@pytest.fixture(params=[False, True], ids=["words", "bytes and words"])
def by_bytes(request: pytest.FixtureRequest, prompts: PromptWriter) -> bool:
    if request.param and prompts.completion_ids("</s>") is None:
        pytest.skip("a text may hold a control token, so it is no byte-level tokenizer")
    return bool(request.param)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=60), max_size=4), st.integers(2, 40))
def test_the_words_of_a_text_tell_its_length(
    prompts: PromptWriter, by_bytes: bool, texts: list[str], max_tokens: int
) -> None:
    cleaned = [clean(text) for text in [*texts, "the thé </s> th", "a" * 90, "no 123 456,78 km/h…"]]
    lengths = Lengths(prompts, max_tokens, is_byte_level=by_bytes)
    for text, found in zip(cleaned, lengths.faults(cleaned), strict=True):
        ids = prompts.completion_ids(text)
        expected = "control_token" if ids is None else "over_long" if len(ids) > max_tokens else None
        assert (found and found[0]) == expected, text


def test_words_of_some_texts_are_learnt_and_all_texts_judged() -> None:
    texts = [f"the lamp {number} holds nine {'glowing ' * (number % 3)}bulbs" for number in range(2500)]
    prompts = PromptWriter(Template.parse(DEFAULT_TEMPLATE), ByteTokenizer(), 1024)
    found = Lengths(prompts, 35, is_byte_level=True).faults(texts)
    assert [each is not None for each in found] == [len(text) + 2 > 35 for text in texts]


def byte_level(**changes: Any) -> str:
    """A small byte-level tokenizer as JSON, with parts of it or of its model changed."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*alphabet, "</", "s>", "</s>", "<end>"])}
    tokenizer = FastTokenizer(models.BPE(vocabulary, [("<", "/"), ("s", ">")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["</s>", "<end>"])
    whole = json.loads(tokenizer.to_str())
    for name, value in changes.items():
        (whole["model"] if name in whole["model"] else whole)[name] = value
    return json.dumps(whole)


def test_a_byte_level_tokenizer_is_known() -> None:
    assert is_byte_level(byte_level(), frozenset())
    assert is_byte_level(byte_level(normalizer={"type": "NFC"}), frozenset())


@pytest.mark.parametrize(
    "changes",
    [
        {"merges": [["<", "/"], ["s", ">"], ["</", "s>"]]},
        {"merges": ["< /", "s >", "</ s>"]},
        {"ignore_merges": True},
        {"unk_token": "<end>"},
        {"type": "Unigram"},
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend"}]}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace"}, {"type": "ByteLevel"}]}},
    ],
)
def test_a_tokenizer_in_doubt_is_not_taken_for_byte_level(changes: dict[str, Any]) -> None:
    assert not is_byte_level(byte_level(**changes), frozenset())


def test_control_tokens_that_are_known_by_their_number_alone_count() -> None:
    number = json.loads(byte_level())["model"]["vocab"]["s>"]
    assert not is_byte_level(byte_level(), frozenset({number}))


def test_the_embedded_model_is_byte_level() -> None:
    tokenizer = model_tokenizer()
    content = (home() / "models" / "smollm2-135m" / "tokenizer.json").read_text(encoding="utf-8")
    assert is_byte_level(content, frozenset({tokenizer.bos_id or 0, tokenizer.eos_id}))


def test_a_text_far_too_long_is_not_tokenised() -> None:
    seen: list[str] = []

    class Watched(ByteTokenizer):
        def encode_texts(self, texts: object) -> list[list[int] | None]:
            seen.extend(texts)  # type: ignore[call-overload]
            return [[0] * 3 for _ in texts]  # type: ignore[attr-defined]

    lengths = Lengths(PromptWriter(Template.parse(DEFAULT_TEMPLATE), Watched(), 1024), 8)
    assert lengths.faults(["word " * 100_000]) == [("over_long", "500000 characters")]
    assert max(map(len, seen)) <= 8 * 32 + 1


def test_the_language_filter_tells_english_from_portuguese() -> None:
    from train.preparing.languages import Languages

    languages = Languages()
    assert languages.of(PROSE) == "en"
    assert languages.of("Aroma de maracujá que acalma e prolonga a sensação do banho.") == "pt"
    assert languages.of("Eine robuste Tasche aus Leinen mit zwei Fächern") == "de"
