"""What learns a user's own pictures: the book's network and loop, a small penalty, and steps enough for few of them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.data.prepared_splits import hold_out
from tasks.fitting import rules, tables
from tasks.fitting.building import build
from tasks.fitting.learning import Learning, Parts, epochs, require_enough, require_rows_to_choose, require_validation
from tasks.fitting.splits import load_split
from tasks.judging.objective import Objective
from tasks.machine.telling import tell
from tasks.networks.centring import Centred, mean_and_curvature
from tasks.networks.examples import Examples, Split
from tasks.networks.training import outputs
from tasks.parameters import Steps, Training
from tasks.records import PreparedDataset

# The book's, with Fashion-MNIST.
NUM_INPUTS, BATCH_SIZE, LR, NUM_EPOCHS = 784, 256, 0.1, 10
LEAST_STEPS = 2350  # in 10 epochs of 60 000 pictures
LARGEST_STEP = 1.5


@dataclass(frozen=True)
class Learner:
    """Everything that training needs but the penalty."""

    training: Training
    prepared: PreparedDataset
    objective: Objective
    device: torch.device

    def parts(self, share: float) -> Parts[Split]:
        """Both splits, and what is watched: where the data have no such part, a ``share`` of the training pictures.

        Those have the largest split keys, so that equal pictures are on one side.
        """
        test = load_split(self.prepared, "test").to(self.device)
        return Parts(*fitted_and_validation(self.prepared, share, self.device), test)

    def found(self, num_examples: int, weight_decay: float) -> Training:
        """What was given, and what follows from the pictures where it was not."""
        chosen = steps(self.training, num_examples, math.prod(self.prepared.recipe.input.shape), weight_decay)
        return self.training.model_copy(update=chosen.model_dump())

    def begin(self, data: Parts[Examples], weight_decay: float, generator: torch.Generator) -> Learning:
        """The network at the book's start, and the epochs that train it on these parts."""
        training = self.found(len(data.train), weight_decay)
        of_classes = self.objective.class_weights
        class_weights = torch.tensor(of_classes, device=self.device) if of_classes else None
        net, optimizer = build(training, self.prepared, generator, self.device, class_weights)
        mean = self.mean_to_centre(data.train, training.steps.lr)
        optimizer = optimizer if mean is None else Centred(optimizer, net, mean)
        of_epochs = epochs(net, optimizer, data, training, generator)
        return Learning(net, of_epochs, training, len(data.train), len(data.validation) if data.validation else 0)

    def mean_to_centre(self, train: Examples, lr: float) -> Tensor | None:
        """The mean picture ``(inputs,)``, where steps at this rate would not settle on pixels as they are; else None.

        A step at equal probabilities leaves ``1 - lr * curvature / classes`` of the error along the mean: beyond 2 it
        grows. Fashion-MNIST has 1.1; colour pictures on white, with three classes, 17.
        """
        mean, curvature = mean_and_curvature(train)
        return mean if self.is_to_centre(lr, curvature) else None

    def is_to_centre(self, lr: float, curvature: float) -> bool:
        """The same, of a ``curvature`` that is known."""
        return lr * curvature / len(self.prepared.class_names) > LARGEST_STEP

    def best_decay(self) -> float:
        """The penalty of a short grid with the smallest loss on a validation part; each starts alike."""
        data, losses = self.parts(self.training.validation or rules.VALIDATION), {}
        assert data.validation is not None  # noqa: S101  (the share is never 0)
        for decay in rules.decays(self.training.loss, self.prepared.num_train):
            generator = torch.Generator().manual_seed(self.training.seed_number)
            learning = self.begin(data._replace(validation=None, test=data.validation), decay, generator)
            for _ in learning.epochs:
                pass
            scores = outputs(learning.net, data.validation).cpu().numpy()
            losses[decay] = self.objective.mean(scores, data.validation.y.cpu().numpy())
        return min(losses, key=lambda decay: losses[decay])


def fitted_and_validation(prepared: PreparedDataset, share: float, device: torch.device) -> tuple[Split, Split | None]:
    """The parts without the test split, which is not read."""
    train = load_split(prepared, "train").to(device)
    if prepared.validation:
        return train, load_split(prepared, "validation").to(device)
    if not share:
        return train, None
    held_out = torch.from_numpy(hold_out(tables.split_keys(prepared), share)).to(device)
    fitted, validation = (train.at(torch.nonzero(each).squeeze(1)) for each in (~held_out, held_out))
    require_enough(share, len(fitted), len(validation))
    return fitted, validation


def begin(training: Training, prepared: PreparedDataset, generator: torch.Generator, device: torch.device) -> Learning:
    """Read the pictures onto ``device``, find what was not given, build what learns them.

    Raises:
        UsageError: so few pictures are left for training, or held out, that they say nothing.
        DataError: a file is missing or has changed since it was prepared.
    """
    objective = Objective.of(training, prepared)
    learner, decay = Learner(training, prepared, objective, device), objective.weight_decay
    data = learner.parts(training.validation)
    require_validation(training, data.validation if prepared.validation else None)
    if training.weight_decay == "auto":
        if not prepared.validation:
            require_rows_to_choose(prepared.num_train, training.validation or rules.VALIDATION)
        decay = learner.best_decay()
        tell(f"weight decay {decay:.3g} has the smallest validation loss")
    learning = learner.begin(data, decay, generator)
    found = learning.training.steps
    centred = "" if learner.mean_to_centre(data.train, found.lr) is None else ", pixels less their mean"
    tell(f"minibatches of {found.batch_size}, learning rate {found.lr:g}, weight decay {decay:.3g}{centred}", short="")
    return learning


def steps(training: Training, num_examples: int, num_inputs: int, weight_decay: float) -> Steps:
    """What was given; else the book's, for more pixels a smaller rate, and for fewer pictures more epochs.

    A step's size by a picture's gradient grows with its inputs, and 10 epochs of 500 pictures would be 20 steps.
    """
    batch_size = training.batch_size or BATCH_SIZE
    num_epochs = max(NUM_EPOCHS, math.ceil(LEAST_STEPS / math.ceil(num_examples / batch_size)))
    return Steps(
        num_epochs=training.num_epochs or num_epochs,
        batch_size=batch_size,
        lr=training.lr or LR * min(1.0, NUM_INPUTS / num_inputs),
        weight_decay=weight_decay,
    )
