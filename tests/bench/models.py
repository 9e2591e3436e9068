"""What `serve.py` serves and sends: `models.py SCRATCH BACKBONE...`, kept there until it is removed.

A process of its own: the load generator needs no torch.

ResNet-50 has random weights and lite0 a random head, so int8 is made without asking the gate whether it answers alike.
"""

import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import train

from kennel import artifact, backbones
from kennel.artifact import Manifest
from kennel.backbones import Classifier
from kennel.files import file_hash
from kennel.layout import INT8, MANIFEST, ONNX
from kennel.photos import decoder, preprocessing
from kennel_launch.make import samples
from kennel_train.model import export, int8, int8_gate

CLASSES = 133


def main(scratch: Path, names: list[str]) -> None:
    for name in names:
        if not (scratch / name / "kennel" / "model" / MANIFEST).exists():
            print(f"making {name}", file=sys.stderr, flush=True)
            _make(name, scratch / name)
    if not (scratch / "large" / "7.jpg").exists():
        train._large(sorted((train.SHARED / "hymenoptera" / "train").glob("*/*.jpg"))[:8], scratch / "large")


def _make(name: str, out: Path) -> None:
    """`kennel/model` as `train` writes it, `stock/model` with the same weights as such projects save them."""
    torch.manual_seed(0)
    pretrained = name == samples.BACKBONE
    backbone = backbones.load(name, 224, pretrained, samples.weights() if pretrained else None, None)
    classifier = Classifier(backbone, CLASSES)
    _stock(classifier, out / "stock" / "model")

    row = backbone.preprocessing
    paths = sorted((train.SHARED / "photos").glob("*.JPEG"))
    chosen = [paths[at] for at in int8_gate.spread(len(paths), int8_gate.CALIBRATION)]
    squares = np.stack([preprocessing.square(decoder.decode(path, row), row) for path in chosen])
    manifest = Manifest(
        class_names=tuple(f"{at:03}.class" for at in range(CLASSES)),
        preprocessing=row,
        backbone={"name": name, "library": backbone.library, "weights": backbone.weights},
        created=datetime.now(UTC).isoformat(),
    )
    folder = out / "kennel" / "model"
    program = export.trace(classifier, name)
    manifest = export.export(classifier, program, torch.from_numpy(squares[:4]), manifest, folder)
    (folder / MANIFEST).unlink()  # a folder without one is made anew
    batches = np.array_split(squares, len(squares) // int8_gate.BATCH)
    int8.write(folder / ONNX, folder / INT8, batches)
    files = {**manifest.files, INT8: file_hash(folder / INT8)}
    verdict = {"kept": True, "reason": "made for a benchmark, never judged"}
    artifact.write_manifest(folder, dataclasses.replace(manifest, files=files, int8=verdict))


def _stock(classifier: Classifier, folder: Path) -> None:
    (folder / "code").mkdir(parents=True, exist_ok=True)
    head = "fc" if hasattr(classifier.backbone, "fc") else "classifier"
    state = {**classifier.backbone.state_dict(), **classifier.head.state_dict(prefix=f"{head}.")}
    torch.save(state, folder / "model.pth")
    peer = Path(__file__).parent / "peers" / "stock" / "inference.py"
    (folder / "code" / peer.name).write_text(peer.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
