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
# # Flat minima: SGD, SAM and GSAM side by side
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/YOUR_ACCOUNT/sam_optax/blob/main/notebooks/flat_minima.ipynb)
#
# SAM is said to find flat minima. This notebook trains one network with SGD, SAM and GSAM, and looks at the three
# minima in four ways: how far the loss rises in a ball, how that depends on the ball's radius, how large the
# curvature is, and what the landscape looks like. Then it shows how such numbers can mislead.
#
# It takes about a minute on two cores of a CPU.

# %% [markdown]
# ## Install
#
# The library with two extras, `plots` for the pictures and `curvature` for eigenvalues, and scikit-learn for its
# digits. What is there already stays. The project is not published yet: until it is, install it beforehand, by
# `pip install '.[curvature,plots]'` in a clone of the repository.

# %%
import importlib.util
import subprocess
import sys

REPOSITORY = "https://github.com/YOUR_ACCOUNT/sam_optax"

packages = {
    "sam_optax": f"sam_optax[curvature,plots] @ git+{REPOSITORY}",
    "matfree": "matfree",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
}
missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import sam_optax
from sam_optax import sharpness
from sam_optax.sharpness import plots

# %% [markdown]
# The settings. Fewer epochs end further from a minimum, where all measures are mostly the gradient's.

# %% tags=["parameters"]
EPOCHS = 60
SEEDS = 3
RADII = tuple(1e-5 * 10 ** (k / 2) for k in range(8))
POINTS = 21

# %% [markdown]
# ## Three minima
#
# The digits, 8x8 pixels, 1,024 for training and 773 for the test; a network of one hidden layer. All methods have the
# same optimizer, the same initial parameters and the same order of the data.

# %%
digits = load_digits()
images, labels = np.float32(digits.images.reshape(-1, 64) / 16 - 0.3), np.int32(digits.target)
order = np.random.default_rng(0).permutation(len(labels))
train, test = ((images[rows], labels[rows]) for rows in (order[:1024], order[1024:]))


def init(key, sizes=(64, 64, 10)):
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [{"w": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)} for k, n, m in pairs]


def predict(params, x):
    hidden = jax.nn.relu(x @ params[0]["w"] + params[0]["b"])
    return hidden @ params[1]["w"] + params[1]["b"]


def loss_fn(params, batch):
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, x), y).mean()


def error(params, batch):
    x, y = batch
    return (predict(params, x).argmax(1) != y).mean()


# %%
METHODS = {
    "SGD": sam_optax.sam(rho=0.0),  # at a radius of 0 SAM is the optimizer behind it
    "SAM": sam_optax.sam(rho=0.2),
    "GSAM": sam_optax.gsam(rho=0.2, alpha=0.1),
}
value_and_grad = sam_optax.value_and_grad(loss_fn)


def fit(method, seed):
    """Train for EPOCHS epochs of batches of 64, and give back the parameters."""
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))

    @jax.jit
    def step(params, opt_state, batch):
        _, grads, grad_fn = value_and_grad(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), opt_state

    params = init(jax.random.key(seed))
    opt_state, order = tx.init(params), np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for rows in order.permutation(1024).reshape(-1, 64):
            params, opt_state = step(params, opt_state, (train[0][rows], train[1][rows]))
    return params


minima = {name: [fit(method, seed) for seed in range(SEEDS)] for name, method in METHODS.items()}
print("seed 0     training loss   test loss   test error")
for name, each in minima.items():
    print(f"{name:11}{loss_fn(each[0], train):13.5f}{loss_fn(each[0], test):12.3f}{100 * error(each[0], test):11.2f}%")

# %% [markdown]
# All three fit the training set. Where they differ in test error it is by a few of 773 images, and another seed may
# turn it round: this notebook is about the ground around the minima.
#
# ## How far does the loss rise?
#
# Worst-case sharpness is the most that the loss rises where no parameter moves by more than ρ. It is found by an
# ascent (APGD, 20 steps) on each of some batches. `first_order` is the part of it that the gradient explains: where
# it is most of it, the point is no minimum yet, and its sharpness says how steep it is there rather than how curved.

# %%
batches = [(train[0][i : i + 128], train[1][i : i + 128]) for i in range(0, 1024, 128)]
RHO = 0.003
print(f"worst case at ρ {RHO}, mean ± standard deviation over {SEEDS} seeds")
for name, each in minima.items():
    found = [sharpness.worst_case(loss_fn, params, batches, rho=RHO) for params in each]
    rises = np.array([one.sharpness for one in found])
    part = np.mean([one.first_order / one.sharpness for one in found])
    print(f"{name:5} {rises.mean():.4f} ± {rises.std(ddof=1):.4f}, of that {100 * part:.0f}% first order")

