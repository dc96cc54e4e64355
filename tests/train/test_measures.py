"""Figures are what they say, worked out by hand; a generator with a known fault is measured as having it."""

from dataclasses import replace

import pytest

from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.quality.rules import copies_title, repetition
from enrich.quality.words import words_of
from enrich.settings import QualitySettings
from train.measuring import measures
from train.measuring.measures import Figures, Written, chrf, distinct_openings, rouge_l

MUG = Product("Caneca térmica azul 500 ml", (("material", "aço inox"), ("weight_kg", "0.3")))
REFERENCE = "Uma caneca térmica azul de 500 ml que mantém o café quente."


def written(text: str, product: Product = MUG, reference: str = REFERENCE) -> Written:
    return Written(product, reference, text, "eos")


def measure(texts: list[Written], nats: float, num_tokens: int) -> Figures:
    return measures.measure(texts, nats, num_tokens, Judge(QualitySettings()))


# --- texts ----------------------------------------------------------------------------------------------------


def test_the_reference_itself_has_the_best_figures_there_are() -> None:
    figures = measure([written(REFERENCE), written("A faca corta pão.", reference="A faca corta pão.")], 6.0, 4)
    assert figures.loss == 1.5
    assert figures.loss_per_byte == 6 / len((REFERENCE + "A faca corta pão.").encode())
    assert figures.chrf == pytest.approx(100)
    assert (figures.rouge_l, figures.ended, figures.length_ratio, figures.distinct_openings) == (1, 1, 1, 1)
    assert (figures.title_copies, figures.repetition, figures.unsupported_numbers) == (0, 0, 0)
    assert (figures.num_rows, figures.num_tokens, figures.num_numbers) == (2, 4, 1)


def test_a_generator_that_copies_titles_is_measured_as_one() -> None:
    titles = [f"Cadeira {name} de madeira" for name in ("azul", "verde", "preta", "branca")]
    copies = [written(f"{title}.", Product(title)) for title in titles]
    assert measure(copies, 1.0, 1).title_copies == 1
    assert measure([*copies[1:], written(REFERENCE)], 1.0, 1).title_copies == 0.75


def test_a_generator_that_loops_is_measured_as_one() -> None:
    loop = "ótimo para o dia a dia, " * 20
    assert measure([written(loop)], 1.0, 1).repetition > 0.9
    assert measure([written(loop), written(REFERENCE)], 1.0, 1).repetition == repetition(words_of(loop)) / 2


def test_a_generator_that_begins_every_text_alike_is_measured_as_one() -> None:
    alike = [f"Esta peça é {word}" for word in ("boa", "bela", "forte", "leve")]
    assert distinct_openings(alike) == 0.25
    assert distinct_openings([text[::-1] for text in alike]) == 1


def test_a_generator_that_invents_numbers_is_measured_as_one() -> None:
    figures = measure([written("Holds 500 ml for 12 hours at 60 °C."), written("Keeps coffee hot.")], 1.0, 1)
    assert figures.num_numbers == 3
    assert figures.unsupported_numbers == pytest.approx(2 / 3)
    assert (figures.texts_with_unsupported, figures.texts_with_claims, figures.held) == (0.5, 0.5, 0.5)


def test_other_claims_are_no_numbers_but_held() -> None:
    figures = measure([written("Feita de madeira e com garantia."), written("Keeps coffee hot.")], 1.0, 1)
    assert (figures.texts_with_unsupported, figures.texts_with_claims, figures.held) == (0, 0.5, 0.5)


def test_a_text_that_says_nothing_or_does_not_stop_has_not_ended() -> None:
    cut = replace(written(REFERENCE), ended="length")
    assert measure([written(REFERENCE), written(""), cut, written("a b c d")], 1.0, 1).ended == 0.5


def test_a_generator_that_says_nothing_can_be_measured() -> None:
    figures = measure([replace(written(""), ended="failed")] * 2, 1.0, 1)
    assert (figures.ended, figures.length_ratio, figures.rouge_l, figures.num_numbers) == (0, 0, 0, 0)
    assert figures.unsupported_numbers == 0


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("Caneca térmica azul", True),
        ("CANECA TÉRMICA AZUL!", True),
        ("Caneca térmica azul muito boa.", True),
        ("Caneca térmica azul que mantém quente.", False),
        ("Uma caneca térmica azul", False),
        ("Caneca térmica azulada", False),
        ("", False),
    ],
)
def test_a_copy_begins_with_the_title_and_adds_less_than_three_words(text: str, copied: bool) -> None:
    assert copies_title(text, "Caneca térmica azul") is copied


@pytest.mark.parametrize(
    ("text", "share"),
    [("a b c", 0), ("", 0), ("a b c d", 0), ("a b c d e", 0), ("a a a a a", 0.5), ("a b c d a b c d", 1 / 5)],
)
def test_repetition_is_the_share_of_4_grams_said_before(text: str, share: float) -> None:
    assert repetition(words_of(text)) == pytest.approx(share)


def test_rouge_l_compares_words_with_all_their_letters() -> None:
    assert rouge_l(["ótima cadeira azul"], ["ótima mesa azul"]) == pytest.approx(2 / 3)
    # Its own tokenizer finds `tima`, `fa` and `sof` in these.
    assert rouge_l(["átima"], ["ótima"]) == 0
    assert rouge_l(["椅子"], ["椅子"]) == 1


def test_chrf_is_higher_for_the_closer_text() -> None:
    assert chrf([REFERENCE[:40]], [REFERENCE]) > chrf([REFERENCE[:20]], [REFERENCE]) > chrf(["xyz"], [REFERENCE])
