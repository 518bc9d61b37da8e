"""Source trees: bare git repositories in the lab's home, filled from elsewhere and read by builds.

What users name (URLs, paths, revisions) is never an option to git, and git is told which transports it may use.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lab.errors import ConfigError, Evidence, InfraError, NotFoundError
from lab.flights.plain_text import clean
from lab.flights.revision_graph import Commit

TREE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+~^-]{0,199}")
_TRANSPORTS: Final = ("file", "git", "http", "https", "ssh")
_REF: Final = re.compile(r"refs/(?:heads|tags)/[A-Za-z0-9][A-Za-z0-9._/+-]{0,190}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REMOTE: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)(?P<mark>://|::)")
_WHO: Final = {"GIT_AUTHOR_NAME": "Flightline", "GIT_COMMITTER_NAME": "Flightline"}
_GIT_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class TreeState:
    """One line of `lab tree list`."""

    name: str
    origin: str
    branches: tuple[str, ...]
    tags: int


class MovedError(ConfigError):
    """A ref that was to be moved is not where it was: somebody else has moved it, and it was left alone."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What lies between two revisions: `Name <address>` of authors and committers, and `git log`.

    `length` is how many lines the log has (about, if it was not asked for); `lines` is empty when they are too many.
    """

    people: tuple[str, ...] = ()
    length: int = 0
    lines: tuple[str, ...] = ()


class Trees:
    """The source trees of one lab home: bare repositories under HOME/trees/NAME.git."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "trees"

    def repository(self, name: str) -> Path:
        """Where the tree of this name is; `NotFoundError` when there is none."""
        path = self._path(name)
        if not (path / "HEAD").is_file():
            raise NotFoundError(
                f"there is no source tree {name!r}",
                hint=f"there are: {', '.join(self.names()) or 'none'}; `lab tree add {name} URL` adds it",
            )
        return path

    def names(self) -> list[str]:
        """The trees there are, sorted."""
        return sorted(path.name.removesuffix(".git") for path in self._folder.glob("*.git"))

    def state(self) -> list[TreeState]:
        """What there is, for people."""
        return [self._state(name) for name in self.names()]

    def add(self, name: str, source: str) -> TreeState:
        """Mirror the repository at `source` (a URL or a path) as the tree `name`; fetches again if it is there.

        Branches and tags that were imported into the tree by other means stay.
        """
        origin = checked_source(source)
        repository = self._make(name)
        _git(repository, "fetch", "--no-tags", "--", origin, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        _git(repository, "config", "remote.origin.url", origin)
        return self._state(name)

    def resolve(self, name: str, revision: str) -> str:
        """The commit a branch, tag or commit id stands for; `NotFoundError` names what is near it."""
        repository = self.repository(name)
        if _REVISION.fullmatch(revision):
            found = _run_git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
            if found.returncode == 0:
                return found.stdout.decode().strip()
        known = self._refs(repository)
        near = difflib.get_close_matches(revision, known, n=5, cutoff=0.4) or known[:8]
        raise NotFoundError(
            f"tree {name} has no revision {revision!r}",
            hint=f"near it: {', '.join(near)}" if near else f"`lab tree add {name} URL` fills the tree",
        )

    def has(self, name: str, revision: str) -> bool:
        """Whether the tree exists and has that revision."""
        try:
            self.resolve(name, revision)
        except NotFoundError:
            return False
        return True

    def read(self, name: str, commit: str, path: str) -> str:
        """The text of one file of a commit; `NotFoundError` when it has no such file."""
        found = _run_git(self.repository(name), "cat-file", "blob", f"{commit}:{path}")
        if found.returncode:
            raise NotFoundError(f"tree {name} at {commit[:12]} has no file {path}")
        return found.stdout.decode(errors="replace")

    def export(self, name: str, commit: str, folder: Path) -> None:
        """Write the files of a commit into `folder`, which must exist. Submodules are left out."""
        repository = self.repository(name)
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._folder) as place:
            env = {"GIT_INDEX_FILE": str(Path(place) / "index"), "GIT_WORK_TREE": str(folder)}
            _git(repository, "read-tree", commit, env=env)
            _git(repository, "checkout-index", "--all", "--force", env=env, cwd=folder)

    def commit_folder(self, name: str, folder: Path, *, message: str, when: datetime, branch: str, tag: str) -> str:
        """Make a commit of all files below `folder` and let `branch` and `tag` point to it; returns its id.

        The same files, message and time give the same commit everywhere.
        """
        repository = self._make(name)
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._folder) as place:
            env = {"GIT_INDEX_FILE": str(Path(place) / "index"), "GIT_WORK_TREE": str(folder)}
            _git(repository, "add", "--all", "--force", "--", ".", env=env, cwd=folder)
            tree = _git(repository, "write-tree", env=env)
        commit = _commit_tree(repository, tree, message, when)
        _git(repository, "update-ref", f"refs/heads/{branch}", commit)
        _git(repository, "update-ref", f"refs/tags/{tag}", commit)
        return commit

    def take(self, name: str, path: Path, revision: str | None, *, branch: str, when: datetime) -> str:
        """Bring a revision of the repository at `path` into the tree, under `branch`; returns the commit.

        Without a revision it is the working tree as it stands, uncommitted changes and new files (but for ignored
        ones) included. Nothing in that repository is changed: index and objects are ours.
        """
        top = _run_git(None, "-C", str(path), "rev-parse", "--show-toplevel")
        if top.returncode:
            raise ConfigError(f"{path} is no git working tree", hint="name a folder that `git clone` made")
        source = Path(top.stdout.decode().strip())
        repository = self._make(name)
        if revision is not None:
            if not _REVISION.fullmatch(revision):
                raise ConfigError(f"{revision!r} is not the name of a revision")
            found = _run_git(None, "-C", str(source), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
            if found.returncode:
                raise NotFoundError(f"{source} has no revision {revision!r}", hint="a branch, a tag or a commit id")
            commit = found.stdout.decode().strip()
            _fetch_commit(repository, source, commit)
        else:
            commit = self._snapshot(repository, source, when)
        _git(repository, "update-ref", f"refs/heads/{branch}", commit)
        return commit

    def history(self, name: str, basis: str, failure: str, *, most: int) -> tuple[Commit, ...]:
        """The commits that descend from `basis` and lead to `failure` (and `failure` itself, if it does not descend).

        Raises `ConfigError` when there are more than `most`: then the two are too far apart to be compared.
        """
        repository = self.repository(name)
        form = "--format=%H%x00%P%x00%ct%x00%an%x00%s"
        spans = [["--ancestry-path", f"^{basis}", failure]] if basis != failure else []
        lines: list[str] = []
        for span in (*spans, ["--max-count=1", failure]):
            lines = _git(repository, "log", form, f"--max-count={most + 1}", *span, "--").splitlines()
            if lines:
                break
        if len(lines) > most:
            raise ConfigError(
                f"tree {name}: more than {most} commits lie between {basis[:12]} and {failure[:12]}",
                hint="name a pass that is nearer to the failure",
            )
        commits = []
        for line in lines:
            commit, parents, when, author, subject = line.split("\0", 4)
            commits.append(
                Commit(
                    id=commit,
                    parents=tuple(parents.split()),
                    when=int(when),
                    author=clean(author)[:128],
                    subject=clean(subject)[:256],
                )
            )
        return tuple(commits)

    def distance(self, name: str, old: str, new: str) -> int:
        """How many commits `new` has that `old` has not; `NotFoundError` when the tree has not both."""
        ends = self.resolve(name, old), self.resolve(name, new)
        return int(_git(self.repository(name), "rev-list", "--count", ends[1], f"^{ends[0]}", "--"))

    def descends(self, name: str, new: str, old: str) -> bool:
        """Whether `new` contains `old` (a push from one to the other is a fast-forward)."""
        ends = self.resolve(name, old), self.resolve(name, new)
        return _run_git(self.repository(name), "merge-base", "--is-ancestor", *ends).returncode == 0

    def fetch_ref(self, name: str, source: str, ref: str, *, keep: str) -> str:
        """Bring what `ref` of the repository at `source` points to into the tree; returns the commit.

        It is kept as `refs/gates/KEEP`. `ConfigError` when the repository or the ref is not there.
        """
        origin, ref = checked_source(source), checked_ref(ref)
        repository = self._make(name)
        kept = f"refs/gates/{checked_ref(f'refs/heads/{keep}').removeprefix('refs/heads/')}"
        _git(repository, "fetch", "--quiet", "--no-tags", "--", origin, f"+{ref}:{kept}")
        return _git(repository, "rev-parse", "--verify", f"{kept}^{{commit}}")

    def remote_ref(self, source: str, ref: str) -> str | None:
        """The commit that `ref` of the repository at `source` points to now; None when it has no such ref.

        `ConfigError` when the repository cannot be reached.
        """
        origin, ref = checked_source(source), checked_ref(ref)
        listed = _run_git(None, "ls-remote", "--", origin, ref)
        if listed.returncode:
            said = listed.stderr.decode(errors="replace").strip().splitlines()
            evidence = Evidence(
                command=f"git ls-remote {_shown(origin)} {ref}", exit_status=listed.returncode,
                output=_shown("\n".join(said))[-10_000:],
            )  # fmt: skip
            last = said[-1] if said else "it says nothing"
            told = f"git cannot read {_shown(origin)}: {_shown(last)}"
            raise ConfigError(told, hint="is it there, and readable?", evidence=evidence)
        for line in listed.stdout.decode(errors="replace").splitlines():
            commit, _, found = line.partition("\t")
            if found == ref and _COMMIT.fullmatch(commit):
                return commit
        return None

    def push(self, name: str, commit: str, source: str, ref: str, *, expected: str) -> None:
        """Move `ref` of the repository at `source` from the commit `expected` to `commit`, and nothing else.

        Idempotent: it may be there already. `MovedError` when the ref is neither at `expected` nor at `commit`;
        another error when git refuses; then nothing was moved.
        """
        origin, ref = checked_source(source), checked_ref(ref)
        if not (_COMMIT.fullmatch(commit) and _COMMIT.fullmatch(expected)):
            raise ConfigError(f"{commit!r}, {expected!r}: not the ids of two commits")
        at = self.remote_ref(origin, ref)
        if at == commit:
            return
        pushed = _run_git(
            self.repository(name), "push", "--quiet", f"--force-with-lease={ref}:{expected}", "--", origin,
            f"{commit}:{ref}",
        )  # fmt: skip
        if pushed.returncode == 0:
            return
        at = self.remote_ref(origin, ref)
        if at == commit:
            return
        said = pushed.stderr.decode(errors="replace").strip()
        evidence = Evidence(
            command=f"git push {_shown(origin)} {ref}", exit_status=pushed.returncode, output=_shown(said)[-10_000:]
        )
        if at != expected:
            raise MovedError(
                f"somebody else has moved {ref} of {_shown(origin)} to {(at or 'nothing')[:12]} meanwhile",
                hint="nothing was pushed; run the gate again", evidence=evidence,
            )  # fmt: skip
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "it says nothing")
        told = f"git cannot push to {ref} of {_shown(origin)}: {_shown(last)}"
        raise ConfigError(told, hint="may we write there?", evidence=evidence)

    def changes(self, name: str, old: str, new: str, *, most: int) -> Changes:
        """What `new` has that `old` has not: who made it, and `git log` of it unless that is `most` lines or more."""
        ends = self.resolve(name, old), self.resolve(name, new)
        repository, span = self.repository(name), (ends[1], f"^{ends[0]}", "--")
        count = int(_git(repository, "rev-list", "--count", *span))
        if not count:
            return Changes()
        people = set(_git(repository, "log", "--format=%an <%ae>%n%cn <%ce>", "--max-count=5000", *span).splitlines())
        lines: list[str] = []
        if count < most:  # a commit has a line at least
            lines = clean(_git(repository, "log", "--date=rfc", *span)).splitlines()
        length = len(lines) if lines else count * 7
        return Changes(
            people=tuple(sorted((clean(one) for one in people), key=str.lower)), length=length,
            lines=tuple(lines) if lines and length < most else (),
        )  # fmt: skip

    def message(self, name: str, commit: str) -> str:
        """Who made a commit, when, and its whole message, as `git log` shows it."""
        return clean(_git(self.repository(name), "log", "--max-count=1", "--date=rfc", commit, "--"))

    def revert(self, name: str, commit: str, *, at: str, keep: str) -> str | None:
        """Make a commit on top of `at` that takes `commit` back; None when that cannot be done cleanly.

        A merge cannot. The same two give the same commit; it is no branch, but kept as `refs/bisections/KEEP`.
        """
        repository = self.repository(name)
        parents = _git(repository, "log", "--max-count=1", "--format=%P", commit, "--").split()
        if len(parents) != 1:
            return None
        patch = _git_bytes(repository, "diff", "--binary", "--full-index", commit, parents[0], "--")
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._folder) as place:
            env = {"GIT_INDEX_FILE": str(Path(place) / "index")}
            _git(repository, "read-tree", at, env=env)
            if not patch or _run_git(repository, "apply", "--cached", "-", env=env, given=patch).returncode:
                return None
            tree = _git(repository, "write-tree", env=env)
        when = datetime.fromtimestamp(int(_git(repository, "show", "-s", "--format=%ct", at)), UTC)
        made = _commit_tree(repository, tree, f"Revert {commit}, to see whether it is the culprit", when, [at])
        _git(repository, "update-ref", f"refs/bisections/{keep}", made)
        return made

    def _snapshot(self, repository: Path, source: Path, when: datetime) -> str:
        head = _run_git(None, "-C", str(source), "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        parents = []
        if head.returncode == 0:
            parents = [head.stdout.decode().strip()]
            _fetch_commit(repository, source, parents[0])
            # the time of what was changed: the same working tree is the same commit, and built once
            when = datetime.fromtimestamp(int(_git(repository, "show", "-s", "--format=%ct", parents[0])), UTC)
        listed = _git_bytes(None, "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        paths = [path for path in dict.fromkeys(listed.split(b"\0")) if path and _is_file(source, path)]
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._folder) as place:
            env = {"GIT_INDEX_FILE": str(Path(place) / "index"), "GIT_WORK_TREE": str(source)}
            _git(repository, "update-index", "--add", "-z", "--stdin", env=env, cwd=source, given=b"\0".join(paths))
            tree = _git(repository, "write-tree", env=env)
        if parents and tree == _git(repository, "rev-parse", f"{parents[0]}^{{tree}}"):
            return parents[0]
        return _commit_tree(repository, tree, "The working tree with its uncommitted changes", when, parents)

    def _state(self, name: str) -> TreeState:
        repository = self.repository(name)
        refs = self._refs(repository, full=True)
        origin = _run_git(repository, "config", "remote.origin.url")
        return TreeState(
            name=name,
            origin=origin.stdout.decode(errors="replace").strip(),
            branches=tuple(ref.removeprefix("refs/heads/") for ref in refs if ref.startswith("refs/heads/")),
            tags=sum(1 for ref in refs if ref.startswith("refs/tags/")),
        )

    def _refs(self, repository: Path, *, full: bool = False) -> list[str]:
        form = "%(refname)" if full else "%(refname:short)"
        out = _git(repository, "for-each-ref", f"--format={form}", "refs/heads", "refs/tags")
        return out.splitlines()

    def _path(self, name: str) -> Path:
        if not TREE_NAME.fullmatch(name) or name.endswith((".git", ".lock")):
            raise ConfigError(f"{name!r} is not the name of a tree", hint="small letters, digits, '.', '_' and '-'")
        return self._folder / f"{name}.git"

    def _make(self, name: str) -> Path:
        path = self._path(name)
        if not (path / "HEAD").is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="new-", dir=self._folder) as place:
                new = Path(place) / "tree.git"
                _git(None, "init", "--quiet", "--bare", "--template=", "--", str(new))
                if not path.exists():
                    new.rename(path)
        return path


