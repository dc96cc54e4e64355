"""The model card of an adapter: what it is, what it was made from, and how to use it."""

from typing import Any

_CARD = """\
# {name}

A LoRA adapter (rank {rank}) that makes `{base}` write product descriptions.

| | |
| --- | --- |
| base | `{base}`, digest `{base_digest}` |
| template | `{template}` |
| trained over | {weights} |
| training | {steps} steps, {epochs} epochs, learning rate {learning_rate}, completion-only loss |
| validation loss | {loss} |

## Data

{data}

Licence of the data: {license}.

Texts that this tool wrote itself are never trained on. `training.json` beside this file has the whole log,
`enrich.json` what the tool checks before it uses the adapter, `loss.png` the curve.

## Use

```
enrich run catalog.parquet --adapter {name}
```

The texts are a small model's: they can be wrong about a product.
"""


def model_card(name: str, record: dict[str, Any], training: dict[str, Any]) -> str:
    """Markdown. `record` is `prepare.json` of the data, `training` is `training.json`."""
    request = training["request"]
    preset = request["preset"]
    loss = training["validation_loss"]
    inputs = (f"- `{each['name']}`: {each['rows']:,} rows" for each in record["inputs"])
    return _CARD.format(
        name=name,
        rank=preset["rank"],
        base=request["base"]["preset"],
        base_digest=request["base"]["digest"],
        template=request["template"],
        weights="4-bit weights (nf4, doubly quantised)" if preset["quantize"] == "4bit" else preset["dtype"],
        steps=training["steps"],
        epochs=training["epochs"],
        learning_rate=preset["learning_rate"],
        loss="not measured" if loss is None else f"{loss:.3f} nats a token",
        data="\n".join(inputs),
        license=record.get("license") or "not stated",
    )
