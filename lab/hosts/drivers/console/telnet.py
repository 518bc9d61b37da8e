"""The commands of telnet (RFC 854) between the bytes of a line: taken out, answered, and put in.

Standard library only: the process that keeps a line loads it by its path.
"""

from __future__ import annotations

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SUPPRESS_GO_AHEAD = 0, 1, 3
_WANTED = frozenset({BINARY, ECHO, SUPPRESS_GO_AHEAD})
"""Options that the other side may use (that it echoes is the line's doing)."""


class Telnet:
    """One connection. Bytes may come in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._answered: set[tuple[int, int]] = set()

    def begin(self) -> bytes:
        """What is said first: both sides send 8-bit bytes, and nobody waits for a go-ahead."""
        return bytes([IAC, WILL, BINARY, IAC, DO, BINARY, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, DO, SUPPRESS_GO_AHEAD])

    def hear(self, data: bytes) -> tuple[bytes, bytes]:
        """(what the line said, what is to be answered)."""
        data, self._rest = self._rest + data, b""
        heard, answer, at = bytearray(), bytearray(), 0
        while at < len(data):
            found = data.find(IAC, at)
            if found < 0:
                heard += data[at:]
                break
            heard += data[at:found]
            end = self._command_end(data, found)
            if end is None:
                self._rest = data[found:]
                break
            if data[found + 1] == IAC:
                heard.append(IAC)
            else:
                answer += self._answer(data[found:end])
            at = end
        return bytes(heard), bytes(answer)

    @staticmethod
    def _command_end(data: bytes, at: int) -> int | None:
        """Where the command that begins at `at` ends; None when the rest of it has not come yet."""
        if at + 1 >= len(data):
            return None
        what = data[at + 1]
        if what in (DO, DONT, WILL, WONT):
            return at + 3 if at + 3 <= len(data) else None
        if what == SB:
            end = data.find(bytes([IAC, SE]), at + 2)
            return end + 2 if end >= 0 else None
        return at + 2

    def _answer(self, command: bytes) -> bytes:
        """Agree to what is wanted, refuse the rest; each is answered once, or two machines would talk for ever."""
        if len(command) != 3 or command[1] not in (DO, WILL):
            return b""
        what, option = command[1], command[2]
        if (what, option) in self._answered:
            return b""
        self._answered.add((what, option))
        if what == WILL:
            return bytes([IAC, DO if option in _WANTED else DONT, option])
        return bytes([IAC, WILL if option in (BINARY, SUPPRESS_GO_AHEAD) else WONT, option])

    @staticmethod
    def say(data: bytes) -> bytes:
        """Bytes for the line, as they are sent."""
        return data.replace(b"\xff", b"\xff\xff")
