"""Contenders are measured on the same rows and in the ids of training; only the better one is promoted.

The models are real and tiny; the better adapter has learnt, in the fixture, what the references say.
"""

import json
import math
import shutil
import warnings
import weakref
from collections.abc import Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaForCausalLM

from enrich.engine.adapter import Adapter, adapter_in_force, read_adapter
from enrich.engine.bases import find_base
from enrich.engine.model import Model, load_model
from enrich.errors import CatalogueError, ModelUnavailable, NoInput, SettingsError, Stopped
from enrich.products import Product
from enrich.prompt import ModelTokenizer, PromptWriter, Template
from enrich.settings import Settings, load_settings
from tests.engine.conftest import VOCABULARY, build_adapter, build_tiny, edit_json, plain_generate
from train import evaluate as evaluating
from train.evaluate import Example, choose, completion_nats, evaluate, examples_of
from train.measuring.contenders import BASE, IN_FORCE, NEW, contenders, unseen
from train.measuring.evaluation import PAGE, RECORD, read_decision
from train.measuring.measures import Figures
from train.pairs import Pair
from train.registry import promote
from train.split import split_of

TEMPLATE = "<s>[INST] waa wab : {title} [/INST] {description} </s>"
SPLIT = {"seed": 3, "validation_share": 0.2, "test_share": 0.4}
LEARNT = "wdb wdc wdd wde"
NEW_TOKENS = 10


def word(number: int) -> str:
    """Of the tiny vocabulary; no digits, which would be measured as numbers."""
    return "w" + "".join("abcdefghij"[int(digit)] for digit in f"{number:02}")


def titles(split: str) -> list[str]:
    found = [f"{word(40 + one)} {word(40 + two)}" for one, two in combinations(range(14), 2)]
    return [title for title in found if split_of(title, *SPLIT.values()) == split]


TITLES = titles("test")[:16]
PAIRS = [Pair(Product(title), f"{LEARNT} {title.split()[0]}") for title in TITLES]


def write_prepared(folder: Path, pairs: Sequence[Pair], split: str = "test") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = pa.string()
    named = pa.list_(pa.struct([("name", text), ("value", text)]))
    columns = {
        "title": text,
        "attributes": named,
        "description": text,
        "prompt": text,
        "completion": text,
        "text": text,
    }
    for each in ("train", "validation", "test"):
        rows = [
            {
                "title": pair.product.title,
                "attributes": [{"name": name, "value": value} for name, value in pair.product.attributes],
                "description": pair.description,
            }
            for pair in pairs
            if each == split
        ]
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(columns.items()))), folder / f"{each}.parquet")
    shares = {name: SPLIT[name] for name in ("validation_share", "test_share")}
    record = {"digest": "d1g357", "template": TEMPLATE, "seed": SPLIT["seed"], "options": shares}
    (folder / "prepare.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny(tmp_path_factory.mktemp("tiny"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {word(number): number for number in range(3, VOCABULARY)}
    tokenizer["model"]["vocab"] = words
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module")
def settings(base_folder: Path) -> Settings:
    text = {"template": TEMPLATE, "max_prompt_tokens": 24, "max_new_tokens": NEW_TOKENS}
    return load_settings(
        None, {"text": text, "model": {"base": str(base_folder)}, "machine": {"device": "cpu", "batch_rows": 8}}
    )


@pytest.fixture(scope="module")
def writer(base_folder: Path) -> PromptWriter:
    return PromptWriter(Template.parse(TEMPLATE), ModelTokenizer.load(base_folder), 24)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data"), PAIRS)


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory, base_folder: Path, writer: PromptWriter) -> Path:
    """Has learnt the references."""
    folder = build_adapter(tmp_path_factory.mktemp("adapters") / "better", base_folder, zero=True, r=8)
    teach(folder, base_folder, [each for each in examples_of(PAIRS, writer) if each])
    return recorded(folder, base_folder)


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """Random matrices."""
    return recorded(build_adapter(tmp_path_factory.mktemp("adapters") / "worse", base_folder), base_folder)


