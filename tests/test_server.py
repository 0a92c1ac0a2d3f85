"""The HTTP service of examples/server: right crops, errors that the client can mend, and it goes on."""

import contextlib
import importlib
import io
import os
import pathlib
import platform
import select
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from reference import random_boxes

from cyroialign import roi_align

FOLDER = pathlib.Path(__file__).parent.parent / "examples" / "server"
PAGE = FOLDER.parent.parent / "docs" / "servers.md"
SETTINGS = ("threads", "processes", "pool", "unset")

pytest.importorskip("flask")
pytest.importorskip("waitress")
pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the load script reads /proc")


@pytest.fixture(scope="module")
def load():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        patch.setenv("OMP_WAIT_POLICY", "passive")  # which the server sets, but not for all tests after it
        yield importlib.import_module("load")


@pytest.fixture(scope="module")
def server(load):
    return sys.modules["server"]


@pytest.fixture
def ask(server):
    """Return a function that asks the application, without a server: status, and crops or the error."""
    client = server.app.test_client()

    def ask(data, **options):
        answer = client.post("/roi_align", data=data, query_string=options)
        if answer.status_code != 200:
            return answer.status_code, answer.json["error"]
        return answer.status_code, np.load(io.BytesIO(answer.data), allow_pickle=False)

    return ask


@pytest.fixture
def maps():
    return np.random.default_rng(0).standard_normal((2, 5, 9, 11)).astype(np.float32)


@pytest.fixture
def boxes(maps):
    return random_boxes(np.random.default_rng(1), 6, maps.shape).astype(np.float32)


def saved(*arrays):
    """What `np.save` writes, one after the other."""
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("setting", SETTINGS)
def test_crops_over_the_wire(setting, load, maps, boxes):
    assert set(load.SETTINGS) == set(SETTINGS)
    crops = roi_align(maps, boxes, (3, 4), 0.5, aligned=True)
    data = load.post(saved(maps, boxes), output_size="3,4", spatial_scale=0.5, aligned="true")
    with load.serving(setting) as (_, address), socket.create_connection(address, load.TIMEOUT) as sock:
        for _ in range(3):
            load.send(sock, load.Request(data, 200, saved(crops)))


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ({"output_size": "3"}, {"output_size": 3}),
        ({"output_size": "3,4", "aligned": "True"}, {"output_size": (3, 4), "aligned": True}),
        ({"output_size": "[3, 4]", "aligned": "0"}, {"output_size": (3, 4), "aligned": False}),
        ({"output_size": "2", "sampling_ratio": "3", "mode": "max"}, {"sampling_ratio": 3, "mode": "max"}),
        ({"output_size": "2", "spatial_scale": "1e-1", "mode": '"avg"'}, {"spatial_scale": 0.1}),
        ({"output_size": "2", "layout": "NHWC"}, {"layout": "NHWC"}),
    ],
)
def test_options(query, options, ask, maps, boxes):
    status, crops = ask(saved(maps, boxes), **query)
    assert status == 200
    np.testing.assert_array_equal(crops, roi_align(maps, boxes, **{"output_size": 2, **options}), strict=True)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", ">f4"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)])
def test_types_and_memory_orders(dtype, order, ask, maps, boxes):
    maps = np.abs(maps).astype(dtype)
    maps = np.ascontiguousarray(maps.transpose(order)).transpose(np.argsort(order))
    status, crops = ask(saved(maps, boxes.astype(np.float64)), output_size=2)
    assert status == 200
    np.testing.assert_array_equal(crops, roi_align(maps, boxes.astype(np.float64), 2), strict=True)


