"""What the FastAPI and LitServe peers serve: our exported file and our decoding, so that only the servers differ."""

import json
from pathlib import Path

import numpy as np
import onnxruntime

from kennel.photos import decoder, preprocessing
from kennel.photos.preprocessing import Preprocessing


class Classifier:
    """One model, on one thread."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        self.classes: list[str] = manifest["class_names"]
        self.row = Preprocessing.from_json(manifest["preprocessing"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            folder / "model.int8.onnx", options, providers=["CPUExecutionProvider"]
        )

    def predict(self, photo: bytes) -> list[dict[str, object]]:
        """The five likeliest classes."""
        square = preprocessing.square(decoder.decode(photo, self.row), self.row)
        logits = self.session.run(["logits"], {"photos": square[None]})[0][0]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return [{"label": self.classes[i], "probability": float(shares[i])} for i in np.argsort(-shares)[:5]]
