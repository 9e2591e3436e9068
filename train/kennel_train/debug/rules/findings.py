"""What a rule says when it fires, and its line in the log. Which rules there are: `table`."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Fired:
    """One rule's answer about one series."""

    step: int  # since which it holds
    what: str  # a clause with the figure in it: "the device waited 61% of the time for batches"
    fix: str  # a clause: "give the job more CPU cores, or set ..."
    severity: str = "warning"  # or "error": the model cannot be right


@dataclass(frozen=True)
class RuleFinding:
    """A rule that fired, in which stage and epoch."""

    rule: str  # as in `rules.TABLE`
    stage: str
    epoch: int
    fired: Fired

    def line(self) -> str:
        """For the log."""
        where = f"{self.stage}, epoch {self.epoch}, step {self.fired.step}" if self.stage else f"step {self.fired.step}"
        return f"rule {self.rule}: {self.fired.what} (since {where}): {self.fired.fix}"

    def as_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "stage": self.stage, "epoch": self.epoch, **asdict(self.fired)}
