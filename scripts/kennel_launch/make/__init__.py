"""What `make` calls: build, demo, train-local, docs."""
