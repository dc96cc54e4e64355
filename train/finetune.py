"""Prepared pairs → a LoRA adapter, by TRL's `SFTTrainer`.

Only the completion is learnt, its end included; packed sequences never see each other; prompt ids are those of
generation, made by the same `PromptWriter`. A run that is killed goes on from its last checkpoint, with the same
order of the data; an adapter appears under its name complete or not at all.
"""

import json
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from enrich import durable
from enrich.engine.bases import Base, find_base
from enrich.engine.model import load_trainable, pick_device, pick_dtype
from enrich.errors import CatalogueError, EnrichError, IOFailure, ModelUnavailable, Stopped, UsageError
from enrich.prompt import ModelTokenizer, PromptWriter, Template
from enrich.settings import Settings, home
from train.pairs import PAIR_SCHEMA, num_rows_of, pairs_of, read_record
from train.settings import TARGETS, Preset
from train.training.callbacks import Clock, Progress, StopWhen
from train.training.export import write_adapter

# isort: split
# Behind `enrich.engine.model`, which keeps the libraries off the network.
import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, pack_dataset

# isort: split
from train.training.packed import NO_LOSS, Collator
from train.training.trainer import PackedTrainer, can_compile

log = logging.getLogger("enrich")

SEED = 0
# More would only make every evaluation slower, not the choice of a checkpoint better.
_MAX_VALIDATION_PAIRS = 2000
_MAX_STEPS_BETWEEN_CHECKPOINTS = 500
_PATIENCE = 3
_WARMUP_SHARE = 0.05
_RECORD = "request.json"


@dataclass(frozen=True)
class Trained:
    """An adapter and how its training went; `validation_loss` (nats a token) is None without validation pairs."""

    folder: Path
    validation_loss: float | None
    tokens_per_second: float
    was_there: bool = False

    def lines(self) -> list[str]:
        """What a person reads after a training."""
        loss = "not measured" if self.validation_loss is None else f"{self.validation_loss:.3f} nats a token"
        if self.was_there:
            return [f"{self.folder}: was trained before, validation loss {loss}"]
        return [f"{self.folder}: validation loss {loss}, {self.tokens_per_second:,.0f} tokens/s trained"]


def finetune(
    data: Path, out: Path, settings: Settings, preset: Preset, should_stop: Callable[[], bool] = lambda: False
) -> Trained:
    """Trains on the prepared folder `data` and makes the adapter folder `out`.

    An `out` that the same request made before is left as it is. Raises `ModelUnavailable` when the machine or the
    base is not there, `UsageError` when `out` is something else, `CatalogueError` when there is nothing to
    learn from, and `Stopped` when `should_stop` said so: run again, and it goes on.
    """
    base = find_base(settings.model.base or preset.base, home())
    run = _Run(data, out, settings, preset, base, read_record(data), should_stop)
    if out.exists():
        return run.former()
    with _plain_errors(out):
        return run.train()


