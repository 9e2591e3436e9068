"""The JSON files of input/config, read in one way: what is absent, empty or null asks for nothing."""

import json
from pathlib import Path
from typing import Any

from kennel.errors import UserError


def read(path: Path) -> dict[str, Any] | None:
    """A file's JSON object; None where there is no file, nothing in it, or null.

    Raises:
        UserError: the file holds something else.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no UTF-8 text: give a JSON object") from None
    try:
        row = json.loads(text) if text.strip() else None
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({error}): correct or remove it") from None
    if row is not None and not isinstance(row, dict):
        raise UserError(f"{path}: expected a JSON object, got {str(row)[:80]!r}: correct or remove it")
    return row


def channels(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of inputdataconfig.json by channel; a row of null is an empty one.

    Raises:
        UserError: a row that is no object.
    """
    rows = read(path) or {}
    wrong = next((name for name, row in rows.items() if not isinstance(row, dict | None)), None)
    if wrong is not None:
        raise UserError(f"{path}: channel {wrong!r} is {str(rows[wrong])[:80]!r}: give a JSON object, or remove it")
    return {name: row or {} for name, row in rows.items()}
