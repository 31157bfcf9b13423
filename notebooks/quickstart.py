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
# You have a training loop in JAX with an Optax optimizer. This notebook makes it sharpness-aware: three lines change.
# Then it looks at what the second gradient does, compares three methods over ten seeds, and says which method to take
# when.
#
# It needs the library alone, and matplotlib for the pictures. It takes less than a minute on two cores of a CPU.

# %% [markdown]
# ## Install
#
# What is there already stays: of the two packages this cell installs those that are missing. pip leaves the JAX that
# you have as it is, if that is 0.10 or newer. The project is not published yet: until it is, install it beforehand, by
# `pip install .` in a clone of the repository.

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
from scipy import stats  # which JAX needs, too

import sam_optax

# %% [markdown]
# The settings of this notebook. Smaller ones are quicker, and show less.

# %% tags=["parameters"]
EPOCHS = 100
SEEDS = 10
RADII = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

# %% [markdown]
# ## Data that can be learned by heart
#
# Two half moons, 256 points for training. One label in seven is wrong, so a network that fits all of them has learned
# noise. The test points have the right labels: their error tells how much noise was learned. Circles have the label 0,
# triangles the label 1.

# %%
TRAIN, WRONG = 256, 0.15


def moons(key, size, wrong=0.0):
    """Points of two half moons, and their labels, a part of them wrong."""
    turn, noise, lots = jax.random.split(key, 3)
    label = jnp.arange(size) % 2
    angle = jnp.pi * jax.random.uniform(turn, size)
    upper = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    lower = jnp.stack([1 - jnp.cos(angle), 0.5 - jnp.sin(angle)], axis=1)
    points = jnp.where(label[:, None] == 0, upper, lower) + 0.2 * jax.random.normal(noise, (size, 2))
    return points, jnp.where(jax.random.bernoulli(lots, wrong, size), 1 - label, label)


test = moons(jax.random.key(1000), 2000)
train = moons(jax.random.key(0), TRAIN, WRONG)


def draw_points(panel, points, labels):
    """Open circles and filled triangles, so that they differ in grey, too."""
    for label, marker, face in ((0, "o", "none"), (1, "^", "black")):
        panel.scatter(
            *points[labels == label].T, s=16, marker=marker, facecolors=face, edgecolors="black", linewidths=0.7
        )
    panel.set(xlabel="first coordinate", ylabel="second coordinate")


figure, panel = plt.subplots(figsize=(5, 3.4), layout="constrained")
draw_points(panel, *train)
panel.set_title("The training set of seed 0: one label in seven is wrong")
plt.show()

# %% [markdown]
# ## A model of your own
#
# Any tree of arrays, and any loss of it and of a batch. Here it is a network of two hidden layers, in plain JAX.


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
# ## The step that you have
#
# SGD with momentum, and the step of every Optax loop.

# %%
sgd = optax.sgd(0.1, momentum=0.9)


@jax.jit
def plain_step(params, opt_state, x, y):
    loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
    updates, opt_state = sgd.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


# %% [markdown]
# ## The step with SAM: three lines change
#
# 1. SAM stands in front of the optimizer, in one chain.
# 2. `sam_optax.value_and_grad` takes the place of `jax.value_and_grad`. With the loss and the gradient it returns
#    `grad_fn`, which gives the gradient on the same batch at other parameters.
# 3. The update gets `grad_fn`. SAM calls it once, at the point a distance `rho` up the gradient, and hands on what it
#    finds there.
#
# The loss is that of the first pass, at the parameters themselves.

# %%
sam = optax.chain(sam_optax.sam(rho=0.2), optax.sgd(0.1, momentum=0.9))  # 1
value_and_grad = sam_optax.value_and_grad(loss_fn)  # 2


@jax.jit
def sam_step(params, opt_state, x, y):
    loss, grads, grad_fn = value_and_grad(params, x, y)
    updates, opt_state = sam.update(grads, opt_state, params, grad_fn=grad_fn)  # 3
    return optax.apply_updates(params, updates), opt_state, loss


# %% [markdown]
# A test that every loop of yours can have: at a radius of 0 SAM is the optimizer behind it, bit for bit.

# %%
params = init(jax.random.key(1))
loss, grads, grad_fn = value_and_grad(params, *train)
nothing = optax.chain(sam_optax.sam(rho=0.0), sgd)
with_sam, _ = nothing.update(grads, nothing.init(params), params, grad_fn=grad_fn)
without, _ = sgd.update(grads, sgd.init(params), params)
print("the same update:", jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), with_sam, without)))

