"""The multi-model-server (MMS) as a child process: its configuration, its Java, its start and end."""
