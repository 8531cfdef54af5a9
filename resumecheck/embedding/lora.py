"""Decoders as encoders of text, and LoRA: which weights are trained, and what is written when training has ended.

Checkpoints hold every weight under PEFT's names, so a resume is the same as for any other model, and beside them what
LoRA was set to. The directory of the trained model holds the adapter, or with `--save_merged_lora_model` the merged
weights, which load without PEFT. Whoever uses a trained model gets it merged (`load_merged`).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from resumecheck.errors import UsageError

if TYPE_CHECKING:
    from resumecheck.embedding.arguments import ModelArguments
    from resumecheck.embedding.model import BiEncoder

#: How many names of layers a message lists.
_SHOWN_NAMES = 8

#: The file by which PEFT knows an adapter; a checkpoint has it in a directory, since it is no adapter.
_ADAPTER_FILE = "adapter_config.json"
_SETTINGS_DIRECTORY = "lora"


def is_decoder(config: Any) -> bool:
    """Whether a model is one that generates text, and is not also trained to fill in words."""
    kind = config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def uses_lora(model: ModelArguments, config: Any) -> bool:
    """Whether LoRA is used: as `--use_lora` says, else for decoders."""
    return is_decoder(config) if model.use_lora is None else model.use_lora


def add_special_tokens(encoder: Any, tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Add tokens to the tokenizer and rows for them to the embeddings: the mean of the rows that are there.

    The mean keeps the model's distribution over what follows close to what it was (Hewitt, "Initializing New Word
    Embeddings for Pretrained Language Models", 2021), and needs no draw.

    Returns:
        The ids of the tokens that the tokenizer did not have.
    """
    known = tokenizer.get_vocab()
    new = [token for token in dict.fromkeys(tokens) if token not in known]
    if not new:
        return []
    tokenizer.add_tokens(new, special_tokens=True)
    added = tokenizer.convert_tokens_to_ids(new)
    mean = encoder.get_input_embeddings().weight[: len(known)].mean(dim=0)
    _grow(encoder, max(added) + 1)
    with torch.no_grad():
        encoder.get_input_embeddings().weight[added] = mean
    return added


def _grow(encoder: Any, rows: int) -> None:
    """Give the embeddings at least this many rows; a model may have more than its tokenizer has tokens."""
    if rows > encoder.get_input_embeddings().num_embeddings:
        encoder.resize_token_embeddings(rows, mean_resizing=False)


def with_lora(encoder: nn.Module, model: ModelArguments, added: Sequence[int] = ()) -> Any:
    """The encoder with trainable low-rank matrices beside its own weights, which are frozen.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.

    Args:
        encoder: the model as it was loaded.
        model: rank, alpha, dropout, and the modules that are adapted (`--target_modules`), trained as they are
            (`--modules_to_save`) or taken from an earlier adapter (`--from_peft`).
        added: ids of tokens whose rows in the embeddings are trained and are part of the adapter.

    Raises:
        UsageError: the encoder has no such modules, or the adapter cannot be loaded.
    """
    from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model

    if model.from_peft is not None:
        try:
            if _tokens_of(PeftConfig.from_pretrained(model.from_peft)) != list(added):
                raise UsageError(
                    f"--from_peft {model.from_peft}: its run had other special tokens beside those of the model; give "
                    "the same --additional_special_tokens"
                )
            return PeftModel.from_pretrained(encoder, model.from_peft, is_trainable=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(f"--from_peft {model.from_peft}: no adapter for this model: {error}") from error
    config = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=model.lora_rank,
        lora_alpha=cast("Any", model.lora_alpha),
        lora_dropout=model.lora_dropout,
        target_modules=list(model.target_modules),
        modules_to_save=list(model.modules_to_save) if model.modules_to_save else None,
        trainable_token_indices=list(added) or None,
    )
    try:
        return get_peft_model(encoder, config)
    except ValueError as error:
        linear = {name.rpartition(".")[2] for name, part in encoder.named_modules() if isinstance(part, nn.Linear)}
        raise UsageError(
            f"--target_modules {' '.join(model.target_modules)}: the model has none of them; its linear layers are "
            f"called {', '.join(sorted(linear)[:_SHOWN_NAMES])}"
        ) from error


def write_trained(model: BiEncoder, directory: Path, *, merged: bool) -> None:
    """Put the adapter, or the merged model, in the place of the weights under PEFT's names.

    Args:
        model: the trained bi-encoder, whose encoder is a PEFT model.
        directory: the model's directory, which holds what `BiEncoder.write` wrote.
        merged: write the merged model.
    """
    adapted: Any = model.encoder
    for weights in directory.glob("*.safetensors"):
        weights.unlink()
    shutil.rmtree(directory / _SETTINGS_DIRECTORY)
    if merged:
        copy.deepcopy(adapted).merge_and_unload().save_pretrained(directory)
    else:
        (directory / "config.json").unlink()  # The adapter names the model that it belongs to.
        # PEFT would add all embeddings where some were added, which the adapter has anyway.
        tokens = _tokens_of(adapted.peft_config[adapted.active_adapter])
        adapted.save_pretrained(directory, save_embedding_layers=False if tokens else "auto")


def write_settings(adapted: Any, directory: Path) -> None:
    """Record what LoRA was set to beside weights under PEFT's names."""
    adapted.peft_config[adapted.active_adapter].save_pretrained(str(directory / _SETTINGS_DIRECTORY))


def is_adapted(source: str) -> bool:
    """Whether a directory holds an adapter, or a checkpoint of training with LoRA."""
    return any((Path(source) / part / _ADAPTER_FILE).is_file() for part in ("", _SETTINGS_DIRECTORY))


def load_merged(source: str, load_base: Callable[[str], Any], trust_remote_code: bool = False) -> Any:
    """The encoder of a directory that `is_adapted`, with LoRA merged into its weights.

    Args:
        source: the directory.
        load_base: loads the model that an adapter belongs to.
        trust_remote_code: run the code that comes with the model.

    Raises:
        UsageError: the adapter or the weights do not fit.
    """
    import safetensors.torch
    from peft import PeftConfig, PeftModel, get_peft_model
    from transformers import AutoConfig, AutoModel

    try:
        if (Path(source) / _ADAPTER_FILE).is_file():
            settings = PeftConfig.from_pretrained(source)
            encoder = load_base(str(settings.base_model_name_or_path))
            _grow(encoder, 1 + max(_tokens_of(settings), default=-1))
            adapted: Any = PeftModel.from_pretrained(encoder, source)
        else:
            settings = PeftConfig.from_pretrained(str(Path(source) / _SETTINGS_DIRECTORY))
            config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
            encoder = AutoModel.from_config(config, trust_remote_code=trust_remote_code).float()
            encoder.name_or_path = settings.base_model_name_or_path
            adapted = get_peft_model(encoder, settings)
            for weights in Path(source).glob("*.safetensors"):
                safetensors.torch.load_model(adapted, weights)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, safetensors.SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"--model_name_or_path {source}: its adapter cannot be merged: {reason}") from error
    merged = adapted.merge_and_unload()
    merged.name_or_path = source  # an adapter that is trained on top belongs to this model, not to the one below
    return merged


def _tokens_of(settings: Any) -> list[int]:
    """The ids of the tokens whose rows in the embeddings an adapter has."""
    return list(getattr(settings, "trainable_token_indices", None) or ())
