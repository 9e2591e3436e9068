"""The HTTP side: which service and operation a request is for, whether AWS would take it, and the state it meets."""
