"""What serves a model on SageMaker: requests, their order and undoing, time to live, invocations."""
