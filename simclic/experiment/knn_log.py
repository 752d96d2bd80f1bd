"""When a pre-training logs the error of k nearest neighbours on val, and on how many images: a plan prices it beforehand."""

QUERIES, BANK = 2048, 8192  # images of val, and of train, at most
SHARE = 4  # images that are trained on for each that is passed to log it, at least: about 5 % of the time


def count_sample(train: int, val: int) -> tuple[int, int]:
    """Return how many images of train and of val are passed for one error; (0, 0) without images of either."""
    return (min(train, BANK), min(val, QUERIES)) if train and val else (0, 0)


def list_logged_epochs(epochs: int, per_epoch: int, sample: int) -> tuple[int, ...]:
    """Return the epochs, from 1, after which it is logged: the first, each tenth of the training, and so the last.

    A short training of few images has fewer equal parts than ten, at least the whole, so that no time is lost. per_epoch: images
    that are trained on. sample: images that are passed for one error; 0 for none.
    """
    if not sample:
        return ()
    parts = max(1, min(10, epochs * per_epoch // (SHARE * sample)))
    ends = {-(-epochs * i // parts) for i in range(1, parts + 1)}
    return tuple(sorted(ends | {1} if parts == 10 else ends))
