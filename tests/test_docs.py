"""The documents that are drawn from the code are what the code draws."""

from pathlib import Path

from jobq.states import TRANSITIONS, Event, Status

ROOT = Path(__file__).parent.parent
HEAD = """# The life of a job

Drawn from `jobq/states.py`; `tests/test_docs.py` compares.
Any other move raises `InvalidTransition` and changes nothing.

"""


def picture() -> str:
    """The transitions as a mermaid diagram; a job that is not there yet, or no more, is `[*]`."""
    moves = [
        f"    {status or '[*]'} --> {target}: {event}"
        for (status, event), targets in TRANSITIONS.items()
        for target in [str(to) for to in Status if to in targets] or ["[*]"]
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *moves, "```"])


def table() -> str:
    """The transitions as a table: a row a state, a column an event."""
    events = [str(event) for event in Event if event is not Event.ENQUEUE]
    rows = [f"| from | {' | '.join(events)} |", f"|---|{'---|' * len(events)}"]
    for status in Status:
        cells = []
        for event in events:
            targets = TRANSITIONS.get((status, Event(event)))
            names = [str(to) for to in Status if targets and to in targets]
            cells.append("" if targets is None else ", ".join(names) or "(gone)")
        rows.append(f"| **{status}** | {' | '.join(cells)} |")
    return "\n".join(rows)


def drawn() -> str:
    """The whole of docs/states.md."""
    return HEAD + picture() + "\n\n" + table() + "\n"


def test_the_picture_of_states_is_drawn_from_the_table() -> None:
    assert (ROOT / "docs" / "states.md").read_text() == drawn()


def test_the_map_names_every_module_of_the_lmdb_adapter_and_the_port() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = [*(ROOT / "jobq" / "repo").glob("*.py"), *(ROOT / "jobq/repo/lmdb").glob("*.py")]
    told = {"__init__", "store", "steps"}  # found from their neighbours

    assert [path.stem for path in modules if path.stem not in told and path.stem not in text] == []
