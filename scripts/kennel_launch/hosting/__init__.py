"""What serves a model on SageMaker: requests, their order and undoing, scaling, time to live."""
