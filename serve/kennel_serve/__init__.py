"""The serving contract: a model folder in, /ping and /invocations out."""
