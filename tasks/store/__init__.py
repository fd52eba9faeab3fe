"""Files in ``artifacts/``: versions, which never change, and the champion pointer, which names the one to use.

Reading through ``model_folder`` takes no lock. Functions of ``publication``, ``pointer`` and ``housekeeping`` change a
name only under ``locks.hold_model(name)``.
"""
