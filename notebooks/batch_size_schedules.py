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
# A batch that grows while the training runs does part of what a falling learning rate does: the noise of an update
# goes with rate over batch size. Harada and Iiduka ask whether it helps SAM and GSAM ([arXiv
# 2409.09984](https://arxiv.org/abs/2409.09984)). This notebook has the tools for that, one after the other, and at
# its end the paper's comparison in small, with a control that the paper does not have.
#
# The last part takes about six minutes on two cores of a CPU, all before it less than one.

# %% [markdown]
# ## Install
#
# The last part needs the experiment program, which stands in the repository beside the library. In a clone this cell
# only finds it. Anywhere else it clones the repository and installs what the program needs, and leaves JAX, NumPy and
# TensorFlow as they are, where they are there. The project is not published yet: until it is, run this in a clone.

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
# The settings. `SEEDS`, `METHODS` and the two plans are those of the comparison at the end, which measures sharpness on
# so many `EXAMPLES`; what is in `OUTPUT` already is not run again.

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
# ## A plan
#
# A `BatchPlan` says which batch size every epoch has. It is plain Python, and the one clock of a run: it knows how
# many updates there are, at which of them the batch grows, and at which epoch each of them is. These are the paper's
# two plans for CIFAR, with its 50,000 training images.

# %%
CIFAR = 50_000
constant = BatchPlan.constant(128, epochs=200)
growing = BatchPlan.exponential(initial=16, factor=2, every=40, epochs=200)
for name, plan in {"constant": constant, "growing": growing}.items():
    print(f"{name:9}{plan!s:33}{plan.total_steps(CIFAR):8,} updates, batch grows at {plan.boundaries(CIFAR)}")

# %% [markdown]
# The same plans against epochs, and against updates. On the right is what a table with the heading "200 epochs" does
# not show: the growing plan makes three times the updates, and half of them with the smallest batch.

# %%
LINES = {"constant": {"color": "0.55", "linewidth": 3}, "growing": {"color": "black", "linestyle": "--"}}


def count_in_twos(panel):
    """A logarithmic axis with the sizes that batches have."""
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter("{x:g}")


def draw_plans(panel, plans, clock, xlabel):
    """The batch size of each plan along a clock: `clock(plan, epoch)`."""
    for name, plan in plans.items():
        epochs = range(plan.epochs + 1)
        sizes = [plan.batch_size_at(min(epoch, plan.epochs - 1)) for epoch in epochs]
        panel.step([clock(plan, epoch) for epoch in epochs], sizes, where="post", label=name, **LINES[name])
    panel.set(xlabel=xlabel, ylabel="batch size")
    count_in_twos(panel)


