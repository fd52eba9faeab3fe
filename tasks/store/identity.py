"""``store.json``: the id of this store, by which a Prefect server and a run know whose a deployment is."""

import secrets
import socket
from contextlib import suppress

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, folders, locks
from tasks.store.documents import RootDocument

ADOPT = "gradmill up --adopt"
STORE_TAG = "store:"


class StoreIdentity(RootDocument):
    """The id, made once, and what tells the folder that has it from a copy.

    A copy has neither the place of the original nor the inode and change time of its file ``.store``. One of the two
    is enough: a container keeps the latter and has another host name at each start, and so does a folder that is
    renamed; ``chown`` changes the latter alone.
    """

    id: str
    host: str
    path: str
    inode: int
    ctime_ns: int

    @property
    def tag(self) -> str:
        """The tag of its deployments and automations."""
        return STORE_TAG + self.id

    @property
    def place(self) -> str:
        """Where the store was last used, in words."""
        return f"{self.path} on {self.host}"

    def is_same_folder(self, other: "StoreIdentity") -> bool:
        """Whether the folder of the ``other`` identity is the one that was given this id."""
        is_same_place = (self.host, self.path) == (other.host, other.path)
        return is_same_place or (self.inode, self.ctime_ns) == (other.inode, other.ctime_ns)


def find_id() -> str | None:
    """The id of the store; None before it has one, and if its document is damaged."""
    with suppress(DataError):
        if known := _find():
            return known.id
    return None


def require(adopt: bool = False) -> StoreIdentity:
    """The identity of this store, which is made if it has none; a copy gets a new one if it is told to ``adopt``.

    Raises:
        UsageError: the folder is a copy of a store, or was restored elsewhere, and must not ``adopt``.
        DataError: the document is damaged.
    """
    artifact_paths.make_root()
    with locks.hold_lock(artifact_paths.locks() / "identity", "another command is reading the id of the store"):
        path, inode, ctime_ns = folders.identify_store(make=True)
        here = StoreIdentity(
            id=secrets.token_hex(4), host=socket.gethostname(), path=path, inode=inode, ctime_ns=ctime_ns
        )
        known = _find()
        is_same = known is not None and known.is_same_folder(here)
        if known and not is_same and not adopt:
            raise UsageError(
                f"{path} is a copy of the store {known.id} in {known.place}, or was restored from it",
                "a store with an id of its own: both would run the same schedules",
                f"{ADOPT} (or register --adopt) gives it one and keeps its schedules; or use {known.place}",
            )
        if known and is_same:
            here = here.model_copy(update={"id": known.id})
        if here != known:
            here.write(artifact_paths.identity())
        return here


def _find() -> StoreIdentity | None:
    return StoreIdentity.find(artifact_paths.identity(), f"remove it, then run {ADOPT}")
