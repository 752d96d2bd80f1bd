"""The nouns: Run (one encoder and how it came about), the protocols Linear, Finetune and Knn, Table, Figure, grid, Suite.

Standard library only, so that planning and reporting never wait for torch.
"""

from simclic.experiment.compute_options import DECODE, DEFAULT_COMPUTE, ComputeOptions, count_cores
from simclic.experiment.declared import METHODS, PERTURBATIONS, method, perturbation
from simclic.experiment.exhibit import Exhibit, Figure, Table
from simclic.experiment.job import Job, JobState, evaluated_run
from simclic.experiment.knob import knob, list_knobs
from simclic.experiment.protocol import PROTOCOLS, Finetune, Knn, Linear, OnFeatures, Protocol, logspace
from simclic.experiment.run import Run, grid, whole_side
from simclic.experiment.suite import Suite, load

__all__ = [
    "DECODE", "DEFAULT_COMPUTE", "METHODS", "PERTURBATIONS", "PROTOCOLS", "ComputeOptions", "Exhibit", "Figure", "Finetune",
    "Job", "JobState", "Knn", "Linear", "OnFeatures", "Protocol", "Run", "Suite", "Table", "count_cores", "evaluated_run", "grid",
    "knob", "list_knobs", "load", "logspace", "method", "perturbation", "whole_side",
]  # fmt: skip
