"""Predict late arrivals of flights that left New York in 2013: the example in demo, docs and tests."""

from usecases.flights.usecase import usecase

__all__ = ["usecase"]
