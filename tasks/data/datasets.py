"""Every data set: the book's by their names, and a user's own."""

from tasks.data.dataset import Dataset
from tasks.data.fashion_mnist import FashionMnist
from tasks.data.image_dataset import ImageDataset
from tasks.data.synthetic import SyntheticLinear
from tasks.data.table_dataset import TableDataset
from tasks.parameters import Data

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (FashionMnist(), SyntheticLinear())}


def find(name: str, data: Data) -> Dataset:
    """The data set of this name: own data are kept under their model's."""
    if data.source is None:
        return DATASETS[name]
    return (ImageDataset if data.is_images else TableDataset)(name, data.source)
