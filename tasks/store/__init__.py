"""Files in ``artifacts/``: versions that never change, and the champion pointer that says which one to use.

``reading`` needs no lock. Whatever changes a name in ``publishing``, ``pointer`` and ``housekeeping`` holds
``locks.model(name)``.
"""
