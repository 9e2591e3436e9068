"""Jobs and endpoints that really run: training, tuning, transform, hosting, on a scratch /opt/ml."""
