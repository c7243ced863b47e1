"""Second derivatives that TensorFlow lacks: gradients of some ops' gradients.

Both ways to a Jacobian-vector product differentiate an op's gradient in its cotangent. Where
TensorFlow has no formula it raises, and where it calls the gradient "not differentiable" (bilinear
resizing) the tangent silently is zero. The formulas are those of the transposed map: if
`XGrad(g)` is J^T g, its gradient in g is J.
"""

from collections.abc import Callable

import tensorflow as tf

from ntk_tf import private


def _softsign_grad(op, tangent):
    """s(g, x) = g / (1 + |x|)^2."""
    g, x = op.inputs
    slope = tf.raw_ops.SoftsignGrad(gradients=tangent, features=x)
    return slope, -2 * g * slope * tf.sign(x) / (1 + tf.abs(x))


def _lrn_grad(op, tangent):
    """Krizhevsky et al. 2012, section 3.3: y_i = x_i s_i^-b, s_i = k + a sum_{j near i} x_j^2.

    J t = s^-b t - 2 a b x s^(-b-1) sum_near(x t); the second derivative in x is left out, which
    nothing here needs, and TensorFlow would refuse.
    """
    _, x, _ = op.inputs
    radius, bias, a, b = (op.get_attr(name) for name in ("depth_radius", "bias", "alpha", "beta"))
    channels = x.shape[-1] or tf.shape(x)[-1]
    near = tf.linalg.band_part(tf.ones((channels, channels), x.dtype), radius, radius)
    s = bias + a * tf.linalg.matmul(x * x, near)
    inner = tf.linalg.matmul(x * tangent, near)
    return s**-b * tangent - 2 * a * b * x * s ** (-b - 1) * inner, None, None


def _resize_grad(resize: Callable, *attributes: str) -> Callable:
    """The gradient of a resizing's gradient: resizing, which is linear, itself."""

    def gradient(op, tangent):
        others = {name: op.get_attr(name) for name in attributes}
        if len(op.inputs) == 4:
            others |= {"scale": op.inputs[2], "translation": op.inputs[3]}
        size = tf.shape(op.inputs[0])[1:3]
        resized = resize(images=tangent, size=size, **others)
        return tf.cast(resized, op.inputs[0].dtype), *[None] * (len(op.inputs) - 1)

    return gradient


def _bilinear(op, g):
    """TensorFlow's own gradient of bilinear resizing, with one of its own.

    The gradient op's declaration as not differentiable has it forget its inputs, so that a formula
    for it would come too late.
    """
    attributes = {name: op.get_attr(name) for name in _GRID}

    @tf.custom_gradient
    def transposed(g, image):
        def resized(tangent):
            size = tf.shape(g)[1:3]
            result = tf.raw_ops.ResizeBilinear(images=tangent, size=size, **attributes)
            return tf.cast(result, g.dtype), None

        return tf.raw_ops.ResizeBilinearGrad(grads=g, original_image=image, **attributes), resized

    return transposed(g, op.inputs[0]), None


_GRID = ("align_corners", "half_pixel_centers")
_FORMULAS = {
    "SoftsignGrad": _softsign_grad,
    "LRNGrad": _lrn_grad,
    "ResizeNearestNeighborGrad": _resize_grad(tf.raw_ops.ResizeNearestNeighbor, *_GRID),
    "ResizeBicubicGrad": _resize_grad(tf.raw_ops.ResizeBicubic, *_GRID),
    "ScaleAndTranslateGrad": _resize_grad(tf.raw_ops.ScaleAndTranslate, "kernel_type", "antialias"),
}


def register() -> None:
    """Give TensorFlow the formulas for whichever of the ops it has none."""
    for op_type, formula in _FORMULAS.items():
        if not private.has_gradient(op_type):
            tf.RegisterGradient(op_type)(formula)
    if not private.has_gradient("ResizeBilinearGrad"):
        private.forget_gradient("ResizeBilinear")
        tf.RegisterGradient("ResizeBilinear")(_bilinear)
