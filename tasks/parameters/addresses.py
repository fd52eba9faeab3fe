"""The sources of data: a path or an address, perhaps with a workbook's sheet, and whether it may be written down.

Parameters, reports and logs keep addresses for good.
"""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks.errors import UsageError

CHAINED = re.compile(r"::(?=[a-z][a-z0-9+.-]*(?:://|::))", re.IGNORECASE)  # of fsspec: simplecache::https://…
# Only these keys of a query are allowed, and none whose value is itself an address.
PUBLIC = "raw|dl|download|format|version|rev"
OF_DATABASES = "host|port|user|dbname|service|sslmode|sslrootcert|connect_timeout|application_name"
PUBLIC_QUERY, QUERY_OF_DATABASE = (
    re.compile(rf"(({keys})(=[^&;?@]*)?(&|$))*", re.IGNORECASE) for keys in (PUBLIC, OF_DATABASES)
)
SQLITE = "sqlite:///"
DATABASES = (SQLITE, "postgresql://", "postgres://")
WORKBOOKS = (".xlsx", ".xls", ".ods")
A_WORKBOOK = "a workbook (.xlsx, .xls or .ods)"
SELECTED = re.compile("#(sheet|query)=")  # the part of a source that is read
ENVIRONMENT = (
    "give credentials in the environment or in the store's own configuration files, such as AWS_ACCESS_KEY_ID or "
    "PGPASSWORD"
)


def split_source(source: str) -> tuple[str, str]:
    """Split a source into its location and what is read from it: a sheet or a query; empty if neither is named.

    Examples are ``book.xlsx#sheet=Sales`` and ``sqlite:////home/me/shop.db#query=select * from sales``.
    """
    place, *found = SELECTED.split(source, maxsplit=1)
    return place, found[1] if found else ""


def source_options(source: str) -> list[str]:
    """The command-line options that name a source."""
    place, *selection = SELECTED.split(source, maxsplit=1)  # a sheet or query comes after the name of its option
    return ["--data", place, *([f"--{selection[0]}", selection[1]] if selection else [])]


def is_database(source: str) -> bool:
    """Whether a source is a database, which is read by a query."""
    return source.startswith(DATABASES)


def join_source(values: dict[str, Any], key: str) -> dict[str, Any]:
    """Join ``sheet`` or ``query`` in the given parameters to the source at ``key``.

    Raises:
        ValueError: the source is missing or of the wrong kind, or it is a database without a query.
    """
    if not isinstance(values.get(key), str | None):
        return values
    place = split_source(values.get(key) or "")[0]
    if values.get("sheet") and (not place or is_database(place)):
        raise ValueError(f"--sheet goes with {A_WORKBOOK}")
    if values.get("query") and not is_database(place):
        raise ValueError("--query goes with sqlite:///PATH or postgresql://USER@HOST/DATABASE")
    if is_database(place) and not values.get("query") and place == values[key]:
        raise ValueError(f"--query is needed to read {place}")
    for kind in ("sheet", "query"):
        if selected := values.get(kind):
            return values | {key: f"{place}#{kind}={selected}", kind: None}
    return values


def has_credentials(source: str) -> bool:
    """Whether any address in ``source``, a path or a possibly chained URL, may contain a password or a token.

    These may be in a user's name or password, a fragment, a path parameter, and all but a few keys of a query.
    """
    return any(_has_credentials(part) for part in CHAINED.split(split_source(source)[0]) if "://" in part)


def require_no_credentials(source: str) -> None:
    """Refuse an address that must not be written down; the message shows only its public part.

    Raises:
        UsageError: it may contain a credential.
    """
    if has_credentials(source):
        public = re.split("[?#;]", source)[0] if "@" not in source else f"{source.partition('://')[0]}://…"
        raise UsageError(f"{public} with credentials in it", "a URL that may be kept and logged", ENVIRONMENT)


def _has_credentials(address: str) -> bool:
    try:
        url = urlsplit(address)
        url.port  # noqa: B018  (reading it validates it)
    except ValueError:  # a password that contains a slash looks like a port
        return re.search("[@?#;]", address) is not None
    is_user_secret = url.scheme in ("http", "https")  # there it may be a token; elsewhere it is a container or a name
    if url.password is not None or (is_user_secret and url.username):
        return True
    public = QUERY_OF_DATABASE if is_database(address) else PUBLIC_QUERY
    return bool(url.fragment or ";" in url.path or not public.fullmatch(unquote(url.query)))
