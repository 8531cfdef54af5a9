"""The options of `resumecheck train`, named as FlagEmbedding's `finetune.embedder` names them where it has them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, cast

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from resumecheck.embedding.checkpoint import OPTIONAL
from resumecheck.embedding.command import ArgumentParser
from resumecheck.embedding.in_context import KEPT_FOR_QUERY
from resumecheck.embedding.losses.distillation import KD_LOSS_TYPES
from resumecheck.embedding.settings import POOLING_METHODS, EmbeddingSettings
from resumecheck.errors import UsageError

_EXAMPLE_LENGTHS = (EmbeddingSettings.example_query_max_len, EmbeddingSettings.example_passage_max_len)


def _option(help_text: str, default: Any = None, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text, **metadata})


@dataclasses.dataclass
class ModelArguments:
    """Which model is trained."""

    model_name_or_path: str | None = _option("the encoder: a directory or a name on the Hugging Face hub")
    tokenizer_name: str | None = _option("the tokenizer, where it is not in the directory of the encoder")
    init_from_checkpoint: str | None = _option(
        "start a new run from the weights of this checkpoint: step, learning rate and data order start from the "
        "beginning (to go on with a run instead, give --resume_from_checkpoint)"
    )
    cache_dir: str | None = _option("where downloaded models are kept")
    trust_remote_code: bool = _option("run the code that comes with the model", False)
    attn_implementation: str | None = _option("how attention is computed: eager, sdpa, flash_attention_2, ...")
    use_lora: bool | None = _option("train low-rank matrices beside frozen weights (default: for decoders)")
    lora_rank: int = _option("rank of the matrices of LoRA", 64)
    lora_alpha: float = _option("LoRA's output is scaled by this over the rank", 16.0)
    lora_dropout: float = _option("dropout before the matrices of LoRA", 0.1)
    target_modules: list[str] = dataclasses.field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        metadata={"help": "names of the linear layers that LoRA adapts"},
    )
    modules_to_save: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "names of modules that are trained as they are beside LoRA"}
    )
    additional_special_tokens: list[str] | None = dataclasses.field(
        default=None,
        metadata={
            "help": "tokens to add to tokenizer and embeddings; with LoRA, their embeddings are trained beside it"
        },
    )
    from_peft: str | None = _option("go on from the adapter in this directory")
    save_merged_lora_model: bool = _option(
        "write the model with LoRA merged into its weights when training ends", False
    )
    colbert_dim: int = _option(
        "with --unified_finetuning, dimensions of the vectors of tokens (-1: those of the model)", -1
    )


@dataclasses.dataclass
class DataArguments:
    """Which data is trained on, and how a row becomes text."""

    train_data: list[str] = dataclasses.field(
        default_factory=list, metadata={"help": "JSONL files with `query`, `pos`, `neg`, or directories of such files"}
    )
    train_group_size: int = _option(
        "passages to a query: one positive and this many less one negatives; a row's `type` or `train_group_size` can "
        "say otherwise",
        8,
    )
    max_example_num_per_dataset: int = _option("rows of a file that are trained on at most, drawn at random", 100000000)
    shuffle_ratio: float = _option("share of the positives above 100 characters whose thirds change places", 0.0)
    query_max_len: int = _option("longest query in tokens; the rest is cut off", 32)
    passage_max_len: int = _option("longest passage in tokens; the rest is cut off", 128)
    pad_to_multiple_of: int | None = _option("pad sequences to a multiple of this many tokens")
    query_instruction_for_retrieval: str | None = _option(
        "text put before each query; a row's own `prompt` takes its place where this option is given"
    )
    query_instruction_format: str = _option("how instruction and query are joined", "{}{}")
    passage_instruction_for_retrieval: str | None = _option("text put before each passage")
    passage_instruction_format: str = _option("how instruction and passage are joined", "{}{}")
    retrieval_use_examples: bool | None = _option(
        "train with examples before a query, drawn from the other rows of its file (BGE-EN-ICL); with false, only "
        "symmetric data has them. They leave 512 tokens of --query_max_len to the query (default: no examples)"
    )
    icl_suffix_str: str | None = _option(
        "text after a query, and between an example and its answer (default with examples: `\\nResponse:`); given "
        "alone, it asks for examples"
    )
    example_query_max_len: int = _option("longest query of an example in tokens", _EXAMPLE_LENGTHS[0])
    example_passage_max_len: int = _option("longest answer of an example in tokens", _EXAMPLE_LENGTHS[1])
    knowledge_distillation: bool = _option(
        "learn from the scores of a teacher, `pos_scores` and `neg_scores` in the data", False
    )
    same_dataset_within_batch: bool = _option(
        "take all rows of a batch from one file, or from the small files of one directory; `batch_size` in the first "
        "row of a file is its batch size, and symmetric data has half of --per_device_train_batch_size",
        False,
    )
    small_threshold: int = _option(
        "with --same_dataset_within_batch, files of a directory with fewer rows are one data set together", 0
    )
    drop_threshold: int = _option(
        "with --same_dataset_within_batch, small files of a directory are left out where they have fewer rows together",
        0,
    )
    cache_path: str | None = _option("where the data is kept in Arrow form (default: the cache of `datasets`)")


@dataclasses.dataclass
class EmbeddingTrainingArguments(TrainingArguments):
    """How it is trained: all options of transformers' Trainer, and these."""

    temperature: float = _option("similarities are divided by this before the softmax", 0.02)
    sentence_pooling_method: str | None = _option(
        "how token vectors become one vector (default: as the model says, else cls)", choices=list(POOLING_METHODS)
    )
    normalize_embeddings: bool = _option("scale embeddings to length one", True)
    negatives_cross_device: bool = _option("passages of all processes are negatives", False)
    kd_loss_type: str = _option(
        "the loss of a row with scores of a teacher: kl_div, added to the contrastive loss, or m3_kd_loss in its place",
        "kl_div",
        choices=list(KD_LOSS_TYPES),
    )
    use_mrl: bool = _option("train embeddings whose first --mrl_dims dimensions are embeddings too", False)
    mrl_dims: list[int] = dataclasses.field(
        default_factory=list, metadata={"help": "numbers of dimensions; the loss is the mean over them (Matryoshka)"}
    )
    sub_batch_size: int | None = _option(
        "encode this many texts at a time and keep none of it for the backward pass, which encodes again (GradCache): "
        "the memory of a small batch, the loss of the whole one"
    )
    fix_position_embedding: bool = _option("do not train the embeddings of positions", False)
    unified_finetuning: bool = _option(
        "train M3's sparse and multi-vector heads with the dense embedding (default: no, as in FlagEmbedding's trainer "
        "of M3); the loss is the mean of the losses of the three scores and of their sum",
        False,
    )
    use_self_distill: bool = _option(
        "with --unified_finetuning, the sum of the three scores is a teacher of each of them", False
    )
    self_distill_start_step: int = _option(
        "with --use_self_distill, the sum teaches once more steps of the optimizer than this are done (-1: always)", -1
    )
    fix_encoder: bool = _option("with --unified_finetuning, train the heads alone", False)
    overwrite_output_dir: bool = _option(
        "start anew in an output directory that is not empty; removes its checkpoints", False
    )
    resume_from_checkpoint: str | None = _option(
        "go on with an interrupted run: a directory checkpoint-N, or `latest` for the newest complete one"
    )
    allow_missing_state: list[str] = dataclasses.field(
        default_factory=list,
        metadata={"help": "resume without these files of the checkpoint: `optimizer`, `scheduler`, `rng`"},
    )
    verify_resume: bool = _option(
        "refuse to go on unless everything is restored, the next batch is the one that the checkpoint announces, no "
        "argument that changes the trajectory differs, and the first step is the one that the run made, bit for bit",
        False,
    )
    record: str | None = _option(
        "record this start of the run in a directory, the same at each start, for `resumecheck audit`", None
    )


