"""The training contract: labelled photos in, one model folder out."""

import kennel  # noqa: F401 - before anything else: it switches telemetry off
