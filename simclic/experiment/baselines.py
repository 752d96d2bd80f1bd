"""The 13 published methods of Table 2, in its order: the name that a Run starts from, and how the paper calls it."""

from pathlib import Path

METHODS = {
    "insdis": "InsDis",
    "moco-v1": "MoCo v1",
    "pcl-v1": "PCL",
    "pirl": "PIRL",
    "pcl-v2": "PCL v2",
    "simclr-v1": "SimCLR v1",
    "moco-v2": "MoCo v2",
    "simclr-v2": "SimCLR v2",
    "sela-v2": "SeLa v2",
    "infomin": "InfoMin",
    "byol": "BYOL",
    "deepcluster-v2": "DeepCluster v2",
    "swav": "SwAV",
}

# The stored rows of three of them come from conversions that pad as torchvision does, where the method pads otherwise.
AS_STORED = {f"{name}-as-stored": f"{METHODS[name]} (padded as stored)" for name in ("byol", "simclr-v1", "simclr-v2")}

# Three normalise their input by a deviation of 0.228 where the stored rows took ImageNet's 0.229.
OWN_INPUT = tuple(METHODS[name] for name in ("sela-v2", "deepcluster-v2", "swav"))

IMPORTED = METHODS | AS_STORED  # what a Run may start from once it was imported


def imported_path(runs: Path, name: str) -> Path:
    """Return the path of the imported weights of a published method."""
    return runs / "imported" / f"{name}.safetensors"


def not_imported(runs: Path, init: str) -> str:
    """Return what is missing of an imported starting point, in one line with the way out; "" if nothing is."""
    if init not in IMPORTED or imported_path(runs, init).is_file():
        return ""
    name, more = init.removesuffix("-as-stored"), " --as-stored" if init.endswith("-as-stored") else ""
    return f"init={init!r}: is not imported yet; run: simclic import {name} FILE{more} --runs {runs}"
