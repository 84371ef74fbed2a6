"""`guerrilla.testing`, as its users type it. Checked by mypy --strict, never run."""

from __future__ import annotations

from email.message import EmailMessage
from typing import assert_type

from guerrilla import Address, Envelope, Processor, Reply
from guerrilla.testing import (
    GuerrillaServer,
    Stage,
    Where,
    make_envelope,
    run_authenticate,
    run_chain,
)


class Own(Processor):
    """A stage."""


async def function(envelope: Envelope) -> Reply | None:
    return None


assert_type(make_envelope(), Envelope)
make_envelope(EmailMessage(), rcpt_to=["a@example.com", Address("b", "example.com")], helo="h")
make_envelope(7)  # type: ignore[arg-type]

stages: list[Stage] = ["Header", Own, Own(Own.Options()), function]
assert_type(run_chain(stages, [make_envelope()]), list[Reply])
run_chain("Header|SQL", make_envelope(), options={"sql_dsn": "a.db"}, save_timeout=1)
run_chain([7], make_envelope())  # type: ignore[list-item]
assert_type(run_authenticate("AuthFile", "joe", "secret", options={"auth_file": "users"}), Reply)
run_authenticate([function], "joe", "secret", authorization_identity="ann", remote_ip="::1")
run_authenticate("AuthFile", "joe", b"secret")  # type: ignore[arg-type]
GuerrillaServer(users={"joe": "secret"}, server={"auth": {"required": True}})


def test_of_a_user(guerrilla_server: GuerrillaServer) -> None:
    where: Where = "rcpt"
    guerrilla_server.refuse(Reply.retry(), at=where, count=1)
    guerrilla_server.delay(0.1, at="data")
    guerrilla_server.drop(at="connect", reset=True)
    guerrilla_server.drop(at="noop")  # type: ignore[arg-type]
    guerrilla_server.behave()
    assert_type(guerrilla_server.wait_for(1, timeout=5), list[Envelope])
    assert_type(guerrilla_server.received, list[Envelope])
    assert_type((guerrilla_server.host, guerrilla_server.port), tuple[str, int])


with GuerrillaServer(server={"max_size": 1000}, allowed_hosts=["example.com"]) as server:
    assert_type(server, GuerrillaServer)
