"""Shared by all tests: pytester runs pytest inside a test, and Ctrl-C reaches what tests start."""

import signal

pytest_plugins = ["pytester"]

# A shell that starts tests in the background lets them ignore Ctrl-C, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
