"""The options of HTTP, what does not start, and that no secret is ever shown."""

from __future__ import annotations

import json
import logging
from email.message import EmailMessage
from pathlib import Path

import pytest

from guerrilla.cli import main
from guerrilla.config import loads, mask_value
from guerrilla.config.diff import changes
from guerrilla.engine.chain import read_options
from guerrilla.errors import ConfigError, StartError
from guerrilla.processors.http import HTTP
from guerrilla.testing import make_envelope
from guerrilla.webhook.client import Target
from tests.daemons import Until
from tests.services.webhook import OK, Scripted, answer
from tests.webhook.helpers import a_mail, codes, opened, post, told

SECRETS = ("hidden-password", "hidden-secret", "hidden-other", "hidden-key", "hidden-token")
KEYS = {
    "http_secret": ["hidden-secret", "hidden-other"],
    "http_headers": {"Authorization": "Bearer hidden-key", "X-Api-Key": "hidden-key"},
}


def secret_url(server: Scripted) -> str:
    """With a password, and a token in its query."""
    return server.url.replace("//", "//user:hidden-password@") + "?token=hidden-token"


def test_what_is_taken() -> None:
    taken = HTTP.Options.model_validate(
        {
            "http_url": "HTTPS://user@example.com:8443/a?b=c",
            "http_format": "RAW",
            "http_secret": "one",
            "http_client_error": 550,
            "http_json_size": "1 MiB",
        }
    )
    assert (taken.http_format, taken.http_secret) == ("raw", ("one",))
    assert (taken.http_client_error, taken.http_json_size) == ("550", 1 << 20)
    assert HTTP.Options(http_url="http://[::1]/").http_secret == ()
    nothing: tuple[object, ...] = ("", [], None)
    for empty in nothing:
        keys = {"http_url": "http://a", "http_secret": empty}
        assert HTTP.Options.model_validate(keys).http_secret == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("http_url", None, "this key is required"),
        ("http_url", "", "expected a URL such as"),
        ("http_url", "example.com/a", "expected a URL such as"),
        ("http_url", "ftp://example.com", "expected a URL such as"),
        ("http_url", "http:///a", "expected a URL such as"),
        ("http_url", "http://a:0", "expected a URL such as"),
        ("http_url", "http://a:99999", "expected a URL such as"),
        ("http_url", "http://[::1", "expected a URL such as"),
        ("http_url", "http://a/b c", "expected a URL such as"),
        ("http_url", "http://a/\r\nX: y", "expected a URL such as"),
        ("http_url", "http://a/#b", "expected a URL such as"),
        ("http_format", "xml", "expected one of json, raw, got 'xml'"),
        ("http_batch", True, "expected one of single, batch"),
        ("http_secret", 1, "expected a text, or a list of texts"),
        ("http_secret", ["a", ""], "expected secrets that are not empty"),
        ("http_headers", "A: b", "expected a table of header fields"),
        ("http_headers", {"A b": "c"}, "expected names of header fields, got 'A b'"),
        ("http_headers", {"A": "b\r\nC: d"}, "expected a line of printable ASCII for A"),
        ("http_headers", {"A": " b"}, "expected a line of printable ASCII for A"),
        ("http_headers", {"A": 1}, "expected a line of printable ASCII for A"),
        ("http_headers", {"Content-Length": "1"}, "that HTTP does not set itself"),
        ("http_headers", {"x-guerrilla-id": "1"}, "that HTTP does not set itself"),
        ("http_timeout", 0, "expected a duration over 0, got 0"),
        ("http_concurrency", 0, "expected an integer of at least 1, got 0"),
        ("http_client_error", "4xx", "expected one of 451, 550, got '4xx'"),
        ("http_client_error", True, "expected one of 451, 550"),
        ("http_repeat", "yes", "expected true or false, got 'yes'"),
        ("http_verify", 0, "expected true or false, got 0"),
        ("http_json_raw", "no", "expected one of never, truncated, always"),
        ("http_json_size", "-1", "expected a size that is not negative"),
    ],
)
def test_options_that_cannot_be_name_their_key(key: str, value: object, message: str) -> None:
    keys = {"http_url": "http://example.com", key: value}
    keys = {name: given for name, given in keys.items() if given is not None}
    with pytest.raises(ConfigError) as error:
        read_options("HTTP", HTTP, keys)
    assert str(error.value).startswith(f"backend_config.{key}: ")
    assert message in str(error.value)


def test_raw_takes_no_batch() -> None:
    keys = {"http_url": "http://a", "http_format": "raw", "http_batch": "batch"}
    with pytest.raises(ConfigError, match=r"http_batch: expected 'single' with http_format 'raw'"):
        read_options("HTTP", HTTP, keys)


