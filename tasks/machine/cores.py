"""How many cores this process may use: affinity and the container's CPU quota count, the host's cores do not."""


def available() -> int:
    """The number of workers worth starting, at least 1."""
    import loky

    return max(1, int(loky.cpu_count()))
