"""What is minimised: the losses of this package put together as the options say."""

from __future__ import annotations

import dataclasses

import torch

from resumecheck.embedding.losses.contrastive import contrastive
from resumecheck.embedding.losses.cross_device import joint
from resumecheck.embedding.losses.distillation import distilled
from resumecheck.embedding.losses.matryoshka import at_dimensions
from resumecheck.embedding.losses.scores import score


@dataclasses.dataclass(frozen=True)
class Objective:
    """A function of the embeddings of a batch and of what its rows say.

    Attributes:
        temperature: similarities are divided by it.
        normalize: whether embeddings have length one, also when they are cut.
        dimensions: the numbers of dimensions to cut embeddings to; none for the embeddings as they are.
        kd_loss_type: the loss where there are scores of a teacher.
        cross_device: whether passages of other processes are negatives.
    """

    temperature: float
    normalize: bool = True
    dimensions: tuple[int, ...] = ()
    kd_loss_type: str = "kl_div"
    cross_device: bool = False

    def __call__(
        self,
        queries: torch.Tensor,
        passages: torch.Tensor,
        *,
        group_sizes: torch.Tensor | None = None,
        own_group_only: torch.Tensor | None = None,
        teacher_scores: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mean loss of the queries, a scalar in float32 or wider.

        Args:
            queries: [batch, dim].
            passages: [passages, dim]; those of a query follow one another, its positive first.
            group_sizes: [batch], how many passages each query has; None where all have the same number.
            own_group_only: [batch], true for queries to which passages of other queries are no negatives.
            teacher_scores: [passages], NaN where there are none.
        """
        first, share = 0, None
        own = passages
        if self.cross_device:
            together = joint(queries, passages)
            passages, first, share = together.passages, together.first, together.share
            if group_sizes is None:
                group_sizes = torch.full((len(queries),), len(own) // len(queries), device=queries.device)
        if teacher_scores is not None and len(passages) > len(own):
            everywhere = teacher_scores.new_full((len(passages),), torch.nan)
            everywhere[first : first + len(own)] = teacher_scores
            teacher_scores = everywhere

        def losses(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
            scores = score(
                queries,
                passages,
                temperature=self.temperature,
                group_sizes=group_sizes,
                own_group_only=own_group_only,
                first=first,
            )
            return (
                contrastive(scores) if teacher_scores is None else distilled(scores, teacher_scores, self.kd_loss_type)
            )

        if self.dimensions:
            found = at_dimensions(losses, queries, passages, dimensions=self.dimensions, normalize=self.normalize)
        else:
            found = losses(queries, passages)
        return found.mean() if share is None else found.sum() * share
