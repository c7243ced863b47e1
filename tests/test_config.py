"""The paper's values as defaults, and what is refused."""

import re

import pytest

from ntk_tf.experiments.resolving import all_declarations, from_json, readers, resolve
from ntk_tf.settings import Options, SettingError, flags_of, run_name


def test_defaults_are_the_papers():
    lenet = resolve()
    assert (lenet.arch, lenet.dataset, lenet.width, lenet.linearized) == (
        "lenet",
        "mnist",
        1,
        False,
    )
    assert (lenet.epochs, lenet.batch_size, lenet.learning_rate) == (100, 32, 0.1)
    assert (lenet.momentum, lenet.weight_decay, lenet.lr_drop_every) == (0.9, 5e-5, 0)
    alexnet = resolve(arch="alexnet")
    assert (alexnet.learning_rate, alexnet.weight_decay, alexnet.lr_drop_every) == (0.1, 5e-6, 30)
    linear = resolve(arch="alexnet", linearized=True)
    assert (linear.learning_rate, linear.weight_decay) == (1.0, 5e-7)
    assert linear.input_shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"dataset": "mnist"}, (28, 28, 1)),
        ({"dataset": "mnist", "padding": 2}, (32, 32, 1)),
        ({"dataset": "digits"}, (28, 28, 1)),
        ({"dataset": "digits", "arch": "alexnet"}, (224, 224, 3)),
        ({"dataset": "digits", "arch": "alexnet", "image_size": 64}, (64, 64, 3)),
    ],
)
def test_input_shapes(settings, shape):
    assert resolve(**settings).input_shape == shape


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("width", 1.5),
        ("width", True),
        ("arch", "lenett"),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", 0),
        ("learning_rate", 1e39),
        ("learning_rate", 1e-40),
        ("momentum", 1),
        ("momentum", 1e-40),
        ("lr_drop_factor", 1e300),
        ("weight_decay", -1e-9),
        ("batch_size", 0),
        ("epochs", -1),
        ("max_steps", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("loss", "hinge"),
        ("train_examples", 0),
        ("image_size", 15),
    ],
)
def test_refusals_name_flag_value_and_what_is_allowed(name, value):
    with pytest.raises(
        SettingError, match=rf"^--{name}={re.escape(str(value))}: .*must be"
    ) as error:
        resolve(**{name: value})
    assert "\n" not in str(error.value)


def test_learning_rates_stay_within_what_float32_holds():
    drops = {"lr_drop_every": 2, "epochs": 5}
    message = "^--lr_drop_factor=1e-30: the learning rate of epoch 5 is beyond 1e38$"
    with pytest.raises(SettingError, match=message):
        resolve(lr_drop_factor=1e-30, **drops)
    falling = resolve(lr_drop_factor=1e37, **(drops | {"epochs": 100}))
    assert falling.learning_rate_in(2) == pytest.approx(1e-38)
    assert falling.learning_rate_in(99) == 0
    rising = resolve(experiment="trajectory", lr_drop_every=1, lr_drop_factor=1e-30, max_steps=9)
    assert rising.learning_rate_in(99) == float("inf")


def test_every_setting_has_a_rule_and_a_reader():
    for name, declaration in all_declarations().items():
        assert readers(name)
        assert declaration.rule.allowed
        assert declaration.help


def test_run_names_tell_what_differs():
    assert run_name(resolve(width=60, linearized=True)) == "linlenet_x60_mnist_seed0"
    name = run_name(resolve(dataset="digits", seed=3, epochs=5, learning_rate=0.01))
    assert name == "lenet_x1_digits_seed3_epochs5_learning_rate0.01"


def test_a_subset_is_drawn_only_of_so_many_pictures():
    drawn = resolve(dataset="digits", train_examples=100, subset_seed=3)
    assert run_name(drawn) == "lenet_x1_digits_seed0_train_examples100_subset_seed3"
    assert drawn.to_dict()["subset_seed"] == 3
    assert from_json(drawn.to_dict()) == drawn
    assert "subset_seed" not in resolve().to_dict()
    assert resolve(train_examples=100).added()["subset_seed"] is None
    with pytest.raises(SettingError, match=r"^--subset_seed=3: read only with --train_examples$"):
        resolve(subset_seed=3)
    with pytest.raises(SettingError, match=r"^--subset_seed=-1: must be an integer"):
        resolve(train_examples=100, subset_seed=-1)


