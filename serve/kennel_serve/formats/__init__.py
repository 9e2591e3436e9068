"""Bodies of /invocations: photos out of a request, predictions into a response."""