# %% [markdown]
# ## One radius says little
#
# So measure over many. Both axes are logarithmic: a straight line of slope 1 is a gradient, one of slope 2 a
# curvature. The lower panel has the slope.

# %%
curves = {name: sharpness.curve(loss_fn, each[0], batches, rhos=RADII) for name, each in minima.items()}
plots.plot_curve(curves, marks=(0.0002, RHO))

# %% [markdown]
# Read it from left to right. At small radii the slope is near 1: the sharpness there is the gradient's length, and so
# mostly tells how far training has come. Further on the slope rises towards 2, where curvature counts, and past it. At
# the right end the loss is hundreds of times that of the minimum, and tells little of it. Where two curves cross,
# which minimum is flatter depends on who chose the radius. SAM and GSAM are hardly to be told apart at these
# settings.
#
# ## Curvature
#
# The largest eigenvalue of the Hessian is the curvature along the sharpest direction; the trace is the sum of all
# curvatures. Both look at an infinitely small neighbourhood. Here they are for seed 0.

# %%
for name, each in minima.items():
    top = sharpness.top_eigenvalue(loss_fn, each[0], batches)
    whole = sharpness.trace(loss_fn, each[0], batches, samples=30)
    print(f"{name:5} largest eigenvalue {top:7.3f}   trace {float(whole):7.2f} ± {float(whole.standard_error):.2f}")

# %% [markdown]
# ## Landscapes
#
# The loss on a plane through each minimum, along two random directions. They are the same ones for all three, scaled
# filter by filter to the weights, so that a network with larger weights does not look flatter for that alone.

# %%
across = np.linspace(-1, 1, POINTS)
planes = {
    name: sharpness.landscape(
        loss_fn, each[0], batches, sharpness.random_directions(each[0], jax.random.key(7)), coordinates=across
    )
    for name, each in minima.items()
}
plots.plot_landscapes(planes)

# %% [markdown]
# Two directions out of 4,810. Sharp directions are few, and a random plane mostly misses them. Along each minimum's
# own sharpest direction the picture is another one:

# %%
along = {
    name: sharpness.landscape(
        loss_fn, each[0], batches, sharpness.eigenpairs(loss_fn, each[0], batches, 1).vectors, coordinates=across
    )
    for name, each in minima.items()
}
plots.plot_landscapes(along)

# %% [markdown]
# And between the minima: on the straight line from SGD's, at 0, to SAM's, at 1, and on beyond both. Keskar et al.
# (2017) compared the minima of small and of large batches by this kind of picture. A hill between them says that they
# lie in two valleys.

# %%
line = sharpness.landscape(
    loss_fn,
    minima["SGD"][0],
    batches,
    [sharpness.toward(minima["SGD"][0], minima["SAM"][0])],
    coordinates=np.linspace(-0.5, 1.5, 2 * POINTS - 1),
)
plots.plot_landscape(line, "From SGD's minimum, at 0, to SAM's, at 1")

# %% [markdown]
# ## How these numbers mislead
#
# A ReLU network computes the same when one layer is scaled up and the next one down. Nothing that it does has
# changed, so its flatness should not have either. Let us scale SAM's minimum: the first layer by a tenth, the second
# by ten.

# %%
first, second = minima["SAM"][0]
scaled = [jax.tree.map(lambda w: w / 10, first), {"w": 10 * second["w"], "b": second["b"]}]
difference = jnp.abs(predict(scaled, test[0]) - predict(minima["SAM"][0], test[0])).max()
print(f"the logits differ by at most {difference:.6f}")
for adaptive in (False, True):
    before, after = (
        sharpness.worst_case(loss_fn, params, batches, rho=RHO, adaptive=adaptive).sharpness
        for params in (minima["SAM"][0], scaled)
    )
    print(f"adaptive={adaptive!s:5}  before {float(before):.5f}  after {float(after):.5f}")

# %% [markdown]
# The plain measure calls the same function many times sharper. The adaptive one, in which each weight is its own
# unit, stays where it was, up to rounding. So compare plain sharpness between networks of one architecture that were
# trained alike, as above, and not between others.
#
# ## What was seen
#
# - Whether SAM's and GSAM's minima are flatter than SGD's can be read off the numbers above. Only the first measure has
#   the spread over seeds beside it. Look at more than one measure before you say it: they need not agree.
# - It was one small network on one small data set. And flatter need not be better: the test errors differ by a few
#   images.
# - `docs/sharpness.md` has all measures, with what each costs and what leaves it unchanged; `docs/results` has what
#   sharpness came out in the study.
# - For runs of the experiment program: `python -m experiments.sharpness runs/digits --measures curve landscape`.