#: Options of transformers' Trainer that would break what this trainer promises: name, and value where only one does
#: -> (is it set?, what to do).
_REFUSED = {
    "save_only_model": (
        bool,
        "such checkpoints cannot be resumed; leave it out (the final model is saved without training state anyway)",
    ),
    "ignore_data_skip": (
        bool,
        "a resumed run would train on other samples; leave it out, skipping costs no data reading here",
    ),
    "auto_find_batch_size": (
        bool,
        "the in-batch negatives would depend on free memory; give --per_device_train_batch_size",
    ),
    "eval_strategy": (
        lambda value: value != IntervalStrategy.NO,
        "there is no evaluation during training; run `resumecheck evaluate` on a checkpoint",
    ),
    "save_strategy best": (
        lambda value: value == SaveStrategy.BEST,
        "there is no evaluation during training; give --save_strategy steps or epoch",
    ),
    "load_best_model_at_end": (
        bool,
        "there is no evaluation during training; run `resumecheck evaluate` on the checkpoints",
    ),
    "fsdp": (
        lambda value: bool(value) or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true",  # `accelerate launch`
        "a resume with it is not known to be exact, and without a GPU accelerate would leave it out and not say so; "
        "give --deepspeed with stage 1 or 2, or start with torchrun alone",
    ),
    "label_smoothing_factor": (bool, "it is for losses over labels, which there are none of here; leave it out"),
    "debug": (bool, "it needs a model of transformers' own; leave it out"),
    "push_to_hub": (bool, "upload the output directory when the run has ended"),
}


