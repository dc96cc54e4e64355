"""A key changes with everything that decides a text, and with nothing else."""

import inspect
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.products import Product
from enrich.recipe import Recipe, product_key
from enrich.settings import DEFAULT_TEMPLATE, TextSettings

MUG = Product("Blue mug", (("brand", "Acme"), ("size", "M")))
RECIPE = Recipe("template", "base", "adapter", TextSettings())

# Another value for each setting that decides a text. A new setting needs one here.
OTHER: dict[str, Any] = {
    "template": DEFAULT_TEMPLATE.replace("Gere", "Escreva"),
    "max_prompt_tokens": 191,
    "max_new_tokens": 159,
    "repetition_penalty": 1.1,
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.9,
    "seed": 1,
    "dtype": "float32",
    "quantize": "4bit",
}

texts = st.text(st.sampled_from("ab:; \u00e9"), max_size=3)
products = st.builds(Product, texts, st.lists(st.tuples(texts, texts), max_size=3).map(tuple))


def test_each_text_setting_changes_the_key() -> None:
    assert OTHER.keys() == TextSettings.model_fields.keys()
    changed = [Recipe("template", "base", "adapter", TextSettings(**{name: value})) for name, value in OTHER.items()]
    recipes = [RECIPE, *changed]
    assert len({recipe.key(MUG) for recipe in recipes}) == len(recipes)
    assert len({recipe.digest for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize(
    "other",
    [
        Recipe("template 2", "base", "adapter", TextSettings()),
        Recipe("template", "base 2", "adapter", TextSettings()),
        Recipe("template", "base", "adapter 2", TextSettings()),
        Recipe("template", "base", None, TextSettings()),
        Recipe("template", "base", "", TextSettings()),
        Recipe("templatebase", "", "adapter", TextSettings()),
        Recipe("base", "template", "adapter", TextSettings()),
    ],
)
def test_each_part_of_a_recipe_changes_the_key(other: Recipe) -> None:
    assert other.key(MUG) != RECIPE.key(MUG)
    assert other.digest != RECIPE.digest


def test_no_adapter_is_not_an_adapter_without_a_name() -> None:
    assert Recipe("t", "b", None, TextSettings()).key(MUG) != Recipe("t", "b", "", TextSettings()).key(MUG)


def test_a_recipe_takes_nothing_of_the_machine() -> None:
    taken = {name: parameter.annotation for name, parameter in inspect.signature(Recipe).parameters.items()}
    assert taken == {"template_id": str, "base_digest": str, "adapter_digest": str | None, "text": TextSettings}
    assert list(inspect.signature(Recipe.key).parameters) == ["self", "product"]


@pytest.mark.parametrize(
    "other",
    [
        Product("Blue mug"),
        Product("Blue mug", (("size", "M"), ("brand", "Acme"))),
        Product("Blue mu", (("gbrand", "Acme"), ("size", "M"))),
        Product("Blue mug", (("brandA", "cme"), ("size", "M"))),
        Product("Blue mug", (("brand", "Acmesize"), ("", "M"))),
        Product("blue mug", (("brand", "Acme"), ("size", "M"))),
    ],
)
def test_another_product_has_other_keys(other: Product) -> None:
    assert RECIPE.key(other) != RECIPE.key(MUG)
    assert product_key(other) != product_key(MUG)


@given(products, products)
def test_keys_are_equal_exactly_for_equal_products(one: Product, two: Product) -> None:
    assert (RECIPE.key(one) == RECIPE.key(two)) is (one == two)
    assert (product_key(one) == product_key(two)) is (one == two)


def test_keys_outlive_the_process() -> None:
    again = Recipe("template", "base", "adapter", TextSettings())
    assert again.key(Product(MUG.title, MUG.attributes)) == RECIPE.key(MUG)
    # Written down: memories and reviews of earlier nights are found by these bytes.
    assert product_key(MUG).hex() == "8349fd80e52f3199804a486167b3f2d3"


def test_a_key_is_16_bytes_and_a_digest_32_hex_digits() -> None:
    assert len(RECIPE.key(MUG)) == len(product_key(MUG)) == 16
    assert len(bytes.fromhex(RECIPE.digest)) == 16


def test_the_three_kinds_of_digest_never_meet() -> None:
    seen = [RECIPE.key(MUG), product_key(MUG), bytes.fromhex(RECIPE.digest)]
    assert all(one != two for one, two in itertools.combinations(seen, 2))
