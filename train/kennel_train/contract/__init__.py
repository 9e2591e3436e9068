"""What SageMaker and its toolkit ask of a training job: failure file, SIGTERM, hook or script of the user."""
