"""Resamples of whole blocks of rows, and metrics of all resamples at once."""

from typing import NamedTuple

import numpy as np

from driftloop.evaluation.metrics import FloatArray, IntArray


class BlockBootstrap(NamedTuple):
    """Resamples of whole blocks, as many per resample as there are blocks.

    A metric of all resamples is computed from its sums by block.
    """

    block: IntArray
    """The number of each row's block, from 0."""
    weights: FloatArray
    """How often each block is drawn, a line per resample. The first line has each block once: the rows as they are."""

    def sums(self, values: FloatArray, groups: IntArray | None = None) -> FloatArray:
        """Return the sums of values: a line per block, a column per group of rows."""
        groups = np.zeros_like(self.block) if groups is None else groups
        block_count, group_count = self.weights.shape[1], int(groups.max()) + 1
        sums = np.bincount(self.block * group_count + groups, values, block_count * group_count)
        return sums.astype(np.float64).reshape(block_count, group_count)

    def mean(self, values: FloatArray) -> FloatArray:
        """Return the mean of values in each resample."""
        means: FloatArray = (self.weights @ self.sums(values) / self.rows[:, None])[:, 0]
        return means

    @property
    def rows(self) -> FloatArray:
        """The number of rows of each resample."""
        rows: FloatArray = self.weights @ np.bincount(self.block, minlength=self.weights.shape[1])
        return rows


def resample_blocks(block: IntArray, resamples: int) -> BlockBootstrap:
    """Draw resamples; the same blocks give the same ones."""
    count = int(block.max()) + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    return BlockBootstrap(block, np.vstack([np.ones(count), drawn]))


def without_resamples(rows: int) -> BlockBootstrap:
    """Return the rows as they are, as a single block that is drawn once."""
    return BlockBootstrap(np.zeros(rows, dtype=np.int64), np.ones((1, 1)))
