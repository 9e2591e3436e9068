"""A job's run in MLflow: where it goes, what the job tells it, and the thread that sends it."""
