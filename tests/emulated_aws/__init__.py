"""An emulated AWS on loopback: moto behind a thin server that judges requests as AWS does, and runs real jobs.

Test code: the commands know nothing of it, they only find their endpoint in AWS_ENDPOINT_URL.
"""
