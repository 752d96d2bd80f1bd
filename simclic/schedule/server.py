"""What the server imports, once, for all the processes that are forked from it."""

import atexit
import os

import timm  # noqa: F401

import simclic.evaluate.finetune
import simclic.evaluate.knn
import simclic.evaluate.linear
import simclic.schedule.work
import simclic.train.pretrain  # noqa: F401

atexit.register(os._exit, 0)  # it has nothing to tidy up, and taking torch down takes a second of CPU time
