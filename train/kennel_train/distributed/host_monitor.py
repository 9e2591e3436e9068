"""The hosts of one job beside their ranks, over torch's TCPStore: that each lives, and which one failed and why.

The store is torch's own, on the first host; torchrun's launcher and the ranks use the same server. A rank that waits
in a collective cannot know why its neighbour is gone, or, under NCCL, that it is.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but torch's stubs do not say so

from kennel.errors import UserError
from kennel_train.contract import failure

MEETING = timedelta(minutes=15)  # the platform starts hosts minutes apart
BEAT = 0.5  # seconds between signs of life
SILENCE = 30.0  # seconds without one after which a host is lost: what gives them has nothing else to do
SHORT_SILENCE = 6.0  # the same once a rank of ours has lost a connection
GRACE = 10.0  # seconds for ranks to end by themselves once the job has failed elsewhere
PARTING = 45.0  # seconds to wait for a reason or a farewell: the launcher takes up to 30 to end the ranks of its host
_REASON = "kennel/reason"


class Hosts:
    """The hosts of a job as number `at` of `names` sees them, a context; an error that leaves it is reported to all.

    Args:
        port: of the store on the first host; 0 for any free one where the host is alone.
        on_failure: called once, in a thread, when another host has failed and our ranks have not ended by themselves.

    Raises:
        UserError: on entering, the first host could not be met, or its port is taken.
    """

    def __init__(self, names: tuple[str, ...], at: int, port: int, on_failure: Callable[[], object]) -> None:
        self.names, self.at, self._on_failure = names, at, on_failure
        self.reason = ""  # why another host failed, once that is known
        self.address, self.port = ("127.0.0.1" if len(names) == 1 else names[0]), port
        self._others = [number for number in range(len(names)) if number != at]
        self._heard: dict[int, tuple[int, float]] = {}  # of each: signs of life, and when the last of them came
        self._left: set[int] = set()
        self._reported = False
        self._ended = threading.Event()

    def __enter__(self) -> "Hosts":
        try:
            self._store = self._connect(server=self.at == 0)
        except dist.DistError as error:
            raise UserError(
                f"host {self.names[0]} could not be met at port {self.port} ({str(error).splitlines()[0]}): "
                f"its own log says whether it started, and the hosts must be able to reach each other"
            ) from error
        self.port = self._store.port
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(dist.DistError):  # the first host is gone, and its store
            if error and not self.reason:
                self._reported = True
                text = f"host {self.names[self.at]} failed: {failure.describe(error)}"
                self._store.compare_set(_REASON, "", text[:8000])
            self._store.set(f"kennel/left/{self.at}", "")
            self._part()
        self._ended.set()

    def _part(self) -> None:
        """Leave in order: the first host once all others are ready, since the store goes with it, then the others.

        Local mode stops every container when the first one ends: that must not be before rank 0's host is done.
        """
        last = time.monotonic() + PARTING
        while self._others and time.monotonic() < last:
            if self.at == 0 and (len(self._left) == len(self._others) or self._lost(SHORT_SILENCE)):
                return
            self._store.check([_REASON])  # raises when the first host has gone
            time.sleep(BEAT / 5)

    def cause(self) -> str:
        """Why the job failed, where a rank here has only lost a connection; empty where no reason arrives in time."""
        last = time.monotonic() + PARTING
        while self._others and not self.reason and time.monotonic() < last:
            self.reason = self._lost(SHORT_SILENCE)
            time.sleep(BEAT / 5)
        return self.reason

    def _connect(self, server: bool) -> TCPStore:
        # Several in one process are one server (multi_tenant): the launcher makes its own, which must not outlive ours.
        return TCPStore(self.address, self.port, None, server, MEETING, wait_for_workers=False, multi_tenant=server)

    def _listen(self) -> None:
        due = float("inf")
        try:
            store = self._connect(server=False)
            while not self._ended.wait(BEAT):
                self._exchange(store)
                if not self.reason and not self._reported:
                    self.reason = store.get(_REASON).decode() if store.check([_REASON]) else self._lost(SILENCE)
                    due = time.monotonic() + GRACE if self.reason else due
                if time.monotonic() > due:
                    due = float("inf")
                    self._on_failure()
        except dist.DistError:
            self.reason = self.reason or _gone(self.names[0], "its connection ended")
            if not self._ended.wait(GRACE):
                self._on_failure()

    def _exchange(self, store: TCPStore) -> None:
        """Give a sign of life and count those of the others."""
        store.add(f"kennel/alive/{self.at}", 1)
        for number in self._others:
            count = store.add(f"kennel/alive/{number}", 0)
            if count != self._heard.get(number, (0, 0.0))[0]:
                self._heard[number] = count, time.monotonic()
            if store.check([f"kennel/left/{number}"]):
                self._left.add(number)

    def _lost(self, silence: float) -> str:
        """A sentence on a host that came and has been silent for so many seconds, or nothing."""
        now = time.monotonic()
        for number, (_, at) in list(self._heard.items()):
            if number not in self._left and now - at > silence:
                return _gone(self.names[number], f"nothing was heard of it for {now - at:.0f} s")
        return ""


def _gone(name: str, how: str) -> str:
    return f"host {name} was lost ({how}): its own log and failure file say why, if it could still write them"
