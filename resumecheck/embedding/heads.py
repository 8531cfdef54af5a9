"""M3's heads beside the dense embedding: a weight for each term of a text, and a vector for each of its tokens.

Chen et al. 2024, "M3-Embedding: multi-linguality, multi-functionality, multi-granularity text embeddings through
self-knowledge distillation", arXiv 2402.03216. Each head is a linear layer in a file of its own, as FlagEmbedding and
the published BGE-M3 have them, so that a model directory goes from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from torch import nn
from transformers import PreTrainedTokenizerBase

from resumecheck.embedding.collator import Tokens
from resumecheck.errors import UsageError

#: Layer -> its file in a model directory.
FILES = {"colbert_linear": "colbert_linear.pt", "sparse_linear": "sparse_linear.pt"}

#: Tokens that are no terms of a text.
_MARKS = ("cls_token_id", "bos_token_id", "sep_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


class Heads(nn.Module):
    """Two linear layers over the token vectors of an encoder.

    Args:
        hidden_size: dimensions of the token vectors.
        vocabulary: how many token ids there are.
        marks: the ids of tokens that are no terms.
        colbert_dim: dimensions of what the multi-vector head gives; 0 or less for those of the token vectors.
    """

    def __init__(self, hidden_size: int, vocabulary: int, *, marks: frozenset[int], colbert_dim: int = -1) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.marks = marks
        self.colbert_linear = nn.Linear(hidden_size, colbert_dim if colbert_dim > 0 else hidden_size)
        self.sparse_linear = nn.Linear(hidden_size, 1)

    def forward(self, hidden: torch.Tensor, tokens: Tokens, *, normalize: bool) -> dict[str, torch.Tensor]:
        """`sparse`, `multi_vector` and `counted` of the texts, in float32 or wider: see `UnifiedObjective`.

        Args:
            hidden: [batch, length, hidden_size].
            tokens: `input_ids` and `attention_mask`, [batch, length].
            normalize: scale the vectors of tokens to length one.
        """
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        mask = tokens["attention_mask"].bool()
        vectors = self.colbert_linear(hidden).to(dtype)
        weights = self.sparse_linear(hidden).squeeze(-1).to(dtype).relu()
        return {
            "sparse": self._by_term(weights, tokens["input_ids"], mask),
            "multi_vector": F.normalize(vectors, dim=-1) if normalize else vectors,
            "counted": mask & (mask.cumsum(dim=1) > 1),  # all tokens but the first
        }

    def _by_term(self, weights: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[batch, vocabulary]: the largest weight among the places where a text has the term, 0 where it has it not."""
        is_term = mask
        for mark in sorted(self.marks):
            is_term = is_term & (ids != mark)
        empty = weights.new_zeros(len(ids), self.vocabulary)
        return empty.scatter_reduce(1, ids, weights * is_term, reduce="amax")

    def write(self, directory: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write a file for each layer; `weights` are those of this module where a launcher has gathered them."""
        weights = self.state_dict() if weights is None else weights
        for layer, file in FILES.items():
            own = {name: weights[f"{layer}.{name}"].detach().cpu().clone() for name in ("weight", "bias")}
            torch.save(own, directory / file)

    def read(self, directory: Path) -> None:
        """Load what `write` or FlagEmbedding wrote, in place.

        Raises:
            UsageError: a file is missing, is not that of a linear layer, or has other shapes.
        """
        for layer, file in FILES.items():
            path = directory / file
            if not path.is_file():
                raise UsageError(
                    f"{path}: missing, so a head of --unified_finetuning cannot be restored\n"
                    "Give the arguments of the run, or a model directory with both heads or none."
                )
            own = getattr(self, layer)
            try:
                weights = torch.load(path, map_location="cpu", weights_only=True)
                found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
            except Exception as error:  # which one depends on what is in the file
                raise UsageError(f"{path}: not the weights of a head of M3 ({type(error).__name__})") from error
            expected = {name: tuple(tensor.shape) for name, tensor in own.state_dict().items()}
            if found != expected:
                raise UsageError(f"{path}: found {_shapes(found)}, expected {_shapes(expected)}{_advice(layer, found)}")
            own.load_state_dict(weights)


def load_heads(
    source: str,
    encoder: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    colbert_dim: int,
    seed: int,
    cache_dir: str | None = None,
) -> Heads:
    """The heads of a directory or hub name; where it has none, new ones that follow from the seed alone.

    Raises:
        UsageError: only one of them is there, or one cannot be used.
    """
    marks = frozenset(mark for name in _MARKS if (mark := getattr(tokenizer, name, None)) is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(encoder.config.hidden_size, encoder.config.vocab_size, marks=marks, colbert_dim=colbert_dim)
    found = [path for file in FILES.values() if (path := _file_of(source, file, cache_dir)) is not None]
    if found:
        heads.read(found[0].parent)
    return heads


def written_heads(source: str, encoder: Any, tokenizer: PreTrainedTokenizerBase) -> Heads | None:
    """The heads of a directory or hub name with the dimensions that its files have, None where it has none.

    Raises:
        UsageError: only one of them is there, or one cannot be used.
    """
    found = [path for file in FILES.values() if (path := _file_of(source, file, None)) is not None]
    if not found:
        return None
    try:
        # The bias of the multi-vector head has its dimensions.
        dim = len(torch.load(found[0].parent / FILES["colbert_linear"], map_location="cpu", weights_only=True)["bias"])
    except Exception:  # which one depends on what is in the file, if it is there; reading it says what is wrong
        dim = -1
    return load_heads(source, encoder, tokenizer, colbert_dim=dim, seed=0)


def heads_in(directory: Path) -> list[str]:
    """The files of heads that a directory has."""
    return [file for file in FILES.values() if (directory / file).is_file()]


def _file_of(source: str, file: str, cache_dir: str | None) -> Path | None:
    """A file of a directory or hub name, None where it has no such file."""
    if Path(source).is_dir():
        return Path(source) / file if (Path(source) / file).is_file() else None
    try:
        return Path(hf_hub_download(source, file, cache_dir=cache_dir))
    except (OSError, HfHubHTTPError) as error:
        # Without a connection, one that is not in the cache may still exist: new heads would take its place unnoticed.
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise UsageError(
            f"--model_name_or_path {source}: whether it has the head {file} could not be found out "
            f"({type(error).__name__})\nGive a connection, or the model as a directory."
        ) from error


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))


def _advice(layer: str, found: Mapping[str, tuple[int, ...]]) -> str:
    size = found.get("bias", ())
    return f"\nGive --colbert_dim {size[0]}." if layer == "colbert_linear" and size else ""
