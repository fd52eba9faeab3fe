"""Where data are: a path or an address, perhaps with a workbook's sheet, and whether it may be written down.

In parameters, reports and logs it stays for good.
"""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks.errors import UsageError

CHAINED = re.compile(r"::(?=[a-z][a-z0-9+.-]*(?:://|::))", re.IGNORECASE)  # of fsspec: simplecache::https://…
# A query of these keys alone passes; a value that is itself an address does not.
PUBLIC_QUERY = re.compile(r"((raw|dl|download|format|version|rev)(=[^&;?@]*)?(&|$))*", re.IGNORECASE)
SHEET = "#sheet="
ENVIRONMENT = "give credentials in the environment or in the store's own configuration files, as AWS_ACCESS_KEY_ID"


def split_sheet(source: str) -> tuple[str, str]:
    """Where a workbook is, and its sheet, empty where none is named: what ``book.xlsx#sheet=Sales`` is made of."""
    place, _, sheet = source.partition(SHEET)
    return place, sheet


def join_sheet(values: Any, key: str) -> Any:
    """Parameters as they are given, with ``sheet`` joined to the source at ``key``, in the place of any other sheet.

    Raises:
        ValueError: there is no source.
    """
    if not isinstance(values, dict) or not values.get("sheet"):
        return values
    if not values.get(key):
        raise ValueError("--sheet goes with a workbook (.xlsx)")
    return values | {key: f"{split_sheet(values[key])[0]}{SHEET}{values['sheet']}", "sheet": None}


def has_credentials(source: str) -> bool:
    """Whether any address in ``source``, a path or a URL that may be chained, has what may be a password or a token.

    That is a user's name or password, a fragment, a parameter of the path, and every key of a query but a few.
    """
    return any(_has_credentials(part) for part in CHAINED.split(split_sheet(source)[0]) if "://" in part)


def require_no_credentials(source: str) -> None:
    """Refuse an address that may not be written down; the message has no more of it than is public.

    Raises:
        UsageError: it may have a credential in it.
    """
    if has_credentials(source):
        public = re.split("[?#;]", source)[0] if "@" not in source else f"{source.partition('://')[0]}://…"
        raise UsageError(f"{public} with credentials in it", "a URL that may be kept and logged", ENVIRONMENT)


def _has_credentials(address: str) -> bool:
    try:
        url = urlsplit(address)
        url.port  # noqa: B018  (it is looked at when it is asked for)
    except ValueError:  # a password with a slash in it looks like a port
        return re.search("[@?#;]", address) is not None
    is_user_secret = url.scheme in ("http", "https")  # where it may be a token; of others it is a container or a name
    if url.password is not None or (is_user_secret and url.username):
        return True
    return bool(url.fragment or ";" in url.path or not PUBLIC_QUERY.fullmatch(unquote(url.query)))
