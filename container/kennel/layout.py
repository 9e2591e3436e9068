"""SageMaker's /opt/ml as a value: where the platform puts things, where it looks for ours, and our files' names."""

from dataclasses import dataclass
from pathlib import Path

# The model folder's files, and what a file of weights may be called.
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
INT8 = "model.int8.onnx"  # there when it answers as ONNX does
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Layout:
    """The folders of one training job or endpoint; `base` is /opt/ml on SageMaker, anything in a test."""

    base: Path = Path("/opt/ml")

    @property
    def config(self) -> Path:
        return self.base / "input" / "config"

    @property
    def hyperparameters(self) -> Path:
        return self.config / "hyperparameters.json"

    @property
    def data(self) -> Path:
        """One folder per input channel."""
        return self.base / "input" / "data"

    @property
    def model(self) -> Path:
        """Written by training, packed to model.tar.gz by the platform, read-only when serving."""
        return self.base / "model"

    @property
    def code(self) -> Path:
        """Where the toolkit unpacks the source that an Estimator sends."""
        return self.base / "code"

    @property
    def checkpoints(self) -> Path:
        """Copied to S3 and back by the platform, where the job has a checkpoint configuration."""
        return self.base / "checkpoints"

    @property
    def output_data(self) -> Path:
        """Becomes output.tar.gz: what is worth keeping beside the model."""
        return self.base / "output" / "data"

    @property
    def failure(self) -> Path:
        """Its first 1,024 characters become the job's FailureReason."""
        return self.base / "output" / "failure"

    @property
    def success(self) -> Path:
        """Written by the toolkit when a job has ended well."""
        return self.base / "output" / "success"
