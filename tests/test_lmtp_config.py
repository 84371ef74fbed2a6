"""What a config of LMTP says and hardly means."""

from __future__ import annotations

from typing import Any

import pytest

from guerrilla.config import from_mapping
from tests.configs import server


def warnings(**keys: Any) -> list[str]:
    place = {"listen_interface": "127.0.0.1:24"}
    found = from_mapping(server(protocol="lmtp", **{**place, **keys})).warnings()
    return [line.partition(";")[0] for line in found if "LMTP" in line or "lmtp" in line]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"listen_interface": "127.0.0.1:25"},
            (
                "servers[0].protocol: lmtp must not be spoken on port 25, where senders expect "
                "smtp (RFC 2033 section 5)"
            ),
        ),
        (
            {"extensions": {"pipelining": False, "DSN": False}},
            "servers[0].extensions: LMTP needs PIPELINING (RFC 2033 section 5)",
        ),
        (
            {"extensions": {"ENHANCEDSTATUSCODES": False, "PIPELINING": False}},
            (
                "servers[0].extensions: LMTP needs PIPELINING and ENHANCEDSTATUSCODES "
                "(RFC 2033 section 5)"
            ),
        ),
    ],
)
def test_what_lmtp_needs_is_warned_of(keys: dict[str, Any], told: str) -> None:
    assert warnings(**keys) == [told]


@pytest.mark.parametrize("where", ["127.0.0.1:24", "unix:/run/lmtp"])
def test_lmtp_as_it_should_be_has_no_warning(where: str) -> None:
    assert warnings(listen_interface=where) == []
    smtp = server(listen_interface="127.0.0.1:25", extensions={"PIPELINING": False})
    assert [line for line in from_mapping(smtp).warnings() if "LMTP" in line] == []
