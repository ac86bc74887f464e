"""The one exception that speaks to the user."""


class UserError(Exception):
    """A mistake of the user's, told in one sentence: what was got, what is allowed, what to do.

    Commands print it without a traceback and end with exit status 2.
    """
