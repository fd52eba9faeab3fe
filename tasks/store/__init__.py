"""Files in ``artifacts/``: versions that never change, and the champion pointer that says which one to use.

``reading`` needs no lock. Everything in ``publishing``, ``pointer`` and ``housekeeping`` is done under
``locks.model(name)``.
"""
