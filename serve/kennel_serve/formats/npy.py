"""Numpy's file format, read from a request's body: no pickles, and no memory but for what has arrived."""

import io
import math

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from sagemaker_inference import content_types

KIND: str = content_types.NPY
MAGIC = npy_format.MAGIC_PREFIX
_HEADS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def read(body: bytes) -> NDArray[np.generic]:
    """The array of one `.npy` file; it shares the body's memory and cannot be written to.

    Raises:
        ValueError: it is none, holds Python objects or records, or is not as long as its head says.
    """
    file = io.BytesIO(body)
    try:
        shape, fortran, dtype = _HEADS[npy_format.read_magic(file)](file)  # type: ignore[no-untyped-call]
    except Exception as error:  # numpy parses the head as Python, which raises nearly anything on hostile bytes
        raise ValueError("it does not begin as such a file does") from error
    if dtype.hasobject:
        raise ValueError("Python objects in it, which only a pickle can hold, are not read")
    if dtype.kind not in "biuf":
        raise ValueError(f"its type {str(dtype)[:40]!r} is no number")
    said, there = math.prod(shape) * dtype.itemsize, len(body) - file.tell()
    if said != there or min(shape, default=0) < 0:
        raise ValueError(f"its head says {said} bytes of numbers, and there are {there}")
    return np.frombuffer(body, dtype, math.prod(shape), file.tell()).reshape(shape, order="F" if fortran else "C")
