"""Kinds of objects that belong to other libraries: pydantic models, numpy arrays and scalars, data frames.

None of them is imported here: whoever holds such an object has imported its library. Must not know about
annotations or tasks.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from flyteish._authoring.values import dataframes
from flyteish._authoring.values.current_blobs import shelve, unshelve
from flyteish._authoring.values.kinds import Kind, NoEncoding

# -- numpy -----------------------------------------------------------------------------------------


def _npy(array: Any) -> bytes:
    """numpy's own file format: dtype, shape and order kept, nothing pickled."""
    import numpy as np

    buffer = io.BytesIO()
    try:
        np.lib.format.write_array(buffer, array, version=(3, 0), allow_pickle=False)
    except ValueError as error:  # objects inside a structured dtype, numpy's variable-width strings
        raise NoEncoding(str(error)) from error
    return buffer.getvalue()


def _from_npy(data: bytes | memoryview) -> Any:
    import numpy as np

    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _pack_array(array: Any) -> object:
    if array.dtype.kind == "O":
        return [list(array.shape), array.ravel().tolist()]
    return shelve(_npy(array))


def _unpack_array(state: Any) -> Any:
    if not isinstance(state, list):
        return _from_npy(unshelve(state))
    import numpy as np

    shape, items = state
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):  # assigning the list at once would broadcast nested sequences
        array[index] = item
    return array.reshape(shape)


def _pack_scalar(scalar: Any) -> object:
    if scalar.dtype.kind in "biufcmM":
        return [scalar.dtype.str, scalar.tobytes()]
    import numpy as np

    return _npy(np.asarray(scalar))


def _unpack_scalar(state: Any) -> Any:
    if isinstance(state, bytes):
        return _from_npy(state)[()]
    import numpy as np

    return np.frombuffer(state[1], dtype=state[0])[0]


def _pack_dtype(dtype: Any) -> Any:
    import numpy as np

    descr = np.lib.format.dtype_to_descr(dtype)
    if np.lib.format.descr_to_dtype(descr) != dtype:
        raise NoEncoding("numpy cannot describe this dtype in its file format")
    return descr


def _unpack_dtype(state: Any) -> Any:
    import numpy as np

    return np.lib.format.descr_to_dtype(state)


# -- pydantic --------------------------------------------------------------------------------------


def _pack_model(model: Any) -> tuple[Any, ...]:
    """As pydantic's own pickling: what validators made of the values is kept, and they don't run again."""
    cls = type(model)
    fields = {name: value for name, value in model.__dict__.items() if name in cls.model_fields}
    chosen = sorted(model.__pydantic_fields_set__)
    private = model.__pydantic_private__
    if private is not None:
        undefined = sys.modules["pydantic_core"].PydanticUndefined
        private = {name: value for name, value in private.items() if value is not undefined}
    return cls, fields, model.__pydantic_extra__, chosen, private


def _unpack_model(state: Any) -> Any:
    cls, recorded, extra, chosen, private = state
    fields = {
        name: recorded[name] if name in recorded else _default(cls, name, field)
        for name, field in cls.model_fields.items()
    }
    model = cls.__new__(cls)
    model.__setstate__(
        {
            "__dict__": fields,
            "__pydantic_extra__": extra,
            "__pydantic_fields_set__": {name for name in chosen if name in fields or name in (extra or ())},
            "__pydantic_private__": private,
        }
    )
    return model


def _default(cls: type, name: str, field: Any) -> Any:
    if field.is_required():
        raise LookupError(f"the recorded {cls.__qualname__} has no field {name!r}, which it now requires")
    return field.get_default(call_default_factory=True)


_ARRAY = Kind(40, _pack_array, _unpack_array)
_SCALAR = Kind(41, _pack_scalar, _unpack_scalar)
_DTYPE = Kind(42, _pack_dtype, _unpack_dtype)
_MODEL = Kind(43, _pack_model, _unpack_model, "object")
_FRAME = Kind(44, dataframes.pack, dataframes.unpack)


def kind_of(cls: type) -> Kind | None:
    """The kind that objects of exactly this class have; None: not of a library known here."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        if cls is numpy.ndarray:
            return _ARRAY
        if issubclass(cls, numpy.generic):
            return _SCALAR
        if issubclass(cls, numpy.dtype):
            return _DTYPE
    pydantic: Any = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _MODEL
    return _FRAME if dataframes.is_frame(cls) else None


KINDS: dict[int, Kind] = {kind.code: kind for kind in (_ARRAY, _SCALAR, _DTYPE, _MODEL, _FRAME)}
