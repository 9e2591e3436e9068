"""The files of a folder that smdebug writes: of which worker and which of its global steps. Imports no smdebug.

events/<step>/<step>_<worker>.tfevents, index/<thousands>/<step>_<worker>.json, collections/*/<worker>_collections.json,
and while one is written .tmp behind its name; a worker of PyTorch's is worker_<rank>.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ENDED, CLAIM = "training_job_end.ts", "claim.smd"
_STEP = re.compile(r"(\d+)_worker_(\d+)\.(?:tfevents|json)(\.tmp)?")
_COLLECTIONS = re.compile(r"worker_(\d+)_collections\.json(?:\.tmp)?")


def unclaim(folder: Path) -> None:
    """Remove the marks of an earlier job: smdebug refuses a folder with the one and keeps silent beside the other."""
    for name in (ENDED, CLAIM):
        (folder / name).unlink(missing_ok=True)


def kept(folder: Path, step: int, rank: int) -> tuple[int, int, int]:
    """(the first global step to be taken back, the last before it, the last step of evaluation before it), or -1s.

    Taken back is what follows training step `step` - 1: a job that was killed had come farther than its checkpoint.
    """
    last, evaluations = -1, -1
    for number, path in sorted((n, p) for n, worker, p, whole in _steps(folder, "index") if worker == rank and whole):
        meta = json.loads(path.read_text())["meta"]
        if meta["mode"] == "TRAIN" and meta["mode_step"] >= step:
            return number, last, evaluations
        last = number
        if meta["mode"] == "EVAL":
            evaluations = int(meta["mode_step"])
    return last + 1, last, evaluations


def forget(folder: Path, first: int, whose: Callable[[int], bool]) -> None:
    """Remove steps from the global step `first` on, and what was never finished, of the workers that `whose` takes."""
    for inner in ("events", "index"):
        for number, worker, path, whole in list(_steps(folder, inner)):
            if whose(worker) and (number >= first or not whole):
                path.unlink(missing_ok=True)  # another rank may do the same
                with contextlib.suppress(OSError):  # another worker's files are in there
                    path.parent.rmdir()
    for path in list((folder / "collections").rglob("*.json*")):
        named = _COLLECTIONS.fullmatch(path.name)
        if named and whose(int(named[1])) and first == 0:
            path.unlink(missing_ok=True)


def _steps(folder: Path, inner: str) -> Iterator[tuple[int, int, Path, bool]]:
    """(global step, worker, path, whether it was finished) of each file."""
    for path in (folder / inner).rglob("*_worker_*"):
        if named := _STEP.fullmatch(path.name):
            yield int(named[1]), int(named[2]), path, not named[3]
