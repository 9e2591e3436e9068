"""The configuration of the model server: its limits, configuration files, environment and private folder.

No process is started here; `process` does that.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import UserError
from kennel_serve.formats.response_body import MAX_BYTES

CONFIGURATION = "config.properties"
LOGGING = "log4j2.xml"
INFERENCE, MANAGEMENT = "inference.sock", "management.sock"
_TMPDIR_LENGTH = 107 - len("/kennel-12345678/.mms.sock.12345")
# Warnings of MMS, and what workers write on stderr, go to the log; its chatter at each worker's start does not.
_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error" shutdownHook="disable">
  <Appenders>
    <Console name="LOG" target="SYSTEM_ERR"><PatternLayout pattern="%m%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="io.netty" level="error"/>
    <Logger name="org.apache" level="off"/>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="MMS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Root level="warn">
      <AppenderRef ref="LOG">
        <RegexFilter regex="(attach|terminate)IOStreams.*|--- Logging error ---" onMatch="DENY" onMismatch="ACCEPT"/>
      </AppenderRef>
    </Root>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True)
class Limits:
    """What the model server may use."""

    heap_bytes: int
    cpus: int
    gpus: int  # that workers are spread over
    request_bytes: int
    response_seconds: int
    startup_seconds: int
    vmargs: str = ""  # the user's own, behind ours so that they win


@dataclass(frozen=True)
class Share:
    """What one model may use of it."""

    workers: int
    batch_size: int  # requests a worker is handed at once, at most
    batch_delay_ms: int  # how long the first of them waits for others
    own_code: bool = False  # a user's inference.py answers


def write(folder: Path, limits: Limits) -> None:
    """Both files of the model server, which answers at the two sockets."""
    rows = {
        "inference_address": f"unix:{folder / INFERENCE}",
        "management_address": f"unix:{folder / MANAGEMENT}",
        "max_request_size": limits.request_bytes + 1024,
        "max_response_size": MAX_BYTES,
        "number_of_gpu": limits.gpus,
        "decode_input_request": "false",  # the codec does it, and answers 400 where it cannot
    }
    (folder / CONFIGURATION).write_text("".join(f"{key}={value}\n" for key, value in rows.items()))
    (folder / LOGGING).write_text(_LOG4J)


def private_folder() -> Path:
    """A new temporary folder, short enough for the names of the Unix sockets that MMS makes in it."""
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > _TMPDIR_LENGTH:
        raise UserError(f"TMPDIR={place} is too long: use a path of at most {_TMPDIR_LENGTH} characters")
    return Path(tempfile.mkdtemp(prefix="kennel-"))


def child_environment(environ: Mapping[str, str], folder: Path, bin_folder: Path) -> dict[str, str]:
    """The server's environment, with the temporary folders inside `folder` and our Python first."""
    kept = {key: value for key, value in environ.items() if not key.startswith(("MMS_", "MODEL_SERVER_"))}
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "LOG_LOCATION", "METRICS_LOCATION"), str(folder))
    return {**kept, **places, "PATH": os.pathsep.join([str(bin_folder), environ.get("PATH", os.defpath)])}
