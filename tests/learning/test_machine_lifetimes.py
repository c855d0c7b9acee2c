"""How long a pool's machines last, as learned from its attempts."""

from flyteish import Pool
from flyteish._learning.machine_lifetimes import ON_DEMAND_LIFETIME, SPOT_LIFETIME, Lifetimes


def test_the_assumption_holds_until_a_reclaim_is_seen() -> None:
    """Attempts that were not reclaimed can only lengthen it."""
    lifetimes = Lifetimes([Pool("spot", "spot"), Pool("on-demand")])
    lifetimes.saw("spot", 60.0, reclaimed=False)
    assert lifetimes.of("spot") == SPOT_LIFETIME
    assert lifetimes.of("on-demand") == ON_DEMAND_LIFETIME
    lifetimes.saw("spot", 3 * SPOT_LIFETIME, reclaimed=False)
    assert lifetimes.of("spot") == 3 * SPOT_LIFETIME + 60.0


def test_then_it_is_machine_time_per_reclaim() -> None:
    """Undisturbed attempts count in the time, not in the reclaims; unknown pools are passed over."""
    lifetimes = Lifetimes([Pool("spot", "spot")])
    lifetimes.saw("spot", 100.0, reclaimed=True)
    assert lifetimes.of("spot") == 100.0
    lifetimes.saw("spot", 200.0, reclaimed=False)
    lifetimes.saw("spot", 300.0, reclaimed=True)
    lifetimes.saw("gone", 1.0, reclaimed=True)
    assert lifetimes.of("spot") == 300.0
