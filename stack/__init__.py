"""The whole system on one machine, without containers: for trying, for the demo and for the tests."""
