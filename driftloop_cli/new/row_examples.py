"""Name rows of a table, for messages: row 1 is the first below the header."""

import pyarrow as pa
import pyarrow.compute as pc

SHOWN = 3


def list_rows(mask: pa.ChunkedArray, texts: pa.ChunkedArray | None = None) -> str:
    """Return the numbers of the first rows in which a mask is true, with their texts, such as ``rows 7 ('x'), 9``."""
    positions = pc.indices_nonzero(mask)[:SHOWN].to_pylist()
    count = pc.sum(mask).as_py()
    named = [
        f"{position + 1}" if texts is None else f"{position + 1} ({texts[position].as_py()!r})"
        for position in positions
    ]
    return f"row{'s' if count > 1 else ''} {', '.join(named)}{' …' if count > SHOWN else ''}"
