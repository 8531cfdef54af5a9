"""No more padding than a batch needs: texts of like length are encoded together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from resumecheck.embedding.collator import Tokens

#: The fewest tokens that are worth a pass of their own, by kind of device. Fewer would save padding and lose more by
#: small matrices. Measured for a CPU (`benchmarks/training_speed.py`); for others a guess on the safe side.
LEAST_TOKENS = {"cpu": 2048}
LEAST_TOKENS_ELSEWHERE = 16384

#: Lengths are rounded up to a multiple of this, as matrix kernels like it.
_MULTIPLE = 8


def embed_by_length(embed: Callable[[Tokens], torch.Tensor], tokens: Tokens) -> torch.Tensor:
    """What `embed` returns for all texts, [batch, dim], from passes over texts of like length.

    Args:
        embed: tokens of some texts, [part, length], to their embeddings, [part, dim].
        tokens: of all texts, [batch, length], padded on one side.
    """
    mask = tokens["attention_mask"]
    least = LEAST_TOKENS.get(mask.device.type, LEAST_TOKENS_ELSEWHERE)
    if mask.numel() < 2 * least:
        return embed(tokens)
    parts = parts_of_like_length(mask.sum(dim=1).tolist(), least)
    if len(parts) < 2:
        return embed(tokens)
    padded_left = not bool(mask[:, 0].all())
    found = []
    for places, longest in parts:
        rows = torch.tensor(places, device=mask.device)
        width = min(-(-longest // _MULTIPLE) * _MULTIPLE, mask.shape[1])
        columns = slice(mask.shape[1] - width, None) if padded_left else slice(width)
        found.append(embed({name: tensor[rows, columns] for name, tensor in tokens.items()}))
    order = torch.tensor([place for places, _ in parts for place in places], device=mask.device)
    return torch.cat(found)[order.argsort()]


def parts_of_like_length(lengths: Sequence[int], least: int) -> list[tuple[list[int], int]]:
    """The texts by falling length, cut where a part has `least` tokens with its padding: (places, longest) of each.

    What is left at the end is put to the part before it.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    parts: list[tuple[list[int], int]] = []
    current: list[int] = []
    for place in order:
        current.append(place)
        if len(current) * lengths[current[0]] >= least:
            parts.append((current, lengths[current[0]]))
            current = []
    if current and parts:
        parts[-1][0].extend(current)
    elif current:
        parts.append((current, lengths[current[0]]))
    return parts
