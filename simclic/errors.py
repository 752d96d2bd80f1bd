"""What can go wrong: a user's mistake, a training that diverged, a process of it that is lost."""


class InputError(ValueError):
    """A user's mistake, told in one line: the value, the rule, the way out."""


class Diverged(ArithmeticError):
    """A training whose loss is not finite any more: a result of sorts, and no mistake of the user's."""


class RankLost(RuntimeError):
    """A process that computes a pre-training with others ended or does not answer; the message names it."""
