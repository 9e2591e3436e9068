"""Numbers taken while a job trains: losses, step times, tensor statistics, the machine. Nothing here judges them."""
