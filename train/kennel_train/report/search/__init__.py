"""The part of the report about a search."""
