"""Excel workbooks (``.xlsx``, ``.xlsm``): read as a stream, every cell as it is shown, and written in the same bytes each time.

The reader is our own, on the standard library's ``zipfile`` and ``expat``. The libraries for spreadsheets load a whole
sheet, show an error cell, a formula without its result and an empty cell alike, or round long numbers; none bounds what a
file unfolds to. Here a row is read at a time, and whatever cannot be told is refused with the address of its cell.

Source of what is read: ECMA-376, part 1 (SpreadsheetML, section 18) and part 2 (packages).
"""