@pytest.mark.parametrize("shape", [(2, 5, 9, 11), (2, 0, 9, 11), (0, 5, 9, 11), (2, 5, 0, 0)])
def test_nothing_to_do(shape, ask):
    status, crops = ask(saved(np.zeros(shape, np.float32), np.zeros((0, 5))), output_size=3)
    assert status == 200
    assert crops.shape == (0, shape[1], 3, 3)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ({"output_size": "0"}, {"output_size": 0}),
        ({"output_size": "7,"}, {"output_size": "7,"}),
        ({"output_size": "1,2,3"}, {"output_size": [1, 2, 3]}),
        ({"output_size": ""}, {"output_size": []}),
        ({"output_size": "1", "spatial_scale": "NaN"}, {"output_size": 1, "spatial_scale": "NaN"}),
        ({"output_size": "1", "spatial_scale": "1e999"}, {"output_size": 1, "spatial_scale": np.inf}),
        ({"output_size": "1", "spatial_scale": "-1"}, {"output_size": 1, "spatial_scale": -1}),
        ({"output_size": "1", "sampling_ratio": "1.5"}, {"output_size": 1, "sampling_ratio": 1.5}),
        ({"output_size": "1", "sampling_ratio": "40000"}, {"output_size": 1, "sampling_ratio": 40000}),
        ({"output_size": "1", "aligned": "maybe"}, {"output_size": 1, "aligned": "maybe"}),
        ({"output_size": "1", "mode": "mean"}, {"output_size": 1, "mode": "mean"}),
        ({"output_size": "1", "mode": "null"}, {"output_size": 1, "mode": None}),
        ({"output_size": "1", "layout": "{}"}, {"output_size": 1, "layout": {}}),
        ({"output_size": "[" * 5000}, {"output_size": "[" * 5000}),
        ({"output_size": "9" * 5000}, {"output_size": "9" * 5000}),
    ],
)
def test_wrong_options_get_the_text_of_their_error(query, options, ask, maps, boxes):
    with pytest.raises((TypeError, ValueError)) as error:
        roi_align(maps, boxes, **options)
    assert ask(saved(maps, boxes), **query) == (400, str(error.value))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda maps, boxes: (maps.astype(np.int32), boxes),
        lambda maps, boxes: (maps.astype("S3"), boxes),
        lambda maps, boxes: (maps[0], boxes),
        lambda maps, boxes: (maps[0, 0, 0, 0], boxes),
        lambda maps, boxes: (maps, boxes[:, 1:]),
        lambda maps, boxes: (maps, boxes[0, 0]),
        lambda maps, boxes: (maps, boxes.astype(str)),
        lambda maps, boxes: (maps, np.where(np.arange(5) == 3, np.nan, boxes)),
        lambda maps, boxes: (maps, np.where(np.arange(5) == 3, np.inf, boxes)),
        lambda maps, boxes: (maps, boxes + np.eye(5)[0] * 2),
        lambda maps, boxes: (maps, boxes - np.eye(5)[0] * 2),
        lambda maps, boxes: (maps, boxes + np.eye(5)[0] / 2),
        lambda maps, boxes: (maps[:, :, :0], boxes),
        lambda maps, boxes: (maps[:0], boxes),
    ],
)
def test_wrong_arrays_get_the_text_of_their_error(spoil, ask, maps, boxes):
    maps, boxes = map(np.asarray, spoil(maps, boxes))
    with pytest.raises((TypeError, ValueError)) as error:
        roi_align(maps, boxes, 2)
    assert ask(saved(maps, boxes), output_size=2) == (400, str(error.value))


@pytest.mark.parametrize("option", ["num_threads", "out", "batch_indices", "input"])
def test_options_of_the_server_are_not_the_clients(option, ask, maps, boxes):
    status, text = ask(saved(maps, boxes), output_size=2, **{option: "1"})
    assert (status, text.endswith(f"got {option}")) == (400, True)


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the map must be what np.save writes"),
        (b"PK\x03\x04" + bytes(100), "the map must be what np.save writes"),
        (saved(np.zeros(3))[:60], "the map must be what np.save writes"),
        (saved(np.zeros(3))[:-1], "the map must have 24 bytes"),
        (saved(np.zeros(3)), "the boxes must be what np.save writes"),
        (saved(np.zeros(3), np.zeros(3), np.zeros(3)), "the body must end after the map and the boxes"),
        (saved(np.zeros(3), np.zeros(3)) + b"\n", "the body must end after the map and the boxes"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "the map must be what np.save writes"),
        (header(b"{" * 3000), "the map must be what np.save writes"),
        (header(b"-" * 9000 + b"1"), "the map must be what np.save writes"),
        (header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,)}"), "the map must be what"),
        (header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999, 9)}"), "must have 359999964 b"),
        (
            header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, %d)}" % 10**30),
            "may not have shape",
        ),
        (header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}"), "may not have shape"),
        (header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s)}" % (b"0," * 99)), "maximum"),
        (header(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + bytes(8), "may not have shape"),
        (header(b"{'descr': '|V0', 'fortran_order': False, 'shape': (9,)}"), "may not have shape"),
    ],
)
def test_bodies_that_np_save_never_writes(data, text, ask):
    status, error = ask(data, output_size=2)
    assert status == 400
    assert text in error


