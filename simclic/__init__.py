"""SimCLIC: contrastive learning without data augmentation, negative pairs or a momentum encoder.

`SimCLIC` is loaded when it is first asked for, so that everything else answers without torch.
"""

from typing import TYPE_CHECKING, Any

from simclic.errors import InputError
from simclic.experiment import Exhibit, Figure, Finetune, Knn, Linear, Run, Suite, Table, grid, load

if TYPE_CHECKING:
    from simclic.methods.simclic import SimCLIC

__all__ = ["Exhibit", "Figure", "Finetune", "InputError", "Knn", "Linear", "Run", "SimCLIC", "Suite", "Table", "grid", "load"]


def __getattr__(name: str) -> Any:
    if name == "SimCLIC":
        from simclic.methods.simclic import SimCLIC

        return SimCLIC
    raise AttributeError(f"module 'simclic' has no attribute {name!r}")
