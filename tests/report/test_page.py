"""The report says what the summary says, in both languages, and nothing in a catalogue can make it do anything else."""

import base64
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from string import Formatter
from typing import Any, get_args
from xml.etree.ElementTree import Element

import pytest

from enrich import errors
from enrich.quality.score import DEDUCTIONS
from enrich.report.page import page
from enrich.report.shown import marked, plain, visible
from enrich.report.tally import intervals, length_bins
from enrich.report.words import LOCALES, TEMPLATES, Locale, Voice, words_of
from enrich.settings import Code

from .nights import Summary, catalogue, failed, night_before, summary, text
from .reading import found, read, rows, said, shape

NIGHT = catalogue()


@pytest.fixture(scope="module")
def night() -> Element:
    return read(page(summary(NIGHT), night_before()))


def figures(root: Element) -> dict[str, list[str]]:
    """By name: the number, and what is said below it."""
    (told,) = found(root, "dl", "figures")
    return {said(each[0]): [said(line) for line in each[1:]] for each in told}


def table_after(root: Element, title: str) -> list[list[str]]:
    """The table behind the chart of this title."""
    (figure,) = (each for each in found(root, "figure") if said(found(each, "b")[0]) == title)
    return rows(found(figure, "table")[0])


def small(**told: Any) -> Summary:
    """A catalogue without charts, which take most of a page's time."""
    return catalogue(5000, num_worst=1, num_random=0) | {"timeline": [], "scores": [], "lengths": []} | told


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_headline_figures_are_those_of_the_summary(night: Element) -> None:
    before = night_before()["catalogues"][0]
    fates, rate = NIGHT["statuses"], NIGHT["written"] / NIGHT["generating_seconds"]
    told = figures(night)
    assert told["New texts"][:2] == [f"{NIGHT['written']:,}", "+30,000 against last night"]
    assert told["Published texts"][0] == f"{fates['generated'] + fates['approved']:,}"
    assert told["Published texts"][2] == f"of {NIGHT['rows']:,} rows"
    assert told["Wait for a person"] == [f"{fates['held']:,}", f"−{13_900 - fates['held']:,} against last night"]
    assert told["Not reached"] == [f"{fates['pending']:,}", f"+{fates['pending']:,} against last night"]
    assert told["Cannot be described"] == [f"{fates['rejected']:,}", "±0 against last night", "12 records left no row"]
    assert told["Texts a second"][0] == f"{rate:.1f}"
    assert told["Texts a second"][1].startswith(f"+{rate - before['written'] / before['generating_seconds']:.2f}")
    assert told["Time"] == ["1 h 30 min", "−11 min 40 s against last night"]
    cost = f"{1.8 / NIGHT['written'] * 1000:.4f} per 1,000 new texts"
    assert told["Cost"] == ["1.80", "−0.23 against last night", cost]


def test_another_summary_says_other_figures() -> None:
    one = figures(read(page(summary(small()), None)))
    other = figures(read(page(summary(small(written=1), cost=2.5), None)))
    assert {name for name in one if one[name] != other[name]} == {"New texts", "Texts a second", "Cost"}


def test_without_a_night_before_nothing_is_compared() -> None:
    root = read(page(summary(small()), None))
    assert not found(root, kind="change")
    assert "Differences" not in said(root)
    assert found(read(page(summary(small()), summary(small()))), kind="change")


def test_a_night_before_with_other_catalogues_is_told() -> None:
    same, other = (said(read(page(summary(small()), summary(small(input=name))))) for name in (small()["input"], "x"))
    assert "The catalogues were others then." not in same
    assert "The catalogues were others then." in other


def test_every_fate_is_told_with_its_share(night: Element) -> None:
    (table,) = (each for each in found(night, "table") if said(found(each, "th")[0]) == "Row")
    told = {row[0].split()[0].lower(): row[1:] for row in rows(table)}
    assert list(told) == list(NIGHT["statuses"])
    for fate, count in NIGHT["statuses"].items():
        assert told[fate][0].split()[0].startswith(f"{count:,}"), fate
    assert told["kept"] == ["1,827,242+1,204 against last night", "91.4%"]
    assert told["approved"][1] == "<0.1%"


def test_the_reasons_of_rejected_rows_are_told(night: Element) -> None:
    told = [said(each) for each in found(night, "li")]
    assert f"no_title {NIGHT['rejected']['no_title']:,} there is no title" in told


