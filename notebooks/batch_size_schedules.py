# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Batch size schedules
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/YOUR_ACCOUNT/sam_optax/blob/main/notebooks/batch_size_schedules.ipynb)
#
# The noise of training is proportional to the learning rate divided by the batch size. A batch size that grows during
# training therefore has a similar effect to a learning rate that decays. Harada and Iiduka study whether a growing
# batch size helps SAM and GSAM ([arXiv 2409.09984](https://arxiv.org/abs/2409.09984)). This notebook introduces the
# library's tools for batch size schedules. It ends with a small version of the paper's comparison, and adds a control
# that the paper does not have.
#
# The last part takes about six minutes on two cores of a CPU. All parts before it take less than a minute.

# %% [markdown]
# ## Install
#
# The last part requires the experiment program, which is part of the repository but not of the installed package. In a
# clone of the repository, this cell installs nothing. Elsewhere, it clones the repository and installs the requirements
# of the program. Installed versions of JAX, NumPy and TensorFlow are kept. The project is not published yet: run this
# notebook in a clone.

# %%
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

REPOSITORY = "https://github.com/YOUR_ACCOUNT/sam_optax"

above = (Path.cwd(), *Path.cwd().parents)
root = next((folder for folder in above if (folder / "experiments" / "reproduce.py").is_file()), None)
if root is None:
    root = Path.cwd() / "sam_optax"
    if not root.exists():
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(root)], check=True)
    installed = {each.name.lower(): each.version for each in distributions()}
    kept = [f"{name}=={version}" for name, version in installed.items() if name.startswith(("jax", "numpy", "libtpu"))]
    extra = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["experiments"]
    if "tensorflow" in installed:
        extra = [each for each in extra if not each.startswith(("tensorflow>", "tensorflow-cpu"))]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(root), *extra, *kept], check=True)

# %%
# %matplotlib inline
import json
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from IPython.display import Image, Markdown, display
from sklearn.datasets import load_digits

import sam_optax
from sam_optax import BatchPlan

# %% [markdown]
# ## Settings
#
# - `EPOCHS` is the number of epochs of the runs in the sections on the noise scale and on adaptive plans.
#
# The other settings are those of the comparison at the end:
#
# - `OUTPUT` is the folder of its runs. Runs that are complete in this folder are not repeated.
# - `SEEDS`, `METHODS` and `STRATEGIES` select its runs.
# - `CONSTANT` and `INCREASING` are its two batch plans, as epochs x batch size.
# - `EXAMPLES` is the number of training images on which sharpness is measured.

# %% tags=["parameters"]
EPOCHS = 30
OUTPUT = "runs/batch_size_schedules"
SEEDS = (0, 1, 2)
METHODS = ("sgd", "sam", "gsam")
STRATEGIES = ("constant", "constant_first", "increasing", "cosine")
CONSTANT = "25x128"
INCREASING = "5x16,5x32,5x64,5x128,5x256"
EXAMPLES = 128

# %% [markdown]
# ## Batch plans
#
# A `BatchPlan` defines the batch size of each epoch. From the number of training examples it computes the number of
# updates, the updates at which the batch size changes, and the epoch of each update. The following are the paper's two
# plans for CIFAR, which has 50,000 training images.

# %%
CIFAR = 50_000
constant = BatchPlan.constant(128, epochs=200)
growing = BatchPlan.exponential(initial=16, factor=2, every=40, epochs=200)
for name, plan in {"constant": constant, "growing": growing}.items():
    print(f"{name:9}{plan!s:33}{plan.total_steps(CIFAR):8,} updates, batch size changes at {plan.boundaries(CIFAR)}")

# %% [markdown]
# The left panel shows the plans over epochs, and the right panel shows them over updates. In the same 200 epochs, the
# growing plan makes three times as many updates as the constant plan, and half of its updates use the smallest batch
# size.

# %%
LINES = {"constant": {"color": "0.55", "linewidth": 3}, "growing": {"color": "black", "linestyle": "--"}}


def use_log2_axis(panel):
    """Sets a logarithmic axis of base 2 with plain numbers as tick labels."""
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter("{x:g}")


