"""What is asked of a cluster: options of a sweep, and of a kernel's tiles."""

import dataclasses
from typing import Any

from ntk_tf.settings.setting import (
    Condition,
    SettingError,
    declarations,
    integer,
    one_of,
    optional,
    setting,
    shown,
    text,
)

_SPREAD = Condition(
    "--experiment=infinite; python -m ntk_tf.sweep takes it for all",
    lambda config: config.experiment == "infinite",
)
_NAME = optional(text("a name", placeholder="NAME"))
_COUNT = optional(integer(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where jobs run, and what they ask SLURM for."""

    executor: str = setting(
        "local",
        one_of("local", "slurm"),
        "where to run; slurm is an array of jobs (default: local)",
        when=_SPREAD,
    )
    slurm_partition: str | None = setting(
        None, _NAME, "SLURM: partition (default: the cluster's)", when=_SPREAD
    )
    slurm_minutes: int = setting(
        24 * 60,
        integer(1),
        "SLURM: time limit of a job, requeued when it ends (default: 1440)",
        when=_SPREAD,
    )
    slurm_cpus: int | None = setting(
        None, _COUNT, "SLURM: CPUs of a job (default: 4 for a run, 1 for tiles)", when=_SPREAD
    )
    slurm_gpus: int = setting(0, integer(0), "SLURM: GPUs of a job (default: 0)", when=_SPREAD)
    slurm_gpu_type: str | None = setting(
        None, _NAME, "SLURM: their type, such as a100 (default: any)", when=_SPREAD
    )
    slurm_account: str | None = setting(
        None, _NAME, "SLURM: account that pays (default: the user's)", when=_SPREAD
    )
    slurm_qos: str | None = setting(
        None, _NAME, "SLURM: quality of service (default: the cluster's)", when=_SPREAD
    )
    slurm_setup: str | None = setting(
        None,
        optional(text("commands", placeholder="COMMANDS")),
        "SLURM: what a job's shell does first, such as module load cuda",
        when=_SPREAD,
    )
    slurm_memory: str | None = setting(
        None,
        optional(text("a size", placeholder="SIZE")),
        "SLURM: memory of a job, such as 16GB (default: the cluster's)",
        when=_SPREAD,
    )

    def __post_init__(self):
        """Refuse what is asked of SLURM that nothing would read.

        Raises:
            SettingError: naming the flag.
        """
        for name, declaration in declarations(Cluster).items():
            value = getattr(self, name)
            if self.executor != "slurm" and name != "executor" and value != declaration.default:
                raise SettingError(f"--{name}={shown(value)}: read only with --executor=slurm")
        if self.slurm_gpu_type and not self.slurm_gpus:
            raise SettingError(
                f"--slurm_gpu_type={self.slurm_gpu_type}: read only with --slurm_gpus above 0"
            )

    def asked(self, cpus: int) -> dict[str, Any]:
        """What a job asks for, by submitit's parameter names.

        Args:
            cpus: of a job, unless they are given.
        """
        gpus = filter(None, ("gpu", self.slurm_gpu_type, str(self.slurm_gpus)))
        return {
            "partition": self.slurm_partition,
            "time": self.slurm_minutes,
            "cpus_per_task": self.slurm_cpus or cpus,
            "gres": ":".join(gpus) if self.slurm_gpus else None,
            "account": self.slurm_account,
            "qos": self.slurm_qos,
            "setup": [self.slurm_setup] if self.slurm_setup else None,
            "mem": self.slurm_memory,
        }
