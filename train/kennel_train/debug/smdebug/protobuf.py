"""Makes smdebug importable beside a protobuf of today, whichever implementation is loaded, and keeps its log quiet.

smdebug 1.0.34 carries messages that protoc 3 generated. They build their descriptors field by field, which protobuf's C
implementation refuses; PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python would allow it, but is too late once protobuf is
imported, as onnx does it. The descriptors also lie in those files as bytes: they are loaded from them as protoc's code
of today does it. A script's own process, which imports smdebug itself, has the variable (`script`).
"""

import ast
import importlib
import logging
import sys
import warnings
from pathlib import Path
from types import ModuleType

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.internal import builder

_PACKAGE = "smdebug.core.tfevent.proto"


def load() -> None:
    """Prepare this process for `import smdebug.pytorch` and `smdebug.trials`; calls after the first do nothing.

    Raises:
        ImportError: smdebug is not installed.
    """
    log = logging.getLogger("smdebug")
    log.addFilter(_is_loud)  # a level would be set anew at import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distutils, and escapes in strings
        package = importlib.import_module(_PACKAGE)
        sources = {f"{_PACKAGE.replace('.', '/')}/{p.stem[:-4]}.proto": p for p in _folder(package).glob("*_pb2.py")}
        for name in sources:
            _build(name, sources, package)
        importlib.import_module("smdebug.pytorch")
    # pyinstrument, which it imports, leaves a finder that 3.12 passes over and about which 3.11 warns at every import.
    sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    log.handlers.clear()  # it would write to what stdout was at import
    log.propagate = True


def _is_loud(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _folder(package: ModuleType) -> Path:
    return Path(package.__path__[0])


def _build(name: str, sources: dict[str, Path], package: ModuleType) -> None:
    """Put the module of one .proto file, and before it those that it needs, where smdebug imports it from.

    See https://protobuf.dev/reference/python/python-generated/; `builder` is what generated modules call.
    """
    full = f"{_PACKAGE}.{sources[name].stem}"
    if full in sys.modules:
        return
    serialized = _serialized(sources[name])
    for needed in descriptor_pb2.FileDescriptorProto.FromString(serialized).dependency:
        _build(needed, sources, package)
    made = ModuleType(full)
    descriptor = descriptor_pool.Default().AddSerializedFile(serialized)
    builder.BuildMessageAndEnumDescriptors(descriptor, made.__dict__)
    builder.BuildTopDescriptorsAndMessages(descriptor, full, made.__dict__)
    sys.modules[full] = made
    setattr(package, sources[name].stem, made)


def _serialized(source: Path) -> bytes:
    """The file descriptor that a generated module holds."""
    words = (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.keyword))
    found = next(word.value for word in words if word.arg == "serialized_pb")
    return bytes(ast.literal_eval(found))
