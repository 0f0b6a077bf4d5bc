"""How a tumour's volume runs over time: viable tumour cells, and the swelling that immune cells bring.

Viable volume grows exponentially, V(t) = V(0) exp(g t) before treatment and V(s) exp(k (t - s)) after its start at day
s. The inflammation is a gamma-shaped pulse I(t) = a V(s) (u exp(1 - u))^2 with u = (t - s) / p: nothing at the start of
treatment, largest at p days, gone after a few p. What a CT shows is V + I; pseudoprogression is I rising while V falls.
Exponential growth is the model behind the published tumour growth rate (doi 10.1158/1078-0432.CCR-13-2098).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class GrowthLaw:
    """Rates per day of the viable volume before and after ``start_day``, and the inflammatory pulse.

    Days count from the baseline scan, where the viable volume is 1 for a lesion that is there. ``appears_day`` and
    ``vanishes_day`` bound the time in which the lesion can be seen. ``inflammation`` is the height of the pulse as a
    multiple of the viable volume at the start of treatment, ``peak_days`` when it comes after the start.
    """

    rate_before: float = 0.0
    rate_after: float = 0.0
    start_day: float = 5.0
    inflammation: float = 0.0
    peak_days: float = 50.0
    appears_day: float = -math.inf
    vanishes_day: float = math.inf

    def viable(self, day: float) -> float:
        """Viable volume relative to the baseline; 0 while the lesion cannot be seen."""
        if not self.appears_day <= day < self.vanishes_day:
            return 0.0
        return self._viable(day)

    def inflamed(self, day: float) -> float:
        """Volume of the inflammation relative to the viable volume at the baseline."""
        if day <= self.start_day or not self.appears_day <= day < self.vanishes_day:
            return 0.0
        u = (day - self.start_day) / self.peak_days
        return self.inflammation * self._viable(self.start_day) * (u * math.exp(1.0 - u)) ** 2

    def _viable(self, day: float) -> float:
        before = min(day, self.start_day)
        return math.exp(self.rate_before * before + self.rate_after * (day - before))


def law_for_factor(factor: float, day: float, *, start_day: float, rate_before: float, **other: float) -> GrowthLaw:
    """Return the law whose viable volume at ``day`` (after the start of treatment) is ``factor`` times the baseline's."""
    rate_after = (math.log(factor) - rate_before * start_day) / (day - start_day)
    return GrowthLaw(rate_before=rate_before, rate_after=rate_after, start_day=start_day, **other)
