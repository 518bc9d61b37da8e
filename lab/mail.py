"""Sends a mail through an SMTP server."""

from __future__ import annotations

import contextlib
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
        connection: smtplib.SMTP | None = None
        try:
            connection = self._connection()
            data = text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
            options = [] if (sender + recipient).isascii() else ["SMTPUTF8"]
            if not data.isascii():
                options.append("BODY=8BITMIME")
            connection.sendmail(sender, [recipient], data, mail_options=options)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise _refusal(code, said) from error
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPConnectError, smtplib.SMTPHeloError) as error:
            # it refuses us, not this mail: once that is mended, all go out
            message = f"the mail server refuses the lab: {_said(error.smtp_code, error.smtp_error)}"
            raise InfraError(message, hint="see [mail] of the lab's file") from error
        except smtplib.SMTPResponseException as error:
            raise _refusal(error.smtp_code, error.smtp_error) from error
        except (smtplib.SMTPException, OSError) as error:
            raise InfraError(f"the mail server {self.server}:{self.port} does not answer: {error}") from error
        finally:
            if connection is not None:
                with contextlib.suppress(smtplib.SMTPException, OSError):  # the mail has been taken, or it has not
                    connection.quit()
                connection.close()

    def _connection(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        connection: smtplib.SMTP
        if self.tls == "yes":
            connection = smtplib.SMTP_SSL(self.server, self.port, timeout=TIMEOUT_S, context=context)
        else:
            connection = smtplib.SMTP(self.server, self.port, timeout=TIMEOUT_S)
        try:
            if self.tls == "starttls":
                connection.starttls(context=context)
            if self.user:
                connection.login(self.user, self._password())
        except BaseException:
            connection.close()
            raise
        return connection

    def _password(self) -> str:
        if self.password_file is None:
            raise ConfigError("[mail] names a user and no password_file", hint="name the file that holds the password")
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"[mail] password_file {self.password_file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            # what the decoder would quote may be the password
            raise ConfigError(f"[mail] password_file {self.password_file} is not UTF-8 text") from None


def _refusal(code: int, said: bytes | str) -> InfraError:
    message = f"the mail server says {_said(code, said)}"
    return RefusedError(message) if 500 <= code < 600 else InfraError(message)


def _said(code: int, said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return f"{code} {text.strip()[:300]}"
