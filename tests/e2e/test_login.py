"""Logging in as a person, and what the daemon makes of it: real registries, real helpers."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
KEEPER = """\
#!/bin/sh
# Keeps one login for each server in a file, as docker-credential-* do in keyrings.
set -eu
cd "{place}"
case "$1" in
store) cat > question; python3 -c '
import json
login = json.load(open("question"))
open("kept-" + login["ServerURL"].replace("/", "_"), "w").write(json.dumps(login))'; rm question ;;
get) read -r server || true
  kept="kept-$(echo "$server" | tr / _)"
  if [ ! -e "$kept" ]; then echo "credentials not found in native keychain"; exit 1; fi
  cat "$kept" ;;
erase) read -r server || true; rm -f "kept-$(echo "$server" | tr / _)" ;;
esac
"""


@pytest.fixture
def person(tmp_path):
    """Run kitctl as somebody with a home of his own, and with something on stdin."""
    home = tmp_path / "home"
    home.mkdir()

    class Person:
        docker = home / ".docker" / "config.json"
        place = home

        def run(self, *words, stdin="", **environ):
            return subprocess.run(
                [BIN / "kitctl", *words],
                env={"PATH": os.environ["PATH"], "HOME": str(home), **environ},
                input=stdin,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        def login(self, host, secret, *words, **environ):
            words = ("login", host, *words, "--password-stdin")
            return self.run(*words, stdin=f"{secret}\n", **environ)

        def config(self):
            return json.loads(self.docker.read_text())

    return Person()


@pytest.fixture
def keeper(tmp_path):
    """A credential helper called `test`; gives the PATH that it is on."""
    place = tmp_path / "keyring"
    place.mkdir()
    program = place / "docker-credential-test"
    program.write_text(KEEPER.format(place=place))
    program.chmod(0o755)
    return place


def test_a_login_is_tried_kept_and_used_by_the_daemon(
    kitd, project, person, docker_registry_with_login
):
    """A daemon of the same user finds it at once; after a logout nothing is left of it."""
    registry = docker_registry_with_login
    daemon = kitd(HOME=str(person.place)).start()
    reference = f"{registry.host}/team/demo:v1"
    assert daemon.kitctl("pack", project, "-t", reference).code == 0
    assert daemon.kitctl("push", reference).code == 1
    done = person.login(registry.host, registry.password, "-u", "ada", KITD_SOCKET=daemon.socket)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"logged in to {registry.host} as ada",
        f"kept in {person.docker}, not encrypted",
        "kitd reads it there",
    ]
    assert done.stderr == ""
    assert person.docker.stat().st_mode & 0o777 == 0o600
    assert daemon.kitctl("push", reference).code == 0
    # kitctl's word, and the daemon's log, hold no secret.
    assert registry.password not in done.stdout + daemon.log.read_text()

    said = person.run("logout", registry.host, KITD_SOCKET=daemon.socket)
    assert said.stdout == f"logged out of {registry.host}\n"
    assert person.config() == {"auths": {}}
    said = person.run("logout", registry.host, KITD_SOCKET=daemon.socket)
    assert (said.returncode, said.stdout) == (0, f"not logged in to {registry.host}\n")


def test_what_is_refused_is_not_kept(person, docker_registry_with_login):
    """Nor is what is there already changed."""
    person.docker.parent.mkdir()
    before = '{"auths": {"other.example.com": {"auth": "YTpi"}}, "psFormat": "table"}'
    person.docker.write_text(before)
    host = docker_registry_with_login.host
    wrong = "not the password"
    done = person.login(host, wrong, "-u", "ada")
    assert done.returncode == 1
    assert host in done.stderr
    assert wrong not in done.stdout + done.stderr
    assert person.docker.read_text() == before
    as_json = person.run("--json", "login", host, "-u", "ada", "--password-stdin", stdin=wrong)
    assert json.loads(as_json.stdout)["error"]["code"] == "registry_denied"


def test_what_else_is_in_the_file_stays(person, docker_registry_with_login):
    """Also where it is a link; other spellings of the registry are replaced."""
    registry = docker_registry_with_login
    files = person.place / "dotfiles"
    files.mkdir()
    person.docker.parent.mkdir()
    person.docker.symlink_to(files / "docker.json")
    other = {"auth": "YTpi", "email": "a@example.com"}
    document = {
        "psFormat": "table",
        "auths": {f"http://{registry.host}/v1/": {"auth": "YTpi"}, "other.example.com": other},
        "plugins": {"debug": {"hooks": "exec"}},
    }
    (files / "docker.json").write_text(json.dumps(document))
    (files / "docker.json").chmod(0o644)
    assert person.login(registry.host, registry.password, "-u", "ada").returncode == 0
    config = person.config()
    assert person.docker.is_symlink()
    assert (files / "docker.json").stat().st_mode & 0o777 == 0o600
    assert list(config["auths"]) == ["other.example.com", registry.host]
    assert config["auths"]["other.example.com"] == other
    assert {key: config[key] for key in config if key != "auths"} == {
        "psFormat": "table",
        "plugins": {"debug": {"hooks": "exec"}},
    }
    assert sorted(path.name for path in files.iterdir()) == ["docker.json"]


def test_a_password_on_the_command_line_is_refused_and_not_repeated(person):
    for words in (("-p", "hunter22"), ("--password=hunter22",), ("-phunter22",)):
        done = person.run("login", "registry.example.com", "-u", "ada", *words)
        assert done.returncode == 2
        assert "--password-stdin" in done.stderr
        assert "hunter22" not in done.stdout + done.stderr
    done = person.run("login", "registry.example.com", "-u", "ada")
    assert (done.returncode, "nobody to ask" in done.stderr) == (2, True)
    assert person.login("registry.example.com", "").returncode == 2
    for host in ("registry", "", "registry.example.com/team", "localhost", "regi stry.com"):
        done = person.login(host, "secret", "-u", "ada")
        assert (done.returncode, "not a registry" in done.stderr) == (1, True), host
    assert not person.docker.exists()


@pytest.mark.parametrize("where", ["credsStore", "credHelpers"])
def test_a_helper_keeps_what_the_file_says_it_keeps(
    person, keeper, where, docker_registry_with_login
):
    registry = docker_registry_with_login
    person.docker.parent.mkdir()
    chosen = "test" if where == "credsStore" else {registry.host: "test"}
    person.docker.write_text(json.dumps({where: chosen}))
    path = {"PATH": f"{keeper}:{os.environ['PATH']}"}
    done = person.login(registry.host, registry.password, "-u", "ada", **path)
    assert done.returncode == 0, done.stderr
    assert "kept by docker-credential-test" in done.stdout
    assert person.config() == {where: chosen, "auths": {registry.host: {}}}
    (kept,) = keeper.glob("kept-*")
    login = {"ServerURL": registry.host, "Username": "ada", "Secret": registry.password}
    assert json.loads(kept.read_text()) == login

    said = person.run("logout", registry.host, **path)
    assert said.stdout == f"logged out of {registry.host}\n"
    assert list(keeper.glob("kept-*")) == []
    assert person.config() == {where: chosen, "auths": {}}


def test_what_a_helper_does_not_keep_is_not_kept(person, keeper, docker_registry_with_login):
    registry = docker_registry_with_login
    person.docker.parent.mkdir()
    person.docker.write_text('{"credsStore": "test"}')
    (keeper / "docker-credential-test").write_text("#!/bin/sh\ncat; exit 1\n")
    path = {"PATH": f"{keeper}:{os.environ['PATH']}"}
    for environ, says in ((path, "did not store"), ({}, "not on the PATH")):
        done = person.login(registry.host, registry.password, "-u", "ada", **environ)
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        assert registry.password not in done.stdout + done.stderr
        assert person.config() == {"credsStore": "test"}


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users needs root")
def test_whose_logins_another_users_daemon_reads_is_told(
    public_place, kitd, person, docker_registry_with_login
):
    """And root who logs in with somebody's home leaves the file to him."""
    registry = docker_registry_with_login
    os.chown(public_place, 2100, 2100)
    daemon = kitd()
    daemon.place = public_place
    daemon.start_command = (
        "setpriv", "--reuid=2100", "--regid=2100", "--clear-groups",
        "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
    )  # fmt: skip
    daemon.start()
    person.docker.parent.mkdir()
    os.chown(person.docker.parent, 2100, 2100)
    done = person.login(registry.host, registry.password, "-u", "ada", KITD_SOCKET=daemon.socket)
    told = "kitd does not: it runs as user 2100, whose logins are his own"
    assert done.stdout.splitlines()[-1] == told
    assert (person.docker.stat().st_uid, person.docker.stat().st_mode & 0o777) == (2100, 0o600)


