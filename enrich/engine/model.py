"""Base and adapter made into weights that are ready to run, and shown to run.

Knows nothing of texts, batches or schedules. It loads from folders only: never from a network, never code,
never a pickle, and never the folder's own generation settings.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from enrich.engine.adapter import NF4, WEIGHTS, Adapter
from enrich.engine.bases import Base
from enrich.errors import EnrichError, ModelUnavailable, SettingsError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["none", "8bit", "4bit"]
Device = Literal["auto", "cpu", "cuda", "mps"]

_PROBE_TOKENS = 16


@dataclass(frozen=True)
class Model:
    """Weights on a device, and the little a generator must know of them.

    `eos_ids` end a text. `pad_id` fills rows: any id that ends no text would do, since pads are masked in a
    prompt and cut after an end. `max_positions` is the longest sequence it was built for, in tokens.
    """

    module: Any
    device: torch.device
    dtype: torch.dtype
    eos_ids: tuple[int, ...]
    pad_id: int
    vocabulary: int
    max_positions: int

    def knows(self, ids: Sequence[int]) -> bool:
        """Whether it has all of these ids: one that it does not have would break the card for every row after it."""
        return all(0 <= i < self.vocabulary for i in ids)

    @property
    def device_name(self) -> str:
        """The card, or cpu: where else shapes may have to differ."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type


def load_model(
    base: Base,
    adapter: Adapter | None = None,
    *,
    dtype: Dtype = "auto",
    quantize: Quantize = "none",
    device: Device = "auto",
) -> Model:
    """Loads `base`, puts `adapter` into it, and tries both on a fixed probe.

    The adapter is merged in float32 before the weights become `dtype`; into quantised weights it is not
    merged. Whether adapter and base belong together is for `Adapter.check` to say beforehand. Raises
    `ModelUnavailable` when the card is absent or too small, the weights are damaged, or the adapter does not
    fit or changes nothing.
    """
    place = pick_device(device)
    number = pick_dtype(dtype, place)
    # Its split of the work may give a row other numbers at another place in the batch (seen on an H100 at 64 rows
    # and 193 columns); the other kernels give every place the same.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if quantize != "none" and place.type != "cuda":
        raise ModelUnavailable(
            f"quantize {quantize}: needs a CUDA card; use none, and dtype bfloat16 to halve the memory"
        )
    base.check()
    with _one_line(base.folder, "model", "fetch the model again"), _quiet():
        if quantize != "none":
            module = _load_quantised(base.folder, quantize, number, place)
        else:
            module = _load(base.folder, dtype=torch.float32 if adapter else number)
            if adapter and adapter.quantization == NF4:
                _round_to_nf4(module, number)
        logits = _probe(module)
    if adapter:
        with _one_line(adapter.folder, "adapter", "train the adapter again"), _quiet():
            module = _attach(module, adapter, merge=quantize == "none")
            if torch.equal(logits, _probe(module)):
                raise ModelUnavailable(f"{adapter.folder}: the adapter changes nothing; train the adapter again")
    with _one_line(base.folder, "model", "take a smaller model or quantize"):
        if quantize == "none":
            module = _cast(module, number).to(place)
        if not torch.isfinite(_probe(module)).all():
            raise ModelUnavailable(f"{base.folder}: logits are not finite in {number}; fetch it again or change dtype")
    return _describe(base.folder, module, place, number)


def load_trainable(base: Base, *, dtype: torch.dtype, quantize: Quantize, device: torch.device) -> Any:
    """The module of `base` alone, on `device`, for training: 4-bit weights are nf4, doubly quantised.

    Raises `ModelUnavailable` as `load_model` does.
    """
    base.check()
    with _one_line(base.folder, "model", "fetch the model again"), _quiet():
        if quantize != "none":
            return _load_quantised(base.folder, quantize, dtype, device)
        return _load(base.folder, dtype=dtype).to(device)


def pick_device(device: Device) -> torch.device:
    """The device of that name; `auto` is the card, where there is one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailable("device cuda: no CUDA card is to be seen; mend the driver, or use device auto or cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ModelUnavailable("device mps: no Apple GPU is to be seen; use device auto or cpu")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def pick_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The number type of that name; `auto` is bfloat16 on a card that has it (Ampere or newer), float16 on an older
    one, float16 on an Apple GPU, float32 on the CPU."""
    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    if device.type == "cpu":
        return torch.float32
    has_bfloat16 = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if has_bfloat16 else torch.float16


