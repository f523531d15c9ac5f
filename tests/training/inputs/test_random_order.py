import torch
from accelerate.data_loader import SeedableRandomSampler

from vsehub.training.inputs.random_order import RandomOrder


def test_the_order_is_that_of_accelerate():
    torch.manual_seed(5)
    for seed in (None, 7):
        ours, theirs = RandomOrder(1000, seed), SeedableRandomSampler(range(1000), data_seed=seed)
        for _ in range(2):  # epochs
            order = list(ours)
            assert order == list(theirs) and type(order[0]) is int
        ours.set_epoch(0)
        assert list(ours) == list(SeedableRandomSampler(range(1000), data_seed=seed)) and len(ours) == 1000
