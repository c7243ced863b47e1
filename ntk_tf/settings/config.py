"""The settings of a run: frozen, complete, and what is written down of them.

An experiment's settings are a dataclass that inherits from `Config` and from the groups that it
reads, so that a setting of another experiment is not an attribute at all.
"""

import dataclasses
import os
import pathlib
import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ntk_tf.catalogue.datasets import Card, is_own
from ntk_tf.process.paths import expanded
from ntk_tf.settings.options import Options
from ntk_tf.settings.setting import Declaration, declarations, setting, shown, text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting that a run's numbers depend on.

    Attributes:
        experiment: what is run.
        card: what is known of the dataset.
        network_code: checksum of the code of a network of the user's; None if that is not known.
        builds_network: whether the experiment has a network, which the pictures must fit.
    """

    experiment: str = setting(
        "train", text("the name of an experiment", placeholder="NAME"), "what to run", named=False
    )
    card: Card
    network_code: str | None = None
    builds_network: ClassVar[bool] = True

    if TYPE_CHECKING:  # settings are declared in groups, and each experiment reads some of them

        def __getattr__(self, name: str) -> Any: ...

    def check(self, given: dict[str, Any]) -> None:
        """Refuse settings that do not go together; groups add what they know.

        Args:
            given: the settings that were not left to their defaults.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """

    @property
    def small(self) -> bool:
        """Whether each operation is too small to be split over threads."""
        return False

    def read(self) -> dict[str, Declaration]:
        """The settings that these settings let the experiment read."""
        return {name: d for name, d in declarations(self).items() if d.read_by(self)}

    def to_dict(self) -> dict[str, Any]:
        """Those settings' values by name, and facts of a user's network and data, for JSON."""
        values = {name: getattr(self, name) for name in self.read()}
        content = {name: _plain(value) for name, value in values.items()}
        content |= self._facts()
        return content | ({"data": facts(self.card)} if is_own(self.card.name) else {})

    def added(self) -> dict[str, Any]:
        """What the config.json of an earlier version lacks, with the values it stands for."""
        found = {
            name: _plain(declaration.default_for(self))
            for name, declaration in self.read().items()
            if declaration.since != "0.1"
        }
        return found | self._facts()

    def _facts(self) -> dict[str, Any]:
        """Those of a user's network and pictures that versions 0.1 did not write."""
        code = {"network_code": self.network_code} if self.network_code else {}
        many_sizes = is_own(self.card.name) and self.card.photographs
        return code | ({"photographs": True} if many_sizes else {})

    def changed(self) -> dict[str, Any]:
        """The settings that are not their default."""
        values = {name: getattr(self, name) for name in self.read()}
        usual = {name: d.default_for(self) for name, d in self.read().items()}
        return {name: value for name, value in values.items() if value != usual[name]}


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def facts(card: Card) -> dict[str, Any]:
    """What config.json says of a user's data."""
    return {
        "shape": list(card.shape),
        "classes": card.classes,
        "fingerprint": card.fingerprint,
    }


def run_name(config: Config, **instead: str) -> str:
    """A readable name, unique and safe in a shell: model and data, then what is no default.

    Args:
        config: the run's settings.
        **instead: what to write in place of a setting's value: `width="1-3"` for several widths,
            `linearized=""` for a network and its linearization together.

    Returns:
        For example `linlenet_x60_mnist_seed0` or `lenet_x1_digits_seed3_epochs5`.
    """
    lin = instead.get("linearized", "lin" if getattr(config, "linearized", False) else "")
    code = f"-{config.network_code}" if config.network_code else ""
    arch, dataset = _word(config.arch) + code, _dataset_word(config)
    if hasattr(config, "width"):
        width = instead.get("width", config.width)
        name = f"{lin}{arch}_x{width}_{dataset}_seed{config.seed}"
    elif hasattr(config, "weights"):
        name = f"{dataset}_{_file_word(config.weights)}"
    else:
        name = f"{dataset}_for_{arch}"
    prefix = "" if config.experiment == "train" else f"{config.experiment}_"
    parts = [_part(key, value) for key, value in config.changed().items() if _named(config, key)]
    if getattr(config, "from_run", None):
        parts.append(f"_from-{_file_word(config.from_run)}")
    return prefix + name + "".join(parts)


def _named(config: Config, key: str) -> bool:
    return declarations(config)[key].named


def _part(key: str, value: Any) -> str:
    """A setting in a run's name; long ones are shortened to a checksum."""
    if key == "snake_synsets":  # up to 17 names are too long for a folder's
        return f"_{key}{value.count(',') + 1}-{zlib.crc32(value.encode()):08x}"
    if key == "arch_args":
        return "_" + _word(value.replace("=", ""))
    return f"_{key}{_word(shown(value))}"


def _word(value: str) -> str:
    """A value with nothing in it that means something to a shell or a path."""
    return re.sub(r"[^\w.,+-]", ".", value)


def _file_word(path: str) -> str:
    """A file's or folder's name, and a checksum of where it is."""
    place = expanded(path).absolute()
    return f"{_word(place.stem)}-{zlib.crc32(os.fsencode(place)):08x}"


def _dataset_word(config: Config) -> str:
    if config.card.fingerprint is None:
        return _word(config.dataset.replace(":", "-"))
    stem = pathlib.Path(config.dataset).stem or "folder"  # of `./`
    return f"{_word(stem)}-{config.card.fingerprint}"


def fingerprint(config: Config) -> str:
    """Checksums of the code of a user's network and of their data; empty where there is none."""
    return "-".join(filter(None, (config.network_code, config.card.fingerprint)))


def flags_of(config: Config, options: Options) -> list[str]:
    """The command line that resolves to these settings: only what differs from the defaults.

    A user's network or data must be the same when it is carried out.

    Args:
        config: a run's settings.
        options: how and where it is carried out.

    Returns:
        Arguments of `python -m ntk_tf.main`.
    """
    named = ("experiment", "arch", "width", "dataset")
    chosen = {name: getattr(config, name) for name in named if hasattr(config, name)}
    chosen |= config.changed() | options.changed()
    if of_user := fingerprint(config):
        chosen["fingerprint"] = of_user
    return [_flag(name, value) for name, value in chosen.items()]


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={shown(value)}"


def read_facts(content: Mapping[str, Any], known: Card) -> Card:
    """A user's data as a config.json describes it, whether or not it is still there.

    Args:
        content: of `data` in the config.json.
        known: its name and title.

    Raises:
        TypeError: if the content is of another form.
        ValueError: likewise.
    """
    shape = tuple(int(side) for side in content["shape"])
    classes, fingerprint = int(content["classes"]), content["fingerprint"]
    return dataclasses.replace(known, shape=shape, classes=classes, fingerprint=fingerprint)
