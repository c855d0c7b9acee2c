"""Data frames of pandas, polars and arrow as bytes, and one library's frame as another's.

Arrow's stream format carries them all; a pandas frame that would not come back from it exactly is refused, so
that the caller can pickle it. No library is imported before a frame of it is met or asked for. Must not know
where the bytes go.
"""

from __future__ import annotations

import importlib
import io
from typing import Any

from flyteish._authoring.values import kind_checks as check
from flyteish._authoring.values.current_blobs import shelve, unshelve
from flyteish._authoring.values.kinds import NoEncoding

_FRAMES = {
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch"),
}


def library_of(cls: type) -> str | None:
    """Which library's frame class this is, if it is one."""
    root = cls.__module__.partition(".")[0]
    return root if cls.__name__ in _FRAMES.get(root, ()) else None


def is_frame(cls: type) -> bool:
    """Whether objects of this class are data frames (or columns) that travel as arrow data."""
    return library_of(cls) is not None


def pack(frame: Any) -> list[Any]:
    """Library, class, notes that arrow has no place for, content."""
    library, name = str(library_of(type(frame))), type(frame).__name__
    notes, content = _ENCODERS[library](frame, name)
    return [library, name, notes, shelve(content)]


def unpack(state: Any) -> Any:
    """A fresh frame of the recorded library and class."""
    library, name, notes, content = check.listed(state, 4)
    if check.exactly(str, name) not in _FRAMES.get(check.exactly(str, library), ()):
        raise ValueError(f"{library}.{name} is no data frame that is known here")
    return _DECODERS[library](unshelve(content), name, notes)


def convert(frame: Any, wanted: type) -> Any:
    """The frame as ``wanted``, a frame class of any of the libraries; itself where it is one already."""
    if isinstance(frame, wanted):
        return frame
    source, target = library_of(type(frame)), library_of(wanted)
    if source is None or target is None or wanted.__name__ not in ("DataFrame", "Table"):
        raise TypeError(f"cannot turn {_label(type(frame))} into {_label(wanted)}")
    table = _to_arrow(frame, source)
    if target == "pyarrow":
        return table
    return table.to_pandas() if target == "pandas" else importlib.import_module("polars").from_arrow(table)


def _to_arrow(frame: Any, library: str) -> Any:
    pyarrow = importlib.import_module("pyarrow")
    if library == "pandas":
        return pyarrow.Table.from_pandas(frame if hasattr(frame, "columns") else frame.to_frame())
    if library == "polars":
        return (frame if hasattr(frame, "columns") else frame.to_frame()).to_arrow()
    return frame if isinstance(frame, pyarrow.Table) else pyarrow.Table.from_batches([frame])


def read(uri: str, format: str, wanted: type | None) -> Any:
    """A frame from a file that somebody else wrote, by the library that is asked for, else pandas."""
    library = "pandas" if wanted is None else str(library_of(wanted))
    if format not in ("parquet", "csv"):
        raise ValueError(f"cannot read {uri}: format {format!r} is not known; 'parquet' and 'csv' are")
    if library != "pyarrow":
        frame = getattr(importlib.import_module(library), f"read_{format}")(uri)
    else:
        reader = importlib.import_module(f"pyarrow.{format}")
        frame = reader.read_table(uri) if format == "parquet" else reader.read_csv(uri)
    return frame if wanted is None else convert(frame, wanted)


# -- copies -----------------------------------------------------------------------------------------

#: What cells of pandas' object columns may be in a copy that shares them.
_FIXED_CELLS = frozenset({str, bytes, int, float, bool, complex, type(None)})


def size_of(frame: Any) -> int:
    """About how many bytes its content takes; texts of pandas count as references."""
    match library_of(type(frame)):
        case "pandas":
            usage = frame.memory_usage(index=True)
            return int(usage if isinstance(usage, int) else usage.sum())
        case "polars":
            return int(frame.estimated_size())
        case _:
            return int(frame.nbytes)


def copied(frame: Any) -> Any:
    """A frame of its own with the same content; None where cells are objects that may change by themselves."""
    match library_of(type(frame)):
        case "pandas":
            return frame.copy(deep=True) if _has_fixed_cells(frame) else None
        case "polars":
            return frame.clone()
        case _:
            return frame  # arrow's cannot be changed


