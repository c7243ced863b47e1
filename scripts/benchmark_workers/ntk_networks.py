"""Networks of the kernel benchmark, written once for every framework.

`ops` has conv, dense, relu, max_pool, mean and flatten; `weights(name)` gives a layer's kernel and
bias, named as in ntk_tf.
"""


def lenet(ops, weights, x):
    for name in ("conv1", "conv2"):
        x = ops.max_pool(ops.relu(ops.conv(x, *weights(name), 1, 0)))
    x = ops.flatten(x)
    for name in ("dense1", "dense2"):
        x = ops.relu(ops.dense(x, *weights(name)))
    return ops.dense(x, *weights("outputs"))


def mlp(ops, weights, x):
    x = ops.flatten(x)
    for name in ("dense1", "dense2", "dense3"):
        x = ops.relu(ops.dense(x, *weights(name)))
    return ops.dense(x, *weights("outputs"))


def resnet18(ops, weights, x):
    x = ops.relu(ops.conv(x, *weights("conv"), 1, 1))
    for group in range(1, 5):
        for block in (1, 2):
            name, halves = f"group{group}_block{block}", group > 1 and block == 1
            y = ops.relu(ops.conv(x, *weights(f"{name}_conv1"), 2 if halves else 1, 1))
            y = ops.conv(y, *weights(f"{name}_conv2"), 1, 1)
            if halves:
                x = ops.conv(x, *weights(f"{name}_shortcut"), 2, 0)
            x = ops.relu(x + y)
    return ops.dense(ops.mean(x), *weights("outputs"))


NETWORKS = {"lenet": lenet, "mlp": mlp, "resnet18": resnet18}
