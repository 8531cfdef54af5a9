"""In-batch plus hard negatives (InfoNCE)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812


def contrastive_loss(queries: torch.Tensor, passages: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Cross entropy of each query's own positive against every other passage of the batch.

    van den Oord et al. 2018, "Representation learning with contrastive predictive coding"; with in-batch and hard
    negatives as in Karpukhin et al. 2020, "Dense passage retrieval for open-domain question answering".

    Args:
        queries: [batch, dim].
        passages: [batch * group, dim]; the passages of query `i` start at `i * group`, its positive first.
        temperature: similarities (dot products) are divided by it.

    Returns:
        The mean over the queries, a scalar in float32 or wider.

    Example:
        >>> vectors = torch.eye(2)
        >>> round(float(contrastive_loss(vectors, vectors, temperature=1.0)), 4)  # -log(e / (e + 1))
        0.3133
    """
    group, rest = divmod(len(passages), len(queries))
    if rest or not group:
        raise ValueError(f"{len(passages)} passages for {len(queries)} queries: expected the same number for each")
    # Half precision has about three digits, too few for similarities that a small temperature spreads out.
    dtype = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.to(dtype) @ passages.to(dtype).T / temperature  # [batch, batch * group]
        positives = torch.arange(len(queries), device=queries.device) * group
        return F.cross_entropy(scores, positives)
