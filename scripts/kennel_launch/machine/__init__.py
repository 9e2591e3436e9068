"""This machine: docker, processes, a scratch /opt/ml, an endpoint on loopback."""
