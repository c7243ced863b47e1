"""What checkpoints give back."""

import json
from unittest import mock

import keras
import numpy as np
import pytest

from ntk_tf.runs import RunDirectoryError, checkpoint
from ntk_tf.training import callbacks, loop, records, state


def test_goes_on_from_a_checkpoint_with_fewer_records(tmp_path):
    live, records, more = (keras.Variable(value, name=f"v{value}") for value in (1.0, 2.0, 3.0))
    state.State(tmp_path, [live], [], [records]).save(4)
    for variable in (live, records):
        variable.assign(0)
    assert state.State(tmp_path, [live], [], [records, more]).restore() == 4
    assert [float(v) for v in (live, records, more)] == [1, 2, 3]
    with pytest.raises(RunDirectoryError, match="of another model"):
        state.State(tmp_path, [more], [], [records]).restore()


def test_a_checkpoint_belongs_to_what_gives_it_its_meaning(tmp_path):
    """u of another w0 is another function."""
    u, w0 = keras.Variable(1.0, name="u"), keras.Variable(2.0, name="w0")
    state.State(tmp_path, [u], [w0]).save(4)
    assert state.State(tmp_path, [u], [w0]).restore() == 4
    w0.assign(2.5)
    with pytest.raises(RunDirectoryError, match="made from other weights"):
        state.State(tmp_path, [u], [w0]).restore()


@pytest.mark.parametrize(("batch", "first", "step"), [(14, 3, 10), (14, 7, 14), (9, 2, 9)])
def test_updates_that_diverge_are_counted_through_the_run(batch, first, step):
    """Of epochs of seven updates, the first of an epoch whose outputs were not finite."""
    stop = callbacks.StopAtDivergence(loop.Plan(7, 28), lambda: True)
    stop.set_model(mock.Mock())
    stop.on_train_batch_end(batch, {"first_non_finite": first, "loss": np.float32(1)})
    assert stop.step == step
    assert stop.model.stop_training


@pytest.mark.parametrize(
    ("batch", "looks"), [(7, True), (9, False), (10, True), (14, True), (15, True), (13, False)]
)
def test_the_state_is_looked_at_where_the_plan_stops(batch, looks):
    """At the ends of epochs and of training and at pauses: where does not depend on the speed."""
    stop = callbacks.StopAtDivergence(loop.Plan(7, 15, pauses=frozenset({10})), lambda: False)
    stop.set_model(mock.Mock(stop_training=False))
    stop.on_train_batch_end(batch, {"first_non_finite": 0, "loss": np.float32(1)})
    assert stop.step == (batch if looks else None)
    assert stop.model.stop_training == looks


def test_checkpoints_of_an_earlier_version_are_read(tmp_path):
    """Whose text was a string of four bytes a character."""
    meta = {"tables": {"metrics": [{"epoch": 1}]}, "é": None}
    np.savez(tmp_path / "step-000000007.npz", meta=np.array(json.dumps(meta)), a=np.ones(2))
    assert checkpoint.restore(tmp_path).meta == meta
    checkpoint.save(tmp_path, checkpoint.Checkpoint(8, {"a": np.zeros(2)}, meta))
    found = checkpoint.restore(tmp_path)
    assert (found.step, found.meta) == (8, meta)


def test_long_tables_are_not_written_after_every_row(tmp_path, monkeypatch):
    """A file is written whole: writing it 5,000 times would take hours for 100,000 rows."""
    count, write = 0, records.runs.write_table

    def counting(*arguments):
        nonlocal count
        count += 1
        write(*arguments)

    monkeypatch.setattr(records.runs, "write_table", counting)
    monkeypatch.setattr(records, "EventFiles", lambda *_: mock.Mock())
    monkeypatch.setattr(records, "_EVERY", 50)
    rows = records.Rows(tmp_path, ("step", "x"), "step", [])
    for i in range(500):
        rows.add({"step": i, "x": 1.0})
        if i < 40:
            assert len((tmp_path / "metrics.csv").read_text().splitlines()) == i + 2
    assert count < 180
    rows.complete()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 501
