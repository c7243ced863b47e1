"""neural-tangents' kernels; see `ntk_protocol`. Implementations are named as in neural-tangents."""

import jax
import neural_tangents as nt
import ntk_protocol
import numpy as np
from jax._src import source_info_util
from jax.interpreters import ad

# neural-tangents 0.6.5 looks for these where JAX 0.4.30 no longer shows them.
ad.source_info_util, ad.config = source_info_util, jax.config
jax.config.update("jax_default_matmul_precision", "float32")  # on GPUs too


class _Ops:
    """What networks are made of, for pictures `[b, h, w, c]`."""

    relu = staticmethod(jax.nn.relu)

    @staticmethod
    def conv(x, kernel, bias, stride, padding):
        numbers, pads = ("NHWC", "HWIO", "NHWC"), [(padding, padding)] * 2
        strides = (stride, stride)
        return bias + jax.lax.conv_general_dilated(
            x, kernel, strides, pads, dimension_numbers=numbers
        )

    @staticmethod
    def dense(x, kernel, bias):
        return x @ kernel + bias

    @staticmethod
    def max_pool(x):
        window = (1, 2, 2, 1)
        return jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, window, "VALID")

    @staticmethod
    def mean(x):
        return x.mean(axis=(1, 2))

    @staticmethod
    def flatten(x):
        return x.reshape(x.shape[0], -1)


def prepare(network, weights, x, outputs, implementation):
    def apply(parameters, x):
        y = network(_Ops, parameters.__getitem__, x)
        return y.sum(axis=-1, keepdims=True) / y.shape[-1] ** 0.5 if outputs == "sum" else y

    ntk = nt.empirical_ntk_fn(
        apply,
        trace_axes=(-1,) if outputs == "trace" else (),
        vmap_axes=0,
        implementation=getattr(nt.NtkImplementation, implementation.upper()),
    )
    compiled = jax.jit(ntk)

    def kernel():
        found = np.asarray(compiled(x, None, weights))
        if outputs == "sum":
            return found[:, :, 0, 0]
        return found.transpose(0, 2, 1, 3) if outputs == "full" else found

    return kernel


if __name__ == "__main__":
    ntk_protocol.serve(prepare)
