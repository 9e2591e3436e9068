"""A search by SageMaker's tuner as plain data: ranges, objective, limits, warm start, all from the one table."""
