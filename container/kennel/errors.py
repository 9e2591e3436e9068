"""The one exception for what the caller can fix: a setting, a folder, a photo, a request."""


class UserError(Exception):
    """One sentence: what is wrong, where, and how to fix it.

    Each contract's boundary turns it into its own form: a failure file and exit code 1 in training,
    a 4xx status in serving, one line on stderr in a command.
    """
