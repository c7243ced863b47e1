"""From the settings that are given to complete ones, and from a config.json back to them."""

import types
from collections.abc import Callable, Mapping
from typing import Any

from ntk_tf.catalogue import architectures, code, datasets
from ntk_tf.catalogue.datasets import Card
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.settings import Config, SettingError
from ntk_tf.settings.config import read_facts
from ntk_tf.settings.setting import Declaration, declarations, shown


def resolve(card_of: Callable[[str], Card] | None = None, **settings: Any) -> Config:
    """Complete the given settings with the paper's and validate all of them.

    Args:
        card_of: what is known of a dataset by its name; None looks it up.
        **settings: settings of the experiment; those absent or None take their default, which for
            `experiment` is `train`, for `arch` LeNet, for `dataset` the paper's for that arch.

    Returns:
        The complete configuration.

    Raises:
        SettingError: if a setting has a value that it cannot take, or the experiment does not
            read it.
        DataError: if the user's own data cannot be had.
        TypeError: if a setting is unknown.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    known = all_declarations()
    unknown = given.keys() - known.keys()
    if unknown:
        raise TypeError(f"unknown setting {min(unknown)!r}")
    experiment = given.get("experiment", "train")
    owner = _owner(experiment)
    own = declarations(owner)
    _check_each(given, own)
    _refuse_foreign(experiment, given, own)
    if given.get("snake_synsets"):
        given["snake_synsets"] = ",".join(sorted(given["snake_synsets"].split(",")))
    config = owner(**_complete(own, given, card_of or look_up, _code))
    for name, value in given.items():
        own[name].check_read(name, value, config)
    config.check(given)
    return config


def _owner(experiment: str) -> type[Config]:
    """The settings of an experiment.

    Raises:
        SettingError: if there is no such experiment.
    """
    if experiment not in EXPERIMENTS:
        allowed = ", ".join(EXPERIMENTS)
        raise SettingError(f"--experiment={experiment}: must be one of {allowed}")
    return EXPERIMENTS[experiment].settings


def _check_each(given: Mapping[str, Any], own: Mapping[str, Declaration]) -> None:
    """Refuse values that a setting cannot take, whatever the others are.

    Raises:
        SettingError: for the first of them.
    """
    for name, value in given.items():
        if name in own:
            own[name].check(name, value)


def look_up(name: str) -> Card:
    """What is known of a dataset, of the user's own by looking at it.

    Raises:
        DataError: if the user's own data cannot be had.
    """
    from ntk_tf import data

    return data.card(name)


def all_declarations() -> dict[str, Declaration]:
    """The settings of all experiments by name, in the order of declaration."""
    found: dict[str, Declaration] = {}
    for experiment in EXPERIMENTS.values():
        for name, declaration in declarations(experiment.settings).items():
            found.setdefault(name, declaration)
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def readers(name: str) -> list[str]:
    """The experiments that read a setting."""
    return [e.name for e in EXPERIMENTS.values() if name in declarations(e.settings)]


def _refuse_foreign(experiment: str, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for name in sorted(given.keys() - own.keys()):
        raise SettingError(
            f"--{name}={shown(given[name])}: --experiment={experiment} does not read it; read by"
            f" {', '.join(readers(name))}"
        )


def _complete(
    own: Mapping[str, Declaration],
    given: Mapping[str, Any],
    card_of: Callable[[str], Card],
    code_of: Callable[[str], str | None],
) -> dict[str, Any]:
    """All settings: constants first, then those that depend on others."""
    constant = {name: d.default for name, d in own.items() if not callable(d.default)}
    known = types.SimpleNamespace(**(constant | dict(given)))
    for name in ("dataset", *own):
        if not hasattr(known, name):
            setattr(known, name, own[name].default(known))
        if name == "dataset" and not hasattr(known, "card"):
            known.card = card_of(known.dataset)
    return vars(known) | {"network_code": code_of(known.arch)}


def _code(arch: str) -> str | None:
    return code.fingerprint(arch) if architectures.is_own(arch) else None


def from_json(content: Mapping[str, Any]) -> Config:
    """The settings in a config.json, which may be another version's and another machine's.

    What this version does not know or read is passed over, and what is missing takes its default.
    Files that the run took need not be there any more.

    Raises:
        SettingError: if a setting has a value that it cannot take.
        TypeError: if the content is of another form.
    """
    missing = {"experiment", "arch", "dataset"} - content.keys()
    if missing:
        raise SettingError(f"{min(missing)}: is missing")
    owner = _owner(content["experiment"])
    own = declarations(owner)
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.items()
        if name in own
    }
    _check_each(settings, own)

    def card_of(name: str) -> Card:
        if name in datasets.DATASETS:
            return datasets.DATASETS[name]
        photographs = content.get("photographs") is True
        own = Card(name, name, (), 0, 0, 0, photographs=photographs)
        try:
            return read_facts(content["data"], own)
        except (LookupError, TypeError, ValueError) as error:
            raise SettingError(f"data: describes no pictures ({error})") from error

    given = {name: value for name, value in settings.items() if value is not None}
    return owner(**_complete(own, given, card_of, lambda _: content.get("network_code")))
