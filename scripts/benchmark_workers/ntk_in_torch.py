"""torch.func's kernels as in PyTorch's tutorial "Neural Tangent Kernels"; see `ntk_protocol`."""

import ntk_protocol
import numpy as np
import torch
from torch.func import jacrev, vmap
from torch.nn import functional

torch.backends.cudnn.allow_tf32 = False  # float32 is float32
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class _Ops:
    """What networks are made of, for pictures `[b, c, h, w]`."""

    relu = staticmethod(torch.relu)

    @staticmethod
    def conv(x, kernel, bias, stride, padding):
        return functional.conv2d(x, kernel, bias, stride, padding)

    @staticmethod
    def dense(x, kernel, bias):
        return x @ kernel + bias

    @staticmethod
    def max_pool(x):
        return functional.max_pool2d(x, 2)

    @staticmethod
    def mean(x):
        return x.mean(dim=(2, 3))

    @staticmethod
    def flatten(x):
        return x.movedim(1, -1).reshape(len(x), -1)


def tensor(array):
    """A kernel in PyTorch's order of axes, or a bias."""
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.tensor(np.ascontiguousarray(array), device=DEVICE)


def prepare(network, weights, x, outputs, implementation):
    parameters = {name: tuple(map(tensor, pair)) for name, pair in weights.items()}
    x = torch.tensor(x, device=DEVICE).movedim(-1, 1).contiguous()

    def function(parameters, x):
        y = network(_Ops, parameters.__getitem__, x[None])[0]
        return y.sum()[None] / len(y) ** 0.5 if outputs == "sum" else y

    equation = "nlp,mlp->nm" if outputs == "trace" else "nlp,mkp->nlmk"

    @torch.no_grad()
    def kernel():
        found = vmap(jacrev(function), (None, 0))(parameters, x)
        total = 0
        for pair in found.values():
            for jacobian in pair:
                flat = jacobian.flatten(2)
                total = total + torch.einsum(equation, flat, flat)
        if outputs == "sum":
            return total[:, 0, :, 0].cpu().numpy()
        return (total / flat.shape[1] if outputs == "trace" else total).cpu().numpy()

    return kernel


if __name__ == "__main__":
    ntk_protocol.serve(prepare)
