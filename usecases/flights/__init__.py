"""Late arrivals of the flights that left New York in 2013: the use case that everything is shown on."""

from usecases.flights.usecase import usecase

__all__ = ["usecase"]