#: The least values of options.
_LEAST = {
    "lora_rank": 1,
    "train_group_size": 1,
    "max_example_num_per_dataset": 1,
    "small_threshold": 0,
    "drop_threshold": 0,
    "query_max_len": 1,
    "passage_max_len": 1,
    "example_query_max_len": 1,
    "example_passage_max_len": 1,
    "pad_to_multiple_of": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
}


def parse_train_arguments(
    argv: Sequence[str] | None,
) -> tuple[ModelArguments, DataArguments, EmbeddingTrainingArguments]:
    """The options of `resumecheck train`.

    Raises:
        UsageError: an option is not known, is missing, or has a value that cannot be used.
    """
    types = cast("Any", (ModelArguments, DataArguments, EmbeddingTrainingArguments))
    parser = ArgumentParser(types, prog="resumecheck train", allow_abbrev=False)
    model, data, training = parser.parse(argv)
    check_arguments(model, data, training)
    return model, data, training


def check_arguments(model: ModelArguments, data: DataArguments, training: EmbeddingTrainingArguments) -> None:
    """What the types of the options do not say.

    Raises:
        UsageError: naming the option, what was found and what was expected.
    """
    if not model.model_name_or_path and not model.init_from_checkpoint:
        raise UsageError("--model_name_or_path is missing: give the directory of an encoder")
    if not data.train_data or not all(data.train_data):
        raise UsageError("--train_data is missing: give JSONL files or directories of them")
    for name, least in _LEAST.items():
        value = getattr(next(part for part in (model, data, training) if hasattr(part, name)), name)
        if value is not None and value < least:
            raise UsageError(f"--{name} {value}: expected {least} or more")
    if training.max_steps <= 0 and not training.num_train_epochs > 0:
        raise UsageError(f"--num_train_epochs {training.num_train_epochs}: expected a number above 0")
    if not 0 <= data.shuffle_ratio <= 1:
        raise UsageError(f"--shuffle_ratio {data.shuffle_ratio}: expected a number from 0 to 1")
    if training.use_mrl != bool(training.mrl_dims):
        raise UsageError("--use_mrl True and --mrl_dims N ... belong together: give both or none")
    if any(size < 1 for size in training.mrl_dims):
        raise UsageError(f"--mrl_dims {min(training.mrl_dims)}: expected numbers above 0")
    if training.kd_loss_type == "m3_kd_loss" and not data.knowledge_distillation:
        raise UsageError("--kd_loss_type m3_kd_loss has no effect without --knowledge_distillation True: give both")
    _check_heads(model, training)
    for name in ("small_threshold", "drop_threshold"):
        if getattr(data, name) and not data.same_dataset_within_batch:
            raise UsageError(f"--{name} has no effect without --same_dataset_within_batch True: give both or none")
    if not training.temperature > 0:
        raise UsageError(f"--temperature {training.temperature}: expected a number above 0")
    for name in ("query_instruction_format", "passage_instruction_format"):
        check_template(name, getattr(data, name))
    _check_examples(data)
    for kind in training.allow_missing_state:
        if kind not in OPTIONAL:
            raise UsageError(f"--allow_missing_state {kind}: expected one or more of {', '.join(OPTIONAL)}")
    for name in ("allow_missing_state", "verify_resume"):
        if getattr(training, name) and not training.resume_from_checkpoint:
            raise UsageError(f"--{name} is for a resumed run: give --resume_from_checkpoint, or leave it out")
    if training.overwrite_output_dir and training.resume_from_checkpoint:
        raise UsageError("--overwrite_output_dir and --resume_from_checkpoint exclude each other: give one of them")
    for name, (is_set, advice) in _REFUSED.items():
        if is_set(getattr(training, name.partition(" ")[0])):
            raise UsageError(f"--{name} cannot be used here: {advice}")