def test_a_file_of_authorities_that_is_none_stops_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path in (tmp_path / "none.pem", empty):
        with (
            pytest.raises(ConfigError, match=rf"^backend_config.http_ca_file: {path}: "),
            opened("https://127.0.0.1:9/", http_ca_file=str(path)),
        ):
            pass


def test_httpx_that_is_not_installed_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "guerrilla.webhook.client", None)
    with pytest.raises(ConfigError, match=r"install guerrilla\[http\]"), opened("http://a"):
        pass


# --- Secrets -------------------------------------------------------------------------------------


def shown_nowhere(text: str) -> None:
    assert [secret for secret in SECRETS if secret in text] == []


def test_a_bad_value_is_not_repeated() -> None:
    bad = {
        "http_url": "http://user:hidden-password@a b/?token=hidden-token",
        "http_secret": ["hidden-secret", 1],
        "http_headers": {"Authorization": "hidden-key\n"},
    }
    with pytest.raises(ConfigError) as error:
        read_options("HTTP", HTTP, bad)
    assert len(error.value.problems) == 3
    shown_nowhere(str(error.value))


def test_check_shows_no_secret(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    until: Until,
) -> None:
    monkeypatch.chdir(tmp_path)
    with Scripted(OK) as server:
        text = f"""
            [backend_config]
            save_process = "HTTP"
            http_url = "{secret_url(server)}"
            http_secret = {json.dumps(KEYS["http_secret"])}
            [backend_config.http_headers]
            Authorization = "Bearer hidden-key"
            X-Api-Key = "hidden-key"
        """
        Path("guerrilla.toml").write_text(text, encoding="utf-8")
        assert main(["check", "--connect"]) == 0
        until(lambda: server.connections == 1)  # The kernel takes it before the server does.
    assert server.requests == []
    said = capsys.readouterr()
    shown_nowhere(said.out + said.err)
    shown = loads(said.out, format="toml").backend_config.options
    assert shown["http_headers"] == {"Authorization": "***", "X-Api-Key": "***"}
    assert shown["http_secret"] == "***"
    assert shown["http_url"] == f"{server.origin.replace('//', '//user:***@')}/***"

    before = loads(text, format="toml")
    after = loads(text.replace("hidden-", "hidden-new-"), format="toml")
    found = " ".join(map(str, changes(before, after))) + repr(after)
    assert "http_secret" in found
    assert "hidden" not in found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.com/services/T0/hidden-key", "https://hooks.example.com/***"),
        ("https://example.com?sig=hidden-key#hidden-key", "https://example.com/***"),
        ("HTTPS://hidden-key@example.com/", "HTTPS://***@example.com/"),
        ("https://user:hidden-password@example.com", "https://user:***@example.com"),
        ("example.com/hidden-key", "example.com/***"),
        ("https://[::1]:8080/", "https://[::1]:8080/"),
    ],
)
def test_of_a_url_the_host_is_shown(url: str, shown: str) -> None:
    assert mask_value("backend_config.http_url", url) == shown


def test_no_log_and_no_repr_has_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Scripted(OK) as server:
        url = secret_url(server)
        assert codes(post(url, a_mail(), **KEYS)) == [250]
        options = HTTP.Options.model_validate({"http_url": url, **KEYS})
        target = Target(url, 1, options.http_headers, options.http_secret)
        shown_nowhere(repr(options) + str(options) + repr(target))
        assert server.requests[0].headers["X-Api-Key"] == "hidden-key"
    for said in (answer(500), answer(404), b"x\r\n\r\n", answer(302)):
        with Scripted(said) as ill:
            assert codes(post(secret_url(ill), a_mail(), **KEYS)) == [451]
    away = Scripted(OK)
    with away, opened(secret_url(away), **KEYS) as chain:
        away.stop()
        assert told(chain, a_mail()) == 451
    with pytest.raises(StartError) as error, opened(secret_url(away), **KEYS):
        pass
    shown_nowhere(caplog.text + str(error.value))
    assert "answered 451" in caplog.text


@pytest.mark.parametrize(
    ("keys", "is_cut"),
    [
        ({}, False),
        ({"http_json_parts": 2}, True),
        ({"http_json_depth": 1}, True),
        ({"http_json_size": 3}, True),
    ],
)
def test_bounds_of_json_are_those_of_the_config(keys: dict[str, int], is_cut: bool) -> None:
    message = EmailMessage()
    message.set_content("four")
    message.add_alternative("<p>four", "html")
    message.add_attachment(b"five5", "application", "octet-stream", filename="a.bin")
    with Scripted(OK) as server:
        assert codes(post(server.url, make_envelope(message), **keys)) == [250]
    (request,) = server.requests
    assert request.json()["truncated"] is is_cut
