"""The one exception for what the caller can fix: a setting, a folder, a photo, a request; and the hint at a typo."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One sentence: what is wrong, where, and how to fix it.

    Each contract's boundary turns it into its own form: a failure file and exit code 1 in training,
    a 4xx status in serving, one line on stderr in a command.
    """


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "", *, most: int = 1, cutoff: float = 0.5) -> str:
    """`did you mean 'epochs'?`, of what is known the nearest; `otherwise` where nothing is near.

    Args:
        most: so many are named.
        cutoff: from 0, anything, to 1, the same; difflib.get_close_matches.
    """
    near = difflib.get_close_matches(word, list(known), most, cutoff)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise


def cause(error: BaseException) -> str:
    """The first line of a library's message, at most 160 characters, to quote in a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
