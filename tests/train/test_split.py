"""The split: a function of seed and product alone, with variants of a product on one side."""

from collections import Counter

import pytest

from train.split import group_of, split_of


@pytest.mark.parametrize(
    ("title", "variant"),
    [
        ("Camiseta Algodão Azul M", "camiseta algodao vermelha, G"),
        ("Água de Coco 200 ml", "Água de Coco 1,5 L"),
        ("Blue Leather Wallet", "Wallet Leather - BLACK"),
        ("Franck Bella FB74C Watch", "Franck Bella FB127A Watch"),
    ],
)
def test_variants_are_one_group(title: str, variant: str) -> None:
    assert group_of(title) == group_of(variant)


@pytest.mark.parametrize(
    ("title", "other"),
    [("Leather Wallet", "Leather Belt"), ("Azul", "Preto"), ("100", "200"), ("!?", "?!"), ("Thé vert", "Thé noir")],
)
def test_other_products_are_other_groups(title: str, other: str) -> None:
    assert group_of(title) != group_of(other)


def test_shares_are_about_what_was_asked_for() -> None:
    counts = Counter(split_of(f"product {word}", 0, 0.1, 0.2) for word in map(_word, range(20_000)))
    assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.2, abs=0.01)


def test_the_split_is_pinned_and_the_seed_matters() -> None:
    splits = [split_of(_word(number), 0, 0.2, 0.2)[:2] for number in range(12)]
    assert " ".join(splits) == "tr te tr te tr tr te tr va te tr tr"
    assert splits != [split_of(_word(number), 1, 0.2, 0.2)[:2] for number in range(12)]


def _word(number: int) -> str:
    """A word of letters for each number: digits do not tell groups apart."""
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:05}")
