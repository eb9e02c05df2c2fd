"""The one error a user's mistake raises: a sentence with what was found, what was expected, what to do."""


class UserError(Exception):
    """A mistake the user can mend. The command prints it without a traceback and exits with code 2."""
