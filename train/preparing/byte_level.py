"""Whether a model's tokenizer is of the kind for which the bytes of a text bound its tokens.

Byte-level BPE (Radford et al. 2019) merges the bytes of a text and makes of them nothing else: never more tokens than
bytes, and never a token that no merge spells. A tokenizer about which anything is in doubt is not taken for one.
"""

import json
from collections.abc import Iterator
from typing import Any

# They cut a text and change nothing of it.
_CUTTING = frozenset({"Split", "Digits", "Punctuation", "Whitespace", "ByteLevel"})


def is_byte_level(content: str, control_ids: frozenset[int]) -> bool:
    """Whether the tokenizer (the JSON of a fast one) makes of any plain text in NFC at most a token for each byte, none
    of them a control token: one of its added tokens or of `control_ids`."""
    whole = json.loads(content)
    model = whole["model"]
    steps = list(_steps(whole.get("pre_tokenizer"), "pretokenizers"))
    return (
        model.get("type") == "BPE"
        and not any(model.get(key) for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
        and all(step["type"] == "NFC" for step in _steps(whole.get("normalizer"), "normalizers"))
        and any(step["type"] == "ByteLevel" for step in steps)
        and all(step["type"] in _CUTTING and not step.get("add_prefix_space") for step in steps)
        and _controls(whole, control_ids).isdisjoint(_spelt(model))
    )


def _steps(part: dict[str, Any] | None, members: str) -> Iterator[dict[str, Any]]:
    if part and part["type"] == "Sequence":
        yield from part[members]
    elif part:
        yield part


def _controls(whole: dict[str, Any], control_ids: frozenset[int]) -> set[str]:
    """What the control tokens are called in the vocabulary; those that are not in it cannot come of a text."""
    ids = control_ids.union(token["id"] for token in whole.get("added_tokens", ()))
    return {token for token, number in whole["model"]["vocab"].items() if number in ids}


def _spelt(model: dict[str, Any]) -> Iterator[str]:
    """Every token that a text can become: single bytes, and what merges spell; or whole words as they are."""
    yield from (token for token in model["vocab"] if len(token) == 1 or model.get("ignore_merges"))
    yield from ("".join(each.split(" ") if isinstance(each, str) else each) for each in model["merges"])