def test_the_funnel_narrows_from_records_to_published_texts(night: Element) -> None:
    fates = NIGHT["statuses"]
    missing = NIGHT["rows"] - fates["kept"]
    texts = fates["generated"] + fates["approved"] + fates["held"]
    told = table_after(night, "From records to texts")
    assert [row[1] for row in told] == [
        f"{n:,}" for n in (NIGHT["records"], NIGHT["rows"], missing, texts, texts - fates["held"])
    ]
    assert told[3][2] == f"{100 * texts / missing:.1f}%"
    drawn = said(found(night, "svg", "chart")[0])
    assert all(row[0] in drawn and row[1] in drawn for row in told)


def test_the_rates_over_time_add_up_to_all_texts(night: Element) -> None:
    end, texts, tokens = NIGHT["timeline"][-1]
    for what, total in (("Texts a second", texts), ("Tokens a second", tokens)):
        told = table_after(night, what)
        assert 2 <= len(told) <= 13
        mean = f"{total / end:,.1f}" if total / end < 100 else f"{total / end:,.0f}"
        (chart,) = (
            each for each in found(night, "svg", "chart") if f"{what}, {mean} on average" in each.get("aria-label", "")
        )
        assert chart.get("role") == "img"
    kept = intervals(NIGHT["timeline"], 12)
    assert sum(each.texts * (each.end - each.start) for each in kept) == pytest.approx(texts)
    assert sum(each.tokens * (each.end - each.start) for each in kept) == pytest.approx(tokens)


def test_a_time_line_that_stands_still_or_goes_back_is_survived() -> None:
    assert intervals([], 10) == intervals([[0, 0, 0]], 10) == intervals([[3, 1, 1], [3, 2, 2]], 10) == []
    assert [each.texts for each in intervals([[0, 5, 5], [1, 2, 2], [2, 4, 4]], 10)] == [0, 2]


def test_the_histograms_hold_every_text(night: Element) -> None:
    scores = table_after(night, "Scores")
    assert [row[1] for row in scores] == [f"{count:,}" for count in NIGHT["scores"]]
    assert (scores[0][0], scores[-1][0]) == ("0–9", "100")
    lengths = {row[0]: row[1] for row in table_after(night, "Lengths")}
    assert lengths == {f"{start}–{start + 49}": f"{count:,}" for start, count in [[0, 0], *NIGHT["lengths"]]}


