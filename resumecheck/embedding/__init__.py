"""The embedding trainer: fine-tunes a text embedding model, with a resume that is exact.

In flow JSONL rows (`rows.py`), through `dataset.py` (samples), `collator.py` (tokens), `model.py` (embeddings) and
`losses/` (the loss); out flow complete checkpoints (`checkpoint.py`) and a model directory. Open `train.py` first, then
`trainer.py`. Nothing here imports torch before it is used.
"""
