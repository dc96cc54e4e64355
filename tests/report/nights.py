"""Summaries of runs that never were, for tests of the report."""

import random
from typing import Any

Summary = dict[str, Any]

_GOODS = (
    ("Oak side table, round", "Mesa lateral redonda de carvalho", "oak"),
    ("Stainless kettle 1.7 L", "Chaleira de aço inox 1,7 L", "stainless steel"),
    ("Linen cushion cover", "Capa de almofada de linho", "linen"),
    ("Trail running shoes, women", "Tênis de corrida em trilha, feminino", "mesh"),
    ("LED desk lamp with dimmer", "Luminária de mesa LED com dimmer", "aluminium"),
    ("Ceramic pour-over set", "Conjunto de café coado em cerâmica", "ceramic"),
)


def text(row: int, seed: random.Random, **told: Any) -> Summary:
    """A text with its row, and a number of which the row knows nothing."""
    english, portuguese, material = seed.choice(_GOODS)
    words = (
        f"{english} made of {material}, for rooms that are used every day. It keeps its shape for {row % 40 + 2} years "
        f"and is wiped clean with a damp cloth. {portuguese}: fácil de limpar."
    )
    start = words.index(f"{row % 40 + 2} years")
    score = seed.choice((0, 10, 40, 50, 95, 100))
    flags = ["unsupported_number"] if score < 60 else ["trimmed"] if score == 95 else []
    spans = [{"kind": "number", "start": start, "end": words.index(" and is wiped")}] if score < 60 else []
    return {
        "row": row,
        "id": f"SKU-{row:07}",
        "title": english,
        "attributes": [["brand", "Northfield"], ["category", "Home > Living"], ["material", material]],
        "text": words,
        "status": "held" if score < 50 else "approved" if row % 11 == 0 else "generated",
        "score": score,
        "flags": flags,
        "unsupported": spans,
    } | told


def catalogue(num_rows: int = 2_000_000, num_worst: int = 50, num_random: int = 20, **told: Any) -> Summary:
    """One catalogue's night in which every key is present."""
    seed = random.Random(num_rows)
    generated, held, pending, rejected = num_rows // 13, num_rows // 150, num_rows // 700, num_rows // 900
    approved = num_rows // 4000
    texts = generated + held
    timeline, told_texts, told_tokens = [[0.0, 0, 0]], 0, 0
    for point in range(1, 240):
        told_texts += round(texts / 240 * seed.uniform(0.75 if point % 50 else 0.2, 1.1))
        told_tokens = told_texts * 63
        timeline.append([point * 21.5, told_texts, told_tokens])
    return {
        "input": f"s3://shop/catalog-{num_rows}.parquet",
        "output": f"s3://shop/catalog-{num_rows}.enriched.parquet",
        "records": num_rows + 12,
        "rows": num_rows,
        "statuses": {
            "kept": num_rows - generated - held - pending - rejected - approved,
            "generated": generated,
            "approved": approved,
            "held": held,
            "pending": pending,
            "rejected": rejected,
        },
        "rejected": {"no_title": rejected - rejected // 3, "unusable_title": rejected // 3},
        "quarantined": 12,
        "damaged_cells": 3,
        "unlisted_placeholders": 41,
        "written": texts - texts // 200,
        "tokens": told_tokens,
        "generating_seconds": 5138.5,
        "publishing_seconds": 214.2,
        "engine": {"seconds": 5000.0, "tokens": told_tokens, "slot_steps": round(told_tokens / 0.93)},
        "likeness": {"texts": 50_000, "near_duplicates": 812, "opening": "Made of", "with_opening": 3100},
        "error": None,
        "status": 6,
        "flags": {
            "unsupported_number": num_rows // 210,
            "unsupported_material": num_rows // 480,
            "cut_off": num_rows // 900,
            "trimmed": num_rows // 60,
            "repetition": num_rows // 4000,
            "wrong_language": 88,
            "unsupported_brand": 1203,
        },
        "scores": [
            held // 9,
            held // 12,
            0,
            held // 5,
            held // 2,
            generated // 40,
            120,
            80,
            400,
            generated // 6,
            generated,
        ],
        "lengths": [[n * 50, round(texts / 12 * 2.7 ** -(((n - 6) / 3) ** 2))] for n in range(1, 16)],
        "timeline": timeline,
        "worst": sorted(
            (text(seed.randrange(num_rows), seed) for _ in range(num_worst)), key=lambda each: each["score"]
        ),
        "random": [text(seed.randrange(num_rows), seed) for _ in range(num_random)],
    } | told


def summary(*catalogues: Summary, **told: Any) -> Summary:
    """A run's summary in which every key is present; of one catalogue when none is given."""
    return {
        "version": 2,
        "run": "20261126T040000Z",
        "enrich": "0.1.0",
        "base": "tinyllama",
        "base_digest": "6f1c0d0d9c7e4a0a8f9f8f1f6b7c3d2e",
        "adapters": [
            {"column": "department", "values": {"Moda": "adapters/moda", "Livros": "adapters/livros"}},
            {"name": "current", "digest": "b9a6e7", "promoted": True, "trained_on": None},
        ],
        "template_id": "pt-1",
        "settings": {"digest": "90aa", "text": {"max_new_tokens": 160, "temperature": 0.0}},
        "began": "2026-11-26T04:00:00Z",
        "seconds": 5400.0,
        "device": "NVIDIA H100",
        "status": 6,
        "stopped_by": "deadline",
        "gpu_hour_price": 1.2,
        "cost": 1.8,
        "catalogues": list(catalogues) or [catalogue()],
    } | told


def night_before() -> Summary:
    """What `summary()` is compared with: the same catalogue a night earlier."""
    before = catalogue(num_worst=0, num_random=0)
    before["statuses"] = before["statuses"] | {"kept": before["statuses"]["kept"] - 1204, "held": 13_900, "pending": 0}
    before["written"] -= 30_000
    return summary(before, began="2026-11-25T04:00:00Z", seconds=6100.0, cost=2.03, run="20261125T040000Z")


def failed(name: str = "s3://shop/broken.jsonl") -> Summary:
    """A catalogue that could not be read."""
    return {
        "input": name,
        "output": f"{name}.enriched.parquet",
        "records": 0,
        "rows": 0,
        "statuses": {},
        "rejected": {},
        "error": f"{name}: line 3,120: not JSON; mend the line or remove it",
        "status": 65,
    }
