import pytest

from sia.run.selection import selected_on, selecting_recalls, selection_keys, selection_value


def measured(split, *recalls):
    return dict(zip(selection_keys(split), recalls, strict=True))


def test_a_row_is_selected_by_the_split_it_was_measured_on_validation_first():
    for split in ("test", "validation"):
        row = {"epoch": 3, "train/loss": 0.5, **measured("test", 1.0, 1.0), **measured(split, 0.5, 0.25)}
        assert (selected_on(row), selecting_recalls(row), selection_value(row)) == (split, (0.5, 0.25), 0.375)
    with pytest.raises(ValueError, match="R@10 on validation or test"):
        selection_value(measured("train", 0.5, 0.25))
