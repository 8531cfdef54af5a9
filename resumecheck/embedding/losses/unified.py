"""Three kinds of scores trained together (`--unified_finetuning`), their sum a teacher of each (`--use_self_distill`).

Chen et al. 2024, "M3-Embedding: multi-linguality, multi-functionality, multi-granularity text embeddings through
self-knowledge distillation", arXiv 2402.03216. The weights are those of FlagEmbedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from resumecheck.embedding.losses.contrastive import contrastive
from resumecheck.embedding.losses.distillation import distilled, kl_div
from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.losses.scores import Scores, candidates, dot_products

#: Kind of score -> its weight in the sum of the scores, and the weight of its loss.
IN_SUM = {"dense": 1.0, "sparse": 0.3, "multi_vector": 1.0}
IN_LOSS = {"dense": 1.0, "sparse": 0.1, "multi_vector": 1.0}

#: What `Heads` and the pooling say about texts: see `UnifiedObjective`.
Views = Mapping[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class UnifiedObjective:
    """The mean of the losses of the three kinds of scores and of their sum; every kind has the same temperature.

    Queries and passages are given as `dense` [texts, dim], `sparse` [texts, vocabulary], `multi_vector` [texts, length,
    colbert_dim] and `counted` [texts, length], true for the tokens whose vectors count.

    Attributes:
        dense: the objective of the dense embeddings. Negatives of other processes are for these alone.
    """

    dense: Objective

    def __call__(
        self,
        queries: Views,
        passages: Views,
        *,
        group_sizes: torch.Tensor | None = None,
        own_group_only: torch.Tensor | None = None,
        teacher_scores: torch.Tensor | None = None,
        self_distill: bool = False,
    ) -> torch.Tensor:
        """The loss, a scalar in float32 or wider.

        Args:
            queries: of the batch.
            passages: those of a query follow one another, its positive first.
            group_sizes: [batch], how many passages each query has; None where all have the same number.
            own_group_only: [batch], true for queries to which passages of other queries are no negatives.
            teacher_scores: [passages], NaN where there are none.
            self_distill: whether the sum of the scores is a teacher of each kind.
        """
        values = {
            "dense": dot_products(queries["dense"], passages["dense"]),
            "sparse": dot_products(queries["sparse"], passages["sparse"]),
            "multi_vector": late_interaction(
                queries["multi_vector"], queries["counted"], passages["multi_vector"], passages["counted"]
            ),
        }

        def among(similarities: torch.Tensor) -> Scores:
            scaled = similarities / self.dense.temperature
            return candidates(scaled, group_sizes=group_sizes, own_group_only=own_group_only)

        def mean_loss(scores: Scores) -> torch.Tensor:
            if teacher_scores is None:
                return contrastive(scores).mean()
            return distilled(scores, teacher_scores, self.dense.kd_loss_type).mean()

        kinds = {kind: among(value) for kind, value in values.items()}
        summed = among(torch.stack([IN_SUM[kind] * value for kind, value in values.items()]).sum(dim=0))
        losses = {kind: mean_loss(scores) for kind, scores in kinds.items() if kind != "dense"}
        losses["dense"] = self.dense(
            queries["dense"],
            passages["dense"],
            group_sizes=group_sizes,
            own_group_only=own_group_only,
            teacher_scores=teacher_scores,
        )
        loss = (mean_loss(summed) + _weighted(losses)) / (len(losses) + 1)
        if not self_distill:
            return loss
        taught = {kind: learned_from(summed, scores).mean() for kind, scores in kinds.items()}
        return (loss + _weighted(taught) / len(taught)) / 2


def learned_from(teacher: Scores, student: Scores) -> torch.Tensor:
    """Cross entropy between the two distributions over all candidates, [batch]; no gradient reaches the teacher.

    Example:
        >>> teacher, student = (candidates(torch.tensor([[value, 0.0]])) for value in (100.0, 0.0))
        >>> round(float(learned_from(teacher, student)), 4)  # log(2)
        0.6931
    """
    everyone = dataclasses.replace(student, own=student.values != -torch.inf)
    return kl_div(everyone, teacher.values.detach().softmax(dim=1))


def late_interaction(
    queries: torch.Tensor, counted: torch.Tensor, passages: torch.Tensor, passages_counted: torch.Tensor
) -> torch.Tensor:
    """The mean over a query's tokens of the dot product with the passage's token that is nearest, [batch, passages].

    Khattab and Zaharia 2020, "ColBERT", with the mean of Chen et al. 2024 in place of the sum. A text without any token
    that counts has the score 0.

    Args:
        queries: vectors [batch, length, dim].
        counted: [batch, length], true for the tokens of queries that count.
        passages: vectors [passages, length, dim].
        passages_counted: [passages, length], true for the tokens of passages that count.

    Example:
        >>> query, passage = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[0.5, 0.0], [0.0, -1.0]]])
        >>> everything = torch.tensor([[True, True]])
        >>> late_interaction(query, everything, passage, everything)  # (0.5 + 0.0) / 2
        tensor([[0.2500]])
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        products = torch.einsum("qid,pjd->qipj", queries.to(dtype), passages.to(dtype))
    # Padding must not count: as the zero vector it would be nearer than every token with a negative product.
    products = products.masked_fill(~passages_counted, -torch.inf)
    nearest = products.max(dim=-1).values.masked_fill(~passages_counted.any(dim=1), 0.0)
    weights = counted.to(dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return (nearest * weights.unsqueeze(-1)).sum(dim=1)


def _weighted(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([IN_LOSS[kind] * loss for kind, loss in losses.items()]).sum()
