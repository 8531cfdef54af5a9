"""Whether FlagEmbedding's M3 finds in a directory that was trained or exported here what this package finds in it.

Train and export with `resumecheck`, make the environment with `environment.sh`, then run with its Python:

    ENVIRONMENT/bin/python benchmarks/flagembedding/m3.py DIRECTORY [COLBERT_DIM]

The tokenizer must call the last token of a text its `eos_token`, as XLM-RoBERTa's does: FlagEmbedding takes BERT's
`[SEP]` for a term. It prints the largest difference of each of the three representations, and ends with status 1 where
one is above 1e-5.
"""

import sys

import numpy as np
import torch
from FlagEmbedding import BGEM3FlagModel

from resumecheck.embedding.collator import tokenize
from resumecheck.embedding.heads import load_heads
from resumecheck.embedding.model import BiEncoder, load_encoder, load_tokenizer

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u")]
TEXTS = [" ".join(WORDS[start : start + 1 + start % 12]) for start in range(48)]
LONGEST = 12


def ours(directory: str, colbert_dim: int) -> dict[str, list]:
    """The representations of each text, one text at a time."""
    encoder, tokenizer = load_encoder(directory), load_tokenizer(directory)
    heads = load_heads(directory, encoder, tokenizer, colbert_dim=colbert_dim, seed=0)
    model = BiEncoder(encoder, pooling="cls", normalize=True, heads=heads).eval()
    found: dict[str, list] = {"dense_vecs": [], "lexical_weights": [], "colbert_vecs": []}
    with torch.inference_mode():
        for text in TEXTS:
            said = model.represent(tokenize(tokenizer, [text], LONGEST))
            found["dense_vecs"].append(said["dense"][0].numpy())
            weights = said["sparse"][0]
            found["lexical_weights"].append(
                {str(term): float(weights[term]) for term in weights.nonzero().flatten().tolist()}
            )
            found["colbert_vecs"].append(said["multi_vector"][0][said["counted"][0]].numpy())
    return found


def apart(kind: str, first, second) -> float:
    """The largest difference of a representation of a text."""
    if kind == "lexical_weights":
        second = {term: float(weight) for term, weight in second.items()}
        return max((abs(first.get(term, 0.0) - second.get(term, 0.0)) for term in {*first, *second}), default=0.0)
    return float(np.abs(first - np.asarray(second)).max())


def main() -> int:
    """Compare, and print."""
    directory, colbert_dim = sys.argv[1], int((sys.argv[2:] or ["-1"])[0])
    model = BGEM3FlagModel(directory, use_fp16=False, devices="cpu", colbert_dim=colbert_dim, batch_size=1)
    theirs = model.encode(
        TEXTS, max_length=LONGEST, return_dense=True, return_sparse=True, return_colbert_vecs=True, batch_size=1
    )
    found, worst = ours(directory, colbert_dim), 0.0
    for kind, values in found.items():
        differences = [apart(kind, value, other) for value, other in zip(values, theirs[kind], strict=True)]
        sizes = sum(np.size(value) if kind != "lexical_weights" else len(value) for value in values)
        print(f"{kind:16} {sizes:4} numbers, largest difference {max(differences):.2g}")
        worst = max(worst, *differences)
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
