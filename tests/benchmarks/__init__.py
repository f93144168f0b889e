"""What the gateway costs: ``python -m tests.benchmarks``. Linux only, because the costs are read from ``/proc``."""
