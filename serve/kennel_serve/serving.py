"""What a worker must know of its model, settled by the server before it starts one."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from kennel.artifact import Manifest
from kennel.preprocessing import Preprocessing

FILE = "serving.json"


@dataclass(frozen=True)
class Serving:
    """One model as it is to be served."""

    folder: str  # the model's
    engine: str  # one of engines.FILES
    backbone: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    default_accept: str

    @classmethod
    def of(cls, folder: Path, manifest: Manifest, engine: str, default_accept: str) -> "Serving":
        return cls(
            str(folder),
            engine,
            manifest.backbone["name"],
            manifest.class_names,
            manifest.preprocessing,
            manifest.temperature,
            default_accept,
        )

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> "Serving":
        row = json.loads((folder / FILE).read_text())
        row["preprocessing"] = Preprocessing.from_json(row["preprocessing"])
        return cls(**{**row, "class_names": tuple(row["class_names"])})
