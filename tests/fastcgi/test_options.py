"""The options of the FastCGI stage, and what does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from guerrilla.engine.chain import read_options
from guerrilla.errors import ConfigError, StartError
from guerrilla.processors.fastcgi import PATH_LIMIT, FastCGI
from tests.fastcgi.helpers import SAVE, opened
from tests.services.phpfpm import PhpFpm


def test_the_options_of_go_guerrilla_are_taken() -> None:
    taken = FastCGI.Options.model_validate(
        {
            "fcgi_script_filename_save": "/srv/save.php",
            "fcgi_script_filename_validate": "/srv/validate.php",
            "fcgi_connection_type": "unix",
            "fcgi_connection_address": "/run/php/php-fpm.sock",
        }
    )
    assert (taken.fcgi_timeout, taken.fcgi_repeat) == (10, False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fcgi_connection_address", None, "this key is required"),
        ("fcgi_connection_address", "", "expected the path of a unix socket"),
        ("fcgi_connection_address", "/" + "x" * PATH_LIMIT, "of 1 to 107 octets"),
        ("fcgi_connection_address", 9000, "valid string"),
        ("fcgi_connection_type", "udp", "expected one of unix, tcp, got 'udp'"),
        ("fcgi_connection_type", 1, "expected one of unix, tcp, got 1"),
        ("fcgi_script_filename_save", "save.php", "expected an absolute path, got 'save.php'"),
        ("fcgi_script_filename_validate", "../v.php", "expected an absolute path"),
        ("fcgi_timeout", 0, "expected a duration over 0, got 0"),
        ("fcgi_timeout", "soon", "expected a duration"),
        ("fcgi_timeout", -1, "expected a duration"),
        ("fcgi_repeat", "yes", "expected true or false, got 'yes'"),
    ],
)
def test_options_that_cannot_be_name_their_key(key: str, value: object, message: str) -> None:
    keys = {"fcgi_connection_address": "/run/fpm.sock", key: value}
    keys = {name: given for name, given in keys.items() if given is not None}
    with pytest.raises(ConfigError) as error:
        read_options("FastCGI", FastCGI, keys)
    assert str(error.value).startswith(f"backend_config.{key}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "address", ["", "9000", ":9000", "host:", "host:0", "host:65536", "host:x", "::1:9000", "/a"]
)
def test_an_address_without_a_port_is_refused(address: str) -> None:
    keys = {"fcgi_connection_type": "tcp", "fcgi_connection_address": address}
    with pytest.raises(ConfigError, match="expected host:port"):
        read_options("FastCGI", FastCGI, keys)


def test_addresses_are_taken() -> None:
    for address in ("127.0.0.1:9000", "php.example:9000", "[::1]:9000"):
        keys = {"fcgi_connection_type": "TCP", "fcgi_connection_address": address}
        options = read_options("FastCGI", FastCGI, keys)
        assert options.model_dump()["fcgi_connection_type"] == "tcp"
        assert options.model_dump()["fcgi_connection_address"] == address


def test_a_server_that_is_away_stops_the_start(tmp_path: Path) -> None:
    address = str(tmp_path / "no.sock")
    stage = FastCGI(
        FastCGI.Options(fcgi_script_filename_save=SAVE, fcgi_connection_address=address)
    )
    with pytest.raises(StartError) as error:
        stage.open()
    assert str(error.value) == (
        f"backend_config.fcgi_connection_address: {address}: cannot connect: "
        "No such file or directory"
    )
    stage.close()


def test_a_stage_without_any_script_does_not_start(unix_php: PhpFpm) -> None:
    with pytest.raises(ConfigError, match="expected the path of a script in one of them"):
        opened(unix_php, fcgi_script_filename_save="", fcgi_script_filename_validate="")
    opened(unix_php, fcgi_script_filename_save="").close()