def test_pickles_are_not_loaded(ask, maps, tmp_path):
    class Harm:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "harmed",))

    status, _ = ask(saved(np.array([Harm()], object), maps), output_size=2)
    assert status == 400
    assert not (tmp_path / "harmed").exists()


def test_noise_is_an_error_of_the_client(ask, maps, boxes):
    rng = np.random.default_rng(2)
    whole = np.frombuffer(saved(maps[:1, :1, :3, :3], boxes), np.uint8)
    assert ask(whole.tobytes(), output_size=2)[0] == 400  # boxes of an image that is not there
    seen = set()
    for _ in range(500):
        noisy = whole.copy()
        places = rng.integers(0, len(noisy), 3)
        noisy[places] = rng.integers(0, 256, 3)
        start, stop = np.sort(rng.choice([0, *places, len(noisy)], 2))
        seen.add(ask((noisy if rng.random() < 0.7 else noisy[start:stop]).tobytes(), output_size=2)[0])
    assert seen <= {200, 400, 413}


@pytest.mark.parametrize(
    ("shape", "rows", "query", "what"),
    [
        ((1, 1, 2, 2), 1001, {}, "boxes: 1001"),
        ((1, 1, 1, 4097), 1, {}, "an axis of the map: 4097"),
        ((1, 1, 2, 2), 1, {"sampling_ratio": 17}, "sampling_ratio: 17"),
        ((1, 1, 2, 2), 1, {"output_size": "2048,2049"}, "bytes of the result: 16785408"),
        ((1, 4, 2, 2), 1000, {"output_size": 33}, "bytes of the result: 17424000"),
        ((1, 2, 1500, 1500), 250, {}, "boxes times numbers of an image: 1125000000"),
    ],
)
def test_what_is_too_much(shape, rows, query, what, ask):
    maps, boxes = np.zeros(shape, np.uint8), np.zeros((rows, 5), np.float32)
    status, text = ask(saved(maps, boxes), **{"output_size": 1, **query})
    assert (status, what in text) == (413, True)


@pytest.mark.parametrize(
    ("shape", "rows", "query", "bins"),
    [
        ((1, 1, 2, 4096), 1000, {"sampling_ratio": 16}, (1, 1)),
        ((1, 1, 2, 2), 1, {"output_size": 2048}, (2048, 2048)),
        ((1, 1, 1024, 4096), 256, {}, (1, 1)),
    ],
)
def test_as_much_as_is_served(shape, rows, query, bins, ask):
    maps, boxes = np.ones(shape, np.uint8), np.tile(np.float32([0, 0, 0, 1, 1]), (rows, 1))
    status, crops = ask(saved(maps, boxes), **{"output_size": 1, **query})
    assert status == 200
    assert crops.shape == (rows, 1, *bins)


def test_a_body_that_is_too_long(server, ask):
    assert ask(bytes(server.MAX_BODY), output_size=1)[0] == 400
    assert ask(bytes(server.MAX_BODY + 1), output_size=1)[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/none", 404), ("POST", "/", 405), ("GET", "/roi_align", 405), ("PUT", "/roi_align", 405)],
)
def test_other_places_and_methods(method, path, status, server):
    answer = server.app.test_client().open(path, method=method)
    assert answer.status_code == status
    assert answer.json["error"]


@pytest.fixture(scope="module")
def running(load):
    """A server that goes on from test to test, with one thread: to hold that is to stop all."""
    with load.serving("pool") as (_, address):
        yield address