def test_bins_are_merged_when_there_are_too_many() -> None:
    bins = length_bins([[0, 1], [50, 2], [100_000, 4]], 40)
    assert sum(bins.counts) == 7
    assert len(bins.counts) <= 40
    assert bins.counts[0] == 3
    assert bins.counts[100_000 // bins.width] == 4
    assert length_bins([[0, 1], [50, 2], [150, 1]], 40).counts == [1, 2, 0, 1]
    assert length_bins([[0, 1], [50, 2], [150, 1]], 40).median_below == 100


def test_the_flags_come_commonest_first_with_what_they_mean(night: Element) -> None:
    (table,) = (each for each in found(night, "table") if said(found(each, "th")[0]) == "Code")
    told = [(row[0].split()[0], row[1], row[2]) for row in rows(table)]
    texts = sum(NIGHT["scores"])
    ordered = sorted(NIGHT["flags"].items(), key=lambda each: -each[1])
    assert [each[:2] for each in told] == [(code, f"{count:,}") for code, count in ordered]
    assert told[0][2] == f"{100 * ordered[0][1] / texts:.1f}%"
    assert "a number or model code that the row does not have" in said(table)


def test_rare_flags_are_told_in_one_line() -> None:
    told = said(read(page(summary(small(flags={f"code_{n}": 100 - n for n in range(30)})), None)))
    assert "18 rarer codes: code_12 88, code_13 87" in told


def test_likeness_provenance_and_facts_are_told(night: Element) -> None:
    told = said(night)
    assert "Of 50,000 texts that were compared, 1.6% are nearly another's, and 6.2% begin with “Made of”." in told
    assert "Began at 04:00 UTC" in told
    assert "The deadline ended the writing" in told
    (provenance,) = found(night, "div", "provenance")
    for value in ("tinyllama", "department", "adapters/moda", "max_new_tokens", "160", "true", "20261126T040000Z"):
        assert value in said(provenance)
    assert "NVIDIA" not in said(provenance)


# --- several catalogues, and what failed ------------------------------------------------------------------------------


def test_catalogues_that_failed_come_first_and_are_counted_in_the_sums() -> None:
    good, bad = small(), small(input="bad.parquet", error="disk full", status=74)
    root = read(page(summary(good, failed(), bad), None))
    (box,) = found(root, "section", "failed")
    assert said(found(box, "h2")[0]) == "2 catalogues failed"
    assert "line 3,120: not JSON; mend the line" in said(box)
    assert "disk full" in said(box)
    headings = [said(each) for each in found(root, "h2")]
    assert headings == [
        "2 catalogues failed",
        "At a glance",
        "Catalogues",
        "bad.parquet",
        good["input"],
        "Where it comes from",
    ]
    assert figures(root)["New texts"][0] == f"{good['written'] + bad['written']:,}"
    (table,) = (each for each in found(root, "table") if said(found(each, "th")[0]) == "Catalogue")
    counts = (2 * 5000, 2 * good["written"], 2 * good["statuses"]["held"])
    assert rows(table, "tfoot") == [["Together", *(f"{count:,}" for count in counts)]]


def test_an_error_of_the_run_itself_is_told_once() -> None:
    told = read(page(summary(error="no CUDA card", status=69, catalogues=[]), None))
    box = said(found(told, "section", "failed")[0])
    for words in ("The run ended early", "Not published: model or card not available.", "no CUDA card"):
        assert words in box
    both = said(found(read(page(summary(failed(), error=failed()["error"]), None)), "section", "failed")[0])
    assert both.count("not JSON") == 1


def test_of_many_catalogues_those_with_most_new_texts_have_a_section() -> None:
    many = [small(input=f"{n}.parquet", written=n) for n in range(300)]
    root = read(page(summary(*many), None))
    assert [said(found(each, "h2")[0]) for each in found(root, "section", "catalogue")] == [
        f"{n}.parquet" for n in range(288, 300)
    ]
    assert "288 catalogues with fewer new texts are only in this table." in said(root)
    assert "100 more are counted in the sum and not listed." in said(root)
    assert figures(root)["New texts"][0] == f"{sum(range(300)):,}"


# --- the texts --------------------------------------------------------------------------------------------------------


def test_every_text_is_shown_with_its_row_and_its_marks(night: Element) -> None:
    cards = found(night, "li", "card")
    assert len(cards) == 70
    for card, shown in zip(cards, [*NIGHT["worst"], *NIGHT["random"]], strict=True):
        assert said(found(card, "h5")[0]) == shown["title"]
        assert f"Row {shown['row']:,} {shown['id']}" in said(card)
        assert f"Score {shown['score']}" in said(card)
        assert said(found(card, "p", "words")[0]) == shown["text"]
        marks = [(said(each), each.get("title")) for each in found(card, "mark")]
        assert marks == [(shown["text"][each["start"] : each["end"]], each["kind"]) for each in shown["unsupported"]]
        assert [said(each) for each in found(card, "code")] == shown["flags"]
        pairs = [[said(part) for part in pair] for pair in found(card, "dl")[0]]
        assert pairs == shown["attributes"]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], "0123456789"),
        ([("number", 2, 4)], '01<mark title="number">23</mark>456789'),
        ([("number", 2, 5), ("brand", 4, 6)],
            '01<mark title="number">23</mark><mark title="number, brand">4</mark><mark title="brand">5</mark>6789'),
        ([("number", 8, 99), ("brand", -3, 1)], '<mark title="brand">0</mark>1234567<mark title="number">89</mark>'),
        ([("number", 5, 5), ("number", 7, 3)], "0123456789"),
        ([('"><b', 0, 1)], '<mark title="&#34;&gt;&lt;b">0</mark>123456789'),
    ],
)  # fmt: skip
def test_spans_are_marked_where_they_are(spans: list[tuple[str, int, int]], expected: str) -> None:
    told = [{"kind": kind, "start": start, "end": end} for kind, start, end in spans]
    assert marked("0123456789", told, {}) == expected


