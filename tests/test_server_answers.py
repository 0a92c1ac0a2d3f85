"""What the HTTP service of examples/server says to somebody who does not know it yet."""

import http.client
import importlib
import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "examples" / "server"

pytest.importorskip("flask")
pytest.importorskip("waitress")


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        patch.setenv("OMP_WAIT_POLICY", "passive")  # which the server sets, but not for all tests after it
        yield importlib.import_module("server")


@pytest.fixture
def client(server):
    return server.app.test_client()


@pytest.fixture
def running():
    """Start the server on a free port; yield its address."""
    command = [sys.executable, FOLDER / "server.py", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip().removeprefix("http://")
        finally:
            process.kill()


def test_the_first_page_says_what_to_send(client):
    answer = client.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert "curl --data-binary" in answer.text


def test_what_is_missing_is_named_as_the_client_names_it(client):
    body = io.BytesIO()
    np.save(body, np.zeros((1, 1, 2, 2), np.float32))
    maps = body.getvalue()
    np.save(body, np.zeros((1, 5)))
    answer = client.post("/roi_align", data=body.getvalue())
    assert answer.status_code == 400
    assert answer.json["error"].startswith("output_size is missing")
    answer = client.post("/roi_align?output_size=1", data=maps)
    assert answer.status_code == 400
    assert answer.json["error"].startswith("the boxes must be what np.save writes")


@pytest.mark.parametrize("length", [2**24 + 1, 2**40])
def test_a_body_that_is_refused_unread_gets_json_too(length, running):
    connection = http.client.HTTPConnection(running, timeout=60)
    connection.putrequest("POST", "/roi_align?output_size=1")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Type"]) == (413, "application/json")
    assert json.loads(answer.read())["error"].startswith("Request Entity Too Large")


def test_a_port_that_is_taken_is_one_line(running):
    port = running.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, FOLDER / "server.py", "--port", port], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
