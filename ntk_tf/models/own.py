"""Architectures of the user's own: `PACKAGE.MODULE:FUNCTION`."""

import contextlib
import importlib
import inspect
import os
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import keras

from ntk_tf import private
from ntk_tf.models import arguments as keywords
from ntk_tf.models.arguments import ArchitectureError, one_line

#: What every such function is called with.
GIVEN = ("input_shape", "num_classes", "width", "seed")
#: Trainable variables of the networks so far that are still there, by `id`.
_SEEN: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def build(
    arch: str,
    width: float,
    num_classes: int,
    input_shape: tuple[int, ...],
    seed: int,
    arguments: Mapping[str, Any],
) -> keras.Model:
    """The network that a function of the user's makes.

    The function is imported from the current directory or `sys.path`. What it draws from Python's,
    NumPy's, TensorFlow's or Keras' own generators follows from the seed, and layers without a name
    get the same ones every time.

    Args:
        arch: `PACKAGE.MODULE:FUNCTION`.
        width: for the function; see `GIVEN`.
        num_classes: for the function, and checked.
        input_shape: for the function, and checked.
        seed: for the function.
        arguments: more keyword arguments of the function.

    Returns:
        A built model `[b, *input_shape]` to `[b, num_classes]` with trainable weights.

    Raises:
        ArchitectureError: if there is no such function, it does not take the arguments, it raises,
            or makes something else, or a network that it has made before.
    """
    given = dict(zip(GIVEN, (tuple(input_shape), num_classes, width, seed), strict=True))
    with _current_directory_on_path(), _settings_of_keras(arch):
        function = find(arch)
        _check_signature(arch, function, arguments)
        with private.random_seed(seed), private.fresh_names():
            model = _telling(arch, function, **given, **arguments)
    check(arch, model, num_classes, input_shape)
    # A linearization's w0 must not be trained as a network's w; what is frozen may be shared.
    if any(_SEEN.get(id(variable)) is variable for variable in model.trainable_variables):
        raise ArchitectureError(
            f"arch={arch!r}: must make a new model at each call; this one has weights of another"
        )
    _SEEN.update({id(variable): variable for variable in model.trainable_variables})
    return model


@contextlib.contextmanager
def _settings_of_keras(arch: str) -> Iterator[None]:
    """Do not let the user's code change what is global in Keras.

    Raises:
        ArchitectureError: if it does; what was set before is set again.
    """
    config = keras.config
    settings = {
        "dtype policy": (config.dtype_policy, config.set_dtype_policy),
        "floatx": (config.floatx, config.set_floatx),
        "image data format": (config.image_data_format, config.set_image_data_format),
    }
    before = {name: get() for name, (get, _) in settings.items()}
    told = ""
    try:
        yield
    finally:
        for name, (get, put) in settings.items():
            kept, found = before[name], get()
            if found != kept:
                told = f"{name} to {_name(found)}; must leave it at {_name(kept)}"
                put(kept)
    if told:
        raise ArchitectureError(f"arch={arch!r}: sets Keras' {told}")


def _name(value: Any) -> str:
    return getattr(value, "name", value)