def test_marks_count_characters_not_bytes() -> None:
    assert marked("🫖 é 34 oz", [{"kind": "number", "start": 4, "end": 9}], {"number": "número"}) == (
        '🫖 é <mark title="número">34 oz</mark>'
    )


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    root = read(page(summary(small(worst=[{"row": 1, "text": "x" * 5000}])), None))
    (words,) = found(root, "p", "words")
    assert said(words) == "x" * 2000 + " [3,000 more characters]"


# --- absent keys, languages -------------------------------------------------------------------------------------------


def test_every_key_may_be_absent() -> None:
    whole = summary(small())
    for key in whole:
        assert page({name: value for name, value in whole.items() if name != key}, whole), key
        assert page(whole, {name: value for name, value in whole.items() if name != key}), key
    for key in whole["catalogues"][0]:
        less = summary({name: value for name, value in small().items() if name != key})
        assert page(less, whole), key
        assert page(whole, less), key
    for key in set(text(1, random.Random())) - {"row"}:
        shown = {name: value for name, value in text(1, random.Random(1)).items() if name != key}
        assert page(summary(small(worst=[shown])), None), key
    assert page({}, {})


@pytest.mark.parametrize("locale", LOCALES)
def test_a_page_of_zeros_has_no_chart_and_no_error(locale: Locale) -> None:
    empty: Summary = {
        "input": "x",
        "rows": 1,
        "scores": [0] * 11,
        "lengths": [],
        "timeline": [[0.0, 0, 0]],
        "flags": {},
        "statuses": {},
        "worst": [],
    }
    root = read(page({"catalogues": [empty], "seconds": 0.0, "cost": 0.0, "gpu_hour_price": 1.0}, None, locale))
    assert len(found(root, "svg", "chart")) == 1


def test_both_languages_say_everything() -> None:
    english, portuguese = words_of("en"), words_of("pt")
    meanings = {f"codes.{code}" for code in DEDUCTIONS}
    assert set(portuguese) - set(english) == meanings == {f"codes.{code}" for code in get_args(Code)}
    assert set(english) <= set(portuguese)
    for key, words in english.items():
        assert names(words) - {None} == names(portuguese[key]) - {None}, key
    statuses = {
        each.status for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.EnrichError)
    }
    assert {f"outcome.{status}" for status in statuses - {70} | {0, 6}} <= set(english)


def names(words: str) -> set[str | None]:
    """The places in a sentence that values go into."""
    return {name for _, name, *_ in Formatter().parse(words)}


def is_used(key: str, code: str) -> bool:
    group, _, last = key.rpartition(".")
    if last in ("zero", "one", "other"):
        return is_used(group, code)
    return any(said in code for said in (f'"{key}"', f'"{group}.{{', f'"{group}."'))


def test_every_word_is_used() -> None:
    files = [*TEMPLATES.parent.glob("*.py"), *TEMPLATES.glob("*.j2")]
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [key for key in words_of("en") if not is_used(key, code)] == []
    assert not is_used("lead.none", code.replace("lead.", ""))


def test_the_page_speaks_portuguese() -> None:
    root = read(page(summary(NIGHT), night_before(), "pt"))
    told = said(root)
    assert root.get("lang") == "pt-BR"
    assert "26 de novembro de 2026" in told
    assert figures(root)["Textos novos"][0] == f"{NIGHT['written']:,}".replace(",", ".")
    assert figures(root)["Textos por segundo"][0].count(",") == 1
    assert "um número ou código de modelo que a linha não tem" in told
    assert 'title="número"' in page(summary(NIGHT), None, "pt")
    (main,) = found(root, "main")
    for card in found(main, "ol", "cards") + found(main, "div", "provenance"):
        card.clear()
    assert not re.search(r"\b(the|row|rows|score|texts|against|and|what|was|were)\b", said(main), re.IGNORECASE)


@pytest.mark.parametrize(
    ("value", "decimals", "english", "portuguese"),
    [(1234.5, 1, "1,234.5", "1.234,5"), (0, 0, "0", "0"), (-1234567, 0, "−1,234,567", "−1.234.567"),
        (0.25, 2, "0.25", "0,25")],
)  # fmt: skip
def test_numbers_are_written_as_the_language_does(value: float, decimals: int, english: str, portuguese: str) -> None:
    assert Voice("en").number(value, decimals) == english
    assert Voice("pt").number(value, decimals) == portuguese


