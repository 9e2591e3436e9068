"""What would fail on SageMaker, and what it costs, before anything is created."""