def teach(folder: Path, base: Path, examples: Sequence[Example]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
        wrapped = peft.PeftModel.from_pretrained(module, folder, is_trainable=True)
        ids = torch.tensor([each.prompt_ids + each.completion_ids for each in examples])
        labels = torch.tensor([(-100,) * len(each.prompt_ids) + each.completion_ids for each in examples])
        optimiser = torch.optim.AdamW([each for each in wrapped.parameters() if each.requires_grad], lr=0.02)
        for _ in range(80):
            optimiser.zero_grad()
            wrapped(input_ids=ids, labels=labels).loss.backward()
            optimiser.step()
        wrapped.save_pretrained(folder)


def recorded(folder: Path, base_folder: Path, **fields: Any) -> Path:
    record = {
        "template": TEMPLATE,
        "template_id": Template.parse(TEMPLATE).id,
        "base": {"preset": "tiny", "digest": find_base(str(base_folder), Path("nowhere")).digest},
        "data_digest": "d1g357",
        "split": SPLIT,
    }
    (folder / "enrich.json").write_text(json.dumps(record | fields))
    return folder


def never() -> bool:
    return False


def read_record(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / RECORD).read_text())
    return record


# --- whole evaluations ------------------------------------------------------------------------------------------


def test_an_adapter_that_has_learnt_is_promoted(data: Path, better: Path, settings: Settings, tmp_path: Path) -> None:
    evaluation = evaluate(data, better, settings, tmp_path / "out")
    base, new = evaluation.figures[BASE], evaluation.figures[NEW]
    assert new.loss < base.loss / 4
    assert new.loss_per_byte / base.loss_per_byte == pytest.approx(new.loss / base.loss)
    assert (new.ended, new.title_copies, new.unsupported_numbers) == (1, 0, 0)
    assert new.chrf > 80 > base.chrf
    assert new.num_rows == base.num_rows == len(PAIRS)
    assert evaluation.decision
    assert evaluation.decision.promoted, evaluation.decision.reasons

    record = read_record(tmp_path / "out")
    assert [each["name"] for each in record["contenders"]] == [BASE, NEW]
    assert record["contenders"][0]["adapter"] is None
    assert record["contenders"][1]["adapter"] == {
        "name": "better",
        "digest": read_adapter(better).digest,
        "data_digest": "d1g357",
    }
    assert Figures(**record["contenders"][1]["figures"]) == new
    assert record["decision"]["promoted"] is True
    assert record["rows"] == {"measured": len(PAIRS), "maybe_seen": 0, "unsayable": 0}
    assert record["data"]["digest"] == "d1g357"
    assert record["settings"]["max_new_tokens"] == NEW_TOKENS
    assert record["versions"]["torch"] == version("torch")
    page = (tmp_path / "out" / PAGE).read_text()
    assert "<h2>Promoted</h2>" in page
    assert all(title in page for title in TITLES)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([RECORD, PAGE])


def test_an_adapter_made_worse_is_not_promoted_by_base_or_adapter_in_force(
    data: Path, better: Path, worse: Path, settings: Settings, tmp_path: Path
) -> None:
    alone = evaluate(data, worse, settings, tmp_path / "alone", max_rows=8)
    against = evaluate(data, worse, settings, tmp_path / "against", against=better, max_rows=8)
    assert list(against.figures) == [BASE, IN_FORCE, NEW]
    for evaluation in (alone, against):
        assert evaluation.decision
        assert not evaluation.decision.promoted
    assert against.figures[NEW] == alone.figures[NEW]
    assert against.figures[IN_FORCE].loss < against.figures[NEW].loss
    assert "<h2>Not promoted</h2>" in (tmp_path / "against" / PAGE).read_text()
    # The control: the other way round it wins.
    reverse = evaluate(data, better, settings, tmp_path / "reverse", against=worse, max_rows=8)
    assert reverse.decision
    assert reverse.decision.promoted


