"""Workers take turns to import a user's code until one import has left the installed packages as they were.

An inference.py that runs pip while it is imported would else do so in every worker at once, on the same folders. The
first import is alone; the others are at the same time where it installed nothing, else one after another.
"""

import contextlib
import fcntl
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

_LOCK = "importing"  # of all models: they share the packages
_UNCHANGED = "imported"  # of one model

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def turn(folder: Path, program: str) -> Iterator[None]:
    """Hold this worker's turn.

    Args:
        folder: the private one that stands for the model; those of other models lie beside it.
        program: the file's name, for the log.
    """
    unchanged, places = folder / _UNCHANGED, [Path(place) for place in sys.path if place]
    with (folder.parent / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if unchanged.exists():
            fcntl.flock(lock, fcntl.LOCK_SH)
        before = _state(places, folder)
        yield
        if before == _state(places, folder):
            unchanged.touch()
        else:
            hint = "list in requirements.txt what it installs, and set KENNEL_INSTALL_REQUIREMENTS=true"
            _log.warning("%s changes the installed packages while it is imported: %s", program, hint)


def _state(places: list[Path], folder: Path) -> list[int]:
    """When something was last put into, or taken out of, each folder of packages."""
    return [place.stat().st_mtime_ns for place in places if place.is_dir() and place != folder]