def test_without_a_user_it_is_an_identity_token(person, fault_registry):
    """It is exchanged for a token before it is kept, and so is a password."""
    fault_registry.tell(auth="bearer")
    done = person.login(fault_registry.host, "somebody's identity")
    assert done.returncode == 1, done.stdout
    done = person.login(fault_registry.host, "ada's identity")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"logged in to {fault_registry.host} with an identity token\n")
    entry = {"identitytoken": "ada's identity"}
    assert person.config()["auths"] == {fault_registry.host: entry}
    assert person.login(fault_registry.host, "wrong", "-u", "ada").returncode == 1
    assert person.login(fault_registry.host, "correct horse", "-u", "ada").returncode == 0
    assert "identitytoken" not in person.config()["auths"][fault_registry.host]


def test_a_registry_that_asks_nobody_proves_nothing(person, docker_registry):
    done = person.login(docker_registry.host, "whatever", "-u", "ada")
    assert done.returncode == 0
    assert "asked for no login" in done.stderr


def test_a_login_that_is_not_read_is_told(kitd, person, docker_registry_with_login, tmp_path):
    """By the daemon's own words; and a file that comes first is named."""
    registry = docker_registry_with_login
    podman = person.place / ".config/containers/auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text(json.dumps({"auths": {registry.host: {"auth": "YTpi"}}}))
    daemon = kitd().start()
    done = person.login(registry.host, registry.password, "-u", "ada", KITD_SOCKET=daemon.socket)
    assert f"warning: {podman} is read first" in done.stderr
    assert f"kitd does not: it reads {daemon.place}" in done.stdout.replace("\n", " ")
    said = person.run("logout", registry.host)
    assert said.stdout.splitlines()[1:] == [f"{podman} still has a login for it"]

    secret = tmp_path / "secret"
    secret.write_text(registry.password)
    own = {"username": "ada", "password_file": str(secret)}
    daemon = kitd({"registries": {registry.host: {"credentials": own}}}, HOME=str(person.place))
    daemon.start()
    done = person.login(registry.host, registry.password, "-u", "ada", KITD_SOCKET=daemon.socket)
    assert f"registries.{registry.host}.credentials has its own" in done.stdout


