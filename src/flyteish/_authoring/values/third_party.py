"""Kinds of objects that belong to other libraries: pydantic models, numpy arrays and scalars, data frames.

None of them is imported here: whoever holds such an object has imported its library. Must not know about
annotations or tasks.
"""

from __future__ import annotations

import io
import math
import sys
from typing import Any

from flyteish._authoring.values import dataframes
from flyteish._authoring.values import kind_checks as check
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

    file = io.BytesIO(data)
    newer = np.lib.format.read_magic(file) != (1, 0)
    read_header: Any = np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0
    shape, _, dtype = read_header(file)
    # Before anything is set aside for it: a header may claim any size.
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell() or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} {shape} cannot be what {len(data)} bytes hold")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _pack_array(array: Any) -> object:
    if array.dtype.kind == "O":
        return [list(array.shape), array.ravel().tolist()]
    return shelve(_npy(array))


def _unpack_array(state: Any) -> Any:
    if type(state) is not list:
        return _from_npy(unshelve(state))
    import numpy as np

    shape, items = check.listed(state, 2)
    if min(check.numbers(shape), default=0) < 0:
        raise ValueError(f"no array has the shape {shape}")
    # One by one: a list assigned at once would broadcast nested sequences.
    return np.fromiter(check.listed(items), dtype=object, count=len(items)).reshape(shape)


def _pack_scalar(scalar: Any) -> object:
    if scalar.dtype.kind in "biufcmM":
        return [scalar.dtype.str, scalar.tobytes()]
    import numpy as np

    return _npy(np.asarray(scalar))


def _unpack_scalar(state: Any) -> Any:
    if type(state) is bytes:
        return _from_npy(state)[()]
    import numpy as np

    text, data = check.listed(state, 2)
    size, dtype = len(check.exactly(bytes, data)), np.dtype(check.exactly(str, text))
    if dtype.kind not in "biufcmM" or dtype.itemsize != size:
        raise ValueError(f"{size} bytes are no numpy scalar of {dtype}")
    return np.frombuffer(data, dtype=dtype)[0]


def _pack_dtype(dtype: Any) -> Any:
    import numpy as np

    descr = np.lib.format.dtype_to_descr(dtype)
    if np.lib.format.descr_to_dtype(descr) != dtype:
        raise NoEncoding("numpy cannot describe this dtype in its file format")
    return descr


def _unpack_dtype(state: Any) -> Any:
    import numpy as np

    _check_descr(state)
    return np.lib.format.descr_to_dtype(state)


def _check_descr(descr: Any) -> None:
    """numpy asks whatever else it gets for its ``dtype``."""
    if check.is_one_of((list, tuple), descr):
        for part in descr:
            _check_descr(part)
    else:
        check.one_of((str, int), descr)


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
    kind, recorded, extra, chosen, private = check.listed(state, 5)
    # Whoever has imported a model's class has imported pydantic.
    base: Any = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if base is None:
        raise ValueError(f"{check.shown(kind)} stands where a subclass of pydantic.BaseModel belongs")
    cls = check.subclass_of(base, kind)
    check.named(recorded)
    for each in (extra, private):
        if each is not None:
            check.named(each)
    for name in check.listed(chosen):
        check.exactly(str, name)
    fields = {
        name: recorded[name] if name in recorded else _default(cls, name, field)
        for name, field in cls.model_fields.items()
    }
    model = object.__new__(cls)
    # Not the model's own, which may be somebody's code.
    base.__setstate__(
        model,
        {
            "__dict__": fields,
            "__pydantic_extra__": extra,
            "__pydantic_fields_set__": {name for name in chosen if name in fields or name in (extra or ())},
            "__pydantic_private__": private,
        },
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
