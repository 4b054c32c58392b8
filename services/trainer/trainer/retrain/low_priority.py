"""Lower the priority of the process that imports this module: of the fork server, and so of its imports and its jobs.

Requests come first on a shared machine, and so does the start of the services: half as much processor is left for a job
while they need it.
"""

import os

NICENESS = 3

os.nice(NICENESS)
