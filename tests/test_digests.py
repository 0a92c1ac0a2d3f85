"""The bits of all operators are those that data/digests.json recorded."""

import json

import digests
import pytest


@pytest.mark.parametrize("direction", digests.DIRECTIONS)
def test_bits_are_those_recorded(direction):
    names = digests.differing(direction, digests.digests(direction))
    assert not names, f"{len(names)} calls differ: {'; '.join(names)}"


def test_every_call_is_recorded_and_no_other():
    recorded = json.loads(digests.DATA.read_text())
    names = {(direction, rest) for direction, of_calls in recorded.items() for rest in of_calls}
    assert names == set(digests.calls())
