"""What a report says of how busy the machine was: sentences, and a row for each phase. Knows no HTML and no plot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from kennel_train.measure.history import Machine


@dataclass(frozen=True)
class Phase:
    """What the machine did in one phase of the job: means in percent, memory at its largest in MB; nan: not known."""

    name: str
    seconds: float
    cpu: float
    gpu: float
    memory: float


def phases(machine: Machine) -> list[Phase]:
    """The machine by phase of the job, in order of their beginning; one too short for a sample is not there."""
    starts = np.concatenate([[0.0], machine.at[:-1]]) if machine.at else np.empty(0)
    lasted = (np.array(machine.at) - starts).tolist()
    found = []
    for name in dict.fromkeys(machine.phase):
        kept = machine.during(name)
        seconds = sum(s for s, phase in zip(lasted, machine.phase, strict=True) if phase == name)
        gpu = [value for one in kept.gpu for value in one]
        found.append(Phase(name, seconds, _mean(kept.cpu), _mean(gpu), _most(kept.memory)))
    return found


def bands(machine: Machine) -> list[tuple[str, float, float]]:
    """(phase, from, to) in seconds, each time that the phase changes."""
    found, at, began = [], 0, 0.0
    for name, run in groupby(machine.phase):
        at += len(list(run))
        found.append((name, began, machine.at[at - 1]))
        began = machine.at[at - 1]
    return found


def busy(machine: Machine) -> Iterator[str]:
    """How busy the machine was, all job long."""
    if np.isfinite(_mean(machine.cpu)):
        yield f"The CPU cores were {_mean(machine.cpu):.0f}% busy on average and {_most(machine.cpu):.0f}% at most."
    means = [f"{_mean(one):.0f}%" for one in machine.gpu if np.isfinite(_mean(one))]
    if len(means) == 1:
        yield f"The GPU was {means[0]} busy on average and {_most(machine.gpu[0]):.0f}% at most."
    elif means:
        yield f"The GPUs were {', '.join(means[:-1])} and {means[-1]} busy on average."
    if np.isfinite(_most(machine.memory)):
        yield f"The job held at most {memory(_most(machine.memory))} of memory."


def memory(megabytes: float) -> str:
    """`850 MB`, `2.1 GB`."""
    if not np.isfinite(megabytes):
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def _mean(values: Sequence[float]) -> float:
    """nan where nothing is known."""
    known = [value for value in values if np.isfinite(value)]
    return sum(known) / len(known) if known else float("nan")


def _most(values: Sequence[float]) -> float:
    return max((value for value in values if np.isfinite(value)), default=float("nan"))
