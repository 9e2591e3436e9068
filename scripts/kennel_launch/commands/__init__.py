"""One module for each subcommand of `kennel`."""
