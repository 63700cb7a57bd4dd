"""The one error that a user's own mistake may raise.

Everything that is wrong with a request (options, data, weights, a device that is not there) is a
`UserError`: the command line prints its text without a traceback and ends with exit status 2.
Any other exception is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """A mistake in the request: what was found, where, and what to do about it."""
