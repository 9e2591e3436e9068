"""What training, serving and launching share. Imports nothing else of Kennel's."""

__version__ = "0.1.0"