def test_shares_spans_and_amounts_never_round_to_nothing() -> None:
    voice = Voice("en")
    assert [voice.share(n, 1_000_000) for n in (0, 1, 999_999, 1_000_000, 123_456)] == [
        "0.0%",
        "<0.1%",
        ">99.9%",
        "100.0%",
        "12.3%",
    ]
    assert voice.share(1, 0) == "0.0%"
    assert [voice.span(n).replace("\xa0", " ") for n in (0, 0.022, 5.25, 59.96, 125, 3599.6, 5400, 90_000)] == [
        "0.0 s", "0.02 s", "5.2 s", "1 min 0 s", "2 min 5 s", "1 h 0 min", "1 h 30 min", "25 h 0 min",
    ]  # fmt: skip
    assert [voice.money(n) for n in (0, 0.0123, 1.8)] == ["0.00", "0.0123", "1.80"]


# --- what a catalogue may say -----------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)" x="',
    "<!-- --><![CDATA[ ]]> ]]>",
    "<iframe src=javascript:alert(1)>",
    "&lt;script&gt; &amp; &#60;b&#62;",
    "{{7*7}} {% raw %} {# x #} ${7*7} {n} {0} %s %(n)s",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f next \x85",
    "\u202ereversed\u202c \u2066isolated\u2069 \u200b\ufeff mark",
    "العربية עברית 日本語",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 é Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A",
    "lone \ud800 surrogate",
    "W" * 1500,
    "a\nb\tc\rd\r\ne",
    "url(https://example.org/x) @import 'x'; </bdi></p></li></ol>",
    "",
]


def saying(words: str) -> Summary:
    """A summary in which everything that a catalogue or its operator names is these words."""
    shown = {
        "row": 1, "id": words, "title": words, "attributes": [[words, words]], "text": words, "status": words,
        "score": 10, "flags": [words], "unsupported": [{"kind": words, "start": 0, "end": len(words)}],
    }  # fmt: skip
    told = small(
        input=words, output=words, error=words, rejected={words: 1}, flags={words: 2}, worst=[shown], random=[shown],
        likeness={"texts": 3, "near_duplicates": 0, "opening": words, "with_opening": 1},
    )  # fmt: skip
    told["statuses"] = told["statuses"] | {words: 1}
    return summary(told, failed(words), run=words, device=words, stopped_by=words, enrich=words, base={words: [words]})


@pytest.mark.parametrize("words", [each for each in HOSTILE if each])
def test_hostile_words_are_words_and_nothing_else(words: str) -> None:
    harmless = shape(read(page(saying("x"), saying("x"))))
    told = page(saying(words), saying(words))
    root = read(told)
    assert shape(root) == harmless
    (title, _) = found(root, "h5")
    cut = words if len(words) <= 300 else words[:299] + "…"
    assert "".join(title.itertext()) == re.sub("\r", "U+000D", shown_as(cut))
    told.encode()


def shown_as(words: str) -> str:
    return "".join(f"U+{ord(each):04X}" if str(visible(each)).startswith("<i>") else each for each in words)


def test_the_comparison_of_shapes_would_see_a_tag() -> None:
    told = page(saying("x"), None)
    assert shape(read(told)) != shape(read(told.replace("<bdi>x</bdi>", "<bdi><b>x</b></bdi>", 1)))
    assert shape(read(told)) != shape(read(told.replace("<article>", '<article onclick="x">', 1)))


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x85", "\r", "\u202e", "\u2066", "\u200b", "\ufeff", "\ud800"])
def test_invisible_characters_are_seen(character: str) -> None:
    name = f"U+{ord(character):04X}"
    assert visible(f"a{character}b") == f"a<i>{name}</i>b"
    assert plain(f"a{character}b") == f"a⟨{name}⟩b"
    assert visible("a\tb\nc é 👩‍👧") == "a\tb\nc é 👩‍👧"


def test_the_naughty_strings_are_words_and_nothing_else(corpora: Path) -> None:
    file = corpora / "blns" / "blns.json"
    if not file.is_file():
        pytest.skip("no naughty strings beside the repository")
    strings = [each for each in json.loads(file.read_text(encoding="utf-8")) if each.strip()]
    assert len(strings) > 400

    def shown(words: list[str]) -> list[Summary]:
        return [
            text(1, random.Random(1), title=each, text=each, attributes=[[each, each]], unsupported=[])
            for each in words
        ]

    for start in range(0, len(strings), 50):
        words = strings[start : start + 50]
        root = read(page(summary(small(worst=shown(words))), None))
        assert shape(root) == shape(read(page(summary(small(worst=shown(["x"] * len(words)))), None)))
        titles = ["".join(each.itertext()) for each in found(root, "h5")]
        assert titles == [shown_as(each if len(each) <= 300 else each[:299] + "…") for each in words]


