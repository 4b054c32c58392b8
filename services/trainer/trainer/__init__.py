"""The trainer: retrains on an event, lets the challenger prove itself, and moves the alias."""
