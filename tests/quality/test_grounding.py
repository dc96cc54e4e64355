"""Every checkable claim of a text is in its row, in whatever words and units; and the labelled pairs say how well."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.products import Product
from enrich.quality.grounding import Grounding
from enrich.quality.words import Text

from .labelled import labelled, tally

PAIRS = list(labelled())
ASIDE = [pair for pair in PAIRS if pair.is_aside]


def claims(text: str, title: str, **attributes: str) -> list[tuple[str, str]]:
    found = Grounding().unsupported(Text.of(text), Product(title, tuple(attributes.items())))
    return [(span.kind, text[span.start : span.end]) for span in found]


# The labelled pairs


def test_the_pairs_are_as_many_and_as_mixed_as_they_must_be() -> None:
    assert len(PAIRS) >= 400
    assert {pair.locale for pair in PAIRS} == {"en", "pt"}
    clean = sum(not pair.unsupported for pair in PAIRS)
    assert 0.4 <= clean / len(PAIRS) <= 0.6
    kinds = {span.kind for pair in ASIDE for span in pair.unsupported}
    assert len(kinds) == 8


def test_the_third_that_was_kept_aside_is_judged_as_well_as_is_promised() -> None:
    found = tally(ASIDE)
    assert found.recall("number") >= 0.95
    assert found.recall("material") >= 0.9
    assert found.recall("colour") >= 0.9
    assert found.recall("brand") >= 0.9
    assert found.precision() >= 0.9


def test_a_check_that_finds_nothing_or_everything_would_fail_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grounding, "unsupported", lambda *_: [])
    assert tally(ASIDE).recall() == 0
    monkeypatch.undo()
    monkeypatch.setattr("enrich.quality.row.Row.says", lambda *_: False)
    monkeypatch.setattr("enrich.quality.row.Row.is_a", lambda *_: False)
    assert tally(ASIDE).precision() < 0.9


# Kind by kind


@pytest.mark.parametrize(
    ("text", "title", "found"),
    [
        ('It measures 9/16".', 'Fitting 9/16"', []),
        ('It measures 1-9/16".', 'Fitting 9/16"', [("number", '1-9/16"')]),
        ("Holds about 1 litre.", "Bottle 34 oz", []),
        ("Holds about 2 litres.", "Bottle 34 oz", [("number", "2 litre")]),
        ("Com 1,5 L de capacidade.", "Jarra 1500 ml", []),
        ("Com 2,5 L de capacidade.", "Jarra 1500 ml", [("number", "2,5 l")]),
        ("A set of six.", "Glasses, pack of 6", []),
        ("A set of eight.", "Glasses, pack of 6", [("number", "eight")]),
        ("Three oversized glasses.", "Beer Glasses", [("number", "Three")]),
        ("No two readers agree.", "Book", []),
        ("The WX-450 is quiet.", "Fan WX-450", []),
        ("The WX-460 is quiet.", "Fan WX-450", [("number", "WX-460")]),
        ("The WX-45 is quiet.", "Fan WX-450", [("number", "WX-45")]),
        ("The WX450 is quiet.", "Fan WX 450", []),
        ("Made since 1985.", "Fan", [("number", "1985")]),
        ("A 100% cotton shirt.", "Cotton shirt", [("number", "100%")]),
        ("One of a kind, 24/7.", "Mug", []),
        ("Cut to 2 x 4.", "Lumber 2x4", []),
        ("Aguenta cento e vinte quilos.", "Cadeira 120 kg", []),
        ("Aguenta cento e trinta quilos.", "Cadeira 120 kg", [("number", "cento e trinta quilos")]),
        ("It holds two and a half litres.", "Jug 2.5 L", []),
        ("It is about 45 cm long.", "Chain 18 in", []),
        ("It is 44 cm long.", "Chain 18 in", [("number", "44 cm")]),
        ("It reaches 100 feet or so.", "Probe 30 m", []),
        ("São 18 quilates.", "Colar 18k", []),
        ("A thousand amps at peak.", "Jump Starter 1000 A", []),
    ],
)
def test_numbers(text: str, title: str, found: list[tuple[str, str]]) -> None:
    # With its plural's s or without.
    assert [(kind, said.lower()) for kind, said in claims(text, title)] == [(k, s.lower()) for k, s in found]


@pytest.mark.parametrize(
    ("text", "title", "kinds"),
    [
        ("A steel bottle.", "Stainless Steel Bottle", []),
        ("A stainless steel bottle.", "Steel Bottle", ["material"]),
        ("A steel bottle.", "Copper Bottle", ["material"]),
        ("Made of wood.", "Oak Table", []),
        ("Made of oak.", "Wood Table", ["material"]),
        ("A blue bag.", "Navy Bag", []),
        ("A navy bag.", "Blue Bag", ["colour"]),
        ("Uma bolsa preta.", "Bolsa Preto", []),
        ("Uma bolsa preta.", "Bolsa Branca", ["colour"]),
        ("Uma bolsa de couro preta para o dia a dia.", "Black Leather Bag", []),
        ("A glass of orange juice.", "Juicer", []),
        ("A silver lining and the golden hour.", "Lamp", []),
        ("In deep olive tones.", "Olive Sofa", []),
        ("In deep olive tones.", "Sofa", ["colour"]),
        ("A bouquet in deep plum.", "Bouquet", ["colour"]),
        ("A rich plum jam.", "Jam", []),
        ("A vibrant orange and green basket.", "Basket", ["colour", "colour"]),
        ("It glides over cotton and linen.", "Steamer", []),
        ("It has a touch of silk.", "Lotion", []),
        ("A belt that pairs well with black jeans.", "Belt", []),
        ("Made for white hair and dark floors.", "Brush", []),
        ("A bowl of olive oil.", "Bowl", []),
        ("The shoes look sweet with a white sundress.", "Shoes", []),
        ("The shoes look sweet with a white sole.", "Shoes", ["colour"]),
        ("The dress comes with white sleeves. It loves black tights.", "Sundress", ["colour", "colour"]),
        ("This collection features a sleek white desk and a stylish cup.", "Home Office Set", ["colour"]),
        ("It is made of a high-quality, stainless steel vessel with a lid.", "French Press", ["material"]),
        ("A mochila é feita de algodão e tem alças.", "Mochila", ["material"]),
        ("Uma mochila em tecido de aço, para o dia a dia da escola.", "Mochila", ["material"]),
        ("A velvet in a rich burgundy turns heads.", "Velvet Chair", ["colour"]),
        ("It looks right beside black tights or a red wool coat.", "Boots", []),
        ("It looks right beside black tights or a red wool coat.", "Tights", ["colour"]),
        ("It goes with jeans. Black leather makes it last.", "Belt", ["colour", "material"]),
        ("The soft stool is made from oak planks.", "Stool", ["material"]),
        ("It sits next to the end of an oak bed.", "Lamp", []),
        ("It drills into wood, brick or sheet metal.", "Drill", []),
        ("The drill has a metal body.", "Drill", ["material"]),
        ("A jaqueta da marca transforma a camiseta branca mais simples.", "Jaqueta", []),
        ("Esta camiseta branca é para o dia a dia da sua casa.", "Camisa", ["colour"]),
        ("A jaqueta tem um forro de cetim e não amassa.", "Jaqueta", ["material"]),
        ("O copo fica bem na mesa de madeira e não risca.", "Copo", []),
        ("A mesa é feita em madeira e não risca o piso da sala.", "Mesa", ["material"]),
        ("No vaso da sala, o verde das folhas agradece o seu cuidado.", "Vaso", []),
        ("Solid wood all over.", "MDF Shelf", ["material"]),
        ("Solid wood all over.", "Oak Shelf", []),
    ],
)
def test_materials_and_colours(text: str, title: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in claims(text, title)] == kinds


@pytest.mark.parametrize(
    ("text", "title", "found"),
    [
        ("A classic from Kelmore for every day.", "Mug", [("brand", "Kelmore")]),
        ("A classic from Kelmore for every day.", "Kelmore Mug", []),
        ("Kelmore's best mug.", "KELMORE Mug", []),
        ("Elevate your day. Perfect for Christmas and Mother's Day.", "Mug", []),
        ("Works with your iPhone every day.", "Cable", [("compatibility", "Works with your iPhone every day")]),
        ("It comes with a 2-year warranty.", "Drill", [("warranty", "a 2-year warranty")]),
        ("It comes with a 2-year warranty.", "Drill, 24 month warranty", []),
        ("It comes with a lifetime warranty.", "Drill, 2 year warranty", [("warranty", "a lifetime warranty")]),
        ("Made in Italy with care.", "Bag", [("origin", "Made in Italy")]),
        ("Made in Italy with care.", "Italian Bag", []),
        ("Hand-plucked in Kenya for you.", "Tea", [("origin", "plucked in Kenya")]),
        ("Forjada na Alemanha.", "Faca", [("origin", "Forjada na Alemanha")]),
        ("It is tested to EN 1078.", "Helmet", [("certification", "EN 1078")]),
        ("It is tested to EN 1078.", "Helmet EN1078", []),
        ("It is MagSafe compatible.", "Stand", [("compatibility", "MagSafe compatible")]),
        ("They fit all Oral-B handles.", "Brush Heads", [("compatibility", "fit all Oral-B handles")]),
        ("Wear it on lazy Sundays in Lisbon.", "Dress", []),
        ("Certificado pelo Inmetro.", "Plugue", [("certification", "Certificado pelo Inmetro")]),
        ("Certificado pelo Inmetro.", "Plugue Inmetro", []),
        ("It is compatible with Nexo tablets.", "Case for Nexo Tablets", []),
        ("It is compatible with Nexo tablets.", "Case", [("compatibility", "compatible with Nexo tablets")]),
    ],
)
def test_names_and_phrases(text: str, title: str, found: list[tuple[str, str]]) -> None:
    # Where a phrase ends is a matter of taste; where it stands is not.
    said = claims(text, title)
    assert [kind for kind, _ in said] == [kind for kind, _ in found]
    assert all(a in b or b in a for (_, a), (_, b) in zip(said, found, strict=True))


def test_attributes_and_category_support_a_claim() -> None:
    assert claims("A red steel mug of 350 ml.", "Mug", color="Red", material="Steel", volume_ml="350") == []
    assert len(claims("A red steel mug of 350 ml.", "Mug")) == 3


def test_an_operators_own_words() -> None:
    product = Product("Sofa")
    assert Grounding().unsupported(Text.of("A zibeline sofa."), product) == []
    (span,) = Grounding({"material": ["zibeline"]}).unsupported(Text.of("A zibeline sofa."), product)
    assert span.kind == "material"
    text = Text.of("A sofa from Kelmore for life.")
    assert Grounding().unsupported(text, product)
    assert Grounding(allowed=["Kelmore"]).unsupported(text, product) == []


@given(st.sampled_from(PAIRS))
def test_a_text_is_supported_by_a_row_that_says_it(pair: object) -> None:
    text = pair.text  # type: ignore[attr-defined]
    assert Grounding().unsupported(Text.of(text), Product(text)) == []


@settings(max_examples=200)
@given(st.text(max_size=80), st.text(max_size=30))
def test_any_text_is_read_and_spans_lie_in_it_in_order_and_apart(text: str, title: str) -> None:
    spans = Grounding().unsupported(Text.of(text), Product(title))
    places = [at for span in spans for at in (span.start, span.end)]
    assert places == sorted(places)
    assert all(0 <= at <= len(text) for at in places)
    assert all(span.start < span.end for span in spans)
