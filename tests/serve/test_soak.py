"""Mixed load on one real endpoint: good, bad, huge and slow clients while workers are killed. `make soak` runs it long.

Every good answer is compared with the first of its kind; nothing but requests in a killed worker may fail.
"""

import io
import json
import os
import random
import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

SECONDS = float(os.environ.get("KENNEL_SOAK_SECONDS", "60"))
KILL_EVERY = min(60.0, SECONDS / 5)
GROWTH = 1.05 if SECONDS >= 600 else 1.25  # in a minute, beside other tests, caches still fill


class Load:
    """What the clients share: until when, and what they saw."""

    def __init__(self, server, photo):
        self.server = server
        self.ends = time.monotonic() + SECONDS
        self.photos = {color: photo(color, kind, (400, 300)) for color, kind in COLORS}
        self.wanted = {color: server.invoke(body, "application/x-image") for color, body in self.photos.items()}
        self.failed = []  # what no client should have seen
        self.lost = []  # 5xx
        self.statuses = Counter()
        self.pings = []  # milliseconds
        self.kills = 0

    def on(self):
        return time.monotonic() < self.ends and not self.failed

    def saw(self, kind, status, wanted, answer=b""):
        self.statuses[kind, status] += 1
        if status >= 500:
            self.lost.append((kind, status, answer))
        elif status not in wanted:
            self.failed.append((kind, status, answer))


COLORS = (("red", "JPEG"), ("green", "PNG"), ("blue", "WEBP"))


def good(load, chance):
    while load.on():
        color = chance.choice(COLORS)[0]
        answer = load.server.invoke(load.photos[color], "application/x-image")
        load.saw("good", answer[0], {200}, answer)
        if answer[0] == 200 and answer != load.wanted[color]:
            load.failed.append(("good", color, answer))


def bad(load, chance):
    while load.on():
        body = chance.randbytes(chance.randrange(0, 5000))
        if chance.random() < 0.5:
            whole = bytearray(load.photos["red"])
            whole[chance.randrange(len(whole))] ^= 255
            body = bytes(whole[: chance.randrange(len(whole))])
        kind = chance.choice(
            ["image/jpeg", "application/json", "application/x-npy", "text/plain", "application/x-image"]
        )
        load.saw("bad", load.server.invoke(body, kind)[0], {200, 400, 413, 415})
        time.sleep(0.05)


def huge(load, chance):
    file = io.BytesIO()
    Image.new("RGB", (5000, 4000), "green").save(file, "PNG", compress_level=1)
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    while load.on():
        load.saw("huge", load.server.invoke(file.getvalue(), "image/png")[0], {200})
        load.saw("bomb", load.server.invoke(bomb.getvalue(), "image/png")[0], {413})
        listed = json.dumps({"instances": ["eA=="] * 1000}).encode()
        load.saw("list", load.server.invoke(listed, "application/json")[0], {400})
        with suppress(OSError):  # it may hang up before all of it is sent
            load.saw("fat", load.server.invoke(bytes(3 << 20), "image/png")[0], {413})
        time.sleep(0.5)


def slow(load, chance):
    """A body that drips, and every third time the client goes away in the middle of it."""
    body = load.photos["blue"]
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/webp\r\nContent-Length: {len(body)}\r\n\r\n"
    while load.on():
        away = chance.random() < 0.33
        with socket.create_connection(("127.0.0.1", load.server.port), 60) as client:
            client.sendall(head.encode())
            step = max(1, len(body) // 10)
            for at in range(0, len(body), step):
                if away and at > len(body) // 2:
                    break
                client.sendall(body[at : at + step])
                time.sleep(0.2)
            else:
                load.saw("slow", int(client.recv(100).split()[1]), {200})


def ping(load, chance):
    while load.on():
        started = time.perf_counter()
        status = load.server.ping()
        load.pings.append(1000 * (time.perf_counter() - started))
        load.statuses["ping", status] += 1
        if status not in (200, 503):
            load.failed.append(("ping", status))
        time.sleep(0.05)


def kill(load, chance):
    """One worker or, every other time, all."""
    while load.on():
        time.sleep(KILL_EVERY)
        workers = load.server.scripts()[1:]
        for worker in workers[: 1 + load.kills % 2]:
            with suppress(psutil.Error):
                worker.kill()
                load.kills += 1


def memory(load, used):
    """Megabytes by kind of process, while no worker is missing: of the whole family, libraries left out.

    Of a page that a forked worker shares with its parent each counts its part (Linux' proc(5), smaps_rollup).
    """
    while load.on():
        with suppress(psutil.Error, OSError):
            family, scripts = load.server.family(), {process.pid for process in load.server.scripts()[1:]}
            if len(scripts) == 2:
                held = Counter()
                for process in family:
                    kind = "workers" if process.pid in scripts else process.name()
                    held[kind] += anonymous(process.pid)
                used.append(held)
        time.sleep(1)


def at_rest(sizes):
    """The lowest quarter's most: a worker that has just decoded a list of large photos holds five times as much."""
    return statistics.quantiles(sizes)[0]


def anonymous(pid):
    """Megabytes of a process that are no file's: heaps, stacks, memory files."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024


@pytest.mark.timeout(SECONDS + 120)
def test_mixed_load_while_workers_are_killed(running, write_model, photo, tmp_path):
    write_model(tmp_path / "model")
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2"}
    with running(tmp_path, **settings) as server:
        load, used = Load(server.wait_ready(), photo), []
        clients = [good] * 4 + [bad] * 2 + [huge, slow, slow, ping, kill]
        with ThreadPoolExecutor(len(clients) + 1) as pool:
            running_clients = [pool.submit(client, load, random.Random(at)) for at, client in enumerate(clients)]
            running_clients.append(pool.submit(memory, load, used))
        for client in running_clients:
            client.result()
        assert load.failed == []
        assert len(load.lost) <= load.kills, load.lost
        assert load.kills >= 3
        assert load.statuses["good", 200] > 100
        assert server.invoke(load.photos["red"], "application/x-image") == load.wanted["red"]
        pings, third = sorted(load.pings), len(used) // 3
        parts = used[third : 2 * third], used[2 * third :]
        before, after = (at_rest(sum(held.values()) for held in part) for part in parts)
        print(f"\n{dict(load.statuses)}\n{load.kills} workers killed, {len(load.lost)} requests lost with them")
        print(f"ping: {len(pings)}, p99.9 {pings[int(0.999 * len(pings))]:.0f} ms, most {pings[-1]:.0f} ms")
        print(f"memory: {before:.0f} MB, then {after:.0f} MB")
        for kind in sorted({kind for held in used for kind in held}):
            by_part = [at_rest(held[kind] for held in part) for part in parts]
            print(f"  {kind}: {', then '.join(f'{size:.1f}' for size in by_part)}")
            assert kind != "serve" or by_part[1] <= GROWTH * by_part[0]
        assert after <= GROWTH * before
