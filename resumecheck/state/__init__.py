"""What a training state is, and how it is named and digested.

In flows a `LiveState` (the live model, optimizers, schedulers, scaler, counters of a run), out flow named leaves with
digests. `components.py` is the table of components, `capture.py` reads the leaves, `digest.py` turns a leaf into a
short text that is equal exactly when the bits are equal, `streams.py` reads and sets random streams, `census.py` walks
what no checkpoint holds.
"""
