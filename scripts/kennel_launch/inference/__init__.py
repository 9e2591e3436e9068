"""Photos to an endpoint and their answers back; and how many an endpoint carries."""
