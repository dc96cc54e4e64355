"""Figures are what they say, worked out by hand; a generator with a known fault is measured as having it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.products import Product
from train.measuring.measures import Written, chrf, copies_title, distinct_openings, measure, repetition, rouge_l
from train.measuring.quantities import quantities, unsupported

MUG = Product("Caneca térmica azul 500 ml", (("material", "aço inox"), ("weight_kg", "0.3")))
REFERENCE = "Uma caneca térmica azul de 500 ml que mantém o café quente."


def written(text: str, product: Product = MUG, reference: str = REFERENCE) -> Written:
    return Written(product, reference, text, "eos")


def said(text: str) -> list[tuple[float, str | None]]:
    return [(float(each.value), each.unit) for each in quantities(text)]


# --- quantities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 30 cm pan", [(30, "cm")]),
        ("a 30cm pan", [(30, "cm")]),
        ("a 30-centimetre pan", [(30, "cm")]),
        ('9/16" drill', [(0.5625, "in")]),
        ("1 1/2 inches", [(1.5, "in")]),
        ("pesa 2,5 quilos", [(2.5, "kg")]),
        ("weighs 2.50 kg", [(2.5, "kg")]),
        ("30 x 40 × 50 cm", [(30, "cm"), (40, "cm"), (50, "cm")]),
        ("10-15 kg or 2 to 3 lbs", [(10, "kg"), (15, "kg"), (2, "lb"), (3, "lb")]),
        ("1,500 W, 1.500 W", [(1500, "W"), (1500, "W")]),
        ("12 fl oz", [(12, "oz")]),
        ("100% algodão", [(100, "%")]),
        ("3' tall, of the 90's", [(3, "ft"), (90, None)]),
        ("12 in wide, 2 in 1, 3 in the box", [(12, "in"), (2, None), (1, None), (3, None)]),
        ("IP67, 4K", [(67, None), (4, None)]),
        ("3/0", [(3, None), (0, None)]),
        ("no number", []),
    ],
)
def test_a_quantity_is_its_value_and_its_unit_however_they_are_spelt(
    text: str, expected: list[tuple[float, str | None]]
) -> None:
    assert said(text) == expected


@given(st.text(st.sampled_from("0123456789.,/- xXcmkKgiİıſ'\"%°inpsi\u0660"), max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    assert len(quantities(text)) >= any(letter in "0123456789" for letter in text)


def test_a_long_run_of_digits_costs_no_time() -> None:
    assert len(quantities("9" * 60_000)) == 4000


@pytest.mark.parametrize(
    ("text", "invented"),
    [
        ("Holds 500 ml.", 0),
        ("Holds 500 millilitres, weighs 0.3 kg.", 0),
        ("Comes in a pack of 500.", 0),
        ("Holds 500 l.", 1),
        ("Holds 750 ml and weighs 300 g.", 2),
        ("Keeps coffee hot for 12 hours.", 1),
        ("Keeps coffee hot.", 0),
    ],
)
def test_a_quantity_is_supported_by_title_or_attributes_alone(text: str, invented: int) -> None:
    assert len(unsupported(text, MUG)) == invented
    # The control: of another product, every number is invented.
    assert unsupported(text, Product("Caneca")) == quantities(text)


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
    assert measure([written(loop), written(REFERENCE)], 1.0, 1).repetition == repetition(loop) / 2


def test_a_generator_that_begins_every_text_alike_is_measured_as_one() -> None:
    alike = [f"Esta peça é {word}" for word in ("boa", "bela", "forte", "leve")]
    assert distinct_openings(alike) == 0.25
    assert distinct_openings([text[::-1] for text in alike]) == 1


def test_a_generator_that_invents_numbers_is_measured_as_one() -> None:
    figures = measure([written("Holds 500 ml for 12 hours at 60 °C."), written("Keeps coffee hot.")], 1.0, 1)
    assert figures.num_numbers == 3
    assert figures.unsupported_numbers == pytest.approx(2 / 3)
    assert figures.texts_with_unsupported == 0.5


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
    assert repetition(text) == pytest.approx(share)


def test_rouge_l_compares_words_with_all_their_letters() -> None:
    assert rouge_l(["ótima cadeira azul"], ["ótima mesa azul"]) == pytest.approx(2 / 3)
    # Its own tokenizer finds `tima`, `fa` and `sof` in these.
    assert rouge_l(["átima"], ["ótima"]) == 0
    assert rouge_l(["椅子"], ["椅子"]) == 1


def test_chrf_is_higher_for_the_closer_text() -> None:
    assert chrf([REFERENCE[:40]], [REFERENCE]) > chrf([REFERENCE[:20]], [REFERENCE]) > chrf(["xyz"], [REFERENCE])