def refuse_too_long(model: Model, max_prompt_tokens: int, max_new_tokens: int) -> None:
    """Raises `SettingsError` when prompt and completion together exceed what the model was built for."""
    if max_prompt_tokens + max_new_tokens > model.max_positions:
        raise SettingsError(
            f"max_prompt_tokens {max_prompt_tokens} and max_new_tokens {max_new_tokens} exceed the "
            f"{model.max_positions} positions of the model; lower one of them"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no more memory to give: torch says so in several ways."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    telling = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in telling)


def first_line(error: BaseException) -> str:
    """What an error says, in a line of at most 200 characters; its type when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _load_quantised(folder: Path, quantize: Quantize, dtype: torch.dtype, device: torch.device) -> Any:
    packing = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_8bit=quantize == "8bit",
        load_in_4bit=quantize == "4bit",
        # Above 0, the columns treated as outliers are picked over the whole batch, so that a row's numbers
        # would depend on its batch mates.
        llm_int8_threshold=0.0,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return _load(folder, dtype=dtype, quantization_config=packing, device_map={"": device})


def _load(folder: Path, **options: Any) -> Any:
    _refuse_too_many_layers(folder)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        attn_implementation="sdpa",
        output_loading_info=True,
        **options,
    )
    module, info = loaded
    for fault in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if info.get(fault):
            raise ModelUnavailable(
                f"{folder}: {fault.replace('_', ' ')} in the weights: {_first(info[fault])}; fetch it again"
            )
    # The folder's generation_config.json ends here: what decides a text is in the settings and in the keys.
    module.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    return module.eval()


def _refuse_too_many_layers(folder: Path) -> None:
    """Layers are made before the weights are looked at: a number alone could take all memory."""
    layers = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers")
    tensors = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            tensors += len(weights.keys())
    if isinstance(layers, int) and layers > tensors:
        raise ModelUnavailable(f"{folder}: {layers} layers, and {tensors} tensors in the weights; fetch it again")


def _round_to_nf4(module: Any, dtype: torch.dtype) -> None:
    """Gives the linear layers of the blocks the weights that a QLoRA was trained over: packed and unpacked again.

    Merged into the weights as they were before, such an adapter corrects errors that are not there (Dettmers et
    al. 2023, QLoRA). The head and the embeddings are never packed.
    """
    import bitsandbytes.functional as packing

    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and "lm_head" not in name:
            # Trained over weights of this type; merging goes on in float32.
            weight = layer.weight.data.to(place, dtype)
            packed, state = packing.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
            layer.weight.data = packing.dequantize_4bit(packed, state).to(layer.weight)


def _attach(module: Any, adapter: Adapter, merge: bool) -> Any:
    tensors = load_file(adapter.folder / WEIGHTS)
    _refuse_too_high_a_rank(adapter, tensors)
    config = LoraConfig(**adapter.peft, task_type="CAUSAL_LM", inference_mode=True)
    wrapped = get_peft_model(module, config)
    _refuse_misfit(adapter.folder, get_peft_model_state_dict(wrapped, save_embedding_layers=False), tensors)
    set_peft_model_state_dict(wrapped, tensors)
    return (wrapped.merge_and_unload(safe_merge=True) if merge else wrapped).eval()


def _refuse_too_high_a_rank(adapter: Adapter, tensors: dict[str, torch.Tensor]) -> None:
    """peft makes its matrices before it is given the weights: a number alone could take all memory."""
    ranks = [adapter.peft["r"], *adapter.peft.get("rank_pattern", {}).values()]
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for rank in ranks:
        if not isinstance(rank, int) or rank > largest:
            raise ModelUnavailable(f"{adapter.folder}: no tensor is as large as rank {rank}; train the adapter again")


def _refuse_misfit(folder: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    for names, fault in ((expected.keys() - found, "lacks"), (found.keys() - expected, "has no place for")):
        if names:
            raise ModelUnavailable(f"{folder}: {fault} {_first(names)}; it was trained on another model")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise ModelUnavailable(
                f"{folder}: {name} has shape {tuple(tensor.shape)}, the model takes "
                f"{tuple(expected[name].shape)}; it was trained on another model"
            )
        if not torch.isfinite(tensor).all():
            raise ModelUnavailable(f"{folder}: {name} is not finite; train the adapter again")


def _cast(module: Any, dtype: torch.dtype) -> Any:
    # Parameters only: `Module.to` would take the rotary frequencies along, which must stay in float32.
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    module.config.dtype = dtype
    return module


def _probe(module: Any) -> torch.Tensor:
    """The logits, (tokens, vocabulary) in float32, of a few fixed ids."""
    device = module.get_input_embeddings().weight.device
    ids = torch.arange(1, _PROBE_TOKENS + 1, device=device) % module.config.vocab_size
    with torch.inference_mode():
        logits: torch.Tensor = module(input_ids=ids[None]).logits[0].float().cpu()
    return logits


def _describe(folder: Path, module: Any, device: torch.device, dtype: torch.dtype) -> Model:
    vocabulary = module.config.vocab_size
    eos_ids = _eos_ids(folder, module.config)
    pad_id = next(i for i in range(vocabulary) if i not in eos_ids)
    return Model(module, device, dtype, eos_ids, pad_id, vocabulary, module.config.max_position_embeddings)


def _eos_ids(folder: Path, config: Any) -> tuple[int, ...]:
    # Both: a chat model's configuration may name one end and its tokenizer, which training uses, another.
    configured = config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {_tokenizer_eos(folder)}
    known = sorted(i for i in ids if i is not None and 0 <= i < config.vocab_size)
    if not known:
        raise ModelUnavailable(
            f"{folder}: neither config.json nor the tokenizer names an end token; its texts never end"
        )
    return tuple(known)


def _tokenizer_eos(folder: Path) -> int | None:
    file = folder / "tokenizer_config.json"
    with _one_line(folder, "tokenizer", "fetch the model again"):
        token = json.loads(file.read_text(encoding="utf-8")).get("eos_token") if file.exists() else None
        content = token["content"] if isinstance(token, dict) else token
        found: int | None = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(content or "")
    return found


def _first(names: Any) -> str:
    ordered = sorted(map(str, names))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} and {len(ordered) - 1} more"


@contextmanager
def _one_line(folder: Path, what: str, remedy: str) -> Iterator[None]:
    """Whatever the libraries raise over a damaged file becomes one line: their errors share no ancestor."""
    try:
        yield
    except EnrichError:
        raise
    except (torch.OutOfMemoryError, MemoryError):
        raise ModelUnavailable(
            f"{folder}: the {what} does not fit into memory; take a smaller one or quantize"
        ) from None
    except Exception as error:
        raise ModelUnavailable(f"{folder}: the {what} cannot be used ({first_line(error)}); {remedy}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries' progress bars and notices to their own developers off the operator's terminal."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Its report of the weights quotes names as the file has them; ours says the same in one line.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