def test_the_same_evaluation_writes_the_same_bytes(
    data: Path, better: Path, settings: Settings, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        evaluate(data, better, settings, tmp_path / name, max_rows=5)
    for name in (RECORD, PAGE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert read_record(tmp_path / "one")["rows"]["measured"] == 5


def test_only_one_model_is_in_memory_at_a_time(
    data: Path, better: Path, worse: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []

    def load(*arguments: Any, **options: Any) -> Model:
        assert not any(model() for model in loaded)
        model = load_model(*arguments, **options)
        loaded.append(weakref.ref(model.module))
        return model

    monkeypatch.setattr(evaluating, "load_model", load)
    evaluate(data, better, settings, tmp_path / "out", against=worse, max_rows=3)
    assert len(loaded) == 3


def test_a_signal_stops_it_while_it_measures_and_while_it_writes(
    data: Path, settings: Settings, tmp_path: Path
) -> None:
    for num_answers in (0, 1, 5):
        answers = iter([False] * num_answers)
        with pytest.raises(Stopped, match="nothing is written, run again"):
            evaluate(data, None, settings, tmp_path / "out", should_stop=lambda asked=answers: next(asked, True))
    assert not (tmp_path / "out").exists()


def test_the_bare_base_can_be_measured_alone_and_nothing_is_decided(
    data: Path, settings: Settings, tmp_path: Path
) -> None:
    evaluation = evaluate(data, None, settings, tmp_path / "out", max_rows=4)
    assert list(evaluation.figures) == [BASE]
    assert evaluation.decision is None


def test_rows_that_a_training_was_stopped_by_decide_nothing(better: Path, settings: Settings, tmp_path: Path) -> None:
    pairs = [Pair(Product(title), LEARNT) for title in titles("validation")[:4]]
    data = write_prepared(tmp_path / "data", pairs, "validation")
    evaluation = evaluate(data, better, settings, tmp_path / "out", split="validation")
    assert evaluation.decision is None
    assert evaluation.num_rows == 4


def test_texts_in_the_page_are_text(better: Path, settings: Settings, tmp_path: Path) -> None:
    evil = Product(f"<script>alert(1)</script> {TITLES[0]}", (("<b>brand</b>", "<img src=x>"),))
    data = write_prepared(tmp_path / "data", [Pair(evil, "</td><script>alert(2)</script>")])
    evaluate(data, better, settings, tmp_path / "out")
    page = (tmp_path / "out" / PAGE).read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "Content-Security-Policy" in page


# --- what is measured -------------------------------------------------------------------------------------------


def by_hand(model: Model, example: Example) -> float:
    """One token after the other, in a row of its own, in float64."""
    nats = 0.0
    for at, target in enumerate(example.completion_ids):
        ids = torch.tensor([example.prompt_ids + example.completion_ids[:at]])
        with torch.inference_mode():
            logits = model.module(input_ids=ids).logits[0, -1].double()
        nats += math.log(float(logits.exp().sum())) - float(logits[target])
    return nats


def uneven(num_examples: int) -> list[Example]:
    """Examples of every length, so that all but one of a batch are padded."""
    numbers = [3 + at % (VOCABULARY - 3) for at in range(400)]
    return [
        Example((1, *numbers[at : at + 2 + at % 5]), (*numbers[3 * at : 3 * at + 1 + at % 7], 2))
        for at in range(num_examples)
    ]


def test_the_loss_is_that_of_a_loop_by_hand(base_folder: Path) -> None:
    model = load_model(find_base(str(base_folder), Path("nowhere")), device="cpu")
    examples = uneven(11)
    done: list[int] = []
    expected = sum(by_hand(model, example) for example in examples)
    assert completion_nats(model, examples, done.append, never) == pytest.approx(expected, rel=1e-5)
    assert sum(done) == len(examples)
    # The controls: without the end token, or with one token shifted, it is another.
    endless = [Example(each.prompt_ids, each.completion_ids[:-1]) for each in examples]
    shifted = [Example((*each.prompt_ids, each.completion_ids[0]), each.completion_ids[1:]) for each in examples]
    for others in (endless, shifted):
        assert completion_nats(model, others, done.append, never) < 0.95 * expected


def test_the_loss_does_not_depend_on_the_batches(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(find_base(str(base_folder), Path("nowhere")), device="cpu")
    examples, batches = uneven(12), []
    whole = completion_nats(model, examples, batches.append, never)
    for max_tokens in (1, 30):
        monkeypatch.setitem(evaluating._MAX_BATCH_TOKENS, "cpu", max_tokens)
        assert completion_nats(model, examples, batches.append, never) == pytest.approx(whole, rel=1e-5)
    assert batches[:1] == [12]
    assert batches[1:13] == [1] * 12


def test_each_text_is_the_one_of_its_own_product(
    data: Path, settings: Settings, writer: PromptWriter, tmp_path: Path, base_folder: Path
) -> None:
    evaluation = evaluate(data, None, settings, tmp_path / "out")
    model = load_model(find_base(str(base_folder), Path("nowhere")), device="cpu")
    texts = []
    for prompt, written in zip(writer.write([pair.product for pair in PAIRS]), evaluation.samples[BASE], strict=True):
        ids = plain_generate(model, prompt.ids, NEW_TOKENS)
        assert written.text == writer.tokenizer.decode(ids)
        assert written.ended == ("eos" if len(ids) < NEW_TOKENS else "length")
        texts.append(written.text)
    # The control: a mix-up would be seen.
    assert len(set(texts)) > len(texts) / 2


def test_pairs_that_no_prompt_can_say_are_left_out_for_all(better: Path, settings: Settings, tmp_path: Path) -> None:
    unsayable = [Pair(Product(f"{TITLES[0]} </s>"), LEARNT), Pair(Product(TITLES[1]), "</s>")]
    data = write_prepared(tmp_path / "data", [*unsayable, *PAIRS[2:5]])
    evaluation = evaluate(data, better, settings, tmp_path / "out")
    assert evaluation.num_rows == 3
    assert evaluation.num_unsayable == 2
    with pytest.raises(CatalogueError, match="no test row can be said"):
        evaluate(write_prepared(tmp_path / "none", unsayable), better, settings, tmp_path / "out")


def test_the_choice_of_rows_stays_when_others_are_added_or_moved() -> None:
    pairs = [Pair(Product(f"Product {number}"), "Text.") for number in range(100)]
    chosen = {pairs[at].product.title for at in choose(pairs, 10)}
    assert len(chosen) == 10
    turned = [*pairs[50:], *pairs[:50]]
    assert {turned[at].product.title for at in choose(turned, 10)} == chosen
    more = [*pairs, *(Pair(Product(f"Other {number}"), "Text.") for number in range(10))]
    assert len(chosen & {more[at].product.title for at in choose(more, 10)}) >= 6
    assert choose(pairs, 10) == sorted(choose(pairs, 10)) != list(range(10))
    assert choose(pairs, None) == choose(pairs, 100) == list(range(100))


# --- on which rows ------------------------------------------------------------------------------------------------


def trained_with(folder: Path, split: object) -> Adapter:
    folder.mkdir()
    (folder / "enrich.json").write_text(json.dumps({"split": split}))
    return Adapter(folder, folder.name, {})


def test_rows_that_either_may_have_learnt_from_are_not_compared_on(tmp_path: Path) -> None:
    pairs = [Pair(Product(f"{word(one)} {word(two)}"), "Text.") for one in range(20, 40) for two in range(one)]
    ours = trained_with(tmp_path / "ours", SPLIT)
    theirs = trained_with(tmp_path / "theirs", {"seed": 4, "validation_share": 0, "test_share": 0.5})
    alone, obstacle = unseen(pairs, "test", [ours])
    assert obstacle is None
    assert len(alone) / len(pairs) == pytest.approx(0.4, abs=0.1)
    both, _ = unseen(pairs, "test", [ours, theirs])
    assert len(both) / len(pairs) == pytest.approx(0.2, abs=0.1)
    for pair in both:
        assert split_of(pair.product.title, *SPLIT.values()) == split_of(pair.product.title, 4, 0, 0.5) == "test"


@pytest.mark.parametrize(
    "split", [None, {}, {"seed": "3", "validation_share": 0.2, "test_share": 0.4}, {"seed": 3, "test_share": 0.4}, []]
)
def test_an_adapter_that_does_not_say_what_it_learnt_from_cannot_be_compared(split: object, tmp_path: Path) -> None:
    rows, obstacle = unseen(PAIRS, "test", [trained_with(tmp_path / "other", split)])
    assert rows == []
    assert obstacle
    assert "does not record how its data was split" in obstacle


def test_without_rows_to_compare_on_nothing_is_promoted_but_all_is_measured(
    data: Path, better: Path, worse: Path, base_folder: Path, settings: Settings, tmp_path: Path
) -> None:
    for name, split, said in (
        ("silent", None, "does not record"),
        ("other", {"seed": 9, "validation_share": 0.0, "test_share": 0.0}, "none of these rows"),
    ):
        in_force = tmp_path / name
        shutil.copytree(worse, in_force)
        recorded(in_force, base_folder, split=split)
        evaluation = evaluate(data, better, settings, tmp_path / "out", against=in_force, max_rows=4)
        assert evaluation.decision
        assert not evaluation.decision.promoted
        assert said in evaluation.decision.reasons[0]
        assert evaluation.num_rows == 4


def test_the_adapter_in_force_is_not_promoted_again(
    data: Path, better: Path, settings: Settings, tmp_path: Path
) -> None:
    evaluation = evaluate(data, better, settings, tmp_path / "out", against=better, max_rows=4)
    assert list(evaluation.figures) == [BASE, NEW]
    assert evaluation.decision
    assert not evaluation.decision.promoted
    assert "is the adapter in force already" in evaluation.decision.reasons[0]


def test_an_adapter_in_force_for_another_base_and_template_is_run_with_its_own(
    better: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_base = build_tiny(tmp_path / "models" / "tinyllama", seed=5)
    in_force = build_adapter(tmp_path / "in_force", other_base)
    template = "<s> {title} : {description} </s>"
    named = {"template": template, "template_id": Template.parse(template).id}
    digest = find_base(str(other_base), tmp_path).digest
    recorded(in_force, other_base, base={"preset": "tinyllama", "digest": digest}, **named)
    monkeypatch.setenv("ENRICH_HOME", str(tmp_path))
    lineup = contenders(read_adapter(better), read_adapter(in_force), settings)
    assert [each.name for each in lineup] == [BASE, IN_FORCE, NEW]
    assert [each.base.digest == digest for each in lineup] == [False, True, False]
    assert [each.template.id == named["template_id"] for each in lineup] == [False, True, False]


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_one_clear_line(data: Path, better: Path, settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(NoInput, match="no prepared folder"):
        evaluate(tmp_path / "nowhere", better, settings, out)
    with pytest.raises(CatalogueError, match="test split is empty"):
        evaluate(write_prepared(tmp_path / "empty", []), better, settings, out)
    with pytest.raises(ModelUnavailable, match="no such adapter folder"):
        evaluate(data, tmp_path / "nowhere", settings, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"template_id": "0" * 32}, "trained with template"),
        ({"base": {"preset": "other", "digest": "0" * 32}}, "trained on other"),
    ],
)
def test_an_adapter_of_another_base_or_template_is_refused(
    fields: dict[str, Any], said: str, data: Path, better: Path, settings: Settings, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(better, other)
    edit_json(other / "enrich.json", **fields)
    with pytest.raises(SettingsError, match=said):
        evaluate(data, other, settings, tmp_path / "out")


# --- the decision, read back --------------------------------------------------------------------------------------


def test_a_decision_is_read_back_only_for_the_adapters_it_is_about(
    data: Path, better: Path, worse: Path, settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    new, other = read_adapter(better), read_adapter(worse)
    with pytest.raises(NoInput, match="no such evaluation"):
        read_decision(out, new, other)
    evaluation = evaluate(data, better, settings, out, against=worse, max_rows=6)
    assert read_decision(out, new, other) == evaluation.decision
    with pytest.raises(SettingsError, match="decides nothing about"):
        read_decision(out, other, other)
    for in_force in (None, new):
        with pytest.raises(SettingsError, match="another adapter is in force"):
            read_decision(out, new, in_force)
    (out / RECORD).write_text("{}")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_decision(out, new, other)


def test_an_evaluation_in_the_adapters_folder_is_what_promotion_goes_by(
    data: Path, better: Path, settings: Settings, tmp_path: Path
) -> None:
    adapter = tmp_path / "home" / "adapters" / "better"
    shutil.copytree(better, adapter)
    digest = read_adapter(adapter).digest
    evaluation = evaluate(data, adapter, settings, adapter, max_rows=6)
    assert read_adapter(adapter).digest == digest
    lines = promote(adapter, tmp_path / "home", force=False)
    assert lines == ["better: promoted", *evaluation.decision.reasons] if evaluation.decision else False
    assert evaluation.lines()[2:] == ["better", *lines[1:]]
    assert adapter_in_force(tmp_path / "home") == tmp_path / "home" / "adapters" / "current"
