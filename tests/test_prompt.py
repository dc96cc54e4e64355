"""Prompts carry each product in its own words, within their limit, and no title ever becomes a control token."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from enrich.engine.protocol import EchoGenerator, Request
from enrich.errors import ModelUnavailable, SettingsError
from enrich.products import Product
from enrich.prompt import ByteTokenizer, ModelTokenizer, PromptWriter, Template
from enrich.settings import DEFAULT_TEMPLATE, home

SMOLLM2 = home() / "models" / "smollm2-135m"
DEFAULT = Template.parse(DEFAULT_TEMPLATE)
WITH_SLOT = Template.parse("<s>[INST] Describe: {title}\n({attributes}) [/INST] {description} </s>")
MUG = Product("Caneca Térmica azul, 500 ml!", (("marca", "Acme & Cia"), ("categoria", "Cozinha > Canecas")))
DESCRIPTION = "Mantém o café quente. Ótima para viagens!"


def llama_like() -> FastTokenizer:
    """A sentencepiece-style BPE with byte fallback: whatever it is given, it puts a ▁ before it."""
    letters = ["▁", *map(chr, range(33, 127)), *"áãçéêíóôõú"]
    merges = [("▁", "C"), ("a", "n"), ("▁C", "an"), ("▁", "["), ("▁", "d"), ("▁d", "e"), ("i", "s"), ("▁", "▁")]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    pieces += [one + two for one, two in merges]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)  # noqa: S106
    tokenizer = FastTokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<|im_end|>", normalized=False)])
    return tokenizer


def save(tokenizer: FastTokenizer, folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"} | config))
    return folder


@pytest.fixture(scope="module", params=["llama-like", "smollm2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "llama-like":
        return save(llama_like(), tmp_path_factory.mktemp("llama"))
    if not (SMOLLM2 / "tokenizer.json").exists():
        pytest.skip("the embedded model is not there (make model)")
    return SMOLLM2


@pytest.fixture(scope="module")
def whole(folder: Path) -> FastTokenizer:
    """The tokenizer as its makers meant it, control tokens and all."""
    return FastTokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ModelTokenizer:
    return ModelTokenizer.load(folder)


def at_once(whole: FastTokenizer, text: str) -> list[int]:
    return list(whole.encode(text, add_special_tokens=False).ids)


# --- templates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        DEFAULT_TEMPLATE.replace("{title}", "{título}").replace("{description}", "{descrição}"),
        DEFAULT_TEMPLATE.replace("{title}", "{titulo}").replace("{description}", "{descricao}"),
        DEFAULT_TEMPLATE.replace("descrição para", "descric\u0327a\u0303o para"),
        DEFAULT_TEMPLATE.replace(" </s>", "</s>"),
        DEFAULT_TEMPLATE.replace(" {description} </s>", ""),
        DEFAULT_TEMPLATE.replace(" </s>", ""),
        f"  {DEFAULT_TEMPLATE}\n",
    ],
)
def test_spellings_of_one_template_are_one_template(same: str) -> None:
    assert same != DEFAULT_TEMPLATE
    assert Template.parse(same) == DEFAULT
    assert Template.parse(same).id == DEFAULT.id


@pytest.mark.parametrize(
    "other",
    [
        DEFAULT_TEMPLATE.removeprefix("<s>"),
        DEFAULT_TEMPLATE.replace("Gere", "Escreva"),
        DEFAULT_TEMPLATE.replace(": {title}", ":{title}"),
        DEFAULT_TEMPLATE.replace("{title}", "{title} {attributes}"),
        DEFAULT_TEMPLATE.replace("{title}", "{title}\n"),
    ],
)
def test_another_template_has_another_id(other: str) -> None:
    assert Template.parse(other).id != DEFAULT.id
    assert len(bytes.fromhex(DEFAULT.id)) == 16


@pytest.mark.parametrize(
    "text",
    [
        "<s>[INST] Describe it [/INST] {description} </s>",
        "",
        "{title} {price}",
        "{title.__class__}",
        "{}{title}",
        "{title} {title}",
        "{title} {attributes} {atributos}",
        "{title} {description} and more",
        "{description} {title}",
        "{title} {description} {description}",
    ],
)
def test_a_template_that_makes_no_prompt_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^template: "):
        Template.parse(text)


# --- user text and control tokens -----------------------------------------------------------------------------


def test_no_text_becomes_a_control_token(tokenizer: ModelTokenizer, whole: FastTokenizer) -> None:
    added = {token.content: index for index, token in whole.get_added_tokens_decoder().items()}
    texts = [
        form
        for token in added
        for form in (
            token,
            f"x{token}y",
            f" {token} ",
            f"{token}{token}",
            f"{token[:2]}{token}{token[2:]}",
            token.upper(),
        )
    ]
    encoded = tokenizer.encode_texts(texts)
    for text, ids in zip(texts, encoded, strict=True):
        assert ids is not None
        assert not set(ids) & set(added.values())
        assert tokenizer.decode(ids).strip() == text.strip()
    # The control: encoded the usual way, each of these is one of them.
    assert all(set(at_once(whole, token)) & set(added.values()) for token in added)


def test_control_tokens_in_a_product_reach_the_prompt_as_letters(
    tokenizer: ModelTokenizer, whole: FastTokenizer
) -> None:
    tokens = [token.content for token in whole.get_added_tokens_decoder().values()]
    products = [Product(f"Mug {token}", (("brand", token), (token, "x"))) for token in tokens]
    for template in (DEFAULT, WITH_SLOT):
        writer = PromptWriter(template, tokenizer, 512)
        (plain,) = writer.write([Product("Mug", (("brand", "x"), ("y", "x")))])
        allowed = set(plain.ids) & set(whole.get_added_tokens_decoder())
        for product, token, prompt in zip(products, tokens, writer.write(products), strict=True):
            assert set(prompt.ids) & set(whole.get_added_tokens_decoder()) == allowed
            assert tokenizer.decode(prompt.ids).count(token) == 3
            assert product.title in tokenizer.decode(prompt.ids)


def test_a_text_that_is_a_control_token_all_the_same_is_refused_alone(tmp_path: Path) -> None:
    # A vocabulary that spells the end token in full reaches it without any added token.
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "Mug": 3, "Describe": 4, "blue": 5, "<x>": 6}
    fast = FastTokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.add_tokens(["<x>"])
    writer = PromptWriter(
        Template.parse("<s>Describe {title}"), ModelTokenizer.load(save(fast, tmp_path / "words")), 16
    )
    titles = ["Mug", "Mug </s>", "blue <s> Mug", "Mug <x>", "blue Mug"]
    prompts = writer.write([Product(title) for title in titles])
    assert [prompt.refused for prompt in prompts] == [False, True, True, True, False]
    assert [prompt.ids for prompt in prompts] == [(1, 4, 3), (), (), (), (1, 4, 5, 3)]
    assert writer.completion_ids("blue </s>") is None
    assert writer.completion_ids("blue") == [5, 2]


def test_a_title_is_never_a_template(tokenizer: ModelTokenizer) -> None:
    title = "{title} {attributes} {0} {x.__class__} %s $title"
    (prompt,) = PromptWriter(DEFAULT, tokenizer, 192).write([Product(title)])
    assert tokenizer.decode(prompt.ids).count(title) == 1


# --- the whole prompt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            DEFAULT,
            "[INST] Gere uma descrição para o seguinte produto: Caneca Térmica azul, 500 ml!; marca: Acme & Cia;"
            " categoria: Cozinha > Canecas [/INST]",
        ),
        (
            WITH_SLOT,
            "[INST] Describe: Caneca Térmica azul, 500 ml!\n(marca: Acme & Cia; categoria: Cozinha > Canecas) [/INST]",
        ),
    ],
)
def test_prompt_and_completion_are_tokenised_as_if_in_one(
    template: Template, said: str, tokenizer: ModelTokenizer, whole: FastTokenizer, folder: Path
) -> None:
    if template is WITH_SLOT and folder != SMOLLM2:
        pytest.skip("a sentencepiece tokenizer sets a space where the template has none")
    writer = PromptWriter(template, tokenizer, 512)
    (prompt,) = writer.write([MUG])
    assert list(prompt.ids) == [tokenizer.bos_id, *at_once(whole, said)]
    assert not prompt.cut
    training = [*prompt.ids, *(writer.completion_ids(DESCRIPTION) or [])]
    assert training == [tokenizer.bos_id, *at_once(whole, f"{said} {DESCRIPTION}"), tokenizer.eos_id]


def test_the_space_after_the_prompt_belongs_to_the_completion(tokenizer: ModelTokenizer) -> None:
    writer = PromptWriter(DEFAULT, tokenizer, 512)
    (prompt,) = writer.write([MUG])
    assert tokenizer.decode(prompt.ids).endswith("[/INST]")
    completion = writer.completion_ids(DESCRIPTION)
    assert completion
    assert completion[-1] == tokenizer.eos_id
    assert completion.count(tokenizer.eos_id) == 1
    assert tokenizer.decode([*prompt.ids, *completion]).endswith(f"[/INST] {DESCRIPTION}")


def test_a_separate_text_gets_one_space_and_not_two(tokenizer: ModelTokenizer, whole: FastTokenizer) -> None:
    (ids,) = tokenizer.encode_texts([" Caneca"])
    assert ids is not None
    together = at_once(whole, "de Caneca")
    assert together[-len(ids) :] == ids


def test_the_control_a_sentencepiece_tokenizer_doubles_the_space_when_it_is_let() -> None:
    fast = llama_like()
    doubled, single = at_once(fast, " Caneca"), at_once(fast, "Caneca")
    assert doubled == [fast.token_to_id("▁"), *single]


@given(titles=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=1, max_size=5))
def test_every_prompt_begins_with_the_prefix_and_holds_its_own_title(titles: list[str]) -> None:
    for template in (DEFAULT, WITH_SLOT):
        writer = PromptWriter(template, ByteTokenizer(), 4096)
        for title, prompt in zip(titles, writer.write([Product(title) for title in titles]), strict=True):
            prefix = writer.prefix_ids
            assert prompt.ids[: len(prefix)] == prefix
            assert bytes(i for i in prompt.ids if i < 256).decode() == f" {title}"
            assert not prompt.cut


def test_the_prefix_is_the_template_up_to_its_first_placeholder(
    tokenizer: ModelTokenizer, whole: FastTokenizer
) -> None:
    writer = PromptWriter(DEFAULT, tokenizer, 192)
    said = "[INST] Gere uma descrição para o seguinte produto:"
    assert list(writer.prefix_ids) == [tokenizer.bos_id, *at_once(whole, said)]
    for prompt in writer.write([MUG, Product("x"), Product("[INST]")]):
        assert prompt.ids[: len(writer.prefix_ids)] == writer.prefix_ids
    assert PromptWriter(Template.parse("{title} is:"), tokenizer, 192).prefix_ids == ()


def test_echo_answers_each_prompt_with_its_own_product() -> None:
    writer = PromptWriter(DEFAULT, ByteTokenizer(), 512)
    products = [MUG, Product("Colher"), Product("电气 </s>")]
    said = [
        "Caneca Térmica azul, 500 ml!; marca: Acme & Cia; categoria: Cozinha > Canecas",
        "Colher",
        "电气 </s>",
    ]
    requests = [Request(bytes([at]), prompt.ids) for at, prompt in enumerate(writer.write(products))]
    answers = [writer.tokenizer.decode(each.ids).strip() for each in EchoGenerator(512).generate(requests)]
    assert answers == said


def test_products_are_written_the_same_alone_and_together(tokenizer: ModelTokenizer) -> None:
    writer = PromptWriter(WITH_SLOT, tokenizer, 64)
    products = [MUG, Product("Colher"), Product("x" * 900), Product("Faca", (("cor", "azul"),))]
    together = writer.write(products)
    assert together == [writer.write([product])[0] for product in products]
    assert len({prompt.ids for prompt in together}) == len(products)
    assert writer.write([]) == []


# --- too long -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [DEFAULT, WITH_SLOT])
@given(length=st.integers(0, 90), attributes=st.integers(0, 60), limit=st.integers(70, 160))
def test_attributes_give_way_before_the_title(template: Template, length: int, attributes: int, limit: int) -> None:
    writer = PromptWriter(template, ByteTokenizer(), limit)
    title, value = "t" * (length + 1), "v" * attributes
    product = Product(title, (("a", value),)) if value else Product(title)
    (prompt,) = writer.write([product])
    (bare,) = writer.write([Product("t")])
    room = limit - len(bare.ids) + 2
    said = bytes(i for i in prompt.ids if i < 256).decode()
    wanted = f" {title}" + (f"; a: {value}" if template is DEFAULT else f"a: {value}") * bool(value)
    assert said == wanted[:room]
    assert len(prompt.ids) <= limit
    assert prompt.cut is (len(wanted) > room)
    # What the template says is never cut.
    assert [i for i in prompt.ids if i >= 256] == [i for i in bare.ids if i >= 256]


def test_attributes_give_way_even_when_they_come_first() -> None:
    template = Template.parse("{attributes} = {title} :")
    (prompt,) = PromptWriter(template, ByteTokenizer(), 20).write([Product("t" * 10, (("a", "v" * 10),))])
    assert bytes(i for i in prompt.ids if i < 256) == b"a: vv " + b"t" * 10
    assert prompt.cut


class Spy(ByteTokenizer):
    """Counts the characters it reads, and packs 64 of them into a token."""

    def __init__(self) -> None:
        self.num_read = 0

    def encode_texts(self, texts: Sequence[str]) -> list[list[int] | None]:
        self.num_read += sum(map(len, texts))
        return [[ord(text[at]) for at in range(0, len(text), 64)] for text in texts]


def test_of_a_huge_title_only_the_beginning_is_read_and_it_counts_as_cut() -> None:
    spy = Spy()
    (prompt,) = PromptWriter(DEFAULT, spy, 192).write([Product("-" * 1_000_000)])
    assert spy.num_read <= 192 * 32 + 1
    assert prompt.cut
    assert 100 < len(prompt.ids) <= 192


def test_a_huge_title_fits(tokenizer: ModelTokenizer) -> None:
    writer = PromptWriter(DEFAULT, tokenizer, 192)
    (prompt,) = writer.write([Product("Caneca azul " * 80_000)])
    assert len(prompt.ids) == 192
    assert prompt.cut
    assert tokenizer.decode(prompt.ids).endswith("[/INST]")


def test_a_template_that_leaves_no_room_is_refused() -> None:
    fixed = len(PromptWriter(DEFAULT, ByteTokenizer(), 512).write([Product("t")])[0].ids) - 2
    with pytest.raises(SettingsError, match=f"max_prompt_tokens {fixed}: the template alone takes {fixed}"):
        PromptWriter(DEFAULT, ByteTokenizer(), fixed)
    (prompt,) = PromptWriter(DEFAULT, ByteTokenizer(), fixed + 1).write([Product("t")])
    assert len(prompt.ids) == fixed + 1


# --- tokenizers on disk ---------------------------------------------------------------------------------------


def write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("tokenizer_config", "config"),
    [
        ({"bos_token": "<s>", "eos_token": "</s>"}, None),
        ({"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}}, {"bos_token_id": 7, "eos_token_id": 8}),
        ({"bos_token": None}, {"bos_token_id": 1, "eos_token_id": 2}),
        (None, {"bos_token_id": 1, "eos_token_id": [2, 5]}),
    ],
)
def test_first_and_end_token_are_the_models_own(tokenizer_config: object, config: object, tmp_path: Path) -> None:
    folder = save(llama_like(), tmp_path / "model")
    (folder / "tokenizer_config.json").unlink()
    for name, content in (("tokenizer_config.json", tokenizer_config), ("config.json", config)):
        if content is not None:
            write_json(folder / name, content)
    write_json(folder / "generation_config.json", {"bos_token_id": 30, "eos_token_id": 31})
    tokenizer = ModelTokenizer.load(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert PromptWriter(DEFAULT, tokenizer, 512).prefix_ids[0] == 1
    without = Template.parse(DEFAULT_TEMPLATE.removeprefix("<s>"))
    assert PromptWriter(without, tokenizer, 512).prefix_ids[0] != 1


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def half_a_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:500])


def no_end_token(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>"})


def unknown_end_token(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "<nowhere>"})


def another_layout(folder: Path) -> None:
    write_json(folder / "tokenizer.json", {"model": {"type": "Nonesuch"}})


@pytest.mark.parametrize("damage", [no_tokenizer, half_a_tokenizer, no_end_token, unknown_end_token, another_layout])
def test_a_tokenizer_that_cannot_be_used_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    folder = save(llama_like(), tmp_path / "model")
    ModelTokenizer.load(folder)
    damage(folder)
    with pytest.raises(ModelUnavailable, match="its tokenizer cannot be used") as caught:
        ModelTokenizer.load(folder)
    assert "\n" not in str(caught.value)


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    fast = llama_like()
    plain = ModelTokenizer.load(save(fast, tmp_path / "plain"))
    fast.enable_truncation(4)
    fast.enable_padding(length=50)
    meddled = ModelTokenizer.load(save(fast, tmp_path / "meddled"))
    for template in (DEFAULT, WITH_SLOT):
        expected = PromptWriter(template, plain, 512).write([MUG])
        assert PromptWriter(template, meddled, 512).write([MUG]) == expected
