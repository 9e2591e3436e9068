"""AWS: sessions and clients, S3, the SageMaker SDK, jobs and endpoints by name, instance types."""
