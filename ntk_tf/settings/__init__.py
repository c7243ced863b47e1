"""What can be said about a run: each setting is declared once, and all else follows from that."""

from ntk_tf.settings.config import Config, fingerprint, flags_of, run_name
from ntk_tf.settings.options import Options, check_for, options
from ntk_tf.settings.setting import SettingError

__all__ = [
    "Config",
    "Options",
    "SettingError",
    "check_for",
    "fingerprint",
    "flags_of",
    "options",
    "run_name",
]
