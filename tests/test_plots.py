"""What all figures share: labels that can be read, and colours that differ."""

import pytest

from ntk_tf import plots


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_labels_do_not_run_into_each_other(scale):
    """Of twelve widths on a logarithmic scale those that are too near to the next have none."""
    with plots.plt.rc_context(plots.STYLE):
        figure, axes = plots.plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
        for axis in axes:
            axis.set_xscale(scale)
            plots.mark(axis, range(1, 13))
            axis.minorticks_off()
            axis.set_xlim(0.8, 15)
        figure.draw_without_rendering()
        labels = [label for label in axes[0].get_xticklabels() if label.get_text()]
        ends = [label.get_window_extent().x1 for label in labels]
        plots.plt.close(figure)
    texts = [label.get_text() for label in labels]
    assert {"1", "2", "3", "5", "8", "10", "12"} <= set(texts)
    assert scale == "log" or len(texts) == 12
    nearest = min(b - a for a, b in zip(ends, ends[1:], strict=False))
    assert nearest > 9 * 0.7 * figure.dpi / 72  # the height of a line at an angle of 45 degrees


def test_few_labels_are_as_they_are():
    figure, axis = plots.plt.subplots()
    plots.mark(axis, [1, 2, 5, 10, 25, 60])
    labels = axis.get_xticklabels()
    plots.plt.close(figure)
    assert [label.get_text() for label in labels] == ["1", "2", "5", "10", "25", "60"]
    assert {label.get_rotation() for label in labels} == {0.0}


@pytest.mark.parametrize("count", [1, 7, 8, 20])
def test_colours_differ(count):
    found = plots.colours(count)
    assert len(set(found[:count])) == count


@pytest.mark.parametrize("lines", [6, 7])
def test_a_long_legend_covers_nothing(lines):
    figure, axis = plots.plt.subplots(figsize=(4, 3), layout="constrained")
    for i in range(lines):
        axis.plot([0, 1], [i, i], label=f"width factor {i}")
    plots.legend(figure, axis)
    figure.draw_without_rendering()
    beside = [legend.get_window_extent() for legend in figure.legends]
    drawn = axis.get_window_extent()
    plots.plt.close(figure)
    assert (axis.get_legend() is None) == (lines > 6)
    assert len(beside) == (lines > 6)
    assert all(box.x0 > drawn.x1 for box in beside)
