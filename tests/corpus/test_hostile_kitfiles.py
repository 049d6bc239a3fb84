"""Every hostile Kitfile: refused by a code that fits, no kit comes of it, and kitd goes on."""

import pytest

from corpus.kitfiles import KITFILES
from kitd.client import Client
from kitd.client.outcome import JobFailedError
from tests.e2e.conftest import Kitd, make_project


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    running = Kitd(tmp_path_factory.mktemp("kitfiles"), {}).start()
    yield running
    running.kill()


@pytest.mark.parametrize("name", KITFILES)
def test_a_hostile_kitfile_is_refused(daemon, name, tmp_path):
    code, text = KITFILES[name]
    repository = f"hostile/{list(KITFILES).index(name)}"
    project = make_project(tmp_path / "project")
    (project / "link").symlink_to("/etc/passwd")
    (project / "up").symlink_to("/etc")
    (project / "Kitfile").write_bytes(text if isinstance(text, bytes) else text.encode())
    with Client.connect(daemon.socket) as client:
        with pytest.raises(JobFailedError) as caught:
            client.pack(project, f"{repository}:v1")
        assert client.kits(repository) == ()
    assert caught.value.code == code
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 6000
    assert "Traceback" not in daemon.log.read_text()
