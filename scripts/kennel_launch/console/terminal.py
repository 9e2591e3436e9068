"""The two consoles that commands write to. rich is imported with the first of them: --help and a refusal need none."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def out(width: int = 120) -> "Console":
    """Standard output: as wide as the terminal, elsewhere of this width."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def err() -> "Console":
    """Standard error, for what is seen while the command works."""
    from rich.console import Console

    return Console(stderr=True)
