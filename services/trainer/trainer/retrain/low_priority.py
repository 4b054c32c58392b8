"""Lower the priority of the process that imports this module: of the fork server, and so of its imports and its jobs.

Requests come first on a shared machine, and so does the start of the services: while they need it, a job has a tenth of
the processor that they have. With half of it, a predictor that starts beside two trainings took 20 s.
"""

import os

NICENESS = 10

os.nice(NICENESS)
