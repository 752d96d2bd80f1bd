"""What must be measured before a claim can be judged: places of exhibits, whatever the numbers there are."""

from collections.abc import Callable, Collection, Iterable, Set
from typing import Any

from simclic.data import FACTS
from simclic.experiment import Finetune, Linear
from simclic.report.cell_keys import Key

Need = Callable[[Collection[Key], Collection[Key]], bool]  # places to judge by, and printed ones -> are they enough?

CLASSES = {facts.title: facts.classes for facts in FACTS.values()}
STAGES = {kind.stage: kind.word for kind in (Linear, Finetune)}


def group_points(places: Iterable[Key], exhibit: str, stage: str) -> dict[str, set[Any]]:
    """Return where an exhibit has numbers under one protocol: by data set, the `at` (see Key) of each."""
    by_dataset: dict[str, set[Any]] = {}
    for place in places:
        if (place.exhibit, place.stage) == (exhibit, stage):
            by_dataset.setdefault(place.dataset, set()).add(place.at)
    return by_dataset


def need_one(exhibit: str, stages: Iterable[str], enough: Callable[[Set[Any]], bool]) -> Need:
    """Return the need of a claim judged on each data set alone (see `each`): a data set whose points are enough."""
    return lambda places, printed: any(enough(at) for stage in stages for at in group_points(places, exhibit, stage).values())


def need_columns(table: str, first: str, second: str) -> Need:
    """Return the need of a claim about two columns: a data set that has both."""
    return need_one(table, ["linear"], {first, second}.issubset)


def need_rows(stage: str, datasets: Iterable[str], again: Collection[str], methods: Collection[str]) -> Need:
    """Return the need of a claim on all of these data sets: rows run `again` here, and these methods run here or printed."""

    def need(places: Collection[Key], printed: Collection[Key]) -> bool:
        own, old = group_points(places, "table2", stage), group_points(printed, "table2", stage)
        return all(own.get(name, set()) >= {*again} and own[name] | old.get(name, set()) >= {*methods} for name in datasets)

    return need


def need_both(exhibit: str, enough: Callable[[Set[float], Set[float]], bool]) -> Need:
    """Return the need of a claim on both protocols: a data set whose linear and fine-tuned points are enough."""

    def need(places: Collection[Key], printed: Collection[Key]) -> bool:
        linear, tuned = (group_points(places, exhibit, stage) for stage in STAGES)
        return any(enough(at, tuned[dataset]) for dataset, at in linear.items() if dataset in tuned)

    return need


def need_smaller(other: str) -> Need:
    """Return the need of `smaller_range`: a data set with several points of both figures under one protocol."""

    def need(places: Collection[Key], printed: Collection[Key]) -> bool:
        pairs = [(group_points(places, "figure6", stage), group_points(places, other, stage)) for stage in STAGES]
        return any(len(at) > 1 and len(theirs.get(dataset, ())) > 1 for eps, theirs in pairs for dataset, at in eps.items())

    return need
