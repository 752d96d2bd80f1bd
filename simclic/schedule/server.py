"""What the server of processes imports, and nothing else does: torch and all that its processes need."""

import atexit
import gc
import os
from contextlib import suppress
from importlib import import_module

atexit.register(os._exit, 0)  # it has nothing to tidy up, and taking torch down takes a second of CPU time
gc.disable()  # collections that scan the modules again and again take another one
for name in (
    "simclic.schedule.work",
    "simclic.train.pretrain",
    "simclic.evaluate.linear",
    "simclic.evaluate.knn",
    "simclic.evaluate.finetune",
    "timm",
):
    with suppress(ImportError):  # the first process that needs it says so
        import_module(name)
gc.freeze()  # no collection in its processes scans them either
gc.enable()
