"""Jobs and endpoints on this machine: `train`, `tune`, `deploy`, `invoke`, `delete` by --local, and make train-local.

By docker of the image, or by this environment; the SDK's own local mode is another way, which tests/image tries.
"""
