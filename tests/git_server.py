"""A server of git and LFS on loopback, with real repositories, as well or as badly as told.

Git itself is served by `git http-backend`. The LFS server speaks the batch API about the objects
that `git lfs` has made, which are at another server, where no password has any business.
"""

import base64
import hashlib
import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

USER, PASSWORD = "ada", "git-canary-that-must-not-be-repeated"
SIGNED = "Signed storage-canary-that-must-not-be-repeated"
IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")


@dataclass
class Quirks:
    """What the servers do badly; counts are of requests, and go down."""

    private: bool = False
    """Who does not say who he is gets nothing of the repository."""
    repeat: str | None = None
    """Who says wrongly who he is is told this, and what he said."""
    busy: int = 0
    """How often the LFS server has no time."""
    batch: object = None
    """What the LFS server says instead of what is so."""
    missing: bool = False
    wrong: bool = False
    cut: int = 0
    stall: bool = False
    """Half of an object is sent, and nothing more until `proceed` is set."""
    redirect: str | None = None
    """Another server, that git's requests are sent to."""
    silent: bool = False
    """Git's requests are taken, and nothing comes."""


@dataclass
class GitServer:
    """What is served, and what was asked: server, method, path, Authorization and Range."""

    root: Path
    quirks: Quirks = field(default_factory=Quirks)
    asked: list[tuple[str, str, str, str | None, str | None]] = field(default_factory=list)
    url: str = ""
    storage: str = ""
    stalled: Event = field(default_factory=Event)
    proceed: Event = field(default_factory=Event)

    def address(self, name: str = "Org/Name.git") -> str:
        return f"{self.url}/{name}"


def git(directory, *arguments, **environ):
    """Run git in a directory; return what it prints."""
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(directory), *IDENTITY, "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**clean, **environ}
    )
    return done.stdout


def make_repository(work: Path, bare: Path) -> None:
    """Make a repository of a directory's files, with LFS for models, and a bare one of it."""
    git(work, "init", "--quiet", "-b", "main")
    git(work, "lfs", "install", "--local")
    git(work, "lfs", "track", "*.safetensors")
    git(work, "add", "-A")
    git(work, "commit", "--quiet", "-m", "first")
    publish(work, bare)


def publish(work: Path, bare: Path) -> None:
    """Bring a bare repository to where the work is, with the objects of LFS."""
    if not bare.exists():
        bare.parent.mkdir(parents=True, exist_ok=True)
        git(work, "init", "--quiet", "--bare", "-b", "main", str(bare))
    # What `git lfs push` does with a server that is a directory, without asking one.
    git(work, "-c", "core.hooksPath=/dev/null", "push", "--quiet", "--all", str(bare))
    git(work, "-c", "core.hooksPath=/dev/null", "push", "--quiet", "--tags", str(bare))
    for path in (work / ".git" / "lfs" / "objects").rglob("*"):
        target = bare / "lfs" / "objects" / path.relative_to(work / ".git" / "lfs" / "objects")
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


@contextmanager
def serve_git(root: Path):
    """Serve the repositories below a directory."""
    server = GitServer(root)

    class Handler(BaseHTTPRequestHandler):
        def note(self, name):
            headers = self.headers
            server.asked.append(
                (name, self.command, self.path, headers["Authorization"], headers["Range"])
            )

        def body(self):
            if self.headers.get("Transfer-Encoding") == "chunked":
                content = b""
                while size := int(self.rfile.readline(), 16):
                    content += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return content
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))

        def answer(self, status, content=b"", headers=None):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Nobody reads along."""

    class Git(Handler):
        def do_GET(self):
            self.note("git")
            content = self.body()
            known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if server.quirks.silent:
                server.stalled.set()
                server.proceed.wait()
            if server.quirks.redirect is not None:
                self.answer(302, headers={"Location": server.quirks.redirect + self.path})
            elif server.quirks.repeat is not None and (shown := self.headers["Authorization"]):
                login = base64.b64decode(shown.split()[1]).decode()
                told = f"{server.quirks.repeat} {login} {shown}"
                self.answer(403, told.encode(), {"Content-Type": "text/plain"})
            elif server.quirks.private and self.headers["Authorization"] != f"Basic {known}":
                self.answer(401, headers={"WWW-Authenticate": 'Basic realm="git"'})
            elif self.path.endswith("/info/lfs/objects/batch"):
                self.batch(json.loads(content))
            else:
                self.backend(content)

        do_POST = do_GET  # noqa: N815 - the name is the library's

        def batch(self, asked):
            quirks = server.quirks
            assert self.headers["Content-Type"] == "application/vnd.git-lfs+json"
            assert (asked["operation"], asked["transfers"]) == ("download", ["basic"])
            if quirks.busy > 0:
                quirks.busy -= 1
                self.answer(503, headers={"Retry-After": "0"})
                return
            objects = []
            repository = self.path.partition("/info/lfs")[0]
            for each in asked["objects"]:
                if quirks.missing:
                    each["error"] = {"code": 404, "message": "Object does not exist"}
                else:
                    href = f"{server.storage}{repository}/{each['oid']}"
                    header = {"Authorization": SIGNED, "Host": "elsewhere.example.com"}
                    each["actions"] = {"download": {"href": href, "header": header}}
                objects.append(each)
            answer = {"transfer": "basic", "objects": objects}
            content = json.dumps(answer if quirks.batch is None else quirks.batch).encode()
            self.answer(200, content, {"Content-Type": "application/vnd.git-lfs+json"})

        def backend(self, content):
            url = urlsplit(self.path)
            environ = {
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "GIT_PROJECT_ROOT": str(server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REQUEST_METHOD": self.command,
                "PATH_INFO": url.path,
                "QUERY_STRING": url.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(content)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            done = subprocess.run(
                ["git", "http-backend"],
                input=content,
                capture_output=True,
                env=environ,
                check=False,
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            status = int(headers.pop("Status", "200").split()[0])
            self.answer(status, body, headers)

    class Storage(Handler):
        def do_GET(self):
            self.note("storage")
            quirks = server.quirks
            repository, _, oid = self.path.rpartition("/")
            path = server.root / repository.strip("/") / "lfs/objects" / oid[:2] / oid[2:4] / oid
            if self.headers["Authorization"] != SIGNED or not path.is_file():
                self.answer(403)
                return
            content = path.read_bytes()
            assert hashlib.sha256(content).hexdigest() == oid
            if quirks.wrong:
                content = bytes(byte ^ 1 for byte in content)
            begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=")[:-1])
            rest, half = content[begin:], (len(content) - begin) // 2
            self.send_response(206 if self.headers["Range"] else 200)
            self.send_header("Content-Length", str(len(rest)))
            if self.headers["Range"]:
                span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            self.end_headers()
            self.wfile.write(rest[:half])
            self.wfile.flush()
            if quirks.cut > 0:
                quirks.cut -= 1
                self.close_connection = True
                return
            if quirks.stall:
                server.stalled.set()
                server.proceed.wait()
            try:
                self.wfile.write(rest[half:])
            except ConnectionError:
                self.close_connection = True

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), each) for each in (Git, Storage)]
    server.url, server.storage = (f"http://127.0.0.1:{each.server_address[1]}" for each in servers)
    threads = [Thread(target=each.serve_forever) for each in servers]
    for each in servers:
        each.daemon_threads = True
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        server.proceed.set()
        for each in servers:
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()
