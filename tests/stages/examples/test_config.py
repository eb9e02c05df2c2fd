"""The examples config: only the knobs of what is asked, in sentences that help."""

import pytest
from pydantic import ValidationError

from stages.examples import KNOBS, STAGE, Config
from stages.stage import role_of


@pytest.mark.parametrize("what", sorted(KNOBS))
def test_defaults_are_valid(what):
    assert Config(what=what).what == what


@pytest.mark.parametrize(
    ("what", "knobs", "message"),
    [
        ("crawl", {"sharpness": 2.0}, "'crawl' do not take sharpness; they take chinese_share"),
        ("problems", {"pages": 100}, "do not take pages"),
        ("conversations", {"sharpness": 2.0, "pages": 90}, "do not take pages, sharpness"),
        ("preferences", {"requested_share": 0.4}, "do not take requested_share"),
        ("conversations", {"mixture": {"facts": 0.0}}, "shares of 0 or more, not all 0"),
        ("poems", {}, "'crawl', 'problems', 'conversations' or 'preferences'"),
        ("crawl", {"page": 100}, "Extra inputs"),
    ],
)
def test_foreign_or_senseless_knobs_are_refused(what, knobs, message):
    with pytest.raises(ValidationError, match=message):
        Config(what=what, **knobs)


def test_problems_are_a_parent():
    assert role_of(Config, "problems") == "parent" and role_of(Config, "count") == "identity"
    assert STAGE.kind == "examples" and STAGE.config is Config
