"""Jobs -> processes on this machine, or arrays on a cluster; and what has become of them."""

from simclic.launch.processes import Outcome, Process, here
from simclic.launch.work import Waits, work

__all__ = ["Outcome", "Process", "Waits", "here", "work"]
