"""What holds for all tests; and at the end, where the time went."""

import signal
from collections import Counter
from pathlib import PurePosixPath

import pytest
from hypothesis import settings

LONGEST = 15  # test files that are listed

settings.register_profile("kennel", deadline=None)  # no test asserts a time: these machines are shared
settings.load_profile("kennel")
# A shell's `make test &` has Ctrl-C ignored, and nohup SIGHUP, which every process that the tests start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seconds by folder and by test file; with two tests at a time their sum is up to twice what a clock shows."""
    folders: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                path = PurePosixPath(report.nodeid.split("::")[0])
                folders[str(path.parent)] += report.duration
                files[str(path)] += report.duration
    if sum(folders.values()) < 60:
        return
    terminalreporter.section("seconds by folder, and the longest files")
    for name, seconds in [*folders.most_common(), *files.most_common(LONGEST)]:
        terminalreporter.write_line(f"{seconds:8.0f}  {name}")
