"""What a laptop runs: demo, push, and later the AWS commands. Needs no torch."""