def draw_plans(panel, plans, position, xlabel):
    """Draws the batch size of each plan; `position(plan, epoch)` is the coordinate of an epoch on the x-axis."""
    for name, plan in plans.items():
        epochs = range(plan.epochs + 1)
        sizes = [plan.batch_size_at(min(epoch, plan.epochs - 1)) for epoch in epochs]
        panel.step([position(plan, epoch) for epoch in epochs], sizes, where="post", label=name, **LINES[name])
    panel.set(xlabel=xlabel, ylabel="batch size")
    use_log2_axis(panel)


def updates_before(plan, epoch):
    """Returns the number of updates before an epoch."""
    return sum(CIFAR // plan.batch_size_at(earlier) for earlier in range(epoch))


figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
plans = {"constant": constant, "growing": growing}
draw_plans(panels[0], plans, lambda plan, epoch: epoch, "epoch")
draw_plans(panels[1], plans, updates_before, "update")
panels[0].legend(frameon=False)
panels[1].label_outer()
plt.show()

# %% [markdown]
# ## Schedules in epochs
#
# When the batch size changes, a schedule over updates no longer corresponds to fixed epochs. Therefore, define the
# schedule over epochs. `plan.schedule` converts it to an ordinary Optax schedule over updates. The figure shows a
# cosine decay over 200 epochs, converted with both plans. The learning rate is the same function of the epoch for both
# plans, and a different function of the update.

# %%
cosine = optax.cosine_decay_schedule(0.1, decay_steps=200)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for name, plan in plans.items():
    rate = jax.jit(jax.vmap(plan.schedule(cosine, num_examples=CIFAR)))
    steps = np.linspace(0, plan.total_steps(CIFAR) - 1, 400).astype(int)
    epochs = [plan.epoch_at(int(step), CIFAR) for step in steps]
    panels[0].plot(epochs, rate(steps), label=name, **LINES[name])
    panels[1].plot(steps, rate(steps), **LINES[name])
panels[0].set(xlabel="epoch", ylabel="learning rate")
panels[1].set(xlabel="update")
panels[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Growth in place of a decay
#
# Dividing the learning rate by a factor and multiplying the batch size by the same factor have the same effect on the
# noise of training (Smith et al., 2018). `growth_for_decay` converts a decay of the learning rate to a batch plan with
# a maximum batch size, and a schedule for the remaining learning rate. The remaining learning rate decays when the
# batch size cannot grow further.

# %%
decay = optax.piecewise_constant_schedule(0.1, {60: 0.2, 120: 0.2, 160: 0.2})
plan, remaining_rate = sam_optax.growth_for_decay(decay, initial=128, epochs=200, maximum=2048)
print("plan:", plan)
for epoch in (0, 60, 120, 160):
    batch_size, rate = plan.batch_size_at(epoch), remaining_rate(epoch)
    is_equal = np.isclose(rate / batch_size, decay(epoch) / 128)
    print(f"epoch {epoch:3}: batch size {batch_size:4}, rate {rate:.4f}, same ratio of rate to batch size: {is_equal}")

# %% [markdown]
# `decay_for_growth` is the inverse. It returns the learning rate that, at a constant batch size, has the same effect as
# the growing batch. Alternatively, the learning rate can grow with the batch size: `rate_for_growth` implements the
# linear and the square-root scaling rules.

# %%
stage_starts = (0, 40, 80, 120, 160)
equivalent = sam_optax.decay_for_growth(growing, 0.1)
print("learning rate at a constant batch of 16:", [round(float(equivalent(epoch)), 5) for epoch in stage_starts])
for rule in ("linear", "square_root"):
    scaled = sam_optax.rate_for_growth(growing, 0.01, rule)
    rates = [round(float(scaled(epoch)), 3) for epoch in stage_starts]
    print(f"learning rate of the growing plan, {rule + ' rule:':17}", rates)

# %% [markdown]
# ## The gradient noise scale
#
# The gradient noise scale `tr Σ/‖G‖²` is the batch size at which the noise of a gradient is as large as the gradient
# (McCandlish et al., 2018). Here `G` is the full gradient, and `Σ` is the covariance of the gradient of one example.
# Far below the noise scale, doubling the batch size nearly halves the number of steps that training needs. Far above
# it, a larger batch size has almost no benefit.
#
# The noise scale can be estimated without additional gradients if a step processes its batch in micro-batches.
# `micro_batches=` divides the batch, `measure_noise=True` measures the variance between the micro-batches, and
# `track_noise` averages the measurements over steps.
#
# The example trains a small network on scikit-learn's digits with GSAM.

# %%
digits = load_digits()
images, labels = np.float32(digits.images.reshape(-1, 64) / 16 - 0.3), digits.target
TRAIN, PARTS = 1024, 4


def init(key, sizes=(64, 64, 10)):
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [{"w": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)} for k, n, m in pairs]


def loss_fn(params, x, y):
    hidden = jax.nn.relu(x @ params[0]["w"] + params[0]["b"])
    logits = hidden @ params[1]["w"] + params[1]["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


method = sam_optax.gsam(rho=0.05, alpha=0.02)
tx = optax.chain(sam_optax.track_noise(method, decay=0.9), optax.sgd(0.1))
value_and_grad = sam_optax.value_and_grad(loss_fn, micro_batches=PARTS, measure_noise=True)


@jax.jit
def step(params, opt_state, x, y):
    loss, grads, grad_fn = value_and_grad(params, x, y)
    updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), opt_state, loss


def train(batch_size_of, after_epoch=lambda noise: None):
    """Trains a network, and returns the batch size, the mean loss and both noise scales of each epoch.

    `batch_size_of(epoch)` returns the batch size of an epoch. `after_epoch` is called with the measured noise.
    """
    params = init(jax.random.key(0))
    opt_state = tx.init(params)
    rng, records = np.random.default_rng(0), []
    for epoch in range(EPOCHS):
        size = batch_size_of(epoch)
        losses = []
        for rows in rng.permutation(TRAIN).reshape(-1, size):
            params, opt_state, loss = step(params, opt_state, images[rows], labels[rows])
            losses.append(loss)
        noise = sam_optax.measured_noise(opt_state)
        records.append((size, float(np.mean(losses)), float(noise.clean.scale), float(noise.perturbed.scale)))
        after_epoch(noise)
    return np.array(records).T


sizes, losses, clean, perturbed = train(lambda epoch: 32)
figure, panel = plt.subplots(figsize=(7, 3.4), layout="constrained")
panel.axhline(32, color="0.6", linewidth=3, label="batch size")
for values, marker, name in (
    (clean, "o", "of the clean gradient"),
    (perturbed, "^", "of the sharpness-aware gradient"),
):
    panel.plot(values, color="black", marker=marker, markersize=4, linewidth=0.6, label=f"noise scale {name}")
panel.set(xlabel="epoch", ylabel="examples", title="Noise scale of GSAM on the digits, batch size 32")
use_log2_axis(panel)
panel.legend(frameon=False)
plt.show()
for name, scales in {"clean": clean, "sharpness-aware": perturbed}.items():
    print(f"{name} gradient: {np.isinf(scales).sum()} of {EPOCHS} estimates are infinite and not shown in the figure")

# %% [markdown]
# During training, the norm of the gradient usually decreases faster than its noise. The noise scale therefore tends to
# rise, and larger batches become useful. A single estimate is inaccurate, as the fluctuations in the figure show. The
# estimate is infinite if the noise is so large that the estimate of `‖G‖²` is not positive. Such an estimate only
# indicates that a larger batch is useful.
#
# ## Adaptive plans
#
# `AdaptiveBatchPlan` determines the batch size during training. At the end of each epoch, a rule requests a batch size.
# If the rule requests more than the current batch size in `patience` consecutive epochs, the batch size grows, up to
# `maximum`. It never decreases. The state of the plan is a tuple that can be saved as JSON. The decisions form a
# `BatchPlan`, which replays the run.

# %%
adaptive = sam_optax.AdaptiveBatchPlan(16, maximum=256, rule=sam_optax.noise_scale_rule(), patience=2)
states = [adaptive.start()]
sizes, losses, clean, perturbed = train(
    lambda epoch: states[-1].batch_size,
    lambda noise: states.append(adaptive.after_epoch(states[-1], noise.perturbed)),
)
replayed = adaptive.plan(states[-1])
print("plan: ", replayed)
print("state:", json.dumps(states[-1]._asdict()))

# %% [markdown]
# The resulting plan replays the run without further decisions. The losses are equal.

# %%
replayed_losses = train(replayed.batch_size_at)[1]
print("the same losses:", np.array_equal(replayed_losses, losses))

figure, panel = plt.subplots(figsize=(7, 3.4), layout="constrained")
panel.step(range(EPOCHS), sizes, where="mid", color="0.6", linewidth=3, label="batch size")
name = "noise scale of the sharpness-aware gradient"
panel.plot(perturbed, color="black", marker="^", markersize=4, linewidth=0.6, label=name)
panel.set(xlabel="epoch", ylabel="examples", title="Noise scale and batch size of an adaptive plan")
use_log2_axis(panel)
panel.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A small version of the paper's comparison
#
# The paper compares SGD, SAM and GSAM, each with a constant batch size, a growing batch size, and a cosine learning
# rate at the constant batch size. This section runs these nine cells of the paper's tables on scikit-learn's 8x8
# digits, with a ResNet of 78,000 parameters.
#
# It adds the control `constant_first`, which uses the first and smallest batch size of the growing plan in all epochs.
# A small batch size makes more updates per epoch. If the growing plan is better than the constant plan, the reason may
# be its small batches and not its growth. The control distinguishes the two.
#
# The table shows the runs of the first seed.


# %%
def run_program(module, *arguments, pattern):
    """Runs a program of the repository, prints the lines that match a pattern, and returns all lines."""
    command = [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)]
    environment = os.environ | {"TTY_COMPATIBLE": "0"}  # no progress bars
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    lines = []
    with subprocess.Popen(command, cwd=root, env=environment, **pipes) as process:
        for line in process.stdout:
            lines.append(line)
            if re.match(pattern, line):
                print(line, end="")
    if process.returncode:
        raise RuntimeError(f"experiments.{module} ended with exit code {process.returncode}:\n{''.join(lines[-20:])}")
    return lines


