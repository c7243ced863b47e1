"""What checkpoints give back."""

import keras
import pytest

from ntk_tf.runs import RunDirectoryError
from ntk_tf.training import state


def test_goes_on_from_a_checkpoint_with_fewer_records(tmp_path):
    live, records, more = (keras.Variable(value, name=f"v{value}") for value in (1.0, 2.0, 3.0))
    state.State(tmp_path, [live], [], [records]).save(4)
    for variable in (live, records):
        variable.assign(0)
    assert state.State(tmp_path, [live], [], [records, more]).restore() == 4
    assert [float(v) for v in (live, records, more)] == [1, 2, 3]
    with pytest.raises(RunDirectoryError, match="of another model"):
        state.State(tmp_path, [more], [], [records]).restore()
