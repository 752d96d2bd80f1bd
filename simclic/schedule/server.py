"""What the server of processes imports last, and nothing else does: it lets the server end at once."""

import atexit
import os

atexit.register(os._exit, 0)  # it has nothing to tidy up, and taking torch down takes a second of CPU time
