"""vknix makes a pool of bare NixOS hosts a node of a Kubernetes cluster.

To read it: node.py (how the parts fit), provider.py (the seam), loops/worker.py (one worker a Pod), core/decide.py and
core/status.py (what is decided), nspawn/plan.py and nspawn/unit.py (what a host gets).
"""

__version__ = "0.1.0"
