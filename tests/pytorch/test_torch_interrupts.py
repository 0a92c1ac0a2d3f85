"""cyroialign.torch: what a signal handler raises arrives, through whatever of PyTorch lies between."""

import signal
import threading

import pytest
import torch
from tensors import BINS, IMAGES, SHAPE, WITH_TANGENTS, boxes_of_levels, pooler, pyramid, random, some_boxes
from torch.func import grad, jvp, vmap

import cyroialign.torch
from cyroialign.torch import roi_align

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="the system has no such signals"),
    WITH_TANGENTS,
]


class HandlersOwn(BaseException):
    """What a handler raises that wants the process to end in order."""


def pooled(name):
    pool, boxes = getattr(cyroialign.torch, name), some_boxes()
    return lambda x: pool(x, boxes, BINS)


def of_levels(*maps):
    return pooler()(dict(zip(pyramid(), maps, strict=True)), boxes_of_levels(), IMAGES)


def calls():
    """Each operator, forwards, backwards and by the transforms."""
    input = random(SHAPE)
    for name in ("roi_align", "ps_roi_align", "roi_pool"):
        pool = pooled(name)
        output = pool(input.clone().requires_grad_()).sum()
        yield f"{name}", lambda pool=pool: pool(input)
        yield f"{name}, backwards", output.backward
        yield f"{name}, jvp", lambda pool=pool: jvp(pool, (input,), (input,))
        yield f"{name}, grad", lambda pool=pool: grad(lambda x: pool(x).sum())(input)
        yield f"{name}, vmap", lambda pool=pool: vmap(pool)(input[None])
    maps = [one.requires_grad_() for one in pyramid().values()]
    output = of_levels(*maps).sum()
    yield "levels", lambda: of_levels(*maps)
    yield "levels, backwards", output.backward
    traced = torch.compile(pooled("roi_align"), fullgraph=True, backend="aot_eager")
    traced(input)
    yield "compiled", lambda: traced(input)
    differentiable = input.clone().requires_grad_()
    output = traced(differentiable).sum()
    yield "compiled, backwards", output.backward
    boxes = some_boxes().requires_grad_()
    yield "to the boxes", roi_align(input, boxes, BINS).sum().backward


@pytest.fixture(params=[KeyboardInterrupt, HandlersOwn, SystemExit, OSError], ids=lambda kind: kind.__name__)
def raised(request):
    """What a handler raises for a signal, which comes while an operator is at work."""

    def handler(number, frame):
        raise request.param("of the handler")

    before = signal.signal(signal.SIGUSR1, handler)
    yield request.param
    signal.signal(signal.SIGUSR1, before)


def test_exceptions_of_handlers_arrive(raised, monkeypatch):
    assert threading.current_thread() is threading.main_thread()
    at_work = []

    def interrupted(requested):
        at_work.append(True)
        signal.raise_signal(signal.SIGUSR1)
        return 1

    torch.compiler.reset()
    prepared = [*calls()]
    monkeypatch.setattr("cyroialign.operators.calls.threads_for", interrupted)
    for name, call in prepared:
        at_work.clear()
        with pytest.raises(raised, match="of the handler"):
            call()
        assert at_work, name
    monkeypatch.undo()
    for name, call in prepared:  # that none of them broke what comes after
        if "backwards" not in name and "boxes" not in name:
            call()
