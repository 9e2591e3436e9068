"""What an image weighs, layer by layer."""

import json
import re
import subprocess

from kennel.errors import UserError


def read(docker: str, image: str) -> list[dict[str, str]]:
    """docker's own rows of the image's history, the newest first.

    Raises:
        UserError: no such image.
    """
    command = [docker, "history", "--no-trunc", "--human=false", "--format", "{{json .}}", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"docker history: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def table(image: str, rows: list[dict[str, str]]) -> str:
    """One line for each layer that adds files, the base's first, and the sum."""
    sizes = [(int(row["Size"]), _instruction(row["CreatedBy"])) for row in reversed(rows)]
    lines = [f"{_megabytes(size)}  {what}" for size, what in sizes if size]
    return "\n".join([*lines, f"{_megabytes(sum(size for size, _ in sizes))}  {image}"])


def _instruction(created_by: str) -> str:
    """The Dockerfile's line, without what the builder wrapped around it."""
    text = re.sub(r"^(RUN )?(\|\d+ .*?)?/bin/sh -c (#\(nop\)\s*)?", "", created_by).removesuffix("# buildkit")
    return re.sub(r"\s+", " ", text).strip()[:100] or "the base"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:9.1f} MB"