def test_only_a_linearization_reads_what_its_decay_pulls_to():
    linear = resolve(linearized=True)
    assert linear.decay_toward == "initialization"
    assert run_name(linear) == "linlenet_x1_mnist_seed0"
    other = resolve(linearized=True, decay_toward="zero")
    assert run_name(other) == "linlenet_x1_mnist_seed0_decay_towardzero"
    assert "decay_toward" not in resolve().to_dict()
    assert resolve(experiment="trajectory").decay_toward == "initialization"
    with pytest.raises(SettingError, match=r"^--decay_toward=zero: read only with --linearized"):
        resolve(decay_toward="zero")
    with pytest.raises(SettingError, match="--experiment=rank does not read it"):
        resolve(experiment="rank", decay_toward="zero")


def test_biases_are_trained_unless_told_otherwise():
    assert resolve().to_dict()["train_biases"] is True
    assert run_name(resolve(train_biases=False)) == "lenet_x1_mnist_seed0_train_biasesFalse"
    with pytest.raises(SettingError, match="--experiment=baseline does not read it; .* rank"):
        resolve(experiment="baseline", train_biases=False)


def test_the_users_own_architecture_has_its_own_parametrization():
    assert run_name(resolve(parametrization="ntk")) == "lenet_x1_mnist_seed0_parametrizationntk"
    assert resolve(experiment="rank").parametrization == "standard"
    with pytest.raises(SettingError, match="ntk: read only with a built-in --arch$"):
        resolve(arch="mine:build", dataset="digits", parametrization="ntk")
    assert "parametrization" not in resolve(arch="mine:build", dataset="digits").to_dict()


def test_a_large_alpha_is_in_float64():
    assert resolve(centered=True).precision == "float32"
    lazy = resolve(centered=True, alpha=1e7)
    assert (lazy.precision, lazy.decay_toward) == ("float64", "initialization")
    assert run_name(lazy) == "lenet_x1_mnist_seed0_centeredTrue_alpha10000000.0"
    precisions = [resolve(centered=True, alpha=alpha).precision for alpha in (10, 1000, 1001)]
    assert precisions == ["float32", "float32", "float64"]
    with pytest.raises(SettingError, match=r"^--precision=tf32: must be float64 with --alpha=1001"):
        resolve(centered=True, alpha=1001, precision="tf32")
    for settings in ({}, {"centered": True, "linearized": True}):
        with pytest.raises(
            SettingError, match=r"^--alpha=2: read only with --centered and --nolin"
        ):
            resolve(alpha=2, **settings)
    with pytest.raises(SettingError, match="at least 1e-9 and at most 1e9"):
        resolve(centered=True, alpha=0)


def test_learning_rate_drops():
    settings = resolve(arch="alexnet")
    rates = [settings.learning_rate_in(epoch) for epoch in (0, 29, 30, 60, 99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])
    assert resolve().learning_rate_in(99) == 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"width": 3, "linearized": True, "arch": "alexnet", "learning_rate": 0.5},
        {"experiment": "trajectory", "examples": (3, 1), "dataset": "digits", "seed": 7},
        {"linearized": True, "decay_toward": "zero", "train_biases": False},
        {"centered": True, "alpha": 1e5, "parametrization": "ntk"},
        {"dataset": "cifar10", "loss": "cross_entropy", "max_steps": 5, "padding": 2},
    ],
)
def test_command_line_of_settings_resolves_to_them(settings, tmp_path):
    from ntk_tf import cli

    configuration = resolve(**settings)
    options = Options(tmp_path, data_dir="d", resume=False)
    command = cli.parse(["main", *flags_of(configuration, options)])
    assert (command.config, command.options) == (configuration, options)