def checked_source(source: str) -> str:
    """A URL with a transport that git may use, or an existing path made absolute; `ConfigError` for anything else."""
    if "\0" in source or "\n" in source or source.startswith("-") or not source:
        raise ConfigError(f"{source!r} is no place a source tree can come from", hint="a URL, or the path of a folder")
    found = _REMOTE.match(source)
    if found and (found["mark"] == "::" or found["scheme"].lower() not in _TRANSPORTS):
        raise ConfigError(f"{source!r}: this transport is not allowed", hint=f"there are: {', '.join(_TRANSPORTS)}")
    path = Path(source).expanduser()
    if not found and path.exists():
        return str(path.absolute())
    if not found and not re.fullmatch(r"[A-Za-z0-9@._-]+:[^:].*", source):
        raise ConfigError(f"there is no folder {source}", hint="a URL, or the path of a git repository")
    return source


def checked_ref(ref: str) -> str:
    """The full name of a branch or tag (`staging` is refs/heads/staging); `ConfigError` when it is none."""
    full = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
    if not _REF.fullmatch(full) or ".." in full or "//" in full or full.endswith(("/", ".", ".lock")):
        raise ConfigError(f"{ref!r} is not the name of a branch", hint="e.g. staging, or refs/heads/staging")
    return full


def _shown(text: str) -> str:
    """Text of git's without the names and passwords of URLs."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def _fetch_commit(repository: Path, source: Path, commit: str) -> None:
    """Bring a commit with its history; ours is the only side that writes."""
    _git(repository, "fetch", "--quiet", "--no-tags", "--", str(source), commit)


def _is_file(source: Path, path: bytes) -> bool:
    whole = source / os.fsdecode(path)
    return whole.is_symlink() or whole.is_file()


def _commit_tree(repository: Path, tree: str, message: str, when: datetime, parents: Sequence[str] = ()) -> str:
    mail = "flightline@localhost"
    stamp = f"{int(when.timestamp())} +0000"
    env = {
        **_WHO,
        "GIT_AUTHOR_EMAIL": mail,
        "GIT_COMMITTER_EMAIL": mail,
        "GIT_AUTHOR_DATE": stamp,
        "GIT_COMMITTER_DATE": stamp,
    }
    arguments = [part for parent in parents for part in ("-p", parent)]
    return _git(repository, "commit-tree", *arguments, tree, env=env, given=message.encode())


def _git(
    repository: Path | None, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    given: bytes = b"",
) -> str:  # fmt: skip
    return _git_bytes(repository, *arguments, env=env, cwd=cwd, given=given).decode(errors="replace").strip()


def _git_bytes(
    repository: Path | None, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    given: bytes = b"",
) -> bytes:  # fmt: skip
    done = _run_git(repository, *arguments, env=env, cwd=cwd, given=given)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "it says nothing")
        evidence = Evidence(command=f"git {' '.join(arguments)}", exit_status=done.returncode, output=said[-10_000:])
        if "No space left" in said:
            raise InfraError("git: the disk is full", hint="free some space", evidence=evidence)
        if arguments[0] == "fetch":
            raise ConfigError(f"git cannot fetch it: {last}", hint="is this a git repository?", evidence=evidence)
        raise InfraError(f"git {arguments[0]} failed: {last}", evidence=evidence)
    return done.stdout


def _run_git(
    repository: Path | None, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    given: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    if shutil.which("git") is None:
        raise InfraError("git is not installed", hint="apt install git")
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": ":".join(_TRANSPORTS), "LC_ALL": "C", **(env or {})}
    # no hook, file-system monitor or line-ending conversion of whoever's settings
    options = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.autocrlf=false"]
    where = [f"--git-dir={repository}"] if repository is not None else []
    try:
        return subprocess.run(
            ["git", *options, *where, *arguments],
            input=given, capture_output=True, check=False, env=own, cwd=cwd, timeout=_GIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InfraError(f"git {arguments[0]} did not end within {_GIT_S:.0f} s") from error
