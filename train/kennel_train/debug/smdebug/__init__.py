"""AWS's smdebug: its hook in our jobs, and the rules on folders that it wrote."""
