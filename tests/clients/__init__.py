"""Clients that people use, unmodified, against the gateway with the simulator behind it.

``python -m tests.clients`` installs each into an environment of its own, runs its program from ``programs/``, and
prints the table of ``docs/clients.md``. The quick ones are also tests: ``tests/functional/test_clients.py``.
"""
