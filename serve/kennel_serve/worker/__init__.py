"""What runs inside the model server's workers: our endpoint, or a user's inference.py."""
