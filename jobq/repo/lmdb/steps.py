"""Named steps of what writes: where a test can have the process killed.

`reached` does nothing. A crash test runs a verb in a child process in which it has put a function
in its place that kills the process at the n-th step, for every n; then it opens the queue again
and counts.
"""


def reached(step: str) -> None:
    """Note that a step was reached; replaced in crash tests, always called as `steps.reached`."""
