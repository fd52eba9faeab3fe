"""Whether an address may be written down: in parameters, reports and logs it stays for good."""

import re
from urllib.parse import parse_qs, urlsplit

CHAINED = re.compile(r"::(?=[a-z][a-z0-9+.-]*(?:://|::))", re.IGNORECASE)  # of fsspec: simplecache::https://…
SECRETS = frozenset({"token", "secret", "password", "passwd", "pwd", "sig", "signature", "credential", "credentials"})
KEYS = re.compile(r"(api|access|account|secret|private|subscription|aws|auth)*key(id)?")  # but no sort key


def has_credentials(source: str) -> bool:
    """Whether any address in ``source``, a path or a URL that may be chained, carries a password, a key or a token."""
    return any(_has_credentials(part) for part in CHAINED.split(source) if "://" in part)


def _has_credentials(address: str) -> bool:
    try:
        url = urlsplit(address)
        url.port  # noqa: B018  (it is looked at when it is asked for)
    except ValueError:
        return "@" in address  # a password with a slash in it looks like a port
    is_user_secret = url.scheme in ("http", "https")  # where it may be a token; of others it is a container or a name
    if url.password is not None or (is_user_secret and url.username):
        return True
    return any(_is_secret(name.lower()) for name in parse_qs(url.query))


def _is_secret(field: str) -> bool:
    """Whether a query's field is one, by the words of its name: ``keyword`` and ``design`` are none."""
    words = re.split(r"[^a-z0-9]+", field)
    return not SECRETS.isdisjoint(words) or KEYS.fullmatch("".join(words)) is not None or words[-1].endswith("token")
