"""The look that all figures share."""

from relic.figures import (
    LOOKS,
    MOST_LINES,
    draw_line,
    episodes_axis,
    legend_above,
    lower_edge,
    ordered_looks,
    panel,
    panels,
    save_figure,
    score_axis,
    steps_axis,
)


def drawn():
    figure, axes = panel()
    for look in LOOKS:
        draw_line(axes, [0, 1, 2], [0.1, 0.2, 0.4], look, label=look.marker)
    return figure, axes


def test_lines_differ_in_more_than_their_colour():
    assert MOST_LINES == 5
    for attribute in ("colour", "line", "marker"):
        assert len({getattr(look, attribute) for look in LOOKS}) == MOST_LINES
    shades = [sum(look.colour[:3]) for look in ordered_looks(5)]
    assert shades == sorted(shades)  # from dark to light


def test_shares_are_in_per_cent_from_zero_on():
    figure, axes = drawn()
    score_axis(axes, "success")
    figure.canvas.draw()
    assert axes.get_ylim()[0] == 0
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert "20 %" in labels
    assert all(label.endswith(" %") for label in labels)


def test_other_measures_keep_their_numbers():
    figure, axes = drawn()
    score_axis(axes, "goal_location_error")
    figure.canvas.draw()
    assert axes.get_ylabel() == "goal location error (m)"
    assert not any("%" in label.get_text() for label in axes.get_yticklabels())


def test_axes_say_what_they_count():
    figure, axes = panel()
    axes.plot([0, 2_000_000], [0, 1])
    steps_axis(axes)
    figure.canvas.draw()
    assert "1\N{NARROW NO-BREAK SPACE}M" in [t.get_text() for t in axes.get_xticklabels()]
    figure, axes = drawn()
    episodes_axis(axes)
    figure.canvas.draw()
    assert all("." not in label.get_text() for label in axes.get_xticklabels())


def test_a_figure_drawn_again_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_figure(drawn()[0], tmp_path / f"{name}.png")
    for kind in ("png", "pdf"):
        one, other = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("a", "b"))
        assert one == other
        assert len(one) > 1000
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pdf", ".pdf", ".png", ".png"]


def test_the_lowest_panel_of_each_column_has_numbers():
    figure, grid = panels(2, 3, width=6, height=4, sharex=True)
    for axes in grid.flat:
        axes.plot([0, 1], [0, 1])
    lowest = lower_edge(grid, 4)
    figure.canvas.draw()
    assert {*lowest} == {grid[0, 1], grid[0, 2], grid[1, 0]}
    for axes in grid.flat[:4]:
        shown = any(t.label1.get_visible() for t in axes.xaxis.get_major_ticks())
        assert shown == (axes in lowest)
    assert not any(axes.get_visible() for axes in grid.flat[4:])


def test_a_legend_of_long_names_stays_in_the_figure():
    figure, axes = panel()
    for look in LOOKS:
        draw_line(axes, [0, 1], [0, 1], look, label="runs/partial_houses/4096_no_shuffle")
    legend_above(figure, axes)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0
    assert box.x1 <= figure.bbox.x1
