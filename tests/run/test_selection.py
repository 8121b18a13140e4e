import pytest

from sia.run.selection import selected_on, selecting_recalls, selection_keys, selection_value

ROW = {"stage": 1, "epoch": 3, "train/loss": 0.5, "train/seconds": 2.0}


def measured(split, speech_to_image=0.5, image_to_speech=0.25):
    return dict(zip(selection_keys(split), (speech_to_image, image_to_speech), strict=True))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_row_is_selected_by_the_split_it_was_measured_on(split):
    row = {**ROW, **measured(split)}
    assert (selected_on(row), selecting_recalls(row), selection_value(row)) == (split, (0.5, 0.25), 0.375)


def test_validation_goes_before_test():
    row = {**ROW, **measured("test", 1.0, 1.0), **measured("validation")}
    assert (selected_on(row), selection_value(row)) == ("validation", 0.375)


def test_a_row_without_either_is_refused():
    with pytest.raises(ValueError, match="R@10 on validation or test"):
        selection_value({**ROW, **measured("train")})
