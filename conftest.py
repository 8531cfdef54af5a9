"""Shared by all tests: pytester runs pytest inside a test, and Ctrl-C reaches what tests start."""

import os
import signal

pytest_plugins = ["pytester"]

# A shell that starts tests in the background lets them ignore Ctrl-C, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The checks of these tests are no checks of this repository: on GitHub they are not to be annotated.
for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
    os.environ.pop(name, None)
