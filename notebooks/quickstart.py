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
# # Quickstart: SAM and GSAM in an Optax chain
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/YOUR_ACCOUNT/sam_optax/blob/main/notebooks/quickstart.ipynb)
#
# This notebook starts from a JAX training loop with an Optax optimizer and adds sharpness-aware minimisation (SAM) to
# it. Three lines of the loop change. The notebook then compares SGD, SAM and GSAM over ten seeds, measures what the
# second gradient adds, and ends with a guide to choosing a method.
#
# It requires only the library, and matplotlib for the figures. It takes about a minute on two cores of a CPU.

# %% [markdown]
# ## Install
#
# This cell installs the library and matplotlib if they are missing. An installed JAX of version 0.10 or newer is kept.
# The project is not published yet: run `pip install .` in a clone of the repository before you run this notebook.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "https://github.com/YOUR_ACCOUNT/sam_optax"

packages = {"sam_optax": f"sam_optax @ git+{REPOSITORY}", "matplotlib": "matplotlib"}
missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)

# %%
# %matplotlib inline
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy import stats  # SciPy is installed with JAX

import sam_optax

# %% [markdown]
# ## Settings
#
# - `EPOCHS` is the number of epochs of each run.
# - `SEEDS` is the number of runs of each method, each with its own seed. With fewer seeds, the confidence intervals are
#   wider.
# - `RADII` are the radii that are compared in the section on tuning.

# %% tags=["parameters"]
EPOCHS = 100
SEEDS = 10
RADII = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

# %% [markdown]
# ## A data set with label noise
#
# The data are two half moons with 256 training points. About one training label in seven is wrong, so a network that
# fits all training labels overfits. The test labels are correct, so overfitting increases the test error. In the
# figures, circles have the label 0 and triangles have the label 1.

# %%
TRAIN, WRONG = 256, 0.15


def moons(key, size, wrong=0.0):
    """Returns points of two half moons and their labels, of which a fraction `wrong` is flipped."""
    angle_key, noise_key, flip_key = jax.random.split(key, 3)
    label = jnp.arange(size) % 2
    angle = jnp.pi * jax.random.uniform(angle_key, size)
    upper = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    lower = jnp.stack([1 - jnp.cos(angle), 0.5 - jnp.sin(angle)], axis=1)
    points = jnp.where(label[:, None] == 0, upper, lower) + 0.2 * jax.random.normal(noise_key, (size, 2))
    return points, jnp.where(jax.random.bernoulli(flip_key, wrong, size), 1 - label, label)


test = moons(jax.random.key(1000), 2000)
train = moons(jax.random.key(0), TRAIN, WRONG)


def draw_points(panel, points, labels):
    """Draws class 0 as open circles and class 1 as filled triangles, which also differ in greyscale."""
    for label, marker, face in ((0, "o", "none"), (1, "^", "black")):
        panel.scatter(
            *points[labels == label].T, s=16, marker=marker, facecolors=face, edgecolors="black", linewidths=0.7
        )
    panel.set(xlabel="first coordinate", ylabel="second coordinate")


figure, panel = plt.subplots(figsize=(5, 3.4), layout="constrained")
draw_points(panel, *train)
panel.set_title("Training set of seed 0, with label noise")
plt.show()

# %% [markdown]
# ## The model
#
# The parameters can be any pytree of arrays, and the loss can be any function of the parameters and a batch. This
# example is a network with two hidden layers, in plain JAX.


# %%
def init(key, sizes=(2, 64, 64, 2)):
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [{"w": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)} for k, n, m in pairs]


def predict(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def loss_fn(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, x), y).mean()


# %% [markdown]
# ## The training step without SAM
#
# This is the usual Optax training step, with SGD and momentum.

# %%
sgd = optax.sgd(0.1, momentum=0.9)


@jax.jit
def plain_step(params, opt_state, x, y):
    loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
    updates, opt_state = sgd.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


# %% [markdown]
# ## The training step with SAM
#
# Three lines change:
#
# 1. `optax.chain` combines SAM with the optimizer. SAM comes first.
# 2. `sam_optax.value_and_grad` replaces `jax.value_and_grad`. It also returns `grad_fn`, which computes the gradient on
#    the same batch at other parameters.
# 3. `update` takes `grad_fn` as an argument. SAM moves a distance `rho` from the parameters in the direction of the
#    gradient, calls `grad_fn` once at this point, and passes the resulting gradient to the optimizer.
#
# `loss` is the loss at the unperturbed parameters.

# %%
sam = optax.chain(sam_optax.sam(rho=0.2), optax.sgd(0.1, momentum=0.9))  # 1
value_and_grad = sam_optax.value_and_grad(loss_fn)  # 2


@jax.jit
def sam_step(params, opt_state, x, y):
    loss, grads, grad_fn = value_and_grad(params, x, y)
    updates, opt_state = sam.update(grads, opt_state, params, grad_fn=grad_fn)  # 3
    return optax.apply_updates(params, updates), opt_state, loss


# %% [markdown]
# At a radius of 0, SAM computes the same updates as the optimizer alone, bit for bit. You can use this property to test
# your own loop:

