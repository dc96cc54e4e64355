"""A quantity is its value and its unit, however both are spelt; one supports another when it converts into it."""

import re

import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.products import Product
from enrich.quality.grounding import Grounding
from enrich.quality.quantities import agree, quantities, units
from enrich.quality.words import Text


def said(text: str) -> list[tuple[float, str | None]]:
    read = Text.of(text)
    return [(each.value, each.unit and each.unit.name) for each in quantities(read.folded, read.words)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 30 cm pan", [(30, "cm")]),
        ("a 30cm pan", [(30, "cm")]),
        ("a 30-centimetre pan", [(30, "cm")]),
        ('9/16" drill', [(0.5625, "in")]),
        ('1-9/16" drill', [(1.5625, "in")]),
        ("1 1/2 inches", [(1.5, "in")]),
        ("pesa 2,5 quilos", [(2.5, "kg")]),
        ("weighs 2.50 kg", [(2.5, "kg")]),
        ("30 x 40 × 50 cm", [(30, "cm"), (40, "cm"), (50, "cm")]),
        ("2x4", [(2, None), (4, None)]),
        ("10-15 kg or 2 to 3 lbs", [(10, "kg"), (15, "kg"), (2, "lb"), (3, "lb")]),
        ("1,500 W, 1.500 W", [(1500, "W"), (1500, "W")]),
        ("12 fl oz", [(12, "floz")]),
        ("100% algodão", [(100, "%")]),
        ("3' tall, of the 90's", [(3, "ft"), (90, None)]),
        ("12 in wide, 2 in 1, 3 in the box", [(12, "in"), (2, None), (1, None), (3, None)]),
        ("three litres and a half", [(3.5, "l")]),
        ("um litro e meio, meio quilo", [(1.5, "l"), (0.5, "kg")]),
        ("half a kilo", [(0.5, "kg")]),
        ("a set of six, a dozen, meia dúzia, two dozen", [(6, None), (12, None), (6, None), (24, None)]),
        ("twenty-one watts", [(21, "W")]),
        ("5 mil rotações", [(5000, None)]),
        ("one of a kind, in one minute", []),
        ("3/0", [(3, None), (0, None)]),
        ("no number", []),
    ],
)
def test_a_quantity_is_its_value_and_its_unit(text: str, expected: list[tuple[float, str | None]]) -> None:
    assert said(text) == expected


@given(st.text(st.sampled_from("0123456789.,/- xXcmkKgiİıſ'\"%°inpsi\u0660"), max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    # A digit behind a letter belongs to a code, such as IP67.
    assert bool(said(text)) >= bool(re.search(r"(?<![^\W_])[0-9]", text))


def test_a_long_run_of_digits_costs_no_time() -> None:
    assert len(said("9" * 60_000)) == 4000


@pytest.mark.parametrize(
    ("claim", "row", "holds"),
    [
        ("1500 ml", "1,5 L", True),
        ("1510 ml", "1,5 L", False),
        ("300 mm", "30 cm", True),
        ("0.3 m", "30 cm", True),
        ("1.5 kW", "1,500 W", True),
        ("1.6 kW", "1,500 W", False),
        ("1 litre", "34 oz", True),
        ("2 litres", "34 oz", False),
        ("34 oz", "1 litre", True),
        ("30.5 cm", "12 inches", True),
        ("32 cm", "12 inches", False),
        ("one foot", "12 inches", True),
        ("2.3 kg", "5 lb", True),
        ("2 kg", "5 lb", False),
        ("2 years", "24 months", True),
        ("3 years", "24 months", False),
        ('1-9/16"', '9/16"', False),
        ("500 g", "500 ml", False),
        ("500", "500 ml", True),
        ("500 ml", "500", False),
    ],
)
def test_conversion_is_exact_within_a_system_and_rounds_between_two(claim: str, row: str, holds: bool) -> None:
    (claimed,), (known,) = ([*quantities(read.folded, read.words)] for read in map(Text.of, (claim, row)))
    assert agree(claimed, known) is holds


MUG = Product("Caneca térmica azul 500 ml", (("material", "aço inox"), ("weight_kg", "0.3")))


@pytest.mark.parametrize(
    ("text", "invented"),
    [
        ("Holds 500 ml.", []),
        ("Holds 500 millilitres, weighs 0.3 kg.", []),
        ("Holds half a litre and weighs 300 g.", []),
        ("Comes in a pack of 500.", []),
        ("Holds 500 l.", ["500 l"]),
        ("Holds 750 ml and weighs 3 kg.", ["750 ml", "3 kg"]),
        ("Keeps coffee hot for 12 hours.", ["12 hours"]),
        ("Keeps coffee hot.", []),
    ],
)
def test_a_quantity_is_supported_by_title_or_attributes_alone(text: str, invented: list[str]) -> None:
    def found(product: Product) -> list[int]:
        return [span.start for span in Grounding().unsupported(Text.of(text), product) if span.kind == "number"]

    assert found(MUG) == [text.index(each) for each in invented]
    # The control: of another product, every number is invented.
    assert len(found(Product("Caneca"))) == len(said(text))


# What pint calls them, where it calls them otherwise.
_PINT = {
    "in": "inch",
    "ft": "foot",
    "yd": "yard",
    "mi": "mile",
    "lb": "pound",
    "oz": "ounce",
    "floz": "fluid_ounce",
    "pt": "pint",
    "qt": "quart",
    "gal": "gallon",
    "l": "liter",
    "ml": "milliliter",
    "cl": "centiliter",
    "hp": "horsepower",
    "h": "hour",
    "Ah": "ampere_hour",
    "mAh": "milliampere_hour",
    "kB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
    "min": "minute",
    "m": "meter",
}
_BASES = {
    "length": "meter",
    "mass": "gram",
    "volume": "liter",
    "power": "watt",
    "energy": "watt_hour",
    "charge": "ampere_hour",
    "current": "ampere",
    "frequency": "hertz",
    "data": "byte",
    "pressure": "pascal",
    "time": "second",
    "voltage": "volt",
}


def test_the_factors_are_those_of_pint() -> None:
    registry = pint.UnitRegistry()
    alone = []
    for unit in {each.name: each for each in units().values()}.values():
        if base := _BASES.get(unit.dimension):
            factor = registry.Quantity(1, _PINT.get(unit.name, unit.name)).to(base).magnitude
            # Pint's year is the Julian one, of 365.25 days.
            assert unit.factor == pytest.approx(factor, rel=1e-4 if unit.system == "calendar" else 1e-9), unit
        else:
            alone.append(unit)
    # The others convert into nothing: each is the only one of its dimension.
    assert [unit.factor for unit in alone] == [1] * len(alone)
    assert len({unit.dimension for unit in alone}) == len(alone) == 10
