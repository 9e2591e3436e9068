"""SageMaker's own SDKs, for those who write Estimator or ModelTrainer themselves: by the settings of `kennel`."""