@contextlib.contextmanager
def _current_directory_on_path() -> Iterator[None]:
    """Import from the current directory first, as `python -m` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # if the module took it off by itself
            sys.path.remove(here)


def find(arch: str) -> Callable[..., Any]:
    """The function that `PACKAGE.MODULE:FUNCTION` names.

    Raises:
        ArchitectureError: if there is none.
    """
    module_name, _, name = arch.partition(":")
    module = _import(arch, module_name)
    if not hasattr(module, name):
        raise ArchitectureError(f"arch={arch!r}: {_place(module)} has no function {name}")
    function = getattr(module, name)
    if not callable(function):
        raise ArchitectureError(
            f"arch={arch!r}: {name} in {_place(module)} is no function, but of type"
            f" {type(function).__name__}"
        )
    return function


def _import(arch: str, name: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ArchitectureError(_raised(arch, f"importing {name}", error)) from error
        raise ArchitectureError(
            f"arch={arch!r}: there is no module {error.name} in {os.getcwd()} or on Python's path"
        ) from error
    except (Exception, SystemExit) as error:
        raise ArchitectureError(_raised(arch, f"importing {name}", error)) from error


def _place(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _check_signature(arch: str, function: Callable, arguments: Mapping[str, Any]) -> None:
    reserved = [name for name in arguments if name in GIVEN]
    if reserved:
        raise ArchitectureError(
            f"{reserved[0]}={arguments[reserved[0]]!r}: is given to {arch} as it is"
        )
    try:
        inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ArchitectureError(
            f"arch={arch!r}: must be a function whose arguments Python can tell ({error})"
        ) from error
    if keywords.takes_any(function):
        return
    missing = [name for name in GIVEN if name not in keywords.named(function)]
    if missing:
        raise ArchitectureError(
            f"arch={arch!r}: must take {', '.join(GIVEN)}, and lacks {', '.join(missing)}"
        )
    keywords.check(arch, arguments, keywords.named(function, besides=GIVEN))


def _telling(arch: str, function: Callable, **arguments):
    """Call the function.

    Raises:
        ArchitectureError: where it raised.
    """
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        raise ArchitectureError(_raised(arch, "it", error)) from error


def _raised(arch: str, what: str, error: BaseException) -> str:
    return f"arch={arch!r}: {what} raised {one_line(error)}{_line(error)}"


def _line(error: BaseException) -> str:
    """Where in the user's code an exception comes from: the deepest line outside of libraries."""
    if isinstance(error, SyntaxError):
        return ""  # its message says so
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and not _in_library(f.filename)]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def _in_library(path: str) -> bool:
    return path.startswith(("<", sys.prefix, sys.base_prefix)) or "site-packages" in path


def check(arch: str, model: object, num_classes: int, input_shape: tuple[int, ...]) -> None:
    """Check that a model maps pictures to outputs of all classes, and can be trained.

    Args:
        arch: where it comes from.
        model: the model.
        num_classes: L.
        input_shape: of a picture, or `(d,)` of a vector.

    Raises:
        ArchitectureError: if it does not.
    """
    if not isinstance(model, keras.Model):
        raise ArchitectureError(
            f"arch={arch!r}: must return a keras.Model, not {type(model).__name__}"
        )
    if not model.built:
        raise ArchitectureError(
            f"arch={arch!r}: its model is not built; call it on data, or give it a keras.Input"
        )
    if not model.trainable_weights:
        raise ArchitectureError(f"arch={arch!r}: its model has no trainable weights")
    outputs = _outputs(arch, model, input_shape)
    if isinstance(outputs, keras.KerasTensor):
        outputs = [outputs]
    if not isinstance(outputs, list) and len(keras.tree.flatten(outputs)) == 1:
        raise ArchitectureError(
            f"arch={arch!r}: its model outputs a {type(outputs).__name__} of one tensor; must be"
            " the tensor"
        )
    if not isinstance(outputs, list) or len(outputs) != 1:
        raise ArchitectureError(
            f"arch={arch!r}: its model has {len(keras.tree.flatten(outputs))} outputs; must have"
            " one"
        )
    if outputs[0].shape[1:] != (num_classes,):
        raise ArchitectureError(
            f"arch={arch!r}: its model outputs {_shape(outputs[0].shape[1:])}; must be"
            f" {_shape([num_classes])}, as the data has {num_classes} classes"
        )


def _outputs(arch: str, model: keras.Model, input_shape: tuple[int, ...]):
    """What the model makes of inputs, without computing anything.

    Raises:
        ArchitectureError: if it does not take them.
    """
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) > 1:
        raise ArchitectureError(f"arch={arch!r}: its model has {len(inputs)} inputs; must have one")
    if inputs and not keras.backend.is_float_dtype(inputs[0].dtype):
        raise ArchitectureError(
            f"arch={arch!r}: its model takes {inputs[0].dtype} inputs; must take floating-point"
            " numbers, which the normalized data is"
        )
    if inputs and not _fits(inputs[0].shape[1:], input_shape):
        raise ArchitectureError(
            f"arch={arch!r}: its model takes inputs {_shape(inputs[0].shape[1:])}, and the data"
            f" has {_shape(input_shape)}"
        )
    try:
        return model.compute_output_spec(keras.KerasTensor((None, *input_shape)))
    except Exception as error:
        raise ArchitectureError(
            f"arch={arch!r}: its model does not take inputs {_shape(input_shape)}:"
            f" {one_line(error)}{_line(error)}"
        ) from error


def _fits(expected, shape) -> bool:
    return len(expected) == len(shape) and all(
        size in (None, given) for size, given in zip(expected, shape, strict=True)
    )


def _shape(sizes) -> str:
    return f"[{', '.join(['b', *map(str, sizes)])}]"
