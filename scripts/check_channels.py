"""Does the error of kernels that are estimated from random channels fall as 1 / sqrt(channels)?

    python scripts/check_channels.py [--seeds=96] [--channels=256]

Infinite LeNet at three pictures of 16x16, with C and 4 C channels. With average pooling, whose
ReLU is estimated as a max pooling of single positions is, the mean over seeds is compared with the
exact kernel; with max pooling there is the spread over seeds, and what doubling the channels
changes. Exits with 1 if an error ratio is not 2 +- .5, a mean is further than four standard errors
from the exact kernel, or doubling changes more than three times what chance would. A ratio's own
standard deviation is about 2 / sqrt(seeds): .2 of 96 seeds, which take five minutes on a slow core.
"""

import argparse
import sys

import numpy as np

from ntk_tf.process import startup


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=96)
    parser.add_argument("--channels", type=int, default=256)
    given = parser.parse_args()
    startup.import_tensorflow(one_thread_an_operation=True)
    from ntk_tf.ntk import infinite
    from ntk_tf.ntk.infinite import limits

    class Estimated(limits.NTKLimit):
        """Average pooling behind a ReLU that is estimated."""

        def average_pool(self, x, size, strides=None, *, name):
            relu = self.max_pool(x, 1, name=f"{name}_relu")
            return super().average_pool(relu, size, strides, name=name)

    x = np.sin(1 + np.arange(3 * 256) ** 2 % 97).reshape(3, 16, 16, 1)
    average = {"pooling": "average"}

    def kernels(channels, arguments):
        function = infinite.KernelFunction(
            "lenet", (16, 16, 1), arch_args=arguments, channels=(channels,)
        )
        return np.stack([function(x, seed=seed).ntk for seed in range(given.seeds)])

    def errors(found):
        return found.std(axis=0, ddof=1) / given.seeds**0.5

    sound = True
    exact = infinite.kernel("lenet", x, arch_args=average)
    usual, limits.LIMITS["ntk"] = limits.LIMITS["ntk"], Estimated
    try:
        pooled = [kernels(count, average) for count in (given.channels, 4 * given.channels)]
    finally:
        limits.LIMITS["ntk"] = usual
    for count, found in zip((given.channels, 4 * given.channels), pooled, strict=True):
        away = np.max(np.abs(found.mean(axis=0) - exact) / errors(found))
        sound = sound and away < 4
        print(
            f"average pooling, {count} channels: {away:.1f} standard errors from the exact kernel"
        )
    counts = [given.channels * factor for factor in (1, 2, 4)]
    few, twice, many = (kernels(count, {}) for count in counts)
    for name, pair in (("average", pooled), ("max", (few, many))):
        ratio = np.linalg.norm(errors(pair[0])) / np.linalg.norm(errors(pair[1]))
        sound = sound and abs(ratio - 2) < 0.5
        print(f"{name} pooling: the error falls to 1 / {ratio:.2f} with four times the channels")
    found = infinite.extrapolate(few, twice)
    sound = sound and found.change < 3 * found.noise
    print(
        f"max pooling: doubling {given.channels} channels changes {found.change:.2%};"
        f" by chance {found.noise:.2%}"
    )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
