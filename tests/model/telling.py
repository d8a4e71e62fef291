"""How hypothesis tells a story of any kind: the same way, but for how many and how long ones."""

from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

SHRINKING_S: Final = 60
"""A story that fails is made short for a minute, not for five: pytest ends what takes longer."""


def tell(story: type[RuleBasedStateMachine], most: int, steps: int = 40) -> None:
    """Tell at most so many stories, of at most so many steps each."""
    how = settings(
        settings.get_profile("default"),
        max_examples=most,
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        # No `explain`: it traces every line, and what it says of a story is not worth the minutes.
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        # A story is slow by nature, and long ones are the point.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS",
            SHRINKING_S,
            raising=False,
        )
        run_state_machine_as_test(story, settings=how)
