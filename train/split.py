"""Which products are trained on, and which are kept to measure by.

The split of a product follows from the seed and its group alone: it never moves when rows are added, and
variants of one product, which would give the answer away, are always on the same side.
"""

import hashlib
import re
import unicodedata

from train.pairs import SPLITS

_WORD = re.compile(r"[^\W_]+")
# What tells variants of one product apart, in English and Portuguese, without accents and inflection's last letter.
_COLOURS = (
    "black white red blue green yellow orange purple violet pink brown grey gray beige gold golden silver bronze navy "
    "cream ivory khaki maroon teal turquoise coral burgundy multicolor multicolour multi dark light charcoal olive "
    "mustard lavender magenta copper tan rose nude "
    "preto preta branco branca vermelho vermelha azul verde amarelo amarela laranja roxo roxa violeta rosa marrom "
    "cinza bege dourado dourada prata prateado prateada bronze marinho creme marfim caqui vinho turquesa colorido "
    "colorida claro clara escuro escura chumbo mostarda lilas cobre grafite"
)
_SIZES = (
    "xxs xs s m l xl xxl xxxl pp p g gg xg xgg small medium large mini big size sizes "
    "pequeno pequena medio media grande unico tamanho "
    "mm cm m km in inch inches ft feet pol polegada polegadas mg g gr gramas kg quilo quilos lb lbs oz ml cl l lt "
    "litro litros liter litre w v volts watts gb tb mb hz pc pcs pack peca pecas un unidade unidades par x"
)
_VARIANT = frozenset((_COLOURS + " " + _SIZES).split())


def group_of(title: str) -> str:
    """What the titles of variants have in common: their words, sorted, without case and accents, and without
    numbers, measures, colours and sizes. Of a title that has nothing else all words."""
    words = _words(title)
    telling = {word for word in words - _VARIANT if word.isalpha() or not any(map(str.isdecimal, word))}
    return " ".join(sorted(telling or words)) or title


def _words(title: str) -> set[str]:
    plain = title.casefold()
    if not plain.isascii():
        plain = "".join(each for each in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(each))
    return set(_WORD.findall(plain))


def split_of(title: str, seed: int, validation_share: float, test_share: float) -> str:
    """One of `SPLITS` for a cleaned title: BLAKE2b of seed and group as a number from 0 to 1."""
    digest = hashlib.blake2b(group_of(title).encode(), digest_size=8, key=str(seed).encode()).digest()
    place = int.from_bytes(digest, "big") / 2**64
    train, validation, test = SPLITS
    if place < test_share:
        return test
    return validation if place < test_share + validation_share else train
