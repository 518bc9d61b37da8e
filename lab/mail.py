"""Sends a mail through an SMTP server."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.errors import ConfigError, InfraError

TIMEOUT_S = 30.0


class RefusedError(InfraError):
    """The server will never take this mail: trying again does not help."""


@dataclass(frozen=True, kw_only=True)
class SmtpServer:
    """Where mails go. The password is read from `password_file` each time, and told nobody."""

    server: str
    port: int = 25
    tls: Literal["no", "starttls", "yes"] = "no"
    user: str = ""
    password_file: Path | None = None

    def send(self, text: str, *, sender: str, recipient: str) -> None:
        """Send a whole mail (headers and all, line feeds) to one address.

        `RefusedError` when the server refuses this mail, `InfraError` when it may take it another time.
        """
        try:
            with self._connection() as connection:
                data = text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
                options = ["SMTPUTF8"] if not (sender + recipient).isascii() else []
                if not data.isascii():
                    options.append("BODY=8BITMIME")
                connection.sendmail(sender, [recipient], data, mail_options=options)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise _refusal(code, said) from error
        except smtplib.SMTPResponseException as error:
            raise _refusal(error.smtp_code, error.smtp_error) from error
        except (smtplib.SMTPException, OSError) as error:
            raise InfraError(f"the mail server {self.server}:{self.port} does not answer: {error}") from error

    def _connection(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        connection: smtplib.SMTP
        if self.tls == "yes":
            connection = smtplib.SMTP_SSL(self.server, self.port, timeout=TIMEOUT_S, context=context)
        else:
            connection = smtplib.SMTP(self.server, self.port, timeout=TIMEOUT_S)
            if self.tls == "starttls":
                connection.starttls(context=context)
        if self.user:
            connection.login(self.user, self._password())
        return connection

    def _password(self) -> str:
        if self.password_file is None:
            raise ConfigError("[mail] names a user and no password_file", hint="name the file that holds the password")
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"[mail] password_file {self.password_file} cannot be read: {error.strerror}") from error


def _refusal(code: int, said: bytes | str) -> InfraError:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    message = f"the mail server says {code} {text.strip()[:300]}"
    return RefusedError(message) if 500 <= code < 600 else InfraError(message)
