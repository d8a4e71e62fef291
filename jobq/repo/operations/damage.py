"""What to say when records contradict each other."""

from jobq.errors import StoreCorrupt


def damaged(what: str) -> StoreCorrupt:
    """The error for records that contradict each other."""
    return StoreCorrupt(f"{what}; `jobq check` lists what is wrong")
