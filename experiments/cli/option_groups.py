"""The groups in which `--help` and the site show options: a table by the names of the options.

A name that ends in a dot stands for all options that begin with it.
"""

OTHER = "other options"
"""The title of the group of options that are in no group of the table."""

GROUPS: dict[str, tuple[str, ...]] = {
    "study": (
        *("parts", "methods", "strategies", "match", "include", "seeds", "config", "only", "part", "tune", "tuning."),
        *("dry_run", "time_steps", "time_steps_of"),
    ),
    "method": (
        *(
            "method",
            "when",
            "rho",
            "alpha",
            "rho_min",
            "alpha_min",
            "gamma",
            "sigma",
            "lam",
            "theta",
            "eta",
            "ascent_steps",
        ),
        *("damping", "m", "on_nonfinite"),
    ),
    "batch and rate": (
        *("batch_plan", "constant_plan", "increasing_plan", "epochs", "adaptive_rule", "passes", "lr_schedule"),
        *("learning_rate", "tuned_rates", "warmup_epochs", "optimizer", "momentum", "weight_decay", "ema"),
    ),
    "data": (
        *("dataset", "data_dir", "manual_dir", "image_size", "crop_padding", "flip", "examples_in_file"),
        "images_digest",
        *("train_examples", "validation", "split", "seed", "label_noise", "auto_augment", "random_erasing", "mixing"),
        "label_smoothing",
    ),
    "network": ("model", "stem", "shifted_patches", "locality_attention", "drop_path", "precision"),
    "devices": (
        *("devices", "perturbation", "micro_batch", "compile_once", "fsdp", "distributed", "coordinator"),
        *("processes", "process", "jobs"),
    ),
    "saving": ("output", "resume", "saving.", "tensorboard", "targets", "finished", "time_limit"),
    "sharpness": ("sharpness.",),
    "measurements": (
        *("every", "accuracy_targets", "norm_targets", "measured_rho", "measured_batch_size"),
        "reestimate_batchnorm",
    ),
    "quadratic": ("quadratic.",),
}
"""The titles of the groups, in their order, with the names of their options."""
