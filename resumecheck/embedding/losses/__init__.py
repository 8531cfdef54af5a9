"""The losses: a file each, each a function of embeddings, apart from the model."""
