"""The network: which runtime runs it, on ONNX Runtime or torch, and what its outputs mean."""
