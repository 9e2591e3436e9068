"""The model folder: weights, ONNX, maybe an int8 ONNX, and manifest.json, which says all that serving must know.

The manifest is written last and names each file's hash, so a folder without one, or with another file, is no model.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kennel import files
from kennel.errors import UserError
from kennel.files import file_hash
from kennel.layout import MANIFEST, ONNX
from kennel.photos.preprocessing import Preprocessing

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a model folder holds.

    `model.onnx` takes `photos`, uint8 (N, 3, image_size, image_size), and gives `logits`, float32 (N, classes);
    `model.int8.onnx`, where `files` names it, does the same. Probabilities are softmax(logits / temperature).
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    backbone: dict[str, str]  # name, library, weights: where they came from
    metrics: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # fingerprint, photos per split, skipped files with reasons
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256
    temperature: float = 1.0  # fitted on validation
    evaluation: dict[str, Any] = field(default_factory=dict)  # split -> its figures
    int8: dict[str, Any] = field(default_factory=dict)  # kept or not, why, and the figures; empty: not tried
    created: str = ""  # UTC, ISO 8601
    format: int = FORMAT


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json in one step: it is there whole, or not at all."""
    files.put(folder / MANIFEST, json.dumps(asdict(manifest), indent=2))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a model folder, its files checked against their hashes.

    Raises:
        UserError: no manifest, not one of this format, or a file that is missing or not the one it names.
    """
    path = folder / MANIFEST
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) if folder.is_dir() else ""
        holds = f"it holds {found}" if found else "it is empty or absent"
        raise UserError(
            f"{folder} is no Kennel model, {MANIFEST} is missing ({holds}): give a folder written by `train`"
        )
    try:
        row = json.loads(path.read_text())
        if row.get("format") != FORMAT:
            raise UserError(f"{path} has format {row.get('format')!r}, this version reads {FORMAT}: train again")
        row["preprocessing"] = Preprocessing.from_json(row["preprocessing"])
        row["class_names"] = tuple(map(str, row["class_names"]))
        known = {field.name for field in fields(Manifest)}  # a later version may say more
        manifest = Manifest(**{key: value for key, value in row.items() if key in known})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch the model again or train again") from error
    if not manifest.class_names or ONNX not in manifest.files:
        raise UserError(f"{path} is damaged (no class names or no {ONNX}): fetch the model again or train again")
    temperature: object = manifest.temperature  # whatever the file says
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise UserError(f"{path} is damaged (temperature {temperature!r}): fetch the model again or train again")
    for name, digest in manifest.files.items():
        file = folder / name
        if "/" in name or file.is_symlink() or not file.is_file():
            raise UserError(f"{file} is missing or is a link: fetch the model again or train again")
        if file_hash(file) != digest:
            raise UserError(f"{file} is not the file that {MANIFEST} names (its hash differs): fetch it again")
    return manifest
