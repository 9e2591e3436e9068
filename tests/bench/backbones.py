"""`make check-backbones`: the smallest member of every family of torchvision's and timm's classifiers, random weights.

Each is built, makes one training step, becomes ONNX, agrees with ONNX Runtime and is loaded again, at its own image
size and at 224. A family is a module of its library. Writes build/check/backbones.json and the table of
docs/backbones.md; exits 1 where one fails later than a job could say it before the first photo is decoded.

    backbones.py [family ...]     torchvision/vgg timm/levit: these alone, the others as they were found last
    backbones.py --rest           those that were not found yet, as after a run that was interrupted
"""

import argparse
import json
import multiprocessing
import platform
import re
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from kennel import backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.errors import UserError, cause
from kennel.hyperparameters import Hyperparameters
from kennel.layout import WEIGHTS
from kennel_train.engine import loop, recipe, sanity_check
from kennel_train.model import export

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "backbones.md"
USUAL = 224  # pixels, the second size
CLASSES = 5
SECONDS = 1200  # a family
WORKS = "works"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="library/module; all where none is named")
    parser.add_argument("--rest", action="store_true", help="what no earlier run of these versions has found")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "check" / "backbones.json")
    options = parser.parse_args()
    versions = {"torchvision": torchvision.__version__, "timm": timm.__version__, "torch": torch.__version__}
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    rows: dict[str, dict[str, Any]] = found.get("families", {}) if found.get("versions") == versions else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    chosen = options.families or [family for family in families() if not (options.rest and family in rows)]
    for at, family in enumerate(chosen, 1):
        begun = time.monotonic()
        rows[family] = _family(family, rows.get(family, {}).get("member", ""))
        say(f"[{at}/{len(chosen)}] {family}: {_line(rows[family])} ({time.monotonic() - begun:.0f} s)")
        rows = {name: rows[name] for name in families() if name in rows}
        options.out.write_text(json.dumps({"versions": versions, "families": rows}, indent=2) + "\n")
        PAGE.write_text(filled(PAGE.read_text(), table(rows)))
    bad = [family for family, row in rows.items() if any("failed" in row[key] for key in ("own", "usual"))]
    refused = [family for family, row in rows.items() if any("refused" in row[key] for key in ("own", "usual"))]
    say(f"{len(rows)} families, {len(refused)} refused somewhere, {len(bad)} failed: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def families() -> dict[str, list[str]]:
    """The names of a family's members by `library/module`; timm's networks for its own tests are none."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in torchvision.models.list_models(module=torchvision.models):
        found[f"torchvision/{_module(torchvision.models.get_model_builder(name))}"].append(name)
    for name in timm.list_models():
        if not name.startswith("test_"):
            found[f"timm/{_module(timm.models.model_entrypoint(name))}"].append(name)
    return dict(sorted(found.items(), reverse=True))


def _module(function: Any) -> str:
    return str(function.__module__).rpartition(".")[2]


def _family(family: str, member: str) -> dict[str, Any]:
    """One family's row, found in a process of its own: forked, so that each is spared ten seconds of imports."""
    with tempfile.TemporaryDirectory(prefix="kennel-backbones-") as scratch:
        file = Path(scratch) / "row.json"
        file.write_text(json.dumps({"member": member}))
        process = multiprocessing.get_context("fork").Process(target=_worker, args=(family, file))
        process.start()
        process.join(SECONDS)
        died = f"the process ended by {process.exitcode}" if process.exitcode else ""
        if process.is_alive():
            process.kill()
            process.join()
            died = f"no result within {SECONDS // 60} minutes"
        row: dict[str, Any] = json.loads(file.read_text())
    unfinished = {"own": f"failed: {died}", "usual": f"failed: {died}"}
    return {"member": "", "own_size": 0, **unfinished, **row}


def _worker(family: str, file: Path) -> None:
    """Write what is found of a family as soon as it is; a process that dies leaves the rest to its parent."""
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    row = json.loads(file.read_text())
    name = row["member"] or smallest(families()[family])
    row |= {"member": name, "own_size": backbones.own_size(name, None)}
    file.write_text(json.dumps(row))
    for key, size in (("own", row["own_size"]), ("usual", USUAL)):
        same = key == "usual" and size == row["own_size"]
        row[key] = row["own"] if same else check(name, size)
        file.write_text(json.dumps(row))


def smallest(names: Iterable[str]) -> str:
    """The name with the fewest parameters: by torchvision's own figures, of timm's by networks without values."""
    counted: dict[str, int] = {}
    for name in names:
        if name in torchvision.models.list_models(module=torchvision.models):
            counted[name] = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
            continue
        try:
            with torch.device("meta"):
                network = timm.create_model(name)
        except Exception as error:
            say(f"{name} is made with values to be counted: {cause(error)}")
            network = timm.create_model(name)
        counted[name] = sum(parameter.numel() for parameter in network.parameters())
    return min(counted, key=lambda name: counted[name])


def check(name: str, size: int) -> str:
    """`works`, `refused: ...` as a job says it before it decodes a photo, or `failed: ...`."""
    torch.manual_seed(0)
    try:
        backbone = backbones.load(name, size, False, None, None)
        classifier = Classifier(backbone, CLASSES)
        sanity_check.check(classifier, name, size, 2, False)
        program = export.trace(classifier, name)
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"failed: {type(error).__name__} at the start: {cause(error)}"
    step = "training step"
    try:
        photos = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
        _train(classifier, photos)
        step = "export"
        with tempfile.TemporaryDirectory(prefix="kennel-backbones-") as scratch:
            row = Manifest(tuple("abcde"), backbone.preprocessing, {})
            export.export(classifier, program, photos, row, Path(scratch))
            step = "loading again"
            again = Classifier(backbones.load(name, size, False, None, None), CLASSES)
            again.load_state_dict(load_file(Path(scratch) / WEIGHTS))
            with torch.inference_mode():
                torch.testing.assert_close(again.eval()(photos), classifier.eval()(photos))
    except Exception as error:
        return f"failed: {type(error).__name__} in {step}: {cause(error)}"
    return WORKS


def _train(classifier: Classifier, photos: torch.Tensor) -> None:
    """One optimizer step as a fine-tune makes it; each weight that it should move has a finite gradient."""
    hp = Hyperparameters()
    loop.train_mode(classifier, False)
    optimizer = recipe.optimizer(classifier, hp, torch.device("cpu"))
    loss = cross_entropy(classifier(photos), torch.arange(len(photos)) % CLASSES)
    loss.backward()
    given = [parameter.grad for parameter in classifier.parameters() if parameter.grad is not None]
    if not torch.isfinite(loss) or not all(torch.isfinite(gradient).all() for gradient in given):
        raise ArithmeticError("the loss or a gradient is not finite")
    optimizer.step()


def _line(row: dict[str, Any]) -> str:
    return f"{row['member']}, {row['own_size']} px: {row['own']}; {USUAL} px: {row['usual']}"


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The table of docs/backbones.md."""
    lines = [f"| family | its smallest member | own size | at its own size | at {USUAL} |", "|---|---|---|---|---|"]
    for family, row in rows.items():
        cells = [_short(row[key], row["member"]) for key in ("own", "usual")]
        lines.append(f"| {family} | `{row['member']}` | {row['own_size']} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _short(result: str, member: str) -> str:
    """A refusal without the parts that each of them has."""
    result = re.sub(rf"backbone '{re.escape(member)}' ", "", result)
    result = re.sub(r": (set image_size=\d+, or )?choose another backbone$", "", result)
    return result.replace("|", "/")[:140]


def filled(page: str, made: str) -> str:
    """The page with the table between its markers."""
    versions = f"torchvision {torchvision.__version__}, timm {timm.__version__}, Python {platform.python_version()}"
    tried = f"{made.count(chr(10)) - 1} of {len(families())} families, by {versions}:"
    text = f"<!-- checked -->\n{tried}\n\n{made}\n<!-- /checked -->"
    return re.sub(r"<!-- checked -->.*?<!-- /checked -->", lambda _: text, page, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
