"""What a person types and sees: flags, questions, progress, tables."""