def _check_heads(model: ModelArguments, training: EmbeddingTrainingArguments) -> None:
    """What the options of M3's heads do not say alone."""
    if not training.unified_finetuning:
        given = {
            "use_self_distill": training.use_self_distill,
            "fix_encoder": training.fix_encoder,
            "colbert_dim": model.colbert_dim > 0,
        }
        for name, is_set in given.items():
            if is_set:
                raise UsageError(f"--{name} has no effect without --unified_finetuning True: give both or none")
    elif training.use_mrl:
        raise UsageError(
            "--use_mrl cannot be used with --unified_finetuning: M3 sums its dense score with those of its heads, "
            "which are not cut; give one of them"
        )
    if training.self_distill_start_step >= 0 and not training.use_self_distill:
        raise UsageError(
            "--self_distill_start_step has no effect without --use_self_distill True: give both or leave it out"
        )


def _check_examples(data: DataArguments) -> None:
    lengths = (data.example_query_max_len, data.example_passage_max_len)
    if not _in_context(data) and lengths != _EXAMPLE_LENGTHS:
        raise UsageError(
            "--example_query_max_len and --example_passage_max_len have no effect without examples; give "
            "--retrieval_use_examples True as well, or none of them"
        )
    if _in_context(data) and data.retrieval_use_examples is not False and data.query_max_len <= KEPT_FOR_QUERY:
        raise UsageError(
            f"--query_max_len {data.query_max_len}: no example would fit, {KEPT_FOR_QUERY} tokens are left to the query"
            f"\nGive more than {KEPT_FOR_QUERY}, or --retrieval_use_examples False to train on queries with the suffix "
            "alone."
        )


def _in_context(data: DataArguments) -> bool:
    return data.retrieval_use_examples is not None or data.icl_suffix_str is not None


def check_template(option: str, template: str) -> None:
    """Whether a template has a place for an instruction and one for a text.

    Raises:
        UsageError: it has not, naming the option.
    """
    if not _joins_two(template):
        raise UsageError(f"--{option} {template!r}: expected a text with two {{}}: instruction and text")


def _joins_two(template: str) -> bool:
    try:
        return template.count("{}") == 2 and bool(template.format("a", "b"))
    except (ValueError, LookupError):  # another brace in it
        return False


def settings_of(data: DataArguments, training: EmbeddingTrainingArguments, pooling: str) -> EmbeddingSettings:
    """What a trained model must be used with, as its directory records it."""
    return EmbeddingSettings(
        sentence_pooling_method=pooling,
        normalize_embeddings=training.normalize_embeddings,
        query_max_len=data.query_max_len,
        passage_max_len=data.passage_max_len,
        query_instruction_for_retrieval=data.query_instruction_for_retrieval,
        query_instruction_format=data.query_instruction_format,
        passage_instruction_for_retrieval=data.passage_instruction_for_retrieval,
        passage_instruction_format=data.passage_instruction_format,
        icl_suffix_str=r"\nResponse:" if _in_context(data) and data.icl_suffix_str is None else data.icl_suffix_str,
        retrieval_use_examples=_in_context(data) and data.retrieval_use_examples is not False,
        example_query_max_len=data.example_query_max_len,
        example_passage_max_len=data.example_passage_max_len,
    )
