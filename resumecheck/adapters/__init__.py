"""How a framework is driven and read: one contract (`contract.py`), one file per framework.

An adapter builds nothing: it gets the object that the target returned, attaches a `Recorder` to it without changing
what it computes, and trains it. `recorder.py` turns what the adapter sees into the rows of a trajectory.
"""
