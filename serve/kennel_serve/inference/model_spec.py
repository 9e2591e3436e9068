"""What a worker must know of its model, settled by the server before it starts one."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from kennel.artifact import Manifest
from kennel.photos.preprocessing import Preprocessing
from kennel_serve.formats import response_body
from kennel_serve.inference import engines

FILE = "serving.json"


@dataclass(frozen=True)
class ModelSpec:
    """One model as it is to be served."""

    folder: str  # the model's
    engine: str  # one of engines.FILES, or engines.NONE: what follows of the model then means nothing
    backbone: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    default_accept: str
    program: str = ""  # the user's file that answers requests
    on_error: str = response_body.REQUEST  # what a bad photo of a list fails, where the request does not say

    @classmethod
    def of(
        cls,
        folder: Path,
        manifest: Manifest,
        engine: str,
        default_accept: str,
        program: str = "",
        on_error: str = response_body.REQUEST,
    ) -> "ModelSpec":
        return cls(
            str(folder),
            engine,
            manifest.backbone["name"],
            manifest.class_names,
            manifest.preprocessing,
            manifest.temperature,
            default_accept,
            program,
            on_error,
        )

    @classmethod
    def of_program(cls, folder: Path, program: str, default_accept: str) -> "ModelSpec":
        """A user's own model."""
        return cls(str(folder), engines.NONE, "", (), Preprocessing(), 1.0, default_accept, program)

    def proven_by(self, status: int, photos: int) -> bool:
        """Whether the answer to our sample photo shows that it can be served.

        A user's own input_fn need not know photos, and may refuse one by any exception.

        Args:
            photos: how many we have read of it, and not the user's code.
        """
        if not self.program:
            return status == 200
        return status < 500 or (status == 500 and photos == 0)

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> "ModelSpec":
        row = json.loads((folder / FILE).read_text())
        row["preprocessing"] = Preprocessing.from_json(row["preprocessing"])
        return cls(**{**row, "class_names": tuple(row["class_names"])})
