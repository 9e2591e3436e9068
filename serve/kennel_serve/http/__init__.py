"""HTTP/1.1: the public port, and the client of the model server."""
