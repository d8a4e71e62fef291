"""Which topics a caller may name, and what is made of that."""

import pickle
from types import MappingProxyType
from typing import Any

import pytest

import jobq
from jobq.errors import InvalidValue
from jobq.shares import MOST_NAMED, Mix, Pattern, mix_of


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("mail.*", "mail.a", True),
        ("mail.*", "mail.", True),
        ("mail.*", "mail.a.b\nc", True),
        ("mail.*", "mailxa", False),
        ("mail.*", "x.mail.a", False),
        ("mail", "mail", True),
        ("mail", "mail2", False),
        ("MAIL", "mail", False),
        ("?", "é", True),
        ("?", "ab", False),
        ("[ab]-[!0-9]", "b-x", True),
        ("[ab]-[!0-9]", "b-7", False),
        ("[*]", "*", True),
        ("[*]", "a", False),
        ("[", "[", True),
        ("*", "a\x00b", True),
    ],
)
def test_a_pattern_stands_for_the_whole_of_a_name(glob: str, name: str, matches: bool) -> None:
    assert Pattern(glob).matches(name) is matches


def test_patterns_are_values() -> None:
    pattern = jobq.Pattern("mail.*")

    assert pattern == Pattern("mail.*") != Pattern("mail.?")
    assert {pattern: 1}[Pattern("mail.*")] == 1
    assert pickle.loads(pickle.dumps(pattern)).matches("mail.x")
    assert repr(pattern) == "Pattern(glob='mail.*')"
    with pytest.raises(AttributeError):
        pattern.glob = "x"  # type: ignore[misc]


@pytest.mark.parametrize("glob", ["", "x" * 256, 7, None, b"x", "\ud800"])
def test_a_wrong_pattern_is_refused_as_it_is_made(glob: Any) -> None:
    with pytest.raises(InvalidValue, match="a pattern is"):
        Pattern(glob)


def test_a_long_pattern_of_stars_is_decided_at_once() -> None:
    assert not Pattern("*a" * 100).matches("a" * 99 + "b" * 156)


def test_one_topic_is_one_topic_however_it_is_named() -> None:
    for given in ("mail", ["mail"], ("mail",), {"mail": 0.5}):
        for strict in (False, True):
            assert mix_of(given, strict=strict) == "mail"


def test_the_same_topics_in_the_same_shares_are_the_same_mix() -> None:
    assert mix_of(["a", "b"]) == mix_of({"a": 1, "b": 1.0}) == mix_of(("a", "b"))
    assert mix_of(["a", "b"]) != mix_of(["b", "a"])
    assert mix_of(["a", "b"], strict=True) != mix_of(["a", "b"])
    assert mix_of({"a": 5, "b": 1}, strict=True) == mix_of(["a", "b"], strict=True)
    assert mix_of(Pattern("*")) == mix_of({Pattern("*"): 7}) == mix_of([Pattern("*")], strict=True)
    assert mix_of(MappingProxyType({"a": 2, "b": 1})) == Mix((("a", 2.0), ("b", 1.0)))


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ([], "topics is empty"),
        ({}, "topics is empty"),
        (["a", "a"], "topics names 'a' twice"),
        ([Pattern("a*"), Pattern("a*")], "twice"),
        (None, "topics is None: expected a topic, a jobq.Pattern, a list"),
        (7, "topics is 7"),
        ({"a", "b"}, "expected a topic, a jobq.Pattern, a list"),
        ("", "topic is ''"),
        ([""], "topic is ''"),
        ([7], "topic is 7"),
        ([["a"]], r"topic is \['a'\]"),
        (["a", "x" * 256], "256 bytes"),
        ({"a": 0, "b": 1}, "the share of topic 'a' is 0: expected a number from 0.01 to 1000"),
        ({"a": 1, "b": 1001}, "the share of topic 'b' is 1001"),
        ({"a": 0.009, "b": 1}, "0.009"),
        ({"a": float("nan"), "b": 1}, "nan"),
        ({"a": float("inf"), "b": 1}, "inf"),
        ({"a": True, "b": 1}, "True"),
        ({"a": "5", "b": 1}, "'5'"),
        ({"a": None, "b": 1}, "None"),
        ({"a": 10**400, "b": 1}, "the share of topic 'a'"),
        ([f"t{number}" for number in range(MOST_NAMED + 1)], "names 1001: expected at most 1000"),
    ],
)
def test_what_is_no_choice_of_topics_is_refused(topics: Any, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        mix_of(topics)


def test_strict_is_true_or_false() -> None:
    for strict in (1, None, "yes"):
        with pytest.raises(InvalidValue, match="strict is"):
            mix_of("mail", strict=strict)


def test_a_mix_is_shown_by_its_names() -> None:
    assert str(mix_of(["mail", Pattern("import.*")])) == "mail, import.*"
    assert str(mix_of([str(number) for number in range(9)])) == "0, 1, 2, 3, 4, …"
