"""A search of hyperparameters: what trials differ in, how SageMaker is asked for one, what each trial came to."""
