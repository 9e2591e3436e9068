"""What holds for all tests."""

import signal

from hypothesis import settings

settings.register_profile("kennel", deadline=None)  # no test asserts a time: these machines are shared
settings.load_profile("kennel")
# A shell's `make test &` has Ctrl-C ignored, which every process that the tests start and interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
