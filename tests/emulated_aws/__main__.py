"""Starts the server for one test session, and ends with the process that holds its standard input."""

import signal
import sys
import tempfile
from pathlib import Path

from .http.server import serve

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the tests' own matter: they close our input
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="kennel-aws-") as folder:
        serve(Path(folder))
