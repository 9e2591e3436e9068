"""The serving contract: a model folder in, /ping and /invocations out."""

import kennel  # noqa: F401 - before anything else: it switches telemetry off