# --- the page itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", LOCALES)
def test_nothing_but_the_page_s_own_style_and_script_may_run(locale: Locale) -> None:
    told = page(summary(NIGHT), night_before(), locale)
    root = read(told)
    (policy,) = (each.get("content", "") for each in found(root, "meta") if each.get("http-equiv"))
    hashes = {}
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", told, re.DOTALL)
        hashes[tag] = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    for each in root.iter():
        assert not {name for name in each.attrib if name.startswith("on")} | set(each.attrib) & {
            "style",
            "src",
            "href",
        }, each.tag
    assert "url(" not in told
    assert "@import" not in told
    assert "//" not in re.sub(r"s3://|// [A-Z]", "", told)


def test_headings_are_in_order_and_ids_unique(night: Element) -> None:
    levels = [int(each.tag[1]) for each in night.iter() if re.fullmatch("h[1-6]", each.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [each.get("id") for each in night.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    for table in found(night, "table"):
        assert all(each.get("scope") in ("col", "row") for each in found(table, "th"))
    for chart in found(night, "svg", "chart"):
        assert chart.get("role") == "img"
        assert len(chart.get("aria-label", "")) > 30


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_have_contrast_in_light_and_dark() -> None:
    """WCAG 2.2, 1.4.3 for words and 1.4.11 for bars; the charts' words are none of those that axe looks at."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(themes) == 2
    for theme in themes:
        for front, back in [(one, two) for one in ("ink", "mute", "accent") for two in ("paper", "sheet")] + [
            ("accent", "tint")
        ]:
            light, dark = sorted((luminance(theme[front]), luminance(theme[back])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back)
        light, dark = sorted((luminance(theme["accent"]), luminance(theme["soft"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3


def in_another_process(code: str, seed: str = "0") -> bytes:
    """What Python code prints; `seed` decides the order of its sets."""
    environment = os.environ | {"PYTHONHASHSEED": seed}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout


def test_the_same_summary_makes_the_same_bytes() -> None:
    code = (
        "import sys; from tests.report.nights import night_before, summary; from enrich.report.page import page;"
        "sys.stdout.buffer.write(page(summary(), night_before()).encode())"
    )
    pages = [in_another_process(code, seed) for seed in ("1", "2")]
    assert pages[0] == pages[1] == page(summary(), night_before()).encode()


def test_charts_are_loaded_when_they_are_drawn_and_never_with_a_window() -> None:
    in_another_process(
        "import sys, enrich.report.page as p; from tests.report.nights import summary;"
        "assert 'matplotlib' not in sys.modules; p.page(summary(), None);"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )


def test_two_million_rows_make_a_small_page_soon() -> None:
    long = {
        "text": "A sentence about this thing, and what it is made of. " * 30,
        "attributes": [["name", "value " * 20]] * 16,
    }
    seed = random.Random(1)
    night = catalogue(
        worst=[text(n, seed, **long) for n in range(50)], random=[text(n, seed, **long) for n in range(20)]
    )
    began = time.monotonic()
    told = page(summary(night), night_before())
    assert time.monotonic() - began < 10
    assert len(told.encode()) < 1_000_000
    assert len(found(read(told), "li", "card")) == 70


def test_however_much_there_is_the_page_stays_small() -> None:
    vast = [
        text(n, random.Random(1), text="&\x00" * 5000, title="<" * 5000, attributes=[["\x00" * 500] * 2] * 99)
        for n in range(70)
    ]
    many = [
        catalogue(n + 5000, 0, 0, worst=vast[:50], random=vast[50:], input="&" * 5000 + str(n), error="<" * 5000)
        for n in range(100)
    ]
    began = time.monotonic()
    told = page(summary(*many, base={f"{n}" * 500: ["<" * 5000] * 99 for n in range(99)}), summary(*many))
    assert time.monotonic() - began < 60
    assert len(told.encode()) < 1_000_000
    assert "are shown, to keep this page small." in told
