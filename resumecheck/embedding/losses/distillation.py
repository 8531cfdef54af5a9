"""Learning from the scores of a teacher, mostly a reranker (`--knowledge_distillation`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from resumecheck.embedding.losses.contrastive import contrastive
from resumecheck.embedding.losses.scores import Scores

KD_LOSS_TYPES = ("kl_div", "m3_kd_loss")


def distilled(scores: Scores, teacher_scores: torch.Tensor, kd_loss_type: str) -> torch.Tensor:
    """The loss of each query, [batch]; queries without a teacher's scores get the contrastive loss.

    Args:
        scores: those of the student.
        teacher_scores: [passages], NaN where there are none.
        kd_loss_type: `kl_div` (the contrastive loss and `kl_div`) or `m3_kd_loss` (that alone).
    """
    teacher_scores = teacher_scores.to(scores.values.dtype)
    taught = ~(teacher_scores.isnan() & scores.own).any(dim=1)
    targets = torch.where(scores.own, teacher_scores.nan_to_num(0.0), -torch.inf).softmax(dim=1)
    plain = contrastive(scores)
    if kd_loss_type == "kl_div":
        return plain + torch.where(taught, kl_div(scores, targets), 0.0)
    return torch.where(taught, m3_kd_loss(scores, targets), plain)


def kl_div(scores: Scores, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy between the teacher's and the student's distribution over a query's own passages, [batch].

    It is the Kullback-Leibler divergence but for the teacher's entropy, which has no gradient. Hinton et al. 2015,
    "Distilling the knowledge in a neural network".

    Args:
        scores: those of the student.
        targets: [batch, passages], the teacher's distribution, 0 outside the query's own passages.

    Example:
        >>> own = torch.tensor([[True, True, False]])
        >>> student = Scores(torch.zeros(1, 3), own, torch.tensor([0]))
        >>> round(float(kl_div(student, torch.tensor([[0.9, 0.1, 0.0]]))), 4)  # log(2)
        0.6931
    """
    student = scores.values.masked_fill(~scores.own, -torch.inf).log_softmax(dim=1)
    return -(student.masked_fill(~scores.own, 0.0) * targets).sum(dim=1)


def m3_kd_loss(scores: Scores, targets: torch.Tensor) -> torch.Tensor:
    """Every own passage in turn as the positive, weighted by the teacher, against all that did not come before it.

    [batch]. As in FlagEmbedding, after Chen et al. 2024, "M3-Embedding: multi-linguality, multi-functionality,
    multi-granularity text embeddings through self-knowledge distillation".

    Args:
        scores: those of the student.
        targets: [batch, passages], the teacher's distribution, 0 outside the query's own passages.

    Example:
        >>> own = torch.tensor([[True, True]])
        >>> student = Scores(torch.zeros(1, 2), own, torch.tensor([0]))
        >>> round(float(m3_kd_loss(student, torch.tensor([[0.5, 0.5]]))), 4)  # log(2) / 2 + log(1) / 2
        0.3466
    """
    values = scores.values
    sizes = scores.own.sum(dim=1)
    columns = torch.arange(values.shape[1], device=values.device)
    total = torch.zeros_like(values[:, 0])
    for place in range(int(sizes.max())):
        # A query that has no passage at this place looks at its last one, which is never taken out, and counts it as 0.
        column = scores.positives + sizes.sub(1).clamp(max=place)
        weight = targets.gather(1, column.unsqueeze(1)).squeeze(1) * (place < sizes)
        with torch.autocast(values.device.type, enabled=False):
            total = total + weight * F.cross_entropy(values, column, reduction="none")
        gone = (columns == column.unsqueeze(1)) & (place + 1 < sizes).unsqueeze(1)
        values = values.masked_fill(gone, -torch.inf)
    return total
