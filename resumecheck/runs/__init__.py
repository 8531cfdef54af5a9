"""Start, interrupt and collect runs, each in its own process.

In flows a `RunSpec` (`spec.py`), out flows a directory with the recorded trajectory. `pool.py` sends specs to preloaded
servers (`server.py`), each run is a forked child that executes `worker.py`. `target.py` names and loads a target.
"""
