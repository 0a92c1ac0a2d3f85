"""Every operator and its gradients are what the textbook says, over all that a call can say."""

import numpy as np
from operators import assert_textbook, every_direction

SEEDS = 120


@every_direction
def test_any_call(operator, direction):
    reached = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        call = operator.draw(rng)
        layout = operator.layouts[rng.integers(len(operator.layouts))]
        results = operator.run(direction, call, layout, num_threads=1 + seed % 3)
        assert_textbook(operator, direction, call, results, f"{seed=}")
        reached += any(one.any() for one in results)
    assert reached > SEEDS / 3, "boxes that miss the map prove little"
