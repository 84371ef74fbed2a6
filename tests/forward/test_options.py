"""The options of Forward, TLS and the login."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from guerrilla._core import Reply
from guerrilla.config import mask_value
from guerrilla.engine.chain import read_options
from guerrilla.errors import ConfigError, StartError, Unavailable
from guerrilla.forward.connection import Connection
from guerrilla.forward.place import peer_of
from guerrilla.processors.forward import Forward
from guerrilla.testing import make_envelope
from tests.certificates import Authority, Pair, self_signed
from tests.forward.helpers import PIPELINED, FarSide, opened, send
from tests.wire import until

SECRET = "s3cret"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Of a server that is called 127.0.0.1, mx.example.com and more."""
    return self_signed(tmp_path_factory.mktemp("tls"))


def tls_of(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def far_side(pair: Pair, *offers: str, implicit: bool = False) -> FarSide:
    starttls = () if implicit else ("STARTTLS",)
    return FarSide(*starttls, *offers, tls=tls_of(pair), implicit=implicit)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "backend_config.forward_address: "),
        ({"forward_address": ""}, "forward_address: expected 'mail.example.com:25'"),
        ({"forward_address": "mail.example.com"}, "forward_address: expected"),
        ({"forward_address": ":25"}, "forward_address: expected"),
        ({"forward_address": "a:0"}, "forward_address: expected"),
        ({"forward_address": "::1:25"}, "forward_address: expected"),
        ({"forward_address": "unix:relative"}, "forward_address: expected"),
        ({"forward_address": 25}, "forward_address: "),
        ({"forward_protocol": "esmtp"}, "forward_protocol: expected one of smtp, lmtp"),
        ({"forward_tls": "yes"}, "forward_tls: expected one of none, opportunistic, required"),
        ({"forward_helo": "a b"}, "forward_helo: expected a host name"),
        ({"forward_tls_name": "a\nb"}, "forward_tls_name: expected a host name"),
        ({"forward_timeout": 0}, "forward_timeout: expected a duration over 0"),
        ({"forward_keep": -1}, "forward_keep: "),
        ({"forward_ignored_extensions": "DSN"}, "forward_ignored_extensions: expected a list"),
    ],
)
def test_bad_options_name_their_key(options: dict[str, object], told: str) -> None:
    default = {"forward_address": "mail.example.com:25"} if options else {}
    with pytest.raises(ConfigError) as caught:
        read_options("Forward", Forward, {**default, **options})
    (line,) = caught.value.problems
    assert told in line


@pytest.mark.parametrize(
    ("address", "tls", "good"),
    [
        ("mail.example.com:25", "opportunistic", False),
        ("192.0.2.1:25", "none", False),
        ("mail.example.com:25", "required", True),
        ("192.0.2.1:465", "implicit", True),
        ("127.0.0.2:25", "none", True),
        ("[::1]:25", "opportunistic", True),
        ("localhost:25", "none", True),
        ("unix:/run/x", "none", True),
    ],
)
def test_a_password_goes_over_no_line_that_others_read(address: str, tls: str, good: bool) -> None:
    keys = {"forward_username": "me", "forward_password": SECRET}
    values = {"forward_address": address, "forward_tls": tls, **keys}
    if good:
        read_options("Forward", Forward, values)
        return
    with pytest.raises(ConfigError, match="the password could be read on its way") as caught:
        read_options("Forward", Forward, values)
    assert SECRET not in str(caught.value)


def test_the_password_is_shown_nowhere() -> None:
    keys = {"forward_username": "me", "forward_password": SECRET}
    options = Forward.Options.model_validate({"forward_address": "127.0.0.1:25", **keys})
    assert SECRET not in repr(options)
    assert SECRET not in repr(peer_of(options))
    assert mask_value("forward_password", SECRET) == "***"


