"""What a person sees while a command works: one phase after another, on a terminal as a bar, elsewhere as lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[[str, float], None]  # (what happens now, how much of the phase's total is done)


class Steps:
    """Phases in order; holds the seconds that each took."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, what: str, total: int | None = None) -> Iterator[Show]:
        """Runs one phase; the function it gives changes the bar's text and place."""
        start = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"{name}: {what}", markup=False, highlight=False, soft_wrap=True)
            yield lambda _text, _done: None
        else:
            from rich.markup import escape
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            count = [MofNCompleteColumn()] if total else []
            columns = (TextColumn("{task.description}"), BarColumn(15), *count, TimeElapsedColumn())
            width = max(20, self.console.width - 45)  # a longer text would squeeze the other columns

            def short(text: str) -> str:
                return escape((text or what)[:width])

            with Progress(*columns, TextColumn("{task.fields[text]}"), console=self.console) as progress:
                task = progress.add_task(f"{name:<8}", total=total, text=short(what))
                yield lambda text, done: progress.update(task, completed=done, text=short(text))
                progress.update(task, total=total or 1, completed=total or 1, text=short(what))
        self.seconds[name] = round(time.monotonic() - start, 1)
        if not self.console.is_terminal:
            self.console.print(f"{name}: done in {self.seconds[name]} s", markup=False, highlight=False)