def test_the_login_of_kit_is_good_for_kitd(kitd, project, person, docker_registry_with_login):
    """After docker's files, from where kit keeps it."""
    registry = docker_registry_with_login
    assert person.login(registry.host, registry.password, "-u", "ada").returncode == 0
    kit = person.place / ".local/share/kitops"
    kit.mkdir(parents=True)
    person.docker.rename(kit / "credentials.json")
    daemon = kitd(HOME=str(person.place)).start()
    packed = daemon.kitctl("pack", project, "-t", f"{registry.host}/team/demo:v1", "--push")
    assert packed.code == 0, packed.err


def test_a_broken_file_is_not_written_over(person, docker_registry_with_login):
    registry = docker_registry_with_login
    person.docker.parent.mkdir()
    person.docker.write_text("{not json")
    done = person.login(registry.host, registry.password, "-u", "ada")
    assert (done.returncode, str(person.docker) in done.stderr) == (1, True)
    assert person.docker.read_text() == "{not json"


def test_logins_at_the_same_time_are_all_kept(person, docker_registry):
    """Nobody's is lost, under whatever name the registry goes."""
    port = docker_registry.host.rpartition(":")[2]
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
    running = [
        subprocess.Popen(
            [BIN / "kitctl", "login", host, "-u", "ada", "--password-stdin"],
            env={"PATH": os.environ["PATH"], "HOME": str(person.place)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for host in hosts
    ]
    for process in running:
        process.communicate(b"secret", timeout=60)
        assert process.returncode == 0
    assert sorted(person.config()["auths"]) == sorted(hosts)


def test_a_helper_that_is_missing_keeps_no_password_in_the_file(person):
    """What is there in plain text goes, and then somebody says what did not."""
    person.docker.parent.mkdir()
    entry = {"r.example.com": {"auth": "bjpwdw=="}}
    person.docker.write_text(json.dumps({"auths": entry, "credsStore": "absent"}))
    said = person.run("logout", "r.example.com")
    assert said.returncode == 1
    assert "docker-credential-absent" in said.stderr
    assert f"the login that was in {person.docker} is gone" in said.stderr
    assert person.config() == {"auths": {}, "credsStore": "absent"}


def test_a_file_that_cannot_be_changed_is_told_with_what_the_helper_has(
    person, keeper, docker_registry_with_login
):
    """It has the login by then: somebody breaks the file while it is stored."""
    registry = docker_registry_with_login
    person.docker.parent.mkdir()
    person.docker.write_text(json.dumps({"credsStore": "test"}))
    program = keeper / "docker-credential-test"
    program.write_text(f"#!/bin/sh\ncat > /dev/null; echo '{{' > {person.docker}\n")
    path = f"{keeper}:{os.environ['PATH']}"
    said = person.login(registry.host, registry.password, "-u", "ada", PATH=path)
    assert said.returncode == 1
    assert "docker-credential-test keeps the login all the same" in said.stderr
    assert person.docker.read_text() == "{\n"


def test_a_helper_may_ask_a_person_on_his_terminal(person, tmp_path, docker_registry_with_login):
    """For the passphrase of a keyring, say: it takes its time, and the terminal is its own."""
    registry = docker_registry_with_login
    helper = tmp_path / "docker-credential-asking"
    helper.write_text(
        "#!/bin/sh\ncat > /dev/null\n"
        "echo 'Passphrase:' > /dev/tty && read -r answer < /dev/tty &&"
        f" echo $answer > {tmp_path}/said\n"
    )
    helper.chmod(0o755)
    person.docker.parent.mkdir()
    person.docker.write_text(json.dumps({"credsStore": "asking"}))
    (tmp_path / "secret").write_text(registry.password)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(HOME=str(person.place), PATH=f"{tmp_path}:{os.environ['PATH']}")
        os.dup2(os.open(tmp_path / "secret", os.O_RDONLY), 0)
        words = ["login", registry.host, "-u", "ada", "--password-stdin"]
        os.execv(BIN / "kitctl", ["kitctl", *words])
    told = b""
    while b"Passphrase:" not in told:
        told += os.read(terminal, 1000)
    os.write(terminal, b"open sesame\n")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, told
    os.close(terminal)
    assert (tmp_path / "said").read_text() == "open sesame\n"