def test_a_certificate_needs_a_name() -> None:
    unix = {"forward_address": "unix:/run/x", "forward_tls": "required"}
    with pytest.raises(ConfigError, match="forward_tls_name: expected the name"), opened(unix):
        pass
    named = Forward.Options.model_validate({**unix, "forward_tls_name": "mx.example.com"})
    assert peer_of(named).name == "mx.example.com"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_is_none(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    options = {"forward_address": "127.0.0.1:1", "forward_tls": "required"}
    with (
        pytest.raises(ConfigError, match="forward_ca_file: "),
        opened(options, forward_ca_file=str(file)),
    ):
        pass


# --- TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["opportunistic", "required", "implicit"])
def test_mails_go_by_tls(mode: str, pair: Pair) -> None:
    large = make_envelope(b"x" * 3_000_000 + b"\r\n")
    with far_side(pair, *PIPELINED, implicit=mode == "implicit") as far:
        keys = {"forward_tls": mode, "forward_ca_file": str(pair.certificate)}
        replies = send(far.options, make_envelope(), large, make_envelope(), **keys)
    assert [reply.code for reply in replies] == [250] * 3
    assert [len(message) for message in far.messages][1] == 3_000_002
    assert far.connections == 1
    assert far.said.count("STARTTLS") == (mode != "implicit")


def test_it_is_told_that_it_is_encrypted(pair: Pair) -> None:
    with far_side(pair) as far, opened(far.options) as stage:
        connection = stage._kept.get()
        assert isinstance(connection, Connection)
        assert connection.tls in {"TLSv1.2", "TLSv1.3"}
    with FarSide() as far, opened(far.options) as stage:
        assert stage._kept.get().tls is None


@pytest.mark.parametrize("mode", ["required", "implicit"])
def test_a_certificate_is_checked(mode: str, pair: Pair, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").certificate
    bad = [
        {"forward_ca_file": str(other)},
        {},
        {"forward_ca_file": str(pair.certificate), "forward_tls_name": "mail.example.net"},
    ]
    with far_side(pair, implicit=mode == "implicit") as far:
        for keys in bad:
            with (
                pytest.raises(StartError, match="certificate verify failed"),
                opened(far.options, forward_tls=mode, **keys),
            ):
                pass
        keys = {"forward_ca_file": str(pair.certificate), "forward_tls_name": "mx.example.com"}
        assert send(far.options, forward_tls=mode, **keys)[0].code == 250
    assert len(far.messages) == 1


@pytest.mark.parametrize("end", ["garbage", "reset", "close"])
def test_opportunistic_takes_any_certificate_and_none(end: str) -> None:
    with FarSide("STARTTLS") as far:  # which then does no handshake
        far.handshake = end
        assert send(far.options)[0].code == 250
    assert far.connections == 2
    assert far.said.count("STARTTLS") == 1


@pytest.mark.parametrize("offer", [(), ("STARTTLS",)])
def test_required_sends_nothing_in_the_clear(offer: tuple[str, ...]) -> None:
    with FarSide(*offer) as far:
        far.will_say("STARTTLS", "454 4.7.0 not now")
        with (
            pytest.raises(StartError, match="STARTTLS"),
            opened(far.options, forward_tls="required", forward_username="me"),
        ):
            pass
    assert not [line for line in far.said if line.startswith(("AUTH", "MAIL"))]


def test_none_is_none(pair: Pair) -> None:
    with far_side(pair) as far:
        assert send(far.options, forward_tls="none")[0].code == 250
    assert "STARTTLS" not in far.said


def test_what_is_said_before_the_handshake_is_not_taken_for_what_is_said_after(pair: Pair) -> None:
    with far_side(pair) as far:
        far.will_say("STARTTLS", "220 go\r\n250 mx.evil.example.org")
        with (
            pytest.raises(StartError, match="it said more than its reply to STARTTLS"),
            opened(far.options),
        ):
            pass


def test_a_kept_connection_outlives_the_tickets_of_tls(pair: Pair) -> None:
    """They come after the handshake and look like something to read."""
    with far_side(pair) as far, opened(far.options) as stage:
        for _ in range(3):
            assert stage.save(make_envelope()) is None
        far.hang_up()
        until(lambda: not stage._kept.get().is_usable)
        assert stage.save(make_envelope()) is None
    assert far.connections == 2


# --- The login -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", ["AUTH PLAIN", "AUTH LOGIN"])
def test_it_logs_in_within_tls(offer: str, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with far_side(pair, offer) as far:
        keys = {
            "forward_tls": "required",
            "forward_ca_file": str(pair.certificate),
            "forward_username": "me",
            "forward_password": SECRET,
        }
        assert send(far.options, **keys)[0].code == 250
    said = far.said
    assert said.index("STARTTLS") < next(i for i, line in enumerate(said) if "AUTH" in line)
    assert ("me" in said and SECRET in said) or "AUTH PLAIN AG1lAHMzY3JldA==" in said
    assert [line for line in said if line.startswith("MAIL ") and line.endswith(" AUTH=<>")]
    assert SECRET not in caplog.text


def test_a_login_that_is_refused_stops_the_start_and_bounces_nothing() -> None:
    keys = {"forward_username": "me", "forward_password": SECRET}
    with FarSide("AUTH PLAIN") as far:
        far.will_say("AUTH", "535 5.7.8 bad credentials")
        with (
            pytest.raises(ConfigError, match=r"it refused AUTH: 535 5\.7\.8 bad") as caught,
            opened(far.options, **keys),
        ):
            pass
        assert SECRET not in str(caught.value)
        far.will_say("AUTH", "454 4.7.0 not now")
        with pytest.raises(StartError, match=r"454 4\.7\.0"), opened(far.options, **keys):
            pass
        with opened(far.options, **keys) as stage:
            far.will_say("MAIL", "530 5.7.0 log in first")
            assert stage.save(make_envelope()) == Reply(451, "4.7.0", "log in first")
            far.hang_up()
            until(lambda: not stage._kept.get().is_usable)
            far.will_say("AUTH", "535 5.7.8 bad credentials")
            with pytest.raises(Unavailable, match="refused AUTH"):
                stage.save(make_envelope())
    assert far.messages == []


def test_extensions_that_are_not_to_be_seen() -> None:
    with FarSide("CHUNKING", *PIPELINED) as far:
        assert send(far.options, forward_ignored_extensions=["chunking"])[0].code == 250
    assert "DATA" in far.said
