"""`make docs`: the tables in docs/, written from the code between their markers; `--check` says whether they are."""

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

from kennel import metrics
from kennel.errors import UserError

TABLES = {  # by marker: the function that makes it
    "hyperparameters": "kennel.hyperparameters:markdown",
    "metrics": "kennel_launch.make.docs:metric_table",
    "rules": "kennel_train.debug.rules.table:markdown",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", default=[Path("docs/training.md"), Path("docs/debugging.md")])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a table is out of date")
    options = parser.parse_args()
    try:
        for file in options.files:
            _page(file, check=options.check)
    except UserError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    return 0


def _page(file: Path, *, check: bool) -> None:
    if not file.is_file():
        raise UserError(f"{file} is missing")
    text = file.read_text()
    made = fill(text)
    if check and made != text:
        raise UserError(f"the tables in {file} are out of date: run make docs")
    if not check:
        file.write_text(made)


def fill(text: str) -> str:
    """The text with each table between its markers made anew, where it is marked.

    Raises:
        UserError: there are no markers.
    """
    marked = [name for name in TABLES if _between(name).search(text)]
    if not marked:
        raise UserError("no <!-- hyperparameters --> and <!-- /hyperparameters --> to write the table between")
    for name, where in TABLES.items():
        if name in marked:  # a laptop lacks what the rules' module imports
            text = _between(name).sub(partial(_filled, resolve_name(where)()), text)
    return text


def _filled(table: str, match: re.Match[str]) -> str:
    return f"{match[1]}\n{table}{match[2]}"


def metric_table() -> str:
    rows = ["| metric | better | regex |", "|---|---|---|"]
    for metric in metrics.METRICS:
        better = "higher" if metric.goal == "Maximize" else "lower"
        rows.append(f"| `{metric.name}` | {better} | `{metric.regex}` |")
    return "\n".join(rows) + "\n"


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->)\n.*?(<!-- /{name} -->)", re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
