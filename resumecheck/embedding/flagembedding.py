"""The options of FlagEmbedding 1.4.2's `finetune.embedder`, and what becomes of each here.

`python -m resumecheck.embedding.flagembedding` writes docs/flagembedding.md; a test fails where the page is not what
the tables say, or where an option is neither understood nor refused by name.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flagembedding.md"

#: family -> its options, as FlagEmbedding's dataclasses have them, beside those of transformers' TrainingArguments.
FAMILIES: dict[str, tuple[str, ...]] = {
    "every model": (
        "model_name_or_path", "config_name", "tokenizer_name", "cache_dir", "trust_remote_code", "use_fast_tokenizer",
        "token", "train_data", "cache_path", "train_group_size", "query_max_len", "passage_max_len",
        "pad_to_multiple_of", "max_example_num_per_dataset", "query_instruction_for_retrieval",
        "query_instruction_format", "knowledge_distillation", "passage_instruction_for_retrieval",
        "passage_instruction_format", "shuffle_ratio", "same_dataset_within_batch", "small_threshold", "drop_threshold",
        "negatives_cross_device", "temperature", "fix_position_embedding", "sentence_pooling_method",
        "normalize_embeddings", "sub_batch_size", "kd_loss_type", "use_mrl", "mrl_dims",
    ),
    "M3": ("colbert_dim", "unified_finetuning", "use_self_distill", "fix_encoder", "self_distill_start_step"),
    "decoders": (
        "peft_model_path", "use_lora", "lora_rank", "lora_alpha", "lora_dropout", "target_modules", "use_flash_attn",
        "use_slow_tokenizer", "from_peft", "modules_to_save", "raw_peft", "additional_special_tokens",
        "save_merged_lora_model", "only_merge_lora_model",
    ),
    "in-context learning": (
        "example_query_max_len", "example_passage_max_len", "retrieval_use_examples", "icl_suffix_str",
    ),
}  # fmt: skip

_NO_M3 = "M3's sparse and multi-vector heads are not carried over; FlagEmbedding trains them"
_ONE_TOKENIZER = "the tokenizer that the model comes with is used; leave the option out"
#: option -> why it is refused, and what to give instead.
NOT_CARRIED_OVER: dict[str, str] = {
    "config_name": "the configuration is read from --model_name_or_path; leave the option out",
    "use_fast_tokenizer": _ONE_TOKENIZER,
    "use_slow_tokenizer": _ONE_TOKENIZER,
    "token": "set the environment variable HF_TOKEN, which does not show in a list of processes",
    "use_flash_attn": "give --attn_implementation flash_attention_2",
    "peft_model_path": "give --from_peft",
    "raw_peft": "merge that adapter into the model first, and give the result as --model_name_or_path",
    "additional_special_tokens": "add them to the tokenizer and the embeddings of the model before training",
    "only_merge_lora_model": "give --save_merged_lora_model when training",
    **dict.fromkeys(FAMILIES["M3"], _NO_M3),
}


def understood() -> dict[str, str]:
    """The options of `resumecheck train` beside those of transformers -> their help."""
    from resumecheck.embedding.arguments import DataArguments, EmbeddingTrainingArguments, ModelArguments

    fields = [
        field
        for part in (ModelArguments, DataArguments, EmbeddingTrainingArguments)
        for field in dataclasses.fields(part)
    ]
    return {field.name: field.metadata.get("help", "") for field in fields}


def page() -> str:
    """The page, as Markdown."""
    helps = understood()
    lines = [
        "# FlagEmbedding's options",
        "",
        "<!-- written by `python -m resumecheck.embedding.flagembedding` -->",
        "",
        "A command line for the `finetune.embedder` of FlagEmbedding 1.4.2 works with `resumecheck train`, as far as",
        "its options are carried over. One that is not is refused by name, with what to give instead; none is ignored.",
        "The options of transformers' `TrainingArguments` are understood as well.",
    ]
    for family, names in FAMILIES.items():
        lines += ["", f"## For {family}", "", "| option | here |", "| --- | --- |"]
        for name in names:
            told = f"refused: {NOT_CARRIED_OVER[name]}" if name in NOT_CARRIED_OVER else helps[name]
            lines.append(f"| `--{name}` | {told.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