def _has_fixed_cells(frame: Any) -> bool:
    return all(part.dtype != object or _FIXED_CELLS.issuperset(map(type, part)) for part in _parts(frame))


# -- arrow and polars ------------------------------------------------------------------------------


def _arrow_bytes(table: Any) -> bytes:
    pyarrow = importlib.import_module("pyarrow")
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return bytes(sink.getvalue().to_pybytes())


def _arrow_table(data: bytes | memoryview) -> Any:
    return importlib.import_module("pyarrow").ipc.open_stream(data).read_all()


def _encode_arrow(frame: Any, name: str) -> tuple[Any, bytes]:
    return None, _arrow_bytes(frame)


def _decode_arrow(data: bytes | memoryview, name: str, notes: Any) -> Any:
    if name == "Table":
        return _arrow_table(data)
    return importlib.import_module("pyarrow").ipc.open_stream(data).read_next_batch()


def _encode_polars(frame: Any, name: str) -> tuple[Any, bytes]:
    buffer = io.BytesIO()
    try:
        (frame if name == "DataFrame" else frame.to_frame()).write_ipc_stream(buffer)
    except Exception as error:  # polars' own exceptions differ between its versions
        raise NoEncoding(str(error)) from error
    return None, buffer.getvalue()


def _decode_polars(data: bytes | memoryview, name: str, notes: Any) -> Any:
    frame = importlib.import_module("polars").read_ipc_stream(io.BytesIO(data))
    return frame if name == "DataFrame" else frame.to_series()


# -- pandas ----------------------------------------------------------------------------------------


def _encode_pandas(frame: Any, name: str) -> tuple[Any, bytes]:
    try:
        pyarrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise NoEncoding("pyarrow is not installed") from error
    # A column is a frame whose only column has a name of ours: its own may be no text, or missing.
    table = frame if name == "DataFrame" else frame.to_frame("values")
    notes = [None if name == "DataFrame" else [frame.name], getattr(frame.index, "freqstr", None)]
    try:
        data = _arrow_bytes(pyarrow.Table.from_pandas(table))
        exact = _same(frame, _decode_pandas(data, name, notes))
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise NoEncoding(str(error)) from error
    if not exact:
        raise NoEncoding("arrow does not give this frame back exactly")
    return notes, data


def _decode_pandas(data: bytes | memoryview, name: str, notes: Any) -> Any:
    label, frequency = check.listed(notes, 2)
    frame = _arrow_table(data).to_pandas()
    # Arrow may hand out views of its read-only buffer; a frame that one gets as an argument is one's own.
    frame = frame.copy()
    if name == "Series":
        frame = frame["values"]
        (frame.name,) = check.listed(label, 1)
    if frequency is not None:
        frame.index.freq = check.exactly(str, frequency)
    return frame


def _same(frame: Any, restored: Any) -> bool:
    """Whether arrow kept everything: dtypes, labels, attributes, and the types of objects within columns."""
    if not restored.equals(frame) or restored.attrs != frame.attrs:
        return False
    if getattr(frame.index, "freqstr", None) != getattr(restored.index, "freqstr", None):
        return False
    return all(_looks(before) == _looks(after) for before, after in zip(_parts(frame), _parts(restored), strict=True))


def _parts(frame: Any) -> list[Any]:
    """Everything in a frame that has a dtype, and so may hold objects."""
    if not hasattr(frame, "columns"):
        return [frame.index, frame]
    return [frame.index, frame.columns, *(frame.iloc[:, place] for place in range(frame.shape[1]))]


def _looks(part: Any) -> object:
    if part.dtype != object:
        return type(part), part.dtype, getattr(part, "names", None), part.name
    return (
        type(part),
        getattr(part, "names", None),
        part.name,
        [type(item) for item in part],
        [*map(repr, part)],
    )


def _label(cls: type) -> str:
    return f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}"


_ENCODERS = {"pandas": _encode_pandas, "polars": _encode_polars, "pyarrow": _encode_arrow}
_DECODERS = {"pandas": _decode_pandas, "polars": _decode_polars, "pyarrow": _decode_arrow}
