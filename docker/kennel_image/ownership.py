"""Gives what root made under /opt/ml to the owner of the folder that it was made in; input is never touched."""

import contextlib
import os
from pathlib import Path


def give_back(base: Path) -> None:
    """Walk top-down: what root owns inside somebody else's folder becomes theirs. No link is followed."""
    if not base.is_dir():
        return
    for path, folders, files, descriptor in os.fwalk(base, follow_symlinks=False):
        if path == str(base) and "input" in folders:
            folders.remove("input")
        owner = os.fstat(descriptor)
        if owner.st_uid == 0:
            continue
        for name in folders + files:
            # A read-only mount, or a file that is gone by now: nothing of ours either way.
            with contextlib.suppress(OSError):
                if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_uid == 0:
                    os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)
