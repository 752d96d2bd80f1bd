"""SimCLIC: contrastive learning without data augmentation, negative pairs or a momentum encoder.

`SimCLIC` is loaded when it is first asked for, so that everything else answers without torch.
"""

from typing import TYPE_CHECKING, Any

from simclic.spec import Exhibit, Figure, Finetune, InputError, Linear, Run, Suite, Table, grid, load

if TYPE_CHECKING:
    from simclic.method import SimCLIC

__all__ = ["Exhibit", "Figure", "Finetune", "InputError", "Linear", "Run", "SimCLIC", "Suite", "Table", "grid", "load"]


def __getattr__(name: str) -> Any:
    if name == "SimCLIC":
        from simclic.method import SimCLIC

        return SimCLIC
    raise AttributeError(f"module 'simclic' has no attribute {name!r}")