output = root / OUTPUT
study = ["--output", output, "--seeds", *SEEDS, "--methods", *METHODS, "--strategies", *STRATEGIES]
study += ["--constant-plan", CONSTANT, "--increasing-plan", INCREASING, "--sharpness.examples", EXAMPLES]
planned = run_program("reproduce", *study, "--dry-run", pattern=r"\d+ runs: ")
rows = [re.split(r" {2,}", line.strip()) for line in planned if re.match(rf" (run|\S+-{SEEDS[0]}) ", line)]
rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
display(Markdown("\n".join(f"| {' | '.join(row)} |" for row in rows)))

# %% [markdown]
# The next cell executes the runs, and prints the test error of each run. In a terminal, the same command also shows
# progress bars: `.venv/bin/python -m experiments.reproduce --output ...`.

# %%
_ = run_program("reproduce", *study, pattern=r"\d+ runs|.*seed \d+: |error|not measured")

# %% [markdown]
# The program writes a report to the folder `report` in `OUTPUT`, as `report.md` and `report.html`. The following table
# from the report shows the test error and the sharpness of each method and strategy.

# %%
report = (output / "report" / "report.md").read_text(encoding="utf-8")
start = report.index("| test error")
display(Markdown(report[start : report.index("\n\n", start)]))

# %% [markdown]
# The next table from the report compares the strategies. Each cell has the mean difference in test error A − B, paired
# by seed, and its 95% confidence interval. The check mark ✓ means that the interval excludes 0 and A has the lower
# error. The cross ✗ means that the interval excludes 0 and B has the lower error. The question mark means that no
# difference is shown.

# %%
start = report.index("| method |", report.index("## Differences in test error\n"))
display(Markdown(report[start : report.index("\n\n", start)]))

# %%
for picture in sorted((output / "report" / "pictures").rglob("test-error-against-gradient-evaluations.png")):
    display(Image(picture, width=700))

# %% [markdown]
# ## Interpretation
#
# Compare the differences between strategies with the standard deviations over seeds, and compare the growing batch with
# the control. The results are evidence for growth itself only if the growing plan is better than a constant batch of
# its smallest size. A question mark in the table means that these seeds show no difference. It does not mean that there
# is none.
#
# `docs/results` has the results on the digits with ten seeds and more controls. There, the growing batch has a lower
# test error than a constant batch of 128 at equal epochs, as in the paper's tables. Compared with the best constant
# batch, a lower test error is shown in one case of seven.
#
# ## Further reading
#
# - `--match epochs updates gradients` repeats the comparison at equal updates and at equal gradient evaluations.
# - `--config cifar100_resnet18` selects a row of the paper's tables; see `notebooks/tpu_cifar100.ipynb`.
# - `docs/study.md` describes all options of the study.
# - `docs/batch_plans.md` describes all batch plans.
