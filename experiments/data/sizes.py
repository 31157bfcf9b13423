"""How many training examples the data sets have, for plans that are made before any data are there."""

TRAINING_EXAMPLES = {
    "digits": 512,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "fashion_mnist": 60_000,
    "mnist": 60_000,
    "svhn_cropped": 73_257,
    "tiny_imagenet": 100_000,
    "imagenet2012": 1_281_167,
}
