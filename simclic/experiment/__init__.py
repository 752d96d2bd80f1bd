"""The nouns: Run (one encoder and how it came about), the protocols Linear and Finetune, Table, Figure, grid, Suite.

Standard library only, so that planning and reporting never wait for torch.
"""

from simclic.experiment.declared import METHODS, PERTURBATIONS, method, perturbation
from simclic.experiment.exhibit import Exhibit, Figure, Suite, Table, load
from simclic.experiment.how import USUAL, How, cores
from simclic.experiment.job import Job, JobState
from simclic.experiment.knob import knob, list_knobs
from simclic.experiment.protocol import PROTOCOLS, Finetune, Linear, Protocol, logspace
from simclic.experiment.run import Run, grid

__all__ = [
    "METHODS", "PERTURBATIONS", "PROTOCOLS", "USUAL", "Exhibit", "Figure", "Finetune", "How", "Job", "JobState", "Linear",
    "Protocol", "Run", "Suite", "Table", "cores", "grid", "knob", "list_knobs", "load", "logspace", "method", "perturbation",
]  # fmt: skip