# %% [markdown]
# ## GSAM: another word in the chain
#
# GSAM descends on SAM's gradient, less `alpha` times the part of the clean gradient that is orthogonal to it. So it
# closes the gap between the loss up there and the loss here, too. Nothing else in the loop changes: one function
# makes the step of each method.


# %%
def stepper(tx):
    """The jitted step of a chain with a sharpness-aware method in front."""

    @jax.jit
    def step(params, opt_state, x, y):
        loss, grads, grad_fn = value_and_grad(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


gsam = optax.chain(sam_optax.gsam(rho=0.2, alpha=0.1), optax.sgd(0.1, momentum=0.9))
METHODS = {"SGD": (sgd, plain_step), "SAM": (sam, sam_step), "GSAM": (gsam, stepper(gsam))}

# %% [markdown]
# ## Train
#
# Each seed has its own training set, initial parameters and order of the data, and they are the same for all methods.
# So methods can be compared seed by seed. `watch` sees the optimizer's state after every step; we shall need it
# below.


# %%
def fit(tx, step, seed, watch=lambda opt_state: None):
    """Train on the points of a seed, and give back the parameters."""
    key = jax.random.key(seed)
    x, y = (np.asarray(each) for each in moons(key, TRAIN, WRONG))
    params = init(jax.random.fold_in(key, 1))
    opt_state = tx.init(params)
    order = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for rows in order.permutation(TRAIN).reshape(-1, 32):
            params, opt_state, _ = step(params, opt_state, x[rows], y[rows])
            watch(opt_state)
    return params


@jax.jit
def error(params, x, y):
    return jnp.mean(predict(params, x).argmax(1) != y)


trained = {name: [fit(*method, seed) for seed in range(SEEDS)] for name, method in METHODS.items()}
errors = {name: np.array([error(params, *test) for params in each]) for name, each in trained.items()}
for name, each in errors.items():
    print(f"{name:5} test error {100 * each.mean():.1f}% ± {100 * each.std(ddof=1):.1f} over {SEEDS} seeds")

# %% [markdown]
# The spread over seeds is wide, so compare pairs: the same seed with and without. A difference is worth a word where
# its 95% interval leaves 0 out.

# %%
for name in ("SAM", "GSAM"):
    difference = 100 * (errors[name] - errors["SGD"])
    half = stats.t.ppf(0.975, SEEDS - 1) * difference.std(ddof=1) / SEEDS**0.5
    print(f"{name:5} less SGD: {difference.mean():+.1f} ± {half:.1f} points of test error")

# %% [markdown]
# What was learned looks like this. Shading is the predicted class. Where the border bends around a few points of the
# other kind, the network has learned wrong labels by heart.

# %%
grid = np.stack(np.meshgrid(np.linspace(-1.8, 2.8, 200), np.linspace(-1.4, 1.9, 150)), axis=-1)
figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), sharex=True, sharey=True, layout="constrained")
for panel, (name, each) in zip(panels, trained.items(), strict=True):
    predicted = predict(each[0], grid.reshape(-1, 2)).argmax(1).reshape(grid.shape[:2])
    panel.contourf(grid[..., 0], grid[..., 1], predicted, levels=[-0.5, 0.5, 1.5], colors=["0.97", "0.78"])
    draw_points(panel, *train)
    panel.set_title(f"{name}: test error {100 * errors[name][0]:.1f}%")
    panel.label_outer()
figure.suptitle("The class that seed 0's networks predict, and the training points")
plt.show()

# %% [markdown]
# What these numbers do not show: the problem was chosen to have much to learn by heart, and the radius, 0.2, by the
# figure further down, on the same test points. On a problem of yours the gain may be smaller, or none.
#
# ## What a step did: diagnostics
#
# `sam_optax.diagnostics(opt_state)` finds the method in the chain, and tells what its last step measured: the norms
# of both gradients, the cosine of the angle between them, and how far away the second pass looked.

# %%
measured = []
fit(*METHODS["SAM"], seed=0, watch=lambda opt_state: measured.append(sam_optax.diagnostics(opt_state)))
found = jax.tree.map(lambda *each: np.array(each), *measured)
print(f"the second pass looked {found.perturbation_norm.min():.2f} to {found.perturbation_norm.max():.2f} away")


def smooth(values):
    """Means over an epoch."""
    return values.reshape(EPOCHS, -1).mean(1)


figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
above.plot(smooth(found.grad_norm), color="0.6", linestyle="-", linewidth=2.5, label="at the parameters")
above.plot(smooth(found.perturbed_grad_norm), color="black", linestyle="--", label="at the perturbed parameters")
above.set(ylabel="norm of the gradient", title="SAM on seed 0, means over an epoch")
above.legend(frameon=False)
below.plot(smooth(found.cosine), color="black")
below.axhline(0, color="0.6", linewidth=0.8)
below.set(xlabel="epoch", ylabel="cosine of both gradients", ylim=(min(0, smooth(found.cosine).min()) - 0.05, 1.05))
plt.show()

# %% [markdown]
# How to read it: where the cosine stays at 1, the second gradient says what the first one said, and the radius is too
# small to matter. Where it is about 0, the second pass has left the neighbourhood that the first one knows, and the
# radius is large. A norm that grows up there says that the ground is steep around.
#
# ## The one number to tune
#
# The radius `rho`. A third and three times of what you have is a good first grid. The first point on the left is SGD.

# %%
by_radius = {0.0: errors["SGD"]}
for rho in RADII:
    tx = optax.chain(sam_optax.sam(rho), optax.sgd(0.1, momentum=0.9))
    step = stepper(tx)
    by_radius[rho] = np.array([error(fit(tx, step, seed), *test) for seed in range(SEEDS)])

figure, panel = plt.subplots(figsize=(6, 3.6), layout="constrained")
means = [100 * each.mean() for each in by_radius.values()]
spread = [100 * each.std(ddof=1) / SEEDS**0.5 for each in by_radius.values()]
panel.errorbar(range(len(by_radius)), means, spread, color="black", marker="o", capsize=3)
panel.set_xticks(range(len(by_radius)), ["SGD", *(f"{rho:g}" for rho in RADII)])
panel.set(xlabel="radius ρ", ylabel="test error, %", title=f"Mean ± standard error over {SEEDS} seeds")
panel.set_ylim(bottom=0)
plt.show()

# %% [markdown]
# This figure chooses the radius by the test set, which is fine for a picture. To choose one for a result, hold out a
# part of the training set.
#
# ## When two gradients are too many
#
# `when=` says which steps make the second pass. A step without it costs one gradient, truly, when the decision is
# static: the step is compiled twice, and `policy.at(i)` says which of both is due.

# %%
policy = sam_optax.every(5)
sometimes = optax.chain(sam_optax.sam(rho=0.2, when=policy), optax.sgd(0.1, momentum=0.9))


@functools.partial(jax.jit, static_argnames="perturb")
def step(params, opt_state, x, y, perturb):
    loss, grads, grad_fn = value_and_grad(params, x, y)
    updates, opt_state = sometimes.update(grads, opt_state, params, grad_fn=grad_fn, perturb=perturb)
    return optax.apply_updates(params, updates), opt_state, loss


params = init(jax.random.key(1))
opt_state = sometimes.init(params)
gradients = 0
for i in range(100):
    params, opt_state, loss = step(params, opt_state, *train, perturb=policy.at(i))
    gradients += 1 + policy.at(i)
print(f"100 steps, {gradients} gradients")

# %% [markdown]
# ## Which method when
#
# Take `sam` first, and tune its radius. Then, by what you have:
#
# | you have | take | gradients a step |
# |---|---|---|
# | any model, to begin with | `sam(rho=0.05)` | 2 |
# | a vision transformer, or a larger radius | `gsam(rho=0.6, alpha=0.1)` | 2 |
# | layers of very different scale | `asam(rho=0.5)` | 2 |
# | Adam behind it | `wsam_decoupled(base, learning_rate)` | 2 |
# | small, noisy batches | `vasso(rho=0.05)`, `friendly_sam(rho=0.1)` | 2 |
# | a loss that diverges with SAM | `stable_sam(rho=0.05)`, or a smaller radius | 2 |
# | no time for two gradients | `look_sam(k=5)`, `sam(when=last(0.3, ...))` | 1 + 1/k, 1.3 |
# | no time for more than one | `msam(base, rho=0.3)` | 1 |
#
# All go into the same loop; the ones with `base` wrap the optimizer instead of standing in front of it. A network that
# was trained with `msam` is evaluated at `sam_optax.msam_eval_params(opt_state, params)`.
#
# ## Where to go on
#
# - `docs/frameworks.md`: the step in Flax NNX, Linen, Equinox and Haiku, with BatchNorm and dropout.
# - `docs/composing.md`: clipping, weight decay, accumulation, frozen layers, several devices.
# - `docs/methods.md`: every method, what it costs, and what each gave on one problem.
# - `notebooks/batch_size_schedules.ipynb`: a batch that grows. `notebooks/flat_minima.ipynb`: are these minima
#   flatter?
