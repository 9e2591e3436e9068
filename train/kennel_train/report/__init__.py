"""The job's report: one HTML page and the same figures as JSON."""
