"""PyTorch's worker: batches are in memory, and every way to do the step is tried."""

import functools
import itertools

import protocol
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, jacrev, jvp, vmap

torch.backends.cudnn.allow_tf32 = False  # float32 is float32
torch.backends.cudnn.benchmark = True
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
loss = nn.MSELoss()


def lenet(k, outputs):
    return [
        *(nn.Conv2d(1, 6 * k, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6 * k, 16 * k, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(256 * k, 120 * k), nn.ReLU()),
        *(nn.Linear(120 * k, 84 * k), nn.ReLU(), nn.Linear(84 * k, outputs)),
    ]


def alexnet(k, outputs):
    return [
        *(nn.Conv2d(3, 64 * k, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64 * k, 192 * k, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192 * k, 384 * k, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384 * k, 256 * k, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256 * k, 256 * k, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Flatten(), nn.Linear(9216 * k, 4096 * k), nn.ReLU()),
        *(nn.Linear(4096 * k, 4096 * k), nn.ReLU(), nn.Linear(4096 * k, outputs)),
    ]


def vgg11(k, outputs):
    layers, channels = [], 3
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for filters in stage:
            layers += [nn.Conv2d(channels, filters * k, 3, padding=1), nn.ReLU()]
            channels = filters * k
        layers.append(nn.MaxPool2d(2))
    return [*layers, nn.Flatten(), nn.Linear(channels, outputs)]


class Block(nn.Module):
    """A residual block without normalization."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, filters, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        """Map `[b, channels, h, w]` to `[b, filters, h / stride, w / stride]`."""
        y = self.conv2(nn.functional.relu(self.conv1(x)))
        return nn.functional.relu(y + self.shortcut(x))


def resnet18(k, outputs):
    layers, channels = [nn.Conv2d(3, 64 * k, 3, 1, 1), nn.ReLU()], 64 * k
    for filters in (64, 128, 256, 512):
        layers += [Block(channels, filters * k, 1 + (filters > 64))]
        layers += [Block(filters * k, filters * k, 1)]
        channels = filters * k
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)]


NETWORKS = {
    "lenet": (lenet, (1, 28, 28)),
    "alexnet": (alexnet, (3, 224, 224)),
    "vgg11": (vgg11, (3, 32, 32)),
    "resnet18": (resnet18, (3, 32, 32)),
}


def network(problem, layout):
    torch.manual_seed(0)
    layers, _ = NETWORKS[problem["arch"]]
    net = nn.Sequential(*layers(problem["width"], problem["outputs"]))
    return net.to(DEVICE, memory_format=layout)


def batches(problem, layout, count=4):
    _, shape = NETWORKS[problem["arch"]]
    for _ in range(count):
        x = torch.randn(problem["batch"], *shape)
        y = torch.eye(problem["outputs"])[torch.randint(problem["outputs"], (problem["batch"],))]
        yield x.to(DEVICE, memory_format=layout), y.to(DEVICE)


def sgd(parameters, fused):
    return torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=5e-5, fused=fused)


def standard(net, fused):
    optimizer = sgd(net.parameters(), fused)

    def step(x, y):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()

    return step


def tangents(net):
    """w0 and u = 0, by name."""
    point = {name: w.detach() for name, w in net.named_parameters()}
    return point, {name: torch.zeros_like(w).requires_grad_() for name, w in point.items()}


def backward_through_jvp(net, fused):
    """Automatic differentiation of the loss of f + J u in u."""
    point, u = tangents(net)
    optimizer = sgd(u.values(), fused)

    def step(x, y):
        optimizer.zero_grad()
        f, j_u = jvp(lambda w: functional_call(net, w, (x,)), (point,), (u,))
        loss(f + j_u, y).backward()
        optimizer.step()

    return step


def jvp_then_vjp(net, fused):
    """J u without a graph, then J^T r by a backward pass of the network."""
    point, u = tangents(net)
    optimizer = sgd(u.values(), fused)
    weights, directions = list(net.parameters()), list(u.values())

    def step(x, y):
        with torch.no_grad(), forward_ad.dual_level():
            duals = {name: forward_ad.make_dual(w, u[name]) for name, w in point.items()}
            j_u = forward_ad.unpack_dual(functional_call(net, duals, (x,))).tangent
        f = net(x)
        residual = 2 / y.numel() * (f.detach() + j_u - y)
        gradients = torch.autograd.grad(f, weights, residual)
        for direction, gradient in zip(directions, gradients, strict=True):
            direction.grad = gradient
        optimizer.step()

    return step


def one_backward_pass_per_output(net, fused):
    """The paper's way: every output's gradient at every example, then J u and J^T r from them.

    With the l2 loss an output's residual depends on no other output, so that the gradients of one
    output, `[batch, parameters]`, are held at a time.
    """
    point, u = tangents(net)
    optimizer = sgd(u.values(), fused)

    def step(x, y):
        optimizer.zero_grad(set_to_none=False)
        with torch.no_grad():
            for output in range(y.shape[1]):

                def f(w, example, output=output):
                    value = functional_call(net, w, (example[None],))[0, output]
                    return value, value

                features, value = vmap(torch.func.grad(f, has_aux=True), (None, 0))(point, x)
                accumulate(features, value, u, y[:, output], y.numel())
        optimizer.step()

    return step


def all_backward_passes_at_once(net, fused):
    """The same, the backward passes vectorized: `[batch, outputs, parameters]` are held."""
    point, u = tangents(net)
    optimizer = sgd(u.values(), fused)

    def step(x, y):
        optimizer.zero_grad(set_to_none=False)

        def f(w, example):
            value = functional_call(net, w, (example[None],))[0]
            return value, value

        with torch.no_grad():
            features, value = vmap(jacrev(f, has_aux=True), (None, 0))(point, x)
            accumulate(features, value, u, y, y.numel())
        optimizer.step()

    return step


def accumulate(features, value, u, y, count):
    """Add J^T r to the gradients of u, given J (a row for each entry of `value` and y)."""
    rows = {name: j.reshape(y.numel(), -1) for name, j in features.items()}
    j_u = sum(j @ u[name].flatten() for name, j in rows.items()).reshape(y.shape)
    residual = (2 / count * (value + j_u - y)).flatten()
    for name, j in rows.items():
        gradient = (residual @ j).reshape(u[name].shape)
        u[name].grad = gradient if u[name].grad is None else u[name].grad + gradient


STEPS = {
    "standard": [standard],
    "linearized": [backward_through_jvp, jvp_then_vjp],
    "per_output": [one_backward_pass_per_output, all_backward_passes_at_once],
}


def training(problem, make, layout, fused, compiled):
    net = network(problem, layout)
    step = make(net, fused)
    if compiled:
        step = torch.compile(step)
    stream = itertools.cycle(batches(problem, layout))

    def steps(count):
        for x, y in itertools.islice(stream, count):
            step(x, y)
        synchronize()

    return steps


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def product(problem):
    matrix = torch.ones((problem["size"], problem["size"]), device=DEVICE)

    def steps(count):
        for _ in range(count):
            matrix @ matrix
        synchronize()

    return steps


def variants(problem):
    if problem["model"] == "product":
        return {"matmul": functools.partial(product, problem)}
    found = {}
    layouts = LAYOUTS if problem["model"] != "per_output" else {"contiguous": LAYOUTS["contiguous"]}
    for make, (layout, memory_format), fused, compiled in itertools.product(
        STEPS[problem["model"]],
        layouts.items(),
        (None, True),
        (False, True) if problem["compile"] else (False,),
    ):
        words = [make.__name__, layout, "fused" if fused else "", "compiled" if compiled else ""]
        name = " ".join(word for word in words if word)
        found[name] = functools.partial(training, problem, make, memory_format, fused, compiled)
    return found


def peak_memory():
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else protocol.peak_memory()


if __name__ == "__main__":
    protocol.serve({"torch": torch.__version__}, variants, peak_memory)
