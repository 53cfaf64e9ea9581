"""What rows drawn at random say of all rows, some of which nobody could judge.

``drawn`` rows of a finite ``population`` are drawn without replacement, each set of them as likely as any other. The share of
good rows among them is unbiased; its interval is exact: it inverts the hypergeometric distribution (Buonaccorsi 1987, The
American Statistician 41:215-218), so that it holds the truth in at least 95 % of all draws, however few rows and however
large a part of the population they are. A row that nobody could judge may be good or not: both ends allow for either.
"""

from __future__ import annotations

import dataclasses

import numpy as np

ERROR = 0.05
"""The share of draws whose interval may miss the truth."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrawnShare:
    """The share of good rows in a population, from rows that were drawn at random."""

    population: int
    drawn: int
    good: int
    bad: int

    @property
    def unsure(self) -> int:
        """Drawn rows that nobody could judge."""
        return self.drawn - self.good - self.bad

    @property
    def least(self) -> float:
        """The share if every row that nobody could judge were bad."""
        return self.good / self.drawn

    @property
    def most(self) -> float:
        """The share if all of them were good; without any it is :attr:`least`, and unbiased."""
        return (self.good + self.unsure) / self.drawn

    def interval(self) -> tuple[float, float]:
        """Low and high end of the exact 95 % interval."""
        low = least_good(self.population, self.drawn, self.good)
        high = self.population - least_good(self.population, self.drawn, self.bad)
        return low / self.population, high / self.population

    def to_json(self) -> dict[str, float | int | None]:
        """Counts, the share (null where some rows could not be judged), its bounds, and the interval."""
        low, high = self.interval()
        return {
            "value": self.least if self.unsure == 0 else None,
            "least": self.least,
            "most": self.most,
            "low": low,
            "high": high,
            "drawn": self.drawn,
            "good": self.good,
            "unsure": self.unsure,
            "population": self.population,
        }


def drawn_share(population: int, drawn: int, good: int, bad: int) -> DrawnShare | None:
    """The share, if any row was drawn."""
    return DrawnShare(population, drawn, good, bad) if drawn else None


def least_good(population: int, drawn: int, good: int) -> int:
    """The least number of good rows in the population with which that many among those drawn, or more, are not too unlikely.

    >>> least_good(10, 10, 7), least_good(1000, 50, 0), least_good(1000, 50, 50)
    (7, 0, 931)
    """
    if good == 0:
        return 0
    low, high = good, population - (drawn - good)  # what there are at least and at most
    while low < high:
        middle = (low + high) // 2
        if _at_least(population, middle, drawn, good) > ERROR / 2:
            high = middle
        else:
            low = middle + 1
    return low


def _at_least(population: int, good: int, drawn: int, seen: int) -> float:
    """P(X >= ``seen``) of the good rows among those drawn, where ``good`` rows of the population are.

    Each probability is had from the one before it, by their ratio, so that nothing as large as a factorial occurs.
    """
    first, last = max(0, drawn - (population - good)), min(drawn, good)
    if seen <= first:
        return 1.0
    if seen > last:
        return 0.0
    x = np.arange(first, last, dtype=np.float64)
    ratios = (good - x) * (drawn - x) / ((x + 1) * (population - good - drawn + x + 1))
    logs = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    shares = np.exp(logs - logs.max())
    return float(shares[seen - first :].sum() / shares.sum())
