"""Which of the two heads of a data file is the newest, and whether that is beyond doubt.

Each commit writes its head over the one before the last: a meta page, which leads to the list of
the databases. So of a sound file both heads can be read, that of the last commit and that of the
one before, whose pages nobody has used again yet. They have to agree:

- transactions follow one another, and stand on the page of their parity
- the file does not become shorter from one commit to the next, as heads count it
- each commit numbers itself in the meta record: the older head leads to no larger number

Whatever contradicts that is a reason to doubt that what can be read is the last commit: a wrong
bit in a meta page may lead to a list that was in use long ago, and is sound.
"""

from typing import Final, NamedTuple

from jobq.errors import StoreCorrupt
from jobq.repo.lmdb.access import META_KEY
from jobq.repo.lmdb.records import decode_meta
from jobq.repo.lmdb.upkeep.pages import Meta, Pages, Tree

ID_SIZE: Final = 16


class Head(NamedTuple):
    """One head, and what it leads to.

    Attributes:
        trees: The databases, by name.
        group: The number of the commit; None if that cannot be read.
    """

    meta: Meta
    trees: dict[str, Tree]
    group: int | None


def find_heads(pages: Pages) -> tuple[list[Head], str]:
    """The heads that lead to jobs, that to be read first; and why it may not be the newest.

    That is empty if there is no doubt.
    """
    heads = [head for meta in pages.metas if (head := _head(pages, meta)) is not None]
    doubt = _doubt(pages, heads)
    if doubt:  # then the one that leads farthest
        by_group = all(head.group is not None for head in heads)
        heads.sort(
            key=lambda head: (_has_all_jobs(pages, head), by_group and head.group, head.meta.txn),
            reverse=True,
        )
    return heads, doubt


def _doubt(pages: Pages, heads: list[Head]) -> str:
    if pages.disagreement:
        return pages.disagreement
    if not heads or heads[0].meta is not pages.metas[0]:
        return "what the newer head leads to cannot be read"
    newest = heads[0]
    if newest.group is None:
        return "the number of the last commit cannot be read"
    for older in heads[1:]:  # its pages are free: that they cannot be read says nothing
        # Other programs that write to the file do not count their commits.
        if older.group is not None and older.group > newest.group:
            return f"the newer head leads to commit {newest.group}, the older to {older.group}"
        if older.meta.main.root == newest.meta.main.root:
            return "both heads lead to the same commit"
    return ""


def _head(pages: Pages, meta: Meta) -> Head | None:
    nodes = {node.key.decode(errors="replace"): node for node in pages.walk(meta.main)}
    found = {name: pages.tree_in(node) for name, node in nodes.items()}
    trees = {name: tree for name, tree in found.items() if tree is not None}
    head = None
    if "jobs" in trees:
        head = Head(meta, trees, _group(pages, trees["meta"]) if "meta" in trees else None)
    pages.begin_anew()
    return head


def _has_all_jobs(pages: Pages, head: Head) -> bool:
    ids = sum(len(node.key) == ID_SIZE for node in pages.walk(head.trees["jobs"]))
    pages.begin_anew()
    return ids == head.trees["jobs"].entries


def _group(pages: Pages, tree: Tree) -> int | None:
    for node in pages.walk(tree):
        if node.key == META_KEY:
            try:
                return decode_meta(META_KEY, pages.value(node)).group
            except StoreCorrupt:
                return None
    return None
