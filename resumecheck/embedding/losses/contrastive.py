"""In-batch plus hard negatives (InfoNCE), or hard negatives alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from resumecheck.embedding.losses.scores import Scores


def contrastive(scores: Scores) -> torch.Tensor:
    """Cross entropy of each query's own positive against every other candidate, [batch].

    van den Oord et al. 2018, "Representation learning with contrastive predictive coding"; with in-batch and hard
    negatives as in Karpukhin et al. 2020, "Dense passage retrieval for open-domain question answering".

    Example:
        >>> from resumecheck.embedding.losses.scores import score
        >>> vectors = torch.eye(2)
        >>> round(float(contrastive(score(vectors, vectors, temperature=1.0)).mean()), 4)  # -log(e / (e + 1))
        0.3133
    """
    with torch.autocast(scores.values.device.type, enabled=False):
        return F.cross_entropy(scores.values, scores.positives, reduction="none")
