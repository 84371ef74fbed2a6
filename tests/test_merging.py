"""Figures of several processes as those of one, whatever a child says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from guerrilla.config import AppConfig
from guerrilla.processes.channel import ChannelError
from guerrilla.processes.merging import merge_stats, number, status


def stage(**keys: Any) -> dict[str, Any]:
    place = {"backend": "default", "task": "save", "stage": "SQL"}
    return {**place, "count": 1, "errors": 0, "calls": 1, "seconds": 0.5, **keys}


def test_counters_are_added_and_ages_are_not() -> None:
    one = {"messages_received": 3, "queue_age_ms": 70, "breaker_open": 1, "spool_age_ms": 9}
    other = {"messages_received": 4, "queue_age_ms": 40, "breaker_open": 1, "timeouts": 2}
    assert merge_stats([one, other]) == {
        "messages_received": 7,
        "queue_age_ms": 70,
        "breaker_open": 1,
        "spool_age_ms": 9,
        "timeouts": 2,
        "backends": {},
        "stages": [],
    }


def test_backends_and_stages_are_added_each() -> None:
    one = {
        "backends": {"default": {"save_workers": 2}, "archive": {"queue_age_ms": 5}},
        "stages": [stage(buckets={"1": 1, "+Inf": 1}), stage(stage="Hasher")],
    }
    other = {
        "backends": {"default": {"save_workers": 3}},
        "stages": [stage(count=4, seconds=1.5, buckets={"1": 0, "+Inf": 1})],
    }
    found = merge_stats([one, other])
    assert found["backends"] == {"default": {"save_workers": 5}, "archive": {"queue_age_ms": 5}}
    assert found["stages"] == [
        stage(count=5, calls=2, seconds=2.0, buckets={"1": 1, "+Inf": 2}),
        stage(stage="Hasher", buckets={}),
    ]


@pytest.mark.parametrize(
    "told",
    [
        None,
        7,
        [],
        {"backends": 3, "stages": {"a": 1}},
        {"backends": {"a": 3}, "stages": [3, {}, {"stage": "SQL"}, stage(task=None)]},
        {"stages": 7, "clients": {}},
        {"Bad name": 1, "": 2, "x" * 65: 3, "a\n": 4, "flag": True, "text": "7", "list": [1]},
        ValueError("no answer"),
    ],
)
def test_what_is_no_figure_counts_for_nothing(told: object) -> None:
    found = merge_stats([told, {"messages_received": 1}])
    assert found.pop("backends") in ({}, {"a": {}})
    assert found == {"messages_received": 1, "stages": []}


@pytest.mark.parametrize(
    "value", [True, None, "1", -1, 2**63, 10**400, float("nan"), float("inf"), [1], -0.5]
)
def test_what_is_no_number(value: object) -> None:
    assert number(value) == 0
    assert merge_stats([{"a": 1}, {"a": value}])["a"] == 1


def test_a_child_cannot_fill_the_memory() -> None:
    many = {f"a{index}": 1 for index in range(5_000)}
    stages = [stage(stage=f"s{index}" * 100, buckets=many) for index in range(3)]
    found = merge_stats([{**many, "stages": stages}, {"backends": dict.fromkeys(many, many)}])
    assert len(found) <= 1_003
    assert [len(one["stage"]) for one in found["stages"]] == [200] * 3
    assert all(len(one["buckets"]) <= 1_000 for one in found["stages"])
    assert len(found["backends"]) <= 1_000


@pytest.mark.parametrize("buckets", [5, 5.0, "5", None, [5], True, {"1": {}}])
def test_steps_that_are_none_leave_those_of_others(buckets: object) -> None:
    good = stage(buckets={"1": 2})
    for rows in ([stage(buckets=buckets), good], [good, stage(buckets=buckets)]):
        (found,) = merge_stats([{"stages": rows[:1]}, {"stages": rows[1:]}])["stages"]
        assert found["count"] == 2
        assert found["buckets"]["1"] == 2


def test_names_can_be_printed() -> None:
    evil = "a\x1b[2J\n\u202e\ud800"
    shown = "a\\x1b[2J\\n\\u202e\\ud800"
    one = {
        "backends": {evil: {"save_workers": 1}},
        "stages": [stage(stage=evil, buckets={evil: 1})],
    }
    found = merge_stats([one])
    assert list(found["backends"]) == [shown]
    (row,) = found["stages"]
    assert (row["stage"], list(row["buckets"])) == (shown, [shown])


@pytest.mark.parametrize(
    ("answers", "warnings"),
    [
        ({}, ["as it began"]),
        ({0: ChannelError("late"), 1: 7}, ["as it began"]),
        ({0: {"warnings": ["a", "b"]}, 1: {"warnings": ["b"]}}, ["process 0: a", "b"]),
        ({0: {"warnings": ["a\x1b", 7]}, 1: ChannelError("late")}, ["a\\x1b"]),
        ({0: {"warnings": []}, 1: {}}, []),
    ],
)
def test_warnings_are_those_that_all_have_now(
    answers: dict[int, object], warnings: list[str]
) -> None:
    parent: Any = SimpleNamespace(
        config=AppConfig.default(),
        warnings=lambda: ["as it began"],
        addresses_of=lambda _: [],
        began=0.0,
        reloads=SimpleNamespace(count=0, failures=0),
        memory=None,
        own=SimpleNamespace(logs=None),
        children=[],
    )
    assert status(parent, answers)["warnings"] == warnings