@pytest.fixture
def honest(load, maps, boxes):
    return load.Request(load.post(saved(maps, boxes), output_size=2), 200, saved(roi_align(maps, boxes, 2)))


def ask_once(load, address, request):
    with socket.create_connection(address, load.TIMEOUT) as sock:
        load.send(sock, request)


def test_hostile_requests_do_not_stop_the_server(load, running, honest):
    _, hostile = load.requests()
    assert {request.answer for request in hostile.values()} == {200, 400, 413, load.CUT, load.STALLED}
    for request in hostile.values():
        with socket.create_connection(running, load.TIMEOUT) as sock:
            load.send(sock, request)
            ask_once(load, running, honest)


def test_a_long_body_is_refused_before_it_is_sent(load, server, running, honest):
    for length in (server.MAX_BODY + 1, 2**40):
        ask_once(load, running, load.Request(load.post(b"", length, output_size=1), 413))
    ask_once(load, running, honest)


def test_a_body_in_chunks_is_counted(load, server, running, honest):
    head = load.post(b"", output_size=1).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"%x\r\n" % (server.MAX_BODY + 1) + bytes(server.MAX_BODY + 1)  # and no end
    ask_once(load, running, load.Request(head + chunk, 413))
    ask_once(load, running, honest)


@pytest.mark.parametrize(
    "data", [b"", b"GET", b"POST /roi_align HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc"]
)
def test_clients_that_stall_hold_no_thread(data, load, running, honest):
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stalled = stack.enter_context(socket.create_connection(running, load.TIMEOUT))
            stalled.sendall(data)
        ask_once(load, running, honest)


def test_clients_that_do_not_read_hold_no_thread(load, running, honest):
    """Three requests at once, each with an answer of 16 MB: more than fits into buffers."""
    maps, boxes = np.ones((1, 8, 1, 1), np.float32), np.zeros((8, 5), np.float32)
    data = load.post(saved(maps, boxes), output_size=255)
    with socket.create_connection(running, load.TIMEOUT) as deaf:
        deaf.sendall(3 * data)
        for _ in range(4):  # others take turns with those three
            ask_once(load, running, honest)


def test_workers_end_with_the_process_that_started_them(load, honest):
    with load.serving("processes") as (server, address):
        ask_once(load, address, honest)
        children = pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        workers = [os.pidfd_open(int(child)) for child in children]
        assert len(workers) >= sys.modules["server"].CORES
        server.kill()
        ended = [select.select([worker], [], [], load.TIMEOUT)[0] for worker in workers]
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker, signal.SIGKILL)
            os.close(worker)
        assert all(ended)


def run_load(*arguments, timeout=120):
    """Run the script; one that takes too long is interrupted, so that it ends its server."""
    command = [sys.executable, FOLDER / "load.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as script:
        try:
            printed, errors = script.communicate(timeout=timeout)
        finally:
            script.send_signal(signal.SIGINT)
    return script.returncode, printed, errors


def test_load(tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "servers.md"
    page.write_text(PAGE.read_text())
    small = ("--rounds", "1", "--seconds", "5", "--requests", "2")
    status, printed, errors = run_load("--setting", "processes", *small, "--write", page)
    assert status == 0, errors
    rows = [line for line in printed.splitlines() if line.startswith("| processes")]
    assert [row.split(" | ")[1] for row in rows] == [
        "1 client",
        "8 clients",
        "11 clients",
        "8 clients, 3 hostile",
    ]
    for row in rows:
        rate, p50, p99, hostile, cpu, memory = map(float, row.strip("| ").split(" | ")[2:])
        assert rate > 0
        assert 0 < p50 <= p99
        assert (hostile > 0) == ("hostile" in row)
        assert cpu > 0
        assert 20 < memory < 2000
    assert all(row in page.read_text() for row in rows)
    assert (tmp_path / "servers" / "load.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "example.org"])
def test_load_refuses_other_machines(host):
    status, _, errors = run_load("--host", host)
    assert status == 2
    assert "no IPv4 loopback address" in errors