def free_cuda_bytes() -> int | None:
    """Free memory of the first card, or None when there is none."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


@dataclass(frozen=True)
class _Run:
    data: Path
    out: Path
    settings: Settings
    preset: Preset
    base: Base
    record: dict[str, Any]
    should_stop: Callable[[], bool]

    @property
    def work(self) -> Path:
        """Where the training lives until its adapter has a name."""
        return self.out.with_name(f".{self.out.name}.training")

    @property
    def request(self) -> dict[str, Any]:
        """Everything that decides the adapter."""
        text = self.settings.text
        return {
            "base": {"preset": self.base.name, "digest": self.base.digest},
            "data_digest": self.record["digest"],
            "template": text.template,
            "template_id": Template.parse(text.template).id,
            "max_prompt_tokens": text.max_prompt_tokens,
            "preset": asdict(self.preset),
            "seed": SEED,
        }

    def former(self) -> Trained:
        """What `out` holds, if it is what was asked for."""
        file = self.out / "training.json"
        made = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if made.get("request") != self.request:
            raise UsageError(f"{self.out}: is there and was not made from this request; name another --out")
        return Trained(self.out, made["validation_loss"], made["tokens_per_second"], was_there=True)

    def train(self) -> Trained:
        if self.preset.needs_cuda and not torch.cuda.is_available():
            raise ModelUnavailable(f"preset {self.preset.name}: needs a CUDA card; without one take smollm2-cpu")
        self._begin()
        writer = self._writer()
        train = self._packed("train", writer, None)
        validation = self._packed("validation", writer, _MAX_VALIDATION_PAIRS)
        if not len(train):
            raise CatalogueError(f"{self.data}: no pair to learn from fits into {self.preset.sequence_tokens} tokens")
        with _quiet():
            trainer = self._trainer(train, validation, writer.tokenizer.eos_id)
            clock = Clock(sum(map(sum, train.with_format(None)["seq_lengths"])), _synchronise)
            trainer.add_callback(clock)
            trainer.train(resume_from_checkpoint=_last_checkpoint(self.work))
        if self.should_stop():
            raise Stopped(f"stopped while training {self.out.name}; run again, it goes on from its last checkpoint")
        return self._export(trainer, clock)

    def _begin(self) -> None:
        """Keeps the checkpoints of the same request and drops those of any other."""
        wanted = json.dumps(self.request, indent=2, sort_keys=True)
        file = self.work / _RECORD
        if file.is_file() and file.read_text(encoding="utf-8") == wanted:
            return
        if self.work.exists():
            log.info("%s: begun with other data or settings; starting anew", self.work)
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True)
        file.write_text(wanted, encoding="utf-8")

    def _writer(self) -> PromptWriter:
        text = self.settings.text
        tokenizer = ModelTokenizer.load(self.base.folder)
        return PromptWriter(Template.parse(text.template), tokenizer, text.max_prompt_tokens)

    def _packed(self, split: str, writer: PromptWriter, max_pairs: int | None) -> Dataset:
        """Sequences of several examples each: input_ids, labels and seq_lengths, the tokens of each example.

        Read, tokenised and packed through files of the work folder, so that memory stays flat.
        """
        disable_progress_bars()
        file = self.data / f"{split}.parquet"
        if not num_rows_of(file):
            # The library cannot read a file without a row.
            return Dataset.from_dict({"input_ids": [], "labels": [], "seq_lengths": []})
        pairs = Dataset.from_parquet(str(file), columns=PAIR_SCHEMA.names, cache_dir=str(self.work / "datasets"))
        pairs = pairs.select(range(min(len(pairs), max_pairs or len(pairs))))
        examples = pairs.with_format("arrow").map(
            lambda rows: tokenised(rows, writer, self.preset.sequence_tokens),
            batched=True,
            remove_columns=pairs.column_names,
            # Of the work folder's own: what it holds was all made for one request.
            new_fingerprint=f"{split}-examples",
        )
        if len(examples) < len(pairs):
            log.warning(
                "%s: %d of %d pairs are too long or cannot be said", split, len(pairs) - len(examples), len(pairs)
            )
        if not len(examples):
            return examples
        return pack_dataset(examples.with_format(None), self.preset.sequence_tokens, "bfd").with_format("numpy")

    def _trainer(self, train: Dataset, validation: Dataset, eos_id: int) -> PackedTrainer:
        device = pick_device(self.settings.machine.device)
        number = _number(self.preset, device)
        module = load_trainable(self.base, dtype=number, quantize=self.preset.quantize, device=device)
        arguments = self._arguments(len(train), len(validation) > 0, number, device)
        callbacks: list[TrainerCallback] = [StopWhen(self.should_stop), Progress()]
        if len(validation):
            callbacks.append(EarlyStoppingCallback(_PATIENCE))
        trainer = PackedTrainer(
            model=module,
            args=arguments,
            train_dataset=train,
            eval_dataset=validation if len(validation) else None,
            processing_class=_tokenizer(self.base, eos_id),
            data_collator=Collator(
                self.preset.sequence_tokens, self.preset.row_tokens if can_compile(device, number) else None
            ),
            peft_config=_lora(self.preset),
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                # TRL keeps those over quantised weights in bfloat16, which no card before Ampere can scale, and
                # in which small steps are lost.
                parameter.data = parameter.data.float()
        return trainer

    def _arguments(self, num_sequences: int, has_validation: bool, number: torch.dtype, device: torch.device) -> Any:
        preset = self.preset
        steps_per_epoch = math.ceil(num_sequences / preset.sequences_per_step)
        steps = math.ceil(preset.epochs * steps_per_epoch)
        between = min(_MAX_STEPS_BETWEEN_CHECKPOINTS, max(1, steps_per_epoch // 2))
        return SFTConfig(
            output_dir=str(self.work / "checkpoints"),
            num_train_epochs=preset.epochs,
            learning_rate=preset.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(_WARMUP_SHARE * steps),
            optim="adamw_torch_fused",
            per_device_train_batch_size=preset.batch_sequences,
            per_device_eval_batch_size=preset.batch_sequences,
            gradient_accumulation_steps=preset.sequences_per_step // preset.batch_sequences,
            gradient_checkpointing=preset.gradient_checkpointing,
            fp16=number == torch.float16,
            # The cards that have bfloat16 have TF32 too.
            tf32=(number == torch.float32 and pick_dtype("auto", device) == torch.bfloat16) or None,
            use_cpu=device.type == "cpu",
            # They are tokenised, labelled and packed by now.
            dataset_kwargs={"skip_prepare_dataset": True},
            shuffle_dataset=False,
            eval_strategy="steps" if has_validation else "no",
            eval_steps=between,
            save_strategy="steps",
            save_steps=between,
            save_total_limit=2,
            load_best_model_at_end=has_validation,
            metric_for_best_model="eval_loss" if has_validation else None,
            greater_is_better=False if has_validation else None,
            restore_callback_states_from_checkpoint=True,
            logging_steps=max(1, steps // 200),
            logging_first_step=True,
            # It would ask the card after every step.
            logging_nan_inf_filter=False,
            seed=SEED,
            data_seed=SEED,
            disable_tqdm=True,
            report_to="none",
        )

    def _export(self, trainer: PackedTrainer, clock: Clock) -> Trained:
        partial = self.work / "adapter"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        state = get_peft_model_state_dict(trainer.model, save_embedding_layers=False)
        tensors = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in state.items()}
        lora = trainer.model.peft_config["default"].to_dict()
        training = self._training(trainer, clock)
        write_adapter(partial, self.out.name, tensors, lora, self.record, training)
        durable.replace_folder(partial, self.out)
        shutil.rmtree(self.work, ignore_errors=True)
        return Trained(self.out, training["validation_loss"], clock.tokens_per_second)

    def _training(self, trainer: PackedTrainer, clock: Clock) -> dict[str, Any]:
        """How it went, as `training.json` tells it. Times in seconds, losses in nats a token."""
        losses = [each["eval_loss"] for each in trainer.state.log_history if "eval_loss" in each]
        return {
            "request": self.request,
            "validation_loss": min(losses, default=None),
            "best_step": trainer.state.best_global_step,
            "steps": trainer.state.global_step,
            "epochs": round(trainer.state.epoch or 0.0, 3),
            "trained_tokens": clock.tokens,
            "training_seconds": round(clock.seconds, 2),
            "first_step_seconds": round(clock.first_step_seconds, 2),
            "tokens_per_second": clock.tokens_per_second,
            "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            "log": trainer.state.log_history,
        }


def tokenised(rows: pa.Table, writer: PromptWriter, max_tokens: int) -> dict[str, list[list[int]]]:
    """`input_ids` and `labels` of the pairs in `rows` that can be said and fit: a loss on the completion alone.

    The ids are those that generation sees: the prompt's come from the same call, and the space behind it and the
    end token belong to the completion. A text that had to be cut would teach the model not to end.
    """
    pairs = [pair for batch in rows.to_batches() for pair in pairs_of(batch)]
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for pair, prompt in zip(pairs, writer.write([pair.product for pair in pairs]), strict=True):
        completion = writer.completion_ids(pair.description)
        if not prompt.refused and completion is not None and len(prompt.ids) + len(completion) <= max_tokens:
            columns["input_ids"].append([*prompt.ids, *completion])
            columns["labels"].append([NO_LOSS] * len(prompt.ids) + completion)
    return columns


def _number(preset: Preset, device: torch.device) -> torch.dtype:
    return pick_dtype("float32" if preset.dtype == "float32" else "auto", device)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _lora(preset: Preset) -> LoraConfig:
    return LoraConfig(
        r=preset.rank,
        lora_alpha=preset.alpha,
        target_modules=list(TARGETS),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _tokenizer(base: Base, eos_id: int) -> PreTrainedTokenizerFast:
    """What TRL wants to know of a tokenizer, though everything is tokenised and packed sequences have no pads: left
    to itself it would pad with the end token, which teaches a model never to stop."""
    file = str(base.folder / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file)  # type: ignore[no-untyped-call]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eos_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0 if eos_id else 1)
    return tokenizer


def _last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written to its end; what a kill cut short is removed."""
    whole = []
    for folder in (work / "checkpoints").glob("checkpoint-*"):
        try:
            step = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
            whole.append((step, str(folder)))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(folder)
    if not whole:
        return None
    log.info("going on from step %d", max(whole)[0])
    return max(whole)[1]


@contextmanager
def _plain_errors(out: Path) -> Iterator[None]:
    """One line for what the disk and the card do; the libraries let their own errors through."""
    try:
        yield
    except EnrichError:
        raise
    except torch.OutOfMemoryError:
        raise ModelUnavailable(f"{out}: the card's memory is too small; take tinyllama-qlora or smollm2-cpu") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        # Torch and safetensors tell of a full disk in classes of their own.
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise IOFailure(f"{out}: cannot be written: {_line(error)}; free some space and run again") from error


def _line(error: Exception) -> str:
    return (str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries' notices to their own developers off the operator's terminal."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
