"""EmlFolder: stores each mail as a file of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from guerrilla import Envelope, Outcome, Processor, Unavailable


class EmlFolder(Processor):
    """Stores each mail as a file of its own, named for its id, all recipients in one copy.

    A mail that is tried again has the same id, so it replaces its own file.
    """

    stores: ClassVar[bool] = True  # what it has passed on is on the disk
    atomic: ClassVar[bool] = False  # when it raises, some files may be there

    class Options(Processor.Options):
        """Keys of `backend_config`: named for the processor, so that none is another's too."""

        eml_folder: str
        """The folder, made if it is missing."""
        eml_mode: int = Field(0o600, ge=0, le=0o777)
        """The mode of a file."""

        @field_validator("eml_folder")
        @classmethod
        def _named(cls, folder: str) -> str:
            if not folder:
                raise ValueError("expected the path of a folder, got ''")
            return folder

    def __init__(self, options: Options) -> None:
        """Keeps the options; nothing is opened before `open`."""
        super().__init__(options)
        self._options = options
        self._folder = -1

    def open(self) -> None:
        """Makes the folder. What it raises stops the start, with this processor's name."""
        path = self._options.eml_folder
        os.makedirs(path, mode=0o700, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"eml_folder: {path}: nobody may write there as this user")
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Closes the folder."""
        os.close(self._folder)

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Writes a batch; 250 follows, so everything has to be on the disk before it returns.

        Raises:
            Unavailable: the disk is full, or the folder cannot be written: `451`, the senders try
                again.
        """
        try:
            for envelope in envelopes:
                self._write(envelope)
            os.fsync(self._folder)  # once for all names of the batch
        except OSError as error:
            raise Unavailable(f"{self._options.eml_folder}: {error.strerror}") from error
        return [None] * len(envelopes)

    def _write(self, envelope: Envelope) -> None:
        """Under another name first: who looks into the folder never sees half a mail."""
        name = f"{envelope.queued_id}.eml"
        unfinished = f".{name}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(unfinished, flags, self._options.eml_mode, dir_fd=self._folder)
        try:
            with open(file, "wb") as out:
                # Added headers, the delivery header of no single recipient, the message.
                out.write(bytes(envelope))
                out.flush()
                os.fsync(file)
            os.rename(unfinished, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            os.unlink(unfinished, dir_fd=self._folder)
            raise
