"""What the example of dog breeds and the notebook share in the tests: photos, `kennel` on PATH, an execution."""

import io
import itertools
import os
import sys
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from kennel_launch.console import flags

from .emulated_aws.runners import pictures

REPOSITORY = Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "scripts" / "walkthrough.ipynb"
BREEDS = {"001.Affenpinscher": "red", "124.Poodle": "green"}
COUNTS = {"train": 8, "valid": 4, "test": 3}  # of each breed
_TINY = [word for name, value in pictures.TINY.items() if name != "batch_size" for word in (flags.flag(name), value)]
# Added to what is typed, so that it takes a minute on the emulated AWS: a tiny network, two jobs instead of twenty.
QUICK = {"train": _TINY, "tune": [*_TINY, "--jobs", "2"]}
_LAUNCHER = """
    import sys

    sys.path[:0] = {sources}
    from kennel_launch.cli import main

    sys.argv += {more}.get(sys.argv[1], [])
    sys.exit(main())
"""


def zipped(file: Path) -> None:
    """dogImages.zip as Udacity's is laid out, of plain colours."""
    seeds = itertools.count()
    with zipfile.ZipFile(file, "w") as archive:
        for split, count in COUNTS.items():
            for breed, colour in BREEDS.items():
                for number in range(1, count + 1):
                    photo = io.BytesIO()
                    Image.open(io.BytesIO(pictures.photo(colour, next(seeds)))).save(photo, "JPEG", quality=95)
                    name = f"{breed.partition('.')[2]}_{number:05}.jpg"
                    archive.writestr(f"dogImages/{split}/{breed}/{name}", photo.getvalue())


def on_path(folder: Path, more: Mapping[str, Sequence[str]] | None = None) -> str:
    """A PATH with this checkout's `kennel`, written into `folder`.

    Args:
        more: words that it adds to what is typed, by subcommand.
    """
    launcher = folder / "bin" / "kennel"
    launcher.parent.mkdir()
    sources = [str(REPOSITORY / one) for one in ("scripts", "container")]
    launcher.write_text(f"#!{sys.executable}\n" + textwrap.dedent(_LAUNCHER).format(sources=sources, more=more or {}))
    launcher.chmod(0o755)
    return f"{launcher.parent}:{os.environ['PATH']}"


def executed(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Executes the notebook in `folder`: what each cell showed by its id, as text, as HTML on a line, as `<png>`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env={**os.environ, **env})
    return {cell["id"]: "".join(map(_shown, cell["outputs"])) for cell in notebook.cells if cell.cell_type == "code"}


def _shown(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text)
    return "<png>\n" if "image/png" in output.data else f"{output.data.get('text/html', '')}\n"
