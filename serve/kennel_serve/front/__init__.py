"""What each path of the endpoint answers: /ping, /invocations, /models, /execution-parameters."""
