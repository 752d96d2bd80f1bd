"""What can go wrong: a user's mistake, and a training that diverged."""


class InputError(ValueError):
    """A user's mistake, told in one line: the value, the rule, the way out."""


class Diverged(ArithmeticError):
    """A training whose loss is not finite any more: a result of sorts, and no mistake of the user's."""
