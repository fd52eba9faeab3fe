"""Every data set by its name."""

from tasks.data.dataset import Dataset
from tasks.data.fashion_mnist import FashionMnist
from tasks.data.synthetic import SyntheticLinear

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (FashionMnist(), SyntheticLinear())}
