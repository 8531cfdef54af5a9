"""What several tests need and is dear to make: made once for all processes of a test run."""

import fcntl
import os


def made_once(tmp_path_factory, name, make):
    """The directory that `make(directory)` has filled; processes of pytest-xdist wait for the one that makes it."""
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    directory, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            directory.mkdir()
            make(directory)
            done.touch()
    return directory
