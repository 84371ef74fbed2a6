"""The processor in a chain, without a socket, by `guerrilla.testing`."""

from __future__ import annotations

from pathlib import Path

import pytest

from guerrilla import ConfigError, StartError
from guerrilla.testing import make_envelope, run_chain

CHAIN = "HeadersParser|Header|EmlFolder"


def test_a_mail_becomes_a_file(tmp_path: Path) -> None:
    """Whole, before it is answered, in one copy that names no recipient."""
    message = b"Subject: hello\r\n\r\nbody\r\n"
    envelope = make_envelope(message, rcpt_to=["a@example.com", "hidden@example.com"])
    [reply] = run_chain(CHAIN, envelope, options={"eml_folder": str(tmp_path / "mails")})
    assert reply.code == 250
    [file] = (tmp_path / "mails").iterdir()
    assert file.name == f"{envelope.queued_id}.eml"
    assert file.stat().st_mode & 0o777 == 0o600
    stored = file.read_bytes()
    assert stored.startswith(b"Received: ")
    assert stored.endswith(b"\r\n" + message)
    assert b"hidden@example.com" not in stored


def test_a_batch_is_stored_whole(tmp_path: Path) -> None:
    """Each mail has a file."""
    envelopes = [make_envelope(b"Subject: %d\r\n\r\n" % number) for number in range(20)]
    replies = run_chain(CHAIN, envelopes, options={"eml_folder": str(tmp_path)})
    assert [reply.code for reply in replies] == [250] * 20
    assert {file.stem for file in tmp_path.iterdir()} == {one.queued_id for one in envelopes}


def test_a_folder_that_cannot_be_written_is_a_451(tmp_path: Path) -> None:
    """Here the name of the file is taken by a folder, which root cannot write over either."""
    envelope = make_envelope(b"Subject: a\r\n\r\n")
    (tmp_path / f"{envelope.queued_id}.eml").mkdir()
    [reply] = run_chain(CHAIN, envelope, options={"eml_folder": str(tmp_path)})
    assert (reply.code, reply.enhanced) == (451, "4.3.0")
    assert [file.name for file in tmp_path.iterdir()] == [f"{envelope.queued_id}.eml"]


def test_wrong_options_are_named() -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=r"backend_config\.eml_folder: this key is required"):
        run_chain(CHAIN, [], options={})
    with pytest.raises(ConfigError, match=r"backend_config\.eml_mode: .*512"):
        run_chain(CHAIN, [], options={"eml_folder": "mails", "eml_mode": 512})


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "mails").touch()
    with pytest.raises(StartError, match="EmlFolder: FileExistsError"):
        run_chain(CHAIN, [], options={"eml_folder": str(tmp_path / "mails")})
