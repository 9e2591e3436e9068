"""Our handler and model in MMS without the front door: MMS itself on the public port, by TCP, as a stock endpoint's.

Settings come from the environment: MODEL, WORKERS, PORT.
"""

import asyncio
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

from kennel import cgroup
from kennel_serve import server, settings
from kennel_serve.model_server import configuration
from kennel_serve.model_server.process import ModelServer

_write = configuration.write


def _by_tcp(port: int, folder: Path, limits: configuration.Limits) -> None:
    _write(folder, limits)
    file = folder / configuration.CONFIGURATION
    file.write_text(file.read_text().replace(f"unix:{folder / configuration.INFERENCE}", f"http://127.0.0.1:{port}", 1))


async def main(folder: Path, workers: int, port: int) -> None:
    os.environ.setdefault("KENNEL_ENGINE", "int8")
    chosen = replace(settings.read(), workers=workers)
    limits = settings.limits(chosen, cgroup.cpus(), 0, cgroup.memory_bytes())
    configuration.write = partial(_by_tcp, port)
    model_server = ModelServer(limits)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await model_server.start(os.environ)
        serving = server.check(chosen, 0, folder)
        await model_server.load(serving, settings.share(chosen, limits, serving.engine, 0, cgroup.memory_bytes()))
        await stop.wait()
    finally:
        await model_server.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(os.environ["MODEL"]), int(os.environ["WORKERS"]), int(os.environ["PORT"])))
