"""Names of registered models that must work everywhere: in MLflow, in the bucket, in folders and in URLs."""

USABLE_NAMES = (
    "it's",
    'the "best"',
    "two words",
    "a#b",
    "a?b=c&d",
    "v1.2",
    "100%",
    "a%20b",
    "a@b",
    "[x]*{y}",
    "größe",
    "é" * 127,
)
