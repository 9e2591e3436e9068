"""Judging a training while it runs, and writing it down for other tools: rules, smdebug, traces, TensorBoard."""
