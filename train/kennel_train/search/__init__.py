"""Hyperparameter search within one job: trials, heads trained side by side, the study that outlives a job."""
