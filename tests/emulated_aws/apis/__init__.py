"""What each service answers."""
