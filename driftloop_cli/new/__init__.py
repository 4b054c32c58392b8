"""``driftloop new``: a use case from a table.

The path of a table: :mod:`.read_table` reads the file, :mod:`.times` makes its times, :mod:`.column_kinds` and
:mod:`.leaks` decide on its columns, :mod:`.targets` and :mod:`.first_version` on target, metric and windows;
:mod:`.plan` holds all choices, :mod:`.render` and :mod:`.readme` write them as files, and :mod:`.command` prints them.
"""