def updates_until(plan, epoch):
    """How many updates the first epochs make."""
    return sum(CIFAR // plan.batch_size_at(each) for each in range(epoch))


figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
plans = {"constant": constant, "growing": growing}
draw_plans(panels[0], plans, lambda plan, epoch: epoch, "epoch")
draw_plans(panels[1], plans, updates_until, "update")
panels[0].legend(frameon=False)
panels[1].label_outer()
plt.show()

# %% [markdown]
# ## Schedules in epochs
#
# A schedule that counts updates means other epochs as soon as the batch grows. So write it in epochs, and let the
# plan read it: `plan.schedule` gives an ordinary Optax schedule over updates. Below, one cosine of 200 epochs, read
# by both plans: another curve over updates, the same rate at the same part of the data.

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
# A rate that falls by a factor and a batch that grows by it change the noise of an update alike (Smith et al., 2018).
# `growth_for_decay` makes the plan that stands for a decay, up to a largest batch; what cannot be had by growth is
# left to the rate.

# %%
steps_down = optax.piecewise_constant_schedule(0.1, {60: 0.2, 120: 0.2, 160: 0.2})
grown, rate_left = sam_optax.growth_for_decay(steps_down, initial=128, epochs=200, maximum=2048)
print(grown)
for epoch in (0, 60, 120, 160):
    batch, rate = grown.batch_size_at(epoch), rate_left(epoch)
    same = np.isclose(rate / batch, steps_down(epoch) / 128)
    print(f"epoch {epoch:3}: batch {batch:4}, rate {rate:.4f}, the same rate over batch size: {same}")

# %% [markdown]
# `decay_for_growth` goes back: the rate that does at a constant batch what a growing one does. And a larger batch may
# carry a larger rate: `rate_for_growth` has the linear and the square-root rule.

# %%
falling = sam_optax.decay_for_growth(growing, 0.1)
print("in place of the growth, at a batch of 16:", [round(float(falling(epoch)), 5) for epoch in (0, 40, 80, 120, 160)])
for rule in ("linear", "square_root"):
    rising = sam_optax.rate_for_growth(growing, 0.01, rule)
    print(f"beside the growth, {rule + ':':13}", [round(float(rising(epoch)), 3) for epoch in (0, 40, 80, 120, 160)])

# %% [markdown]
# ## The noise scale: when is a batch large enough?
#
# The gradient noise scale, `tr Σ/‖G‖²`, is the batch size at which the noise of a gradient is as large as the
# gradient (McCandlish et al., 2018). Far below it, twice the batch is worth nearly twice the steps; far above it, more
# examples are wasted. A step that goes through its batch in parts has all that the estimate needs, without another
# gradient: `micro_batches=` makes the parts, `measure_noise=True` keeps what they differ by, and `track_noise`
# averages it.
#
# Here is a small network on scikit-learn's digits, with GSAM.

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
    """A run whose batch size is asked for at each epoch: its batch sizes, losses, and noise scales by epoch."""
    params = init(jax.random.key(0))
    opt_state = tx.init(params)
    order, told = np.random.default_rng(0), []
    for epoch in range(EPOCHS):
        size = batch_size_of(epoch)
        losses = []
        for rows in order.permutation(TRAIN).reshape(-1, size):
            params, opt_state, loss = step(params, opt_state, images[rows], labels[rows])
            losses.append(loss)
        noise = sam_optax.measured_noise(opt_state)
        told.append((size, float(np.mean(losses)), float(noise.clean.scale), float(noise.perturbed.scale)))
        after_epoch(noise)
    return np.array(told).T


sizes, losses, clean, perturbed = train(lambda epoch: 32)
figure, panel = plt.subplots(figsize=(7, 3.4), layout="constrained")
panel.axhline(32, color="0.6", linewidth=3, label="batch size")
for values, marker, name in (
    (clean, "o", "of the clean gradient"),
    (perturbed, "^", "of the sharpness-aware gradient"),
):
    panel.plot(values, color="black", marker=marker, markersize=4, linewidth=0.6, label=f"noise scale {name}")
panel.set(xlabel="epoch", ylabel="examples", title="GSAM on the digits, a batch of 32")
count_in_twos(panel)
panel.legend(frameon=False)
plt.show()
counts = " and ".join(str(np.isinf(each).sum()) for each in (clean, perturbed))
print(f"{counts} of {EPOCHS} estimates are infinite, and not in the figure")

# %% [markdown]
# The gradient shrinks as the network learns, its noise less so: the scale tends to rise, and with it the batch that is
# worth having. A single estimate is rough, as the zigzag shows. It is infinite where the noise hides the gradient
# altogether: then all that can be said is that a larger batch would not be wasted.
#
# ## A plan that is decided while training runs
#
# `AdaptiveBatchPlan` asks a rule at each epoch's end. It grows when the rule asked for more in `patience` epochs in a
# row, up to `maximum`, and never shrinks. Its state is a tuple of numbers, which JSON can keep; what it decided becomes
# a `BatchPlan`, which replays the run.

# %%
adaptive = sam_optax.AdaptiveBatchPlan(16, maximum=256, rule=sam_optax.noise_scale_rule(), patience=2)
states = [adaptive.start()]
sizes, losses, clean, perturbed = train(
    lambda epoch: states[-1].batch_size,
    lambda noise: states.append(adaptive.after_epoch(states[-1], noise.perturbed)),
)
replayed = adaptive.plan(states[-1])
print("decided:", replayed)
print("kept:   ", json.dumps(states[-1]._asdict()))

# %% [markdown]
# The plan makes the same run, and nothing is decided any more:

# %%
again = train(replayed.batch_size_at)
print("the same losses:", np.array_equal(again[1], losses))

figure, panel = plt.subplots(figsize=(7, 3.4), layout="constrained")
panel.step(range(EPOCHS), sizes, where="mid", color="0.6", linewidth=3, label="batch size")
panel.plot(perturbed, color="black", marker="^", markersize=4, linewidth=0.6, label="noise scale, as measured")
panel.set(xlabel="epoch", ylabel="examples", title="The batch follows the noise scale, and never falls")
count_in_twos(panel)
panel.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The paper's comparison in small
#
# SGD, SAM and GSAM, with a constant batch, a growing one, and a cosine rate at the constant batch: the nine cells of
# the paper's tables, on scikit-learn's 8x8 digits with a ResNet of 78,000 parameters. To them we add a control,
# `constant_first`: the first, smallest batch of the growing plan, all the way. A small batch makes more updates in an
# epoch, so if the growing plan is better than the constant one, it may be for its small batches rather than for its
# growth. The control tells.
#
# First what is going to be run, with the first seed:


# %%
def program(module, *words, keep):
    """Run a program of the repository, show the lines that match `keep` as they come, and give back all of them."""
    command = [sys.executable, "-m", f"experiments.{module}", *map(str, words)]
    plain = os.environ | {"TTY_COMPATIBLE": "0"}  # a notebook draws no bars
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    said = []
    with subprocess.Popen(command, cwd=root, env=plain, **pipes) as running:
        for line in running.stdout:
            said.append(line)
            if re.match(keep, line):
                print(line, end="")
    if running.returncode:
        raise RuntimeError(f"experiments.{module} ended with exit code {running.returncode}:\n{''.join(said[-20:])}")
    return said


output = root / OUTPUT
study = ["--output", output, "--seeds", *SEEDS, "--methods", *METHODS, "--strategies", *STRATEGIES]
study += ["--constant-plan", CONSTANT, "--increasing-plan", INCREASING, "--sharpness.examples", EXAMPLES]
planned = program("reproduce", *study, "--dry-run", keep=r"\d+ runs: ")
rows = [re.split(r" {2,}", line.strip()) for line in planned if re.match(rf" (run|\S+-{SEEDS[0]}) ", line)]
rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
display(Markdown("\n".join(f"| {' | '.join(row)} |" for row in rows)))

# %% [markdown]
# Each line that comes now is a run, with its test error. In a terminal it is the same command, with a bar of
# progress: `python -m experiments.reproduce --output ...`.

# %%
_ = program("reproduce", *study, keep=r"\d+ runs|.*seed \d+: |error|not measured")

# %% [markdown]
# The report is in `OUTPUT/report`, as `report.md`, `report.html` and pictures. Its first table:

# %%
report = (output / "report" / "report.md").read_text(encoding="utf-8")
table = report[report.index("| test error") : report.index("\n\n", report.index("| test error"))]
display(Markdown(table))

# %% [markdown]
# In words, claim by claim, as the report has it: *holds* stands only where the 95% interval of the difference, seed
# by seed, leaves 0 out.

# %%
claims = report.partition("## The paper's claims\n")[2].partition("\n## ")[0]
display(Markdown(claims))

# %%
for picture in sorted((output / "report" / "pictures").rglob("test-error-against-gradient-evaluations.png")):
    display(Image(picture, width=700))

# %% [markdown]
# ## What these numbers show
#
# Look first at the standard deviations beside the errors, and at the control: is the growing batch better than its own
# smallest batch kept to the end? Where an answer reads *not shown*, three seeds cannot tell. The digits with ten
# seeds, and with more controls, are in `docs/results`: there the growing batch beats the constant 128 at equal epochs,
# as in the paper's tables, and against the best constant batch a gain in error is shown in one case of seven.
#
# To go on: `--match epochs updates gradients` makes the same comparison at equal updates and at equal gradient
# evaluations; `--config cifar100_resnet18` is a row of the paper's own tables (`notebooks/tpu_cifar100.ipynb`);
# `docs/study.md` has all that the program can vary, and `docs/batch_plans.md` all plans.
