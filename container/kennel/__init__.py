"""What training, serving and launching share. Imports nothing else of Kennel's."""

import os

__version__ = "0.1.0"

# ONNX Runtime, since 1.29, reports each loaded model to its maker over HTTPS, unless this stands when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
