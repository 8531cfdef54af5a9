"""The bi-encoder: token vectors of an encoder, pooled and scaled to one embedding a text.

Its weights are written under the encoder's own names, so a directory that it wrote loads with `AutoModel` as well, and
they are read back strictly: a name that is missing or not known is an error, never a silent random weight.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from resumecheck.embedding import lora
from resumecheck.embedding.collator import Tokens, tokenize
from resumecheck.embedding.heads import Heads, heads_in
from resumecheck.embedding.lengths import embed_by_length
from resumecheck.embedding.losses.grad_cache import embed_in_chunks
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError

WEIGHTS_FILE = "model.safetensors"
_PREFIX, _HEADS_PREFIX = "encoder.", "heads."


class BiEncoder(nn.Module):
    """Embeds queries and passages with the same encoder. It holds no state outside parameters and buffers.

    Args:
        encoder: maps tokens to `last_hidden_state` of shape [batch, length, dim].
        pooling: `cls`, `mean` or `last_token`.
        normalize: scale embeddings to length one.
        heads: what the texts are represented by beside the embedding, if anything.
    """

    encoder: PreTrainedModel

    def __init__(self, encoder: PreTrainedModel, *, pooling: str, normalize: bool, heads: Heads | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads
        self.pooling = pooling
        self.normalize = normalize
        # The pooler of BERT is no part of an embedding: left trainable, it would wait for gradients that never come.
        pooler = getattr(encoder, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)

    @property
    def adapted(self) -> bool:
        """Whether the encoder is trained by LoRA."""
        return hasattr(self.encoder, "peft_config")

    def forward(self, queries: Tokens, passages: Tokens, sub_batch_size: int | None = None) -> dict[str, Any]:
        """`queries` [batch, dim] and `passages` [passages, dim], encoded `sub_batch_size` texts at a time.

        With heads each of them is what `represent` returns.
        """
        parts = {"queries": queries, "passages": passages}
        read: Any = self.embed if self.heads is None else self.represent
        if sub_batch_size is not None and sub_batch_size > 0:
            return {name: embed_in_chunks(read, tokens, sub_batch_size) for name, tokens in parts.items()}
        if self.heads is not None:
            return {name: read(tokens) for name, tokens in parts.items()}
        return {name: embed_by_length(read, tokens) for name, tokens in parts.items()}

    def embed(self, tokens: Tokens) -> torch.Tensor:
        """The embeddings [batch, dim], in float32 or wider."""
        return self._pooled(self.encoder(**tokens).last_hidden_state, tokens)

    def represent(self, tokens: Tokens) -> dict[str, torch.Tensor]:
        """The embeddings as `dense`, and what the heads say about the texts."""
        if self.heads is None:
            raise ValueError("this model has no heads")
        hidden = self.encoder(**tokens).last_hidden_state
        return {"dense": self._pooled(hidden, tokens), **self.heads(hidden, tokens, normalize=self.normalize)}

    def _pooled(self, hidden: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        pooled = pool(
            hidden.to(torch.promote_types(hidden.dtype, torch.float32)), tokens["attention_mask"], self.pooling
        )
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Trade time for memory (`--gradient_checkpointing`)."""
        enable = getattr(self.encoder, "activation_checkpointing_enable", None)
        if enable is None:  # transformers before 5.20
            options = {name.replace("activation", "gradient"): value for name, value in options.items()}
            enable = self.encoder.gradient_checkpointing_enable
        enable(**options)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """The same, under the name that transformers used before."""
        self.encoder.gradient_checkpointing_enable(**options)

    def write(self, directory: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write configuration and weights; `weights` are those of this module where a launcher has gathered them."""
        for stale in directory.glob("adapter_*"):  # of an earlier run: whoever loads would put it on top
            stale.unlink()
        self.encoder.config.save_pretrained(directory)
        if self.adapted:
            lora.write_settings(self.encoder, directory)
        path, metadata = str(directory / WEIGHTS_FILE), {"format": "pt"}
        if weights is None:
            safetensors.torch.save_model(self.encoder, path, metadata=metadata)
        else:
            of_heads = {name: tensor for name, tensor in weights.items() if name.startswith(_HEADS_PREFIX)}
            others = {name: tensor for name, tensor in weights.items() if name not in of_heads}
            named = {name.removeprefix(_PREFIX): tensor.contiguous() for name, tensor in others.items()}
            safetensors.torch.save_file(named, path, metadata=metadata)
            weights = {name.removeprefix(_HEADS_PREFIX): tensor for name, tensor in of_heads.items()}
        if self.heads is not None:
            self.heads.write(directory, weights)
        else:
            for file in heads_in(directory):  # of an earlier run: they do not belong to these weights
                (directory / file).unlink()

    def read_weights(self, directory: Path) -> None:
        """Load the weights that `write` wrote, in place.

        Raises:
            UsageError: names or shapes differ from this model's, naming them.
        """
        path = directory / WEIGHTS_FILE
        try:
            missing, unknown = safetensors.torch.load_model(self.encoder, path, strict=False)
        except (RuntimeError, safetensors.SafetensorError) as error:
            raise UsageError(f"{path}: the weights do not fit this model: {_first_lines(error)}") from error
        if missing or unknown:
            parts = [("missing", sorted(missing)), ("not known to the model", sorted(unknown))]
            listed = "; ".join(f"{what}: {_some(names)}" for what, names in parts if names)
            raise UsageError(
                f"{path}: the weights do not fit this model: {listed}\n"
                "Give the --model_name_or_path that the run was started with."
            )
        if self.heads is not None:
            self.heads.read(directory)
        elif heads_in(directory):
            raise UsageError(
                f"{directory / heads_in(directory)[0]}: the run trained heads, which this model has not\n"
                "Give --unified_finetuning True."
            )


def pool(hidden: torch.Tensor, mask: torch.Tensor, method: str) -> torch.Tensor:
    """One vector a text from the token vectors, for padding on either side.

    Args:
        hidden: [batch, length, dim].
        mask: [batch, length], 1 where there is a token.
        method: `cls` (the first token), `mean` (over the tokens) or `last_token`.

    Returns:
        [batch, dim].
    """
    if method == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    if method == "cls":
        places = mask.argmax(dim=1)
    elif method == "last_token":
        places = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    else:
        raise ValueError(f"pooling {method!r} is not known; it is one of cls, mean, last_token")
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


def longest_input(encoder: nn.Module) -> int | None:
    """The most tokens that the encoder has positions for, None where it has no table of positions."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return None
    # RoBERTa and its kin count from the position after that of padding.
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def check_lengths(encoder: nn.Module, settings: EmbeddingSettings) -> None:
    """Whether texts of the longest permitted length fit the encoder.

    Raises:
        UsageError: naming the option.
    """
    longest = longest_input(encoder)
    for name in ("query_max_len", "passage_max_len"):
        if longest is not None and getattr(settings, name) > longest:
            raise UsageError(
                f"--{name} {getattr(settings, name)}: the model has positions for {longest} tokens; "
                f"give --{name} {longest} or less"
            )


def check_dimensions(encoder: nn.Module, dimensions: Sequence[int]) -> None:
    """Whether embeddings can be cut to each of the numbers of dimensions.

    Raises:
        UsageError: naming the option.
    """
    width = getattr(getattr(encoder, "config", None), "hidden_size", None)
    for size in dimensions:
        if width is not None and size > width:
            raise UsageError(f"--mrl_dims {size}: the embeddings of the model have {width} dimensions")


def load_encoder(
    source: str, *, cache_dir: str | None = None, trust_remote_code: bool = False, attention: str | None = None
) -> Any:
    """The encoder of a directory or hub name, in float32; LoRA is merged into it.

    Raises:
        UsageError: there is none, or weights are missing.
    """
    options: dict[str, Any] = {"cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    if attention is not None:
        options["attn_implementation"] = attention
    try:
        if lora.is_adapted(source):
            again = {"cache_dir": cache_dir, "trust_remote_code": trust_remote_code, "attention": attention}
            return lora.load_merged(source, functools.partial(load_encoder, **again), trust_remote_code)
        encoder, facts = AutoModel.from_pretrained(source, output_loading_info=True, **options)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"--model_name_or_path {source}: no model could be loaded: {_first_lines(error)}") from error
    missing = sorted(name for name in facts["missing_keys"] if not name.startswith("pooler."))
    if missing:  # transformers draws them at random
        raise UsageError(f"--model_name_or_path {source}: the directory has no weights for {_some(missing)}")
    return encoder.float()


def load_tokenizer(source: str, *, cache_dir: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a directory or hub name; one without a token to pad with, as many decoders have, gets one.

    Raises:
        UsageError: there is none, or it has no token that could be used to pad.
    """
    options = {"cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--model_name_or_path {source}: no tokenizer could be loaded: {_first_lines(error)}"
        ) from error
    if tokenizer.pad_token is None:  # no vector depends on it
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise UsageError(f"--model_name_or_path {source}: its tokenizer has no token to pad with, `pad_token`")
    return tokenizer


@torch.inference_mode()
def encode(
    model: BiEncoder, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, longest: int, batch_size: int
) -> torch.Tensor:
    """The embeddings [len(texts), dim] on the CPU, in the order of the texts; batches are of texts of like length."""
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    parts: list[torch.Tensor] = []
    for start in range(0, len(order), batch_size):
        batch = [texts[place] for place in order[start : start + batch_size]]
        tokens = {name: tensor.to(device) for name, tensor in tokenize(tokenizer, batch, longest).items()}
        parts.append(model.embed(tokens).cpu())
    embeddings = torch.cat(parts)
    return embeddings[torch.argsort(torch.tensor(order))]


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _first_lines(error: Exception, shown: int = 2) -> str:
    return " ".join(line.strip() for line in str(error).strip().splitlines()[:shown])
