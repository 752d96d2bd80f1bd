"""The nouns: Run (one encoder and how it came about), the protocols Linear and Finetune, Table, Figure, grid, Suite.

Standard library only, so that planning and reporting never wait for torch.
"""

from simclic.spec.exhibit import Exhibit, Figure, Suite, Table, load
from simclic.spec.fields import STRENGTHS, Diverged, InputError, Tell
from simclic.spec.how import USUAL, How, cores
from simclic.spec.protocol import PROTOCOLS, Finetune, Linear, Protocol, logspace
from simclic.spec.run import Run, grid

__all__ = [
    "PROTOCOLS", "STRENGTHS", "USUAL", "Diverged", "Exhibit", "Figure", "Finetune", "How", "InputError", "Linear", "Protocol",
    "Run", "Suite", "Table", "Tell", "cores", "grid", "load", "logspace",
]  # fmt: skip
