"""Photos: which files are one, how they are labelled, and what their pixels become before the model."""
