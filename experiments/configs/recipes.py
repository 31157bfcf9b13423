"""The paper's two set-ups, as settings that its rows share."""

from typing import Any

CNN: dict[str, Any] = {
    "constant_plan": "200x128",
    "increasing_plan": "40x16,40x32,40x64,40x128,40x256",
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "rho": 0.05,
    "alpha": 0.02,
}
"""SGD at 0.1 without momentum and decay, 200 epochs; crop and flip belong to the data sets."""

VIT: dict[str, Any] = {
    "constant_plan": "100x128",
    "increasing_plan": "25x64,25x128,25x256,25x512",
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "warmup_epochs": 10,
    "rho": 0.6,
    "alpha": 0.1,
    "auto_augment": True,
    "random_erasing": 0.25,
    "label_smoothing": 0.1,
    "mixing": 0.5,
    "drop_path": 0.1,
    "passes": 3,
}
"""AdamW, 100 epochs of three passes over the data, a warm-up, and all that keeps a transformer from overfitting."""