# %%
params = init(jax.random.key(1))
loss, grads, grad_fn = value_and_grad(params, *train)
zero_radius = optax.chain(sam_optax.sam(rho=0.0), sgd)
with_sam, _ = zero_radius.update(grads, zero_radius.init(params), params, grad_fn=grad_fn)
without_sam, _ = sgd.update(grads, sgd.init(params), params)
equal = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), with_sam, without_sam))
print("SAM at radius 0 and SGD compute equal updates:", equal)

# %% [markdown]
# ## The training step with GSAM
#
# GSAM subtracts from SAM's gradient `alpha` times the component of the clean gradient that is orthogonal to it. This
# also reduces the surrogate gap, the difference between the perturbed loss and the clean loss. To use GSAM, replace
# `sam` by `gsam` in the chain. The rest of the step is the same for all methods, so one function can create it:


# %%
def make_step(tx):
    """Returns the jitted training step of a chain that begins with a sharpness-aware method."""

    @jax.jit
    def step(params, opt_state, x, y):
        loss, grads, grad_fn = value_and_grad(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


gsam = optax.chain(sam_optax.gsam(rho=0.2, alpha=0.1), optax.sgd(0.1, momentum=0.9))
METHODS = {"SGD": (sgd, plain_step), "SAM": (sam, sam_step), "GSAM": (gsam, make_step(gsam))}

# %% [markdown]
# ## Train
#
# Each seed has its own training set, initial parameters and data order. They are the same for all methods, so the
# methods can be compared seed by seed. `callback` is called with the optimizer state after each step; a later section
# uses it to record diagnostics.


# %%
def fit(tx, step, seed, callback=lambda opt_state: None):
    """Trains on the training set of a seed, and returns the parameters."""
    key = jax.random.key(seed)
    x, y = (np.asarray(array) for array in moons(key, TRAIN, WRONG))
    params = init(jax.random.fold_in(key, 1))
    opt_state = tx.init(params)
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for rows in rng.permutation(TRAIN).reshape(-1, 32):
            params, opt_state, _ = step(params, opt_state, x[rows], y[rows])
            callback(opt_state)
    return params


@jax.jit
def error(params, x, y):
    return jnp.mean(predict(params, x).argmax(1) != y)


trained = {name: [fit(*method, seed) for seed in range(SEEDS)] for name, method in METHODS.items()}
errors = {name: np.array([error(params, *test) for params in runs]) for name, runs in trained.items()}
print(f"test error, mean ± standard deviation over {SEEDS} seeds")
for name, values in errors.items():
    print(f"{name:5} {100 * values.mean():.1f}% ± {100 * values.std(ddof=1):.1f}")

# %% [markdown]
# The standard deviation over seeds is large, so the methods are compared by the paired difference: for each seed, the
# test error of the method minus that of SGD. A difference is statistically significant at the 5% level if its 95%
# confidence interval excludes 0.

# %%
print("paired difference in test error")
for name in ("SAM", "GSAM"):
    difference = 100 * (errors[name] - errors["SGD"])
    half_width = stats.t.ppf(0.975, SEEDS - 1) * difference.std(ddof=1) / SEEDS**0.5
    print(f"{name:4} minus SGD: {difference.mean():+.1f} ± {half_width:.1f} percentage points (95% interval)")

# %% [markdown]
# The next figure shows the predicted class of each method as shading. If the decision boundary bends around a few
# points of the other class, the network has memorised wrong labels.

# %%
grid = np.stack(np.meshgrid(np.linspace(-1.8, 2.8, 200), np.linspace(-1.4, 1.9, 150)), axis=-1)
figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), sharex=True, sharey=True, layout="constrained")
for panel, (name, runs) in zip(panels, trained.items(), strict=True):
    predicted = predict(runs[0], grid.reshape(-1, 2)).argmax(1).reshape(grid.shape[:2])
    panel.contourf(grid[..., 0], grid[..., 1], predicted, levels=[-0.5, 0.5, 1.5], colors=["0.97", "0.78"])
    draw_points(panel, *train)
    panel.set_title(f"{name}: test error {100 * errors[name][0]:.1f}%")
    panel.label_outer()
figure.suptitle("Predicted class and training set of seed 0")
plt.show()

# %% [markdown]
# These results have two limitations. The problem was chosen because its label noise makes overfitting likely, and the
# radius of 0.2 was chosen on the same test set, by the figure in the section on tuning. On your own problem, the gain
# may be smaller, or there may be none.
#
# ## Diagnostics
#
# `sam_optax.diagnostics(opt_state)` returns the measurements of the last step. They include the norms of both
# gradients, the cosine of the angle between them, and the norm of the perturbation.

# %%
records = []
fit(*METHODS["SAM"], seed=0, callback=lambda opt_state: records.append(sam_optax.diagnostics(opt_state)))
measured = jax.tree.map(lambda *steps: np.array(steps), *records)
norms = measured.perturbation_norm
print(f"norm of the perturbation: minimum {norms.min():.2f}, maximum {norms.max():.2f}")


def epoch_means(values):
    """Returns the mean of each epoch."""
    return values.reshape(EPOCHS, -1).mean(1)


figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
top.plot(epoch_means(measured.grad_norm), color="0.6", linestyle="-", linewidth=2.5, label="clean gradient")
top.plot(epoch_means(measured.perturbed_grad_norm), color="black", linestyle="--", label="perturbed gradient")
top.set(ylabel="gradient norm", title="SAM on seed 0, mean of each epoch")
top.legend(frameon=False)
bottom.plot(epoch_means(measured.cosine), color="black")
bottom.axhline(0, color="0.6", linewidth=0.8)
bottom.set(xlabel="epoch", ylabel="cosine similarity", ylim=(min(0, epoch_means(measured.cosine).min()) - 0.05, 1.05))
plt.show()

# %% [markdown]
# If the cosine stays above 0.99, both gradients have nearly the same direction, and the radius is probably too small to
# have an effect. If the cosine is near 0, the gradients have little in common, and the radius is large. If the norm of
# the perturbed gradient is larger than that of the clean gradient, the loss becomes steeper towards the perturbed
# parameters.
#
# ## Tuning the radius
#
# The radius `rho` is the main hyperparameter of SAM. For a first grid, divide and multiply the current value by three.
# The leftmost point in the figure is SGD without SAM.

# %%
by_radius = {0.0: errors["SGD"]}
for rho in RADII:
    tx = optax.chain(sam_optax.sam(rho), optax.sgd(0.1, momentum=0.9))
    step = make_step(tx)
    by_radius[rho] = np.array([error(fit(tx, step, seed), *test) for seed in range(SEEDS)])

figure, panel = plt.subplots(figsize=(6, 3.6), layout="constrained")
means = [100 * values.mean() for values in by_radius.values()]
standard_errors = [100 * values.std(ddof=1) / SEEDS**0.5 for values in by_radius.values()]
panel.errorbar(range(len(by_radius)), means, standard_errors, color="black", marker="o", capsize=3)
panel.set_xticks(range(len(by_radius)), ["SGD", *(f"{rho:g}" for rho in RADII)])
panel.set(xlabel="radius ρ", ylabel="test error, %", title=f"SAM: mean ± standard error over {SEEDS} seeds")
panel.set_ylim(bottom=0)
plt.show()

# %% [markdown]
# This figure uses the test set, so it is only an illustration. To choose a radius for a reported result, hold out a
# part of the training set as a validation set.
#
# ## Fewer second passes
#
# The argument `when=` selects the steps that make a second pass. If the decision is a static argument of the step,
# `jax.jit` compiles two versions of the step, and `policy.at(i)` selects between them. A step without a second pass
# then costs only one gradient.

# %%
policy = sam_optax.every(5)
every_fifth = optax.chain(sam_optax.sam(rho=0.2, when=policy), optax.sgd(0.1, momentum=0.9))


@functools.partial(jax.jit, static_argnames="perturb")
def step(params, opt_state, x, y, perturb):
    loss, grads, grad_fn = value_and_grad(params, x, y)
    updates, opt_state = every_fifth.update(grads, opt_state, params, grad_fn=grad_fn, perturb=perturb)
    return optax.apply_updates(params, updates), opt_state, loss


params = init(jax.random.key(1))
opt_state = every_fifth.init(params)
gradients = 0
for i in range(100):
    params, opt_state, loss = step(params, opt_state, *train, perturb=policy.at(i))
    gradients += 1 + policy.at(i)
print(f"100 steps, {gradients} gradients")

# %% [markdown]
# ## Choosing a method
#
# Start with `sam`, and tune its radius. Then choose a method for your problem:
#
# | problem | method | gradients per step |
# |---|---|---|
# | the first method to try, for any model | `sam(rho=0.05)` | 2 |
# | a vision transformer, or a larger radius | `gsam(rho=0.6, alpha=0.1)` | 2 |
# | layers of very different scale | `asam(rho=0.5)` | 2 |
# | Adam as the base optimizer | `wsam_decoupled(base, learning_rate)` | 2 |
# | small, noisy batches | `vasso(rho=0.05)`, `friendly_sam(rho=0.1)` | 2 |
# | training diverges with SAM | `stable_sam(rho=0.05)`, or a smaller radius | 2 |
# | two gradients per step are too expensive | `look_sam(k=5)`, `sam(when=last(0.3, ...))` | 1 + 1/k, 1.3 |
# | only one gradient per step is affordable | `msam(base, rho=0.3)` | 1 |
#
# All methods work in the same loop. The methods with the argument `base` wrap the optimizer instead of preceding it in
# the chain. Evaluate a network trained with `msam` at `sam_optax.msam_eval_params(opt_state, params)`.
#
# ## Further reading
#
# - `docs/frameworks.md`: the training step in Flax NNX, Linen, Equinox and Haiku, with BatchNorm and dropout.
# - `docs/composing.md`: gradient clipping, weight decay, gradient accumulation, frozen layers and several devices.
# - `docs/methods.md`: all methods, their costs, and their results on one problem.
# - `notebooks/batch_size_schedules.ipynb`: batch sizes that grow during training.
# - `notebooks/flat_minima.ipynb`: measures of how flat the minima of SGD, SAM and GSAM are.
